# A fit never claims more than it has: statuses, names and classes where things go wrong.

test_that("a start where derivatives are not finite is not called converged", {
  set.seed(1)
  x <- matrix(runif(200, 1, 2), 100, 2)
  y <- x[, 1] + rnorm(100)
  root <- expert_custom(function(x, eta) eta[1] + sqrt(eta[2]) * x[, 1], n_par = 2L)
  fit <- suppressWarnings(fit_cosine_moe(x, y,
    k = 1, expert = root, start = list(beta = matrix(0, 2, 1), b = 0, experts = cbind(c(0, 0)))
  ))
  expect_false(fit$convergence$converged)
  expect_true(is.nan(fit$convergence$certificate$predicted_decrease))
})

test_that("data without noise are fitted and the fit converges", {
  for (noise in c(0, 1e-12)) {
    set.seed(2)
    x <- matrix(rnorm(100), 50, 2)
    y <- 1 + x[, 1] - 2 * x[, 2] + noise * rnorm(50)
    for (k in 1:2) {
      fit <- fit_cosine_moe(x, y, k = k, control = moe_control(n_starts = 4))
      expect_true(fit$convergence$converged, label = paste("noise", noise, "k", k))
      expect_equal(as.vector(fitted(fit)), y, tolerance = 1e-9)
    }
  }
})

test_that("bounds with one expert, whose gate does nothing", {
  set.seed(3)
  x <- matrix(rnorm(100), 50, 2)
  y <- 5 + x[, 1] + rnorm(50)
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    fit <- fit_cosine_moe(x, y, k = 1, router = router, control = moe_control(bound_expert = 1, bound_gate = 5))
    expect_true(fit$convergence$converged, label = router)
    expect_equal(sqrt(sum(fit$experts^2)), 1, tolerance = 1e-8, label = router)
    expect_identical(fit$convergence$certificate$active, "expert 1", label = router)
    # The conditions of Karush, Kuhn and Tucker: the gradient points along the parameters.
    design <- cbind(x, 1)
    gradient <- crossprod(design, drop(design %*% fit$experts) - y)
    expect_equal(drop(gradient) / sqrt(sum(gradient^2)), -unname(fit$experts[, 1]), tolerance = 1e-6, label = router)
  }
  control <- moe_control(bound_expert = 1)
  constant <- fit_cosine_moe(y ~ 1, data.frame(y = y), k = 1, expert = "constant", control = control)
  expect_equal(unname(constant$experts[1, 1]), 1, tolerance = 1e-8)
})

test_that("active constraints carry the names of gates and experts, for every router", {
  set.seed(4)
  x <- matrix(rnorm(400), 200, 2)
  y <- 3 * x[, 1] * (x[, 2] > 0) + rnorm(200)
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    set.seed(1)
    fit <- quiet_fit(x, y,
      k = 2, router = router, control = moe_control(n_starts = 4, bound_gate = 0.5, bound_expert = 0.5)
    )
    active <- fit$convergence$certificate$active
    expect_identical(intersect(active, c("expert 1", "expert 2")), sprintf("expert %d", fit$diagnostics$expert_bound))
    expect_false(anyNA(match(active, c("gate 1", "gate 2", "expert 1", "expert 2"))), label = router)
  }
})

test_that("errors in a custom expert are the package's, in fit and prediction, and name the cause", {
  set.seed(5)
  x <- matrix(rnorm(40), 20)
  y <- rnorm(20)
  bad <- expert_custom(function(x, eta) stop("no way"), function(x, eta) x, n_par = 2L)
  expect_error(fit_cosine_moe(x, y, k = 1, expert = bad), "no way", class = "cosmoe_error")
  switch_off <- TRUE
  sometimes <- expert_custom(
    function(x, eta) if (switch_off) drop(x %*% eta) else stop("broken now"), function(x, eta) x, n_par = 2L
  )
  fit <- fit_cosine_moe(x, y, k = 1, expert = sometimes, control = moe_control(n_starts = 2))
  switch_off <- FALSE
  expect_error(predict(fit, x), "broken now", class = "cosmoe_error_expert")
})

test_that("stochastic gradient descent makes as many passes as it has epochs, from drawn starts too", {
  set.seed(6)
  x <- matrix(rnorm(200), 100)
  y <- x[, 1] + rnorm(100)
  fit <- quiet_fit(x, y, control = moe_control("sgd", n_starts = 3, epochs = 4, learning_rate = 0.01))
  expect_identical(fit$convergence$passes, 4L)
})

test_that("what the summary says of the range of experts and of mirror images is true", {
  set.seed(7)
  x <- matrix(rnorm(200), 100)
  y <- 10 + x[, 1] + rnorm(100)
  fit <- quiet_fit(x, y, expert = "tanh", control = moe_control(n_starts = 2))
  expect_match(fit_notes(fit), "100% of the responses lie outside the range of the experts, from -1 to 1", all = FALSE)
  fit <- quiet_fit(x, y, expert = "linear", control = moe_control(n_starts = 2))
  expect_false(any(grepl("outside the range", fit_notes(fit))))

  data <- clear_data("cosine", "tanh", 1, n = 300)
  x <- data$x
  fit <- quiet_fit_clear(data, control = moe_control(n_starts = 4))
  expect_true(fit$diagnostics$nonunique)
  # The mirror image at the line of the contrast: the same contrast, norms and fit, other gates.
  u <- unname(fit$gate$u)
  contrast <- u[, 2] - u[, 1]
  contrast <- contrast / sqrt(sum(contrast^2))
  mirrored <- 2 * contrast %*% crossprod(contrast, u) - u
  expect_gt(max(abs(mirrored - u)), 1e-6)
  model <- core_model(fit$router, fit$expert, 2L)
  rows <- list(x = x, z_center = unname(fit$z_center), z_scale = unname(fit$z_scale))
  other <- core_predict(model, rows, list(u = mirrored, b = unname(fit$gate$b), eta = unname(fit$experts)), 1L)
  expect_equal(other$f, as.vector(fitted(fit)), tolerance = 1e-10)
})

test_that("a gradient that is not that of `value` is refused", {
  x <- matrix(rnorm(40), 20)
  wrong <- expert_custom(function(x, eta) eta[1] + eta[2] * x[, 1], function(x, eta) cbind(1, -x[, 1]), n_par = 2L)
  expect_error(fit_cosine_moe(x, rnorm(20), expert = wrong), "derivatives of `value`", class = "cosmoe_error_input")
})

test_that("degrees of freedom are those of the fit, not of the formula, when rows repeat", {
  set.seed(8)
  fit <- fit_cosine_moe(weight ~ feed, chickwts, k = 4, control = moe_control(n_starts = 4))
  line <- stats::lm(weight ~ feed, chickwts)
  expect_equal(fit$sse, deviance(line), tolerance = 1e-6)
  expect_identical(as.integer(fit$df), line$rank)
  expect_equal(sigma(fit), stats::sigma(line), tolerance = 1e-6)
  expect_true(fit$diagnostics$nonunique)
})

test_that("a sparse linear gate chooses by scores at the user's origin, standardized inside or not", {
  for (data in list(list(eruptions ~ waiting, faithful), list(mpg ~ wt + hp, mtcars))) {
    for (standardize in c(TRUE, FALSE)) {
      set.seed(1)
      fit <- quiet_fit(data[[1]], data[[2]],
        router = router_linear(top_k = 1), standardize = standardize, control = moe_control(n_starts = 4)
      )
      expect_equal(deviance(fit), min(fit$starts$objective, na.rm = TRUE), tolerance = 1e-9)
      expect_lte(deviance(fit), deviance(stats::lm(data[[1]], data[[2]])) * (1 + 1e-6))
    }
  }
})

test_that("units of covariates do not matter to experts, and weights of any size are weights", {
  for (unit in c(1e-20, 1e4)) {
    data <- transform(mtcars, wt = wt * unit, hp = hp * unit)
    fit <- quiet_fit(mpg ~ wt + hp, data, k = 1, standardize = FALSE, control = moe_control(n_starts = 2))
    expect_equal(deviance(fit), deviance(stats::lm(mpg ~ wt + hp, mtcars)), tolerance = 1e-8)
  }
  fit_weighted <- function(weight) {
    set.seed(1)
    suppressWarnings(
      fit_cosine_moe(mpg ~ wt + hp | wt, mtcars, weights = rep(weight, 32), control = moe_control(n_starts = 4))
    )
  }
  plain <- fit_weighted(1)
  for (weight in c(1e-300, 1e300)) {
    expect_equal(fitted(fit_weighted(weight)), fitted(plain), tolerance = 1e-6)
  }
})

test_that("rows keep their names", {
  fit <- fit_cosine_moe(Ozone ~ Wind, airquality, control = moe_control(n_starts = 4))
  used <- stats::na.omit(airquality[c("Ozone", "Wind")])
  expect_identical(names(fitted(fit)), row.names(used))
  expect_equal(fitted(fit), predict(fit, used))
  expect_identical(names(residuals(fit)), row.names(used))
})

test_that("wrong arguments of methods are the package's errors", {
  fit <- fit_cosine_moe(dist ~ speed, cars, k = 1, control = moe_control(n_starts = 2))
  expect_error(simulate(fit, seed = "a"), class = "cosmoe_error_input")
  expect_error(predict(fit, cars, na.action = "nope"), class = "cosmoe_error_input")
  expect_error(update(fit, "x"), class = "cosmoe_error_input")
  expect_error(expert_custom(), class = "cosmoe_error_input")
  expect_error(fit_cosine_moe(dist ~ speed, transform(cars, speed = speed + 1i)), class = "cosmoe_error")
  expect_error(
    fit_cosine_moe(len ~ supp, ToothGrowth, contrasts = list(supp = "nope")), class = "cosmoe_error"
  )
})

test_that("dates and times along the axis", {
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  data <- data.frame(y = as.numeric(Nile), date = as.Date("1871-01-01") + 365 * (0:99))
  data$time <- as.POSIXct(data$date)
  for (formula in list(y ~ date, y ~ time)) {
    fit <- quiet_fit(formula, data, control = moe_control(n_starts = 2))
    expect_silent(plot(fit))
  }
})

test_that("experts whose means leave the family's range are named, and there are no standard errors", {
  data <- ref_with_seed(3, {
    x <- stats::rnorm(250)
    z <- stats::rnorm(250)
    first <- stats::runif(250) < stats::plogis(1 + 1.5 * z)
    data.frame(y = stats::rpois(250, exp(ifelse(first, 1 + 0.5 * x, -0.5 - 0.5 * x))), x, z)
  })
  fit_with <- function(link) {
    set.seed(1)
    suppressWarnings(fit_cosine_moe(y ~ x | z, data,
      method = "em", family = poisson(link), router = "linear", control = moe_control(n_starts = 8)
    ))
  }
  fit <- fit_with("identity")
  means <- predict(fit, type = "experts")
  outside <- which(colSums(means <= 0 & predict(fit, type = "gate") > 1e-3) > 0)
  expect_length(outside, 1)
  expect_identical(fit$diagnostics$outside, unname(outside))
  expect_output(print(summary(fit)), "has means that the family does not allow")
  expect_warning(expect_true(all(is.na(vcov(fit)))), "does not allow")
  expect_length(fit_with("log")$diagnostics$outside, 0)
})

test_that("of runs with the same objective one that has converged is returned", {
  data <- ref_with_seed(101, {
    x <- stats::rnorm(200)
    g <- factor(sample(c("a", "b", "c"), 200, TRUE))
    data.frame(g, y = ifelse(stats::runif(200) > 0.5, 1 + 2 * x, -1 - x) + (g == "b"))
  })
  # Saturated in g: many solutions.
  for (seed in 1:4) {
    set.seed(seed)
    fit <- fit_cosine_moe(y ~ g | g, data, control = moe_control(n_starts = 6))
    expect_equal(fit$sse, stats::deviance(stats::lm(y ~ g, data)), tolerance = 1e-9)
    expect_true(fit$convergence$converged)
  }
})

test_that("starts may have their rows in any order, by name", {
  data <- clear_data("linear", "linear", 1, n = 200)
  fit <- fit_clear(data, start = data$truth[c("beta", "b", "experts")])
  one <- moe_control(max_passes = 1, short_passes = 1)
  start <- list(beta = fit$gate$beta, b = fit$gate$b, experts = fit$experts)
  named <- list(beta = fit$gate$beta[2:1, ], b = fit$gate$b, experts = coef(fit, "experts"))
  expect_identical(rownames(named$experts)[1], "(Intercept)")
  expect_identical(
    quiet_fit_clear(data, start = named, control = one)$sse, quiet_fit_clear(data, start = start, control = one)$sse
  )
})
