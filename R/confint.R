#' Confidence intervals for a fitted mixture of experts
#'
#' @description
#' Intervals for `coef(fit)`, the contrasts of the gates and the parameters of the experts.
#'
#' @param object A fit from [fit_cosine_moe()], or replicates from [bootstrap_moe()].
#' @param parm Which parameters, by name or number; by default all.
#' @param level Confidence level, a number between 0 and 1.
#' @param method `"wald"`: estimate plus and minus a multiple of the standard error. `"profile"`: all values that
#'   raise the sum of squares, minimised over all other parameters, by no more than a multiple of the residual variance
#'   (for maximum likelihood: that lower the log-likelihood by no more than half a quantile of the chi-square
#'   distribution).
#' @param type For `"wald"`: the standard errors, see [vcov.cosine_moe()].
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' Both methods use Student's t distribution with `df.residual(fit)` degrees of freedom; for a single linear expert both
#' give the exact interval of [stats::lm()]. Profile intervals follow the curvature of the model and its bounds, need
#' no standard errors that are right at some distance, and cost some hundred passes over the data for each parameter:
#' ask for few. As in [stats::profile.nls()] an end is where the signed root of (SSE(value) - SSE) / sigma^2 reaches
#' the quantile of t; it is infinite where the sum of squares does not rise enough in the whole parameter space, and
#' `NA`, with a warning of class `cosmoe_warning_irregular`, where the minimum could not be found.
#'
#' For fits by maximum likelihood -2 log-likelihood takes the place of SSE / sigma^2, and both methods use quantiles of
#' the normal distribution, as for a [stats::glm()]; dispersions are there by their logarithms. Ends do not
#' depend on the coordinates in which the other parameters are written.
#'
#' Where standard errors would mislead (see [vcov.cosine_moe()]), profiles do too: all ends are `NA`, with the reasons
#' in the attribute `irregular` and in one warning of class `cosmoe_warning_irregular`. The bootstrap is the
#' alternative. A profile that finds a smaller sum of squares (or a larger likelihood) than the fit stops with a
#' `cosmoe_error_profile`: the fit is not at the optimum.
#'
#' @return A matrix with one row for each parameter and the columns lower and upper end, as for [stats::confint()].
#' @seealso [vcov.cosine_moe()], [bootstrap_moe()].
#' @examples
#' set.seed(1)
#' x <- runif(300, -1, 1)
#' p <- plogis(10 * x)
#' y <- p * (1 + x) - (1 - p) * (1 - 0.5 * x) + rnorm(300, sd = 0.1)
#' fit <- fit_cosine_moe(y ~ x, k = 2, router = "linear", control = moe_control(n_starts = 5))
#' confint(fit)
#' confint(fit, "gate1:x", method = "profile")
#' @importFrom stats confint
#' @export
confint.cosine_moe <- function(object, parm, level = 0.95, method = c("wald", "profile"),
                               type = c("model", "sandwich"), ...) {
  check_dots_empty(...)
  estimate <- coef(object, "identifiable")
  parm <- check_parm(if (!missing(parm)) parm, names(estimate))
  level <- check_level(level)
  method <- check_choice(method, c("wald", "profile"))
  type <- check_choice(type, c("model", "sandwich"))
  if (method == "profile" && type != "model") stop_input("type", type, "\"model\" with `method = \"profile\"`")
  if (method == "profile") check_rows(object, "A profile")
  if (type == "sandwich") check_rows(object, "The sandwich")
  info <- information(object, parent.frame())
  warn_irregular(info$irregular, "There are no confidence intervals")
  ends <- interval_matrix(names(estimate)[parm], level)
  if (length(info$irregular)) return(structure(ends, irregular = info$irregular))
  quantile <- stats::qt((1 + level) / 2, if (is_em(object)) Inf else object$df.residual)
  if (method == "wald") {
    error <- sqrt(diag(covariance(object, info, type)))[parm]
    ends[] <- estimate[parm] + outer(quantile * error, c(-1, 1))
  } else {
    for (i in seq_along(parm)) ends[i, ] <- estimate[parm[i]] + profile_ends(object, info, parm[i], quantile)
    if (anyNA(ends)) warn_irregular("the constrained minimum was not found", "Ends of profile intervals are missing")
  }
  ends
}

# A matrix of NA with the columns that stats::confint() has.
interval_matrix <- function(names, level) {
  ends <- c(1 - level, 1 + level) / 2
  columns <- paste(format(100 * ends, trim = TRUE, scientific = FALSE, digits = 3L), "%")
  matrix(NA_real_, length(names), 2L, dimnames = list(names, columns))
}

check_level <- function(level) {
  valid <- is.numeric(level) && length(level) == 1L && !is.na(level) && level > 0 && level < 1
  if (!valid) stop_input("level", level, "a number above 0 and below 1")
  as.double(level)
}

# Positions of the parameters.
check_parm <- function(parm, names) {
  if (is.null(parm)) return(seq_along(names))
  at <- if (is.character(parm)) match(parm, names) else if (is.numeric(parm)) match(parm, seq_along(names))
  if (length(at) == 0L || anyNA(at)) {
    stop_input("parm", parm, paste0("names or numbers of parameters, such as \"", names[1L], "\""))
  }
  at
}
