test_that("likelihood, AIC and BIC are lm's for a single linear expert", {
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50) * (stats::runif(50) > 0.2)))
  for (weighted in c(TRUE, FALSE)) {
    if (!weighted) data$w <- 1
    fit <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
    linear <- lm(dist ~ speed, data, weights = w)
    expect_equal(as.numeric(logLik(fit)), as.numeric(logLik(linear)), tolerance = 1e-10)
    expect_equal(attr(logLik(fit), "df"), 3)
    expect_equal(attr(logLik(fit), "nobs"), nobs(fit))
    expect_equal(AIC(fit), AIC(linear), tolerance = 1e-10)
    expect_equal(BIC(fit), BIC(linear), tolerance = 1e-10)
  }
})

test_that("the likelihood is that of Gaussian errors, and gauges do not count", {
  fit <- methods_fit()
  s <- sqrt(deviance(fit) / 150)
  expect_equal(as.numeric(logLik(fit)), sum(stats::dnorm(methods_data()$y, fitted(fit), s, log = TRUE)))
  # Two experts with five parameters, a contrast of biases and one of u, sigma.
  expect_equal(attr(logLik(fit), "df"), 10 + 2 + 1)
  expect_length(attr(logLik(fit), "boundary"), 0)
  expect_error(logLik(fit, REML = TRUE), "REML", class = "cosmoe_error_input")
})

test_that("SSE falls below that of the truth by df residual variances on average", {
  replicates <- 150
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    expert <- c(linear = "linear", cosine = "linear", perturbed_cosine = "tanh")[[router]]
    drop <- vapply(seq_len(replicates), function(seed) {
      data <- clear_data(router, expert, seed, 1000)
      fit <- fit_clear(data, start = data$truth[c("beta", "b", "experts")])
      stopifnot(fit$df == 9L)
      (sum((data$y - data$f)^2) - fit$sse) / data$sigma^2
    }, 0)
    expect_lt(abs(mean(drop) - 9), 3 * stats::sd(drop) / sqrt(replicates), label = router)
    # A chi-square with 9 degrees of freedom has variance 18.
    expect_gt(stats::var(drop), 10)
    expect_lt(stats::var(drop), 28)
  }
})

test_that("anova is lm's for single linear experts", {
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50)))
  small <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  large <- fit_cosine_moe(dist ~ speed + I(speed^2), data, k = 1, weights = w)
  expected <- anova(lm(dist ~ speed, data, weights = w), lm(dist ~ speed + I(speed^2), data, weights = w))
  table <- anova(large, small)
  expect_s3_class(table, "anova")
  expect_named(table, names(expected))
  for (column in names(table)) expect_equal(table[[column]], expected[[column]], tolerance = 1e-6, label = column)
})

test_that("anova of experts with and without a covariate keeps its level", {
  p <- vapply(1:60, function(seed) {
    data <- ref_with_seed(seed, {
      a <- stats::runif(300, -1, 1)
      p <- stats::plogis(8 * a)
      data.frame(a = a, b = stats::rnorm(300), y = p * (1 + a) - (1 - p) * (1 - 0.5 * a) + 0.1 * stats::rnorm(300))
    })
    start <- list(beta = matrix(c(4, -4), 1), b = c(0, 0), experts = cbind(c(1, 1), c(0.5, -1)))
    small <- fit_cosine_moe(y ~ a | a, data, router = "linear", start = start)
    start$experts <- rbind(start$experts[1, ], 0, start$experts[2, ])
    large <- fit_cosine_moe(y ~ a + b | a, data, router = "linear", start = start)
    anova(small, large)[["Pr(>F)"]][2]
  }, 0)
  expect_false(anyNA(p))
  expect_gt(stats::ks.test(p, "punif")$p.value, 0.01)
})

test_that("k against k + 1 experts has no p-value, with a warning", {
  one <- fit_cosine_moe(y ~ x1 + x2 + group, methods_data(), k = 1)
  two <- methods_fit()
  warned <- reasons_of(table <- anova(one, two))
  expect_length(warned, 1L)
  expect_match(warned, "cannot be identified")
  expect_true(is.na(table[["Pr(>F)"]][2]))
  expect_equal(table[["Sum of Sq"]][2], deviance(one) - deviance(two))
})

test_that("anova of an irregular fit has no p-value either", {
  data <- ref_with_seed(1, {
    x <- stats::runif(200, -1, 1)
    data.frame(x = x, v = stats::rnorm(200), y = 1 + x + 0.3 * stats::rnorm(200))
  })
  set.seed(1)
  quick <- moe_control(n_starts = 5)
  small <- suppressWarnings(fit_cosine_moe(y ~ x | x, data, router = "linear", control = quick))
  large <- suppressWarnings(fit_cosine_moe(y ~ x + v | x, data, router = "linear", start = list(
    beta = small$gate$beta, b = small$gate$b, experts = rbind(small$experts[1, ], 0, small$experts[2, ])
  )))
  warned <- reasons_of(table <- anova(small, large))
  expect_length(warned, 1L)
  expect_true(is.na(table[["Pr(>F)"]][2]))
})

test_that("fits that are not nested are errors", {
  fit <- methods_fit()
  train <- methods_data()
  refit <- function(formula, expert = "linear") {
    fit_cosine_moe(formula, train, router = methods_router(), expert = expert, control = moe_control(n_starts = 2))
  }
  less <- refit(y ~ x1 + x2 | z1)
  expect_silent(anova(fit, less))
  refused <- function(other, pattern) expect_error(anova(fit, other), pattern, class = "cosmoe_error_input")
  expect_error(anova(fit), "further fits", class = "cosmoe_error_input")
  expect_error(anova(fit, lm(y ~ x1, train)), class = "cosmoe_error_input")
  refused(fit, "same degrees of freedom")
  refused(refit(y + 1 ~ x1 + x2 | z1), "y")
  weighted <- less
  weighted$weights <- train$size
  refused(weighted, "weights")
  refused(refit(y ~ x1 + size | z1), "covariates")
  refused(refit(y ~ x1 + x2 | x1), "gates")
  refused(refit(y ~ x1 | z1, expert = "tanh"), "experts")
  worse <- less
  worse$sse <- fit$sse / 2
  refused(worse, "minimum")
  other <- less
  other$router <- router_cosine()
  refused(other, "routers")
})
