#' Predictions of a mixture of experts
#'
#' @description
#' Predicts the mean, the value of each expert, the weights that the gate gives them, the most probable expert or the
#' logits, for new data or for the rows of the fit.
#'
#' @param object A fit from [fit_cosine_moe()].
#' @param newdata New values of the covariates; without it, the rows of the fit. After a formula, a data frame with
#'   the variables of the formula: factors may have their levels in any order, but none that the fit has not seen.
#'   After matrices, one matrix or data frame with all columns, or `list(x = , z = , offset = )`.
#' @param type What to predict: `"response"`, the regression function, offset included; `"experts"`, the value of each
#'   expert (for `method = "em"` its mean, offset included); `"gate"`, the weight of each expert; `"class"`, the expert
#'   with the largest weight (of equals, the first); `"logit"`, the logits behind the weights. For `method = "em"` also
#'   `"link"`, the linear predictor of each expert, offset included; `"density"`, the density or probability of the
#'   response; `"quantile"`, quantiles of the response's distribution.
#' @param se.fit Whether to add standard errors: for `"response"`, `"experts"`, `"gate"` and `"link"`.
#' @param interval Whether to add an interval, for the response only: `"confidence"`, for the regression function;
#'   `"prediction"`, for a new observation, of weight 1 or, without `newdata`, of the weight of its row.
#' @param level Level of the interval, a number between 0 and 1.
#' @param na.action What to do with rows of `newdata` that have missing values. By default they are predicted as `NA`;
#'   [stats::na.omit()] drops them.
#' @param threads Number of threads, a whole number; the result is the same for any.
#' @param y For `"density"`: the response, one for each row, in the form in which the fit was given it. By default it is
#'   looked up in `newdata` (after a formula) or is that of the fit. For `"quantile"` and prediction intervals of a
#'   response `cbind(successes, failures)` it gives the numbers of trials.
#' @param probs For `"quantile"`: probabilities, numbers above 0 and below 1.
#' @param ... Nothing: any further argument is an error.
#'
#' @details Values of experts of a least squares fit leave the offset out: the response is the sum over experts of
#' weight times value, plus the offset. In a sparse gate (`top_k`) the weight of an inactive expert is 0.
#'
#' Without `newdata`, `"response"` gives the fitted values. All other types need the covariates again: they come from
#' `fit$model`, else from evaluating the data of the call again, as for [stats::lm()]. If these have changed since the
#' fit, this is an error. After `na.action = na.exclude`, rows that the fit dropped are there as `NA`.
#'
#' *Standard errors* are those of the delta method with the covariance matrix `vcov(fit)` of the model. The regression
#' function and its parts do not depend on the gauge, so they are always defined. Where the asymptotic theory fails (see
#' [vcov.cosine_moe()]) the numbers are given, conditional on the choice of experts in sparse gates, but with a warning
#' of class `cosmoe_warning_irregular` and the reasons in the attribute `irregular`: take them for an order of
#' magnitude. They need the data of the fit again.
#'
#' *Intervals.* After least squares a prediction interval adds the residual variance to the variance of the regression
#' function, and both intervals use Student's t. After maximum likelihood a confidence interval uses the normal
#' distribution and is symmetric for the mean (Gaussian family), its logarithm (Poisson and Gamma) or its logit
#' (binomial), which keeps it in the family's range. The prediction interval then goes from one quantile of the mixture
#' to another, as with `type = "quantile"` (and may be `NA` as there): it has the shape of the mixture, but takes the
#' parameters as known, so that in small samples it is too short (with n rows and P parameters, its variance lacks a
#' part of about P / n); weights have no part in it, and for `cbind(successes, failures)` it is one of shares.
#'
#' @return For `"response"` a numeric vector and for `"class"` a factor with the levels `expert1`, `expert2`, ..., with
#'   one element for each row; for `"experts"`, `"gate"` and `"logit"` a matrix with one row for each row and one column
#'   for each expert; for `"density"` a vector; for `"quantile"` a matrix with a column for each of `probs` (numbers of
#'   successes for the binomial family), `NA` where an expert with weight has a mean that the family does not allow, as
#'   identity links may give. Row names of `newdata`, if it has any, become names. New data that do not fit the model
#'   stop with a `cosmoe_error_newdata`; rows of the fit that cannot be found again stop with a `cosmoe_error_data`.
#'
#'   With an interval the response is a matrix with the columns `fit`, `lwr` and `upr`; with `se.fit = TRUE` the result
#'   is a list of `fit` (this vector or matrix), `se.fit`, `df` and `residual.scale`, as for [stats::predict.lm()]; for
#'   `method = "em"` `df` is `Inf`, and `residual.scale` the experts' sigma (`NULL` for families without).
#'
#' @seealso [fit_cosine_moe()], [coef.cosine_moe()], [simulate.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, k = 2, control = moe_control(n_starts = 5))
#' new <- data.frame(speed = c(5, 15, 25))
#' predict(fit, new)
#' predict(fit, new, type = "gate")
#' table(predict(fit, type = "class"))
#' # Intervals, where experts and gate are well determined.
#' x <- runif(300, -1, 1)
#' p <- plogis(10 * x)
#' y <- p * (1 + x) - (1 - p) * (1 - 0.5 * x) + rnorm(300, sd = 0.1)
#' fit <- fit_cosine_moe(y ~ x, router = "linear", control = moe_control(n_starts = 5))
#' predict(fit, data.frame(x = c(-0.5, 0, 0.5)), interval = "confidence")
#' @export
predict.cosine_moe <- function(object, newdata, type = c("response", "experts", "gate", "class", "logit", "link",
                                                         "density", "quantile"),
                               se.fit = FALSE, interval = c("none", "confidence", "prediction"), level = 0.95,
                               na.action = stats::na.pass, threads = 1, y = NULL, probs = c(0.05, 0.5, 0.95), ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("response", "experts", "gate", "class", "logit", "link", "density", "quantile"))
  if (type %in% c("link", "density", "quantile")) check_likelihood(object, sprintf("type = \"%s\"", type))
  probs <- check_probs(probs)
  se.fit <- check_flag(se.fit)
  interval <- check_choice(interval, c("none", "confidence", "prediction"))
  level <- check_level(level)
  threads <- check_count(threads)
  if (is.character(na.action)) na.action <- get0(na.action, mode = "function", ifnotfound = na.action)
  na.action <- check_function(na.action)
  if (missing(newdata)) newdata <- NULL
  if (interval != "none" && type != "response") stop_input("type", type, "\"response\", the only one with intervals")
  if (se.fit && !type %in% c("response", "experts", "gate", "link")) {
    stop_input("type", type, "\"response\", \"experts\", \"gate\" or \"link\", which have standard errors")
  }
  if (se.fit || interval != "none") {
    return(predict_uncertain(object, newdata, type, se.fit, interval, level, na.action, threads, y, parent.frame()))
  }
  if (is.null(newdata)) {
    check_rows(object, "predict() without `newdata`")
    if (type == "response") return(stats::fitted(object))
    return(predict_training(object, type, threads, parent.frame(), y, probs))
  }
  data <- prepare_newdata(object, newdata, na.action)
  response <- if (needs_response(object, type)) new_response(object, newdata, y, data)
  value <- prediction(object, evaluate_model(object, data, threads), type, response, probs)
  name_rows(fill_rows(value, data), given_row_names(newdata), data$na.action)
}

# Predictions for the rows of the fit. The data may have changed since then: the fitted values tell.
predict_training <- function(object, type, threads, env, y = NULL, probs = NULL) {
  data <- training_covariates(object, env)
  values <- evaluate_model(object, data, threads)
  check_unchanged(object, values$response)
  response <- if (is.null(y)) object[c("y", "trials")] else given_response(object, y, length(object$y))
  name_rows(fill_rows(prediction(object, values, type, response, probs), data), names(stats::fitted(object)))
}

# Predictions with standard errors or intervals, in the shapes of predict.lm().
predict_uncertain <- function(object, newdata, type, se.fit, interval, level, na.action, threads, y, env) {
  data <- if (is.null(newdata)) training_covariates(object, env) else prepare_newdata(object, newdata, na.action)
  names <- if (is.null(newdata)) names(stats::fitted(object)) else given_row_names(newdata)
  values <- evaluate_model(object, data, threads)
  if (is.null(newdata)) check_unchanged(object, values$response)
  # The quantiles of a mixture take its parameters as known.
  known <- is_em(object) && interval == "prediction"
  info <- if (se.fit || !known) information(object, env)
  error <- if (!is.null(info)) prediction_errors(object, info, data, values, type, threads)
  value <- prediction(object, values, type)
  if (known) {
    trials <- object$trials
    if (!is.null(trials) && !is.null(newdata)) trials <- new_response(object, newdata, y, data)$trials
    ends <- unname(mixture_quantiles(object, values, trials, c(1 - level, 1 + level) / 2))
    if (!is.null(trials)) ends <- ends / ifelse(trials > 0, trials, NA)
    value <- cbind(fit = value, lwr = ends[, 1L], upr = ends[, 2L])
  } else if (interval != "none") {
    value <- cbind(fit = value, interval_ends(object, value, error, interval, level, is.null(newdata)))
  }
  finish <- function(v) name_rows(fill_rows(v, data), names, if (!is.null(newdata)) data$na.action)
  warn_irregular(info$irregular, "Standard errors are rough")
  value <- finish(value)
  if (se.fit) {
    df <- if (is_em(object)) Inf else object$df.residual
    value <- list(fit = value, se.fit = finish(error), df = df, residual.scale = object$sigma)
  }
  if (length(info$irregular)) attr(value, "irregular") <- info$irregular
  value
}

# Lower and upper ends round the mean responses, by standard errors of these.
interval_ends <- function(object, mean, error, interval, level, training) {
  if (is_em(object)) {
    scale <- switch(object$family$name, gaussian = "identity", binomial = "logit", "log")
    center <- link_function(scale, "linkfun", mean)
    width <- stats::qnorm((1 + level) / 2) * error / link_function(scale, "mu.eta", center)
    end <- function(value) link_function(scale, "linkinv", value)
    return(cbind(lwr = end(center - width), upr = end(center + width)))
  }
  weight <- if (training && !is.null(object$weights)) object$weights else 1
  spread <- if (interval == "prediction") sqrt(error^2 + object$sigma^2 / weight) else error
  width <- suppressWarnings(stats::qt((1 + level) / 2, object$df.residual)) * spread
  cbind(lwr = mean - width, upr = mean + width)
}

# Standard errors of what `type` predicts at the rows of `data`, in blocks of rows: a vector, or a matrix with a column
# for each expert.
prediction_errors <- function(object, info, data, values, type, threads, block = 10000L) {
  n <- nrow(data$x)
  rows <- info$rows
  rows[c("x", "z")] <- list(data$x, data$z)
  size <- sqrt(info$variance)
  errors <- function(jacobian) size * sqrt(rowSums((jacobian %*% info$root[seq_len(ncol(jacobian)), , drop = FALSE])^2))
  columns <- if (type == "response") 1L else object$k
  value <- matrix(0, n, columns)
  for (first in seq.int(1L, by = block, length.out = ceiling(n / block))) {
    use <- first:min(n, first + block - 1L)
    part <- take_rows(rows, use)
    at <- lapply(values[c("gate", "expert", "link")], function(v) v[use, , drop = FALSE])
    jacobians <- part_jacobians(object, info, part, at, type, threads)
    value[use, ] <- vapply(jacobians, errors, numeric(length(use)))
  }
  if (type == "response") drop(value) else structure(value, dimnames = list(NULL, colnames(object$experts)))
}

# The derivatives in theta of each column of what `type` predicts. Those of a gate's weight are the regression
# function's with constant experts, 1 for its own and 0 for the others; those of an expert's value the same for this
# expert alone.
part_jacobians <- function(object, info, rows, at, type, threads) {
  model <- info$model[c("router", "expert", "k")]
  par <- info$par[c("u", "b", "eta")]
  derivatives <- function(model, par) core_call(core_jacobian(model, rows, par, threads))
  if (type == "response" && !is_em(object)) return(list(info$rows$y_scale * derivatives(model, par)))
  k <- model$k
  q <- nrow(par$eta)
  gates <- seq_len(k * (nrow(par$u) + 1L))
  wide <- function(part, columns) {
    all <- matrix(0, nrow(part), length(gates) + k * q)
    all[, columns] <- part
    all
  }
  of_gate <- function(j) {
    constant <- core_model(router_linear(), expert_constant(), k)
    constant$router <- model$router
    one <- c(par[c("u", "b")], list(eta = matrix(as.double(seq_len(k) == j), 1L)))
    wide(derivatives(constant, one)[, gates, drop = FALSE], gates)
  }
  of_expert <- function(j) {
    single <- core_model(router_linear(), expert_constant(), 1L)
    single$expert <- model$expert
    one <- list(u = matrix(0, nrow(par$u), 1L), b = 0, eta = par$eta[, j, drop = FALSE])
    own <- nrow(par$u) + 1L + seq_len(q)
    slope <- if (is_em(object) && type != "link") link_slope(object$family, at$link[, j]) else 1
    value <- slope * info$rows$eta_scale * derivatives(single, one)[, own, drop = FALSE]
    wide(value, length(gates) + (j - 1L) * q + seq_len(q))
  }
  each <- seq_len(k)
  if (type == "gate") return(lapply(each, of_gate))
  if (type != "response") return(lapply(each, of_expert))
  terms <- lapply(each, function(j) at$expert[, j] * of_gate(j) + at$gate[, j] * of_expert(j))
  list(Reduce(`+`, terms))
}

check_unchanged <- function(object, fitted) {
  if (!isTRUE(all.equal(fitted, as.vector(object$fitted.values), tolerance = 1e-5))) stop_data_changed()
}

# Everything the core knows about the rows of `data`, as made by prepare_newdata() or training_covariates().
evaluate_model <- function(object, data, threads) {
  model <- core_model(object$router, object$expert, object$k)
  rows <- list(x = data$x, z = data$z, z_center = unname(object$z_center), z_scale = unname(object$z_scale))
  par <- list(u = unname(object$gate$u), b = unname(object$gate$b), eta = unname(object$experts))
  value <- core_call(core_predict(model, rows, par, threads))
  offset <- if (is.null(data$offset)) 0 else data$offset
  if (is_em(object)) {
    value$link <- value$expert + offset
    value$expert <- mean_of_link(object$family, value$link)
    value$response <- rowSums(ifelse(value$gate > 0, value$gate * value$expert, 0))
  } else {
    value$response <- as.vector(value$f) + offset
  }
  value
}

# `response` is list(y, trials), for those that need one.
prediction <- function(object, values, type, response = NULL, probs = NULL) {
  experts <- colnames(object$experts)
  matrix_of <- function(value) structure(value, dimnames = list(NULL, experts))
  switch(type,
    response = values$response,
    experts = matrix_of(values$expert),
    gate = matrix_of(values$gate),
    logit = matrix_of(values$logit),
    link = matrix_of(values$link),
    density = exp(log_sum_rows(log_joint(object, values, response))),
    quantile = mixture_quantiles(object, values, response$trials, probs),
    posterior = matrix_of(responsibilities(log_joint(object, values, response))),
    class = factor(experts[max.col(values$gate, ties.method = "first")], levels = experts)
  )
}

given_row_names <- function(newdata) {
  if (is.list(newdata) && !is.data.frame(newdata)) newdata <- newdata$x
  if (is.data.frame(newdata) && .row_names_info(newdata) <= 0L) return(NULL)
  rownames(newdata)
}

# `dropped` rows are missing from `value`, unless it has been padded.
name_rows <- function(value, names, dropped = NULL) {
  if (is.null(names)) return(value)
  size <- NROW(value)
  if (length(names) > size) names <- names[-dropped]
  if (is.matrix(value)) rownames(value) <- names else names(value) <- names
  value
}
