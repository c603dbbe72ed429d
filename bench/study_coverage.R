# Do 95% Wald intervals cover in 95% of all cases? Simulates designs with a known truth, fits each replicate from the
# truth as the start (so that label switching and poor optima, which are other questions, do not enter), and counts.
# Writes inst/extdata/coverage.csv for least squares, coverage-em.csv for maximum likelihood, which the package ships.
# Takes some minutes on one core:
#   Rscript bench/study_coverage.R [replicates] [ls|em]

suppressPackageStartupMessages(library(cosmoe))
for (helper in c("reference", "fit")) source(sprintf("tests/testthat/helper-%s.R", helper))

replicates <- as.integer(c(commandArgs(TRUE), "1000")[1L])
method <- c(commandArgs(TRUE)[-1L], "ls")[1L]

# k is the number of experts that are fitted; the truth of clear_truth() has two, and `single` has one (its gate has
# nothing to choose).
design <- function(router, expert, n, k = 2, single = FALSE, sigma = 0.1, family = NULL) {
  list(router = router, expert = expert, n = n, k = k, single = single, sigma = sigma, family = family)
}
mixture <- function(family, router, n) design(router, "linear", n, sigma = c(0.5, 1), family = family)
mixtures <- list(
  mixture("gaussian", "linear", 500),
  mixture("gaussian", "linear", 2000),
  mixture("gaussian", "perturbed_cosine", 2000),
  mixture("poisson", "linear", 500),
  mixture("poisson", "linear", 2000),
  mixture("poisson", "perturbed_cosine", 2000)
)
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
  # Linear predictors of counts.
  if (identical(design$family, "poisson")) truth$experts <- cbind(c(0.7, 0, 2), c(-0.3, -0.7, 0))
  truth
}

inverse_link <- function(family) if (identical(family, "poisson")) exp else identity

# Covariates, response and regression function.
data_of <- function(design, seed, truth) {
  data <- clear_data(design$router, design$expert, seed, design$n, design$sigma[1L], truth)
  if (is.null(design$family)) return(data)
  at <- parts_of(truth, data$x)
  mean <- inverse_link(design$family)(at$h)
  data$f <- rowSums(at$p * mean)
  ref_with_seed(seed + 1e6, {
    expert <- 1L + (stats::runif(design$n) > at$p[, 1L])
    own <- mean[cbind(seq_len(design$n), expert)]
    poisson <- design$family == "poisson"
    data$y <- if (poisson) stats::rpois(design$n, own) + 0 else stats::rnorm(design$n, own, design$sigma[expert])
    density <- vapply(1:2, function(j) {
      if (poisson) stats::dpois(data$y, mean[, j]) else stats::dnorm(data$y, mean[, j], design$sigma[j])
    }, data$y)
    data$loglik <- sum(log(rowSums(at$p * density)))
    data
  })
}

# Weights and linear predictors.
parts_of <- function(truth, x) {
  theta <- ref_pack(list(u = ref_gate_from_beta(truth$model$router, truth$beta), b = truth$b, eta = truth$experts))
  at <- ref_forward(theta, truth$model, ref_design(truth$model, x))
  list(p = at$gate, h = at$experts$h)
}

# The truth as a start; an additional expert is a copy of the second, off by noise.
start_of <- function(truth, k) {
  use <- c(1, 2, rep(2, k - 2))
  start <- list(beta = truth$beta[, use], b = (truth$b - log(tabulate(use)))[use], experts = truth$experts[, use])
  if (k > 2) start <- lapply(start, function(part) part + 0.1 * stats::rnorm(length(part)))
  start
}

# The true coefficients with the experts in the order `by`, as coef(fit, "identifiable") gives them.
identifiable_truth <- function(truth, by, sigma = NULL) {
  router <- truth$model$router
  u <- ref_gate_from_beta(router, truth$beta)
  gate <- rbind(truth$b, if (router$name == "linear") u / router$scale else u)[, by]
  experts <- truth$experts[c(nrow(truth$experts), seq_len(nrow(truth$experts) - 1)), by]
  c(gate - rowMeans(gate), experts, if (length(sigma)) log(sigma[by]))
}

covers <- function(ends, truth) ends[, 1L] <= truth & truth <= ends[, 2L]

# One replicate: whether it was flagged as irregular and how far SSE (or -2 log-likelihood) falls below that of the truth
# and, when the truth has as many experts as the fit, which intervals cover.
replicate_design <- function(design, seed) {
  truth <- truth_of(design)
  data <- data_of(design, seed, truth)
  set.seed(seed)
  x <- data$x
  y <- data$y
  family <- if (is.null(design$family)) "gaussian" else design$family
  fit <- suppressWarnings(
    fit_cosine_moe(
      x, y, k = design$k, router = router_of(data$model$router), expert = design$expert, standardize = FALSE,
      start = start_of(truth, design$k), method = method, family = family
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
  drop <- if (method == "em") 2 * (fit$loglik - data$loglik) else (sum((y - data$f)^2) - fit$sse) / design$sigma^2
  out <- list(flagged = length(reasons) > 0, drop = drop, df = fit$df)
  if (design$k == 2 && !design$single) {
    sigma <- if (identical(design$family, "gaussian")) design$sigma
    true <- identifiable_truth(truth, match_experts(fit$experts, truth$experts), sigma)
    at <- parts_of(truth, points)
    at <- rowSums(at$p * inverse_link(design$family)(at$h))
    kind <- ifelse(
      grepl("^gate", rownames(asked$model)), "gate contrasts",
      ifelse(grepl("log(", rownames(asked$model), fixed = TRUE), "dispersions", "experts")
    )
    split_by <- function(errors) {
      value <- split(covers(asked[[errors]], true), factor(kind, unique(kind)))
      stats::setNames(value, paste0(names(value), ".", errors))
    }
    out$covers <- c(split_by("model"), split_by("sandwich"), list(predictions.model = covers(asked$prediction, at)))
  }
  out
}

summarise <- function(design, runs) {
  flagged <- vapply(runs, function(run) run$flagged, NA)
  drop <- vapply(runs, function(run) run$drop, 0)
  common <- data.frame(
    if (!is.null(design$family)) list(family = design$family),
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

results <- do.call(rbind, lapply(if (method == "em") mixtures else designs, function(design) {
  summarise(design, lapply(seq_len(replicates), function(seed) replicate_design(design, seed)))
}))
numbers <- vapply(results, is.double, NA)
results[numbers] <- lapply(results[numbers], signif, 4L)
file <- if (method == "em") "coverage-em.csv" else "coverage.csv"
utils::write.csv(results, file.path("inst/extdata", file), row.names = FALSE)
print(results, row.names = FALSE)
