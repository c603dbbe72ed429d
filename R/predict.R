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
#'   expert; `"gate"`, the weight of each expert; `"class"`, the expert with the largest weight (of equals, the
#'   first); `"logit"`, the logits behind the weights.
#' @param na.action What to do with rows of `newdata` that have missing values. By default they are predicted as `NA`;
#'   [stats::na.omit()] drops them.
#' @param threads Number of threads, a whole number; the result is the same for any.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' Values of experts leave the offset out: the response is the sum over experts of weight times value, plus the offset.
#' In a sparse gate (`top_k`) the weight of an inactive expert is 0.
#'
#' Without `newdata`, `"response"` gives the fitted values. All other types need the covariates again: they come from
#' `fit$model`, else from evaluating the data of the call again, as for [stats::lm()]. If these have changed since the
#' fit, this is an error. After `na.action = na.exclude`, rows that the fit dropped are there as `NA`.
#'
#' @return For `"response"` a numeric vector and for `"class"` a factor with the levels `expert1`, `expert2`, ...,
#'   with one element for each row; for `"experts"`, `"gate"` and `"logit"` a matrix with one row for each row and one
#'   column for each expert. Row names of `newdata`, if it has any, become names. New data that do not fit the model
#'   stop with a `cosmoe_error_newdata`; rows of the fit that cannot be found again stop with a `cosmoe_error_data`.
#'
#' @seealso [fit_cosine_moe()], [coef.cosine_moe()], [simulate.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, k = 2, control = moe_control(n_starts = 5))
#' new <- data.frame(speed = c(5, 15, 25))
#' predict(fit, new)
#' predict(fit, new, type = "gate")
#' table(predict(fit, type = "class"))
#' @export
predict.cosine_moe <- function(object, newdata, type = c("response", "experts", "gate", "class", "logit"),
                               na.action = stats::na.pass, threads = 1, ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("response", "experts", "gate", "class", "logit"))
  threads <- check_count(threads)
  if (is.character(na.action)) na.action <- get0(na.action, mode = "function", ifnotfound = na.action)
  na.action <- check_function(na.action)
  if (missing(newdata) || is.null(newdata)) {
    if (type == "response") return(stats::fitted(object))
    return(predict_training(object, type, threads, parent.frame()))
  }
  data <- prepare_newdata(object, newdata, na.action)
  value <- prediction(object, evaluate_model(object, data, threads), type)
  name_rows(fill_rows(value, data), given_row_names(newdata), data$na.action)
}

# Predictions for the rows of the fit. The data may have changed since then: the fitted values tell.
predict_training <- function(object, type, threads, env) {
  data <- training_covariates(object, env)
  values <- evaluate_model(object, data, threads)
  check_unchanged(object, values$response)
  name_rows(fill_rows(prediction(object, values, type), data), names(stats::fitted(object)))
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
  value$response <- as.vector(value$f) + if (is.null(data$offset)) 0 else data$offset
  value
}

prediction <- function(object, values, type) {
  experts <- colnames(object$experts)
  matrix_of <- function(value) structure(value, dimnames = list(NULL, experts))
  switch(type,
    response = values$response,
    experts = matrix_of(values$expert),
    gate = matrix_of(values$gate),
    logit = matrix_of(values$logit),
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
