# Sparse gates: the random search over gates, and what the default finds.

# Linear experts with slopes of norm 3 and gates of norm 2, all directions drawn; noise 0.3.
sparse_data <- function(seed, k, top_k, n = 400) {
  ref_with_seed(seed, {
    columns <- function(size) {
      m <- matrix(stats::rnorm(2 * k), 2)
      m * rep(size / sqrt(colSums(m^2)), each = 2)
    }
    model <- ref_model(ref_router("perturbed_cosine", 3, 0.1, 0.1, top_k), "linear", k)
    par <- list(
      u = ref_gate_from_beta(model$router, columns(2)), b = stats::rnorm(k, 0, 0.3),
      eta = rbind(columns(3), stats::rnorm(k))
    )
    x <- matrix(stats::rnorm(2 * n), n)
    f <- ref_f(ref_pack(par), model, x)
    list(x = x, y = drop(f) + 0.3 * stats::rnorm(n), f = drop(f), par = par, model = model)
  })
}

test_that("the loss of the random search is the sum of squares of the sparse model", {
  for (top_k in 1:3) {
    for (router in c("linear", "cosine", "perturbed_cosine")) {
      label <- paste(router, top_k)
      set.seed(top_k)
      model <- core_model(as_router(router), expert_tanh(), 4L)
      model$router$top_k <- top_k
      rows <- list(x = matrix(rnorm(300), 100), y = rnorm(100), w = runif(100))
      par <- list(u = into_constraint(matrix(rnorm(12), 3), model), b = rnorm(4), eta = matrix(rnorm(16), 4))
      sample <- start_sample(rows, model)
      value <- core_predict(model, list(x = sample$x, z = sample$z), par, 1L)$expert
      expect_equal(
        sparse_loss(par$u, par$b, value, sample, model), 2 * core_objective(model, rows, par, 0L, 1L)$value,
        tolerance = 1e-12, label = label
      )
      # The search stays in the constraint set and does not go up.
      found <- random_search(par, sample, model, proposals = 50L)
      expect_equal(into_constraint(found$u, model), found$u, tolerance = 1e-12, label = label)
      expect_lt(sparse_loss(found$u, found$b, value, sample, model), sparse_loss(par$u, par$b, value, sample, model))
    }
  }
})

test_that("the default finds sparse models: not above the truth's sum of squares, most of the time", {
  ratio <- vapply(1:6, function(seed) {
    data <- sparse_data(seed, k = 2L + seed %% 2L, top_k = 1L)
    set.seed(seed)
    fit <- quiet_fit_clear(data, control = moe_control(n_starts = 40))
    expect_identical(fit$k, data$model$k)
    fit$sse / sum((data$y - data$f)^2)
  }, 0)
  expect_gte(mean(ratio < 1.02), 0.8)
})

test_that("the certificate of a converged sparse fit does not contradict its status", {
  for (top_k in 1:2) {
    data <- sparse_data(21, k = 3L, top_k = top_k)
    set.seed(1)
    fit <- quiet_fit_clear(data, control = moe_control(n_starts = 8))
    if (fit$convergence$converged) expect_lte(fit$convergence$certificate$predicted_decrease, 1e-6)
    expect_identical(fit$convergence$converged, fit$convergence$status == "converged")
  }
})

test_that("experts keep the order by which ties were broken in rows where scores are equal", {
  set.seed(2)
  data <- data.frame(g = factor(sample(c("a", "b", "c"), 200, TRUE)), x = rnorm(200), h = 0)
  data$y <- with(data, ifelse(g == "a", x + 2, ifelse(g == "b", -x, 3 * x - 1))) + rnorm(200, sd = 0.3)
  data$h <- ifelse(runif(200) < 0.4, 0, rexp(200))
  few <- moe_control(n_starts = 4)
  kept <- 0
  gates <- list(y ~ x | g, y ~ x | h, y ~ x | g)
  routers <- list(router_linear(top_k = 2), router_cosine(top_k = 1), router_perturbed_cosine(top_k = 2))
  for (i in 1:3) {
    set.seed(1)
    fit <- quiet_fit(gates[[i]], data, k = 3, router = routers[[i]], standardize = FALSE, control = few)
    expect_equal(sum((data$y - predict(fit, data))^2), fit$sse, tolerance = 1e-10)
    kept <- kept + fit$diagnostics$unordered
    expect_identical(any(grepl("Scores of the gate tie", summary(fit)$notes)), fit$diagnostics$unordered)
  }
  expect_gt(kept, 0)
})

test_that("infinite means in rows without weight do not stop a sparse likelihood fit", {
  for (seed in 1:2) {
    set.seed(seed)
    n <- 400
    data <- data.frame(x = c(rnorm(n - 3), 2000, -2500, 3000), w = rep(c(1, 0), c(n - 3, 3)))
    data$y <- c(rpois(n - 3, exp(ifelse(data$x > 0, 1 + data$x / 2, -data$x / 2))), 1, 1, 1)
    fit <- suppressWarnings(fit_cosine_moe(y ~ x, data,
      k = 3, router = router_linear(top_k = 1), method = "em", family = poisson(), weights = w,
      control = moe_control(n_starts = 3)
    ))
    expect_true(is.finite(fit$loglik))
  }
})
