# The studies of the vignette "The paper's Figure 1". Its design: d = 32, k* = 8 atoms of which 2 are active, fits with
# 8 atoms (2 active) and 9 atoms (4 active), stochastic gradient descent with 10 epochs and rate 0.1 from near the
# truth, ten sizes from 1e3 to 1e5, 20 replicates. Not stated there: the noise of the start (0.01 here, others beside
# it), the size of a batch (32), and which activation belongs to which panel (both here).
# Writes inst/extdata/figure-1.rds.
#   Rscript vignettes/precompute/figure_1.R [REPS = 20] [NMAX = 1e5] [WORKERS = 1] [NMAX of least squares = 1e4]
source("vignettes/precompute/common.R")
if (length(commandArgs(TRUE)) < 1L) settings$reps <- 20
largest_least_squares <- c(as.numeric(commandArgs(TRUE)), rep(NA, 4))[4]
if (is.na(largest_least_squares)) largest_least_squares <- 1e4

# Drawn once, the same for both routers and activations.
set.seed(2024)
d <- 32
drawn <- list(
  beta0 = c(stats::rnorm(6, sd = 0.1 / sqrt(d)), 0, 0),
  beta1 = cbind(matrix(stats::rnorm(6 * d, sd = 0.1 / sqrt(d)), d), 0, 0),
  eta = matrix(stats::rnorm(8 * (d + 1), sd = 1 / sqrt(d)), d + 1)
)
truth_of <- function(router, expert) mixing_measure(drawn$beta0, drawn$beta1, drawn$eta, router, expert)
perturbed <- function(top_k = 2) router_perturbed_cosine(tau1 = 0.1, tau2 = 0.1, top_k = top_k)
vanilla <- function(top_k = 2) router_cosine(top_k = top_k)

arms_of <- function(expert, noise, ...) {
  exact <- list(start = start_near(noise), ...)
  over <- list(start = start_near(noise), k = 9, top_k = 4, ...)
  own <- list(truth = truth_of(vanilla(), expert))
  list(
    `perturbed, exact` = exact, `vanilla, exact` = c(own, exact),
    `perturbed, over` = over, `vanilla, over` = c(own, over)
  )
}

sizes <- sizes_to(seq(3, 5, length.out = 10))
losses <- c("L2_raw", "L3_raw", "L2_raw_mass", "L2_raw_gate", "L2_raw_norm", "L2_raw_expert", "prediction")

studies <- list()
for (expert in c("relu", "linear")) {
  message(expert, ", stochastic gradient descent")
  studies[[paste0(expert, "_sgd")]] <- rate_study(
    truth_of(perturbed(), expert),
    n = sizes, reps = settings$reps, sigma = 0.1, loss = losses, fits = arms_of(expert, 0.01, optimizer = "sgd"),
    path = kept_in("figure-1", expert, "sgd")
  )
}

# What the noise of the start does: the start itself (no epoch moves it at a rate of nearly nothing) and the descent.
message("noise of the start")
noises <- c(0.001, 0.01, 0.1)
for (noise in noises) {
  arms <- arms_of("relu", noise, optimizer = "sgd")[c("perturbed, exact", "vanilla, exact")]
  still <- lapply(arms, function(arm) c(arm, list(control = list(learning_rate = 1e-9, epochs = 1))))
  names(still) <- paste("start,", names(arms))
  studies[[paste0("noise_", noise)]] <- rate_study(
    truth_of(perturbed(), "relu"),
    n = sizes[sizes <= 5e3][c(TRUE, FALSE)], reps = min(settings$reps, 5), sigma = 0.1, loss = losses,
    fits = c(arms, still), path = kept_in("figure-1", "noise", noise)
  )
}

message("least squares")
least <- sizes[sizes <= largest_least_squares][c(TRUE, FALSE)]
studies$relu_ls <- rate_study(
  truth_of(perturbed(), "relu"),
  n = least, reps = min(settings$reps, 4), sigma = 0.1, loss = c(losses, "L2", "L3"),
  fits = arms_of("relu", 0.01, control = list(max_passes = 60))[c("perturbed, exact", "vanilla, exact")],
  path = kept_in("figure-1", "relu", "ls")
)

# How much better than the truth each method ends, in units of the noise's variance, and its seconds.
progress <- do.call(rbind, lapply(names(studies), function(name) {
  rows <- studies[[name]]$results
  cbind(study = name, stats::aggregate(cbind(gain, time) ~ arm + n, rows, mean))
}))
progress[c("gain", "time")] <- signif(progress[c("gain", "time")], 3)

summaries <- lapply(studies, small_summary)
# The truths are large, and the script says what they are.
summaries <- lapply(summaries, function(summary) {
  summary$study <- NULL
  summary
})
ship(list(summaries = summaries, progress = progress, noises = noises), "figure-1.rds")
