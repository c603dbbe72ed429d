#' Bootstrap likelihood-ratio test of k against k + 1 experts
#'
#' @description
#' Tests whether a fit needs another expert. Under the hypothesis that it does not, the likelihood ratio has no
#' chi-square distribution, because the additional expert's parameters cannot be identified; its distribution is
#' simulated from the fit.
#'
#' @param fit A fit from [fit_cosine_moe()], by either method: the null hypothesis.
#' @param R Number of bootstrap replicates, a whole number. The default 199 makes tests at the levels 0.05 and 0.01
#'   exact for a simple hypothesis.
#' @param n_starts Number of starts that are drawn for k + 1 experts, for the data and for each replicate alike, beside
#'   the split solution with k experts. The default 20 keeps a test affordable; with too few, the replicates' ratios are
#'   too small, and the test rejects too often.
#' @param stop_after `Inf`, or a whole number: the simulation ends with the replicate that is the `stop_after`-th with a
#'   ratio at least that of the data; 10 saves most of the time where the hypothesis is clearly compatible with the
#'   data, and changes nothing where it is rejected at usual levels.
#' @param x Result of `test_experts()`.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Statistic.* For `method = "em"` twice the difference of the log-likelihoods; for least squares the ratio for
#' Gaussian errors, \eqn{n \log(SSE_k / SSE_{k+1})}{n log(SSE_k / SSE_(k+1))}. It is never negative: the larger model
#' begins from the smaller one's solution, and the smaller one is tried again from the larger one's with two experts
#' merged (the same for data and replicates; if this finds a better fit with k experts, it takes the place of `fit`).
#'  *Replicates* are drawn as by [simulate()][simulate.cosine_moe] from the fit with k experts, and both models are
#' fitted to each: the smaller one from the parameters it was drawn with, the larger one by a search as for the data.
#' Weights and offset are kept. A replicate that fails (an error in one of the fits) counts neither way: the p-value is
#' (1 + number of ratios at least that of the data) / (1 + number of valid replicates). After an early stop it is
#' `stop_after` over the number of valid replicates (Besag and Clifford).
#'
#' *Random numbers.* `set.seed()` reproduces the test exactly, whatever the current `future::plan()`. An interrupt stops
#' with a `cosmoe_error_interrupt`, or if the fit has `moe_control(on_interrupt = "return")`, ends the simulation with
#' the replicates drawn so far. A progress bar comes with `progressr::with_progress()`.
#'
#' @return An object of classes `test_experts` and `htest`, a list: `statistic`, `parameter` (k, replicates that
#'   count), `p.value`, `method`, `data.name`, `alternative`, `replicates` (a data frame with the `statistic`, `status`
#'   and `message` of each replicate, `NA` for failures), `failures` (how many), `null` and `larger` (both fits to the
#'   data), `stopped` (whether the simulation ended early, and why: `"no"`, `"early"` or `"interrupted"`). If no
#'   replicate is valid, a `cosmoe_error_bootstrap`; an exact or degenerate fit is a `cosmoe_error_input`.
#'
#' @references McLachlan, G. J. (1987). On bootstrapping the likelihood ratio test statistic for the number of
#'   components in a normal mixture. Applied Statistics 36, 318-324.
#' @references Besag, J. and Clifford, P. (1991). Sequential Monte Carlo p-values. Biometrika 78, 301-304.
#' @seealso [select_experts()], [merge_experts()], [bootstrap_moe()], [anova.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(eruptions ~ 1 | waiting, faithful,
#'   k = 2, method = "em", router = "linear", expert = "constant", control = moe_control(n_starts = 5)
#' )
#' test_experts(fit, R = 9, n_starts = 4)
#' @export
test_experts <- function(fit, R = 199, n_starts = 20, stop_after = Inf, ...) { # nolint: object_name_linter.
  if (missing(fit)) stop_input("fit", I("missing"), "made by fit_cosine_moe()")
  check_dots_empty(...)
  check_testable(fit)
  count <- check_count(R, argument = "R")
  n_starts <- check_count(n_starts)
  if (!identical(stop_after, Inf)) stop_after <- check_count(stop_after)
  name <- deparse1(substitute(fit))
  data <- refit_data(fit, parent.frame())
  settings <- refit_settings(fit)
  settings$control$n_starts <- n_starts
  pair <- fit_pair(data, settings, fit$call, fit)
  if (any(vapply(pair, function(fit) is.null(fit) || is_interrupted(fit), NA))) {
    stop_interrupt("The test was interrupted.")
  }
  if (!all(vapply(pair, is_fit, NA))) stop(pair[[2L]])
  observed <- likelihood_ratio(pair)
  task <- list(
    draw = response_generator(pair[[1L]], data), data = data, settings = settings, start = start_of(pair[[1L]]),
    k = fit$k, call = fit$call
  )
  task$settings$control$on_interrupt <- "stop"
  simulated <- simulate_ratios(task, count, observed, stop_after, fit$control$on_interrupt)
  replicates <- simulated$replicates
  valid <- replicates$statistic[!is.na(replicates$statistic)]
  if (length(valid) == 0L) {
    stop_cosmoe("bootstrap", paste0("No replicate is valid: ", replicates$message[1L]))
  }
  exceed <- sum(valid >= observed)
  early <- simulated$stopped == "early"
  structure(
    list(
      statistic = c(LR = observed), parameter = c(k = fit$k, replicates = length(valid)),
      p.value = if (early) exceed / length(valid) else (1 + exceed) / (1 + length(valid)),
      method = sprintf("Bootstrap likelihood-ratio test of %d against %s", fit$k, count_words(fit$k + 1L, "expert")),
      data.name = name,
      alternative = sprintf("the data need more than %s", count_words(fit$k, "expert")),
      replicates = replicates, failures = nrow(replicates) - length(valid), stopped = simulated$stopped,
      null = pair[[1L]], larger = pair[[2L]]
    ),
    class = c("test_experts", "htest")
  )
}

check_testable <- function(fit) {
  if (!is_fit(fit)) stop_input("fit", fit, "a fit from fit_cosine_moe()")
  if (!is_sound(fit)) stop_input("fit", I("a degenerate one"), "one with a finite likelihood")
  if (!is_em(fit) && (!is.finite(fit$sigma) || is_exact(fit))) {
    stop_input("fit", I("an exact one"), "one with residuals to simulate from")
  }
}

# The fits with k and k + 1 experts, the smaller one never better.
fit_pair <- function(data, settings, call, known) sweep_fits(data, settings, known$k + 0:1, call, known)

likelihood_ratio <- function(pair) {
  deviance <- vapply(pair, stats::deviance, 0)
  value <- if (is_em(pair[[1L]])) deviance[1L] - deviance[2L] else pair[[1L]]$nobs * log(deviance[1L] / deviance[2L])
  # The larger model begins from the smaller one's solution: below zero is rounding.
  max(value, 0)
}

# A function that draws a response for the data of the fit.
response_generator <- function(fit, data) {
  fit["na.action"] <- list(NULL)
  draw <- if (is_em(fit)) mixture_draws(fit, data) else gaussian_draws(fit)
  mean <- as.vector(fit$fitted.values)
  function() {
    y <- draw(1L)
    if (is.matrix(y)) y <- as_shares(y[, 1L], data$trials)
    y <- as.vector(y)
    # Rows of weight zero have no finite variance, and do not count.
    ifelse(is.na(y), mean, y)
  }
}

# Replicates in batches of fixed size, so that an early stop does not depend on the number of workers.
simulate_ratios <- function(task, count, observed, stop_after, on_interrupt, batch = 20L) {
  progress <- progressor(steps = count)
  runs <- list()
  stopped <- "no"
  while (length(runs) < count && stopped == "no") {
    now <- tryCatch(
      future.apply::future_lapply(
        seq_len(min(batch, count - length(runs))), ratio_replicate, task = task, progress = progress,
        future.seed = TRUE, future.packages = "cosmoe"
      ),
      interrupt = function(e) NULL, cosmoe_error_interrupt = function(e) NULL
    )
    if (is.null(now)) {
      if (on_interrupt == "stop" || !length(runs)) stop_interrupt("The test was interrupted.")
      stopped <- "interrupted"
    }
    runs <- c(runs, now)
    exceeds <- vapply(runs, function(run) run$statistic >= observed, NA) %in% TRUE
    if (sum(exceeds) >= stop_after) {
      runs <- runs[seq_len(which(cumsum(exceeds) == stop_after)[1L])]
      stopped <- "early"
    }
  }
  column <- function(name, type) vapply(runs, function(run) run[[name]], type)
  list(
    replicates = data.frame(
      statistic = column("statistic", 0), status = column("status", ""), message = column("message", "")
    ),
    stopped = stopped
  )
}

ratio_replicate <- function(i, task, progress) {
  data <- task$data
  data$y <- task$draw()
  small <- try_fit(data, task$settings, task$k, task$call, task$start)
  pair <- if (is_fit(small)) fit_pair(data, task$settings, task$call, small) else list(small)
  failed <- Filter(Negate(is_fit), pair)
  progress()
  if (length(failed)) {
    return(list(statistic = NA_real_, status = "failed", message = conditionMessage(failed[[1L]])))
  }
  status <- vapply(pair, function(fit) fit$convergence$status, "")
  odd <- status[status != "converged"]
  list(statistic = likelihood_ratio(pair), status = c(odd, "converged")[1L], message = "")
}

#' @rdname test_experts
#' @export
print.test_experts <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  cat("\n")
  print_line(x$method)
  cat("\n")
  print_line("data: ", x$data.name)
  print_line(
    "LR = ", format(x$statistic, digits = digits), ", p-value ", format.pval(x$p.value, digits = digits, eps = 0),
    ", ", count_words(x$parameter[["replicates"]], "replicate")
  )
  print_line("alternative hypothesis: ", x$alternative)
  if (x$stopped == "early") print_line("The simulation ended early: the hypothesis is compatible with the data.")
  if (x$stopped == "interrupted") print_line("The simulation was interrupted.")
  odd <- table(x$replicates$status[x$replicates$status != "converged"])
  if (length(odd)) print_line("Not converged: ", paste(odd, names(odd), collapse = ", "), ".")
  invisible(x)
}
