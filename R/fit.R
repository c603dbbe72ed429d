#' Fit a mixture of experts with a cosine gate by least squares or maximum likelihood
#'
#' @description Fits the regression function \deqn{f(x) = \sum_{k} p_k(z) h(x, \eta_k)}{f(x) = sum_k p_k(z) h(x, eta_k)}
#' by minimising the sum of squares \eqn{\sum_i w_i (y_i - f(x_i))^2}{sum_i w_i (y_i - f(x_i))^2}. The gate \eqn{p_k(z)}
#' is a softmax with a linear, cosine or perturbed cosine router ([router_perturbed_cosine()]), the experts h are
#' linear, polynomial, activation units, small networks or functions of the user ([expert_linear()]). Experts and gate
#' may use different covariates x and z. With `method = "em"` the experts are regressions of a family and the fit
#' maximises the likelihood of the mixture \eqn{\sum_k p_k(z) f(y | h(x, \eta_k), \phi_k)}{sum_k p_k(z) f(y | h(x,
#' eta_k), phi_k)}.
#'
#' @param x A formula (or the name `formula`), or the n x d matrix of the experts' covariates: numeric, or a data frame
#'   of numeric columns. A double matrix is not copied.
#' @param formula `y ~ x1 + x2 | z1 + z2`: response, covariates of the experts, covariates of the gate. One part
#'   serves both. Everything works as in [stats::lm()]: `.`, factors, interactions, splines, `offset()` (in the
#'   experts' part). Experts and gates always have an intercept, so `- 1` and `+ 0` are errors.
#' @param data A data frame (or list, or environment) with the variables of the formula; or a source of rows, for data
#'   larger than memory or spread over machines: see [source_function()].
#' @param k Number of experts, a whole number; 2 by default, the smallest mixture.
#' @param router A router, or its name; the default perturbed cosine router with tau1 = tau2 = 0.1 is the one that the
#'   paper recommends.
#' @param expert An expert, or its name; linear by default, the easiest to read.
#' @param weights Non-negative weights, one for each row, not all zero; they need not be whole numbers. Rows with
#'   weight zero do not count, but get fitted values. `NULL` for equal weights. For `"em"` they multiply the rows'
#'   log-likelihoods: a row of weight 2 counts as two rows.
#' @param subset,na.action,contrasts As in [stats::lm()]. Missing values in a matrix are an error.
#' @param offset A known addend of the regression function, one number for each row; for `"em"`, of each expert's
#'   linear predictor.
#' @param standardize Whether covariates are centred and scaled to mean square 1 (with the weights, divisor n). For
#'   experts and for the linear router this only helps the numerics: coefficients are on the user's scale in any case.
#'   For the cosine routers the angle depends on origin and units, so the gate's centre and scale are part of the model,
#'   stored and used by prediction, and the coefficients are those of the standardized covariates. `TRUE` is the default
#'   because raw units make angles arbitrary; `FALSE` is the paper's model.
#' @param start `NULL` to let the package draw starts, or the one start to use instead: a fit of the same size, or
#'   `list(beta, b, experts)` with a d_gate x k matrix, a vector of length k and a q x k matrix, q the number of
#'   parameters of one expert, in the coordinates in which a fit reports them.
#' @param control Numerical settings, from [moe_control()] or a named list of its arguments.
#' @param model Whether the fit keeps the model frame.
#' @param method `"ls"`, least squares, assumes no distribution and looks at the mean alone; `"em"`, maximum likelihood
#'   by the EM algorithm, models the whole distribution of the response.
#' @param family For `"em"`, as for [stats::glm()] (a family, its function or its name): `gaussian` (links identity,
#'   log, inverse), `binomial` (logit, probit, cloglog), `poisson` (log, identity, sqrt) or `Gamma` (inverse, log,
#'   identity).
#' @param sigma For `"em"` and families with a dispersion: `"free"`, each expert has its own, or `"equal"`, one for all.
#'   The default `"free"` says nothing for the binomial and Poisson families, which have none; `"equal"` is an error.
#' @param y Response, a numeric vector of length n; for the binomial family also a logical vector, a factor of two
#'   levels or a matrix of two columns.
#' @param z The n x d_gate matrix of the gate's covariates; the experts' by default.
#' @param ... Nothing: any further argument is an error.
#'
#' @details All checks come before any work. Data that cannot be fitted stop with a `cosmoe_error_data`: no or one
#' row, a constant response, missing or infinite values, negative weights, more experts or more parameters than rows,
#' and constant or collinear covariates. Covariates are checked where they would leave coefficients undefined: for all
#' experts but constant and custom ones, and for the gate when it is standardized or linear. As with [stats::lm()],
#' `na.action` looks at all variables in the model frame, weights and offset included. Bad arguments stop with a
#' `cosmoe_error_input`.
#'
#' *Maximum likelihood.* The value h of an expert, plus the offset, is its linear predictor; its mean response is the
#' inverse link of that, and fitted values are the mixture's means. A binomial response is 0 or 1, logical, a factor of
#' two levels (the first is failure) or `cbind(successes, failures)`; counts must be whole numbers, a Gamma response
#' positive. The dispersion is sigma for the Gaussian family and the shape (1 over the squared coefficient of variation)
#' for the Gamma family, estimated by maximum likelihood too, divisor n. The gate may be constant (`y ~ x | 1`, with
#' `router = "linear"`): classical mixtures of regressions. Runs begin from the same partitions as least squares, and
#' also from solutions of the models that this one contains: one expert less, equal dispersions, a constant gate.
#'
#' The likelihood of a Gaussian or Gamma mixture has no maximum: an expert may pass through a few points exactly, with
#' sigma going to 0. So sigma is at least 1/1000 of the standard deviation of the response (and the shape at most
#' 1,000,000), and a solution on this bound is returned only where there is no other, or none as good as a smaller
#' model's; then it counts as not converged, with the status "degenerate".
#'
#' Starts are drawn with R's random numbers: `set.seed()` reproduces a fit exactly. They run on the
#' workers of the current `future::plan()`.
#'
#' The sum of squares (like the likelihood) has many local minima, and is not even continuous for sparse gates
#' (`top_k`). Look at `fit$starts`.
#'
#' @return An object of class `cosine_moe`, a list. Its main entries: `gate`, a list of `beta` (d_gate x k, infinite on
#'   the boundary of the parameter space), `b` (length k) and `u` (d_gate x k, see [routers]) in a canonical
#'   representative; `experts` (q x k), columns in order of decreasing mean gate weight `gate_mean` (of sparse gates
#'   only where that leaves all choices as they are: of equal scores the first wins); `fitted.values`,
#'   `residuals`, `sse` (weighted), `df` (number of identifiable parameters), `df.residual`, `sigma` (\eqn{\sqrt{sse /
#'   df.residual}}{sqrt(sse / df.residual)}), `nobs` (rows with positive weight); `starts`, a table of all starts;
#'   `convergence` (`status`, `passes`, `probes`, the `certificate` and others; see [moe_control()]) and
#'   `diagnostics`. For `"em"` also `family` (name and link), `dispersion` (one for each expert;
#'   `sigma` is the same for the Gaussian family and `NULL` for others), `loglik` (the maximum), `entropy` (of the
#'   responsibilities), and `df` counts the dispersions; `objective` in `starts` is -2 times the log-likelihood. A fit
#'   that has not converged gives one warning of class `cosmoe_warning_convergence`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131: model and least squares estimator.
#'
#' @references Jordan, M. I. and Jacobs, R. A. (1994). Hierarchical mixtures of experts and the EM algorithm. Neural
#' Computation 6, 181-214. Varadhan, R. and Roland, C. (2008). Simple and globally convergent methods for accelerating
#' the convergence of any EM algorithm. Scandinavian Journal of Statistics 35, 335-353: the extrapolation.
#'
#' @seealso [moe_control()], [router_perturbed_cosine()], [expert_linear()]; [posterior()], [predict.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, k = 2, control = moe_control(n_starts = 5))
#' fit
#' # Experts use speed, the gate speed and its square.
#' x <- as.matrix(cars["speed"])
#' fit_cosine_moe(x, cars$dist, z = cbind(x, square = x[, 1]^2), control = moe_control(n_starts = 5))
#' # Maximum likelihood: a mixture of two Poisson regressions with a constant gate.
#' fit_cosine_moe(breaks ~ tension | 1, warpbreaks,
#'   method = "em", family = poisson, router = "linear", control = moe_control(n_starts = 5)
#' )
#' @export
fit_cosine_moe <- function(x, ...) UseMethod("fit_cosine_moe")

#' @rdname fit_cosine_moe
#' @export
fit_cosine_moe.formula <- function(formula, data, k = 2, router = "perturbed_cosine", expert = "linear",
                                   weights, subset, na.action, offset, contrasts = NULL, standardize = TRUE,
                                   start = NULL, control = moe_control(), model = FALSE, method = c("ls", "em"),
                                   family = "gaussian", sigma = c("free", "equal"), ...) {
  check_dots_empty(...)
  call <- match.call()
  call[[1L]] <- quote(fit_cosine_moe)
  settings <- fit_settings(k, router, expert, standardize, control, method, family, sigma)
  if (!missing(data) && is_source(data)) {
    return(fit_source(formula, data, call, parent.frame(), contrasts, settings, start, model))
  }
  keep_frame <- check_flag(model)
  data <- data_from_formula(formula, if (!missing(data)) data, call, parent.frame(), contrasts,
                            settings$likelihood)
  if (!keep_frame) data$model <- NULL
  fit_prepared(data, settings, start, call)
}

#' @rdname fit_cosine_moe
#' @export
fit_cosine_moe.default <- function(x, y, k = 2, router = "perturbed_cosine", expert = "linear", z = x, weights = NULL,
                                   offset = NULL, standardize = TRUE, start = NULL, control = moe_control(),
                                   method = c("ls", "em"), family = "gaussian", sigma = c("free", "equal"),
                                   ...) {
  if (missing(x)) stop_input("x", I("missing"), "the first argument, a formula or a matrix")
  check_dots_empty(...)
  call <- match.call()
  call[[1L]] <- quote(fit_cosine_moe)
  settings <- fit_settings(k, router, expert, standardize, control, method, family, sigma)
  if (missing(y)) stop_input("y", I("missing"), "a numeric vector")
  y_name <- if (is.name(call$y)) as.character(call$y) else "y"
  data <- data_from_matrix(x, y, if (!missing(z)) z, weights, offset, y_name, settings$likelihood)
  fit_prepared(data, settings, start, call)
}

# The arguments that need no data to be checked.
fit_settings <- function(k, router, expert, standardize, control, method = "ls", family = "gaussian",
                         sigma = c("free", "equal")) {
  method <- check_choice(method, c("ls", "em"))
  likelihood <- as_likelihood(method, family, sigma)
  control <- as_control(control)
  control$threads <- usable_threads(control$threads)
  if (method == "em" && control$optimizer == "sgd") {
    stop_input("control$optimizer", "sgd", "another for maximum likelihood")
  }
  k <- check_count(k)
  router <- as_router(router)
  if (!is.null(router$top_k)) check_count(router$top_k, upper = k, argument = "router$top_k")
  list(
    k = k,
    router = router,
    expert = as_expert(expert),
    standardize = check_flag(standardize),
    control = control,
    method = method,
    likelihood = likelihood
  )
}

# From checked data to the fitted object.
fit_prepared <- function(data, settings, start, call) {
  check_data(data, settings$k, settings$router, settings$expert, settings$standardize, settings$likelihood)
  check_custom_expert(settings$expert, data$x)
  warn_unconverged(fit_checked(data, settings, check_start(start, data, settings), call))
}

warn_unconverged <- function(fit) {
  if (fit$convergence$status == "degenerate") {
    warn_convergence("The fit is degenerate: ", fit$convergence$message)
  } else if (!isTRUE(fit$convergence$converged)) {
    warn_convergence("The fit has not converged: ", fit$convergence$message)
  }
  fit
}

# `smaller`: see estimate_model().
fit_checked <- function(data, settings, start, call, smaller = NULL) {
  estimate <- estimate_model(
    data, settings$router, settings$expert, settings$k, start, settings$standardize, settings$control,
    settings$likelihood, smaller
  )
  new_cosine_moe(call, data, settings, estimate)
}

# A trial call on a few rows tells a function of the wrong shape before the core meets it.
check_custom_expert <- function(expert, x) {
  if (expert$name != "custom") return(invisible())
  rows <- x[seq_len(min(3L, nrow(x))), , drop = FALSE]
  trial <- function(name, size) {
    result <- tryCatch(
      expert[[name]](rows, rep(0.5, expert$n_par)),
      error = function(e) {
        stop_input(name, I(paste("one that stops with:", conditionMessage(e))), "a function of (x, eta)")
      }
    )
    if (!is.numeric(result) || length(result) != prod(size)) {
      stop_input(name, I(paste("one that gives", describe(result))), paste("a function that gives", size_words(size)))
    }
  }
  trial("value", nrow(rows))
  trial("gradient", c(nrow(rows), expert$n_par))
  # Far from differences of `value`, not merely inexact or at a kink.
  eta <- seq(0.3, 0.7, length.out = expert$n_par)
  size <- 1e-5
  at <- function(j, by) as.vector(expert$value(rows, replace(eta, j, eta[j] + by)))
  numeric <- vapply(seq_along(eta), function(j) (at(j, size) - at(j, -size)) / (2 * size), numeric(nrow(rows)))
  given <- as.vector(expert$gradient(rows, eta))
  off <- abs(given - as.vector(numeric)) > 0.1 * (abs(given) + abs(as.vector(numeric))) + 1e-4
  if (mean(off %in% TRUE) > 0.3) {
    stop_input("gradient", I("far from them"), "the derivatives of `value` by `eta`, one column for each")
  }
}

size_words <- function(size) {
  if (length(size) == 1L) return(sprintf("%d numbers for %d rows", size, size))
  sprintf("a %d x %d matrix for %d rows", size[1L], size[2L], size[1L])
}

# NULL, or list(beta, b, experts, u) in reported coordinates; u is NULL unless the start is a fit with the same router.
check_start <- function(start, data, settings) {
  if (is.null(start)) return(NULL)
  k <- settings$k
  d_gate <- length(data$names$z)
  q <- expert_n_par(settings$expert, length(data$names$x))
  if (inherits(start, "cosine_moe")) return(start_from_fit(start, d_gate, k, q, settings))
  entries <- c("beta", "b", "experts")
  if (!is.list(start) || is.object(start) || !setequal(names(start), entries)) {
    stop_input("start", start, "NULL, a fit, or list(beta = , b = , experts = )")
  }
  if (is.numeric(start$beta) && any(is.infinite(start$beta))) {
    stop_input("start$beta", I("infinite"), "finite (to start on the boundary, give the fit that reached it)")
  }
  start$beta <- rows_by_name(start$beta, data$names$z)
  start$experts <- rows_by_name(start$experts, expert_par_names(settings$expert, data$names$x))
  list(
    beta = check_matrix(start$beta, d_gate, k),
    b = check_vector(start$b, k),
    experts = check_matrix(start$experts, q, k),
    u = NULL
  )
}

# In the order of `names` where the rows have these names: coef() has the intercept first, a fit last.
rows_by_name <- function(value, names) {
  given <- rownames(value)
  if (is.null(given) || !setequal(given, names) || anyDuplicated(given)) return(value)
  value[names, , drop = FALSE]
}

start_from_fit <- function(fit, d_gate, k, q, settings) {
  router <- settings$router
  size <- function(d_gate, k, q) {
    sprintf("a fit with k = %d, %d gate covariates and %d parameters in each expert", k, d_gate, q)
  }
  if (!identical(dim(fit$gate$beta), c(d_gate, k)) || !identical(dim(fit$experts), c(q, k))) {
    stop_input("start", I(size(nrow(fit$gate$beta), fit$k, nrow(fit$experts))), size(d_gate, k, q))
  }
  same <- identical(fit$router[c("name", "scale", "tau1")], router[c("name", "scale", "tau1")])
  if (!same && !all(is.finite(fit$gate$beta))) {
    stop_input("start", I("one on the boundary of another"), "a fit with the same router, or with finite `gate$beta`")
  }
  start <- list(
    beta = unname(fit$gate$beta),
    b = unname(fit$gate$b),
    experts = unname(fit$experts),
    u = if (same) unname(fit$gate$u)
  )
  phi <- start_phi(fit, settings$likelihood)
  if (is.null(phi)) start else c(start, list(phi = phi))
}

# The dispersions of a fit of the same family.
start_phi <- function(fit, likelihood) {
  if (is.null(likelihood) || is.null(fit$dispersion) || fit$family$name != likelihood$family$name) return(NULL)
  phi <- unname(log(fit$dispersion))
  if (likelihood$dispersions == "equal") mean(phi) else phi
}
