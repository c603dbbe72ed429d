# The fitted object, class `cosine_moe`: plain R data, so that saveRDS() and other processes just work. `data` comes
# from R/data.R, `settings` from fit_settings(), `estimate` from estimate_model().
new_cosine_moe <- function(call, data, settings, estimate) {
  likelihood <- settings$likelihood
  fitted <- residuals <- NULL
  if (is.null(data$source)) {
    fitted <- as.double(estimate$fitted)
    if (is.null(likelihood) && !is.null(data$offset)) fitted <- fitted + data$offset
    # What the search has left would stand beside the data and the two vectors that the object keeps.
    if (length(fitted) > 1e6) gc()
    residuals <- data$y - fitted
    if (!is.null(data$row_names)) names(fitted) <- names(residuals) <- data$row_names
    sse <- if (is.null(data$w)) drop(crossprod(residuals)) else sum(data$w * residuals^2)
    nobs <- if (is.null(data$w)) length(data$y) else sum(data$w > 0)
  } else {
    # No rows: see R/fit-source.R.
    sse <- data$source$sse
    nobs <- data$source$nobs
    if (nobs <= .Machine$integer.max) nobs <- as.integer(nobs)
  }
  df.residual <- nobs - estimate$df

  experts <- paste0("expert", seq_len(settings$k))
  label <- function(values, rows) matrix(values, length(rows), settings$k, dimnames = list(rows, experts))
  by_name <- function(values, names) stats::setNames(as.double(values), names)
  dispersion <- if (length(estimate$phi)) by_name(rep_len(exp(estimate$phi), settings$k), experts)
  structure(
    list(
      call = call,
      method = settings$method,
      family = likelihood$family,
      dispersions = likelihood$dispersions,
      formula = data$formula,
      terms = data$terms,
      xlevels = data$xlevels,
      contrasts = data$contrasts,
      na.action = data$na.action,
      offset = data$offset,
      weights = data$w,
      names = data$names,
      router = settings$router,
      expert = settings$expert,
      k = settings$k,
      standardize = settings$standardize,
      z_center = by_name(estimate$z_center, data$names$z),
      z_scale = by_name(estimate$z_scale, data$names$z),
      gate = list(
        u = label(estimate$u, data$names$z),
        b = by_name(estimate$b, experts),
        beta = label(estimate$beta, data$names$z)
      ),
      experts = label(estimate$eta, expert_par_names(settings$expert, data$names$x)),
      gate_mean = by_name(estimate$gate_mean, experts),
      fitted.values = fitted,
      residuals = residuals,
      dispersion = dispersion,
      loglik = estimate$loglik,
      entropy = estimate$entropy,
      y = data$y,
      trials = data$trials,
      ylevels = data$ylevels,
      sse = sse,
      df = estimate$df,
      df.residual = df.residual,
      sigma = if (!is.null(likelihood)) {
        if (likelihood$family$name == "gaussian") dispersion
      } else if (df.residual > 0) {
        sqrt(sse / df.residual)
      } else {
        NaN
      },
      nobs = nobs,
      starts = estimate$starts,
      convergence = estimate$convergence,
      diagnostics = estimate$diagnostics,
      typical = data$typical,
      range = data$range,
      control = settings$control,
      model = data$model,
      source = data$source
    ),
    class = "cosine_moe"
  )
}
