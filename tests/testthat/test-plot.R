on_device <- function(code) {
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  force(code)
}

test_that("all panels are drawn, and the device is as before", {
  fit <- methods_fit()
  on_device({
    settings <- c("mfrow", "mar", "mgp", "tcl", "las", "cex", "xpd", "oma")
    before <- graphics::par(settings)
    expect_silent(result <- withVisible(plot(fit)))
    expect_identical(graphics::par(settings), before)
    expect_false(result$visible)
    expect_identical(result$value, fit)
  })
})

test_that("single panels go into the user's layout", {
  fit <- methods_fit()
  on_device({
    graphics::par(mfrow = c(1, 2))
    for (panel in c("fitted", "residuals")) expect_silent(plot(fit, which = panel))
    expect_identical(graphics::par("mfg"), c(1L, 2L, 1L, 2L))
  })
})

test_that("the default covariate is the one that moves the gate", {
  fit <- methods_fit()
  expect_identical(check_covariate(fit, NULL), "z1")
  on_device(for (name in c("x1", "group", "z1")) expect_silent(plot(fit, "covariate", covariate = name)))
  expect_error(on_device(plot(fit, "covariate", covariate = "y")), "covariate", class = "cosmoe_error_input")
  expect_error(on_device(plot(fit, "curves")), "which", class = "cosmoe_error_input")
})

test_that("a profile moves one covariate, with the others at typical values", {
  fit <- methods_fit()
  at <- profile_along(fit, "x1", size = 11)
  new <- fit$typical[rep(1, 11), ]
  new$x1 <- at$values
  expect_equal(range(at$values), unname(fit$range[, "x1"]))
  expect_equal(at$mean, unname(predict(fit, new)))
  levels <- profile_along(fit, "group")
  expect_true(levels$discrete)
  expect_identical(as.character(levels$values), c("low", "mid", "high"))
})

test_that("factors made in the formula, logical and character covariates have levels", {
  cars <- transform(mtcars, am = am == 1, make = ifelse(cyl > 4, "big", "small"))
  fit <- suppressWarnings(
    fit_cosine_moe(mpg ~ wt + factor(gear) + am + make | hp,
      data = cars, control = moe_control(n_starts = 2, max_passes = 30)
    )
  )
  expect_identical(covariate_levels(fit, "gear"), c(3, 4, 5))
  expect_identical(covariate_levels(fit, "am"), c(FALSE, TRUE))
  expect_identical(covariate_levels(fit, "make"), c("big", "small"))
  expect_null(covariate_levels(fit, "wt"))
  on_device(for (name in c("gear", "am", "make", "wt", "hp")) expect_silent(plot(fit, "covariate", covariate = name)))
})

test_that("fits from matrices, with offsets and with one expert are drawn", {
  fit <- methods_matrix_fit(offset = rep(1, 150))
  expect_identical(check_covariate(fit, NULL), "z1")
  on_device(expect_silent(plot(fit)))
  single <- fit_cosine_moe(y ~ x1 + offset(size), data = methods_data(), k = 1)
  on_device(expect_silent(plot(single)))
  formula_offset <- fit_cosine_moe(y ~ x1 | z1,
    data = methods_data(), offset = log(size), router = methods_router(), control = methods_control()
  )
  on_device(expect_silent(plot(formula_offset)))
})

test_that("panels are drawn without the data of the fit", {
  fit <- methods_fit()
  fit$call$data <- quote(nowhere_to_be_found)
  expect_null(quiet_training(fit, environment()))
  on_device(expect_silent(plot(fit)))
})

test_that("rows left out by na.exclude and starts without a value are left out", {
  train <- methods_data()
  train$x1[7] <- NA
  fit <- fit_cosine_moe(y ~ x1 | z1,
    data = train, na.action = na.exclude, router = methods_router(), control = methods_control()
  )
  fit$starts$objective[4] <- NA
  on_device(expect_silent(plot(fit)))
})

test_that("graphical parameters are passed on", {
  on_device({
    plot(methods_fit(), "starts", mar = c(5, 5, 5, 5))
    expect_identical(graphics::par("mar"), c(5.1, 4.1, 4.1, 2.1))
  })
})
