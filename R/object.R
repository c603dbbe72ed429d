# The fitted object, class `cosine_moe`: plain R data, so that saveRDS() and other processes just work. `data` comes
# from R/data.R, `settings` from fit_settings(), `estimate` from estimate_least_squares().
new_cosine_moe <- function(call, data, settings, estimate) {
  fitted <- as.double(estimate$fitted)
  if (!is.null(data$offset)) fitted <- fitted + data$offset
  residuals <- data$y - fitted
  names(fitted) <- names(residuals) <- data$row_names
  sse <- sum(if (is.null(data$w)) residuals^2 else data$w * residuals^2)
  nobs <- if (is.null(data$w)) length(data$y) else sum(data$w > 0)
  df.residual <- nobs - estimate$df

  experts <- paste0("expert", seq_len(settings$k))
  label <- function(values, rows) matrix(values, length(rows), settings$k, dimnames = list(rows, experts))
  by_name <- function(values, names) stats::setNames(as.double(values), names)
  structure(
    list(
      call = call,
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
      y = data$y,
      sse = sse,
      df = estimate$df,
      df.residual = df.residual,
      sigma = if (df.residual > 0) sqrt(sse / df.residual) else NaN,
      nobs = nobs,
      starts = estimate$starts,
      convergence = estimate$convergence,
      diagnostics = estimate$diagnostics,
      typical = data$typical,
      range = data$range,
      control = settings$control,
      model = data$model
    ),
    class = "cosine_moe"
  )
}
