# The studies of the vignette "Rate plots": k* = 2 and 3, four kinds of experts, both routers, exact and over-specified.
# Writes inst/extdata/rate-plots.rds and says which of the slopes are where the theory has them.
#   Rscript vignettes/precompute/rate_plots.R [REPS = 40] [NMAX = 1e5] [WORKERS = 1]
source("vignettes/precompute/common.R")

# d = 2, unit total mass, gates of norm 0.5 = tau, experts' slopes of norm near 3.
truth_of <- function(k, expert, router) {
  angle <- c(0, 2.1, 4.2)[seq_len(k)]
  eta <- cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5), c(-2, -2.2, 0.8))[, seq_len(k)]
  if (expert == "constant") eta <- rbind(c(1, -1, 0.2)[seq_len(k)])
  mass <- c(1.2, 1, 0.9)[seq_len(k)]
  mixing_measure(log(mass / sum(mass)), 0.5 * rbind(cos(angle), sin(angle)), eta, router, expert)
}

perturbed <- router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5)
vanilla <- router_cosine()

# The theory's compact parameter space, for fits with an atom too many.
compact <- list(bound_gate = 5, bound_expert = 5)

losses <- c(
  "L2", "L2_mass", "L2_direction", "L2_norm", "L2_expert", "L2_raw", "L2_u", "L3", "L3_raw", "L3_u", "L3_u_single",
  "L3_u_multi", "prediction"
)

# Exact fits are cheap: they get three times as many replicates, but for linear and constant experts with k* = 3. These
# experts get half as many with an atom too many, for which there is no rate and long runs along flat valleys.
study_of <- function(k, expert) {
  fits <- list(
    `perturbed, exact` = list(k = k),
    `perturbed, over` = list(k = k + 1, control = compact),
    `vanilla, exact` = list(truth = truth_of(k, expert, vanilla), k = k),
    `vanilla, over` = list(truth = truth_of(k, expert, vanilla), k = k + 1, control = compact)
  )
  run <- function(reps, fits, ...) {
    rate_study(
      truth_of(k, expert, perturbed),
      n = sizes_to(seq(2, 5, by = 0.5)), reps = reps, sigma = 0.1, loss = losses, fits = fits,
      path = kept_in("rate-plots", k, expert, ...)
    )
  }
  strong <- expert %in% c("gelu", "tanh")
  reps <- if (strong) settings$reps else ceiling(settings$reps / 2)
  more <- seq(reps + 1, settings$reps * if (strong || k == 2) 3 else 1)
  c(run(seq_len(reps), fits), run(more, fits[c("perturbed, exact", "vanilla, exact")], "exact"))
}

experts <- c("gelu", "tanh", "linear", "constant")
cases <- expand.grid(expert = experts, k = 2:3, stringsAsFactors = FALSE)
studies <- Map(function(k, expert) {
  message("k* = ", k, ", ", expert)
  study_of(k, expert)
}, cases$k, cases$expert)
names(studies) <- paste0("k", cases$k, "_", cases$expert)

# Over-specified losses of sizes too small for them hide the rate: their slopes are also taken from 1,000 on.
from <- function(study, n) {
  study$results <- study$results[study$results$n >= n, ]
  study
}

checks <- do.call(rbind, Map(function(study, k, expert) {
  all <- summary(study)
  late <- summary(from(study, 1000))
  row <- function(...) cbind(k = k, expert = expert, check_slope(...))
  regular <- expert %in% c("gelu", "tanh", "linear")
  rbind(
    if (regular) {
      rbind(
        row(all, "perturbed, exact", "L2", -0.55, -0.45, "exact, perturbed: aligned L2"),
        row(late, "perturbed, exact", "L2", -0.55, -0.45, "exact, perturbed: aligned L2, n >= 1,000"),
        row(late, "vanilla, exact", "L2_raw", -0.1, 0.1, "exact, vanilla: raw L1 is flat, n >= 1,000"),
        row(late, "vanilla, exact", "L2_direction", -0.55, -0.45, "exact, vanilla: directions, n >= 1,000"),
        row(late, "vanilla, exact", "L2_expert", -0.55, -0.45, "exact, vanilla: experts, n >= 1,000")
      )
    },
    if (expert %in% c("gelu", "tanh")) {
      rbind(
        row(late, "perturbed, over", "L3", -0.6, -0.4, "over-specified: aligned L3 in beta, n >= 1,000"),
        row(late, "perturbed, over", "L3_u", -0.6, -0.4, "over-specified: aligned L3 in u, n >= 1,000"),
        row(late, "perturbed, over", "L3_u_multi", -0.35, -0.15, "over-specified: cells with several atoms, n >= 1,000")
      )
    },
    do.call(rbind, lapply(names(study$arms), function(arm) {
      row(all, arm, "prediction", -0.55, -0.45, "regression function")
    }))
  )
}, studies, cases$k, cases$expert))
# Is it the sample size? With a hundredth of the noise a sample tells as much as one 10,000 times as large.
message("low noise")
deep <- function(k, expert, sigma, fits, reps = settings$reps) {
  rate_study(
    truth_of(k, expert, perturbed),
    n = sizes_to(3:5), reps = reps, sigma = sigma, loss = losses, fits = fits,
    path = kept_in("rate-plots", "deep", k, expert, sigma)
  )
}
noises <- c(0.1, 0.01, 0.001)
over <- expand.grid(sigma = noises, expert = c("gelu", "tanh"), stringsAsFactors = FALSE)
deep_over <- Map(function(expert, sigma) {
  deep(2, expert, sigma, list(`perturbed, over` = list(k = 3, control = compact)))
}, over$expert, over$sigma)
deep_exact <- lapply(2:3, function(k) {
  deep(k, "linear", min(noises), reps = 3 * settings$reps, fits = list(
    `perturbed, exact` = list(k = k), `vanilla, exact` = list(truth = truth_of(k, "linear", vanilla), k = k)
  ))
})
low <- function(k, expert, study, ...) cbind(k = k, expert = expert, check_slope(summary(study), ...))
checks <- rbind(
  checks,
  do.call(rbind, Map(function(k, study) {
    rbind(
      low(k, "linear", study, "perturbed, exact", "L2", -0.55, -0.45, "low noise, exact, perturbed: aligned L2"),
      low(k, "linear", study, "vanilla, exact", "L2_raw", -0.1, 0.1, "low noise, exact, vanilla: raw L1 is flat"),
      low(k, "linear", study, "vanilla, exact", "L2_direction", -0.55, -0.45, "low noise, exact, vanilla: directions"),
      low(k, "linear", study, "vanilla, exact", "L2_expert", -0.55, -0.45, "low noise, exact, vanilla: experts")
    )
  }, 2:3, deep_exact)),
  do.call(rbind, Map(function(expert, sigma, study) {
    low(2, expert, study, "perturbed, over", "L3_u", -0.6, -0.4, paste("over-specified: aligned L3 in u, noise", sigma))
  }, over$expert, over$sigma, deep_over))
)

checks[c("slope", "boot_lower", "boot_upper")] <- signif(checks[c("slope", "boot_lower", "boot_upper")], 3)
rownames(checks) <- NULL
print(checks, row.names = FALSE)
message(sum(checks$holds), " of ", nrow(checks), " outcomes hold")

# Why some do not: quantiles of the aligned L3, gates at their bound, and what the search from cold starts finds.
spread_of <- function(of, ...) {
  rows <- of$results[of$results$arm == "perturbed, over", ]
  do.call(rbind, lapply(split(rows, rows$n), function(own) {
    data.frame(
      ..., n = own$n[1], L3_low = stats::quantile(own$L3, 0.25), L3_median = stats::median(own$L3),
      L3_high = stats::quantile(own$L3, 0.75), saturated = mean(own$L3 > 0.99 * sum(exp(of$truth$beta0))),
      u_mean = mean(own$L3_u), u_median = stats::median(own$L3_u), multi_mean = mean(own$L3_u_multi, na.rm = TRUE),
      at_bound = mean(own$boundary > 0), expert_bound = mean(own$expert_bound > 0),
      gain = mean(own$gain), not_converged = mean(own$status != "converged")
    )
  }))
}
shipped <- function(...) {
  table <- short(do.call(rbind, Map(...)), 3L, but = c("n", "sigma"))
  rownames(table) <- NULL
  table
}
spread <- shipped(function(study, name) spread_of(study, study = name), studies, names(studies))
deep_spread <- shipped(function(study, expert, sigma) {
  spread_of(study, expert = expert, sigma = sigma)
}, deep_over, over$expert, over$sigma)
deep_rates <- shipped(function(study, expert, sigma) {
  rates <- summary(study)$rates
  cbind(expert = expert, sigma = sigma, rates[rates$loss %in% c("L3", "L3_u", "L3_u_multi", "prediction"), ])
}, deep_over, over$expert, over$sigma)

message("starts from nowhere")
cold <- rate_study(
  truth_of(2, "gelu", perturbed),
  n = sizes_to(c(3, 4)), reps = min(settings$reps, 10), sigma = 0.1, loss = c("L3_u", "prediction"),
  fits = list(
    near = list(k = 3, control = compact),
    cold = list(k = 3, start = "cold", control = c(compact, n_starts = 20))
  ),
  path = kept_in("rate-plots", "cold")
)
cold <- stats::aggregate(cbind(gain, L3_u, prediction) ~ arm + n, cold$results, mean)

message("linear experts, larger samples")
far <- rate_study(
  truth_of(2, "linear", perturbed),
  n = settings$nmax * round(10^seq(0, 1, by = 0.5), 1), reps = min(settings$reps, 6), sigma = 0.1,
  loss = c("L2", "prediction"), fits = list(exact = list(k = 2)), path = kept_in("rate-plots", "far")
)

gains <- do.call(rbind, Map(function(study, name) {
  rows <- study$results[is.finite(study$results$gain), ]
  cbind(study = name, stats::aggregate(gain ~ arm, rows[rows$n >= 1000, ], mean))
}, studies, names(studies)))

ship(
  list(
    summaries = lapply(studies, small_summary),
    late = lapply(studies, function(study) small_summary(from(study, 1000))$rates),
    checks = checks, spread = spread, deep_spread = deep_spread, deep_rates = deep_rates,
    deep_exact = lapply(deep_exact, small_summary), cold = cold, far = small_summary(far), gains = gains,
    seconds = sum(vapply(studies, function(study) sum(study$results$time, na.rm = TRUE), 0))
  ),
  "rate-plots.rds"
)
