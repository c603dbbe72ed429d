# The core's loss, gradient and steps against the plain-R layer of helper-layer.R.

lay_routers <- list(
  linear = list(name = "linear", scale = 1, tau1 = 0, tau2 = 0, top_k = 1L),
  cosine = list(name = "cosine", scale = 2, tau1 = 0, tau2 = 0, top_k = 1L),
  perturbed_cosine = list(name = "perturbed_cosine", scale = 2, tau1 = 0.3, tau2 = 0.2, top_k = 1L)
)

expect_same_layer <- function(layer, seed = 1L, label = NULL) {
  p <- lay_problem(layer, seed = seed)
  n <- length(p$y)
  noise <- core_layer_noise(layer, 4L, n, TRUE)
  reference <- lay_loss(layer, p$theta, p$x, p$y, noise)
  free <- core_layer_loss(layer, p$data, p$theta, 4L, NULL, 1L)
  expect_equal(free$loss, reference$loss, tolerance = 1e-12, label = label)
  expect_equal(free$correct / n, reference$accuracy, label = label)
  expect_identical(free$sent, tabulate(reference$chosen, layer$experts), label = label)
  held <- core_layer_loss(layer, p$data, p$theta, 4L, reference$chosen - 1L, 1L)
  expect_equal(held$loss, reference$loss, tolerance = 1e-12, label = label)
  numeric <- lay_gradient(layer, p$theta, p$x, p$y, noise, reference$chosen)
  expect_equal(held$gradient, numeric, tolerance = 1e-7, label = label)
}

test_that("loss and gradient agree with the reference for every activation, protocol and router", {
  skip_if_not_installed("numDeriv")
  for (activation in layer_activations) for (protocol in c("paper", "notebook")) for (router in lay_routers) {
    label <- paste(activation, protocol, router$name)
    expect_same_layer(lay_layer(activation = activation, protocol = protocol, router = router), label = label)
  }
})

test_that("they agree for several classes and experts a sample, with balance, other noise, one expert", {
  skip_if_not_installed("numDeriv")
  two <- utils::modifyList(lay_routers$perturbed_cosine, list(top_k = 2L))
  for (protocol in c("paper", "notebook")) {
    several <- lay_layer(protocol = protocol, classes = 3L, filters = 3L, router = two, balance = 0.5)
    expect_same_layer(several, label = protocol)
    expect_same_layer(lay_layer(protocol = protocol, balance = 2, noise = "gaussian"), label = protocol)
    expect_same_layer(lay_layer(protocol = protocol, experts = 1L, activation = "gelu"), label = protocol)
    expect_same_layer(lay_layer(protocol = protocol, noise = "none", classes = 3L, filters = 6L), label = protocol)
  }
})

test_that("whole steps agree with the reference to 1e-10", {
  for (protocol in c("paper", "notebook")) for (activation in c("cubic", "linear", "celu")) {
    for (classes in 2:3) {
      layer <- lay_layer(protocol = protocol, activation = activation, classes = classes, filters = 6L)
      p <- lay_problem(layer, n = 25L)
      reference <- lay_train(layer, p$theta, p$x, p$y, 12L, 0.05, 0.1)
      state <- list(
        theta = p$theta, first = numeric(), second = numeric(), lowest = numeric(), step = 0L, first_loss = 0,
        lowest_loss = 0
      )
      run <- core_layer_train(layer, p$data, state, list(
        threads = 2L, optimizer = "ngd", expert_rate = 0.05, gate_rate = 0.1, weight_decay = 0, steps = 12L, batch = 0L,
        stop_loss = 0, stop_rise = 0
      ))
      label <- paste(protocol, activation, classes)
      expect_identical(run$status, "steps", label = label)
      expect_lt(max(abs(run$state$theta - reference$theta)), 1e-10, label = label)
      expect_lt(max(abs(run$history$loss - reference$loss)), 1e-10, label = label)
    }
  }
})

test_that("Adam's steps and weight decay follow the definition", {
  layer <- lay_layer(experts = 1L, filters = 6L, activation = "tanh")
  p <- lay_problem(layer)
  theta <- p$theta
  m <- v <- 0
  for (t in 1:6) {
    g <- core_layer_loss(layer, p$data, theta, t - 1L, NULL, 1L)$gradient + 0.01 * theta
    m <- 0.9 * m + 0.1 * g
    v <- 0.999 * v + 0.001 * g^2
    theta <- theta - 0.02 * (m / (1 - 0.9^t)) / (sqrt(v / (1 - 0.999^t)) + 1e-8)
  }
  fit <- fit_moe_layer(p$x, p$y, experts = 1, filters = 6, activation = "tanh", optimizer = "adam", steps = 0, seed = 1)
  fit$run$state$theta <- p$theta
  control <- utils::modifyList(fit$control, list(expert_rate = 0.02, weight_decay = 0.01, steps = 6L))
  run <- core_layer_train(fit$layer, p$data, fit$run$state, control)
  expect_lt(max(abs(run$state$theta - theta)), 1e-12)
})

test_that("noise has the law it should have, and depends on seed, step, sample and expert alone", {
  layer <- lay_layer(experts = 8L)
  few <- core_layer_noise(layer, 3L, 10L, TRUE)
  many <- core_layer_noise(layer, 3L, 20000L, TRUE)
  expect_identical(few, many[, 1:10])
  expect_true(all(many >= 0 & many < 1))
  expect_gt(stats::ks.test(many[seq_len(50000)], "punif")$p.value, 1e-4)
  expect_lt(max(abs(stats::cor(t(many)) - diag(8))), 5 / sqrt(20000))
  others <- list(
    core_layer_noise(layer, 4L, 20000L, TRUE), core_layer_noise(layer, 3L, 20000L, FALSE),
    core_layer_noise(lay_layer(experts = 8L, seed = 4), 3L, 20000L, TRUE)
  )
  for (other in others) expect_lt(abs(stats::cor(c(many), c(other))), 5 / sqrt(160000))
  normal <- core_layer_noise(lay_layer(experts = 8L, noise = "gaussian"), 0L, 20000L, TRUE)
  expect_gt(stats::ks.test(normal[seq_len(50000)], "pnorm")$p.value, 1e-4)
})
