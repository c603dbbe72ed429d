test_that("coef gives gate, experts or both", {
  fit <- methods_fit()
  gate <- coef(fit, "gate")
  experts <- coef(fit, "experts")
  expect_identical(dimnames(gate), list(c("(Intercept)", "z1"), c("expert1", "expert2")))
  expect_identical(rownames(experts), c("(Intercept)", "x1", "x2", "groupmid", "grouphigh"))
  expect_identical(gate["z1", ], fit$gate$beta["z1", ])
  expect_identical(experts["x1", ], fit$experts["x1", ])
  all <- coef(fit, "all")
  expect_identical(unname(all), c(gate, experts))
  expect_identical(all[["gate2:z1"]], gate["z1", "expert2"])
  expect_identical(all[["expert1:grouphigh"]], experts["grouphigh", "expert1"])
  expect_error(coef(fit, "gates"), "what", class = "cosmoe_error_input")
  expect_error(coef(fit, "gate", 1), class = "cosmoe_error_input")
})

test_that("the sum of squares, its degrees of freedom and sigma agree", {
  fit <- methods_fit()
  expect_identical(nobs(fit), 150L)
  expect_equal(deviance(fit), sum(residuals(fit)^2))
  expect_identical(df.residual(fit), 150L - fit$df)
  expect_equal(sigma(fit), sqrt(deviance(fit) / df.residual(fit)))
  expect_equal(fitted(fit) + residuals(fit), methods_data()$y)
  expect_null(weights(fit))
})

test_that("weights enter residuals, deviance and nobs", {
  train <- methods_data()
  train$w <- rep(c(0, 0.5, 2), 50)
  fit <- fit_cosine_moe(y ~ x1 + x2 | z1,
    data = train, weights = w, router = methods_router(), control = methods_control()
  )
  expect_identical(weights(fit), train$w)
  expect_equal(residuals(fit, "pearson"), residuals(fit) * sqrt(train$w))
  expect_equal(deviance(fit), sum(train$w * residuals(fit)^2))
  expect_equal(nobs(fit), 100)
})

test_that("the formula has its dots written out", {
  train <- methods_data()[c("y", "x1", "x2", "z1")]
  fit <- fit_cosine_moe(y ~ . | z1, data = train, router = methods_router(), control = methods_control())
  expect_equal(formula(fit), y ~ x1 + x2 + z1 | z1, ignore_attr = TRUE)
  fit <- fit_cosine_moe(log(y + 9) ~ ., data = train, router = methods_router(), control = methods_control())
  expect_equal(formula(fit), log(y + 9) ~ x1 + x2 + z1, ignore_attr = TRUE)
  expect_equal(formula(methods_fit()), y ~ x1 + x2 + group | z1, ignore_attr = TRUE)
})

test_that("terms, model frame and model matrix belong to the parts", {
  fit <- methods_fit()
  train <- methods_data()
  expect_setequal(attr(terms(fit), "term.labels"), c("x1", "x2", "group", "z1"))
  expect_identical(attr(terms(fit, "expert"), "term.labels"), c("x1", "x2", "group"))
  expect_identical(attr(terms(fit, "gate"), "term.labels"), "z1")
  frame <- model.frame(fit)
  expect_setequal(names(frame), c("y", "x1", "x2", "group", "z1"))
  expect_identical(frame$x1, train$x1)
  expect_equal(model.matrix(fit), model.matrix(~ x1 + x2 + group, train)[, -1], ignore_attr = c("assign", "contrasts"))
  expect_equal(model.matrix(fit, "gate"), as.matrix(train["z1"]), ignore_attr = TRUE)
  expect_error(model.matrix(fit, "router"), class = "cosmoe_error_input")
})

test_that("the model frame follows subset, weights and na.action, and overrides", {
  train <- methods_data()
  train$x1[2] <- NA
  train$w <- 1 + (seq_len(150) %% 2)
  fit <- fit_cosine_moe(y ~ x1 | z1,
    data = train, subset = z1 > -0.5, weights = w, na.action = na.omit, router = methods_router(),
    control = methods_control()
  )
  frame <- model.frame(fit)
  kept <- which(train$z1 > -0.5 & !is.na(train$x1))
  expect_identical(rownames(frame), as.character(kept))
  expect_identical(model.weights(frame), train$w[kept])
  expect_identical(nrow(predict(fit, type = "gate")), length(kept))
  expect_identical(nrow(model.frame(fit, data = train[1:20, ], subset = NULL)), 19L)
  kept_frame <- update(fit, model = TRUE)
  expect_equal(model.frame(kept_frame), frame)
})

test_that("a fit from matrices has no formula", {
  fit <- methods_matrix_fit()
  for (ask in list(formula, terms, model.frame)) expect_error(ask(fit), "matrices", class = "cosmoe_error_input")
  expect_error(update(fit, . ~ x1), "matrices", class = "cosmoe_error_input")
  covariates <- as.matrix(methods_data()[c("x1", "x2")])
  gating <- as.matrix(methods_data()["z1"])
  expect_equal(model.matrix(fit, "gate"), gating, ignore_attr = "dimnames")
  expect_identical(colnames(model.matrix(fit)), c("x1", "x2"))
})

test_that("update changes formulas with two parts", {
  fit <- methods_fit()
  changed <- function(...) update(fit, ..., evaluate = FALSE)
  part_formula <- function(call) formula(call$formula)
  expect_equal(part_formula(changed(. ~ . - x1 | . + x2)), y ~ x2 + group | z1 + x2, ignore_attr = TRUE)
  expect_equal(part_formula(changed(log(.) ~ . - group)), log(y) ~ x1 + x2 | z1, ignore_attr = TRUE)
  expect_equal(part_formula(changed(. ~ . | x1)), y ~ x1 + x2 + group | x1, ignore_attr = TRUE)
  expect_identical(changed(k = 3)$k, 3)
  expect_null(update(fit, control = NULL, evaluate = FALSE)$control)
  expect_error(changed(. ~ ., 3), "without a name", class = "cosmoe_error_input")

  shared <- fit
  shared$formula <- Formula::as.Formula(y ~ x1 + x2)
  two_parts <- update(shared, . ~ . | . + z1, evaluate = FALSE)
  expect_equal(part_formula(two_parts), y ~ x1 + x2 | x1 + x2 + z1, ignore_attr = TRUE)
  expect_equal(part_formula(update(shared, . ~ . - x2, evaluate = FALSE)), y ~ x1, ignore_attr = TRUE)
})

test_that("update fits in the frame of its caller", {
  refit <- function() {
    here <- methods_data()[1:100, ]
    starts <- 4
    update(methods_fit(), . ~ . - group, data = here, control = moe_control(n_starts = starts))
  }
  fit <- refit()
  expect_equal(nobs(fit), 100)
  expect_identical(rownames(coef(fit, "experts")), c("(Intercept)", "x1", "x2"))
})

test_that("simulate draws around the fitted values, reproducibly", {
  fit <- methods_fit()
  draws <- simulate(fit, nsim = 200, seed = 3)
  expect_identical(dim(draws), c(150L, 200L))
  expect_named(draws[1:2], c("sim_1", "sim_2"))
  expect_identical(as.vector(attr(draws, "seed")), 3)
  errors <- as.matrix(draws) - fitted(fit)
  expect_equal(sd(errors), sigma(fit), tolerance = 0.02)
  expect_identical(simulate(fit, nsim = 200, seed = 3), draws)

  set.seed(5)
  before <- .Random.seed
  simulate(fit, seed = 1)
  expect_identical(.Random.seed, before)
  free <- simulate(fit)
  expect_identical(attr(free, "seed"), before)
  set.seed(5)
  expect_identical(simulate(fit), free)
  expect_error(simulate(fit, nsim = 0), "nsim", class = "cosmoe_error_input")
})

test_that("simulated errors follow the weights", {
  fit <- methods_fit()
  fit$weights <- rep(c(0, 1, 4), 50)
  draws <- as.matrix(simulate(fit, nsim = 400, seed = 3)) - fitted(fit)
  expect_true(all(is.na(draws[fit$weights == 0, ])))
  expect_equal(sd(draws[fit$weights == 1, ]) / sd(draws[fit$weights == 4, ]), 2, tolerance = 0.05)
})
