test_that("Wald intervals are estimate and multiples of standard errors", {
  fit <- methods_fit()
  ends <- confint(fit, level = 0.9)
  expect_identical(dimnames(ends), list(names(coef(fit, "identifiable")), c("5 %", "95 %")))
  width <- stats::qt(0.95, 138) * standard_errors(fit)
  expect_equal(ends[, 1], coef(fit, "identifiable") - width)
  expect_equal(ends[, 2], coef(fit, "identifiable") + width)
  robust <- confint(fit, "expert1:x1", type = "sandwich")
  expect_equal(diff(robust[1, ]) / 2, stats::qt(0.975, 138) * standard_errors(fit, "sandwich")[["expert1:x1"]],
    ignore_attr = TRUE
  )
  expect_identical(confint(fit, c(6, 1)), confint(fit)[c(6, 1), ])
  of_lm <- confint(lm(dist ~ speed, cars), 1, level = 0.999)
  expect_identical(colnames(confint(fit, 1, level = 0.999)), colnames(of_lm))
})

test_that("both methods give lm's intervals for a single linear expert", {
  data <- transform(cars, w = ref_with_seed(1, stats::runif(50)))
  fit <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  linear <- lm(dist ~ speed, data, weights = w)
  for (method in c("wald", "profile")) {
    expect_equal(unname(confint(fit, method = method)), unname(confint(linear)), tolerance = 1e-4, label = method)
  }
})

# The minimum of the sum of squares with the coordinate fixed, by nlminb on the reference with a stiff penalty.
reference_profile <- function(fit, x, y, j, value) {
  model <- ref_model_of(fit)
  d <- ncol(x)
  k <- fit$k
  place <- function(psi) {
    if (fit$router$name != "cosine") return(psi)
    gate <- matrix(psi[seq_len(k * (d + 1))], d + 1)
    u <- gate[seq_len(d), ]
    c(rbind(u * rep(fit$router$scale / sqrt(colSums(u^2)), each = d), gate[d + 1, ]), psi[-seq_len(k * (d + 1))])
  }
  coordinate <- function(psi) {
    theta <- place(psi)
    gate <- matrix(theta[seq_len(k * (d + 1))], d + 1)[c(d + 1, seq_len(d)), ]
    experts <- matrix(theta[-seq_len(k * (d + 1))], ncol = k)
    c(gate - rowMeans(gate), experts[c(d + 1, seq_len(d)), ])[j]
  }
  objective <- function(psi, penalty) {
    2 * ref_value(place(psi), model, x, y = y) / fit$sigma^2 + penalty * (coordinate(psi) - value)^2
  }
  psi <- theta_of(fit)
  for (penalty in c(1e3, 1e7)) {
    psi <- stats::nlminb(psi, objective, penalty = penalty, control = list(eval.max = 4000, iter.max = 2000))$par
  }
  2 * ref_value(place(psi), model, x, y = y)
}

test_that("at the ends of profile intervals the sum of squares has risen by the quantile", {
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    made <- inference_fit(router, "tanh", 1, 300)
    covariates <- made$data$x
    response <- made$data$y
    fit <- made$fit
    parm <- if (router == "linear") "expert2:x1" else "gate1:x2"
    ends <- confint(fit, parm, method = "profile")
    wald <- confint(fit, parm)
    # Near the Wald interval, but not on it.
    expect_equal(ends, wald, tolerance = 0.2, label = router)
    expect_gt(max(abs(ends - wald) / (wald[, 2] - wald[, 1])), 1e-3)
    for (end in ends) {
      least <- reference_profile(fit, covariates, response, match(parm, names(coef(fit, "identifiable"))), end)
      rise <- sqrt((least - fit$sse) / fit$sigma^2)
      expect_equal(rise, stats::qt(0.975, fit$df.residual), tolerance = 2e-3, label = router)
    }
  }
})

test_that("gates stay in their ball along a profile", {
  truth <- clear_truth("perturbed_cosine", "tanh")
  truth$beta <- cbind(c(3, 0), c(-3, 0.5))
  ends <- wald <- matrix(0, 0, 2)
  for (seed in c(2, 8, 11)) {
    data <- clear_data("perturbed_cosine", "tanh", seed, 200, truth = truth)
    covariates <- data$x
    response <- data$y
    fit <- fit_clear(data, start = truth[c("beta", "b", "experts")])
    fit$call <- quote(fit_cosine_moe(x = covariates, y = response))
    wald <- rbind(wald, confint(fit, "gate1:x1"))
    ends <- rbind(ends, confint(fit, "gate1:x1", method = "profile"))
  }
  # The coordinate of two gates in a ball of radius 1 cannot exceed 1.
  expect_identical(unname(wald[, 2] > 1), c(TRUE, FALSE, TRUE))
  expect_identical(ends[[1, 2]], Inf)
  expect_lt(ends[2, 2], 1)
  expect_lt(ends[3, 2], 1)
  expect_equal(ends[-1, ], wald[-1, ], tolerance = 0.02)
})

test_that("experts stay within their bound along a profile, and wide bounds change nothing", {
  data <- clear_data("linear", "tanh", 1, 400)
  covariates <- data$x
  response <- data$y
  bounded <- function(...) {
    fit <- fit_clear(data, start = data$truth[c("beta", "b", "experts")], control = moe_control(...))
    fit$call <- quote(fit_cosine_moe(x = covariates, y = response))
    fit
  }
  free <- bounded()
  parm <- sprintf("expert%d:x2", which.max(abs(free$experts["x2", ])))
  ends <- confint(free, parm, method = "profile")
  wide <- confint(bounded(bound_gate = 50, bound_expert = 50), parm, method = "profile")
  expect_equal(wide, ends, tolerance = 1e-4)
  norm <- max(sqrt(colSums(free$experts^2)))
  tight <- confint(bounded(bound_expert = 1.02 * norm), parm, method = "profile")
  expect_equal(tight[1], ends[1], tolerance = 1e-3)
  expect_lt(tight[2], min(ends[2], 1.02 * norm))
  expect_gt(tight[2], free$experts["x2", sub(":x2", "", parm)])
})

test_that("a profile that finds a smaller sum of squares stops", {
  made <- inference_fit("linear", "tanh", 1, 1500)
  covariates <- made$data$x
  response <- made$data$y
  off <- made$fit
  off$experts[1, 1] <- off$experts[1, 1] + 0.1
  off$fitted.values <- ref_f(theta_of(off), ref_model_of(off), covariates)
  off$sse <- sum((response - off$fitted.values)^2)
  expect_gt(off$sse, made$fit$sse + 0.1 * off$sigma^2)
  expect_error(confint(off, "expert2:x1", method = "profile"), "smaller", class = "cosmoe_error_profile")
})

test_that("bad arguments are errors", {
  fit <- methods_fit()
  expect_error(confint(fit, "x1"), "parm", class = "cosmoe_error_input")
  expect_error(confint(fit, 0), "parm", class = "cosmoe_error_input")
  expect_error(confint(fit, 99), "parm", class = "cosmoe_error_input")
  expect_error(confint(fit, TRUE), "parm", class = "cosmoe_error_input")
  expect_error(confint(fit, NA_character_), "parm", class = "cosmoe_error_input")
  for (level in list(0, 1, -1, 2, NA, "a", c(0.9, 0.95))) {
    expect_error(confint(fit, level = level), "level", class = "cosmoe_error_input")
  }
  expect_error(confint(fit, method = "bayes"), "method", class = "cosmoe_error_input")
  expect_error(confint(fit, type = "bootstrap"), "type", class = "cosmoe_error_input")
  expect_error(confint(fit, 1, robust = TRUE), "robust", class = "cosmoe_error_input")
})
