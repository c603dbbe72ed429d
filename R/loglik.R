#' Likelihood of a fitted mixture of experts, and comparison of fits
#'
#' @description `logLik()` is the maximum of the likelihood (for least squares, the Gaussian one), from which
#' [stats::AIC()] and [stats::BIC()] follow. `anova()` compares nested fits, by F tests after least squares and by
#' likelihood ratio tests after maximum likelihood.
#'
#' @param object A fit from [fit_cosine_moe()].
#' @param ... For `anova()`, one or more further fits to the same data. For `logLik()` nothing: any further argument is
#'   an error.
#'
#' @details *Likelihood.* For `method = "em"` it is the fit's maximum, with maximum likelihood estimates of the
#' dispersions (divisor n), `fit$df` degrees of freedom, and weights as multiples of rows. For BIC n is `nobs(fit)`, the
#' number of rows with positive weight, not the sum of the weights.
#' Least squares assumes no distribution; `logLik()` assumes independent Gaussian errors with variance sigma^2, or
#' sigma^2 / weight. Its degrees of freedom are `fit$df`, the number of identifiable parameters, plus one for sigma. The
#' gate's translations do not count, nor do the norms of the cosine router's vectors. In regular models \eqn{(SSE(truth)
#' - SSE(fit)) / \sigma^2}{(SSE(truth) - SSE(fit)) / sigma^2} has this number (without sigma's) for its mean. On the
#' boundary of the parameter space it is an upper bound (the attribute `boundary` of the value says which gates lie
#' there), and a fit with more experts than the truth has no such number: there the mean depends on the design and on
#' how thorough the search for the minimum is, so AIC and BIC across k are a rule of thumb without a theory.
#'
#' *Analysis of variance.* As for [stats::anova.lm()], F is the mean decrease of the sum of squares over the residual
#' variance of the largest fit. Fits are put in order of their degrees of freedom and must be nested: the same response,
#' weights, offset, router settings and expert family; the covariates of a smaller fit among those of the larger one,
#' and for cosine routers those of the gates the same, because the direction of z depends on all of them.
#' The chi-square (and F) distribution of the decrease needs a regular null hypothesis. It does not hold for k against
#' k + 1 experts, where under the null hypothesis the parameters of the additional expert cannot be identified, and not
#' where the asymptotic theory fails in one of the fits (see [vcov.cosine_moe()]). Then the p-value is `NA` and one
#' warning of class `cosmoe_warning_irregular` says why. Simulation replaces the table of F, as [test_experts()] does
#' for one expert more: fit both models to responses drawn by [simulate()][simulate.cosine_moe] from the smaller fit,
#' and see how often the decrease is as large.
#'
#' *Likelihood ratio tests.* After maximum likelihood, twice the increase of the log-likelihood is compared with the
#' chi-square distribution of as many degrees of freedom as there are additional parameters. Fits must be nested in the
#' same sense, with the same family and link; one dispersion for all is nested in one for each expert, and a constant
#' gate (`y ~ x | 1`) in every dense one. What has been said of irregular fits and of k against k + 1 experts holds here
#' as well.
#'
#' @return `logLik()`: a number of class `logLik` with the attributes `df`, `nobs` and `boundary`. `anova()`: a data
#'   frame of class `anova`, one row for each fit: `Res.Df`, `RSS`, `Df`, `Sum of Sq`, `F`, `Pr(>F)` after least
#'   squares, `Npar` (number of parameters), `logLik`, `Df`, `Chisq`, `Pr(>Chisq)` after maximum likelihood. Fits that
#'   are not nested, or not by the same method, stop with a `cosmoe_error_input`.
#'
#' @seealso [vcov.cosine_moe()], [summary.cosine_moe()].
#' @examples
#' set.seed(1)
#' x <- matrix(runif(600, -1, 1), 300, dimnames = list(NULL, c("a", "b")))
#' p <- plogis(10 * x[, "a"])
#' y <- p * (1 + x[, "a"]) - (1 - p) * (1 - 0.5 * x[, "a"]) + rnorm(300, sd = 0.1)
#' quick <- moe_control(n_starts = 5)
#' small <- fit_cosine_moe(y ~ a | a, as.data.frame(x), router = "linear", control = quick)
#' large <- fit_cosine_moe(y ~ a + b | a, as.data.frame(x), router = "linear", control = quick)
#' AIC(small, large)
#' anova(small, large)
#' @importFrom stats logLik
#' @export
logLik.cosine_moe <- function(object, ...) {
  check_dots_empty(...)
  n <- object$nobs
  if (is_em(object)) {
    return(structure(
      object$loglik, df = object$df, nobs = n, boundary = object$diagnostics$boundary, class = "logLik"
    ))
  }
  value <- gaussian_loglik(object$sse, n, object$weights) + if (is_streamed(object)) object$source$logs / 2 else 0
  structure(value, df = object$df + 1L, nobs = n, boundary = boundary_gates(object), class = "logLik")
}

# With the maximum likelihood estimate of the variance.
gaussian_loglik <- function(sse, n, w) {
  -n / 2 * (log(2 * pi) + log(sse / n) + 1) + if (is.null(w)) 0 else sum(log(w[w > 0])) / 2
}

boundary_gates <- function(fit) if (at_cosine_limit(fit)) seq_len(fit$k) else fit$diagnostics$boundary

#' @rdname logLik.cosine_moe
#' @importFrom stats anova
#' @export
anova.cosine_moe <- function(object, ...) {
  fits <- list(object, ...)
  if (length(fits) < 2L) stop_input("...", I("empty"), "one or more further fits")
  for (fit in fits) if (!inherits(fit, "cosine_moe")) stop_input("...", fit, "fits from fit_cosine_moe()")
  env <- parent.frame()
  fits <- fits[order(vapply(fits, function(fit) fit$df, 0))]
  for (i in seq_along(fits)[-1L]) check_nested(fits[[i - 1L]], fits[[i]])
  reasons <- lapply(fits, function(fit) information(fit, env)$irregular)
  pairs <- seq_along(fits)[-1L]
  against <- vapply(pairs, function(i) fits[[i]]$k != fits[[i - 1L]]$k, NA)
  doubtful <- vapply(pairs, function(i) against[i - 1L] || length(c(reasons[[i - 1L]], reasons[[i]])) > 0L, NA)
  likelihood <- is_em(object)
  table <- if (likelihood) ratio_table(fits) else variance_table(fits)
  table[c(FALSE, doubtful), ncol(table)] <- NA
  warn_irregular(
    unique(c(
      if (any(against)) "under the hypothesis of fewer experts the parameters of the others cannot be identified",
      unlist(reasons)
    )),
    sprintf("The %s distribution does not hold, so p-values are missing", if (likelihood) "chi-square" else "F")
  )
  heading <- vapply(seq_along(fits), function(i) sprintf("Model %d: %s", i, fit_label(fits[[i]])), "")
  title <- if (likelihood) "Likelihood Ratio Tests\n" else "Analysis of Variance Table\n"
  structure(
    table,
    heading = c(title, paste0(paste(heading, collapse = "\n"), "\n")), class = c("anova", "data.frame")
  )
}

variance_table <- function(fits) {
  rest <- vapply(fits, function(fit) fit$df.residual, 0)
  sse <- vapply(fits, stats::deviance, 0)
  df <- c(NA, -diff(rest))
  decrease <- c(NA, -diff(sse))
  ratio <- decrease / df / fits[[length(fits)]]$sigma^2
  p <- stats::pf(ratio, df, rest[length(rest)], lower.tail = FALSE)
  data.frame(
    `Res.Df` = rest, RSS = sse, Df = df, `Sum of Sq` = decrease, `F` = ratio, `Pr(>F)` = p, check.names = FALSE
  )
}

ratio_table <- function(fits) {
  count <- vapply(fits, function(fit) fit$df, 0)
  loglik <- vapply(fits, function(fit) fit$loglik, 0)
  df <- c(NA, diff(count))
  # Equal maxima may differ by rounding.
  ratio <- c(NA, pmax(2 * diff(loglik), 0))
  p <- stats::pchisq(ratio, df, lower.tail = FALSE)
  data.frame(Npar = count, logLik = loglik, Df = df, Chisq = ratio, `Pr(>Chisq)` = p, check.names = FALSE)
}

fit_label <- function(fit) {
  parts <- if (is.null(fit$formula)) "" else paste0(deparse1(stats::formula(fit)), ", ")
  sprintf(
    "%s%d x %s%s%s", parts, fit$k, format(fit$expert), if (fit$k > 1L) paste(",", format(fit$router)) else "",
    if (identical(fit$dispersions, "equal")) sprintf(", equal %s", dispersion_name(fit$family)) else ""
  )
}

# Fits from sources keep no response to compare, but its sums.
same_source <- function(a, b) {
  what <- c("nobs", "tss", "logs", "weighted")
  isTRUE(all.equal(a$source[what], b$source[what]))
}

check_nested <- function(small, large) {
  refuse <- function(...) stop_input("...", I(paste0(...)), "fits that are nested in one another")
  same <- function(field) isTRUE(all.equal(unclass(small)[[field]], unclass(large)[[field]], check.attributes = FALSE))
  if (is_em(small) != is_em(large)) refuse("fits by different methods")
  for (field in c("y", "trials", "weights", "offset")) {
    if (!same(field)) refuse("fits with different `", field, "`")
  }
  if (!same_source(small, large)) refuse("fits to different sources")
  if (small$df == large$df) refuse("fits with the same degrees of freedom")
  if (!identical(unclass(small$expert), unclass(large$expert))) refuse("fits with different experts")
  if (!all(small$names$x %in% large$names$x)) refuse("fits whose experts have different covariates")
  if (!identical(small$family, large$family)) refuse("fits with different families or links")
  # A single expert has no gate, and a dispersion of its own.
  if (small$k > 1L) {
    if (identical(small$dispersions, "free") && identical(large$dispersions, "equal")) {
      refuse("fits of which the one with fewer parameters has more dispersions")
    }
    # A constant gate is one of any dense router.
    constant <- length(small$names$z) == 0L && !is_sparse_router(large$router, large$k)
    if (!constant && !identical(unclass(small$router), unclass(large$router))) refuse("fits with different routers")
    linear <- small$router$name == "linear"
    inside <- if (linear) all(small$names$z %in% large$names$z) else setequal(small$names$z, large$names$z)
    if (!inside || !(linear || small$standardize == large$standardize)) {
      refuse("fits whose gates have different covariates")
    }
  }
  if (small$k > large$k) refuse("fits of which the one with more experts has fewer parameters")
  if (is_em(small)) {
    if (large$loglik < small$loglik - 1e-3) refuse("a larger fit with a lower likelihood: it is not at its maximum")
  } else if (large$sse > small$sse * (1 + 1e-8)) {
    refuse("a larger fit with a larger sum of squares: it is not at its minimum")
  }
}
