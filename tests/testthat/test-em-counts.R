# Likelihood fits to huge counts.

count_control <- function(...) moe_control(n_starts = 4, ...)

# Means and counts of `size`, some of them none or all of the trials.
huge_counts <- function(family, size, n = 50) {
  ref_with_seed(1, {
    x <- stats::rnorm(n)
    binomial <- family$family == "binomial"
    mean <- size * switch(family$link, identity = 2 + stats::plogis(x), sqrt = (2 + stats::plogis(x))^2, log = exp(x),
      family$linkinv(0.5 * x - 1)
    )
    spread <- sqrt(mean * if (binomial) 1 - mean / size else 1)
    y <- pmax(round(mean + spread * stats::rnorm(n)), 0)
    if (family$link %in% c("identity", "sqrt")) x <- stats::plogis(x)
    data.frame(x = x, y = if (binomial) pmin(y, size) else y, size = size)
  })
}

test_that("log-likelihoods of huge counts keep their digits", {
  families <- list(
    poisson(), poisson("identity"), poisson("sqrt"), binomial(), binomial("probit"), binomial("cloglog")
  )
  for (family in families) {
    # On both sides of where the core takes another formula, and far beyond.
    for (size in c(300, 5e4, 3e5, 1e9, 1e15)) {
      d <- huge_counts(family, size)
      label <- paste(label_of(family), size)
      binomial <- family$family == "binomial"
      set.seed(1)
      fit <- em_fit(if (binomial) cbind(y, size - y) ~ x else y ~ x, d,
        k = 1, family = family, control = count_control()
      )
      mean <- family$linkinv(drop(cbind(d$x, 1) %*% fit$experts))
      density <- if (binomial) dbinom(d$y, size, mean, log = TRUE) else dpois(d$y, mean, log = TRUE)
      expect_lt(abs(fit$loglik - sum(density)), 1e-9 + 1e-13 * sqrt(size), label = label)
      expect_true(fit$convergence$converged, label = label)
      truth <- suppressWarnings(glm(if (binomial) cbind(y, size - y) ~ x else y ~ x,
        family = family, data = d, start = rev(drop(fit$experts)), control = glm.control(epsilon = 1e-14)
      ))
      expect_lt(abs(fit$loglik - c(logLik(truth))), 1e-5, label = label)
      two <- suppressWarnings(em_fit(if (binomial) cbind(y, size - y) ~ x else y ~ x, d,
        k = 2, family = family, control = count_control()
      ))
      expect_gte(two$loglik, fit$loglik - 1e-5)
    }
  }
})

test_that("none and all of many trials have their likelihood", {
  d <- data.frame(x = rep(1:4, each = 5), y = rep(c(0, 1e9, 3e8, 1e9), each = 5), size = 1e9)
  d$y[10L] <- 1e9 - 1
  for (link in c("logit", "probit")) {
    fit <- suppressWarnings(em_fit(cbind(y, size - y) ~ x, d,
      k = 1, family = binomial(link), control = count_control()
    ))
    mean <- binomial(link)$linkinv(drop(cbind(d$x, 1) %*% fit$experts))
    expect_equal(fit$loglik, sum(dbinom(d$y, d$size, mean, log = TRUE)), tolerance = 1e-10)
  }
})

test_that("counts beyond all digits are an error", {
  d <- data.frame(x = 1:20, y = c(1:19, 1e21))
  expect_error(em_fit(y ~ x, d, k = 1, family = poisson()), "row 20", class = "cosmoe_error_data")
  expect_error(em_fit(cbind(y, 5) ~ x, d, k = 1, family = binomial()), "row 20", class = "cosmoe_error_data")
})
