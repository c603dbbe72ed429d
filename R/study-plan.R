#' How long will a rate study take?
#'
#' @description
#' Runs a few fits of the study, small sizes first, and extrapolates.
#'
#' @param truth,n,reps,fits,x,sigma,start,loss,seed,sample As for [rate_study()].
#' @param workers Numbers of workers for which the time is stated.
#' @param budget Seconds that the trial may take, about: no further fit begins afterwards. Each arm gets at least two.
#' @param path A folder of the study: replicates that are there already cost nothing.
#' @param ... Nothing: any further argument is an error.
#' @param digits Number of significant digits.
#'
#' @details
#' Each arm is fitted once, with all losses, at the sizes from the smallest on, until the budget is spent. These cost
#' what was measured, larger ones in proportion to n. Numbers of passes vary between replicates, so the forecast is
#' rough: a factor of two either way is common for over-specified fits. The trial runs in this process
#' and takes the study's own random numbers.
#'
#' @return An object of class `plan_study`, a list: `cost`, a data frame with the columns `arm`, `n`, `replicates`
#'   (still to run), `seconds` (of one) and `measured`; `total`, seconds on one worker; `wall`, a data frame with
#'   `workers` and `seconds`, at least the time of the largest replicate. Bad arguments stop with a
#'   `cosmoe_error_input`.
#'
#' @seealso [rate_study()].
#' @examples
#' truth <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(0.5, 0), c(-0.25, 0.43)),
#'   eta = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)),
#'   router = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), expert = "gelu"
#' )
#' plan_study(truth,
#'   n = c(1e3, 1e4, 1e5, 1e6), reps = 40, sigma = 0.1,
#'   fits = list(exact = list(k = 2), over = list(k = 3)),
#'   budget = 0.5
#' )
#' @export
plan_study <- function(truth, n, reps, fits, x = "uniform", sigma, start = "near", loss = c("L2", "L3", "prediction"),
                       seed = 1, path = NULL, sample = 10000, workers = c(1, 2, 4, 8, 16), budget = 10, ...) {
  check_dots_empty(...)
  if (missing(sigma)) stop_input("sigma", I("missing"), "the standard deviation of the noise")
  study <- new_study(truth, fits, x, sigma, start, loss, seed, sample)
  cells <- study_cells(check_sizes(n), check_reps(reps))
  budget <- check_number(budget, lower = 0, strict = TRUE)
  valid <- is.numeric(workers) && length(workers) > 0L && all(is.finite(workers)) && all(workers >= 1)
  if (!valid) stop_input("workers", workers, "numbers of at least 1")
  missing <- cells
  if (!is.null(path)) {
    done <- read_cells(open_store(path, study), cells, study)
    missing <- cells[vapply(done, is.null, NA), ]
  }
  cost <- bind_rows(lapply(names(study$arms), function(name) {
    # Each arm on its own, and an equal share of the budget.
    alone <- study
    alone$arms <- study$arms[name]
    measured <- measure_cost(alone, sort(unique(cells$n)), budget / length(study$arms))
    cbind(arm = name, measured)
  }))
  cost$replicates <- vapply(cost$n, function(n) sum(missing$n == n), 0L)
  cost <- cost[c("arm", "n", "replicates", "seconds", "measured")]
  total <- sum(cost$replicates * cost$seconds)
  open <- cost[cost$replicates > 0L, ]
  largest <- if (nrow(open)) max(tapply(open$seconds, open$n, sum)) else 0
  workers <- sort(unique(as.integer(workers)))
  structure(
    list(cost = cost, total = total,
         wall = data.frame(workers = workers, seconds = pmin(total, pmax(total / workers, largest)))),
    class = "plan_study"
  )
}

# Seconds of one replicate at each size, measured or in proportion to n. The first run of all is not counted: it loads
# code and data.
measure_cost <- function(study, sizes, budget) {
  seconds <- rep(NA_real_, length(sizes))
  begun <- as.numeric(Sys.time())
  sample <- prediction_sample(study)
  run <- function(n) {
    job <- study_jobs(data.frame(n = n, rep = 1L), study$seed)[[1L]]
    elapsed(run_cell(job, study, sample))
  }
  run(sizes[1L])
  for (i in seq_along(sizes)) {
    if (i > 1L && as.numeric(Sys.time()) - begun > budget / 2) break
    seconds[i] <- run(sizes[i])
  }
  measured <- !is.na(seconds)
  last <- max(which(measured))
  seconds[!measured] <- seconds[last] * sizes[!measured] / sizes[last]
  data.frame(n = sizes, seconds = seconds, measured = measured)
}

#' @rdname plan_study
#' @export
print.plan_study <- function(x, digits = 2L, ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  cat("Plan of a rate study:", count_words(sum(x$cost$replicates), "fit"), "\n\n")
  arms <- unique(x$cost$arm)
  sizes <- unique(x$cost$n)
  cell <- function(arm, n) {
    own <- x$cost[x$cost$arm == arm & x$cost$n == n, ]
    paste0(format(signif(own$seconds, digits)), if (own$measured) "" else " *")
  }
  table <- outer(arms, sizes, Vectorize(cell))
  dimnames(table) <- list(arms, paste("n =", format(sizes, big.mark = ",", trim = TRUE)))
  cat("Seconds of one replicate", if (!all(x$cost$measured)) " (* extrapolated)", ":\n", sep = "")
  print(table, quote = FALSE, right = TRUE)
  cat("\n")
  workers <- vapply(x$wall$workers, count_words, "", "worker")
  words <- paste(vapply(x$wall$seconds, duration_words, ""), "on", workers)
  print_line("About ", paste(words, collapse = ", "), ".")
  invisible(x)
}

# "12 s", "3.4 min", "5 h", "2 days"
duration_words <- function(seconds) {
  unit <- if (seconds < 100) 1 else if (seconds < 6000) 60 else if (seconds < 172800) 3600 else 86400
  name <- c("s", "min", "h", "days")[match(unit, c(1, 60, 3600, 86400))]
  paste(format(signif(seconds / unit, 2L)), name)
}
