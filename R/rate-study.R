#' Rate studies: how fast do estimates converge?
#'
#' @description
#' Draws data sets from a known mixing measure at several sample sizes, fits them in one or several ways (*arms*), and
#' records how far each estimate is from the truth. [summary()][summary.rate_study] estimates the rates,
#' [plot()][plot.rate_study] draws them, [plan_study()] says beforehand how long it takes.
#'
#' @param truth The true [mixing_measure()].
#' @param n Sample sizes: different whole numbers of at least 2.
#' @param reps Replicates for each size: their number, or their indices (such as `21:40`, to add to a study with 20).
#' @param fits A named list with one entry an arm, itself a list with some of: `k`, `router`, `expert`, `top_k` (by
#'   default those of the truth), `start` (as the argument `start`), `optimizer` and `control` (see [moe_control()]),
#'   and `truth`, a measure of the arm's own from which its responses come instead. All arms share covariates and noise.
#' @param x Distribution of the covariates: `"uniform"` on \eqn{[-1, 1]^d}{[-1, 1]^d} (the default, as in the paper's
#'   experiments), `"normal"`, `"sphere"`, or a function of n that returns an n x d matrix.
#' @param sigma Standard deviation of the Gaussian noise, a number of at least 0.
#' @param start Where fits begin: [start_near()] (also as `"near"` or `"shrinking"`) or [start_cold()] (`"cold"`). The
#'   default `"near"` costs least and answers what the theory speaks of.
#' @param loss Names of losses, see Details.
#' @param seed A whole number. The same seed gives the same numbers, whatever the plan, the number of workers, or what
#'   else is in the study.
#' @param path `NULL`, or a folder: every finished replicate is kept there, and the same call goes on from them.
#' @param sample Number of further rows, the same in all replicates, over which the prediction error is taken. The
#'   default 10,000 gives it a relative error of about 1%, common to all fits, so that slopes hardly notice.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Losses.* `"L1"`, `"L2"` and `"L3"` are the aligned [voronoi_loss()]; `"L1r2"` is L1 with r = 2. `"_raw"` behind the
#' name leaves the alignment out, `"_u"` compares gates by u instead of \eqn{\beta_1}{beta_1}, and then one of these
#' asks for a part: `"L2_u_expert"`. With \eqn{w_i} for the mass of atom i and \eqn{j} for the true atom of its cell:
#'
#' | part | what |
#' |---|---|
#' | `mass`, `gate`, `expert` | the three sums of the loss |
#' | `direction` | sum of \eqn{w_i} times the distance of the gates, each divided by its norm |
#' | `norm` | sum of \eqn{w_i} times the difference of their norms |
#' | `single` | sum of \eqn{w_i} (distance of gates + distance of experts), first powers, over cells with one atom |
#' | `multi` | the same over cells with several atoms |
#'
#' `"prediction"` is the root mean square of the error of the regression function. Sparse gates are judged by the
#' paper's loss, a maximum over `top_k` cells. Unaligned losses look at the numbers as the fit reports them, in the
#' canonical representative (see [canonicalize()]); with `optimizer = "sgd"` at the last iterate as it is.
#'
#' *Fits* see raw covariates (`standardize = FALSE`, as the theory does) and use one thread each. Voronoi losses need
#' arms with the router and expert of their truth; other arms may have `"prediction"`.
#'
#' *Parallel.* Replicates run on the workers of the current `future::plan()`, large ones first. A progress bar comes
#' with `progressr::with_progress()`. On a cluster with Slurm:
#' ```
#' future::plan(future.batchtools::batchtools_slurm, template = "slurm.tmpl", workers = 100)
#' study <- rate_study(..., path = "/shared/folder/study")
#' ```
#' where the template is that of batchtools for the site, and `path` a folder that all nodes see. Jobs that the cluster
#' has killed cost the replicates they were at: call again.
#'
#' *Nothing is lost.* With `path` a replicate is written under another name first and then renamed, so it is there as a
#' whole or not at all. Called again with the same arguments, by whatever was interrupted or killed, the study computes
#' only what is missing, and its result is the same. More sizes or replicates may be asked for in the same
#' folder. Other arguments (functions are compared by their text), or another version of the package, stop with a
#' `cosmoe_error_study`; a damaged file is computed again, with a message.
#'
#' *Random numbers.* Each pair of n and replicate has two seeds of its own for R's default generators, one for the data
#' and one for starts, drawn from a sequence that depends on `seed` and n alone. So new sizes, replicates or arms leave
#' all other numbers as they are, and no two replicates of a size share a seed. The caller's generator is left alone.
#'
#' @return An object of class `rate_study`, a list: `results`, a data frame with one row a fit and the columns `arm`,
#'   `n`, `rep`, one for each loss, `gain` (how far the sum of squares is below that of the truth, divided by
#'   \eqn{\sigma^2}{sigma^2}; on average about the number of parameters, and negative where a better solution was
#'   missed), `status` and `passes` (see [fit_cosine_moe()]), `boundary` (gates on the boundary), `expert_bound`
#'   (experts at their bound), `time` (seconds of the fit; the one column that may differ between runs) and
#'   `reason` (why a fit failed, else empty); and the settings `truth`, `arms`, `x`, `sigma`, `loss`, `seed`, `sample`.
#'   A fit that stops with an error is a row with the status `"failed"`.
#'
#'   `c()` merges studies of the same truth, covariates, noise and seed. `as.data.frame()` gives `results`; with
#'   `long = TRUE` it has one row a loss, with the columns `loss` and `value`. Bad arguments stop with a
#'   `cosmoe_error_input`, an interrupt with a `cosmoe_error_interrupt`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131: section on numerical experiments.
#'
#' @seealso [summary.rate_study()], [plot.rate_study()], [plan_study()], [voronoi_loss()]; the vignettes "Rate plots"
#'   and "A study of your own".
#' @examples
#' truth <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(0.5, 0), c(-0.25, 0.43)),
#'   eta = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)),
#'   router = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), expert = "gelu"
#' )
#' study <- rate_study(truth,
#'   n = c(200, 400, 800, 1600), reps = 5, sigma = 0.1,
#'   fits = list(exact = list(k = 2), over = list(k = 3)), loss = c("L2", "L3", "prediction")
#' )
#' study
#' plot(study, loss = "prediction")
#' @export
rate_study <- function(truth, n, reps, fits, x = "uniform", sigma, start = "near", loss = c("L2", "L3", "prediction"),
                       seed = 1, path = NULL, sample = 10000, ...) {
  check_dots_empty(...)
  if (missing(sigma)) stop_input("sigma", I("missing"), "the standard deviation of the noise")
  study <- new_study(truth, fits, x, sigma, start, loss, seed, sample)
  cells <- study_cells(check_sizes(n), check_reps(reps))
  store <- if (!is.null(path)) open_store(path, study)
  done <- read_cells(store, cells, study)
  new <- run_cells(cells[vapply(done, is.null, NA), ], study, store)
  study$results <- ordered_rows(bind_rows(c(done, new)), study)
  study
}

# ---- arguments -------------------------------------------------------------------------------------------------------

# A study without results: all settings, checked.
new_study <- function(truth, fits, x, sigma, start, loss, seed, sample) {
  truth <- check_truth(truth, "truth")
  sigma <- check_number(sigma, lower = 0)
  seed <- check_count(seed, lower = -.Machine$integer.max)
  sample <- check_count(sample)
  losses <- as_losses(loss)
  start <- as_start(start)
  if (!is.list(fits) || is.object(fits) || length(fits) == 0L) {
    stop_input("fits", fits, "a named list of settings, one entry an arm")
  }
  names <- names(fits)
  if (is.null(names) || anyNA(names) || !all(nzchar(names)) || anyDuplicated(names)) {
    stop_input("fits", I("one without"), "a list with different names")
  }
  arms <- Map(function(fit, name) as_arm(fit, paste0("fits$", name), truth, start, losses), fits, names)
  if (!is.function(x)) check_choice(x, c("uniform", "normal", "sphere"))
  # A trial draw tells a bad generator before any work.
  at_seed(seed, draw_rows(x, 3L, truth))
  structure(
    list(
      results = NULL, truth = truth, arms = arms, x = x, sigma = sigma, loss = losses, seed = seed, sample = sample
    ),
    class = "rate_study"
  )
}

check_truth <- function(truth, argument) {
  if (!inherits(truth, "mixing_measure")) stop_input(argument, truth, "a mixing measure from mixing_measure()")
  plain <- all(is.finite(truth$beta1)) && truth$shared && all(truth$z_center == 0) && all(truth$z_scale == 1)
  if (!plain) {
    stop_input(argument, I("another"), "a measure with finite gates, on the raw covariates of its experts")
  }
  truth
}

as_arm <- function(fit, argument, truth, start, losses) {
  known <- c("truth", "router", "expert", "k", "top_k", "optimizer", "start", "control")
  if (!is.list(fit) || is.object(fit) || length(fit) != length(names(fit)) || anyDuplicated(names(fit))) {
    stop_input(argument, fit, paste("a list with some of", enumerate(known, max = Inf)))
  }
  unknown <- setdiff(names(fit), known)
  if (length(unknown)) {
    stop_input(argument, I(paste("one with", enumerate(unknown))), paste("a list of", enumerate(known, max = Inf)))
  }
  within <- function(name) paste0(argument, "$", name)
  own <- if (is.null(fit$truth)) truth else check_truth(fit$truth, within("truth"))
  if (covariate_count(own) != covariate_count(truth)) {
    stop_input(within("truth"), I("another"), "a measure with the covariates of `truth`")
  }
  k <- if (is.null(fit$k)) length(own$beta0) else check_count(fit$k, argument = within("k"))
  router <- if (is.null(fit$router)) own$router else as_router(fit$router, within("router"))
  if (!is.null(fit$top_k)) router$top_k <- check_count(fit$top_k, argument = within("top_k"))
  if (!is.null(router$top_k)) check_count(router$top_k, upper = k, argument = within("top_k"))
  expert <- if (is.null(fit$expert)) own$expert else as_expert(fit$expert, within("expert"))
  control <- if (is.null(fit$control)) moe_control() else as_control(fit$control, within("control"))
  if (!is.null(fit$optimizer)) {
    control$optimizer <- check_choice(fit$optimizer, eval(formals(moe_control)$optimizer), within("optimizer"))
  }
  control[c("threads", "on_interrupt")] <- list(1L, "stop")
  policy <- if (is.null(fit$start)) start else as_start(fit$start, within("start"))
  d <- covariate_count(own)
  empty <- new_mixing_measure(
    numeric(k), matrix(0, nrow(own$u), k), matrix(0, nrow(own$u), k), matrix(0, expert_n_par(expert, d), k),
    router, expert
  )
  if (any(is_voronoi(losses))) {
    tryCatch(check_comparable(empty, own), cosmoe_error_input = function(e) {
      wanted <- sub("a measure", "an arm", e$expected, fixed = TRUE)
      stop_input(argument, e$got, paste0(wanted, " (for any `loss` but \"prediction\")"))
    })
  }
  if (policy$kind == "near") {
    if (k < length(own$beta0)) {
      stop_input(within("k"), k, sprintf("at least %d, the number of true atoms, with near starts", length(own$beta0)))
    }
    if (!identical(dim(empty$eta)[1L], dim(own$eta)[1L])) {
      stop_input(within("start"), I("near"), "\"cold\" for experts with other parameters than the truth")
    }
  }
  list(truth = own, router = router, expert = expert, k = k, start = policy, control = control)
}

check_sizes <- function(n) {
  valid <- is.numeric(n) && !is.object(n) && length(n) > 0L && all(is.finite(n)) && all(n == round(n)) &&
    all(n >= 2) && all(n <= .Machine$integer.max) && !anyDuplicated(n)
  if (!valid) stop_input("n", n, "different whole numbers of at least 2")
  as.integer(n)
}

check_reps <- function(reps) {
  valid <- is.numeric(reps) && !is.object(reps) && length(reps) > 0L && all(is.finite(reps)) &&
    all(reps == round(reps)) && all(reps >= 1) && all(reps <= 1e6) && !anyDuplicated(reps)
  if (!valid) stop_input("reps", reps, "a whole number of at least 1, or the different indices of replicates")
  if (length(reps) == 1L) seq_len(reps) else sort(as.integer(reps))
}

# ---- random numbers --------------------------------------------------------------------------------------------------

# The seeds of replicates of one size, a matrix with the rows data and start. Replicate r always has the r-th column of
# the same sequence, whose entries differ.
replicate_seeds <- function(seed, n, reps) {
  own <- at_seed(seed, sample.int(.Machine$integer.max, 1L))
  seeds <- at_seed(bitwXor(own, n), sample.int(.Machine$integer.max, 2L * max(reps)))
  matrix(seeds, 2L, dimnames = list(c("data", "start"), NULL))[, reps, drop = FALSE]
}

# The value of `code` with R's default generators from a seed, whatever the caller's, which are put back afterwards.
at_seed <- function(seed, code) {
  before <- generator_state()
  on.exit(set_generator_state(before))
  set.seed(seed, "Mersenne-Twister", "Inversion", "Rejection")
  code
}

# Rows of covariates from the study's generator.
draw_rows <- function(x, n, truth) {
  rows <- tryCatch(
    measure_covariates(truth, draw_covariates(x, n, covariate_count(truth)))$x,
    error = function(e) {
      reason <- sub("[.]$", "", conditionMessage(e))
      stop_input("x", I(paste("one that fails:", reason)), "a function of n that returns n covariate rows")
    }
  )
  if (nrow(rows) != n) stop_input("x", I(sprintf("%d rows for n = %d", nrow(rows), n)), "a function that gives n rows")
  rows
}

# ---- cells: one size and one replicate, all arms ---------------------------------------------------------------------

study_cells <- function(sizes, reps) {
  data.frame(n = rep(sizes, each = length(reps)), rep = rep(reps, length(sizes)))
}

# Rows of results of each cell. Large cells come first, in chunks of about the same cost, of which every worker gets
# several: the last ones are small, so that all workers end at about the same time.
run_cells <- function(cells, study, store, chunks_per_worker = 3L) {
  if (nrow(cells) == 0L) return(list())
  cells <- cells[order(-cells$n), ]
  jobs <- study_jobs(cells, study$seed)
  workers <- min(future::nbrOfWorkers(), nrow(cells))
  chunks <- cut_jobs(jobs, cells$n, if (workers > 1L) chunks_per_worker * workers else 1L)
  progress <- progressor(steps = nrow(cells))
  # Old versions of future look at their workers every 0.2 seconds only.
  waited <- options(future.wait.interval = getOption("future.wait.interval", 0.01))
  on.exit(options(waited))
  rows <- tryCatch(
    future.apply::future_lapply(
      chunks, run_chunk, study = study, store = store, progress = progress,
      future.seed = NULL, future.packages = "cosmoe", future.chunk.size = 1L
    ),
    interrupt = function(e) {
      kept <- if (is.null(store)) "" else " Finished replicates are kept: call again to go on."
      stop_interrupt(paste0("The study was interrupted.", kept))
    }
  )
  do.call(c, rows)
}

# What a worker needs of each cell: list(n, rep, data, start), the last two being seeds.
study_jobs <- function(cells, seed) {
  seeds <- matrix(0L, 2L, nrow(cells))
  for (n in unique(cells$n)) seeds[, cells$n == n] <- replicate_seeds(seed, n, cells$rep[cells$n == n])
  Map(list, n = cells$n, rep = cells$rep, data = seeds[1L, ], start = seeds[2L, ])
}

# Cuts jobs, in their order, where the sum of costs passes a multiple of its `count`-th part. A fit costs about as much
# as its rows and 10,000 more.
cut_jobs <- function(jobs, n, count) {
  cost <- cumsum(n + 1e4)
  unname(split(jobs, ceiling(cost / cost[length(cost)] * count - 1e-9)))
}

run_chunk <- function(jobs, study, store, progress) {
  sample <- prediction_sample(study)
  lapply(jobs, function(job) {
    rows <- run_cell(job, study, sample)
    write_cell(store, job, rows)
    progress()
    rows
  })
}

# The fixed rows over which prediction errors are taken; their seed is that of no size.
prediction_sample <- function(study) {
  if (all(is_voronoi(study$loss))) return(NULL)
  x <- at_seed(replicate_seeds(study$seed, 0L, 1L)[["data", 1L]], draw_rows(study$x, study$sample, study$truth))
  mean <- lapply(study$arms, function(arm) evaluate_measure(arm$truth, list(x = x, z = NULL))$response)
  list(x = x, mean = mean)
}

run_cell <- function(job, study, sample) {
  data <- tryCatch(
    at_seed(job$data, list(x = draw_rows(study$x, job$n, study$truth), noise = study$sigma * stats::rnorm(job$n))),
    error = function(e) e
  )
  rows <- Map(function(arm, name) {
    own <- if (is.null(sample)) NULL else list(x = sample$x, mean = sample$mean[[name]])
    outcome <- tryCatch(
      {
        if (inherits(data, "error")) stop(data)
        run_arm(arm, data, job, study, own)
      },
      cosmoe_error_interrupt = function(e) stop(e),
      error = function(e) failed_fit(e, study$loss)
    )
    c(list(arm = name, n = job$n, rep = job$rep), outcome)
  }, study$arms, names(study$arms))
  table_of(rows)
}

# A data frame from rows that are lists; data.frame() would take as long as a small fit.
table_of <- function(rows) {
  columns <- lapply(stats::setNames(nm = names(rows[[1L]])), function(name) {
    unlist(lapply(rows, function(row) row[[name]]), use.names = FALSE)
  })
  structure(columns, class = "data.frame", row.names = .set_row_names(length(rows)))
}

run_arm <- function(arm, data, job, study, sample) {
  mean <- evaluate_measure(arm$truth, list(x = data$x, z = NULL))$response
  y <- mean + data$noise
  fit <- NULL
  time <- at_seed(job$start, {
    start <- draw_study_start(arm$start, arm$truth, arm$k, job$n)
    elapsed(fit <- suppressWarnings(
      fit_cosine_moe(
        data$x, y, k = arm$k, router = arm$router, expert = arm$expert, standardize = FALSE, start = start,
        control = arm$control
      ),
      classes = "cosmoe_warning_convergence"
    ))
  })
  # A loss that cannot be computed does not take the fit with it.
  reason <- ""
  losses <- tryCatch(study_losses(study$loss, fit, arm$truth, sample), cosmoe_error = function(e) {
    reason <<- paste("loss:", conditionMessage(e))
    rep(NA_real_, length(study$loss))
  })
  fit_row(losses, study$loss,
    gain = if (study$sigma > 0) (sum(data$noise^2) - fit$sse) / study$sigma^2 else NA_real_,
    status = fit$convergence$status, passes = fit$convergence$passes, boundary = length(fit$diagnostics$boundary),
    expert_bound = length(fit$diagnostics$expert_bound), time = time, reason = reason
  )
}

elapsed <- function(code) {
  before <- as.numeric(Sys.time())
  force(code)
  as.numeric(Sys.time()) - before
}

failed_fit <- function(e, losses) {
  fit_row(rep(NA_real_, length(losses)), losses, NA_real_, "failed", NA_integer_, NA_integer_, NA_integer_, NA_real_,
    reason = conditionMessage(e)
  )
}

fit_row <- function(values, losses, gain, status, passes, boundary, expert_bound, time, reason) {
  c(stats::setNames(as.list(unname(values)), names(losses)), list(
    gain = gain, status = status, passes = passes, boundary = boundary, expert_bound = expert_bound, time = time,
    reason = reason
  ))
}

bind_rows <- function(rows) do.call(rbind, unname(rows))

ordered_rows <- function(rows, study) {
  rows <- rows[order(match(rows$arm, names(study$arms)), rows$n, rows$rep), ]
  rownames(rows) <- NULL
  rows
}

# ---- methods ---------------------------------------------------------------------------------------------------------

#' @rdname rate_study
#' @param row.names,optional As for [base::as.data.frame()]; not used.
#' @param long Whether each loss gets a row of its own.
#' @export
as.data.frame.rate_study <- function(x, row.names = NULL, optional = FALSE, long = FALSE, ...) {
  check_dots_empty(...)
  if (!check_flag(long)) return(x$results)
  names <- names(x$loss)
  others <- x$results[setdiff(names(x$results), names)]
  front <- c("arm", "n", "rep")
  long <- lapply(names, function(name) {
    cbind(others[front], loss = name, value = x$results[[name]], others[setdiff(names(others), front)])
  })
  bind_rows(long)
}

#' @rdname rate_study
#' @param recursive Not used.
#' @export
c.rate_study <- function(..., recursive = FALSE) {
  studies <- list(...)
  first <- studies[[1L]]
  for (study in studies[-1L]) first <- merge_studies(first, study)
  first
}

merge_studies <- function(first, second) {
  if (!inherits(second, "rate_study")) stop_input("...", second, "studies from rate_study()")
  for (field in c("truth", "x", "sigma", "seed", "sample")) {
    if (!identical(comparable(first[[field]]), comparable(second[[field]]))) {
      stop_input("...", I(sprintf("some with another `%s`", field)), "studies of the same data")
    }
  }
  for (name in intersect(names(first$arms), names(second$arms))) {
    if (!identical(comparable(first$arms[[name]]), comparable(second$arms[[name]]))) {
      stop_input("...", I(sprintf("two different arms `%s`", name)), "studies whose common arms are the same")
    }
  }
  arms <- c(first$arms, second$arms)
  losses <- c(first$loss, second$loss)
  first$arms <- arms[!duplicated(names(arms))]
  first$loss <- losses[!duplicated(names(losses))]
  columns <- unique(c("arm", "n", "rep", names(first$loss), names(first$results)))
  rows <- lapply(list(first$results, second$results), function(rows) {
    rows[setdiff(columns, names(rows))] <- NA_real_
    rows[columns]
  })
  # The same cells are the same numbers; of those in both studies the one with more losses stays.
  all <- bind_rows(rows)
  all <- all[order(rowSums(is.na(all[names(first$loss)]))), ]
  first$results <- ordered_rows(all[!duplicated(all[c("arm", "n", "rep")]), ], first)
  first
}

# Settings without what differs between two copies of the same function.
comparable <- function(x) {
  if (is.function(x)) return(c(deparse(args(x)), deparse(body(x))))
  if (is.list(x)) return(lapply(x, comparable))
  x
}
