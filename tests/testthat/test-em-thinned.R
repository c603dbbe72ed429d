# With many rows the way to the maximum is found on a part of them: nothing else may depend on that.

# Two regressions in x with a gate in z, rows in the order of the response's expert, and a start far off.
thinned_case <- function(n = 6000, seed = 1) {
  data <- em_data("gaussian", seed, n)
  data <- data[order(data$y), ]
  row.names(data) <- NULL
  start <- list(beta = matrix(0, 1, 2), b = c(0, 0), experts = cbind(c(0.1, 0.2), c(-0.1, -0.2)))
  truth <- list(beta = cbind(1, -1), b = c(0, 0), experts = cbind(c(0.8, 1), c(-0.8, -0.5)))
  list(data = data, start = start, truth = truth)
}

thinned_fit <- function(case, start, ...) {
  set.seed(1) # dispersions of a start come from a sample of the rows
  fit_cosine_moe(y ~ x | z, case$data, k = 2, method = "em", router = "linear", start = start, ...)
}

test_that("a far start ends at the maximum over all rows", {
  for (seed in 1:3) {
    case <- thinned_case(seed = seed)
    fit <- thinned_fit(case, case$start)
    expect_true(fit$convergence$converged)
    expect_equal(fit$loglik, thinned_fit(case, case$truth)$loglik, tolerance = 1e-9)
    expect_equal(fit$loglik, em_loglik(fit, gaussian(), case$data["x"], case$data["z"], case$data$y), tolerance = 1e-9)
    # All scores vanish in sum, not those of a part.
    score <- cosmoe:::estfun.cosine_moe(fit)
    expect_lt(max(abs(colSums(score)) / sqrt(colSums(score^2))), 1e-3)
  }
})

test_that("the likelihood never decreases, and a maximum is left alone", {
  case <- thinned_case()
  fit <- thinned_fit(case, case$start)
  again <- thinned_fit(case, fit)
  expect_gte(again$loglik, fit$loglik - 1e-8 * abs(fit$loglik))
  expect_equal(coef(again), coef(fit), tolerance = 1e-4)
  one <- suppressWarnings(thinned_fit(case, case$start, control = moe_control(max_passes = 1)))
  expect_equal(unname(one$experts), case$start$experts)
  expect_equal(one$convergence$passes, 1L)
  for (passes in c(2, 4, 8, 16, 32)) {
    fit <- suppressWarnings(thinned_fit(case, case$start, control = moe_control(max_passes = passes)))
    expect_gte(fit$loglik, one$loglik)
    expect_lte(fit$convergence$passes, passes + 1L)
  }
})

test_that("rows of weight zero take no part", {
  case <- thinned_case(n = 9000)
  counted <- seq_len(9000) %% 3 != 1
  w <- as.double(counted)
  spoilt <- case
  spoilt$data$y[!counted] <- 100
  fit <- thinned_fit(spoilt, case$start, weights = w)
  kept <- case
  kept$data <- case$data[counted, ]
  expected <- thinned_fit(kept, case$start)
  expect_equal(fit$loglik, expected$loglik, tolerance = 1e-9)
  expect_equal(coef(fit), coef(expected), tolerance = 1e-3)
})

test_that("other families and routers end at their maximum too", {
  for (name in c("poisson", "binomial")) {
    case <- thinned_case()
    case$data <- em_data(name, 3, 6000)
    fits <- lapply(case[c("start", "truth")], function(start) {
      fit_cosine_moe(y ~ x | z, case$data,
        k = 2, method = "em", family = name, router = router_perturbed_cosine(scale = 5), start = start
      )
    })
    expect_true(fits$start$convergence$converged, label = name)
    expect_gte(fits$start$loglik, fits$truth$loglik - 1e-4)
  }
})
