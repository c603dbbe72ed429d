# Standard errors where the theory behind them fails: NA with reasons, never small and wrong.

expect_flagged <- function(fit, pattern, env = parent.frame()) {
  warned <- reasons_of(value <- eval(quote(vcov(fit)), list(fit = fit), env))
  testthat::expect_length(warned, 1L)
  testthat::expect_match(warned, pattern)
  testthat::expect_true(all(is.na(value)))
  testthat::expect_match(paste(attr(value, "irregular"), collapse = "; "), pattern)
}

# Two experts that are told apart by the sign of x, with a gate of the given steepness.
steep_data <- function(steepness, seed = 1, n = 400) {
  ref_with_seed(seed, {
    x <- stats::runif(n, -1, 1)
    p <- stats::plogis(steepness * x)
    data.frame(x = x, y = p * (1 + x) - (1 - p) * (1 - 0.5 * x) + 0.1 * stats::rnorm(n))
  })
}

steep_fit <- function(data, ...) {
  set.seed(1)
  suppressWarnings(
    fit_cosine_moe(y ~ x, data, router = "linear", control = moe_control(n_starts = 5), ...),
    classes = "cosmoe_warning_convergence"
  )
}

test_that("regular fits are not flagged", {
  designs <- data.frame(
    router = c("linear", "linear", "cosine", "cosine", "perturbed_cosine", "perturbed_cosine"),
    expert = c("linear", "tanh", "linear", "gelu", "linear", "tanh"), n = c(2000, 1000, 500, 2000, 1000, 500)
  )
  flagged <- 0
  for (i in seq_len(nrow(designs))) {
    for (seed in 1:10) {
      made <- inference_fit(designs$router[i], designs$expert[i], seed, designs$n[i])
      covariates <- made$data$x
      response <- made$data$y
      flagged <- flagged + length(reasons_of(vcov(made$fit)))
    }
  }
  expect_equal(flagged, 0)
  expect_length(reasons_of(vcov(methods_fit())), 0)
})

test_that("an expert too many is flagged", {
  missed <- 0
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    for (expert in c("linear", "gelu", "tanh")) {
      for (seed in 1:3) {
        data <- clear_data(router, expert, seed, 800)
        covariates <- data$x
        response <- data$y
        start <- ref_with_seed(seed, {
          use <- c(1, 2, sample(2, 1))
          lapply(data$truth[c("beta", "b", "experts")], function(part) {
            part <- if (is.matrix(part)) part[, use] else (part - log(tabulate(use)))[use]
            part + 0.2 * stats::rnorm(length(part))
          })
        })
        fit <- suppressWarnings(
          fit_cosine_moe(covariates, response,
            k = 3, router = router_of(data$model$router), expert = expert, standardize = FALSE, start = start
          ),
          classes = "cosmoe_warning_convergence"
        )
        missed <- missed + (length(reasons_of(vcov(fit))) == 0L)
      }
    }
  }
  expect_equal(missed, 0)
})

test_that("two experts where one is true are flagged", {
  missed <- 0
  for (seed in 1:8) {
    data <- ref_with_seed(seed, {
      x <- stats::runif(300, -1, 1)
      data.frame(x = x, y = 1 + x + 0.3 * stats::rnorm(300))
    })
    missed <- missed + (length(reasons_of(vcov(steep_fit(data)))) == 0L)
  }
  expect_equal(missed, 0)
})

# A step that no perturbed gate can reach: both gates end on the boundary.
boundary_fit <- function() {
  data <- ref_with_seed(1, {
    x <- stats::runif(400, -1, 1)
    data.frame(x = x, y = sign(x) + 0.1 * stats::rnorm(400))
  })
  set.seed(1)
  fit_cosine_moe(y ~ x, data, expert = "constant", control = moe_control(n_starts = 5))
}

test_that("a gate on the boundary, bounds and fits without convergence are flagged", {
  data <- steep_data(20)
  boundary <- boundary_fit()
  expect_length(boundary$diagnostics$boundary, 2)
  expect_flagged(boundary, "gates 1 and 2 are on the boundary")
  bound <- fit_cosine_moe(y ~ x, data, router = "linear", control = moe_control(n_starts = 5, bound_gate = 3))
  expect_flagged(bound, "on the boundary")
  expert <- fit_cosine_moe(y ~ x, data, router = "linear", control = moe_control(n_starts = 5, bound_expert = 1))
  expect_flagged(expert, "on (its|their) bound")
  short <- suppressWarnings(fit_cosine_moe(y ~ x, data,
    router = "linear", start = list(beta = matrix(c(1, -1), 1), b = c(0, 0), experts = matrix(c(0, 1, 0, -1), 2)),
    control = moe_control(max_passes = 1)
  ))
  expect_flagged(short, "has not converged")
})

test_that("experts that coincide or have no weight are flagged", {
  data <- steep_data(10)
  good <- steep_fit(data)
  expect_length(reasons_of(vcov(good)), 0)
  good$diagnostics$coincident <- list(1:2)
  expect_flagged(good, "experts 1 and 2 coincide")
  good$diagnostics$coincident <- list()
  good$diagnostics$empty <- 2L
  expect_flagged(good, "expert 2 has lost all weight")
  good$diagnostics$empty <- integer()
  good$diagnostics$runaway <- 1L
  expect_flagged(good, "expert 1 has run off")
})

test_that("a nearly separable gate is flagged, a steep one is not", {
  for (seed in 1:5) {
    expect_flagged(steep_fit(steep_data(1e4, seed)), "separable|flat|converged")
    expect_length(reasons_of(vcov(steep_fit(steep_data(20, seed)))), 0)
  }
})

test_that("a gate with many covariates is not taken for a separable one", {
  data <- ref_with_seed(1, {
    z <- matrix(stats::runif(48 * 9, -1, 1), 48)
    list(z = z, y = 2 * stats::plogis(2 * z[, 1] - z[, 2]) + 0.1 * stats::rnorm(48))
  })
  start <- list(beta = cbind(c(1, -0.5, rep(0, 7)), c(-1, 0.5, rep(0, 7))), b = c(0, 0), experts = matrix(c(2, 0), 1))
  fit <- suppressWarnings(
    fit_cosine_moe(data$z, data$y, router = "linear", expert = "constant", start = start),
    classes = "cosmoe_warning_convergence"
  )
  info <- cosmoe:::information(fit, environment())
  # Fewer than five for each of a gate's ten parameters, but most of all rows.
  expect_gt(cosmoe:::contested_rows(fit, info), 24)
  expect_lt(cosmoe:::contested_rows(fit, info), 50)
  expect_false(any(grepl("separable", info$irregular)))
})

test_that("a binomial response without overlap is flagged, rare events are not", {
  fit_binomial <- function(data, ...) {
    fit_cosine_moe(y ~ x, data, k = 1, method = "em", family = binomial, control = moe_control(n_starts = 1), ...)
  }
  x <- ref_with_seed(1, stats::rnorm(100))
  separated <- data.frame(x = x, y = as.double(x > 0))
  fit <- fit_binomial(separated)
  expect_match(reasons_of(ends <- confint(fit)), "expert 1 foretells its responses without doubt", all = FALSE)
  expect_true(all(is.na(ends)))
  expect_flagged(fit_binomial(separated, weights = rep(1e-3, 100)), "without doubt")
  # One row on the wrong side is enough.
  overlap <- separated
  overlap$y[order(x)[80]] <- 0
  expect_length(reasons_of(vcov(fit_binomial(overlap))), 0)
  rare <- data.frame(x = ref_with_seed(2, stats::rnorm(4000)))
  rare$y <- ref_with_seed(3, stats::rbinom(4000, 1, stats::plogis(-6 + 0.5 * rare$x)))
  expect_length(reasons_of(vcov(fit_binomial(rare))), 0)
  expect_equal(unname(vcov(fit_binomial(rare))), unname(vcov(glm(y ~ x, binomial, rare))), tolerance = 1e-4)
})

test_that("sparse gates are flagged, and perfect fits", {
  data <- steep_data(10)
  set.seed(1)
  sparse <- fit_cosine_moe(y ~ x, data, router = router_linear(top_k = 1), control = moe_control(n_starts = 5))
  expect_flagged(sparse, "sparse")
  line <- data.frame(x = 1:9, y = 2 * (1:9))
  perfect <- fit_cosine_moe(y ~ x, line, k = 1)
  perfect$sigma <- 0
  expect_flagged(perfect, "perfect")
  saturated <- fit_cosine_moe(y ~ x, data.frame(x = c(1, 2), y = c(3, 5)), k = 1)
  expect_flagged(saturated, "no residual degrees of freedom")
})

test_that("experts without effect leave flat directions", {
  # Rows with two values of x cannot determine a slope, an intercept and a gate each.
  data <- data.frame(x = rep(c(-1, 1), 50), y = ref_with_seed(1, stats::rnorm(100)))
  fit <- suppressWarnings(steep_fit(data))
  expect_flagged(fit, "flat|coincide|weight|infinity")
})

test_that("everything that rests on standard errors says so once", {
  fit <- boundary_fit()
  for (ask in list(
    quote(confint(fit)), quote(confint(fit, "gate1:x", method = "profile")), quote(vcov(fit, "sandwich")),
    quote(predict(fit, data.frame(x = 0), se.fit = TRUE))
  )) {
    warned <- reasons_of(value <- eval(ask))
    expect_length(warned, 1L)
    expect_match(attr(value, "irregular"), "boundary", all = FALSE)
  }
  expect_true(all(is.na(confint(fit, 1:2, method = "profile")) |> suppressWarnings()))
  # Predictions are defined all the same.
  value <- suppressWarnings(predict(fit, data.frame(x = c(-0.5, 0.5)), se.fit = TRUE))
  expect_true(all(is.finite(value$se.fit) & value$se.fit > 0))
  printed <- capture.output(print(summary(fit)))
  expect_match(printed, "For these reasons there are no standard errors", all = FALSE)
  expect_true(all(is.na(coef(summary(fit))[, 2:4])))
})

test_that("cosine gates as far apart as they can be are at a boundary, not flat", {
  set.seed(3)
  x <- matrix(runif(1000, -1, 1), 500)
  p <- plogis(6 * x[, 1] / sqrt(rowSums(x^2)))
  y <- p * (1 + x[, 2]) - (1 - p) * (1 + x[, 1]) + rnorm(500, sd = 0.1)
  fit <- fit_cosine_moe(x, y, router = "cosine", standardize = FALSE, control = moe_control(n_starts = 4))
  expect_equal(sum(fit$gate$u[, 1] * fit$gate$u[, 2]), -1, tolerance = 1e-5)
  warning <- expect_warning(vcov(fit), class = "cosmoe_warning_irregular")
  expect_identical(warning$reasons, "the gates are as far apart as a cosine router allows")
  expect_identical(attr(logLik(fit), "boundary"), 1:2)
})
