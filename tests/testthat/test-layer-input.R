# Every bad input of the layer stops before any work, with one classed error; the snapshot holds the messages.

refuse_layer <- function(code) {
  condition <- tryCatch(code, condition = identity)
  testthat::expect_s3_class(condition, "cosmoe_error")
  cat(class(condition)[1], ": ", conditionMessage(condition), "\n", sep = "")
}

patches <- simulate_patches(1, n = 30, seed = 1)
layer_of <- function(x = patches$x, y = patches$y, ..., steps = 2, seed = 1) {
  fit_moe_layer(x, y, steps = steps, seed = seed, ...)
}
broken <- function(value) replace(patches$x, 7, value)

test_that("bad samples and labels are named", {
  expect_snapshot({
    refuse_layer(layer_of(x = broken(NaN)))
    refuse_layer(layer_of(x = broken(NA)))
    refuse_layer(layer_of(x = broken(Inf)))
    refuse_layer(layer_of(x = patches$x[, 0, , drop = FALSE]))
    refuse_layer(layer_of(x = patches$x[0, , ], y = numeric()))
    refuse_layer(layer_of(x = patches$x[, , 0]))
    refuse_layer(layer_of(x = patches$y))
    refuse_layer(layer_of(x = "patches"))
    refuse_layer(layer_of(x = list(1, 2)))
    refuse_layer(layer_of(y = rep(1, 30)))
    refuse_layer(layer_of(y = patches$y[-1]))
    refuse_layer(layer_of(y = replace(patches$y, 3, NA)))
    refuse_layer(layer_of(y = patches$y / 3))
    refuse_layer(layer_of(y = as.list(patches$y)))
    refuse_layer(layer_of(x = patches$x[1, , , drop = FALSE], y = 1, experts = 1))
    refuse_layer(layer_of(cluster = 1:3))
  })
})

test_that("bad settings are named", {
  expect_snapshot({
    refuse_layer(layer_of(experts = 31))
    refuse_layer(layer_of(experts = 0))
    refuse_layer(layer_of(filters = 0))
    refuse_layer(layer_of(filters = 5, protocol = "notebook"))
    refuse_layer(layer_of(filters = 16, y = patches$cluster %% 3))
    refuse_layer(layer_of(activation = "cube"))
    refuse_layer(layer_of(router = "round"))
    refuse_layer(layer_of(top_k = 9))
    refuse_layer(layer_of(noise = "laplace"))
    refuse_layer(layer_of(protocol = "text"))
    refuse_layer(layer_of(optimizer = "sgd"))
    refuse_layer(layer_of(rates = 0.1))
    refuse_layer(layer_of(rates = c(expert = 0, gate = 1)))
    refuse_layer(layer_of(rates = c(expert = NaN, gate = 1)))
    refuse_layer(layer_of(steps = -1))
    refuse_layer(layer_of(batch = "half"))
    refuse_layer(layer_of(batch = 0))
    refuse_layer(layer_of(balance = -1))
    refuse_layer(layer_of(valid = patches$x))
    refuse_layer(layer_of(valid = list(x = patches$x[, 1:2, ], y = patches$y)))
    refuse_layer(layer_of(valid = list(x = patches$x, y = patches$y + 5)))
    refuse_layer(layer_of(seed = 1.5))
    refuse_layer(layer_of(stop = 0.3))
    refuse_layer(layer_of(projection = matrix(1, 2, 3)))
    refuse_layer(layer_of(checkpoint = 3))
    refuse_layer(layer_of(resume = TRUE))
    refuse_layer(layer_of(resume = layer_of(filters = 8)))
    refuse_layer(layer_of(threads = 0))
  })
})

test_that("overflow of the cube is found and named", {
  expect_snapshot({
    refuse_layer(layer_of(x = patches$x * 1e110))
    refuse_layer(layer_of(x = patches$x * 1e110, protocol = "notebook"))
    refuse_layer(layer_of(x = patches$x * 1e306, activation = "linear"))
  })
  # Not NaN and not silent, also where the overflow comes late.
  expect_true(all(is.finite(layer_of(x = patches$x * 1e60)$theta)))
})

test_that("a file that is no checkpoint is refused", {
  file <- tempfile()
  writeLines("nothing", file)
  expect_error(layer_of(checkpoint = file, resume = TRUE), "checkpoint", class = "cosmoe_error_input")
  saveRDS(1:3, file)
  expect_error(layer_of(checkpoint = file, resume = TRUE), "checkpoint", class = "cosmoe_error_input")
})

test_that("bad new data, simulations, tables and pictures are refused", {
  fit <- layer_of(cluster = patches$cluster)
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  expect_snapshot({
    refuse_layer(predict(fit))
    refuse_layer(predict(fit, patches$x[, 1:3, ]))
    refuse_layer(predict(fit, broken(NA)))
    refuse_layer(predict(fit, patches$x, type = "response"))
    refuse_layer(predict(fit, patches$x, noise = "some"))
    refuse_layer(predict(fit, patches$x, kind = "class"))
    refuse_layer(specialization(fit, patches$x, patches$y + 3, patches$cluster))
    refuse_layer(specialization(fit, patches$x, patches$y, 1))
    refuse_layer(specialization(3, patches$x, patches$y, patches$cluster))
    refuse_layer(dispatch_entropy(1:3, 1:2))
    refuse_layer(dispatch_entropy(c(1, NA), 1:2))
    refuse_layer(dispatch_entropy(numeric(), numeric()))
    refuse_layer(plot(fit, "curve"))
    refuse_layer(plot(fit, "gate"))
    refuse_layer(plot(fit, "gate", centers = 1:3))
    refuse_layer(plot(layer_of(), "entropy"))
    refuse_layer(plot(layer_of(steps = 0)))
    refuse_layer(plot(fit, "routing", steps = 99))
    refuse_layer(simulate_patches(5))
    refuse_layer(simulate_patches("table"))
    refuse_layer(simulate_patches(n = 0))
    refuse_layer(simulate_patches(dimension = 7))
    refuse_layer(simulate_patches(patches = 2))
    refuse_layer(simulate_patches(clusters = 1))
    refuse_layer(simulate_patches(alpha = c(2, 1)))
    refuse_layer(simulate_patches(noise = -1))
    refuse_layer(simulate_patches(signals = 1))
  })
})

test_that("top_k is the router's where it has one, and may not contradict it", {
  data <- simulate_patches(1, 60, seed = 1)
  fit <- function(...) fit_moe_layer(data$x, data$y, experts = 3, filters = 4, steps = 2, seed = 1, ...)
  by_router <- fit(router = router_cosine(top_k = 2))
  expect_identical(dim(predict(by_router, data$x, type = "expert")), c(60L, 2L))
  expect_identical(coef(by_router), coef(fit(router = "cosine", top_k = 2)))
  expect_null(dim(predict(fit(router = "cosine"), data$x, type = "expert")))
  expect_error(fit(router = router_cosine(top_k = 2), top_k = 1), "as in the router", class = "cosmoe_error_input")
})

test_that("samples that do not fit the layer have one class of error", {
  data <- simulate_patches(1, 60, seed = 1)
  fit <- fit_moe_layer(data$x, data$y, experts = 3, filters = 4, steps = 2, seed = 1)
  for (bad in list(data$x * NaN, data$x[, , 0, drop = FALSE], data$x[, -1, , drop = FALSE], "a", NULL)) {
    expect_error(predict(fit, bad), class = "cosmoe_error_newdata")
  }
})
