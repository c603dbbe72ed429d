# Intervals and users' stumbling blocks of maximum likelihood fits.

test_that("95% intervals hold the truth about 95% of the time", {
  skip_on_cran()
  for (name in c("gaussian", "poisson")) {
    truth <- list(beta = cbind(1, -1), b = c(0, 0), experts = cbind(c(0.8, 1), c(-0.8, -0.5)))
    target <- c("gate1:z" = 1, "expert1:x" = 0.8, "expert1:(Intercept)" = 1, "expert2:x" = -0.8,
                "expert2:(Intercept)" = -0.5)
    if (name == "gaussian") target <- c(target, "expert1:log(sigma)" = log(0.3), "expert2:log(sigma)" = log(0.6))
    held <- vapply(1:200, function(seed) {
      d <- em_data(name, seed, 600)
      fit <- em_fit(y ~ x | z, d, family = name, start = truth)
      # Labels go by the mean gate weight.
      if (fit$experts["x", 1] < 0) {
        target[1] <- -target[1]
        names(target) <- chartr("12", "21", names(target))
        names(target)[1] <- "gate1:z"
      }
      ends <- confint(fit)[names(target), ]
      ends[, 1] < target & target < ends[, 2]
    }, logical(length(target)))
    # Four standard errors of 200 draws below, three and a half of all above.
    expect_gt(min(rowMeans(held)), 0.95 - 4 * sqrt(0.95 * 0.05 / 200), label = name)
    expect_lt(abs(mean(held) - 0.95), 0.03, label = name)
  }
})

test_that("factors in the gate may come in any order of levels", {
  d <- em_data("gaussian")
  d$g <- factor(ifelse(d$z < -0.5, "low", ifelse(d$z < 0.5, "mid", "high")), levels = c("low", "mid", "high"))
  set.seed(1)
  fit <- em_fit(y ~ x | g, d)
  e <- transform(d, g = factor(as.character(g)))
  expect_equal(unname(predict(fit, e)), unname(fitted(fit)), tolerance = 1e-10)
  set.seed(1)
  expect_equal(em_fit(y ~ x | g, e)$loglik, fit$loglik, tolerance = 1e-6)
  expect_equal(unname(predict(fit, d[7, ], type = "gate")), unname(predict(fit, type = "gate"))[7, , drop = FALSE])
})

test_that("missing values are left out, and weights of zero do not count", {
  d <- em_data("poisson")
  holes <- d
  holes$x[1:7] <- NA
  holes$y[8:9] <- NA
  set.seed(1)
  fit <- em_fit(y ~ x | z, holes, family = poisson)
  set.seed(1)
  expect_equal(fit$loglik, em_fit(y ~ x | z, d[-(1:9), ], family = poisson)$loglik)
  expect_equal(nobs(fit), nrow(d) - 9)
  set.seed(1)
  zero <- em_fit(y ~ x | z, d, family = poisson, weights = rep(c(0, 1), c(9, nrow(d) - 9)))
  expect_equal(zero$loglik, fit$loglik, tolerance = 1e-6)
  expect_length(fitted(zero), nrow(d))
  expect_equal(BIC(zero), BIC(fit), tolerance = 1e-6)
})

test_that("labels agree across fits of the same data", {
  d <- em_data("gaussian")
  fits <- lapply(1:4, function(seed) {
    set.seed(seed)
    em_fit(y ~ x | z, d)
  })
  for (fit in fits[-1]) {
    expect_equal(fit$experts, fits[[1]]$experts, tolerance = 1e-2)
    expect_identical(clusters(fit), clusters(fits[[1]]))
  }
  expect_false(is.unsorted(-fits[[1]]$gate_mean))
})
