#' Methods for fitted mixtures of experts
#'
#' @description
#' The usual questions to a fitted regression, answered for `cosine_moe` objects. [stats::df.residual()] needs no
#' method of its own. A fit from a source of rows ([source_function()]) has no fitted values, residuals and weights.
#'
#' @param object,x,formula A fit from [fit_cosine_moe()].
#' @param what Which coefficients. The default is what the data can determine, the estimates to which [vcov()] and
#'   [confint()] belong: same names, same order, same values.
#' @param type `"response"`: observed minus fitted. `"pearson"`: the same times the square root of the weight, so that
#'   all have equal variance; for `method = "em"` also divided by the standard deviation of the mixture. `"quantile"`,
#'   for `method = "em"`: the normal quantile of the mixture's distribution function at the response, standard normal
#'   when the model is right. For discrete responses it is drawn between the two values at the step (Dunn and Smyth,
#'   1996): `set.seed()` reproduces it.
#' @param part Which part of the formula, that of the experts or that of the gate; for `terms()` also `"full"`, all
#'   variables with the response.
#' @param formula. Changes to the formula, as in [stats::update.formula()], in both parts: in `. ~ . - x1 | . + z1` a
#'   dot stands for what the same part holds already. One part alone leaves the gate's part as it is.
#' @param evaluate Whether to fit the changed model, or only to return its call.
#' @param ... For `update()`, arguments of [fit_cosine_moe()] to change; `NULL` removes one. For `model.frame()`,
#'   `data`, `subset` or `na.action` to use instead of those of the fit. Otherwise nothing; `coef()`, `residuals()` and
#'   `model.matrix()` take any argument for an error.
#'
#' @details
#' *Coordinates.* Other packages (`lmtest::coeftest()`, `car::linearHypothesis()`, `multcomp::glht()`, or
#' `coef(fit) / sqrt(diag(vcov(fit)))` by hand) combine `coef(fit)` with `vcov(fit)` entry by entry. So both are in the
#' coordinates `"identifiable"`: a gate's own bias and vector have no standard errors, because their origin is a
#' convention, while contrasts with the mean of all gates have. With `"all"` come the parameters as the model is written
#' down, for which there is no covariance matrix.
#'
#' With `"gate"` and `"all"` the gate's coefficients are a canonical representative: one vector may be added to all
#' \eqn{u_k} and one number to all biases without any change of the model. For cosine routers with `standardize = TRUE`
#' they belong to the covariates after centring by `fit$z_center` and scaling by `fit$z_scale`. An infinite
#' \eqn{\beta_k} means a gate on the boundary; its direction is that of `fit$gate$u`.
#'
#' For standard errors and tests see [vcov.cosine_moe()], [confint.cosine_moe()] and [summary.cosine_moe()];
#' [logLik.cosine_moe()] for likelihood and AIC.
#'
#' @return
#' * `coef()`: for `"identifiable"`, the default, a vector with names such as `gate1:lstat` and `expert1:lstat`: biases
#'   of the gates minus their mean, vectors minus theirs (\eqn{\beta_k} for the linear router and the bounded \eqn{u_k}
#'   for the others), then the experts' parameters. A fit with one expert has no gate there. For `"gate"` a matrix with
#'   one column for each expert, the bias in the row `(Intercept)` and \eqn{\beta_k} below it; for `"experts"` one with
#'   the parameters of each expert, intercept first; for `"all"` both in one vector.
#' * `residuals()`: a numeric vector; `fitted()` and `weights()` too (`NULL` without weights). After `na.action =
#'   na.exclude` all three have `NA` for the rows that the fit dropped.
#' * `nobs()`: number of rows with positive weight; `df.residual()`: that minus `fit$df`, the number of identifiable
#'   parameters.
#' * `deviance()`: the weighted sum of squared residuals; `sigma()`: \eqn{\sqrt{deviance / df.residual}}{sqrt(deviance /
#'   df.residual)}. For `method = "em"`, -2 times the log-likelihood, and the standard deviations of the experts' errors
#'   (divisor n; an error for families other than the Gaussian).
#' * For `method = "em"` `coef()` has the dispersions after the experts: by default their logarithms,
#'   `expert1:log(sigma)`, ... (or `log(sigma)`; `log(shape)` for the Gamma family), with `"all"` themselves,
#'   `expert1:sigma`.
#' * `formula()`: the formula, with `.` written out; `terms()`: a terms object; `model.frame()`: a data frame,
#'   evaluated again unless the fit kept it; `model.matrix()`: a numeric matrix, without a column of ones. A fit from
#'   matrices has no formula: for it the first three stop with a `cosmoe_error_input`. Data that cannot be found again
#'   are a `cosmoe_error_data`.
#' * `update()`: the new fit, or its call.
#'
#' @seealso [fit_cosine_moe()], [predict.cosine_moe()], [summary.cosine_moe()], [simulate.cosine_moe()].
#' @examples
#' set.seed(1)
#' quick <- moe_control(n_starts = 5)
#' fit <- fit_cosine_moe(
#'   Ozone ~ Solar.R + Wind + Temp | Wind + Temp,
#'   data = airquality, k = 2, control = quick
#' )
#' coef(fit, "experts")
#' sigma(fit)
#' head(residuals(fit))
#' formula(update(fit, . ~ . - Solar.R | . + Solar.R))
#' @name cosine_moe-methods
#' @aliases coef.cosine_moe
#' @importFrom stats coef deviance formula model.frame model.matrix nobs predict residuals sigma simulate terms update
NULL

#' @rdname cosine_moe-methods
#' @export
coef.cosine_moe <- function(object, what = c("identifiable", "all", "gate", "experts"), ...) {
  check_dots_empty(...)
  what <- check_choice(what, c("identifiable", "all", "gate", "experts"))
  gate <- rbind(`(Intercept)` = object$gate$b, object$gate$beta)
  experts <- intercept_first(object$experts)
  if (what == "identifiable") gate <- gate_contrasts(object$gate, object$router)
  value <- c(by_column(gate, "gate"), by_column(experts, "expert"))
  switch(what,
    gate = gate, experts = experts, all = c(value, shared_dispersion(object)),
    identifiable = c(value, log_dispersion(object))
  )
}

# Dispersions, one for each expert or one for all: "expert1:sigma", or "sigma".
shared_dispersion <- function(fit) {
  if (is.null(fit$dispersion)) return(NULL)
  name <- dispersion_name(fit$family)
  if (fit$dispersions == "equal") return(stats::setNames(fit$dispersion[1L], name))
  stats::setNames(fit$dispersion, sprintf("expert%d:%s", seq_len(fit$k), name))
}

log_dispersion <- function(fit) {
  value <- shared_dispersion(fit)
  if (is.null(value)) return(NULL)
  stats::setNames(log(value), sub("(sigma|shape)$", "log(\\1)", names(value)))
}

# Bias and vector of each gate relative to the mean over the experts: what a softmax tells of them. The vector is beta
# for the linear router and the bounded u for the others. A single expert has no gate.
gate_contrasts <- function(gate, router) {
  if (length(gate$b) == 1L) return(gate$u[0L, , drop = FALSE])
  gate <- rbind(`(Intercept)` = gate$b, if (router$name == "linear") gate$u / router$scale else gate$u)
  gate - rowMeans(gate)
}

# In linear forms a'x + b the core has the intercept last, readers expect it first.
intercept_first <- function(par) {
  first <- rownames(par) == "(Intercept)"
  rbind(par[first, , drop = FALSE], par[!first, , drop = FALSE])
}

# The columns of a matrix one after the other, with names such as "gate1:wt".
by_column <- function(values, prefix) {
  columns <- rep(seq_len(ncol(values)), each = nrow(values))
  stats::setNames(as.vector(values), sprintf("%s%d:%s", prefix, columns, rep(rownames(values), ncol(values))))
}

#' @rdname cosine_moe-methods
#' @export
residuals.cosine_moe <- function(object, type = c("response", "pearson", "quantile"), ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("response", "pearson", "quantile"))
  check_rows(object, "residuals()")
  value <- object$residuals
  if (type == "quantile") check_likelihood(object, "quantile residuals")
  if (type != "response" && is_em(object)) value <- likelihood_residuals(object, type, parent.frame())
  if (type == "pearson" && !is.null(object$weights)) value <- value * sqrt(object$weights)
  stats::naresid(object$na.action, value)
}

#' @importFrom stats fitted
#' @rdname cosine_moe-methods
#' @export
fitted.cosine_moe <- function(object, ...) {
  check_rows(object, "fitted()")
  NextMethod()
}

#' @importFrom stats weights
#' @rdname cosine_moe-methods
#' @export
weights.cosine_moe <- function(object, ...) {
  check_rows(object, "weights()")
  NextMethod()
}

#' @rdname cosine_moe-methods
#' @export
nobs.cosine_moe <- function(object, ...) object$nobs

#' @rdname cosine_moe-methods
#' @export
deviance.cosine_moe <- function(object, ...) if (is_em(object)) -2 * object$loglik else object$sse

#' @rdname cosine_moe-methods
#' @export
sigma.cosine_moe <- function(object, ...) {
  if (is_em(object) && object$family$name != "gaussian") {
    stop_input("object", I(paste("one of the family", object$family$name)), "a Gaussian fit: others have no sigma")
  }
  object$sigma
}

# ---- formula and data ------------------------------------------------------------------------------------------------

#' @rdname cosine_moe-methods
#' @export
formula.cosine_moe <- function(x, ...) {
  check_has_formula(x)
  formula <- stats::formula(x$formula)
  if ("." %in% all.vars(formula)) {
    parts <- list(x$terms$expert, if (length(x$formula)[2L] == 2L) x$terms$gate)
    sides <- lapply(Filter(Negate(is.null), parts), function(part) stats::formula(part)[[2L]])
    formula[[3L]] <- Reduce(function(expert, gate) call("|", expert, gate), sides)
  }
  formula
}

#' @rdname cosine_moe-methods
#' @export
terms.cosine_moe <- function(x, part = c("full", "expert", "gate"), ...) {
  check_has_formula(x)
  x$terms[[check_choice(part, c("full", "expert", "gate"))]]
}

check_has_formula <- function(fit) {
  if (is.null(fit$formula)) {
    stop_cosmoe("input", "The fit comes from matrices: it has no formula, terms or model frame.", argument = "object")
  }
}

#' @rdname cosine_moe-methods
#' @export
model.frame.cosine_moe <- function(formula, ...) {
  check_has_formula(formula)
  check_rows(formula, "model.frame()")
  given <- list(...)
  given <- given[intersect(names(given), c("data", "subset", "na.action"))]
  if (length(given) == 0L && !is.null(formula$model)) return(formula$model)
  env <- environment(formula$formula)
  find_again({
    call <- formula$call
    data <- if ("data" %in% names(given)) given$data else eval(call$data, env)
    call[intersect(names(given), c("subset", "na.action"))] <- given[setdiff(names(given), "data")]
    eval_frame(formula$terms$full, as_data(data), call, env, c("subset", "weights", "na.action", "offset"),
               xlev = formula$xlevels)
  })
}

#' @rdname cosine_moe-methods
#' @export
model.matrix.cosine_moe <- function(object, part = c("expert", "gate"), ...) {
  check_dots_empty(...)
  part <- check_choice(part, c("expert", "gate"))
  data <- training_covariates(object, parent.frame())
  gate <- part == "gate"
  value <- if (gate && !is.null(data$z)) data$z else data$x
  dimnames(value) <- list(data$row_names, if (gate) object$names$z else object$names$x)
  value
}

# The covariates of the fit once more, in the shape of prepare_newdata(). Fits keep no copy of the data: these come
# from the model frame or, after matrices, from evaluating the arguments of the call in `env`.
training_covariates <- function(object, env) {
  check_rows(object)
  parts <- if (is.null(object$formula)) matrices_again(object, env) else designs_again(object)
  n <- length(object$fitted.values)
  if (nrow(parts$x) != n) stop_data_changed()
  c(parts, list(offset = object$offset, n = n, rows = seq_len(n), na.action = object$na.action))
}

designs_again <- function(object) {
  frame <- stats::model.frame(object)
  design <- function(part) design_matrix(object$terms[[part]], frame, object$contrasts)$design
  list(x = design("expert"), z = if (!object$names$shared) design("gate"), row_names = row.names(frame))
}

matrices_again <- function(object, env) {
  find_again({
    given <- list(x = eval(object$call$x, env), z = eval(object$call$z, env), offset = object$offset)
    parts <- split_newdata(object, given[matrix_parts(object)])
    list(x = parts$x, z = parts$z, row_names = rownames(given$x))
  })
}

find_again <- function(value) {
  tryCatch(value, error = function(e) {
    stop_data("The data of the fit cannot be found again: ", sub("[.]$", "", conditionMessage(e)), ".")
  })
}

stop_data_changed <- function() {
  stop_data("The data of the fit cannot be found again: what its call names now gives other values.")
}

# ---- update ----------------------------------------------------------------------------------------------------------

#' @rdname cosine_moe-methods
#' @export
update.cosine_moe <- function(object, formula., ..., evaluate = TRUE) { # nolint: object_name_linter.
  call <- object$call
  if (!missing(formula.)) call$formula <- updated_formula(object, formula.)
  changes <- match.call(expand.dots = FALSE)$...
  if (any(!nzchar(names(changes))) || length(names(changes)) < length(changes)) {
    stop_input("...", I("without a name"), "named arguments of fit_cosine_moe()")
  }
  given <- as.list(call)
  given[names(changes)] <- as.list(changes) # NULL removes what may not be there
  call <- as.call(given)
  if (check_flag(evaluate)) eval(call, parent.frame()) else call
}

# A formula of one part serves experts and gate: before the gate's part changes, it becomes a part of its own.
updated_formula <- function(object, change) {
  if (!inherits(change, "formula")) stop_input("formula.", change, "a formula")
  old <- Formula::as.Formula(stats::formula(object))
  change <- Formula::as.Formula(change)
  if (length(old)[2L] == 1L && length(change)[2L] == 2L) {
    shared <- stats::formula(old)
    shared[[3L]] <- call("|", shared[[3L]], shared[[3L]])
    old <- Formula::as.Formula(shared)
  }
  stats::formula(stats::update(old, change))
}
