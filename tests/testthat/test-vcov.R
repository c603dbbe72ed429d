routers <- c("linear", "cosine", "perturbed_cosine")
combinations <- expand.grid(router = routers, expert = c("linear", "tanh"), stringsAsFactors = FALSE)

test_that("model and sandwich agree with an independent computation", {
  for (i in seq_len(nrow(combinations))) {
    # The truth is one of raw covariates: linear experts with standardized gates are hardly determined.
    for (standardize in c(FALSE, if (combinations$expert[i] == "tanh") TRUE)) {
      label <- paste(c(combinations[i, ], standardize), collapse = " ")
      w <- if (standardize) ref_with_seed(i, stats::runif(1000, 0.2, 2) * (stats::runif(1000) > 0.1))
      made <- inference_fit(combinations$router[i], combinations$expert[i], i, standardize = standardize, weights = w)
      covariates <- made$data$x
      response <- made$data$y
      weights <- w
      reference <- reference_inference(made$fit, covariates, response, if (is.null(w)) rep(1, 1000) else w)
      expect_equal(unname(coef(made$fit, "identifiable")), reference$estimate, tolerance = 1e-10, label = label)
      expect_equal(unname(vcov(made$fit)), reference$model, tolerance = 1e-6, label = label)
      expect_equal(unname(vcov(made$fit, "sandwich")), reference$sandwich, tolerance = 1e-4, label = label)
    }
  }
})

test_that("coordinates go by the names and the order of coef", {
  fit <- methods_fit()
  estimate <- coef(fit, "identifiable")
  expect_identical(names(estimate), names(coef(fit, "all")))
  expect_identical(dimnames(vcov(fit)), list(names(estimate), names(estimate)))
  expect_equal(estimate[["gate1:z1"]], (fit$gate$u[1, 1] - fit$gate$u[1, 2]) / 2)
  expect_equal(estimate[["gate2:(Intercept)"]], unname(fit$gate$b[2] - fit$gate$b[1]) / 2)
  expect_identical(estimate[5:14], coef(fit, "all")[5:14])
  # The contrasts sum to zero.
  covariance <- vcov(fit)
  expect_equal(covariance["gate1:z1", ], -covariance["gate2:z1", ])
})

test_that("estimates, covariances, intervals and tests are about the same numbers", {
  for (router in routers) {
    made <- inference_fit(router, "tanh")
    covariates <- made$data$x
    response <- made$data$y
    fit <- made$fit
    error <- standard_errors(fit)
    table <- coef(summary(fit))
    expect_identical(names(coef(fit)), names(error))
    expect_identical(dimnames(vcov(fit)), list(names(error), names(error)))
    expect_identical(names(coef(fit)), rownames(confint(fit)))
    expect_equal(rowMeans(confint(fit)), coef(fit))
    expect_equal(coef(fit), table[, "Estimate"])
    expect_equal(coef(fit) / error, table[, "t value"])
    skip_if_not_installed("lmtest")
    expect_equal(unclass(lmtest::coeftest(fit))[, 1:4], table[, 1:4], ignore_attr = c("method", "df", "nobs", "logLik"))
    expect_equal(unclass(lmtest::coefci(fit)), confint(fit), ignore_attr = TRUE)
  }
})

test_that("a single linear expert is lm", {
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50) * (stats::runif(50) > 0.2)))
  fit <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  linear <- lm(dist ~ speed, data, weights = w)
  expect_named(coef(fit, "identifiable"), c("expert1:(Intercept)", "expert1:speed"))
  expect_equal(unname(vcov(fit)), unname(vcov(linear)), tolerance = 1e-8)
  x <- model.matrix(linear)
  inverse <- solve(crossprod(x, data$w * x))
  n <- sum(data$w > 0)
  robust <- n / (n - 2) * inverse %*% crossprod(x, (data$w * residuals(linear))^2 * x) %*% inverse
  expect_equal(unname(vcov(fit, "sandwich")), unname(robust), tolerance = 1e-8)
})

test_that("the methods for sandwich give the package's own sandwich", {
  skip_if_not_installed("sandwich")
  fit <- methods_fit()
  score <- sandwich::estfun(fit)
  expect_identical(dim(score), c(150L, 14L))
  expect_lt(max(abs(colSums(score))), 1e-4 * max(abs(score)))
  expect_equal(sandwich::sandwich(fit) * 150 / 138, vcov(fit, "sandwich"), tolerance = 1e-8)
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50)))
  one <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  linear <- lm(dist ~ speed, data, weights = w)
  expect_equal(unname(sandwich::estfun(one)), unname(sandwich::estfun(linear)), tolerance = 1e-5)
  expect_equal(unname(sandwich::bread(one)), unname(sandwich::bread(linear)), tolerance = 1e-8)
  expect_equal(unname(vcov(one, "sandwich")), unname(sandwich::vcovHC(linear, "HC1")), tolerance = 1e-6)
  # Between the user and the method stands a function with variables `x`, which must not be taken for the user's.
  made <- inference_fit("linear", "tanh")
  x <- made$data$x
  y <- made$data$y
  made$fit$call[c("x", "y")] <- expression(x, y)
  expect_equal(sandwich::sandwich(made$fit) * 1000 / 991, vcov(made$fit, "sandwich"), tolerance = 1e-8)
})

test_that("rows that na.exclude left out are rows of NA among the scores, as for glm()", {
  skip_if_not_installed("sandwich")
  data <- ref_with_seed(1, data.frame(x = stats::rnorm(60)))
  data$y <- ref_with_seed(2, 1 + data$x + stats::rnorm(60))
  data$x[c(3, 9)] <- NA
  group <- rep(1:12, 5)
  for (action in c("na.exclude", "na.omit")) {
    fit <- fit_cosine_moe(y ~ x, data, k = 1, na.action = action)
    linear <- lm(y ~ x, data, na.action = action)
    score <- sandwich::estfun(fit)
    expect_equal(unname(score), unname(sandwich::estfun(linear)), tolerance = 1e-5)
    expect_identical(rownames(score), rownames(sandwich::estfun(linear)))
    expect_identical(sum(is.na(score)), if (action == "na.exclude") 4L else 0L)
    expect_equal(unname(sandwich::sandwich(fit)), unname(sandwich::sandwich(linear)), tolerance = 1e-6)
    expect_equal(
      unname(sandwich::vcovCL(fit, group, type = "HC0")), unname(sandwich::vcovCL(linear, group, type = "HC0")),
      tolerance = 1e-6
    )
  }
})

test_that("standard errors do not depend on the order of experts and rows, the gauge or the units", {
  for (router in routers) {
    made <- inference_fit(router, "tanh", n = 600)
    data <- made$data
    covariates <- data$x
    response <- data$y
    errors <- standard_errors(made$fit)
    # Experts the other way round: swapped by hand, as a fit orders them by weight.
    swapped <- made$fit
    for (part in c("u", "beta")) swapped$gate[[part]][] <- swapped$gate[[part]][, 2:1]
    swapped$gate$b[] <- swapped$gate$b[2:1]
    swapped$experts[] <- swapped$experts[, 2:1]
    expect_equal(unname(standard_errors(swapped)), unname(errors[c(4:6, 1:3, 10:12, 7:9)]), tolerance = 1e-8)
    if (router != "cosine") {
      shifted <- made$fit
      shifted$gate$u <- shifted$gate$u + c(0.01, -0.02)
      shifted$gate$b <- shifted$gate$b + 3
      expect_equal(standard_errors(shifted), errors, tolerance = 1e-8, label = router)
    }
    by <- 600:1
    covariates <- data$x[by, ]
    response <- data$y[by]
    reversed <- fit_cosine_moe(covariates, response,
      router = made$fit$router, expert = "tanh", standardize = FALSE, start = made$fit,
      control = moe_control(tolerance = 1e-12)
    )
    expect_equal(standard_errors(reversed), errors, tolerance = 1e-6, label = router)
    covariates <- data$x
    response <- data$y
    # Experts in other units, the gate in the same.
    gating <- data$x
    scaled <- data$x * rep(c(100, 0.01), each = 600)
    changed <- fit_cosine_moe(scaled, response,
      z = gating, router = made$fit$router, expert = "tanh", standardize = FALSE,
      start = list(
        beta = if (router == "perturbed_cosine") made$fit$gate$beta else made$fit$gate$u,
        b = made$fit$gate$b, experts = made$fit$experts / c(100, 0.01, 1)
      ), control = moe_control(tolerance = 1e-12)
    )
    expect_equal(standard_errors(changed), errors / c(rep(1, 6), 1, 100, 0.01, 1, 100, 0.01), tolerance = 1e-5)
  }
})

test_that("a linear gate's errors do not depend on standardize, and follow its units", {
  made <- inference_fit("linear", "tanh", n = 600)
  covariates <- made$data$x
  response <- made$data$y
  errors <- standard_errors(made$fit)
  other <- fit_cosine_moe(covariates, response,
    router = "linear", expert = "tanh", start = made$fit, control = moe_control(tolerance = 1e-12)
  )
  expect_equal(standard_errors(other), errors, tolerance = 1e-6)
  halved <- fit_cosine_moe(covariates, response,
    router = router_linear(scale = 2), expert = "tanh", control = moe_control(tolerance = 1e-12),
    start = list(beta = made$fit$gate$beta / 2, b = made$fit$gate$b, experts = made$fit$experts)
  )
  expect_equal(standard_errors(halved), errors / c(1, 2, 2, 1, 2, 2, rep(1, 6)), tolerance = 1e-6)
})

test_that("doubled rows are rows of weight 2, and weights have no unit", {
  made <- inference_fit("perturbed_cosine", "tanh", n = 400)
  data <- made$data
  covariates <- data$x[rep(1:400, c(rep(2, 100), rep(1, 300))), ]
  response <- data$y[rep(1:400, c(rep(2, 100), rep(1, 300)))]
  refit <- function(w) {
    fit_cosine_moe(covariates, response,
      weights = w, router = made$fit$router, expert = "tanh", standardize = FALSE, start = made$fit,
      control = moe_control(tolerance = 1e-12)
    )
  }
  doubled <- refit(NULL)
  repeated <- vcov(doubled)
  w <- rep(7, 500)
  expect_equal(vcov(refit(w)), repeated, tolerance = 1e-6)
  covariates <- data$x
  response <- data$y
  w <- rep(2:1, c(100, 300))
  weighted <- refit(w)
  # The same but for the degrees of freedom of the residual variance.
  expect_equal(vcov(weighted) / weighted$sigma^2, repeated / doubled$sigma^2, tolerance = 1e-6)
  # Rows of weight zero count nowhere.
  robust <- vcov(weighted, "sandwich")
  usual <- vcov(weighted)
  covariates <- rbind(data$x, c(100, 100))
  response <- c(data$y, 1e3)
  w <- c(w, 0)
  with_zero <- refit(w)
  expect_equal(vcov(with_zero), usual, tolerance = 1e-5)
  expect_equal(vcov(with_zero, "sandwich"), robust, tolerance = 1e-5)
})

test_that("the sandwich follows errors that the model does not", {
  made <- inference_fit("linear", "tanh", n = 2000)
  covariates <- made$data$x
  response <- ref_with_seed(3, made$data$f + 0.2 * covariates[, 1]^2 * stats::rnorm(2000))
  fit <- fit_cosine_moe(covariates, response, router = "linear", expert = "tanh", start = made$fit)
  ratio <- standard_errors(fit, "sandwich") / standard_errors(fit)
  expect_gt(max(ratio), 1.2)
})

test_that("offsets and responses in other units are taken into account", {
  train <- methods_data()
  fit <- methods_fit()
  train$shift <- seq_len(150) / 10
  set.seed(1)
  moved <- fit_cosine_moe(I(1000 * (y + shift)) ~ x1 + x2 + group + offset(1000 * shift) | z1,
    data = train, router = methods_router(), control = methods_control()
  )
  factor <- rep(c(1, 1000), c(4, 10))
  expect_equal(standard_errors(moved), standard_errors(fit) * factor, tolerance = 1e-4)
})

test_that("data that are gone, and bad arguments, are errors", {
  fit <- methods_matrix_fit()
  expect_error(vcov(fit), "found again", class = "cosmoe_error_data")
  expect_error(confint(fit), "found again", class = "cosmoe_error_data")
  covariates <- as.matrix(methods_data()[c("x1", "x2")])
  gating <- as.matrix(methods_data()["z1"])
  expect_identical(dim(vcov(fit)), c(10L, 10L))
  expect_error(vcov(methods_fit(), "robust"), "type", class = "cosmoe_error_input")
  expect_error(vcov(methods_fit(), "model", level = 1), "level", class = "cosmoe_error_input")
  expect_error(coef(methods_fit(), "contrasts"), "what", class = "cosmoe_error_input")
})
