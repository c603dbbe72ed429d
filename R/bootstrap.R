#' Bootstrap of a mixture of experts
#'
#' @description
#' Refits the model to `R` resampled data sets and collects what can be identified, `coef(fit)`, with
#' the experts of each replicate in the order of those of the fit that they resemble most.
#'
#' @param fit A fit from [fit_cosine_moe()].
#' @param R Number of replicates, a whole number of at least 2. The default 200 gives standard errors with a relative
#'   error of 5%; the ends of 95% intervals need 1,000 or more.
#' @param type `"residual"`: fitted values plus residuals drawn with replacement. `"cases"`: rows drawn with
#'   replacement. `"parametric"`: fitted values plus Gaussian errors with standard deviation `sigma(fit)`; after maximum
#'   likelihood, responses drawn from the fitted mixture. The first is the default after least squares; after maximum
#'   likelihood, where it would make no sense, `"parametric"`.
#' @param n_starts Number of starts to draw in each replicate, beside the fit itself. The default 0 starts from the fit
#'   alone: fast, and the question is how the solution at hand varies. Others show how often the data lead to another.
#' @param x,object Replicates from `bootstrap_moe()`.
#' @param parm,level As for [confint.cosine_moe()].
#' @param method `"percentile"`: quantiles of the replicates. `"basic"`: twice the estimate minus these quantiles.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Residuals* are multiplied by the square roots of their weights, centred, and multiplied by
#' \eqn{\sqrt{n / (n - df)}}{sqrt(n / (n - df))}, because least squares makes them too small; new errors are divided by
#' the square roots of the weights. *Cases* multiply the weights by the number of times that a row was drawn. Rows with
#' weight zero do not count. The centre and scale of a standardized cosine gate stay those of the fit. *Parametric*
#' responses of a mixture are one for each row, as in [simulate()][simulate.cosine_moe], and keep the row's weight:
#' where weights are numbers of equal rows, write these rows out first.
#'
#' *Labels.* The experts of a replicate are assigned to those of the fit so that the sum of squared differences of gate
#' contrasts, parameters and logarithms of dispersions is smallest, each difference in units of the information about
#' its coordinate.
#'
#' *Failures.* A replicate that stops with an error is a row of `NA` with its reason in `status`; so is one whose data
#' [fit_cosine_moe()] would refuse, as drawn cases without one of a factor's levels, which do not determine its
#' coefficient. One that has not converged keeps its numbers and says so there. None is replaced.
#'
#' *Random numbers.* `set.seed()` reproduces the replicates exactly, whatever the number of workers of the current
#' `future::plan()`. A progress bar comes with `progressr::with_progress()`. An interrupt stops with a
#' `cosmoe_error_interrupt`.
#'
#' The bootstrap needs no normality, but it is not right everywhere: on the boundary and with more experts than the
#' truth its intervals are rough as well. Its replicates show that something is wrong, by their spread and by the gates
#' they put on the boundary.
#'
#' @return An object of class `moe_bootstrap`, a list: `coefficients`, a matrix with a row for each replicate and the
#'   columns of `coef(fit)`; `estimate`, those of the fit; `status`, a data frame with `sse` (`loglik`
#'   after maximum likelihood), `status` and `message` of each replicate; `irregular`, why standard errors of the fit
#'   would mislead (if so); `type`, `n_starts`, `call`. `vcov()`: the covariance matrix over the replicates that did
#'   not fail, of which there must be two (else a `cosmoe_error_bootstrap`); `confint()`: a matrix as for fits;
#'   `print()`: its argument, invisibly.
#'
#' @references Davison, A. C. and Hinkley, D. V. (1997). Bootstrap Methods and their Application. Cambridge University
#'   Press, chapters 5 and 6.
#' @seealso [vcov.cosine_moe()], [confint.cosine_moe()].
#' @examples
#' set.seed(1)
#' x <- runif(200, -1, 1)
#' p <- plogis(10 * x)
#' y <- p * (1 + x) - (1 - p) * (1 - 0.5 * x) + rnorm(200, sd = 0.1)
#' fit <- fit_cosine_moe(y ~ x, k = 2, router = "linear", control = moe_control(n_starts = 5))
#' boot <- bootstrap_moe(fit, R = 50)
#' boot
#' confint(boot, "gate1:x")
#' @export
bootstrap_moe <- function(fit, R = 200, type = c("residual", "cases", "parametric"), # nolint: object_name_linter.
                          n_starts = 0, ...) {
  check_dots_empty(...)
  if (!inherits(fit, "cosine_moe")) stop_input("fit", fit, "a fit from fit_cosine_moe()")
  count <- check_count(R, lower = 2L, argument = "R")
  type <- if (missing(type) && is_em(fit)) "parametric" else check_choice(type, c("residual", "cases", "parametric"))
  if (is_em(fit) && type == "residual") stop_input("type", type, "\"parametric\" or \"cases\" for maximum likelihood")
  n_starts <- check_count(n_starts, lower = 0L)
  if (!is_em(fit) && type != "cases" && !is.finite(fit$sigma)) {
    stop_input("fit", I("one without any"), "one with residual degrees of freedom")
  }
  check_rows(fit, "The bootstrap")
  info <- information(fit, parent.frame())
  task <- bootstrap_task(fit, info, type, n_starts)
  progress <- progressor(steps = count)
  runs <- tryCatch(
    future.apply::future_lapply(
      seq_len(count), bootstrap_replicate, task = task, progress = progress,
      future.seed = TRUE, future.packages = "cosmoe"
    ),
    interrupt = function(e) stop_interrupt("The bootstrap was interrupted.")
  )
  coefficients <- do.call(rbind, lapply(runs, function(run) run$coefficients))
  structure(
    list(
      coefficients = coefficients,
      estimate = coef(fit, "identifiable"),
      status = stats::setNames(data.frame(
        vapply(runs, function(run) run$value, 0),
        vapply(runs, function(run) run$status, ""),
        vapply(runs, function(run) run$message, "")
      ), c(if (is_em(fit)) "loglik" else "sse", "status", "message")),
      type = type, n_starts = n_starts, irregular = info$irregular, call = match.call()
    ),
    class = "moe_bootstrap"
  )
}

# What every replicate needs. The gate's covariates are centred and scaled once for all where that is part of the model.
bootstrap_task <- function(fit, info, type, n_starts) {
  rows <- info$rows
  frozen <- fit$router$name != "linear" && fit$standardize
  z <- rows$z
  if (frozen) {
    z <- if (is.null(z)) rows$x else z
    z <- (z - rep(fit$z_center, each = nrow(z))) / rep(fit$z_scale, each = nrow(z))
  }
  control <- fit$control
  control$on_interrupt <- "stop"
  control$n_starts <- n_starts
  # The information about each row of the tables of gates, experts and dispersions, mean over the experts.
  about <- diag(crossprod(info$maps$work, info$normal %*% info$maps$work))
  sizes <- c(if (fit$k > 1L) (nrow(fit$gate$u) + 1L) * fit$k else 0L, length(fit$experts))
  part <- rep(1:3, c(sizes, length(about) - sum(sizes)))
  mean_of <- function(values) rowMeans(matrix(rep_len(values, ceiling(length(values) / fit$k) * fit$k), ncol = fit$k))
  data <- list(
    x = rows$x, z = z, y = fit$y, trials = fit$trials, w = fit$weights, offset = fit$offset, names = fit$names,
    gate_frozen = frozen
  )
  list(
    fit = unclass(fit)[intersect(c(
      "gate", "experts", "router", "expert", "k", "weights", "fitted.values", "residuals", "sigma", "nobs",
      "df.residual", "method", "family", "dispersions", "dispersion"
    ), names(fit))],
    data = data, check_gate = fit$standardize || has_independent_gate(fit, data),
    # What responses of a mixture are drawn from.
    mixture = if (is_em(fit) && type == "parametric") {
      evaluate_model(fit, list(x = rows$x, z = rows$z, offset = fit$offset), info$threads)[c("gate", "expert")]
    },
    standardize = fit$standardize, control = control, type = type,
    units = sqrt(unlist(lapply(1:3, function(i) mean_of(about[part == i]))))
  )
}

# A gate that is not standardized may have dependent covariates in the data themselves: then samples may, too.
has_independent_gate <- function(fit, data) {
  checked <- tryCatch(
    check_data(data, fit$k, fit$router, fit$expert, TRUE, likelihood_of(fit)),
    cosmoe_error_data = identity
  )
  !inherits(checked, "condition")
}

bootstrap_replicate <- function(i, task, progress) {
  fit <- task$fit
  data <- resampled(task)
  start <- start_of(fit)
  names <- names(coef.cosine_moe(fit, "identifiable"))
  likelihood <- likelihood_of(fit)
  estimate <- function(start) {
    estimate_model(data, fit$router, fit$expert, fit$k, start, task$standardize, task$control, likelihood)
  }
  # A degenerate likelihood is no better, however large.
  value_of <- function(found) if (is_em(fit)) found$loglik else min(found$starts$objective, na.rm = TRUE)
  badness <- function(found) {
    if (found$convergence$status == "degenerate") Inf else if (is_em(fit)) -value_of(found) else value_of(found)
  }
  run <- tryCatch(
    {
      # Else what a sample does not determine would stay what it is in the fit.
      check_data(data, fit$k, fit$router, fit$expert, task$check_gate, likelihood)
      found <- estimate(start)
      if (task$control$n_starts > 0L) {
        other <- estimate(NULL)
        if (badness(other) < badness(found)) found <- other
      }
      list(
        coefficients = stats::setNames(aligned_coefficients(found, task), names),
        value = value_of(found),
        status = found$convergence$status, message = found$convergence$message
      )
    },
    error = function(e) {
      if (inherits(e, "cosmoe_error_interrupt")) stop(e)
      list(
        coefficients = stats::setNames(rep(NA_real_, length(names)), names),
        value = NA_real_, status = "failed", message = conditionMessage(e)
      )
    }
  )
  progress()
  run
}

# The data of the task with new responses, or with the weights of drawn rows.
resampled <- function(task) {
  fit <- task$fit
  data <- task$data
  w <- fit$weights
  if (is.null(w)) w <- rep(1, length(fit$residuals))
  counts <- which(w > 0)
  m <- length(counts)
  if (task$type == "cases") {
    drawn <- tabulate(sample.int(m, m, replace = TRUE), m)
    data$w <- replace(w, counts, w[counts] * drawn)
    return(data)
  }
  if (!is.null(task$mixture)) {
    y <- draw_mixture(fit, task$mixture, data$trials)
    data$y[counts] <- as_shares(y, data$trials)[counts]
    return(data)
  }
  error <- if (task$type == "parametric") {
    stats::rnorm(m, sd = fit$sigma)
  } else {
    pearson <- sqrt(w[counts]) * fit$residuals[counts]
    sample((pearson - mean(pearson)) * sqrt(fit$nobs / fit$df.residual), m, replace = TRUE)
  }
  data$y <- as.vector(fit$fitted.values)
  data$y[counts] <- data$y[counts] + error / sqrt(w[counts])
  data
}

# The coefficients with the experts in the order of the fit's.
aligned_coefficients <- function(found, task) {
  fit <- task$fit
  table_of <- function(gate, experts, phi) {
    list(
      gate = gate_contrasts(gate, fit$router), experts = intercept_first(experts),
      phi = if (length(phi)) matrix(rep_len(phi, fit$k), 1L)
    )
  }
  old <- table_of(fit$gate, fit$experts, log_dispersion(fit))
  new <- table_of(found[c("u", "b")], structure(found$eta, dimnames = dimnames(fit$experts)), found$phi)
  scaled <- function(table) rbind(unname(table$gate), unname(table$experts), table$phi) * task$units
  by <- assign_columns(scaled(new), scaled(old))
  c(new$gate[, by], new$experts[, by], if (length(found$phi) > 1L) found$phi[by] else found$phi)
}

# For each column of `target` a different column of `x`, so that the sum of squared distances is least.
assign_columns <- function(x, target) {
  distance <- outer(seq_len(ncol(target)), seq_len(ncol(x)), Vectorize(function(i, j) sum((target[, i] - x[, j])^2)))
  assign_rows(distance)
}

# The assignment of columns to the rows of a square matrix with the least sum of `cost`, by shortest augmenting paths
# with potentials (the Hungarian method).
assign_rows <- function(cost) {
  k <- nrow(cost)
  row_price <- numeric(k)
  column_price <- numeric(k)
  owner <- integer(k)
  for (row in seq_len(k)) {
    slack <- rep(Inf, k)
    from <- integer(k)
    visited <- logical(k)
    at <- row
    column <- 0L
    repeat {
      reduced <- cost[at, ] - row_price[at] - column_price
      closer <- !visited & reduced < slack
      slack[closer] <- reduced[closer]
      from[closer] <- column
      open <- which(!visited)
      nearest <- open[which.min(slack[open])]
      step <- slack[nearest]
      reached <- c(row, owner[visited])
      row_price[reached] <- row_price[reached] + step
      column_price[visited] <- column_price[visited] - step
      slack[!visited] <- slack[!visited] - step
      visited[nearest] <- TRUE
      column <- nearest
      if (owner[column] == 0L) break
      at <- owner[column]
    }
    while (column != 0L) {
      previous <- from[column]
      owner[column] <- if (previous == 0L) row else owner[previous]
      column <- previous
    }
  }
  order(owner)
}

# The replicates of vcov(type = "bootstrap").
bootstrap_of <- function(fit, boot, count) {
  if (is.null(boot)) return(bootstrap_moe(fit, count))
  own <- inherits(boot, "moe_bootstrap") && identical(boot$estimate, coef(fit, "identifiable"))
  if (!own) stop_input("boot", boot, "replicates of this fit, from bootstrap_moe()")
  boot
}

complete_replicates <- function(boot) {
  kept <- boot$coefficients[stats::complete.cases(boot$coefficients), , drop = FALSE]
  if (nrow(kept) < 2L) stop_cosmoe("bootstrap", "Fewer than two replicates have not failed: see `status`.")
  kept
}

#' @rdname bootstrap_moe
#' @export
vcov.moe_bootstrap <- function(object, ...) {
  check_dots_empty(...)
  stats::cov(complete_replicates(object))
}

#' @rdname bootstrap_moe
#' @export
confint.moe_bootstrap <- function(object, parm, level = 0.95, method = c("percentile", "basic"), ...) {
  check_dots_empty(...)
  parm <- check_parm(if (!missing(parm)) parm, names(object$estimate))
  level <- check_level(level)
  method <- check_choice(method, c("percentile", "basic"))
  kept <- complete_replicates(object)
  ends <- interval_matrix(names(object$estimate)[parm], level)
  for (i in seq_along(parm)) {
    ends[i, ] <- stats::quantile(kept[, parm[i]], c(1 - level, 1 + level) / 2, names = FALSE)
  }
  if (method == "basic") ends[] <- 2 * object$estimate[parm] - ends[, 2:1]
  ends
}

#' @rdname bootstrap_moe
#' @export
print.moe_bootstrap <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  status <- x$status$status
  count <- count_words(length(status), "replicate")
  print_line("Bootstrap of a mixture of experts: ", count, ", ", bootstrap_words(x$type, x$status))
  odd <- table(status[status != "converged"])
  if (length(odd)) print_line("Not converged: ", paste(odd, names(odd), collapse = ", "), ".")
  if (length(x$irregular)) {
    print_line("The fit itself is irregular: ", paste(x$irregular, collapse = "; "), ". Mind outliers and pile-ups.")
  }
  cat("\n")
  kept <- x$coefficients[stats::complete.cases(x$coefficients), , drop = FALSE]
  table <- cbind(
    Estimate = x$estimate, Bias = colMeans(kept) - x$estimate, `Std. Error` = apply(kept, 2L, stats::sd)
  )
  print(format_entries(table, digits), quote = FALSE, right = TRUE)
  invisible(x)
}

bootstrap_words <- function(type, status) {
  switch(type,
    residual = "residuals drawn with replacement",
    cases = "rows drawn with replacement",
    parametric = if ("loglik" %in% names(status)) "responses drawn from the fit" else "Gaussian errors"
  )
}
