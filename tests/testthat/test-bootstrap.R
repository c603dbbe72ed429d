small_fit <- function(weighted = FALSE) {
  data <- ref_with_seed(1, {
    x <- stats::runif(150, -1, 1)
    p <- stats::plogis(8 * x)
    data.frame(x = x, w = stats::runif(150, 0.5, 2) * (seq_len(150) > 10), shift = stats::rnorm(150),
               y = p * (1 + x) - (1 - p) * (1 - 0.5 * x) + 0.1 * stats::rnorm(150))
  })
  set.seed(1)
  quick <- moe_control(n_starts = 5)
  if (!weighted) return(fit_cosine_moe(y ~ x, data, router = "linear", control = quick))
  fit_cosine_moe(I(y + shift) ~ x, data, router = "linear", control = quick, weights = w, offset = shift)
}

drawn <- function(fit, R = 40, ..., seed = 1) { # nolint: object_name_linter.
  set.seed(seed)
  bootstrap_moe(fit, R, ...)
}

test_that("standard errors of all types are near the asymptotic ones", {
  made <- inference_fit("perturbed_cosine", "tanh", n = 800)
  covariates <- made$data$x
  response <- made$data$y
  made$fit$control$tolerance <- 1e-6
  errors <- standard_errors(made$fit)
  for (type in c("residual", "cases", "parametric")) {
    boot <- drawn(made$fit, 200, type)
    expect_identical(dim(boot$coefficients), c(200L, 12L))
    expect_identical(boot$estimate, coef(made$fit, "identifiable"))
    # 200 replicates give standard errors with a relative error of 5%.
    expect_true(all(abs(log(standard_errors(boot) / errors)) < 0.25), label = type)
    expect_true(all(boot$status$status == "converged"))
  }
  expect_identical(vcov(made$fit, "bootstrap", boot = boot), stats::cov(boot$coefficients))
  set.seed(1)
  expect_identical(vcov(made$fit, "bootstrap", R = 10), vcov(drawn(made$fit, 10)))
})

test_that("a single linear expert has the bootstrap of a regression", {
  data <- transform(cars, w = rep(c(0, 1, 2), length.out = 50))
  fit <- fit_cosine_moe(dist ~ speed, data, k = 1, weights = w)
  boot <- drawn(fit, 5, "cases")
  # The same draws by hand: the streams of future.apply are those of future.seed = TRUE.
  set.seed(1)
  expected <- future.apply::future_lapply(1:5, function(i) {
    w <- data$w
    rows <- which(w > 0)
    w[rows] <- w[rows] * tabulate(sample.int(length(rows), replace = TRUE), length(rows))
    unname(coef(lm(dist ~ speed, cbind(data, v = w), weights = v)))
  }, future.seed = TRUE)
  expect_equal(unname(boot$coefficients), do.call(rbind, expected), tolerance = 1e-6)
})

test_that("weights, offsets and fits from matrices take part", {
  fit <- small_fit(weighted = TRUE)
  errors <- standard_errors(fit)
  for (type in c("residual", "cases", "parametric")) {
    boot <- drawn(fit, 100, type)
    expect_true(all(abs(log(standard_errors(boot) / errors)) < 0.5), label = type)
  }
  covariates <- as.matrix(methods_data()[c("x1", "x2")])
  gating <- as.matrix(methods_data()["z1"])
  response <- methods_data()$y
  fit <- methods_matrix_fit()
  # The standardized gate keeps its centre and scale, so that its vectors mean the same.
  boot <- drawn(fit, 30, "cases")
  error <- apply(boot$coefficients, 2, stats::sd) / sqrt(30)
  expect_true(all(abs(colMeans(boot$coefficients) - boot$estimate) < 6 * error))
})

test_that("labels are aligned to the fit", {
  # Two experts with nearly the same weight: a refit orders them by accident.
  fit <- methods_fit()
  boot <- drawn(fit, 60, "cases")
  first <- boot$coefficients[, "expert1:(Intercept)"]
  expect_true(all(abs(first - boot$estimate[["expert1:(Intercept)"]]) < 0.5))
  expect_true(all(sign(boot$coefficients[, "gate1:z1"]) == sign(boot$estimate[["gate1:z1"]])))

  target <- ref_with_seed(1, matrix(stats::rnorm(40), 4))
  by <- ref_with_seed(2, sample(10))
  shuffled <- target[, by] + 0.01
  expect_identical(by[cosmoe:::assign_columns(shuffled, target)], 1:10)
})

test_that("the assignment is the best of all permutations", {
  permutations <- function(v) {
    if (length(v) < 2L) return(list(v))
    do.call(c, lapply(seq_along(v), function(i) lapply(permutations(v[-i]), function(rest) c(v[i], rest))))
  }
  for (k in 1:6) {
    all <- permutations(seq_len(k))
    for (seed in 1:10) {
      cost <- ref_with_seed(seed, matrix(round(stats::rexp(k^2), seed %% 3), k))
      total <- function(order) sum(cost[cbind(seq_len(k), order)])
      expect_equal(total(cosmoe:::assign_rows(cost)), min(vapply(all, total, 0)))
    }
  }
})

test_that("set.seed reproduces replicates on any number of workers", {
  skip_on_cran()
  fit <- small_fit()
  one <- drawn(fit, 12, "cases", n_starts = 2)
  expect_identical(drawn(fit, 12, "cases", n_starts = 2), one)
  expect_false(identical(drawn(fit, 12, "cases", n_starts = 2, seed = 2)$coefficients, one$coefficients))
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  expect_identical(drawn(fit, 12, "cases", n_starts = 2), one)
})

test_that("replicates can search anew", {
  fit <- small_fit()
  again <- drawn(fit, 6, "residual", n_starts = 3)
  alone <- drawn(fit, 6, "residual")
  expect_identical(nrow(again$status), 6L)
  expect_identical(again$n_starts, 3L)
  # Other random numbers are drawn after the data, so the first replicate has the same data.
  expect_lte(again$status$sse[1], alone$status$sse[1] * (1 + 1e-6))
})

test_that("a replicate that fails is a row of NA with its reason", {
  data <- methods_data()
  calls <- new.env()
  calls$fail <- FALSE
  expert <- expert_custom(
    value = function(x, eta) {
      if (calls$fail && stats::runif(1) < 0.05) stop("no value today")
      x[, 1] * eta[1] + eta[2]
    },
    gradient = function(x, eta) cbind(x[, 1], 1), n_par = 2
  )
  fit <- fit_cosine_moe(y ~ x1, data, k = 1, expert = expert)
  calls$fail <- TRUE
  boot <- NULL
  for (try in 1:50) {
    boot <- tryCatch(drawn(fit, 30, seed = try), cosmoe_error = function(e) NULL)
    if (!is.null(boot)) break
  }
  failed <- boot$status$status == "failed"
  expect_true(any(failed) && !all(failed))
  expect_true(all(is.na(boot$coefficients[failed, ])) && !anyNA(boot$coefficients[!failed, ]))
  expect_match(boot$status$message[failed], "no value today")
  expect_true(all(is.na(boot$status$sse[failed])))
  expect_false(anyNA(vcov(boot)))
  expect_match(capture.output(print(boot)), "Not converged: .* failed", all = FALSE)
  boot$coefficients[] <- NA
  expect_error(vcov(boot), "failed", class = "cosmoe_error_bootstrap")
})

# Whether each replicate of rows, drawn as by drawn(, type = "cases"), has a row of `f` at its last level.
has_level <- function(f, R, seed = 1) { # nolint: object_name_linter.
  set.seed(seed)
  unlist(future.apply::future_lapply(seq_len(R), function(i) {
    any(f[sample.int(length(f), replace = TRUE)] == "w")
  }, future.seed = TRUE))
}

test_that("cases that lack a level of a factor do not determine its coefficient", {
  data <- ref_with_seed(3, {
    f <- factor(c("w", "w", sample(c("u", "v"), 58, TRUE)))
    data.frame(f = f, x = stats::rnorm(60), y = 2 * (f == "w") + stats::rnorm(60, sd = 0.3))
  })
  fit <- fit_cosine_moe(y ~ x + f, data, k = 1)
  for (seed in 1:3) {
    boot <- drawn(fit, 40, "cases", seed = seed)
    known <- has_level(data$f, 40, seed)
    expect_true(any(known) && !all(known))
    expect_identical(boot$status$status == "failed", !known)
    expect_identical(unname(stats::complete.cases(boot$coefficients)), known)
    expect_match(boot$status$message[!known], "Constant expert covariate: `fw`", fixed = TRUE)
    # No two replicates agree to the last digits, as those would that stay where they began.
    expect_identical(anyDuplicated(round(boot$coefficients[known, "expert1:fw"], 6)), 0L)
  }
  # With a search, too, and for maximum likelihood.
  expect_identical(drawn(fit, 10, "cases", n_starts = 1)$status$status == "failed", !has_level(data$f, 10))
  em <- fit_cosine_moe(y ~ x + f, data, k = 1, method = "em")
  expect_identical(drawn(em, 10, "cases")$status$status == "failed", !has_level(data$f, 10))
  # New responses leave the covariates as they are.
  expect_false("failed" %in% drawn(fit, 10, "residual")$status$status)
})

test_that("the same holds for a level that only the gate has", {
  data <- ref_with_seed(4, {
    f <- factor(c("w", "w", sample(c("u", "v"), 78, TRUE)))
    x <- stats::runif(80, -1, 1)
    data.frame(f = f, x = x, y = ifelse(f == "u", 2 + x, -1 - x) + stats::rnorm(80, sd = 0.2))
  })
  known <- has_level(data$f, 15)
  expect_true(any(known) && !all(known))
  for (standardize in c(TRUE, FALSE)) {
    for (router in c("linear", "perturbed_cosine")) {
      fit <- suppressWarnings(fit_cosine_moe(y ~ x | f, data,
        router = router, standardize = standardize, control = moe_control(n_starts = 2)
      ))
      boot <- drawn(fit, 15, "cases")
      expect_identical(boot$status$status == "failed", !known, label = paste(router, standardize))
      expect_match(boot$status$message[!known], "Constant gate covariate: `fw`", fixed = TRUE)
    }
  }
  # Where the fit itself has a constant in the gate, nothing is refused.
  data$one <- 1
  fit <- suppressWarnings(fit_cosine_moe(y ~ x | x + one, data,
    standardize = FALSE, control = moe_control(n_starts = 2)
  ))
  expect_false("failed" %in% drawn(fit, 3, "cases")$status$status)
})

test_that("intervals are quantiles of the replicates", {
  boot <- drawn(small_fit(), 50)
  ends <- confint(boot, level = 0.8)
  expect_identical(dimnames(ends), list(names(boot$estimate), c("10 %", "90 %")))
  expect_equal(ends["gate1:x", ], quantile(boot$coefficients[, "gate1:x"], c(0.1, 0.9)), ignore_attr = TRUE)
  basic <- confint(boot, "gate1:x", level = 0.8, method = "basic")
  expect_equal(basic[1, ], 2 * boot$estimate[["gate1:x"]] - rev(ends["gate1:x", ]), ignore_attr = TRUE)
  for (call in expression(
    confint(boot, "x"), confint(boot, level = 1), confint(boot, method = "bca"), confint(boot, 1, 0.9, "basic", 3),
    vcov(boot, 1), print(boot, 3, 4)
  )) {
    expect_error(eval(call), class = "cosmoe_error_input")
  }
})

test_that("replicates print as a table", {
  boot <- drawn(small_fit(), 20)
  lines <- capture.output(out <- withVisible(print(boot)))
  expect_false(out$visible)
  expect_identical(out$value, boot)
  expect_match(lines[1], "20 replicates, residuals drawn with")
  expect_match(lines, "Estimate +Bias +Std. Error", all = FALSE)
})

test_that("bad arguments are errors", {
  fit <- small_fit()
  refused <- function(pattern, ...) expect_error(bootstrap_moe(...), pattern, class = "cosmoe_error_input")
  refused("fit", lm(dist ~ speed, cars))
  for (R in list(1, 0, -5, 2.5, NA, "a", Inf, c(5, 6))) refused("`R`", fit, R) # nolint: object_name_linter.
  refused("type", fit, 10, "wild")
  refused("n_starts", fit, 10, n_starts = -1)
  refused("seed", fit, 10, seed = 1)
  expect_error(vcov(fit, "bootstrap", boot = 1), "boot", class = "cosmoe_error_input")
  expect_error(vcov(fit, "bootstrap", boot = drawn(methods_fit(), 2)), "boot", class = "cosmoe_error_input")
  expect_error(bootstrap_moe(methods_matrix_fit(), 2), class = "cosmoe_error_data")
  saturated <- fit_cosine_moe(y ~ x, data.frame(x = c(1, 2), y = c(3, 5)), k = 1)
  refused("degrees of freedom", saturated, 10)
})

test_that("replicates of a stochastic gradient fit have the scales of the fit", {
  set.seed(4)
  x <- matrix(runif(400, 10, 30), 200)
  y <- ifelse(x[, 1] > 20, 1, -1) + 0.1 * x[, 2] + rnorm(200, sd = 0.1)
  fit <- suppressWarnings(fit_cosine_moe(x, y, control = moe_control(optimizer = "sgd", n_starts = 3, epochs = 20)))
  boot <- suppressWarnings(bootstrap_moe(fit, R = 3))
  expect_true(all(boot$status$sse < 3 * fit$sse))
})
