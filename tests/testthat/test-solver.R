# The solver: passes, certificate, boundary, agreement with NLopt. Designs: two covariates, two gelu or tanh experts
# with slopes of norm 3, tau = 0.5, sigma = 0.1; starts at the truth plus noise of standard deviation 0.1.

solver_case <- function(seed, n, expert = "gelu", extra = 0L) {
  set.seed(seed)
  unit <- function(size) {
    m <- matrix(rnorm(4), 2)
    m / rep(sqrt(colSums(m^2)), each = 2) * size
  }
  beta <- unit(0.5)
  u <- beta / rep(sqrt(colSums(beta^2)) + 0.5, each = 2)
  par <- list(u = u, b = c(rnorm(1, sd = 0.3), 0), eta = rbind(unit(3), rnorm(2, sd = 0.5)))
  x <- matrix(runif(2 * n, -2, 2), n)
  model <- ref_model(ref_router("perturbed_cosine", 1, 0.5, 0.5), expert, 2)
  y <- drop(ref_f(ref_pack(par), model, x)) + rnorm(n, sd = 0.1)
  use <- c(1:2, if (extra) sample(2, extra))
  start <- lapply(list(u = u[, use], b = par$b[use], eta = par$eta[, use]), function(m) m + rnorm(length(m), sd = 0.1))
  model$k <- 2L + extra
  list(rows = list(x = x, y = y), model = model, start = start)
}

solve_case <- function(case, optimizer = "newton", max_passes = 500L) {
  control <- unclass(moe_control(optimizer = optimizer, max_passes = max_passes))
  core_fit(core_model(as_router(list_router(case)), as_expert(case$model$expert$name), case$model$k), case$rows,
           case$start, control)
}

list_router <- function(case) router_perturbed_cosine(0.5, 0.5)

test_that("well-conditioned exact fits converge from near the truth in at most 15 passes", {
  for (expert in c("gelu", "tanh")) {
    fits <- lapply(1:20, function(seed) solve_case(solver_case(seed, 4000, expert)))
    expect_true(all(vapply(fits, function(fit) fit$status, "") == "converged"), label = expert)
    expect_lte(max(vapply(fits, function(fit) fit$passes, 0)), 15)
    expect_lte(max(vapply(fits, function(fit) fit$certificate$predicted_decrease, 0)), 1e-6)
    expect_lte(max(vapply(fits, function(fit) fit$certificate$projected_gradient, 0)), 1e-4)
    expect_gt(min(vapply(fits, function(fit) fit$certificate$smallest_curvature, 0)), 0)
    expect_true(all(vapply(fits, function(fit) fit$certificate$gauge, 0) == 3))
  }
})

test_that("over-specified fits converge, and no pass ever raises the sum of squares", {
  fits <- lapply(1:10, function(seed) solve_case(solver_case(seed, 10000, extra = 1L)))
  expect_true(all(vapply(fits, function(fit) fit$status, "") == "converged"))
  passes <- vapply(fits, function(fit) fit$passes, 0)
  expect_lte(median(passes), 100)
  for (fit in fits) expect_false(is.unsorted(rev(fit$trace)))
  exact <- vapply(1:10, function(seed) solve_case(solver_case(seed, 10000))$objective, 0)
  expect_true(all(vapply(fits, function(fit) fit$objective, 0) < exact))
})

test_that("Newton and SLSQP agree on the sum of squares to 1e-8", {
  for (seed in 1:5) {
    case <- solver_case(seed, 1000, "tanh")
    newton <- solve_case(case)
    slsqp <- solve_case(case, "slsqp", 2000L)
    expect_equal(slsqp$objective, newton$objective, tolerance = 1e-8)
    expect_identical(slsqp$status, "converged")
  }
})

test_that("the other optimisers come near", {
  case <- solver_case(2, 1000, "tanh")
  best <- solve_case(case)$objective
  for (optimizer in c("lbfgs", "ccsaq")) {
    expect_lt(solve_case(case, optimizer, 5000L)$objective, best * (1 + 1e-5), label = optimizer)
  }
  start <- sum((case$rows$y - ref_f(ref_pack(case$start), case$model, case$rows$x))^2)
  expect_lt(solve_case(case, "bobyqa", 2000L)$objective, start)
})

test_that("stochastic gradient descent lowers the sum of squares and does not claim to have converged", {
  case <- solver_case(1, 2000)
  start <- list(beta = core_gate_to_beta(core_model(list_router(case), expert_gelu(), 2L)$router, case$start$u),
                b = case$start$b, experts = case$start$eta)
  set.seed(1)
  fit <- suppressWarnings(fit_cosine_moe(
    case$rows$x, case$rows$y, router = list_router(case), expert = "gelu", standardize = FALSE, start = start,
    control = moe_control(optimizer = "sgd", learning_rate = 0.05)
  ))
  before <- sum((case$rows$y - ref_f(ref_pack(case$start), case$model, case$rows$x))^2)
  expect_lt(fit$sse, before)
  expect_identical(fit$convergence$passes, 10L)
})

test_that("bounds hold on the reported scale and are reported when they bind", {
  set.seed(1)
  fit <- fit_cosine_moe(
    medv ~ lstat + rm, MASS::Boston, k = 2, control = moe_control(n_starts = 6, bound_gate = 2, bound_expert = 20)
  )
  expect_lte(max(sqrt(colSums(fit$gate$beta^2))), 2 * (1 + 1e-6))
  expect_lte(max(sqrt(colSums(fit$experts^2))), 20 * (1 + 1e-6))
  expect_gt(length(fit$diagnostics$expert_bound), 0)
  expect_true(any(grepl("expert", fit$convergence$certificate$active)))
})

test_that("a gate on the boundary has an infinite beta", {
  set.seed(1)
  fit <- fit_cosine_moe(mpg ~ wt + hp | wt, mtcars, k = 2, control = moe_control(n_starts = 10))
  expect_equal(unname(fit$diagnostics$boundary), 1:2)
  expect_true(all(is.infinite(fit$gate$beta)))
  expect_equal(fit$convergence$certificate$active, c("gate 1", "gate 2"))
})
