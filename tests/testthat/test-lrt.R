tested <- function(fit, R = 9, ..., seed = 1) { # nolint: object_name_linter.
  set.seed(seed)
  test_experts(fit, R, n_starts = 2, ...)
}

lines_fit <- function(k, true_k = k, n = 120, method = "em", ...) {
  data <- lines_data(true_k, n)
  set.seed(1)
  suppressWarnings(
    eval(bquote(fit_cosine_moe(y ~ x, .(data), k = .(k), method = .(method), router = "linear",
                               control = few_starts(), ...))),
    classes = "cosmoe_warning_convergence"
  )
}

test_that("the statistic is the likelihood ratio, and never negative", {
  for (method in c("em", "ls")) {
    fit <- lines_fit(1, method = method)
    test <- tested(fit)
    larger <- test$larger
    expect_identical(c(test$null$k, larger$k), 1:2)
    by_hand <- if (method == "em") 2 * (larger$loglik - fit$loglik) else 120 * log(fit$sse / larger$sse)
    expect_equal(unname(test$statistic), by_hand)
    expect_true(all(test$replicates$statistic >= 0))
    expect_equal(test$p.value, (1 + sum(test$replicates$statistic >= test$statistic)) / 10)
    expect_identical(unname(test$parameter), c(1L, 9L))
    expect_s3_class(test, "htest")
  }
})

test_that("one expert too few is rejected, enough are not", {
  for (method in c("em", "ls")) {
    expect_equal(tested(lines_fit(1, 2, method = method), 19)$p.value, 0.05)
  }
  expect_equal(tested(lines_fit(2, 3), 19)$p.value, 0.05)
  # Under the hypothesis p-values are spread over the unit interval.
  p <- vapply(1:6, function(seed) {
    data <- lines_data(1, 80, seed)
    fit <- fit_cosine_moe(y ~ x, data, k = 1, method = "em", router = "linear")
    tested(fit, 9, seed = seed)$p.value
  }, 0)
  expect_gt(mean(p), 0.25)
  expect_gt(length(unique(p)), 3)
})

test_that("replicates are drawn from the fit", {
  fit <- lines_fit(2)
  prepared <- cosmoe:::refit_data(fit, environment())
  set.seed(4)
  mine <- cosmoe:::response_generator(fit, prepared)()
  expect_identical(mine, simulate(fit, seed = 4)$sim_1)
  weighted <- suppressWarnings(fit_cosine_moe(dist ~ speed, cars, k = 1, weights = rep(0:1, 25), offset = speed))
  prepared <- cosmoe:::refit_data(weighted, environment())
  set.seed(4)
  mine <- cosmoe:::response_generator(weighted, prepared)()
  theirs <- simulate(weighted, seed = 4)$sim_1
  expect_identical(mine[!is.na(theirs)], theirs[!is.na(theirs)])
  expect_false(anyNA(mine))
  pairs <- fit_cosine_moe(cbind(ncases, ncontrols) ~ unclass(agegp), esoph, k = 1, method = "em", router = "linear",
                          family = binomial)
  prepared <- cosmoe:::refit_data(pairs, environment())
  set.seed(4)
  mine <- cosmoe:::response_generator(pairs, prepared)()
  expect_equal(mine * pairs$trials, simulate(pairs, seed = 4)$sim_1[, 1], ignore_attr = TRUE)
})

test_that("an early stop counts as Besag and Clifford", {
  fit <- lines_fit(1)
  full <- tested(fit, 30)
  exceeds <- full$replicates$statistic >= full$statistic
  wanted <- min(3, sum(exceeds))
  expect_gte(wanted, 1)
  early <- tested(fit, 30, stop_after = wanted)
  last <- which(cumsum(exceeds) == wanted)[1]
  expect_identical(early$stopped, "early")
  expect_identical(early$replicates, full$replicates[seq_len(last), ])
  expect_equal(early$p.value, wanted / last)
  expect_output(print(early), "ended early")
})

test_that("a better fit with k experts takes the place of a poor one", {
  good <- lines_fit(2)
  # A copy of one line for both experts, where the fit stays.
  start <- cosmoe:::grown_start(lines_fit(1, 2), 2)
  prepared <- cosmoe:::refit_data(good, environment())
  settings <- cosmoe:::refit_settings(good)
  settings$control$max_passes <- 1L
  stuck <- cosmoe:::try_fit(prepared, settings, 2, good$call, start)
  expect_lt(stuck$loglik, good$loglik - 5)
  stuck$control <- good$control
  test <- tested(stuck, 1)
  expect_equal(test$null$loglik, good$loglik, tolerance = 1e-4)
})

test_that("failures are counted, and none left is an error", {
  fit <- lines_fit(1)
  prepared <- cosmoe:::refit_data(fit, environment())
  settings <- cosmoe:::refit_settings(fit)
  settings$control$n_starts <- 1L
  task <- list(data = prepared, settings = settings, start = cosmoe:::start_of(fit), k = 1L, call = fit$call)
  turn <- 0
  task$draw <- function() {
    turn <<- turn + 1
    if (turn == 2) rep(1, 120) else fit$fitted.values + qnorm(ppoints(120))[order(sin(turn + 1:120))]
  }
  found <- cosmoe:::simulate_ratios(task, 3, 0, Inf, "stop")$replicates
  expect_identical(found$status, c("converged", "failed", "converged"))
  expect_match(found$message[2], "constant")
  expect_true(is.na(found$statistic[2]))
})

test_that("the same numbers come with any plan", {
  fit <- lines_fit(1)
  sequential <- tested(fit, 4)
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  expect_identical(tested(fit, 4)[c("statistic", "p.value", "replicates")],
                   sequential[c("statistic", "p.value", "replicates")])
})

test_that("bad arguments say so", {
  fit <- lines_fit(1)
  exact <- fit_cosine_moe(y ~ x, data.frame(x = 1:9, y = 2 * (1:9)), k = 1)
  expect_snapshot(error = TRUE, {
    test_experts("fit")
    test_experts(fit, R = 0)
    test_experts(fit, n_starts = 0)
    test_experts(fit, stop_after = 0.5)
    test_experts(fit, k = 3)
    test_experts(exact)
  })
  # k + 1 experts that the data cannot support.
  few <- fit_cosine_moe(y ~ x, data.frame(x = 1:5, y = c(1, 3, 2, 5, 4)), k = 1, router = "linear")
  expect_error(test_experts(few), class = "cosmoe_error_data")
  expect_output(print(tested(fit)), "Bootstrap likelihood-ratio test of 1 against 2 experts")
})
