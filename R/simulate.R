#' Responses simulated from a fitted mixture of experts
#'
#' Draws new responses for the rows of the fit: fitted value plus a Gaussian error with standard deviation
#' `sigma(object)`, divided by the square root of the weight where there are weights. For `method = "em"`, draws an
#' expert by the gate, and a response of this expert.
#'
#' @param object A fit from [fit_cosine_moe()].
#' @param nsim Number of draws, a whole number.
#' @param seed `NULL` to draw on from the current state of the random number generator, or a seed for [set.seed()];
#'   then the state is put back afterwards.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' Least squares does not assume Gaussian errors; this method does. Rows with weight zero have no finite variance and
#' are drawn as `NA`.
#'
#' @return A data frame with one row for each row of the fit and the columns `sim_1`, `sim_2`, ... The attribute
#'   `seed` holds the seed, or the state of the generator before the draws, as for [stats::simulate()]. A fit without
#'   residual degrees of freedom stops with a `cosmoe_error_input`. For a response `cbind(successes, failures)` each
#'   column is such a matrix.
#'
#' @seealso [predict.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, k = 2, control = moe_control(n_starts = 5))
#' draws <- simulate(fit, nsim = 3, seed = 1)
#' head(draws)
#' @export
simulate.cosine_moe <- function(object, nsim = 1, seed = NULL, ...) {
  check_dots_empty(...)
  nsim <- check_count(nsim)
  check_rows(object, "simulate()")
  mean <- stats::fitted(object)
  draw <- if (is_em(object)) likelihood_draws(object, parent.frame()) else gaussian_draws(object)
  before <- generator_state()
  draws <- with_seed(seed, stats::setNames(lapply(seq_len(nsim), draw), sprintf("sim_%d", seq_len(nsim))))
  rows <- if (is.null(names(mean))) seq_along(mean) else names(mean)
  draws <- structure(draws, class = "data.frame", row.names = rows)
  structure(draws, seed = if (is.null(seed)) before else structure(seed, kind = as.list(RNGkind())))
}

gaussian_draws <- function(object) {
  if (!is.finite(object$sigma)) stop_input("object", I("one without any"), "a fit with residual degrees of freedom")
  mean <- stats::fitted(object)
  sd <- object$sigma
  weights <- stats::weights(object)
  if (!is.null(weights)) sd <- sd / sqrt(ifelse(weights > 0, weights, NA))
  function(i) mean + sd * stats::rnorm(length(mean))
}

# An expert for each row from the gate, then a response of this expert.
likelihood_draws <- function(object, env) {
  data <- training_covariates(object, env)
  mixture_draws(object, data)
}

mixture_draws <- function(object, data) {
  values <- evaluate_model(object, data, object$control$threads)
  check_unchanged(object, values$response)
  trials <- object$trials
  function(i) {
    y <- draw_mixture(object, values, trials)
    if (is.null(trials)) return(stats::naresid(object$na.action, y))
    stats::naresid(object$na.action, cbind(successes = y, failures = trials - y))
  }
}

# A response (number of successes) for each row of n x k matrices of gates and means: first its expert, then from this.
draw_mixture <- function(fit, values, trials) {
  n <- nrow(values$gate)
  below <- values$gate
  for (j in seq_len(ncol(below))[-1L]) below[, j] <- below[, j - 1L] + below[, j]
  expert <- pmin(1L + rowSums(stats::runif(n) > below), fit$k)
  mean <- values$expert[cbind(seq_len(n), expert)]
  as.double(draw_responses(fit$family, if (is.null(trials)) rep(1, n) else trials, mean, fit$dispersion[expert]))
}

# The value of `code` after set.seed(seed), with the generator's state restored afterwards; without a seed, as it is.
with_seed <- function(seed, code) {
  if (is.null(seed)) return(code)
  check_number(seed, -.Machine$integer.max, .Machine$integer.max)
  before <- generator_state()
  on.exit(set_generator_state(before))
  set.seed(seed)
  code
}

generator_state <- function() {
  if (!exists(".Random.seed", envir = globalenv(), inherits = FALSE)) stats::runif(1)
  get(".Random.seed", envir = globalenv())
}

set_generator_state <- function(state) assign(".Random.seed", state, envir = globalenv())
