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

test_that("fits from matrices are drawn with and without their own gate covariates and offset", {
  train <- methods_data()
  covariates <- as.matrix(train[c("x1", "x2")])
  gating <- as.matrix(train["z1"])
  response <- train$y
  shift <- train$size
  quick <- moe_control(n_starts = 2, max_passes = 20)
  fits <- suppressWarnings(list(
    shared = fit_cosine_moe(covariates, response, control = quick),
    named = fit_cosine_moe(covariates, response, z = covariates, control = quick),
    offset = fit_cosine_moe(covariates, response, offset = shift, control = quick),
    gate = fit_cosine_moe(covariates, response, z = gating, control = quick),
    both = fit_cosine_moe(covariates, response, z = gating, offset = shift, control = quick)
  ))
  for (name in names(fits)) {
    fit <- fits[[name]]
    on_device(expect_silent(plot(fit)))
    on_device(expect_silent(plot(fit, "covariate", covariate = "x2")))
    # Colours come from the rows of the fit, here without a search for them further out.
    expect_length(quiet_training(fit, environment())$class, 150L)
    at <- profile_along(fit, "x1", size = 5)
    moved <- cbind(x1 = at$values, x2 = fit$typical$x2)
    new <- list(x = moved)
    if (name %in% c("gate", "both")) new$z <- cbind(z1 = rep(fit$typical$z1, 5))
    if (name %in% c("offset", "both")) new$offset <- numeric(5)
    expect_equal(at$mean, predict(fit, new), label = name)
  }
})

test_that("covariates that are matrices are left out, but for those of one column", {
  train <- methods_data()
  train$pair <- cbind(u = train$x2, v = train$z1)
  train$basis <- stats::poly(train$x1, 2)
  train$unit <- scale(train$x1)
  fit <- function(formula) {
    suppressWarnings(fit_cosine_moe(formula, train, control = moe_control(n_starts = 2, max_passes = 20)))
  }
  drawn <- list(
    "x1" = y ~ x1 + pair, "x1" = y ~ pair + x1, "x1" = y ~ x1 | pair, "x1" = y ~ pair | x1, "unit" = y ~ pair + unit,
    "group" = y ~ pair + group, "x1" = y ~ poly(x1, 2), "x1" = y ~ x2 | splines::ns(x1, 3), "unit" = y ~ unit
  )
  for (i in seq_along(drawn)) {
    now <- fit(drawn[[i]])
    expect_false("pair" %in% check_covariate(now, NULL))
    on_device(expect_silent(plot(now)))
    on_device(expect_silent(plot(now, "covariate", covariate = names(drawn)[i])))
  }
  at <- profile_along(now, "unit", size = 5)
  expect_equal(range(at$values), range(train$unit))
  new <- data.frame(row = 1:5)
  new$unit <- matrix(at$values)
  expect_equal(at$mean, unname(predict(now, new)))
  for (formula in c(y ~ pair, y ~ basis, y ~ poly(pair, degree = 2, raw = TRUE))) {
    now <- fit(formula)
    on_device({
      expect_silent(plot(now))
      expect_silent(plot(now, c("fitted", "covariate")))
      expect_error(plot(now, "covariate"), "`which` .* no covariate can be drawn", class = "cosmoe_error_input")
      expect_error(plot(now, covariate = "pair"), "`covariate`", class = "cosmoe_error_input")
    })
  }
  on_device(expect_error(plot(fit(y ~ x1 + pair), covariate = "pair"), "must be \"x1\"", class = "cosmoe_error_input"))
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
