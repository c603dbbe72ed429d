# The runs behind the vignette "moe-layer": the table of Chen et al. (2022) in both protocols, the check of the bound,
# the entropy over training, the routing picture, the gate's inner products, and the ablation. One file a run in
# `work`, so that a run that is there is not made again; a future plan spreads them.
#   Rscript vignettes/precompute/moe_layer.R [work folder] [workers] [kinds, comma separated; default: all]
# The results, small, go to inst/extdata/moe-layer/. From the root of the repository.

library(cosmoe) # nolint: undesirable_function_linter.
arguments <- c(commandArgs(TRUE), character(3))
work <- if (nzchar(arguments[1L])) arguments[1L] else ".build/moe-layer"
workers <- if (nzchar(arguments[2L])) as.integer(arguments[2L]) else 1L
dir.create(work, recursive = TRUE, showWarnings = FALSE)
if (workers > 1L) future::plan(future::multisession, workers = workers)

# ---- the runs, most important first ----------------------------------------------------------------------------------

run <- function(kind, setting = "1", start = 1L, activation = "cubic", protocol = "notebook", experts = 8L,
                filters = 16L, noise = "uniform", router = "linear", scale = 1, balance = 0, fresh = TRUE, steps = 501L,
                gate_rate = 0.1, early = TRUE) {
  data.frame(
    kind, setting, start, activation, protocol, experts, filters, noise, router, scale, balance, fresh, steps,
    gate_rate, early
  )
}
each <- function(starts, ...) do.call(rbind, lapply(starts, function(start) run(start = start, ...)))
over <- function(values, make) do.call(rbind, lapply(values, make))
both <- c("cubic", "linear")

each_problem <- function(starts, ...) {
  over(1:4, function(s) {
    over(both, function(a) each(starts, setting = s, activation = a, ...))
  })
}
single_runs <- function(starts, ...) each_problem(starts, kind = "single", experts = 1L, steps = 801L, ...)
ablation_runs <- function(starts) {
  rbind(
    each(starts, kind = "ablation", noise = "none"),
    over(c(4L, 6L, 12L, 16L), function(m) each(starts, kind = "ablation", experts = m)),
    each(starts, kind = "ablation", balance = 0.01)
  )
}
# Scores of a cosine gate are at most `scale`, and its features have norm 1 instead of about 30.
gate_runs <- function(starts) {
  over(c("linear", "cosine", "perturbed_cosine"), function(router) {
    scaled <- router != "linear"
    over(c(0, 0.01), function(balance) {
      each(starts, kind = "gates", protocol = "paper", router = router, balance = balance,
           scale = if (scaled) 20 else 1, gate_rate = if (scaled) 1 else 0.1)
    })
  })
}
runs <- rbind(
  each_problem(1:10, kind = "table"),
  run("picture", setting = "routing", experts = 4L, filters = 20L),
  over(both, function(a) each(1:10, kind = "curve", activation = a, fresh = FALSE, early = FALSE)),
  over(c("linear", "cubic", "relu", "celu", "gelu", "tanh"), function(a) {
    run("bound", setting = "bound", activation = a, experts = 1L, filters = 128L, steps = 801L)
  }),
  single_runs(1, filters = 80L),
  each_problem(1, kind = "table", protocol = "paper"),
  ablation_runs(1),
  gate_runs(1),
  each_problem(2:3, kind = "table", protocol = "paper"),
  ablation_runs(2:3),
  gate_runs(2:3),
  single_runs(1, filters = 128L),
  each_problem(4:10, kind = "table", protocol = "paper"),
  ablation_runs(4:5),
  gate_runs(4:5),
  single_runs(2:10, filters = 80L)
)
runs$file <- file.path(work, do.call(paste, c(unname(as.list(runs)), sep = "_")))
runs$file <- paste0(gsub(" ", "", runs$file), ".rds")
stopifnot(!anyDuplicated(runs$file))
if (nzchar(arguments[3L])) runs <- runs[runs$kind %in% strsplit(arguments[3L], ",")[[1L]], ]

# ---- one run ---------------------------------------------------------------------------------------------------------

# One data set for each setting, as in the paper: starts differ in the seed of start and noise.
problem <- local({
  kept <- list()
  function(setting) {
    if (is.null(kept[[setting]])) {
      n <- if (setting == "routing") 1600L else 16000L
      train <- simulate_patches(setting, n, seed = 1)
      kept <<- list() # one at a time
      kept[[setting]] <<- list(train = train, test = simulate_patches(setting, n, seed = 2, signals = train))
    }
    kept[[setting]]
  }
})

router_named <- function(name, scale) {
  switch(name,
    linear = router_linear(), cosine = router_cosine(scale = scale),
    perturbed_cosine = router_perturbed_cosine(scale = scale)
  )
}

perform <- function(r) {
  if (file.exists(r$file)) return(invisible())
  data <- problem(r$setting)
  single <- r$experts == 1L
  began <- proc.time()
  fit <- fit_moe_layer(
    data$train$x, data$train$y, cluster = data$train$cluster, experts = r$experts, filters = r$filters,
    activation = r$activation, protocol = r$protocol, noise = r$noise, router = router_named(r$router, r$scale),
    balance = r$balance, fresh_noise = r$fresh, steps = r$steps, seed = r$start, every = 25,
    optimizer = if (single) "adam" else "ngd", weight_decay = if (single) 5e-4 else 0,
    rates = if (!single) c(expert = 0.001, gate = r$gate_rate),
    # Adam's first steps raise the loss of a cubic network: no stop for a rise there.
    stop = if (!r$early) c(loss = 0, rise = 0) else if (single && r$protocol == "notebook") c(loss = 0.314, rise = 0)
  )
  seconds <- sum((proc.time() - began)[1:2])
  expert <- predict(fit, data$test$x, type = "expert")
  result <- data.frame(
    r[setdiff(names(r), "file")],
    accuracy = 100 * mean(predict(fit, data$test$x) == data$test$y), train_accuracy = 100 * fit$accuracy,
    entropy = dispatch_entropy(data$test$cluster, expert), alive = sum(fit$load > 0.01), loss = fit$loss,
    status = fit$status, last = max(fit$history$step), seconds = seconds
  )
  out <- list(result = result)
  if (r$kind %in% c("curve", "picture")) out$history <- fit$history[c("step", "loss", "accuracy", "entropy")]
  if (r$kind == "curve" && r$start == 1L && r$activation == "cubic") {
    products <- apply(fit$gates$gate, 3L, function(gate) abs(crossprod(data$train$c, gate)))
    out$products <- data.frame(
      step = rep(fit$gates$step, each = nrow(products)), expert = rep(seq_len(r$experts), each = 4L),
      centre = seq_len(4L), product = c(products)
    )
  }
  if (r$kind == "picture") out$picture <- picture_of(fit, data)
  part <- paste0(r$file, ".part")
  saveRDS(out, part)
  file.rename(part, r$file)
  message(sprintf(
    "%s setting %s start %d %s %s: %.2f %%, entropy %.3f, %s, %.1f s", r$kind, r$setting, r$start, r$activation,
    r$protocol, result$accuracy, result$entropy, r$status, seconds
  ))
}

# Where samples lie and which expert they are sent to, at three times of training: the sum of the patches in the plane
# that puts the four centre signals on the corners of a square.
picture_of <- function(fit, data) {
  corner <- rbind(c(1, 1, -1, -1), c(1, -1, -1, 1))
  shown <- 1:400
  sums <- apply(data$test$x[shown, , ], c(1, 3), sum)
  place <- sums %*% data$test$c %*% t(corner)
  steps <- fit$gates$step
  during <- steps[which.min(abs(steps - 100))]
  do.call(rbind, lapply(unique(c(0L, during, max(steps))), function(step) {
    gate <- fit$gates$gate[, , match(step, steps)]
    # At the start all scores are equal and the noise decides.
    noise <- if (step == 0L) matrix(stats::runif(length(shown) * ncol(gate)), length(shown)) else 0
    data.frame(
      step, x = signif(place[, 1L], 4), y = signif(place[, 2L], 4), cluster = data$test$cluster[shown],
      expert = max.col(sums %*% gate + noise)
    )
  }))
}

progressr::handlers(global = FALSE)
progressr::with_progress({
  step <- progressr::progressor(nrow(runs))
  invisible(future.apply::future_lapply(seq_len(nrow(runs)), function(i) {
    progressr::without_progress(perform(runs[i, ]))
    step()
  }, future.seed = TRUE, future.scheduling = Inf))
}, handlers = progressr::handler_txtprogressbar(file = stderr()))

# ---- results ---------------------------------------------------------------------------------------------------------

source("vignettes/precompute/moe_layer_results.R")
collect_results(work, "inst/extdata/moe-layer")
