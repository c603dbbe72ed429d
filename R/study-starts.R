#' Where the fits of a rate study begin
#'
#' @description
#' `start_near()` begins near the truth, as the experiments of the theory do, and saves the search; `start_cold()`
#' knows nothing of the truth and lets [fit_cosine_moe()] search from starts of its own.
#'
#' @param noise Standard deviation of the Gaussian noise on every true parameter, a number of at least 0. The default
#'   0.1 is a tenth of parameters of size 1.
#' @param exponent The noise shrinks in proportion to \eqn{n^{-exponent}}{n^-exponent}; 0, the default, keeps it fixed.
#'   Values of 1/2 and above are of little use: the start alone then converges as fast as an estimate can.
#' @param x A policy.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' Near starts follow the experiments with softmax gates: each fitted atom is assigned to a true one at random, so that
#' every true atom gets at least one (a random surjection), takes its \eqn{\beta_1}{beta_1} and \eqn{\eta}{eta}, an
#' equal part of its mass, and noise on all of them. A fit with fewer atoms than the truth has no near start.
#'
#' A near start answers how the estimate varies round the truth, not whether it would be found. Wherever results depend
#' on the noise of the start, the optimizer has not converged or the loss looks at something that the model cannot see.
#'
#' [rate_study()] also takes the names `"near"` (`start_near()`), `"shrinking"` (`start_near(exponent = 1/4)`) and
#' `"cold"`.
#'
#' @return An object of class `cosmoe_start`. Bad values stop with a `cosmoe_error_input`.
#' @references Nguyen, H., Nguyen, T. and Ho, N. (2023). Demystifying softmax gating function in Gaussian mixture of
#'   experts. arXiv:2305.03288: starts near the truth in the section on experiments.
#' @seealso [rate_study()].
#' @examples
#' start_near(noise = 0.05)
#' start_near(exponent = 1 / 4)
#' start_cold()
#' @name starts
NULL

#' @rdname starts
#' @export
start_near <- function(noise = 0.1, exponent = 0) {
  structure(
    list(kind = "near", noise = check_number(noise, lower = 0), exponent = check_number(exponent, lower = 0)),
    class = "cosmoe_start"
  )
}

#' @rdname starts
#' @export
start_cold <- function() structure(list(kind = "cold"), class = "cosmoe_start")

# A policy, or its name.
as_start <- function(x, argument = "start") {
  if (inherits(x, "cosmoe_start")) return(x)
  makers <- list(near = start_near, shrinking = function() start_near(exponent = 1 / 4), cold = start_cold)
  if (!is.character(x) || length(x) != 1L || !x %in% names(makers)) {
    stop_input(argument, x, paste0("made by start_near() or start_cold(), or ", choice_words(names(makers))))
  }
  makers[[x]]()
}

#' @export
format.cosmoe_start <- function(x, ...) {
  if (x$kind == "cold") return("cold")
  rate <- if (x$exponent > 0) sprintf(" n^-%s", format(x$exponent)) else ""
  sprintf("near the truth (noise %s%s)", format(x$noise), rate)
}

#' @rdname starts
#' @export
print.cosmoe_start <- function(x, ...) {
  check_dots_empty(...)
  cat("Start: ", format(x), "\n", sep = "")
  invisible(x)
}

# A start for k atoms, NULL for the search of fit_cosine_moe(). Draws random numbers.
draw_study_start <- function(policy, truth, k, n) {
  if (policy$kind == "cold") return(NULL)
  from <- random_surjection(k, length(truth$beta0))
  noise <- policy$noise * n^-policy$exponent
  off <- function(values) values + noise * stats::rnorm(length(values))
  list(
    beta = off(truth$beta1[, from, drop = FALSE]),
    b = off((truth$beta0 - log(tabulate(from, length(truth$beta0))))[from]),
    experts = off(truth$eta[, from, drop = FALSE])
  )
}

# For each of k fitted atoms a true one, so that each of the `onto` true atoms is taken.
random_surjection <- function(k, onto) {
  rest <- sample.int(onto, k - onto, replace = TRUE)
  all <- c(seq_len(onto), rest)
  all[sample.int(k)]
}
