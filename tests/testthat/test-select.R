quick_select <- function(data, ..., k = 1:3, seed = 1) {
  selected(y ~ x, data, k = k, method = "em", router = "linear", control = few_starts(), ..., seed = seed)
}

test_that("the known number of experts is found over several seeds", {
  found <- outer(1:3, 1:3, Vectorize(function(k, seed) quick_select(lines_data(k, seed = seed), k = 1:4)$k))
  # BIC is not exact: one of nine may have an expert too many.
  expect_true(all(found >= 1:3))
  expect_gte(sum(found == 1:3), 8)
})

test_that("the table has the criteria of the fits", {
  data <- lines_data(2)
  chosen <- quick_select(data)
  for (k in 1:3) {
    fit <- chosen$fits[[as.character(k)]]
    row <- chosen$table[k, ]
    expect_identical(fit$k, k)
    expect_identical(row$logLik, fit$loglik)
    expect_equal(row$BIC, -2 * fit$loglik + log(300) * fit$df)
    expect_equal(row$AIC, -2 * fit$loglik + 2 * fit$df)
    expect_equal(row$ICL, ICL(fit))
    # Fits are those of fit_cosine_moe(): they predict, and find their data again.
    expect_equal(predict(fit, data), as.vector(fitted(fit)), ignore_attr = TRUE)
    expect_identical(eval(fit$call$k), k)
  }
  expect_identical(chosen$best, chosen$fits[[as.character(chosen$k)]])
  expect_identical(as.data.frame(chosen), chosen$table)
  icl <- quick_select(data, criterion = "ICL")
  expect_identical(icl$k, icl$table$k[which.min(icl$table$ICL)])
  aic <- quick_select(data, criterion = "AIC", keep_fits = FALSE)
  expect_identical(aic$k, aic$table$k[which.min(aic$table$AIC)])
  expect_null(aic$fits)
  expect_identical(icl$table[c("logLik", "BIC")], chosen$table[c("logLik", "BIC")])
  single <- quick_select(data, k = 1)
  expect_equal(single$table$logLik, as.numeric(logLik(lm(y ~ x, data))), tolerance = 1e-6)
})

test_that("a larger k never ends below a smaller one", {
  boston <- MASS::Boston[c("medv", "lstat", "rm")]
  cases <- list(
    list(formula = eruptions ~ waiting, data = faithful, method = "em", router = "linear", k = 1:5),
    list(formula = accel ~ times, data = MASS::mcycle, method = "em", router = "linear", k = 1:5),
    list(formula = medv ~ lstat, data = boston, method = "ls", router = "perturbed_cosine", k = 1:4),
    list(formula = medv ~ lstat + rm, data = boston, method = "ls", router = "cosine", k = c(1, 3, 4)),
    list(formula = accel ~ times, data = MASS::mcycle, method = "ls", router = "linear", k = 1:5)
  )
  for (case in cases) {
    table <- do.call(selected, c(case, list(control = quote(moe_control(n_starts = 1, n_long = 1)))))$table
    sound <- table[table$status != "degenerate", ]
    expect_gt(nrow(sound), 2)
    expect_true(all(diff(sound$logLik) >= -1e-7), label = deparse1(case$formula))
  }
})

test_that("a smaller k profits from the solution of a larger one", {
  data <- lines_data(2, seed = 5)
  set.seed(1)
  good <- em_fit(y ~ x, data, k = 2)
  rich <- em_fit(y ~ x, data, k = 3)
  bad <- suppressWarnings(em_fit(y ~ x, data, k = 2, control = moe_control(max_passes = 1, n_starts = 1, n_long = 1)))
  prepared <- cosmoe:::refit_data(good, environment())
  settings <- cosmoe:::refit_settings(good)
  bad$convergence$status <- "stuck"
  bad$loglik <- good$loglik - 50
  settled <- cosmoe:::settle_fits(list(bad, rich), prepared, settings, 2:3, good$call)
  expect_equal(settled[[1]]$loglik, good$loglik, tolerance = 1e-6)
  # And a larger one from a smaller one that is better.
  poor <- rich
  poor$loglik <- good$loglik - 1
  settled <- cosmoe:::settle_fits(list(good, poor), prepared, settings, 2:3, good$call)
  expect_gte(settled[[2]]$loglik, good$loglik - 1e-7)
})

test_that("cross-validation is that of plain loops over the folds", {
  data <- transform(lines_data(2, 120), w = rep(c(0.5, 1, 2), 40), o = rep(c(0, 1), 60))
  for (method in c("ls", "em")) {
    set.seed(2)
    chosen <- select_experts(y ~ x, data, k = 1, criterion = "cv", method = method, folds = 5, repeats = 2,
                             router = "linear", weights = w, offset = o)
    at <- chosen$cv$assignment
    expect_identical(dim(at), c(120L, 2L))
    loss <- c()
    for (i in 1:2) {
      for (fold in 1:5) {
        train <- data[at[, i] != fold, ]
        test <- data[at[, i] == fold, ]
        fit <- lm(y ~ x, train, weights = w, offset = o)
        error <- test$y - predict(fit, test)
        sigma <- sqrt(sum(train$w * residuals(fit)^2) / sum(train$w))
        each <- if (method == "ls") error^2 else -dnorm(error, 0, sigma, log = TRUE)
        loss <- rbind(loss, c(sum(test$w), sum(test$w * each) / sum(test$w)))
      }
    }
    expect_equal(unname(chosen$cv$loss[, 1]), loss[, 2], tolerance = 1e-6)
    expect_equal(chosen$table$cv, weighted.mean(loss[, 2], loss[, 1]), tolerance = 1e-6)
    expect_equal(chosen$table$cv_se, sd(loss[, 2]) / sqrt(5), tolerance = 1e-6)
  }
})

test_that("cross-validation finds a clear number of experts and prefers no poor one", {
  chosen <- quick_select(lines_data(2), criterion = "cv", folds = 4, fold_starts = 2)
  expect_gt(chosen$table$cv[1], min(chosen$table$cv[-1]) + 2 * chosen$table$cv_se[1])
  expect_identical(chosen$k, chosen$table$k[which.min(chosen$table$cv)])
})

test_that("groups are never split, whatever way they are given", {
  data <- lines_data(2, 100)
  data$y[3] <- NA
  data$x[50] <- NA
  ways <- list(
    quick_select(data, k = 1, criterion = "cv", folds = 4, group = "g"),
    quick_select(data, k = 1, criterion = "cv", folds = 4, group = data$g)
  )
  kept <- data[-c(3, 50), ]
  for (chosen in ways) {
    fold <- chosen$cv$assignment[, 1]
    expect_length(fold, 98)
    expect_true(all(tapply(fold, kept$g, function(v) length(unique(v))) == 1))
    expect_setequal(fold, 1:4)
    # Nearly equal sizes: each group goes to the smallest fold.
    expect_lte(diff(range(table(fold))), 4)
  }
  expect_identical(ways[[1]]$cv, ways[[2]]$cv)
  part <- select_experts(y ~ x, data, k = 1, criterion = "cv", folds = 3, group = "g", subset = g %in% letters[1:6])
  own <- kept[kept$g %in% letters[1:6], ]
  expect_true(all(tapply(part$cv$assignment, own$g, function(v) length(unique(v))) == 1))
  set.seed(1)
  matrix_way <- select_experts(as.matrix(kept["x"]), kept$y, k = 1, criterion = "cv", method = "em", folds = 4,
                               group = kept$g, router = "linear", control = few_starts())
  expect_equal(matrix_way$table$cv, ways[[1]]$table$cv)
})

test_that("a level that the other folds lack cannot be predicted, and is counted", {
  data <- lines_data(1, 60)
  data$f <- factor(c("rare", rep(c("a", "b"), length.out = 59)))
  chosen <- selected(y ~ x + f, data, k = 1, criterion = "cv", folds = 3, router = "linear")
  expect_identical(sum(chosen$cv$folds$unpredicted), 1L)
  at <- chosen$cv$assignment[, 1]
  expect_identical(chosen$cv$folds$unpredicted[at[1]], 1L)
  loss <- vapply(1:3, function(fold) {
    fit <- lm(y ~ x + f, data[at != fold, ])
    test <- data[at == fold & !(data$f == "rare" & at[1] == fold), ]
    mean((test$y - predict(fit, test))^2)
  }, 0)
  expect_equal(unname(chosen$cv$loss[, 1]), loss, tolerance = 1e-6)
  expect_output(print(chosen), "1 held-out row could not be predicted")
})

test_that("failures are rows with their reasons", {
  data <- lines_data(2, 30)
  chosen <- quick_select(data, k = c(1, 2, 8, 40))
  expect_identical(chosen$table$status[3:4], c("failed", "failed"))
  expect_match(chosen$table$reason[3], "more parameters")
  expect_match(chosen$table$reason[4], "more experts")
  expect_null(chosen$fits[["40"]])
  expect_named(chosen$fits, c("1", "2", "8", "40"))
  expect_true(chosen$k <= 2)
  expect_snapshot(quick_select(data, k = 40), error = TRUE)
  cv <- quick_select(data, k = c(1, 4), criterion = "cv", folds = 2, fold_starts = 1)
  expect_identical(cv$k, 1L)
  expect_match(cv$table$reason[2], "failed in 2 of 2 folds")
})

test_that("of exact fits the smallest is chosen", {
  data <- data.frame(x = 1:12, y = 2 * (1:12), w = rep(1:2, 6))
  expect_identical(selected(y ~ x, data, k = 1:2, router = "linear", control = few_starts())$k, 1L)
  weighted <- suppressWarnings(select_experts(y ~ x, data, k = 1:2, weights = w, control = few_starts()))
  expect_identical(weighted$k, 1L)
})

test_that("the same numbers come with any plan", {
  data <- lines_data(2, 150)
  run <- function() quick_select(data, criterion = "cv", folds = 3, fold_starts = 2, k = 1:2)
  sequential <- run()
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  parallel <- run()
  expect_identical(parallel[c("k", "table", "cv")], sequential[c("k", "table", "cv")])
})

test_that("bad arguments say so", {
  data <- lines_data(1, 40)
  expect_snapshot(error = TRUE, {
    select_experts(y ~ x, data, k = 0)
    select_experts(y ~ x, data, k = c(1, 1))
    select_experts(y ~ x, data, k = 1.5)
    select_experts(y ~ x, data, k = NA)
    select_experts(y ~ x, data, k = numeric())
    select_experts(y ~ x, data, criterion = "ICL")
    select_experts(y ~ x, data, criterion = "WAIC")
    select_experts(y ~ x, data, criterion = "cv", folds = 1)
    select_experts(y ~ x, data, criterion = "cv", folds = 41)
    select_experts(y ~ x, data, criterion = "cv", folds = 30, group = "g")
    select_experts(y ~ x, data, criterion = "cv", repeats = 0)
    select_experts(y ~ x, data, criterion = "cv", group = "nobody")
    select_experts(y ~ x, data, criterion = "cv", group = 1:3)
    select_experts(y ~ x, data, criterion = "cv", group = c(NA, 2:40))
    select_experts(y ~ x, data, start = list())
    select_experts(y ~ x, data, routr = "linear")
    select_experts(y ~ x, data, keep_fits = NA)
    select_experts(y ~ x, transform(data, x = Inf))
    select_experts(data$x)
  })
})

test_that("the table prints and the criteria are drawn", {
  chosen <- quick_select(lines_data(2, 100), criterion = "cv", folds = 2, fold_starts = 1, k = 1:2)
  expect_output(print(chosen), "chosen by cv: k = 2")
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  before <- graphics::par("mar")
  expect_invisible(plot(chosen))
  expect_identical(graphics::par("mar"), before)
})

test_that("an interrupt gives what has been fitted where that is asked for", {
  data <- lines_data(2, 100)
  set.seed(1)
  fit <- em_fit(y ~ x, data, k = 1)
  prepared <- cosmoe:::refit_data(fit, environment())
  settings <- cosmoe:::refit_settings(fit)
  sweep <- cosmoe:::sweep_fits
  environment(sweep) <- list2env(
    list(try_fit = function(data, settings, k, ...) if (k == 2) cosmoe:::stop_interrupt() else fit),
    parent = asNamespace("cosmoe")
  )
  settings$control$on_interrupt <- "return"
  got <- sweep(prepared, settings, 1:3, fit$call)
  expect_identical(vapply(got, is.null, NA), c(FALSE, TRUE, TRUE))
  table <- cosmoe:::sweep_table(got, list(k = 1:3, method = "em"), NULL)
  expect_identical(table$status, c("converged", "interrupted", "interrupted"))
  settings$control$on_interrupt <- "stop"
  expect_error(sweep(prepared, settings, 1:3, fit$call), class = "cosmoe_error_interrupt")
})

test_that("a group that cannot be evaluated is one clear error", {
  data <- lines_data(1, 40)
  quote_it <- "the name of a column in quotes"
  expect_error(select_experts(y ~ x, data, criterion = "cv", group = nobody), quote_it, class = "cosmoe_error_input")
  expect_error(
    select_experts(data["x"], data$y, criterion = "cv", group = nobody), quote_it, class = "cosmoe_error_input"
  )
})
