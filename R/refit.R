# What it takes to fit the model of a fit again: to its data or to others, with its number of experts or another.

# The data of a fit, as R/data.R prepares them.
refit_data <- function(fit, env) {
  kept <- unclass(fit)[c("formula", "terms", "xlevels", "contrasts", "na.action", "typical", "range", "ylevels")]
  c(training_data(fit, env), kept, list(row_names = names(fit$fitted.values)))
}

# The settings of a fit, as fit_settings() gives them, with k left open.
refit_settings <- function(fit) {
  c(unclass(fit)[c("router", "expert", "standardize", "control", "method")], list(likelihood = likelihood_of(fit)))
}

# Some rows of prepared data.
data_rows <- function(data, rows) {
  for (part in c("x", "z")) if (!is.null(data[[part]])) data[[part]] <- data[[part]][rows, , drop = FALSE]
  columns <- intersect(c("y", "trials", "w", "offset", "row_names"), names(Filter(Negate(is.null), data)))
  data[columns] <- lapply(data[columns], function(values) values[rows])
  data
}

row_weights <- function(data) if (is.null(data$w)) rep(1, length(data$y)) else data$w

# A solution as a start, in reported coordinates.
start_of <- function(fit) {
  list(
    u = unname(fit$gate$u), b = unname(fit$gate$b), experts = unname(fit$experts), phi = unname(log_dispersion(fit))
  )
}

# The same function with k experts (unless the gate is sparse).
grown_start <- function(fit, k) {
  start <- start_of(fit)
  names(start)[3L] <- "eta"
  free <- length(start$phi) > 0L && fit$dispersions == "free"
  grown <- grow_run(start, k, list(dispersions = if (free) k else 1L))
  list(u = grown$u, b = grown$b, experts = grown$eta, phi = grown$phi)
}

# The fit with k experts, or the condition that stopped it. An interrupt goes on.
try_fit <- function(data, settings, k, call, start = NULL, smaller = NULL) {
  settings$k <- call$k <- as.integer(k)
  tryCatch(
    {
      top_k <- settings$router$top_k
      if (!is.null(top_k)) check_count(top_k, upper = k, argument = "router$top_k")
      check_data(data, k, settings$router, settings$expert, settings$standardize, settings$likelihood)
      fit_checked(data, settings, start, call, smaller)
    },
    cosmoe_error = function(e) if (inherits(e, "cosmoe_error_interrupt")) stop(e) else e
  )
}

is_fit <- function(fit) inherits(fit, "cosine_moe")

# Whether a least squares fit has no residuals but rounding errors.
is_exact <- function(fit) {
  w <- if (is.null(fit$weights)) 1 else fit$weights
  is_fit(fit) && !is_em(fit) && fit$sse <= 1e-20 * sum(w * fit$y^2)
}

is_interrupted <- function(fit) is_fit(fit) && fit$convergence$status == "interrupted"

# Information criteria with the dimension of the model for degrees of freedom. That of a solution may be smaller (a hard
# gate has flat directions), but a model is not to be rewarded for one.
information_criteria <- function(fit) {
  loglik <- as.double(stats::logLik(fit))
  df <- structural_df(fit) + !is_em(fit)
  bic <- -2 * loglik + log(fit$nobs) * df
  list(df = df, logLik = loglik, AIC = -2 * loglik + 2 * df, BIC = bic, ICL = if (is_em(fit)) bic + 2 * fit$entropy)
}

# A solution that means something: a likelihood that grows without limit does not.
is_sound <- function(fit) is_fit(fit) && fit$convergence$status != "degenerate"

# Whether a fit is better than another by more than what counts as the same optimum.
is_better <- function(fit, than) {
  if (!is_sound(fit)) return(FALSE)
  if (!is_sound(than)) return(TRUE)
  margin <- if (is_em(fit)) 0.01 else 0.01 * fit$sse / max(fit$df.residual, 1)
  stats::deviance(fit) < stats::deviance(than) - margin
}

# Fits for each of `k` (increasing): a list of fits, of conditions where there is none, and of NULL after an interrupt.
# Each k begins from the solution before it, its experts doubled in turn, beside its own starts. Then every k is tried
# with two experts of the next larger solution merged; and no k ends above a smaller one. `known`: a fit with the first
# k, if there is one.
sweep_fits <- function(data, settings, k, call, known = NULL) {
  fits <- vector("list", length(k))
  if (!is.null(known)) fits[[1L]] <- known
  last <- known
  for (i in seq_along(k)) {
    if (!is.null(fits[[i]])) next
    smaller <- if (is_sound(last) && last$k == k[i] - 1L) start_of(last)
    fit <- tryCatch(
      not_above(try_fit(data, settings, k[i], call, smaller = smaller), last, data, settings, call),
      cosmoe_error_interrupt = function(e) if (is.null(last) || settings$control$on_interrupt == "stop") stop(e)
    )
    if (is.null(fit)) return(fits)
    fits[[i]] <- fit
    if (is_sound(fit)) last <- fit
    if (is_interrupted(fit)) return(fits)
  }
  tryCatch(
    settle_fits(fits, data, settings, k, call),
    cosmoe_error_interrupt = function(e) if (settings$control$on_interrupt == "stop") stop(e) else fits
  )
}

# Downwards with merged experts, then upwards with doubled ones.
settle_fits <- function(fits, data, settings, k, call) {
  for (i in rev(seq_along(k))[-1L]) {
    if (!is_sound(fits[[i + 1L]]) || k[i + 1L] != k[i] + 1L) next
    for (start in merged_starts(fits[[i + 1L]], data)) {
      tried <- try_fit(data, settings, k[i], call, start)
      if (is_interrupted(tried)) return(fits)
      if (is_better(tried, fits[[i]])) fits[[i]] <- tried
    }
  }
  last <- NULL
  for (i in seq_along(k)) {
    fits[[i]] <- not_above(fits[[i]], last, data, settings, call)
    if (is_sound(fits[[i]])) last <- fits[[i]]
  }
  fits
}

# The fit, or one from the solution of fewer experts where that is better.
not_above <- function(fit, smaller, data, settings, call) {
  if (is.null(smaller) || !is_fit(fit)) return(fit)
  slack <- 1e-9 * if (is_em(fit)) 1 else smaller$sse
  if (is_sound(fit) && stats::deviance(fit) <= stats::deviance(smaller) + slack) return(fit)
  tried <- try_fit(data, settings, fit$k, call, grown_start(smaller, fit$k))
  if (is_sound(tried) && (!is_sound(fit) || stats::deviance(tried) < stats::deviance(fit))) tried else fit
}
