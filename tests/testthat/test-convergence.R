# How a fit gets there: number of passes, certificate, bounds, agreement of the optimizers.

routers <- c("perturbed_cosine", "cosine", "linear")

# ---- passes over the data ------------------------------------------------------------------------------------------

test_that("well-conditioned exact fits converge in at most 15 passes from a start near the truth", {
  for (router in routers) {
    for (expert in c("linear", "gelu", "tanh")) {
      for (seed in 1:20) {
        label <- paste(router, expert, "seed", seed)
        data <- clear_data(router, expert, seed, n = 500)
        fit <- fit_clear(data, start = ref_with_seed(seed, near_truth(data$truth)))
        expect_true(fit$convergence$converged, label = label)
        expect_lte(fit$convergence$passes, 15, label = label)
        # And to the minimum near the truth.
        expect_lt(fit$sse, sum((data$y - data$f)^2), label = label)
      }
    }
  }
})

over_fit <- function(seed, ...) {
  data <- over_data(seed, ...)
  fit <- quiet_fit(data$x, data$y,
    k = 3, router = router_of(data$model$router), expert = "gelu", standardize = FALSE, start = data$start
  )
  list(fit = fit, data = data)
}

expect_over_fit <- function(run, label) {
  fit <- run$fit
  testthat::expect_true(fit$convergence$converged, label = label)
  testthat::expect_lte(fit$sse, sum((run$data$y - run$data$f)^2), label = label)
}

test_that("over-specified fits converge, also to the boundary, few of them in more than 100 passes", {
  passes <- integer()
  on_boundary <- 0
  for (random in c(FALSE, TRUE)) {
    for (seed in 1:10) {
      label <- paste(if (random) "drawn" else "fixed", "truth, seed", seed)
      run <- over_fit(seed, random = random)
      expect_over_fit(run, label)
      passes <- c(passes, run$fit$convergence$passes)
      on_boundary <- on_boundary + (length(run$fit$diagnostics$boundary) > 0)
      # Judged by the reference.
      conditions <- first_order_conditions(run$fit, run$data$x, run$data$y)
      expect_lt(conditions$gradient, 5e-3, label = label)
      expect_true(all(conditions$multiplier > -1e-3), label = label)
    }
  }
  expect_gte(on_boundary, 5)
  # Those of more have an expert that runs off to infinity, or come close to a saddle on the way.
  expect_gte(mean(passes <= 100), 0.9)
  for (seed in 1:3) expect_over_fit(over_fit(seed, n = 1e5, random = FALSE), paste("n = 1e5, seed", seed))
})

# ---- certificate ---------------------------------------------------------------------------------------------------

test_that("the certificate of an interior solution agrees with derivatives in plain R", {
  skip_if_not_installed("numDeriv")
  for (router in c("perturbed_cosine", "linear")) {
    data <- clear_data(router, "tanh", 1, n = 400)
    start <- ref_with_seed(1, near_truth(data$truth, 0.02))
    # Stopped on the way, where there is still something to gain.
    fit <- quiet_fit_clear(data, start = start, control = moe_control(max_passes = 2))
    certificate <- fit$convergence$certificate
    theta <- theta_of(fit)
    gradient_at <- function(theta) ref_gradient(theta, data$model, data$x, y = data$y)
    gradient <- gradient_at(theta)
    hessian <- numDeriv::jacobian(gradient_at, theta)
    spectrum <- eigen((hessian + t(hessian)) / 2, symmetric = TRUE)
    kept <- abs(spectrum$values) > 1e-7 * max(spectrum$values)
    expect_identical(sum(!kept), 3L)
    along <- drop(crossprod(spectrum$vectors[, kept], gradient))
    decrease <- sum(along^2 / spectrum$values[kept]) / fit$sigma^2
    expect_gt(decrease, 1e-4)
    expect_equal(certificate$predicted_decrease, decrease, tolerance = 1e-3, label = router)
    expect_identical(certificate$gauge, 3L)
    expect_identical(certificate$null_directions, 0L)
    expect_identical(certificate$active, character())
    expect_gt(certificate$smallest_curvature, 0)
    expect_gt(certificate$projected_gradient, 1e-4)
  }
})

test_that("the certificate of a converged fit promises no more than the tolerance", {
  for (router in routers) {
    for (seed in 1:3) {
      label <- paste(router, seed)
      data <- clear_data(router, "gelu", seed, n = 500)
      set.seed(seed)
      fit <- fit_clear(data, control = moe_control(n_starts = 4))
      certificate <- fit$convergence$certificate
      expect_lte(certificate$predicted_decrease, fit$control$tolerance, label = label)
      expect_gte(certificate$predicted_decrease, 0, label = label)
      expect_lt(certificate$projected_gradient, 1e-3, label = label)
      expect_gt(certificate$smallest_curvature, 0, label = label)
      expect_identical(certificate$null_directions, 0L, label = label)
      expect_identical(certificate$active, character(), label = label)
      # On spheres a translation of the gates is no gauge.
      expect_identical(certificate$gauge, if (router == "cosine") 1L else 3L, label = label)
      expect_lt(first_order_conditions(fit, data$x, data$y)$gradient, 2e-3, label = label)
      # As many gates as dimensions: on a sphere they have a mirror image.
      expect_identical(fit$diagnostics$nonunique, router == "cosine", label = label)
    }
  }
})

test_that("a tighter tolerance gives a smaller predicted decrease and the same optimum", {
  data <- clear_data("perturbed_cosine", "gelu", 1, n = 500)
  start <- ref_with_seed(1, near_truth(data$truth))
  loose <- fit_clear(data, start = start, control = moe_control(tolerance = 1e-2))
  tight <- fit_clear(data, start = start, control = moe_control(tolerance = 1e-12))
  expect_lte(loose$convergence$certificate$predicted_decrease, 1e-2)
  expect_lte(tight$convergence$certificate$predicted_decrease, 1e-12)
  expect_lt(loose$sse - tight$sse, 2e-2 * tight$sigma^2)
  expect_lte(loose$convergence$passes, tight$convergence$passes)
})

# Mean 0 and mean square 1, in one column.
standardized <- function(v) cbind((v - mean(v)) / sqrt(mean((v - mean(v))^2)))

test_that("gates on the boundary are listed and their beta is infinite, not huge", {
  set.seed(1)
  fit <- fit_cosine_moe(dist ~ speed, cars, control = moe_control(n_starts = 8))
  expect_identical(fit$diagnostics$boundary, 1:2)
  expect_identical(fit$convergence$certificate$active, c("gate 1", "gate 2"))
  expect_identical(sort(coef(fit, "gate")["speed", ]), c(expert2 = -Inf, expert1 = Inf)[order(c(-Inf, Inf))])
  expect_equal(sqrt(colSums(fit$gate$u^2)), c(expert1 = 1, expert2 = 1), tolerance = 1e-12)
  x <- standardized(cars$speed)
  conditions <- first_order_conditions(fit, cbind(cars$speed), cars$dist, z = x)
  expect_lt(conditions$gradient, 2e-3)
  expect_true(all(conditions$multiplier > 1e-6))
  shown <- utils::capture.output(print(summary(fit)))
  expect_match(shown, "norm of beta +Inf +Inf", all = FALSE)
  expect_match(shown, "Gates 1 and 2 are on the boundary", all = FALSE)
  # In two dimensions each coordinate of a direction is infinite, or zero.
  run <- over_fit(3)
  fit <- run$fit
  boundary <- fit$diagnostics$boundary
  expect_identical(boundary, which(sqrt(colSums(unname(fit$gate$u)^2)) > 1 - 1e-6))
  expect_identical(fit$convergence$certificate$active, sprintf("gate %d", boundary))
  expect_identical(unname(is.infinite(colSums(abs(fit$gate$beta)))), seq_len(3) %in% boundary)
  expect_identical(sign(fit$gate$beta[, boundary]), sign(fit$gate$u[, boundary]))
})

# ---- bounds --------------------------------------------------------------------------------------------------------

squared_norms <- function(par) unname(colSums(par^2))

test_that("bound_gate holds for the reported beta, and the fit is the best within it", {
  x <- standardized(cars$speed)
  fit_bounded <- function(bound, router = "perturbed_cosine", ...) {
    set.seed(1)
    fit_cosine_moe(dist ~ speed, cars, router = router, control = moe_control(n_starts = 8, bound_gate = bound), ...)
  }
  squares <- numeric()
  for (bound in c(0.05, 0.5, 5)) {
    fit <- fit_bounded(bound)
    expect_equal(sqrt(squared_norms(fit$gate$beta)), c(bound, bound), tolerance = 1e-8)
    expect_identical(fit$diagnostics$boundary, 1:2)
    expect_identical(fit$convergence$certificate$active, c("gate 1", "gate 2"))
    expect_match(utils::capture.output(print(fit)), "on their bound, `bound_gate`", all = FALSE)
    squares <- c(squares, fit$sse)
  }
  # The optimum falls with the bound, towards that without.
  expect_true(all(diff(c(squares, fit_bounded(Inf)$sse)) < 0))
  model <- ref_model(ref_router("perturbed_cosine"), "linear", 2)
  lowest <- min(oracle_squares(model, x, cars$dist, 10, radius = 0.5 / 0.6))
  expect_lte(squares[2], lowest * (1 + 1e-6))

  # The linear router: in units of the covariate, whether or not it is standardized inside.
  for (standardize in c(TRUE, FALSE)) {
    for (scale in c(1, 2)) {
      fit <- fit_bounded(0.5, router_linear(scale), standardize = standardize)
      expect_equal(sqrt(squared_norms(fit$gate$beta)), c(0.5, 0.5), tolerance = 1e-8)
      expect_identical(fit$diagnostics$boundary, 1:2)
      expect_identical(fit$convergence$certificate$active, c("gate 1", "gate 2"))
    }
  }
  set.seed(1)
  fit <- fit_cosine_moe(x, cars$dist,
    router = "linear", standardize = FALSE, control = moe_control(n_starts = 8, bound_gate = 1)
  )
  model <- ref_model(ref_router("linear", tau1 = 0, tau2 = 0), "linear", 2)
  expect_lte(fit$sse, min(oracle_squares(model, x, cars$dist, 10, radius = 1)) * (1 + 1e-6))
})

test_that("bounds that are not active change nothing", {
  for (router in routers) {
    data <- clear_data(router, "tanh", 1, n = 500)
    start <- ref_with_seed(1, near_truth(data$truth))
    free <- fit_clear(data, start = start, control = moe_control(tolerance = 1e-10))
    bounded <- fit_clear(data,
      start = start, control = moe_control(tolerance = 1e-10, bound_gate = 50, bound_expert = 50)
    )
    expect_equal(bounded$sse, free$sse, tolerance = 1e-10, label = router)
    expect_equal(bounded$experts, free$experts, tolerance = 1e-5, label = router)
    expect_identical(bounded$diagnostics, free$diagnostics, label = router)
    expect_identical(bounded$convergence$certificate$active, character(), label = router)
  }
})

test_that("a bound that is not needed is not active, in whatever gauge the solver ends", {
  for (router in c("linear", "perturbed_cosine")) {
    for (seed in 1:3) {
      label <- paste(router, seed)
      data <- clear_data(router, "tanh", seed, n = 1000)
      free <- fit_clear(data, start = data$truth[c("beta", "b", "experts")])
      # The start lies outside, the canonical representative of the solution just inside.
      bound <- 1.02 * sqrt(max(squared_norms(free$gate$beta)))
      start <- data$truth[c("beta", "b", "experts")]
      start$beta <- start$beta + 0.9 * bound
      fit <- fit_clear(data, start = start, control = moe_control(bound_gate = bound))
      expect_equal(fit$sse, free$sse, tolerance = 1e-7, label = label)
      expect_identical(fit$diagnostics$boundary, integer(), label = label)
      expect_identical(fit$convergence$certificate$active, character(), label = label)
    }
  }
})

test_that("bound_expert holds for the reported parameters of each expert", {
  squares <- numeric()
  for (bound in c(2, 10, 30, 100)) {
    set.seed(1)
    fit <- fit_cosine_moe(dist ~ speed, cars, control = moe_control(n_starts = 8, bound_expert = bound))
    norms <- sqrt(squared_norms(fit$experts))
    expect_true(all(norms <= bound * (1 + 1e-8)), label = paste("bound", bound))
    expect_identical(fit$diagnostics$expert_bound, which(norms > bound * (1 - 1e-6)), label = paste("bound", bound))
    active <- fit$convergence$certificate$active
    expect_identical(
      active[startsWith(active, "expert")], sprintf("expert %d", fit$diagnostics$expert_bound),
      label = paste("bound", bound)
    )
    if (bound == 10) expect_match(utils::capture.output(print(fit)), "on their bound, `bound_expert`", all = FALSE)
    squares <- c(squares, fit$sse)
  }
  expect_true(all(diff(squares) < 0))
  # Wide enough, it gives the fit without.
  set.seed(1)
  free <- fit_cosine_moe(dist ~ speed, cars, control = moe_control(n_starts = 8))
  expect_equal(squares[4], free$sse, tolerance = 1e-8)

  # What bounds are for: over-specified tanh experts become steps of infinite slope without.
  data <- sim_moe(1000, 2, 2, "perturbed_cosine", "tanh", seed = 1)
  set.seed(1)
  fit <- quiet_fit(data$x, data$y,
    k = 3, expert = "tanh", standardize = FALSE,
    control = moe_control(n_starts = 4, bound_gate = 10, bound_expert = 5)
  )
  expect_true(all(squared_norms(fit$experts) <= 25 * (1 + 1e-8)))
  expect_true(all(squared_norms(fit$gate$beta) <= 100 * (1 + 1e-8)))
  expect_lte(fit$sse, sum((data$y - data$f)^2))
})

test_that("bounds hold with every optimizer", {
  for (optimizer in c("newton", "slsqp", "lbfgs", "ccsaq", "bobyqa", "sgd")) {
    set.seed(1)
    fit <- quiet_fit(scale(cars["speed"]), as.vector(scale(cars$dist)),
      standardize = FALSE,
      control = moe_control(optimizer, n_starts = 2, bound_gate = 0.5, bound_expert = 0.4, max_passes = 2000)
    )
    expect_true(all(squared_norms(fit$gate$beta) <= 0.25 * (1 + 1e-7)), label = optimizer)
    expect_true(all(squared_norms(fit$experts) <= 0.16 * (1 + 1e-7)), label = optimizer)
  }
})

# ---- other optimizers ----------------------------------------------------------------------------------------------

test_that("the optimizers agree on the sum of squares of well-conditioned exact fits", {
  for (router in routers) {
    for (expert in c("linear", "gelu", "tanh")) {
      data <- clear_data(router, expert, 1, n = 500)
      start <- ref_with_seed(1, near_truth(data$truth, 0.05))
      squares <- function(optimizer) {
        fit <- quiet_fit_clear(data, start = start, control = moe_control(optimizer, max_passes = 20000))
        expect_identical(fit$convergence$optimizer, optimizer)
        # CCSAQ may stop near the optimum, and then says so.
        if (optimizer != "ccsaq") expect_true(fit$convergence$converged, label = paste(router, expert, optimizer))
        fit$sse
      }
      newton <- squares("newton")
      expect_equal(squares("slsqp"), newton, tolerance = 1e-8, label = paste(router, expert, "slsqp"))
      for (optimizer in c("lbfgs", "ccsaq", "bobyqa")) {
        expect_equal(squares(optimizer), newton, tolerance = 1e-6, label = paste(router, expert, optimizer))
      }
    }
  }
})

test_that("the optimizers agree on the boundary", {
  set.seed(1)
  newton <- fit_cosine_moe(dist ~ speed, cars, control = moe_control(n_starts = 8))
  # From inside: where a gate starts on the boundary, charts of it have no gradient.
  start <- list(beta = 0.3 * sign(newton$gate$beta), b = newton$gate$b, experts = newton$experts)
  for (optimizer in c("slsqp", "lbfgs", "ccsaq")) {
    fit <- quiet_fit(dist ~ speed, cars, start = start, control = moe_control(optimizer, max_passes = 5000))
    expect_equal(fit$sse, newton$sse, tolerance = if (optimizer == "slsqp") 1e-7 else 1e-5, label = optimizer)
    expect_true(all(abs(fit$gate$u) <= 1 + 1e-9), label = optimizer)
  }
})

test_that("stochastic gradient descent lowers the sum of squares and says that it has not converged", {
  for (router in routers) {
    data <- clear_data(router, "tanh", 1, n = 1000)
    start <- ref_with_seed(1, near_truth(data$truth, 0.3))
    theta <- ref_pack(list(u = ref_gate_from_beta(data$model$router, start$beta), b = start$b, eta = start$experts))
    before <- 2 * ref_value(theta, data$model, data$x, y = data$y)
    run <- function(...) fit_clear(data, start = start, control = moe_control("sgd", ...))
    set.seed(1)
    expect_warning(fit <- run(), class = "cosmoe_warning_convergence")
    # At least half of what can be gained.
    noise <- sum((data$y - data$f)^2)
    expect_lt(fit$sse - noise, 0.5 * (before - noise), label = router)
    expect_identical(fit$convergence$status, "max_passes")
    expect_false(fit$convergence$converged)
    expect_identical(fit$convergence$passes, 10L)
    expect_gt(fit$convergence$certificate$predicted_decrease, 1e-6)
    expect_match(utils::capture.output(print(fit)), "NOT CONVERGED", all = FALSE)
    # Random numbers come from R, and the settings matter.
    set.seed(1)
    expect_identical(contents(suppressWarnings(run())), contents(fit))
    set.seed(1)
    slow <- suppressWarnings(run(epochs = 2, learning_rate = 0.01))
    expect_identical(slow$convergence$passes, 2L)
    expect_gt(slow$sse, fit$sse)
  }
})

test_that("a limit of passes is kept and told", {
  data <- clear_data("perturbed_cosine", "gelu", 1, n = 500)
  start <- ref_with_seed(1, near_truth(data$truth, 0.2))
  for (optimizer in c("newton", "slsqp", "lbfgs")) {
    expect_warning(
      fit <- fit_clear(data, start = start, control = moe_control(optimizer, max_passes = 3)),
      class = "cosmoe_warning_convergence"
    )
    expect_identical(fit$convergence$status, "max_passes", label = optimizer)
    expect_lte(fit$convergence$passes, 4L, label = optimizer)
  }
})

# ---- the way down --------------------------------------------------------------------------------------------------

test_that("the sum of squares never rises on the way", {
  run <- function(data, start, optimizer, k = length(start$b), passes = 100) {
    router <- router_of(data$model$router)
    control <- moe_control(optimizer, max_passes = passes)
    model <- cosmoe:::core_model(router, cosmoe:::as_expert(data$model$expert$name), k, control)
    par <- list(u = ref_gate_from_beta(data$model$router, start$beta), b = start$b, eta = start$experts)
    cosmoe:::core_fit(model, list(x = data$x, y = data$y), par, unclass(control))
  }
  expect_way_down <- function(fit, label) {
    expect_true(all(diff(fit$trace) <= 0), label = label)
    expect_length(fit$trace, fit$passes)
    expect_equal(2 * utils::tail(fit$trace, 1), fit$objective, tolerance = 1e-12, label = label)
  }
  for (seed in 1:3) {
    data <- over_data(seed, n = 2000)
    expect_way_down(run(data, data$start, "newton"), paste("over-specified", seed))
    for (router in routers) {
      data <- clear_data(router, "tanh", seed, n = 300)
      start <- ref_with_seed(seed, near_truth(data$truth, 0.5))
      for (optimizer in c("newton", "slsqp", "lbfgs", "ccsaq")) {
        expect_way_down(run(data, start, optimizer), paste(router, optimizer, seed))
      }
    }
    sparse <- sim_moe(300, 2, 3, ref_router("linear", top_k = 2), "linear", seed = seed)
    start <- ref_with_seed(seed, near_truth(list(beta = sparse$beta, b = sparse$par$b, experts = sparse$par$eta), 0.5))
    expect_way_down(run(sparse, start, "newton"), paste("sparse", seed))
  }
})

test_that("gates that become thresholds converge", {
  for (seed in 1:12) {
    set.seed(seed)
    data <- data.frame(x = rnorm(150), z = runif(150))
    data$y <- ifelse(data$z > 0.5, 1 + data$x, -1 - data$x) + rnorm(150, sd = 0.2)
    fit <- fit_cosine_moe(y ~ x | z, data, router = "linear")
    expect_true(fit$convergence$converged)
    expect_lte(fit$convergence$passes, 60)
  }
})
