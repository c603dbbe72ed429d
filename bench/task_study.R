# Rate studies: the exact arms of the vignette "Rate plots" on two workers, what the study costs beside the fits, how much
# two workers gain, and one arm written with PyTorch's LBFGS for the ratio.
task_study <- function(sizes = round(10^seq(2, 5, by = 0.5)), reps = 40, torch_sizes = c(1e3, 3162, 1e4), torch_reps = 3) {
  plan <- future::plan("sequential")
  on.exit(future::plan(plan))
  arms <- list(
    perturbed = study_bench_truth(router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5)),
    vanilla = study_bench_truth(router_cosine())
  )
  run <- function(truth, n = sizes) {
    rate_study(truth, n, reps, list(exact = list()), sigma = 0.1, loss = c("L2", "prediction"))
  }
  seconds <- function(code) {
    start <- clock()
    force(code)
    clock() - start
  }
  figure <- function(what) sprintf("%s, n to %g, %d replicates", what, max(sizes), reps)
  # Both arms in one study, long enough for what starting workers costs.
  whole <- function() {
    fits <- list(perturbed = list(), vanilla = list(truth = arms$vanilla))
    rate_study(arms$perturbed, sizes, 10 * reps, fits, sigma = 0.1, loss = c("L2", "prediction"))
  }

  run(arms$perturbed, n = min(sizes)) # loads what it needs
  # One worker first, in turn with a loop by hand that does the same and nothing else.
  alone <- seconds(study <- run(arms$perturbed))
  loop <- seconds(study_by_hand(arms$perturbed, sizes, reps))
  whole_alone <- seconds(whole())
  future::plan("multisession", workers = 2)
  on.exit(future::plan("sequential"), add = TRUE, after = FALSE)
  future.apply::future_lapply(1:2, function(i) requireNamespace("cosmoe"), future.seed = NULL) # workers load the package
  both <- vapply(arms, function(truth) seconds(run(truth)), 0)
  whole_both <- seconds(whole())
  rows <- rbind(
    bench_row("study", figure(paste("exact arm,", names(both)[1], "router, two workers, s")), both[[1]], NA,
      goal = "below 60", met = both[[1]] < 60
    ),
    bench_row("study", figure(paste("exact arm,", names(both)[2], "router, two workers, s")), both[[2]], NA,
      goal = "below 60", met = both[[2]] < 60
    ),
    bench_row("study", figure("one worker, s, against a loop by hand of the same fits and losses"), alone, loop,
      goal = "at most 1.05", met = alone <= 1.05 * loop
    ),
    bench_row("study", figure("two workers, s, against one"), both[[1]], alone,
      goal = "at most 1 / 1.8", met = 1.8 * both[[1]] <= alone
    ),
    bench_row("study", sprintf("two workers, s, against one, both arms, %d replicates", 10 * reps), whole_both, whole_alone,
      goal = "at most 1 / 1.8", met = 1.8 * whole_both <= whole_alone
    )
  )
  rbind(rows, study_torch(arms$perturbed, torch_sizes, torch_reps))
}

study_bench_truth <- function(router) {
  mixing_measure(
    log(c(0.55, 0.45)), cbind(c(0.5, 0), c(-0.25, 0.43)), cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)), router, "gelu"
  )
}

# What a user would write without rate_study().
study_by_hand <- function(truth, sizes, reps) {
  fixed <- matrix(stats::runif(20000, -1, 1), ncol = 2)
  mean <- predict(truth, fixed)
  for (n in sizes) {
    for (rep in seq_len(reps)) {
      data <- simulate(truth, n, sigma = 0.1)
      fit <- study_bench_fit(truth, data, study_bench_start(truth))
      G <- as_mixing_measure(fit)
      c(voronoi_loss(G, truth, "L2"), sqrt(mean((predict(G, fixed) - mean)^2)))
    }
  }
}

study_bench_start <- function(truth) {
  off <- function(values) values + 0.1 * stats::rnorm(length(values))
  list(beta = off(truth$beta1), b = off(truth$beta0), experts = off(truth$eta))
}

study_bench_fit <- function(truth, data, start) {
  suppressWarnings(fit_cosine_moe(
    data$x, data$y, k = 2, router = truth$router, expert = "gelu", standardize = FALSE, start = start
  ), classes = "cosmoe_warning_convergence")
}

# Seconds of all fits from the same starts, PyTorch's until it is within 1e-6 of our sum of squares (30 s at most).
study_torch <- function(truth, sizes, reps) {
  if (!nzchar(find_torch())) {
    message("no Python with torch: no ratio")
    return(NULL)
  }
  router <- truth$router
  total <- c(ours = 0, theirs = 0)
  for (n in sizes) {
    for (rep in seq_len(reps)) {
      data <- simulate(truth, n, sigma = 0.1, seed = rep)
      start <- ref_with_seed(rep, study_bench_start(truth))
      begun <- clock()
      fit <- study_bench_fit(truth, data, start)
      total[["ours"]] <- total[["ours"]] + clock() - begun
      trace <- run_torch("fit_torch.py", list(
        zeta = data$x / (sqrt(rowSums(data$x^2)) + router$tau2), x = data$x, y = data$y,
        beta = start$beta, b = start$b, eta = start$experts
      ), list(n, "gelu", router$scale, router$tau1, 30))
      reached <- which(trace$squares <= fit$sse * (1 + 1e-6))
      total[["theirs"]] <- total[["theirs"]] + if (length(reached)) trace$seconds[reached[1]] else max(trace$seconds)
    }
  }
  bench_row("study", sprintf("one arm, n = %g to %g, s, against PyTorch LBFGS", min(sizes), max(sizes)),
    total[["ours"]], total[["theirs"]]
  )
}
