#' Numerical settings of a fit
#'
#' @description
#' Chooses the optimizer, how many starts it gets, when it stops, and the bounds of the parameter space. All settings
#' are checked here; a bad one stops with a `cosmoe_error_input` that names it.
#'
#' @param optimizer The method behind every run. `"newton"`, the default, is the package's trust-region Newton method
#'   with the gate's constraint inside each step. `"slsqp"`, `"lbfgs"`, `"ccsaq"` and `"bobyqa"` are NLopt's, on the
#'   same objective, for cross-checks. `"sgd"` is mini-batch stochastic gradient descent, the protocol of the paper's
#'   experiments.
#' @param n_starts Largest number of drawn starting points, a whole number. The search adds others: solutions of the
#'   model with one expert less, split, and exchanges of experts round the best solution; sparse gates are also searched
#'   at random. The default 100 costs little, since most starts get only a short run, and guards against poor optima,
#'   which are the rule rather than the exception with three and more experts. Where three of four among the first
#'   quarter of the starts (20 at least) end in the same best solution, and this is clearly better than the model with
#'   one expert less, few others are tried; with fewer than 20 starts all are drawn.
#' @param max_passes Largest number of passes over the data in one long run, after the short one; a pass evaluates the
#'   objective with its derivatives. Once a step of the default optimizer has failed, later ones are tried with the
#'   objective alone, at about a third of the cost, and get their pass where it has fallen; these probes do not count
#'   (`fit$convergence$probes`). Fits with a clear minimum take 10 to 20, over-specified ones mostly fewer than 100.
#'   Linear and constant experts that are too many for the data can take many hundreds, since differences of such
#'   experts, ever larger, with gates that are ever more alike, fit ever better; the default 500 ends such runs, whose
#'   sum of squares then changes by little, with the status `"max_passes"`.
#' @param tolerance A run has converged when the decrease of the sum of squares that its next step predicts is below
#'   this fraction of the residual variance. The default 1e-6 is far below what the data can tell: parameters are then
#'   within about a thousandth of their standard errors of the solution.
#' @param threads Number of threads, a whole number. Results are the same bit for bit for any number. The default 1
#'   leaves the choice to the user. Threads and workers do not add up: a process uses no more threads than
#'   [future::availableCores()] grants it, which is one in the workers of `multisession` and `multicore` plans; give
#'   `threads = 1` for a cluster with several workers on one machine. Threads pay for few fits to many rows, workers
#'   for many fits (starts, replicates, folds).
#' @param bound_gate Largest norm of each reported \eqn{\beta_k}, in its units (with `standardize = TRUE`, those of
#'   the standardized gate covariates); `Inf`, the default, for none. The cosine router ignores it: norms carry
#'   nothing there.
#' @param bound_expert Largest norm of each expert's vector of parameters, with the intercept and in the user's units:
#'   scale covariates and response yourself if that is not meant (bounded experts are also fitted in these units, which
#'   `"sgd"` needs to be near 1). `Inf`, the default, for none. With `bound_gate` this is the compact parameter space of
#'   the paper. Over-specified fits with bounded experts, such as tanh, may need it: without a bound an expert can turn
#'   into a step of infinite slope.
#' @param short_passes Passes of the short run that every start gets; the default 10 is enough to tell
#'   hopeless starts from good ones.
#' @param n_long Number of the best short runs that are continued to convergence; the default is 12. Four at most where
#'   the first starts agreed (see `n_starts`).
#' @param on_interrupt What an interrupt (Ctrl-C) does: `"stop"` ends with a `cosmoe_error_interrupt`; `"return"`
#'   gives the best fit so far, marked as unfinished. Interrupted workers of a parallel plan cannot hand anything back:
#'   there the fit always stops.
#' @param epochs,learning_rate,batch_size For `"sgd"` only: passes of every run through the shuffled rows
#'   (`short_passes`, `n_long` and `max_passes` do not apply), step size, and rows in a mini-batch. The paper uses 10
#'   epochs and rate 0.1; it does not state a batch size, 32 is ours.
#' @param hybrid For `method = "em"`: whether a run goes over from EM to Newton's method on the log-likelihood once EM
#'   slows down. `TRUE`, the default, is faster and ends at the same maximum: it takes steps of EM's own curvature, the
#'   information of the complete data, while they gain 2 of log-likelihood or more (for 50 passes at most), and may
#'   use the exact curvature then. With many rows (5,000, or 100 for each parameter) a run first goes over a part of
#'   them, as long as that raises the log-likelihood over all; these passes count as passes. `FALSE` is EM alone, with
#'   extrapolation, which may need more `max_passes`. The log-likelihood never decreases with either.
#'
#' @return An object of class `moe_control`, a list with one entry for each argument.
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025), arXiv:2405.14131: the
#'   compact parameter space is among the assumptions, the stochastic gradient protocol in the section on numerical
#'   experiments.
#' @seealso [fit_cosine_moe()].
#' @examples
#' moe_control(n_starts = 10, threads = 2)
#' moe_control(bound_gate = 10, bound_expert = 100)
#' @export
moe_control <- function(optimizer = c("newton", "slsqp", "lbfgs", "ccsaq", "bobyqa", "sgd"),
                        n_starts = 100,
                        max_passes = 500,
                        tolerance = 1e-6,
                        threads = 1,
                        bound_gate = Inf,
                        bound_expert = Inf,
                        short_passes = 10,
                        n_long = 12,
                        on_interrupt = c("stop", "return"),
                        epochs = 10,
                        learning_rate = 0.1,
                        batch_size = 32,
                        hybrid = TRUE) {
  structure(
    list(
      optimizer = check_choice(optimizer, c("newton", "slsqp", "lbfgs", "ccsaq", "bobyqa", "sgd")),
      n_starts = check_count(n_starts),
      max_passes = check_count(max_passes),
      tolerance = check_number(tolerance, lower = 0, upper = 1, strict = TRUE),
      threads = check_count(threads),
      bound_gate = check_number(bound_gate, lower = 0, strict = TRUE, finite = FALSE),
      bound_expert = check_number(bound_expert, lower = 0, strict = TRUE, finite = FALSE),
      short_passes = check_count(short_passes),
      n_long = check_count(n_long),
      on_interrupt = check_choice(on_interrupt, c("stop", "return")),
      epochs = check_count(epochs),
      learning_rate = check_number(learning_rate, lower = 0, strict = TRUE),
      batch_size = check_count(batch_size),
      hybrid = check_flag(hybrid)
    ),
    class = "moe_control"
  )
}

# A control object, or a named list of settings.
as_control <- function(x, argument = "control") {
  if (inherits(x, "moe_control")) return(x)
  expected <- "made by moe_control(), or a named list of its arguments"
  if (!is.list(x) || is.object(x) || length(x) != length(names(x))) stop_input(argument, x, expected)
  unknown <- setdiff(names(x), names(formals(moe_control)))
  if (length(unknown)) stop_input(argument, I(paste("a list with", enumerate(unknown))), expected)
  do.call(moe_control, x)
}

# What a process may use of the threads asked for: a worker of a parallel plan has one core.
usable_threads <- function(threads) {
  if (threads > 1L) min(threads, as.integer(future::availableCores())) else threads
}

#' @export
print.moe_control <- function(x, ...) {
  used <- if (x$optimizer == "sgd") names(x) else setdiff(names(x), c("epochs", "learning_rate", "batch_size"))
  cat("Control of a mixture-of-experts fit\n")
  cat(sprintf("  %-13s %s\n", used, vapply(x[used], format, "")), sep = "")
  invisible(x)
}
