# Do 95% Wald intervals cover in 95% of all cases? Simulates designs with a known truth, fits each replicate from the
# truth as the start (so that label switching and poor optima, which are other questions, do not enter), and counts.
# Writes inst/extdata/coverage.csv, which the package ships. Takes some minutes on one core:
#   Rscript bench/study_coverage.R [replicates]

suppressPackageStartupMessages(library(cosmoe))
for (helper in c("reference", "fit")) source(sprintf("tests/testthat/helper-%s.R", helper))

replicates <- as.integer(c(commandArgs(TRUE), "1000")[1L])

# k is the number of experts that are fitted; the truth of clear_truth() has two, and `single` has one (its gate has
# nothing to choose).
design <- function(router, expert, n, k = 2, single = FALSE, sigma = 0.1) {
  list(router = router, expert = expert, n = n, k = k, single = single, sigma = sigma)
}
designs <- list(
  design("linear", "linear", 2000),
  design("linear", "tanh", 1000),
  design("cosine", "linear", 500),
  design("cosine", "gelu", 2000),
  design("perturbed_cosine", "linear", 1000),
  design("perturbed_cosine", "tanh", 500),
  # Irregular ones: an expert too many.
  design("linear", "linear", 1000, single = TRUE),
  design("perturbed_cosine", "tanh", 1000, k = 3)
)

# Where predictions are checked.
points <- cbind(x1 = c(0, 0.8, -0.5, 0.3, -0.9), x2 = c(0, 0.1, 0.7, -0.6, -0.9))

truth_of <- function(design) {
  truth <- clear_truth(design$router, design$expert)
  if (design$single) truth$experts[, 2] <- truth$experts[, 1]
  truth
}

# The truth as a start; an additional expert is a copy of the second, off by noise.
start_of <- function(truth, k) {
  use <- c(1, 2, rep(2, k - 2))
  start <- list(beta = truth$beta[, use], b = (truth$b - log(tabulate(use)))[use], experts = truth$experts[, use])
  if (k > 2) start <- lapply(start, function(part) part + 0.1 * stats::rnorm(length(part)))
  start
}

# The true coefficients with the experts in the order `by`, as coef(fit, "identifiable") gives them.
identifiable_truth <- function(truth, by) {
  router <- truth$model$router
  u <- ref_gate_from_beta(router, truth$beta)
  gate <- rbind(truth$b, if (router$name == "linear") u / router$scale else u)[, by]
  experts <- truth$experts[c(nrow(truth$experts), seq_len(nrow(truth$experts) - 1)), by]
  c(gate - rowMeans(gate), experts)
}

covers <- function(ends, truth) ends[, 1L] <= truth & truth <= ends[, 2L]

# One replicate: whether it was flagged as irregular and how far SSE falls below that of the truth and, when the truth
# has as many experts as the fit, which intervals cover.
replicate_design <- function(design, seed) {
  truth <- truth_of(design)
  data <- clear_data(design$router, design$expert, seed, design$n, design$sigma, truth)
  set.seed(seed)
  x <- data$x
  y <- data$y
  fit <- suppressWarnings(
    fit_cosine_moe(
      x, y, k = design$k, router = router_of(data$model$router), expert = design$expert, standardize = FALSE,
      start = start_of(truth, design$k)
    ),
    classes = "cosmoe_warning_convergence"
  )
  reasons <- character()
  note <- function(w) {
    reasons <<- conditionMessage(w)
    invokeRestart("muffleWarning")
  }
  asked <- withCallingHandlers(
    list(
      model = confint(fit), sandwich = confint(fit, type = "sandwich"),
      prediction = predict(fit, points, interval = "confidence")[, 2:3]
    ),
    cosmoe_warning_irregular = note
  )
  drop <- (sum((y - data$f)^2) - fit$sse) / design$sigma^2
  out <- list(flagged = length(reasons) > 0, drop = drop, df = fit$df)
  if (design$k == 2 && !design$single) {
    true <- identifiable_truth(truth, match_experts(fit$experts, truth$experts))
    at <- ref_f(data$theta, data$model, points)
    gate <- grepl("^gate", rownames(asked$model))
    out$covers <- list(
      `gate contrasts.model` = covers(asked$model, true)[gate], `experts.model` = covers(asked$model, true)[!gate],
      `gate contrasts.sandwich` = covers(asked$sandwich, true)[gate],
      `experts.sandwich` = covers(asked$sandwich, true)[!gate], predictions.model = covers(asked$prediction, at)
    )
  }
  out
}

summarise <- function(design, runs) {
  flagged <- vapply(runs, function(run) run$flagged, NA)
  drop <- vapply(runs, function(run) run$drop, 0)
  common <- data.frame(
    router = design$router, expert = design$expert, n = design$n, k = design$k,
    true_k = if (design$single) 1L else 2L, replicates = length(runs), flagged = mean(flagged),
    df = stats::median(vapply(runs, function(run) as.double(run$df), 0)), mean_drop = mean(drop),
    se_drop = stats::sd(drop) / sqrt(length(runs))
  )
  if (is.null(runs[[1L]]$covers)) {
    return(cbind(common, coordinates = NA, errors = NA, coverage = NA, lowest = NA, highest = NA))
  }
  kept <- runs[!flagged]
  rows <- lapply(names(runs[[1L]]$covers), function(name) {
    covered <- vapply(kept, function(run) run$covers[[name]], runs[[1L]]$covers[[name]])
    share <- rowMeans(matrix(covered, ncol = length(kept)))
    words <- strsplit(name, ".", fixed = TRUE)[[1L]]
    data.frame(
      coordinates = words[1L], errors = words[2L], coverage = mean(share), lowest = min(share), highest = max(share)
    )
  })
  cbind(common, do.call(rbind, rows))
}

results <- do.call(rbind, lapply(designs, function(design) {
  summarise(design, lapply(seq_len(replicates), function(seed) replicate_design(design, seed)))
}))
numbers <- vapply(results, is.double, NA)
results[numbers] <- lapply(results[numbers], signif, 4L)
utils::write.csv(results, "inst/extdata/coverage.csv", row.names = FALSE)
print(results, row.names = FALSE)
