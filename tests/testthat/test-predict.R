test_that("the response is the gate's mean of the experts", {
  fit <- methods_fit()
  new <- methods_data()[1:20, ]
  gate <- predict(fit, new, type = "gate")
  experts <- predict(fit, new, type = "experts")
  expect_identical(dim(gate), c(20L, 2L))
  expect_identical(colnames(gate), c("expert1", "expert2"))
  expect_identical(colnames(experts), c("expert1", "expert2"))
  expect_equal(unname(rowSums(gate)), rep(1, 20))
  expect_equal(predict(fit, new), rowSums(gate * experts))
  logit <- predict(fit, new, type = "logit")
  expect_equal(gate, exp(logit) / rowSums(exp(logit)))
})

test_that("predictions follow from the coefficients", {
  fit <- methods_fit()
  new <- methods_data()[1:20, ]
  x <- cbind(1, model.matrix(~ x1 + x2 + group, new)[, -1])
  expect_equal(unname(predict(fit, new, type = "experts")), unname(x %*% coef(fit, "experts")))
  z <- (new$z1 - fit$z_center) / fit$z_scale
  zeta <- z / (abs(z) + fit$router$tau2)
  logit <- outer(zeta, fit$gate$u[1, ]) + rep(fit$gate$b, each = 20)
  expect_equal(unname(predict(fit, new, type = "logit")), unname(logit))
})

test_that("the rows of the fit are predicted without new data", {
  fit <- methods_fit()
  train <- methods_data()
  expect_identical(predict(fit), fitted(fit))
  for (type in c("response", "experts", "gate", "class", "logit")) {
    expect_equal(predict(fit, type = type), predict(fit, train, type = type), ignore_attr = "names")
  }
})

test_that("the class is the most probable expert, the first of equals", {
  fit <- methods_fit()
  new <- methods_data()[1:20, ]
  class <- predict(fit, new, type = "class")
  expect_identical(levels(class), c("expert1", "expert2"))
  expect_identical(as.integer(class), unname(apply(predict(fit, new, type = "gate"), 1, which.max)))
  fit$gate$u[] <- 0
  fit$gate$b[] <- 0
  expect_true(all(predict(fit, new, type = "class") == "expert1"))
})

test_that("levels may come in another order or as strings", {
  fit <- methods_fit()
  new <- methods_data()[1:20, ]
  other <- transform(new, group = factor(as.character(group), levels = c("high", "low", "mid")))
  expect_identical(predict(fit, other), predict(fit, new))
  expect_identical(predict(fit, transform(new, group = as.character(group))), predict(fit, new))
})

test_that("rows with missing values are NA, or dropped", {
  fit <- methods_fit()
  new <- methods_data()[1:5, ]
  new$z1[2] <- NA
  expect_identical(unname(is.na(predict(fit, new))), c(FALSE, TRUE, FALSE, FALSE, FALSE))
  expect_identical(unname(is.na(predict(fit, new, type = "class"))), c(FALSE, TRUE, FALSE, FALSE, FALSE))
  expect_equal(predict(fit, new, type = "gate")[-2, ], predict(fit, new[-2, ], type = "gate"))
  expect_equal(predict(fit, new, na.action = na.omit), predict(fit, new[-2, ]))
  expect_identical(unname(is.na(predict(fit, new, na.action = na.exclude))), c(FALSE, TRUE, FALSE, FALSE, FALSE))
  expect_length(predict(fit, new[0, ]), 0)
  expect_identical(dim(predict(fit, new[0, ], type = "gate")), c(0L, 2L))
})

test_that("row names become names", {
  fit <- methods_fit()
  new <- methods_data()[1:3, ]
  rownames(new) <- c("a", "b", "c")
  expect_named(predict(fit, new), c("a", "b", "c"))
  expect_named(predict(fit, new, type = "class"), c("a", "b", "c"))
  expect_identical(rownames(predict(fit, new, type = "gate")), c("a", "b", "c"))
  new$x1[2] <- NA
  expect_named(predict(fit, new), c("a", "b", "c"))
  expect_named(predict(fit, new, na.action = na.omit), c("a", "c"))
})

test_that("rows dropped by na.exclude come back as NA", {
  train <- methods_data()
  train$x2[c(3, 8)] <- NA
  fit <- fit_cosine_moe(y ~ x1 + x2 | z1,
    data = train, na.action = na.exclude, router = methods_router(), control = methods_control()
  )
  expect_identical(unname(which(is.na(predict(fit)))), c(3L, 8L))
  expect_identical(unname(which(is.na(residuals(fit)))), c(3L, 8L))
  expect_identical(unname(which(is.na(predict(fit, type = "class")))), c(3L, 8L))
  expect_identical(dim(predict(fit, type = "gate")), c(150L, 2L))
  expect_equal(unname(fitted(fit) + residuals(fit))[-c(3, 8)], train$y[-c(3, 8)])
})

test_that("offsets belong to the response only", {
  train <- methods_data()
  train$shift <- seq_len(150) / 10
  set.seed(1)
  fit <- fit_cosine_moe(I(y + shift) ~ x1 + x2 + offset(shift) | z1,
    data = train, router = methods_router(), control = methods_control()
  )
  new <- train[1:10, ]
  parts <- rowSums(predict(fit, new, type = "gate") * predict(fit, new, type = "experts"))
  expect_equal(predict(fit, new), parts + new$shift)
  expect_equal(predict(fit, type = "gate"), predict(fit, train, type = "gate"))
})

test_that("fits from matrices predict from matrices, data frames and lists", {
  fit <- methods_matrix_fit()
  train <- methods_data()
  x <- as.matrix(train[c("x1", "x2")])
  z <- as.matrix(train["z1"])
  expect_equal(unname(predict(fit, list(x = x, z = z))), fitted(fit))
  expect_equal(unname(predict(fit, train[c("z1", "x2", "x1")])), fitted(fit))
  # Without newdata, the matrices of the call are evaluated again, where predict() is called.
  expect_error(predict(fit, type = "gate"), "found again", class = "cosmoe_error_data")
  covariates <- x
  gating <- z
  expect_equal(unname(predict(fit, type = "gate")), unname(predict(fit, list(x = x, z = z), type = "gate")))
})

test_that("data of the fit that are gone or changed are an error", {
  local_fit <- function(...) {
    train <- methods_data()
    fit_cosine_moe(y ~ x1 | z1, data = train, router = methods_router(), control = methods_control(), ...)
  }
  fit <- local_fit()
  expect_identical(dim(predict(fit, type = "gate")), c(150L, 2L))
  home <- environment(fit$formula)
  home$train$x1 <- rev(home$train$x1)
  expect_error(predict(fit, type = "gate"), "other values", class = "cosmoe_error_data")
  home$train <- home$train[-1, ]
  expect_error(predict(fit, type = "gate"), "other values", class = "cosmoe_error_data")
  rm("train", envir = home)
  expect_error(predict(fit, type = "gate"), "found again", class = "cosmoe_error_data")
  kept <- local_fit(model = TRUE)
  rm("train", envir = environment(kept$formula))
  expect_identical(dim(predict(kept, type = "gate")), c(150L, 2L))
})

test_that("results do not depend on the number of threads", {
  fit <- methods_fit()
  train <- methods_data()
  expect_identical(predict(fit, train, threads = 2), predict(fit, train))
})

test_that("bad arguments are errors", {
  fit <- methods_fit()
  expect_error(predict(fit, type = "link"), "type", class = "cosmoe_error_input")
  expect_error(predict(fit, interval = "credible"), "interval", class = "cosmoe_error_input")
  expect_error(predict(fit, interval = "confidence", level = 2), "level", class = "cosmoe_error_input")
  expect_error(predict(fit, se.fit = "yes"), "se.fit", class = "cosmoe_error_input")
  expect_error(predict(fit, type = "class", se.fit = TRUE), "type", class = "cosmoe_error_input")
  expect_error(predict(fit, methods_data()["x1"]), "lacks", class = "cosmoe_error_newdata")
})

test_that("a single expert predicts", {
  train <- methods_data()
  fit <- fit_cosine_moe(y ~ x1 + group, data = train, k = 1)
  linear <- lm(y ~ x1 + group, train)
  expect_equal(unname(predict(fit, train)), unname(predict(linear, train)), tolerance = 1e-6)
  expect_true(all(predict(fit, train, type = "gate") == 1))
})

# ---- standard errors and intervals -----------------------------------------------------------------------------------

test_that("standard errors are those of the delta method", {
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    for (standardize in c(FALSE, TRUE)) {
      made <- inference_fit(router, "tanh", 2, 500, standardize = standardize)
      covariates <- made$data$x
      response <- made$data$y
      fit <- made$fit
      new <- covariates[1:20, ]
      value <- predict(fit, new, se.fit = TRUE)
      expect_equal(value$fit, predict(fit, new))
      expect_identical(value[c("df", "residual.scale")], list(df = fit$df.residual, residual.scale = fit$sigma))
      # f as a function of the identifiable coordinates: contrasts may stand for the gates themselves.
      f <- function(coefficients) {
        gate <- matrix(coefficients[1:6], 3)
        experts <- matrix(coefficients[7:12], 3)
        u <- gate[-1, ] * if (router == "linear") fit$router$scale else 1
        z <- (new - rep(fit$z_center, each = 20)) / rep(fit$z_scale, each = 20)
        theta <- ref_pack(list(u = u, b = gate[1, ], eta = experts[c(2, 3, 1), ]))
        ref_f(theta, ref_model_of(fit), new, z)
      }
      slope <- numDeriv::jacobian(f, coef(fit, "identifiable"))
      expect_equal(value$se.fit, sqrt(rowSums((slope %*% vcov(fit)) * slope)), tolerance = 1e-6, label = router)
    }
  }
})

test_that("standard errors do not depend on the gauge", {
  fit <- methods_fit()
  new <- methods_data()[1:20, ]
  shifted <- fit
  shifted$gate$u <- shifted$gate$u + 0.3
  shifted$gate$b <- shifted$gate$b - 2
  expect_equal(predict(shifted, new, se.fit = TRUE), predict(fit, new, se.fit = TRUE), tolerance = 1e-8)
})

test_that("intervals have predict.lm's shapes, and its numbers for a single linear expert", {
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50)))
  row.names(data) <- paste0("car", 1:50)
  fit <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  linear <- lm(dist ~ speed, data, weights = w)
  new <- data.frame(speed = c(3, NA, 30), row.names = c("slow", "none", "fast"))
  for (interval in c("none", "confidence", "prediction")) {
    expected <- suppressWarnings(predict(linear, new, se.fit = TRUE, interval = interval, level = 0.9))
    expect_equal(predict(fit, new, se.fit = TRUE, interval = interval, level = 0.9), expected, tolerance = 1e-6)
    expected <- suppressWarnings(predict(linear, se.fit = TRUE, interval = interval))
    expect_equal(predict(fit, se.fit = TRUE, interval = interval), expected, tolerance = 1e-6)
  }
  expected <- predict(linear, new, interval = "confidence")
  expect_equal(predict(fit, new, interval = "confidence"), expected, tolerance = 1e-6)
  expect_identical(rownames(predict(fit, new, interval = "confidence", na.action = na.omit)), c("slow", "fast"))
  expect_identical(dim(predict(fit, new[0, , drop = FALSE], interval = "confidence")), c(0L, 3L))
})

test_that("intervals know offsets, missing rows and blocks", {
  train <- methods_data()
  train$shift <- seq_len(150) / 10
  train$x2[3] <- NA
  fit <- fit_cosine_moe(I(y + shift) ~ x1 + x2 + offset(shift) | z1,
    data = train, na.action = na.exclude, router = methods_router(), control = methods_control()
  )
  value <- predict(fit, interval = "prediction")
  expect_identical(dim(value), c(150L, 3L))
  expect_identical(unname(which(is.na(value[, "lwr"]))), 3L)
  expect_equal(value[, "fit"], fitted(fit))
  expect_equal(unname(predict(fit, train, interval = "prediction")), unname(value))
  inside <- train$y + train$shift > value[, "lwr"] & train$y + train$shift < value[, "upr"]
  expect_gt(mean(inside, na.rm = TRUE), 0.9)
  info <- cosmoe:::information(fit, environment())
  data <- cosmoe:::prepare_newdata(fit, train[-3, ])
  errors <- function(...) cosmoe:::prediction_errors(fit, info, data, list(), "response", 1L, ...)
  expect_identical(errors(block = 7L), errors())
  expect_identical(predict(fit, train, se.fit = TRUE, threads = 2), predict(fit, train, se.fit = TRUE))
})
