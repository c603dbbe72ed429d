#' Covariance matrix of a fitted mixture of experts
#'
#' @description
#' The estimated covariance matrix of what can be identified: the contrasts of the gates and the parameters of the
#' experts, `coef(fit)`.
#'
#' @param object,x A fit from [fit_cosine_moe()].
#' @param type `"model"`, the default: all errors have the same variance (with weights, one inversely proportional to
#'   them) and the regression function is right. `"sandwich"`: neither is assumed. `"bootstrap"`: the covariance
#'   matrix over the replicates of [bootstrap_moe()].
#' @param boot For `"bootstrap"`: the replicates, from [bootstrap_moe()]; `NULL` to draw them now.
#' @param R For `"bootstrap"` without `boot`: how many replicates of the residual bootstrap (after maximum likelihood,
#'   the parametric one) to draw; 200 suffice for standard errors (relative error 5%).
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Coordinates.* For each gate its bias and its vector, minus the mean over all gates: `gate1:(Intercept)`,
#' `gate1:<covariate>`, ...; then the experts' parameters, `expert1:(Intercept)`, ...: those of `coef(fit)`. The
#' vector is \eqn{\beta_k} for the linear router and the bounded \eqn{u_k} (see [routers]) for the others: with
#' `standardize = TRUE` that of the standardized covariates, whose centre and scale are taken as known. The contrasts of
#' the gates sum to zero, so the matrix is singular. A fit with one expert has no gate.
#'
#' *Model.* \eqn{\hat\sigma^2 (J'WJ)^-}{sigma^2 (J'WJ)^-}, J the derivatives of the fitted values in the identifiable
#' directions, which leave out the translations of the gates and, for the cosine router, their norms.
#'
#' *Sandwich.* \eqn{n / (n - df) H^- (\sum_i w_i^2 r_i^2 J_i J_i') H^-}{n / (n - df) H^- (sum w^2 r^2 J J') H^-}, H half
#' the exact Hessian of the sum of squares. With the exact Hessian, rather than \eqn{J'WJ}, it is right also when the
#' regression function is not (second derivatives of custom experts are taken as zero). For a single linear expert it is
#' the "HC1" of linear regression. Without the factor \eqn{n / (n - df)} it is `sandwich::sandwich(fit)`; the methods
#' for `sandwich::estfun()` and `sandwich::bread()` also serve that package's other estimators that rest on these two,
#' as `sandwich::vcovCL()` for clusters; `vcovHC()`, `vcovBS()` and `NeweyWest()` ask for more than a fit of this kind
#' can give.
#'
#' *Where standard errors would mislead.* On the boundary of the parameter space, with experts that coincide, have
#' lost their weight or run off, in flat directions, with sparse or nearly separable gates, before convergence, and
#' with more experts than the data support, the estimator is not asymptotically normal. All entries of the matrix are
#' then `NA`, the attribute `irregular` holds the reasons, and one warning of class `cosmoe_warning_irregular` gives
#' them. The bootstrap needs no normality, and is the alternative to look at; its covariance matrix is given in any
#' case. An expert too many is recognised by signs: directions in which the fitted values are far from linear within two
#' standard errors, and an exact Hessian far from the expected one (their ratio outside 0.5 to 2 in some direction). A
#' regression function that is far from right has the same signs, so the sandwich serves for moderate errors of the
#' model.
#'
#' *Maximum likelihood.* For `method = "em"` the matrix is the inverse of the observed information, the exact Hessian of
#' minus the log-likelihood in the identifiable directions, and has the logarithms of the dispersions behind the
#' experts' parameters; the sandwich has the scores' cross product between two such inverses, without the factor.
#' The rows of `estfun()` are then the scores, and `sandwich::sandwich(fit)` is the sandwich. There are no standard
#' errors for a solution at a bound of a dispersion, and for the reasons above except those that are signs of an expert
#' too many.
#'
#' The data of the fit are needed again, as for [model.matrix()]; data that cannot be found stop with a
#' `cosmoe_error_data`.
#'
#' @return `vcov()`: a symmetric matrix with a row and a column for each entry of `coef(fit)`.
#'   `estfun()`: an n x P matrix, `w_i r_i` times the derivatives of the fitted values, or for `method = "em"` the
#'   derivatives of the rows' weighted log-likelihoods; after `na.action = na.exclude` rows that the fit dropped are
#'   there as `NA`, as for [stats::glm()]. `bread()`: n times \eqn{H^-}.
#'
#' @references White, H. (1982). Maximum likelihood estimation of misspecified models. Econometrica 50, 1-25: the
#'   sandwich.
#' @seealso [confint.cosine_moe()], [bootstrap_moe()], [summary.cosine_moe()].
#' @examples
#' set.seed(1)
#' x <- runif(300, -1, 1)
#' p <- plogis(10 * x)
#' y <- p * (1 + x) - (1 - p) * (1 - 0.5 * x) + rnorm(300, sd = 0.1)
#' fit <- fit_cosine_moe(y ~ x, k = 2, router = "linear", control = moe_control(n_starts = 5))
#' sqrt(diag(vcov(fit)))
#' sqrt(diag(vcov(fit, "sandwich")))
#' @importFrom stats vcov
#' @export
vcov.cosine_moe <- function(object, type = c("model", "sandwich", "bootstrap"), boot = NULL, R = 200, ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("model", "sandwich", "bootstrap"))
  if (type == "bootstrap") return(vcov(bootstrap_of(object, boot, R)))
  if (type == "sandwich") check_rows(object, "The sandwich")
  info <- information(object, parent.frame())
  warn_irregular(info$irregular, "There are no standard errors")
  covariance(object, info, type)
}

# The matrix of vcov() from the information; NA for irregular fits.
covariance <- function(fit, info, type = "model") {
  names <- names(coef(fit, "identifiable"))
  named <- function(value) matrix(value, length(names), length(names), dimnames = list(names, names))
  if (length(info$irregular)) return(structure(named(NA_real_), irregular = info$irregular))
  if (type == "model") return(named(info$variance * tcrossprod(info$maps$report %*% info$root)))
  root <- info$maps$report %*% info$root %*% solve(info$hessian)
  meat <- crossprod(info$root, score_product(info) %*% info$root)
  factor <- if (is_em(fit)) 1 else fit$nobs / fit$df.residual
  named(factor * symmetric(root %*% tcrossprod(meat, root)))
}

# sum w^2 r^2 J J', by the pass that gives sum w J J'.
score_product <- function(info) {
  rows <- info$rows
  if (is_likelihood(info$model)) {
    if (!is.null(rows$w)) rows$w <- rows$w^2
    return(core_call(core_objective(info$model, rows, info$par, 2L, info$threads))$normal)
  }
  r <- rows$y - predict_working(info, take_rows(rows, seq_len(nrow(rows$x))), info$par)$f
  rows$w <- as.vector(if (is.null(rows$w)) r^2 else rows$w^2 * r^2)
  core_call(core_objective(info$model, rows, info$par, 2L, info$threads))$normal
}

#' @rdname vcov.cosine_moe
#' @usage \method{estfun}{cosine_moe}(x, ...)
#' @exportS3Method sandwich::estfun
estfun.cosine_moe <- function(x, ...) { # nolint: object_name_linter.
  check_dots_empty(...)
  check_rows(x, "estfun()")
  info <- information(x, parent.frame())
  rows <- info$rows
  weight <- if (is.null(x$weights)) 1 else x$weights
  if (is_em(x)) {
    factor <- -weight
  } else {
    factor <- as.vector(x$residuals) * weight * rows$y_scale
    rows <- take_rows(rows, seq_len(nrow(rows$x)))
  }
  jacobian <- core_call(core_jacobian(info$model, rows, info$par, info$threads))
  value <- factor * (jacobian %*% info$maps$work)
  dimnames(value) <- list(names(x$residuals), names(coef(x, "identifiable")))
  stats::naresid(x$na.action, value)
}

#' @rdname vcov.cosine_moe
#' @usage \method{bread}{cosine_moe}(x, ...)
#' @exportS3Method sandwich::bread
bread.cosine_moe <- function(x, ...) { # nolint: object_name_linter.
  check_dots_empty(...)
  info <- information(x, parent.frame())
  warn_irregular(info$irregular, "There are no standard errors")
  names <- names(coef(x, "identifiable"))
  value <- if (length(info$irregular)) {
    matrix(NA_real_, length(names), length(names))
  } else {
    root <- info$maps$report %*% info$root
    unit <- if (is_em(x)) 1 else info$rows$y_scale^2
    symmetric(root %*% solve(info$hessian, t(root))) / (unit * info$rows$w_scale)
  }
  dimnames(value) <- list(names, names)
  (if (is_streamed(x)) x$source$used else length(x$residuals)) * value
}
