# What a fit finds: known parameters, the lowest sum of squares, never more than a smaller model, from any kind of
# start.

routers <- c("perturbed_cosine", "cosine", "linear")

# ---- known parameters ----------------------------------------------------------------------------------------------

test_that("known parameters are recovered within their standard errors, for every router and three kinds of experts", {
  seeds <- 1:20
  for (router in routers) {
    for (expert in c("linear", "gelu", "tanh")) {
      label <- paste(router, expert)
      errors <- lapply(seeds, function(seed) {
        data <- clear_data(router, expert, seed)
        set.seed(seed)
        fit <- fit_clear(data, control = moe_control(n_starts = 4))
        c(estimation_error(fit, data), gain = (sum((data$y - data$f)^2) - fit$sse) / data$sigma^2, df = fit$df)
      })
      of <- function(name) vapply(errors, function(error) as.double(error[[name]]), 0)
      # 12 parameters, of which 3 are a gauge.
      expect_identical(unique(c(of("rank"), of("df"))), 9, label = label)
      # No single error beyond five standard errors, and their squared lengths are those of chi-squared variables.
      expect_lt(max(vapply(errors, function(error) max(abs(error$ratio)), 0)), 5, label = label)
      limits <- stats::qchisq(c(1e-5, 1 - 1e-5), 9 * length(seeds)) / length(seeds)
      expect_true(mean(of("distance")) > limits[1] && mean(of("distance")) < limits[2], label = paste(label, "errors"))
      expect_true(mean(of("gain")) > limits[1] && mean(of("gain")) < limits[2], label = paste(label, "gain"))
    }
  }
})

# ---- the lowest sum of squares -------------------------------------------------------------------------------------

test_that("a fit is not above the best of many runs of another optimiser in plain R", {
  skip_if_not_installed("MASS")
  sets <- list(
    cars = list(x = cars$speed, y = cars$dist, starts = 15),
    mcycle = list(x = MASS::mcycle$times, y = MASS::mcycle$accel, starts = 25)
  )
  for (name in names(sets)) {
    set <- sets[[name]]
    x <- scale(cbind(set$x))[, , drop = FALSE]
    model <- ref_model(ref_router("perturbed_cosine"), "linear", 2)
    lowest <- min(oracle_squares(model, x, set$y, set$starts))
    for (seed in 1:3) {
      set.seed(seed)
      fit <- fit_cosine_moe(x, set$y, standardize = FALSE, control = moe_control(n_starts = 12))
      expect_lte(fit$sse, lowest * (1 + 1e-6), label = paste(name, "seed", seed))
      # The fit's own account of its sum of squares.
      expect_equal(2 * ref_value(theta_of(fit), model, x, y = set$y), fit$sse, tolerance = 1e-10)
    }
  }
})

test_that("a larger model never ends above a smaller one", {
  skip_if_not_installed("MASS")
  sets <- list(cars = dist ~ speed, faithful = eruptions ~ waiting, mcycle = accel ~ times)
  data <- list(cars = cars, faithful = faithful, mcycle = MASS::mcycle)
  exact <- moe_control(n_starts = 6, tolerance = 1e-9) # below the tolerance either may end lower
  for (name in names(sets)) {
    for (expert in c("linear", "gelu")) {
      squares <- vapply(1:3, function(k) {
        set.seed(1)
        quiet_fit(sets[[name]], data[[name]], k = k, expert = expert, control = exact)$sse
      }, 0)
      expect_lte(squares[2], squares[1] * (1 + 1e-9), label = paste(name, expert, "k = 2"))
      expect_lte(squares[3], squares[2] * (1 + 1e-9), label = paste(name, expert, "k = 3"))
    }
  }
})

test_that("one linear expert is the linear model", {
  for (router in routers) {
    fit <- fit_cosine_moe(mpg ~ wt + hp, mtcars, k = 1, router = router, control = moe_control(n_starts = 2))
    line <- stats::lm(mpg ~ wt + hp, mtcars)
    expect_equal(coef(fit, "experts")[, 1], coef(line), tolerance = 1e-8)
    expect_equal(fit$sse, deviance(line), tolerance = 1e-10)
    expect_identical(fit$df, 3L)
    expect_identical(fit$diagnostics$boundary, integer())
  }
})

# ---- sparse gates, networks, functions of the user -----------------------------------------------------------------

test_that("a sparse fit never ends above its start, nor a start at the truth above the truth", {
  for (router in routers) {
    for (top_k in 1:2) {
      for (seed in 1:4) {
        label <- paste(router, "top", top_k, "seed", seed)
        spec <- ref_router(router, scale = 2, tau1 = 0.5, tau2 = 0.5, top_k = top_k)
        data <- sim_moe(400, 2, 3, spec, "linear", seed = seed)
        truth <- list(beta = data$beta, b = data$par$b, experts = data$par$eta)
        fit <- quiet_fit_clear(data, start = truth)
        expect_lte(fit$sse, sum((data$y - data$f)^2), label = label)
        # It ends, although what the derivatives promise may lie behind a jump.
        expect_true(fit$convergence$status %in% c("converged", "stalled"), label = label)
        # From further away.
        start <- ref_with_seed(seed, near_truth(truth, 0.5))
        theta <- ref_pack(list(
          u = ref_gate_from_beta(data$model$router, start$beta), b = start$b, eta = start$experts
        ))
        far <- quiet_fit_clear(data, start = start)
        expect_lte(far$sse, 2 * ref_value(theta, data$model, data$x, y = data$y), label = label)
        expect_equal(2 * ref_value(theta_of(far), data$model, data$x, y = data$y), far$sse, tolerance = 1e-9)
      }
    }
  }
})

test_that("two of three experts in each row are found from drawn starts", {
  data <- sim_moe(600, 2, 3, ref_router("perturbed_cosine", 4, 0.5, 0.5, top_k = 2), "linear", seed = 2)
  set.seed(1)
  fit <- quiet_fit_clear(data, control = moe_control(n_starts = 16))
  expect_lte(fit$sse, sum((data$y - data$f)^2))
  expect_identical(unique(rowSums(predict(fit, data$x, type = "gate") > 0)), 2)
})

test_that("a linear expert written by the user gives the fit of the built-in one", {
  value <- function(x, eta) drop(x %*% eta[1:2]) + eta[3]
  gradient <- function(x, eta) cbind(x, 1)
  for (router in routers) {
    data <- clear_data(router, "linear", 1, n = 400)
    start <- ref_with_seed(1, near_truth(data$truth))
    control <- moe_control(tolerance = 1e-10)
    built_in <- fit_clear(data, start = start, control = control)
    for (expert in list(expert_custom(value, gradient, 3), expert_custom(value, n_par = 3))) {
      own <- fit_cosine_moe(data$x, data$y,
        router = router_of(data$model$router), expert = expert, standardize = FALSE, start = start, control = control
      )
      expect_equal(own$sse, built_in$sse, tolerance = 1e-10)
      expect_equal(unname(own$experts), unname(built_in$experts), tolerance = 1e-5)
      expect_equal(own$gate, built_in$gate, tolerance = 1e-5)
      # It sees the user's covariates, whatever is standardized for the gate.
      again <- fit_cosine_moe(data$x, data$y,
        router = router_of(data$model$router), expert = expert, start = own, control = control
      )
      if (router == "linear") expect_equal(again$sse, built_in$sse, tolerance = 1e-10)
    }
  }
  # Starts are drawn for it, too.
  data <- clear_data("linear", "linear", 1, n = 400)
  set.seed(1)
  drawn <- fit_cosine_moe(data$x, data$y,
    router = "linear", expert = expert_custom(value, gradient, 3), control = moe_control(n_starts = 10)
  )
  set.seed(1)
  expect_equal(drawn$sse, fit_clear(data, control = moe_control(n_starts = 10))$sse, tolerance = 1e-6)
})

test_that("networks are fitted, to the truth from near it and below it from drawn starts", {
  for (activation in c("tanh", "gelu")) {
    data <- sim_moe(1000, 2, 2, ref_router("perturbed_cosine", 2, 0.5, 0.5),
      ref_expert("network", hidden = 2, activation = activation), seed = 1
    )
    fit <- function(...) {
      fit_cosine_moe(data$x, data$y,
        router = router_of(data$model$router), expert = expert_network(2, activation), standardize = FALSE, ...
      )
    }
    near <- ref_with_seed(1, near_truth(list(beta = data$beta, b = data$par$b, experts = data$par$eta), 0.05))
    expect_lte(fit(start = near)$sse, sum((data$y - data$f)^2), label = activation)
    set.seed(1)
    drawn <- suppressWarnings(fit(control = moe_control(n_starts = 24)), classes = "cosmoe_warning_convergence")
    expect_lte(drawn$sse, 1.02 * sum((data$y - data$f)^2), label = paste(activation, "from drawn starts"))
  }
})

# ---- starts --------------------------------------------------------------------------------------------------------

# A converged fit cannot be improved by more than the tolerance, a millionth of the residual variance; tenfold for
# slack.
expect_same_optimum <- function(fit, other, label) {
  expect_lt(abs(fit$sse - other$sse), 1e-5 * other$sigma^2, label = paste(label, "difference of sums of squares"))
}

test_that("a fit is a start: it stays where it is", {
  for (router in routers) {
    data <- clear_data(router, "tanh", 1, n = 300)
    for (standardize in c(TRUE, FALSE)) {
      label <- paste(router, standardize)
      again <- function(...) fit_clear(data, standardize = standardize, ...)
      set.seed(1)
      fit <- again(control = moe_control(n_starts = 8))
      expect_true(fit$convergence$converged, label = label)
      numbers <- list(beta = fit$gate$beta, b = fit$gate$b, experts = fit$experts)
      for (more in list(again(start = fit), again(start = numbers))) {
        expect_same_optimum(more, fit, label)
        expect_lte(more$convergence$passes, 3, label = label)
        expect_equal(more$experts, fit$experts, tolerance = 1e-3, label = label)
        expect_equal(more$gate$u, fit$gate$u, tolerance = 1e-3, label = label)
        expect_identical(more$starts$kind, "given", label = label)
      }
    }
  }
})

test_that("a fit on the boundary is a start", {
  for (standardize in c(TRUE, FALSE)) {
    set.seed(1)
    # On raw speeds, all far from the origin, the solution is at infinity.
    fit <- suppressWarnings(
      fit_cosine_moe(dist ~ speed, cars, standardize = standardize, control = moe_control(n_starts = 8))
    )
    more <- suppressWarnings(update(fit, start = fit))
    expect_same_optimum(more, fit, paste("standardize", standardize))
    expect_lte(more$convergence$passes, 3)
    if (standardize) expect_true(all(is.infinite(more$gate$beta)))
    expect_equal(more$gate$u, fit$gate$u, tolerance = 1e-3)
  }
})

test_that("experts of a start may come in any order: the result has its own", {
  data <- clear_data("perturbed_cosine", "tanh", 1)
  start <- data$truth[c("beta", "b", "experts")]
  swapped <- list(beta = start$beta[, 2:1], b = start$b[2:1], experts = start$experts[, 2:1])
  control <- moe_control(tolerance = 1e-10)
  first <- fit_clear(data, start = start, control = control)
  second <- fit_clear(data, start = swapped, control = control)
  expect_false(is.unsorted(rev(first$gate_mean)))
  without <- c("starts", "convergence")
  expect_equal(contents(first, without), contents(second, without), tolerance = 1e-6)
})

test_that("update() fits again with what has changed", {
  set.seed(1)
  quick <- moe_control(n_starts = 6)
  fit <- fit_cosine_moe(mpg ~ wt, mtcars, control = quick)
  set.seed(1)
  expect_identical(contents(update(fit)), contents(fit))
  more <- suppressWarnings(update(fit, k = 3, router = "linear"), classes = "cosmoe_warning_convergence")
  expect_identical(c(more$k, ncol(more$experts)), c(3L, 3L))
  expect_identical(more$router, router_linear())
  gated <- update(fit, . ~ . | hp)
  expect_identical(list(gated$names$x, gated$names$z), list("wt", "hp"))
  kept <- update(fit, start = fit)
  expect_same_optimum(kept, fit, "from itself")
  expect_identical(nrow(kept$starts), 1L)
})

test_that("the same seed gives the same fit, another one the same optimum of a clear problem", {
  data <- clear_data("perturbed_cosine", "tanh", 3, n = 500)
  fit <- function(seed) {
    set.seed(seed)
    fit_clear(data, control = moe_control(n_starts = 6))
  }
  first <- fit(1)
  after <- stats::runif(1)
  expect_identical(fit(1), first)
  expect_identical(stats::runif(1), after)
  other <- fit(2)
  expect_false(identical(other$starts, first$starts))
  expect_equal(other$sse, first$sse, tolerance = 1e-8)
})

test_that("the table of starts tells what happened", {
  data <- clear_data("perturbed_cosine", "linear", 1, n = 500)
  set.seed(1)
  fit <- fit_clear(data, control = moe_control(n_starts = 12))
  starts <- fit$starts
  expect_identical(names(starts), c("start", "kind", "objective", "passes", "status", "reached_best"))
  expect_gte(nrow(starts), 12)
  expect_identical(starts$start, seq_len(nrow(starts)))
  expect_gt(length(unique(starts$kind)), 2)
  expect_equal(min(starts$objective), fit$sse, tolerance = 1e-9)
  expect_true(all(starts$reached_best[starts$objective <= fit$sse * (1 + 1e-9)]))
  expect_false(any(starts$reached_best[starts$objective > fit$sse * 1.01]))
  expect_true(all(starts$passes >= 1))
  expect_match(paste(utils::capture.output(print(fit)), collapse = " "),
    sprintf("%d of %d starts reached the best", sum(starts$reached_best), nrow(starts)))
})
