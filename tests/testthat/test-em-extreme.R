# Experts with means that no response supports.

outlier_counts <- function() {
  ref_with_seed(11, {
    d <- data.frame(x = stats::rnorm(80), y = stats::rpois(80, 1), w = 1)
    d$y[sample(80, 2)] <- c(60, 400)
    d
  })
}

fit_outliers <- function(data, ...) {
  set.seed(3) # ends with two such experts, in 10 of 80 rows
  suppressWarnings(em_fit(y ~ x, data,
    k = 3, router = "cosine", family = poisson(), weights = w, control = moe_control(n_starts = 8), ...
  ))
}

test_that("experts whose means run away from the responses are named, without standard errors", {
  d <- outlier_counts()
  fit <- fit_outliers(d)
  # The definition, row by row.
  mean <- predict(fit, d, type = "experts")
  gate <- predict(fit, d, type = "gate")
  far <- ifelse(gate >= 1e-3, mean, gate * mean) > 1e3 * max(d$y)
  expect_true(any(far))
  expect_identical(fit$diagnostics$extreme, unname(which(colSums(far) > 0)))
  expect_match(summary(fit)$notes, "neither fitted values nor predictions", all = FALSE)
  expect_no_match(summary(fit)$notes, "Trust fitted values only")
  expect_match(reasons_of(errors <- vcov(fit)), "means far beyond the responses", all = FALSE)
  expect_true(all(is.na(errors)))
  # Read in chunks it is the same; rows without weight do not count.
  part <- fit_outliers(source_function(chunks_of(d, 30)), start = fit)
  expect_identical(part$diagnostics$extreme, fit$diagnostics$extreme)
  near <- rowSums(far) == 0
  d$w <- as.numeric(near)
  none <- fit_outliers(d, start = fit)
  counted <- ifelse(predict(none, d, type = "gate") >= 1e-3, predict(none, d, type = "experts"), 0)[near, ]
  expect_identical(none$diagnostics$extreme, unname(which(colSums(counted > 1e3 * max(d$y[near])) > 0)))
})

test_that("infinite fitted values are said", {
  d <- ref_with_seed(1, data.frame(x = stats::rnorm(60), y = 0))
  d$y[5L] <- 1e6
  set.seed(1)
  fit <- suppressWarnings(em_fit(y ~ x, d, k = 2, router = "perturbed_cosine", family = poisson()))
  expect_gt(max(fitted(fit)), 1e9)
  expect_gt(length(fit$diagnostics$extreme), 0L)
})

test_that("means far below all responses are such, too, where responses are positive", {
  d <- ref_with_seed(1, data.frame(x = stats::rnorm(50)))
  d$y <- ref_with_seed(2, stats::rgamma(50, 5, 5))
  data <- list(y = d$y)
  limits <- cosmoe:::supported_means(list(name = "Gamma", link = "log"), range(d$y))
  expect_equal(limits, c(1e-3 * min(d$y), 1e3 * max(d$y)))
  model <- cosmoe:::core_model(router_linear(), expert_linear(), 2L)
  sweep <- function(eta, family) {
    mixture <- cosmoe:::mixture_of(data, list(family = family), c(1, 1), 2L)
    par <- list(u = matrix(0, 1L, 2L), b = c(0, 0), eta = eta)
    cosmoe:::sweep_rows(model, list(x = cbind(d$x), z = NULL), par, NULL, 1L, mixture)$extreme > 0
  }
  gamma <- list(name = "Gamma", link = "log")
  expect_identical(sweep(cbind(c(0, 0), c(0, -30)), gamma), c(FALSE, TRUE))
  expect_identical(sweep(cbind(c(0, 0), c(0, 30)), gamma), c(FALSE, TRUE))
  expect_identical(sweep(cbind(c(0, 0), c(0.5, -1)), gamma), c(FALSE, FALSE))
  expect_identical(sweep(cbind(c(0, 0), c(0, -30)), list(name = "poisson", link = "log")), c(FALSE, FALSE))
  expect_identical(sweep(cbind(c(0, 0), c(900, 0)), list(name = "binomial", link = "logit")), c(FALSE, FALSE))
})

test_that("ordinary fits have no such experts", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    for (seed in 1:4) {
      d <- em_data(name, seed, n = 200)
      set.seed(seed)
      family <- if (name == "Gamma") Gamma("log") else name
      fit <- suppressWarnings(em_fit(y ~ x | z, d, k = 2, family = family, control = moe_control(n_starts = 4)))
      expect_length(fit$diagnostics$extreme, 0L)
    }
  }
})
