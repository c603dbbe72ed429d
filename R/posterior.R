#' Responsibilities, clusters and ICL of a maximum likelihood fit
#'
#' @description
#' `posterior()` gives the probability of each expert given the response, \eqn{r_{ik} = p_k(z_i) f(y_i | h_k(x_i),
#' \phi_k) / \sum_j p_j(z_i) f(y_i | h_j(x_i), \phi_j)}{r_ik = p_k f_k / sum_j p_j f_j}, `clusters()` the most probable
#' expert, and `ICL()` a criterion for the choice of k that rewards experts which separate the rows.
#'
#' @param object A fit from [fit_cosine_moe()] with `method = "em"`.
#' @param newdata New values of covariates and response, as for [predict.cosine_moe()]; `NULL` for the rows of the fit.
#' @param y The response of `newdata`, in the form in which the fit was given it. By default it is looked up in
#'   `newdata` (after a formula) or is that of the fit.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' ICL is BIC plus twice the entropy of the responsibilities, \eqn{-2 \sum_i w_i \sum_k r_{ik} \log r_{ik}}{-2 sum_i w_i
#' sum_k r_ik log r_ik}: smaller is better, and it never is below BIC, whose n is the number of rows with
#' positive weight. Fits by least squares assume no distribution and have none of the three: they stop with a
#' `cosmoe_error_input`. `predict(fit, type = "gate")` and `type = "class"` go without the response.
#'
#' @return `posterior()`: a matrix with a row for each row and a column for each expert; rows sum to 1, and are `NaN`
#'   where no expert can have given the response. `clusters()`: a factor with the levels `expert1`, `expert2`, ...
#'   `ICL()`: a number.
#'
#' @references Biernacki, C., Celeux, G. and Govaert, G. (2000). Assessing a mixture model for clustering with the
#'   integrated completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 719-725.
#' @seealso [predict.cosine_moe()], [logLik.cosine_moe()].
#' @examples
#' set.seed(1)
#' quick <- moe_control(n_starts = 5)
#' fit <- fit_cosine_moe(
#'   eruptions ~ waiting, faithful,
#'   method = "em", router = "linear", control = quick
#' )
#' head(posterior(fit))
#' table(clusters(fit))
#' ICL(fit)
#' @export
posterior <- function(object, ...) UseMethod("posterior")

#' @rdname posterior
#' @export
posterior.cosine_moe <- function(object, newdata = NULL, y = NULL, ...) {
  check_dots_empty(...)
  check_likelihood(object, "posterior()")
  if (is.null(newdata)) return(predict_training(object, "posterior", object$control$threads, parent.frame(), y))
  data <- prepare_newdata(object, newdata)
  values <- evaluate_model(object, data, object$control$threads)
  value <- prediction(object, values, "posterior", new_response(object, newdata, y, data))
  name_rows(fill_rows(value, data), given_row_names(newdata), data$na.action)
}

#' @rdname posterior
#' @export
clusters <- function(object, ...) UseMethod("clusters")

#' @rdname posterior
#' @export
clusters.cosine_moe <- function(object, newdata = NULL, y = NULL, ...) {
  check_dots_empty(...)
  check_likelihood(object, "clusters()")
  env <- parent.frame()
  share <- if (is.null(newdata)) {
    predict_training(object, "posterior", object$control$threads, env, y)
  } else {
    posterior.cosine_moe(object, newdata, y)
  }
  known <- stats::complete.cases(share)
  best <- rep(NA_integer_, nrow(share))
  best[known] <- max.col(share[known, , drop = FALSE], ties.method = "first")
  value <- factor(colnames(share)[best], levels = colnames(share))
  if (is.null(rownames(share))) value else stats::setNames(value, rownames(share))
}

#' @rdname posterior
#' @export
ICL <- function(object, ...) UseMethod("ICL") # nolint: object_name_linter.

#' @rdname posterior
#' @export
ICL.cosine_moe <- function(object, ...) { # nolint: object_name_linter.
  check_dots_empty(...)
  check_likelihood(object, "ICL()")
  stats::BIC(object) + 2 * object$entropy
}

# ---- the mixture at given rows ---------------------------------------------------------------------------------------

# log p_k f_k, n x k, from what evaluate_model() gives.
log_joint <- function(object, values, response) {
  trials <- if (is.null(response$trials)) 1 else response$trials
  log(values$gate) + log_density(object$family, response$y, trials, values$expert, object$dispersion)
}

log_sum_rows <- function(log_joint) {
  top <- row_maxima(log_joint)
  ifelse(is.finite(top), top + log(rowSums(exp(log_joint - ifelse(is.finite(top), top, 0)))), top)
}

# P(Y <= y) of the mixture; `y` as the family's distribution() takes it.
mixture_distribution <- function(object, values, y, trials) {
  below <- distribution(object$family, y, trials, values$expert, object$dispersion)
  rowSums(ifelse(values$gate > 0, values$gate * below, 0))
}

# The smallest y with P(Y <= y) >= p lies between the experts' quantiles; by bisection, to the last whole number or to
# about 14 digits. Successes, not shares, for the binomial family.
mixture_quantiles <- function(object, values, trials, probs) {
  family <- object$family
  n <- nrow(values$gate)
  trials <- if (is.null(trials)) rep(1, n) else trials
  discrete <- family$name %in% c("binomial", "poisson")
  active <- values$gate > 0
  below <- function(y) {
    mixture_distribution(object, values, if (family$name == "binomial") y / pmax(trials, 1) else y, trials)
  }
  one <- function(p) {
    each <- expert_quantiles(family, p, trials, values$expert, object$dispersion)
    lower <- -row_maxima(ifelse(active, -each, -Inf))
    upper <- row_maxima(ifelse(active, each, -Inf))
    if (discrete) lower <- lower - 1
    for (step in seq_len(200L)) {
      middle <- if (discrete) floor((lower + upper) / 2) else (lower + upper) / 2
      open <- if (discrete) upper - lower > 1 else middle > lower & middle < upper
      if (!any(open, na.rm = TRUE)) break
      reached <- below(middle) >= p
      upper <- ifelse(open & reached, middle, upper)
      lower <- ifelse(open & !reached, middle, lower)
    }
    upper
  }
  value <- matrix(vapply(probs, one, numeric(n)), n, length(probs))
  colnames(value) <- paste0(formatC(100 * probs, format = "fg", width = 1L, digits = 7L), "%")
  value
}

check_probs <- function(probs) {
  if (!is.numeric(probs) || length(probs) == 0L || anyNA(probs) || any(probs <= 0 | probs >= 1)) {
    stop_input("probs", probs, "numbers above 0 and below 1")
  }
  as.double(probs)
}

# Pearson residuals by the mixture's variance; quantile residuals, randomised between P(Y < y) and P(Y <= y) for
# discrete responses.
likelihood_residuals <- function(object, type, env) {
  data <- training_covariates(object, env)
  values <- evaluate_model(object, data, object$control$threads)
  check_unchanged(object, values$response)
  family <- object$family
  trials <- if (is.null(object$trials)) rep(1, length(object$y)) else object$trials
  named <- function(value) stats::setNames(value, names(object$residuals))
  if (type == "pearson") {
    within <- response_variance(family, values$expert, per_row(object$dispersion, values$expert)) / pmax(trials, 1)
    spread <- within + (values$expert - values$response)^2
    return(named(object$residuals / sqrt(rowSums(ifelse(values$gate > 0, values$gate * spread, 0)))))
  }
  upper <- mixture_distribution(object, values, object$y, trials)
  if (family$name %in% c("binomial", "poisson")) {
    lower <- mixture_distribution(object, values, object$y - 1 / pmax(trials, 1), trials)
    upper <- lower + stats::runif(length(upper)) * (upper - lower)
  }
  named(stats::qnorm(pmin(pmax(upper, 1e-300), 1 - 1e-16)))
}

# ---- responses for new rows ------------------------------------------------------------------------------------------

# Quantiles of numbers of successes need the trials.
needs_response <- function(object, type) {
  type %in% c("density", "posterior") || (type == "quantile" && !is.null(object$trials))
}

# list(y, trials) for the rows that `data`, from prepare_newdata(), holds.
new_response <- function(object, newdata, y, data) {
  if (is.null(y)) y <- looked_up_response(object, newdata)
  response <- given_response(object, y, NROW(if (is.list(newdata) && !is.data.frame(newdata)) newdata$x else newdata))
  lapply(response, function(value) {
    if (is.null(value)) return(NULL)
    if (length(data$na.action)) value <- value[-data$na.action]
    value[data$rows]
  })
}

looked_up_response <- function(object, newdata) {
  if (is.null(object$formula)) stop_newdata("The fit comes from matrices: give the response as `y`.")
  expression <- object$terms$full[[2L]]
  newdata <- as.data.frame(newdata)
  absent <- setdiff(intersect(all.vars(expression), all.vars(stats::formula(object$formula))), names(newdata))
  if (length(absent)) stop_newdata("`newdata` lacks the response (", enumerate(absent), "), and there is no `y`.")
  tryCatch(eval(expression, newdata, environment(object$formula)), error = function(e) {
    stop_newdata("The response cannot be evaluated in `newdata`: ", conditionMessage(e), ".")
  })
}

# A factor's levels are those of the fit; missing responses are allowed.
given_response <- function(object, y, n) {
  if (is.factor(y) || is.character(y)) y <- factor(as.character(y), levels = object$ylevels)
  likelihood <- list(family = object$family)
  pair <- is.matrix(y) && ncol(y) == 2L
  if (!is.null(object$trials) && !pair) stop_newdata("`y` must be cbind(successes, failures), as in the fit.")
  as_newdata_error(read_response(y, n, "The response", likelihood))
}
