shown <- function(x) capture.output(print(x))

test_that("a fit prints its main facts", {
  expect_snapshot(print(frozen_fit()))
})

test_that("a summary prints tables, evidence and starts", {
  expect_snapshot(print(summary(frozen_fit())))
})

test_that("a gate on the boundary has an infinite norm and a direction", {
  fit <- frozen_fit()
  fit$gate$beta[] <- c(Inf, -Inf)
  fit$diagnostics$boundary <- 1:2
  fit$convergence$certificate$active <- c("gate 1", "gate 2")
  table <- summary(fit)$gate
  expect_identical(unname(table["norm of beta", 1:2]), c(Inf, Inf))
  expect_identical(unname(table["z1", 1:2]), c(1, -1))
  expect_match(paste(shown(fit), collapse = " "), "Gates 1 and 2 are on the boundary")
  expect_match(paste(shown(summary(fit)), collapse = " "), "Active constraints: gate 1, gate 2", fixed = TRUE)
  fit$control$bound_gate <- 3
  expect_match(paste(shown(fit), collapse = " "), "`bound_gate`", fixed = TRUE)
})

test_that("the gate's table suits the router", {
  fit <- frozen_fit()
  fit$router <- router_cosine()
  expect_identical(rownames(summary(fit)$gate), c("bias b", "z1"))
  expect_identical(colnames(summary(fit)$gate), c("expert1", "expert2", "center", "scale"))
  fit$standardize <- FALSE
  expect_identical(colnames(summary(fit)$gate), c("expert1", "expert2"))
  fit$router <- router_linear()
  expect_identical(unname(summary(fit)$gate["z1", ]), c(0.1, -0.1))
})

test_that("everything unusual is said", {
  fit <- frozen_fit()
  fit$diagnostics <- list(boundary = integer(), expert_bound = 1L, empty = 2L, coincident = 1:2, nonunique = TRUE)
  fit$convergence$certificate$null_directions <- 3L
  expect_snapshot(writeLines(summary(fit)$notes))
  for (note in summary(fit)$notes) {
    words <- gsub("\\s+", " ", paste(shown(fit), collapse = " "))
    expect_match(words, note, fixed = TRUE)
  }
  expect_length(summary(frozen_fit())$notes, 0)
  fit <- frozen_fit()
  fit$gate_mean[] <- c(0.995, 0.005)
  expect_match(summary(fit)$notes, "Expert 2 has less than 1% of the weight", fixed = TRUE)
})

test_that("a fit that has not converged says why", {
  fit <- frozen_fit()
  words <- function(status) {
    fit$convergence$status <- status
    paste(shown(fit), collapse = " ")
  }
  limit <- "NOT CONVERGED: stopped after 12 passes over the data (newton), the limit."
  expect_match(words("max_passes"), limit, fixed = TRUE)
  expect_match(words("stalled"), "NOT CONVERGED: no further progress", fixed = TRUE)
  expect_match(words("interrupted"), "UNFINISHED: interrupted", fixed = TRUE)
})

test_that("starts are counted", {
  fit <- frozen_fit()
  reached <- "2 of 4 starts reached the best sum of squares"
  expect_identical(starts_words(fit$starts), paste0(reached, "; the second-best optimum is 10% higher."))
  fit$starts$status[3] <- "max_passes"
  expect_identical(starts_words(fit$starts), paste0(reached, "."))
  expect_identical(starts_words(fit$starts[1, ]), "1 of 1 start reached the best sum of squares.")
})

test_that("weights and missing rows are mentioned", {
  fit <- frozen_fit()
  fit$weights <- rep(2, 150)
  fit$na.action <- structure(3L, class = "omit")
  words <- gsub("[[:space:]]+", " ", paste(shown(summary(fit)), collapse = " "))
  expect_match(words, "Weighted residuals:")
  expect_match(words, "weighted sum of squares")
  expect_match(words, "1 row with missing values left out")
})

test_that("R-squared is that of lm for one expert", {
  fit <- fit_cosine_moe(mpg ~ wt, data = mtcars, weights = hp, k = 1)
  expect_equal(summary(fit)$r.squared, summary(lm(mpg ~ wt, mtcars, weights = hp))$r.squared, tolerance = 1e-6)
  expect_false(any(grepl("^Gate:", shown(summary(fit)))))
})

test_that("a summary of a larger fit stays on one page", {
  skip_if_not_installed("MASS")
  set.seed(1)
  quick <- moe_control(n_starts = 2, max_passes = 20)
  fit <- suppressWarnings(
    fit_cosine_moe(medv ~ . | lstat + rm + ptratio,
      data = MASS::Boston, k = 3, router = router_perturbed_cosine(scale = 10), control = quick
    )
  )
  lines <- shown(summary(fit))
  # What follows are remarks on what is unusual about this fit, as many as there are.
  body <- lines[cumsum(lines == "Please note:") == 0]
  expect_lte(length(body), 50)
  expect_lte(max(nchar(lines)), 80)
})

test_that("long tables are cut", {
  table <- matrix(1, 40, 2, dimnames = list(paste0("x", 1:40), c("expert1", "expert2")))
  lines <- capture.output(print_section("Experts", table, 4))
  expect_match(lines[length(lines)], "10 more rows")
})

test_that("printing returns its argument and takes digits only", {
  fit <- frozen_fit()
  expect_identical(withVisible(print(fit))$visible, FALSE) |> capture.output()
  expect_error(print(fit, figures = 3), class = "cosmoe_error_input")
  expect_error(summary(fit, 3), class = "cosmoe_error_input")
})

test_that("a summary has standard errors, tests and stars", {
  fit <- methods_fit()
  result <- summary(fit)
  table <- coef(result)
  expect_identical(dimnames(table), list(
    names(coef(fit, "identifiable")), c("Estimate", "Std. Error", "t value", "Pr(>|t|)")
  ))
  expect_equal(table[, 1], coef(fit, "identifiable"))
  expect_equal(table[, 2], standard_errors(fit))
  expect_equal(table[, 3], table[, 1] / table[, 2])
  expect_equal(table[, 4], 2 * stats::pt(-abs(table[, 3]), df.residual(fit)))
  expect_length(result$no.errors, 0)
  # With all numbers fixed, what is printed does not depend on the solver.
  frozen <- summary(frozen_fit())
  frozen$no.errors <- character()
  frozen$coefficients[, "Std. Error"] <- 10^seq(-3, 2, length.out = 14)
  frozen$coefficients[, "Pr(>|t|)"] <- rep(c(0.0005, 0.005, 0.04, 0.5, NA), length.out = 14)
  expect_snapshot(print(frozen))
})

test_that("a single expert has lm's tests, and no gate", {
  fit <- fit_cosine_moe(mpg ~ wt, data = mtcars, weights = hp, k = 1)
  expected <- coef(summary(lm(mpg ~ wt, mtcars, weights = hp)))
  expect_equal(unname(coef(summary(fit))), unname(expected), tolerance = 1e-6)
})

test_that("a summary without the data has no standard errors and says why", {
  fit <- methods_matrix_fit()
  result <- summary(fit)
  expect_match(result$no.errors, "found again")
  expect_true(all(is.na(coef(result)[, -1])))
  words <- gsub("\\s+", " ", paste(shown(result), collapse = " "))
  expect_match(words, "No standard errors: the data of the fit cannot be found again", fixed = TRUE)
})

test_that("digits that cannot be are errors", {
  for (digits in list("a", 0, 23, 1.5, NA, c(3, 4), NULL)) {
    expect_error(print(methods_fit(), digits = digits), "`digits` must be", class = "cosmoe_error_input")
    expect_error(print(summary(methods_fit()), digits = digits), "`digits` must be", class = "cosmoe_error_input")
    expect_error(print(router_linear(), digits = digits), "`digits` must be", class = "cosmoe_error_input")
  }
  expect_output(print(router_linear(), digits = 3), "linear")
})
