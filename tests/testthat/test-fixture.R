# Fitted objects are plain data: they travel to other processes and to later versions.

test_that("a fit saved by version 0.1.0 still predicts, prints and answers", {
  saved <- readRDS(test_path("fixtures", "fit-0.1.0.rds"))
  expect_identical(as.character(saved$version), "0.1.0")
  for (name in c("formula", "matrix", "boundary")) {
    case <- saved[[name]]
    for (type in names(case$predictions)) {
      expect_equal(
        predict(case$fit, case$newdata, type = type), case$predictions[[type]],
        tolerance = 1e-10, label = paste(name, type)
      )
    }
    expect_identical(coef(case$fit, "all"), case$coef, label = name)
    expect_output(print(case$fit), "Mixture-of-experts regression", label = name)
    expect_output(print(summary(case$fit)), "R-squared", label = name)
    expect_equal(deviance(case$fit) / df.residual(case$fit), sigma(case$fit)^2)
    expect_length(residuals(case$fit), length(fitted(case$fit)))
  }
  expect_true(all(is.infinite(coef(saved$boundary$fit, "gate")["speed", ])))
})

test_that("a saved fit predicts the same numbers in a fresh process", {
  skip_on_cran()
  train <- methods_data()
  fits <- list(
    formula = methods_fit(), matrix = methods_matrix_fit(),
    custom = quiet_fit(as.matrix(train[c("x1", "x2")]), train$y,
      expert = expert_custom(function(x, eta) eta[1] + eta[2] * x[, 1], n_par = 2), control = moe_control(n_starts = 2)
    )
  )
  new <- list(formula = train[1:5, ], matrix = list(x = train[1:5, c("x1", "x2")], z = train[1:5, "z1", drop = FALSE]))
  new$custom <- as.matrix(train[1:5, c("x1", "x2")])
  expected <- lapply(names(fits), function(name) {
    lapply(c("response", "experts", "gate", "class"), function(type) predict(fits[[name]], new[[name]], type = type))
  })
  files <- c(fits = tempfile(), expected = tempfile())
  saveRDS(list(fits = fits, new = new), files["fits"])
  run <- run_r(c(
    sprintf("saved <- readRDS(%s)", deparse(files[["fits"]])),
    "predict_all <- function(name) {",
    "  lapply(c('response', 'experts', 'gate', 'class'), function(type) {",
    "    predict(saved$fits[[name]], saved$new[[name]], type = type)",
    "  })",
    "}",
    "loadNamespace('cosmoe')",
    sprintf("saveRDS(lapply(names(saved$fits), predict_all), %s)", deparse(files[["expected"]]))
  ))
  expect_identical(run$status, 0L, info = readLines(run$output))
  expect_identical(readRDS(files[["expected"]]), expected)
})

test_that("a fit is small, and holds no copy of the covariates", {
  data <- clear_data("perturbed_cosine", "linear", 1, n = 20000)
  fit <- fit_clear(data, start = data$truth[c("beta", "b", "experts")])
  # Response, fitted values and residuals, and little more.
  vectors <- 3 * 8 * 20000
  expect_lt(length(serialize(fit, NULL)), vectors + 5e4)
})
