# The measurements behind the vignette "scaling": seconds of a pass against rows, covariates, experts and threads, and
# of the same pass over shards on workers. A few minutes on an idle machine.
#   R_LIBS=.build/library Rscript vignettes/precompute/scaling.R [largest n, default 1e7]
# The results go to inst/extdata/scaling.csv. From the root of the repository.

library(cosmoe) # nolint: undesirable_function_linter.
most <- max(c(as.numeric(commandArgs(TRUE)), -Inf))
if (!is.finite(most)) most <- 1e7

# A pass in memory: the median of some repetitions, each in turn with the others.
problem <- function(n, d, k, router = "linear", expert = "linear", top_k = 0L) {
  set.seed(1)
  use <- rep_len(seq_len(1e4), n)
  x <- matrix(stats::rnorm(1e4 * d), 1e4)
  rows <- list(x = x[use, , drop = FALSE], z = NULL, y = stats::rnorm(1e4)[use], w = NULL,
               x_center = NULL, x_scale = NULL, z_center = NULL, z_scale = NULL)
  draw <- function(rows, columns) matrix(0.3 * stats::rnorm(rows * columns), rows)
  par <- list(u = draw(d, k), b = rep(0, k), eta = draw(d + 1, k))
  router <- list(name = router, scale = 1, tau1 = 0.1, tau2 = 0.1, top_k = top_k, bound_gate = Inf)
  list(rows = rows, par = par, model = list(
    router = router, expert = list(name = expert, bound_expert = Inf), k = as.integer(k)
  ))
}
seconds <- function(n, d, k, order, threads = 1L, ...) {
  case <- problem(n, d, k, ...)
  once <- function() {
    began <- as.numeric(Sys.time())
    cosmoe:::core_objective(case$model, case$rows, case$par, order, as.integer(threads))
    as.numeric(Sys.time()) - began
  }
  once()
  times <- replicate(max(5, min(41, round(4e6 / n))), once())
  c(stats::median(times), min(times))
}
measure <- function(curve, n = 1e5, d = 10, k = 4, order = 2L, threads = 1L, ...) {
  now <- seconds(n, d, k, order, threads, ...)
  message(sprintf("%s: n = %g, d = %d, k = %d, order %d, %d threads: %.4g s", curve, n, d, k, order, threads, now[1]))
  data.frame(curve, n, d, k, order, threads, workers = 1L, ..., seconds = now[1], fastest = now[2])
}
each <- function(values, f) do.call(rbind, lapply(values, f))

sizes <- c(1e3, 1e4, 1e5, 1e6, 1e7)
results <- rbind(
  each(1:2, function(order) each(sizes[sizes <= most], function(n) measure("n", n = n, order = order))),
  each(1:2, function(order) each(c(2, 5, 10, 20, 40, 64), function(d) measure("d", d = d, order = order))),
  each(1:2, function(order) each(c(2, 4, 8, 16), function(k) measure("k", k = k, order = order))),
  each(1:2, function(threads) measure("threads", n = 1e6, threads = threads))
)

# The same sums over shards, on workers of a plan: what a streamed fit asks for once a pass.
shards <- function(workers, n = 4e6, d = 10, k = 4) {
  # With one worker the calling process does the work; it keeps no shards and reads them (here: draws them) again.
  old <- if (workers > 1L) future::plan(future::multisession, workers = workers) else future::plan(future::sequential)
  on.exit(future::plan(old))
  shard <- function(i) {
    force(i)
    function() {
      set.seed(i)
      x <- matrix(stats::rnorm(5e5 * 10), 5e5, dimnames = list(NULL, paste0("x", 1:10)))
      data.frame(y = stats::rnorm(5e5), x)
    }
  }
  source <- source_shards(lapply(seq_len(n / 5e5), shard))
  start <- list(
    beta = matrix(0.3 * sin(seq_len(d * k)), d), b = rep(0, k), experts = matrix(cos(seq_len((d + 1) * k)), d + 1)
  )
  fit <- function(passes) {
    control <- moe_control(max_passes = passes)
    system.time(suppressWarnings(fit_cosine_moe(
      stats::reformulate(paste0("x", seq_len(d)), "y"), source,
      k = k, router = "linear", start = start, control = control
    )))[["elapsed"]]
  }
  fit(1L) # the shards are prepared and kept by their workers
  few <- fit(2L)
  many <- fit(12L)
  now <- (many - few) / 10
  message(sprintf("shards: %g rows, %d workers: %.4g s a pass", n, workers, now))
  data.frame(curve = "workers", n, d, k, order = 3L, threads = 1L, workers, seconds = now, fastest = now)
}
results <- rbind(results, each(1:2, shards))
results$seconds <- signif(results$seconds, 4)
results$fastest <- signif(results$fastest, 4)
results$cores <- parallel::detectCores()
results$isa <- cosmoe:::core_instruction_set()
utils::write.csv(results, "inst/extdata/scaling.csv", row.names = FALSE)
