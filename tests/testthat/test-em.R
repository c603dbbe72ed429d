# Estimation by maximum likelihood.

families <- list(
  gaussian(), gaussian("log"), gaussian("inverse"), binomial(), binomial("probit"), binomial("cloglog"),
  poisson(), poisson("identity"), poisson("sqrt"), Gamma(), Gamma("log"), Gamma("identity")
)

test_that("one expert is glm(), with offset and weights that are no whole numbers", {
  for (family in families) {
    d <- one_expert_data(family)
    start <- c(family$linkfun(weighted.mean(d$y, d$w)), 0, 0)
    expected <- suppressWarnings(glm(y ~ x1 + x2, family, d,
      weights = w, offset = off, start = start, control = list(epsilon = 1e-12, maxit = 100)
    ))
    fit <- fit_cosine_moe(y ~ x1 + x2, d,
      k = 1, method = "em", family = family, weights = w, offset = off,
      control = moe_control(n_starts = 4, tolerance = 1e-12)
    )
    expect_true(fit$convergence$converged, label = label_of(family))
    expect_equal(unname(fit$experts[c(3, 1, 2), 1]), unname(coef(expected)), tolerance = 1e-4, label = label_of(family))
    expect_equal(unname(fitted(fit)), unname(fitted(expected)), tolerance = 1e-4, label = label_of(family))
    mean <- fitted(expected)
    best <- switch(family$family,
      gaussian = {
        sigma <- sqrt(sum(d$w * (d$y - mean)^2) / sum(d$w))
        expect_equal(unname(sigma(fit)), sigma, tolerance = 1e-5)
        sum(d$w * dnorm(d$y, mean, sigma, log = TRUE))
      },
      poisson = sum(d$w * dpois(d$y, mean, log = TRUE)),
      binomial = sum(d$w * dbinom(d$y, 1, mean, log = TRUE)),
      Gamma = optimize(function(s) sum(d$w * dgamma(d$y, s, s / mean, log = TRUE)), c(0.1, 100),
        maximum = TRUE, tol = 1e-9
      )$objective
    )
    expect_equal(as.numeric(logLik(fit)), best, tolerance = 1e-7, label = label_of(family))
    dispersions <- family$family %in% c("gaussian", "Gamma")
    expect_equal(attr(logLik(fit), "df"), 3 + dispersions)
  }
})

test_that("the log-likelihood is that of the reported parameters", {
  for (family in list(gaussian(), poisson(), binomial(), Gamma("log"))) {
    d <- em_data(family$family)
    set.seed(1)
    fit <- em_fit(y ~ x | z, d, family = family, weights = v)
    expect_equal(as.numeric(logLik(fit)), em_loglik(fit, family, d["x"], d["z"], d$y, d$v),
      tolerance = 1e-8, label = label_of(family)
    )
    expect_equal(BIC(fit), -2 * fit$loglik + log(nrow(d)) * fit$df)
    expect_equal(deviance(fit), -2 * fit$loglik)
    offset <- em_fit(y ~ x | z, d, family = family, offset = v / 4)
    expect_equal(as.numeric(logLik(offset)), em_loglik(offset, family, d["x"], d["z"], d$y, offset = d$v / 4),
      tolerance = 1e-8, label = label_of(family)
    )
  }
})

test_that("degrees of freedom count gate, experts and dispersions", {
  d <- em_data("gaussian")
  df <- function(...) em_fit(y ~ x | z, d, control = moe_control(n_starts = 4), ...)$df
  expect_equal(df(), 2 + 4 + 2)
  expect_equal(df(sigma = "equal"), 2 + 4 + 1)
  expect_equal(em_fit(y ~ x | 1, d, control = moe_control(n_starts = 4))$df, 1 + 4 + 2)
  expect_equal(em_fit(y ~ x | z, em_data("poisson"), family = poisson)$df, 2 + 4)
})

# Internal pieces of a fit: the trace of a run is not kept.
em_runs <- function(d, family, control, count = 6L) {
  data <- cosmoe:::data_from_matrix(as.matrix(d["x"]), d$y, as.matrix(d["z"]))
  likelihood <- cosmoe:::as_likelihood("em", family, c("free", "equal"))
  router <- router_linear()
  rows <- cosmoe:::working_rows(data, router, expert_linear(), TRUE, control, likelihood)
  model <- cosmoe:::likelihood_model(cosmoe:::core_model(router, expert_linear(), 2L, control), likelihood, rows)
  search <- list(model = model, rows = rows, control = control)
  starts <- cosmoe:::begin_starts(cosmoe:::start_sample(rows, model), model, count)
  lapply(starts, cosmoe:::run_start, search = search)
}

test_that("the log-likelihood never decreases in EM", {
  for (family in list(gaussian(), gaussian("log"), poisson(), binomial(), Gamma(), Gamma("log"))) {
    for (seed in 1:4) {
      d <- em_data(family$family, seed, n = 150)
      if (family$link == "log" && family$family == "gaussian") d$y <- exp(d$y / 2)
      set.seed(seed)
      for (hybrid in c(TRUE, FALSE)) {
        for (run in em_runs(d, family, moe_control(hybrid = hybrid, max_passes = 100))) {
          expect_true(all(diff(run$trace) <= 0), label = paste(label_of(family), seed, hybrid))
        }
      }
    }
  }
})

test_that("EM alone ends where the hybrid does", {
  for (name in c("gaussian", "poisson")) {
    d <- em_data(name)
    set.seed(2)
    hybrid <- em_fit(y ~ x | z, d, family = name)
    set.seed(2)
    pure <- suppressWarnings(em_fit(y ~ x | z, d, family = name, control = quick_em(hybrid = FALSE, max_passes = 5000)))
    expect_equal(pure$loglik, hybrid$loglik, tolerance = 1e-5, label = name)
    expect_equal(pure$experts, hybrid$experts, tolerance = 1e-2, label = name)
  }
})

test_that("other optimizers reach the same maximum", {
  d <- em_data("gaussian")
  set.seed(1)
  newton <- em_fit(y ~ x | z, d)
  for (optimizer in c("lbfgs", "slsqp")) {
    other <- suppressWarnings(em_fit(y ~ x | z, d, start = newton, control = quick_em(optimizer = optimizer)))
    expect_equal(other$loglik, newton$loglik, tolerance = 1e-6, label = optimizer)
  }
})

test_that("the truth is found", {
  truth <- cbind(c(0.8, 1), c(-0.8, -0.5))
  for (name in c("gaussian", "poisson")) {
    d <- em_data(name, seed = 11, n = 4000)
    set.seed(1)
    fit <- em_fit(y ~ x | z, d, family = name)
    by <- order(-fit$experts[2, ])
    expect_equal(unname(fit$experts[, by]), truth, tolerance = 0.1, label = name)
    expect_equal(unname(fit$gate$beta[, by[1]] - fit$gate$beta[, by[2]]), 2, tolerance = 0.15, label = name)
    if (name == "gaussian") expect_equal(unname(sigma(fit)[by]), c(0.3, 0.6), tolerance = 0.1)
  }
})

test_that("published maxima are reached", {
  # Two normal distributions for Old Faithful's waiting times (Benaglia et al., 2009, J. Stat. Software 32(6)).
  set.seed(1)
  fit <- em_fit(waiting ~ 1 | 1, faithful, expert = "constant")
  expect_equal(as.numeric(logLik(fit)), -1034.002, tolerance = 1e-6)
  expect_equal(unname(sort(fit$experts[1, ])), c(54.615, 80.091), tolerance = 1e-4)
  expect_equal(unname(sort(sigma(fit))), c(5.868, 5.871), tolerance = 1e-3)
  expect_equal(unname(fit$gate_mean), c(0.639, 0.361), tolerance = 2e-3)

  # co2.csv and no.csv are columns of the data sets `CO2data` and `NOdata` of the package mixtools (GPL), patent.csv and
  # npreg.csv of `patent` and `NPreg` of the package flexmix (GPL).
  read <- function(name) utils::read.csv(test_path("fixtures", name))
  # CO2 emissions and gross national product (Hurn, Justel and Robert, 2003), as fitted by Benaglia et al. (2009).
  set.seed(1)
  fit <- em_fit(CO2 ~ GNP | 1, read("co2.csv"), control = moe_control())
  expect_lt(abs(fit$loglik + 66.93977), 1e-4)
  expect_equal(fit$df, 7)
  expect_lt(abs(BIC(fit) - (2 * 66.93977 + 7 * log(28))), 1e-3)
  by <- order(-fit$gate_mean)
  expect_lt(max(abs(fit$gate_mean[by] - c(0.755, 0.245))), 1e-3)
  expect_lt(max(abs(fit$experts[2:1, by] - cbind(c(8.679, -0.0233), c(1.415, 0.6766)))), 1e-3)
  expect_lt(max(abs(sigma(fit)[by] - c(2.049, 0.809))), 1e-3)
  # Brinkman's engine data, with a gate.
  set.seed(1)
  fit <- em_fit(Equivalence ~ NO, read("no.csv"), control = moe_control())
  expect_lt(abs(fit$loglik - 123.6206), 1e-3)
  expect_equal(fit$df, 8)
  expect_lt(abs(BIC(fit) - (8 * log(88) - 2 * 123.6206)), 2e-3)
  # Wang, Cockburn and Puterman (1998), J. Bus. Econ. Stat. 16, as fitted by Gruen and Leisch (2008).
  set.seed(1)
  fit <- em_fit(Patents ~ lgRD | RDS, read("patent.csv"), k = 3, family = poisson, control = moe_control())
  expect_lt(abs(fit$loglik + 197.6753), 1e-3)
  expect_lt(abs(BIC(fit) - 437.8355), 2e-3)
  # There sigma has the divisor n_k - p, so that the maximum lies a little higher.
  set.seed(1)
  fit <- em_fit(yn ~ x + I(x^2) | 1, read("npreg.csv"))
  expect_gt(fit$loglik, -642.5453)
  expect_lt(fit$loglik, -642.5)
})

test_that("equal dispersions are equal", {
  d <- em_data("gaussian")
  set.seed(1)
  fit <- em_fit(y ~ x | z, d, sigma = "equal")
  expect_equal(sigma(fit)[[1]], sigma(fit)[[2]])
  set.seed(1)
  expect_gt(em_fit(y ~ x | z, d)$loglik, fit$loglik)
  d <- em_data("Gamma")
  fit <- em_fit(y ~ x | z, d, family = Gamma("log"), sigma = "equal")
  expect_equal(unname(fit$dispersion), rep(5, 2), tolerance = 0.2)
})

test_that("units and the order of rows do not matter", {
  d <- em_data("gaussian")
  set.seed(1)
  fit <- em_fit(y ~ x | z, d)
  e <- transform(d, y = 1000 * y, x = x / 100, z = 10 * z + 5)[sample(nrow(d)), ]
  set.seed(1)
  other <- em_fit(y ~ x | z, e)
  expect_equal(other$loglik, fit$loglik - nrow(d) * log(1000), tolerance = 1e-6)
  expect_equal(sigma(other), 1000 * sigma(fit), tolerance = 1e-3)
  expect_equal(other$experts["x", ], 1e5 * fit$experts["x", ], tolerance = 1e-3)
  expect_equal(unname(fitted(other)), unname(1000 * fitted(fit)[as.integer(rownames(e))]), tolerance = 1e-3)
  # Far from the origin the bound of sigma still goes by the spread.
  far <- em_fit(y ~ x | z, transform(d, y = y + 1e6))
  expect_equal(far$loglik, fit$loglik, tolerance = 1e-4)
  expect_true(far$convergence$converged)
})

test_that("weights count rows", {
  d <- em_data("poisson", n = 150)
  w <- rep(1:3, 50)
  set.seed(1)
  weighted <- em_fit(y ~ x | z, d, family = poisson, weights = w)
  set.seed(1)
  repeated <- em_fit(y ~ x | z, d[rep(1:150, w), ], family = poisson)
  expect_equal(weighted$loglik, repeated$loglik, tolerance = 1e-6)
  expect_equal(weighted$experts, repeated$experts, tolerance = 1e-3)
  none <- em_fit(y ~ x | z, d, family = poisson, weights = replace(w, 1:20, 0))
  expect_equal(nobs(none), 130)
})

test_that("binomial responses come as in glm()", {
  d <- em_data("binomial", n = 200)
  expected <- coef(glm(y ~ x, binomial, d))
  one <- function(formula, ...) {
    fit <- fit_cosine_moe(formula, d, k = 1, method = "em", family = binomial, control = moe_control(n_starts = 2), ...)
    expect_equal(unname(fit$experts[2:1, 1]), unname(expected), tolerance = 1e-5)
    fit
  }
  d$logical <- d$y == 1
  d$factor <- factor(ifelse(d$y == 1, "yes", "no"))
  one(y ~ x)
  one(logical ~ x)
  expect_equal(one(factor ~ x)$ylevels, c("no", "yes"))
  # Grouped: the same data in pairs of trials.
  set.seed(5)
  g <- data.frame(x = runif(200), n = sample(0:6, 200, TRUE))
  g$s <- rbinom(200, g$n, plogis(2 * g$x - 1))
  fit <- fit_cosine_moe(cbind(s, n - s) ~ x, g, k = 1, method = "em", family = binomial)
  expected <- glm(cbind(s, n - s) ~ x, binomial, g)
  expect_equal(unname(fit$experts[2:1, 1]), unname(coef(expected)), tolerance = 1e-5)
  expect_equal(as.numeric(logLik(fit)), as.numeric(logLik(expected)), tolerance = 1e-8)
  fit <- suppressWarnings(em_fit(cbind(s, n - s) ~ x, g, family = binomial))
  share <- ifelse(g$n > 0, g$s / pmax(g$n, 1), 0)
  expect_equal(fit$loglik, em_loglik(fit, binomial(), g["x"], g["x"], share, trials = g$n), tolerance = 1e-8)
})

test_that("matrices and formula give the same fit", {
  d <- em_data("gaussian")
  set.seed(1)
  by_formula <- em_fit(y ~ x | z, d)
  set.seed(1)
  by_matrix <- em_fit(as.matrix(d["x"]), d$y, z = as.matrix(d["z"]))
  expect_equal(by_matrix$loglik, by_formula$loglik)
  expect_equal(by_matrix$experts, by_formula$experts)
})

test_that("all routers and experts serve", {
  d <- em_data("gaussian", n = 200)
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    set.seed(1)
    fit <- suppressWarnings(em_fit(y ~ x | z + x, d, router = router, control = moe_control(n_starts = 8)))
    expect_true(is.finite(fit$loglik))
    p <- predict(fit, type = "gate")
    expect_equal(fit$loglik, sum(log(rowSums(p * em_density(fit, gaussian(), d["x"], d$y)))),
      tolerance = 1e-6, label = router
    )
  }
  for (expert in c("constant", "polynomial", "tanh", "softplus", "network")) {
    set.seed(1)
    fit <- suppressWarnings(em_fit(y ~ x | z, d, expert = expert, control = moe_control(n_starts = 8)))
    mean <- predict(fit, type = "experts")
    sure <- rowSums(predict(fit, type = "gate") * vapply(1:2, function(k) dnorm(d$y, mean[, k], sigma(fit)[k]), d$y))
    expect_equal(fit$loglik, sum(log(sure)), tolerance = 1e-6, label = expert)
  }
  sparse <- suppressWarnings(em_fit(y ~ x | z, d, k = 3, router = router_linear(top_k = 2)))
  expect_true(is.finite(sparse$loglik))
})

test_that("an interrupted or short fit is said not to have converged", {
  d <- em_data("gaussian", n = 100)
  expect_warning(
    em_fit(y ~ x | z, d, control = moe_control(n_starts = 2, max_passes = 1, short_passes = 1)),
    class = "cosmoe_warning_convergence"
  )
})

test_that("a spike does not win while there is another solution, and is reported when there is none", {
  # Five rows on a line: the likelihood is infinite when an expert has them alone.
  set.seed(8)
  d <- data.frame(x = runif(120))
  d$y <- ifelse(runif(120) < 0.5, 1 + d$x, -1 - d$x) + 0.3 * rnorm(120)
  d$y[1:5] <- 3 * d$x[1:5]
  expect_no_warning(fit <- em_fit(y ~ x | 1, d))
  expect_gt(min(sigma(fit)), 0.1)
  expect_length(fit$diagnostics$spike, 0)
  expect_output(print(fit), "Converged")

  exact <- data.frame(x = seq(0, 1, length.out = 40))
  exact$y <- ifelse(exact$x > 0.5, exact$x, 2 - exact$x)
  expect_warning(fit <- em_fit(y ~ x, exact), "sigma of experts? [12]", class = "cosmoe_warning_convergence")
  expect_equal(fit$k, 2)
  expect_equal(ncol(fit$experts), 2)
  expect_true(is.finite(fit$loglik))
  expect_gt(length(fit$diagnostics$spike), 0)
  expect_false(fit$convergence$converged)
  expect_output(print(summary(fit)), "lower bound")
})

test_that("a separated binomial response is reported", {
  d <- data.frame(x = seq(-1, 1, length.out = 60))
  d$y <- as.numeric(d$x > 0)
  for (k in 1:2) {
    fit <- suppressWarnings(em_fit(y ~ x, d, k = k, family = binomial))
    expect_gt(fit$loglik, -0.01)
    expect_output(print(fit), "separated")
  }
  printed <- capture.output(print(em_fit(y ~ x | z, em_data("binomial"), family = binomial)))
  expect_false(any(grepl("separated", printed)))
})

test_that("k asked for is k returned", {
  set.seed(1)
  d <- data.frame(x = runif(100))
  d$y <- d$x + 0.1 * rnorm(100)
  fit <- suppressWarnings(em_fit(y ~ x, d, k = 4))
  expect_equal(fit$k, 4)
  expect_equal(dim(fit$experts), c(2L, 4L))
  expect_length(sigma(fit), 4)
})

test_that("a start is used, dispersions included", {
  d <- em_data("gaussian")
  set.seed(1)
  fit <- em_fit(y ~ x | z, d)
  again <- em_fit(y ~ x | z, d, start = fit)
  expect_equal(again$loglik, fit$loglik, tolerance = 1e-8)
  expect_equal(nrow(again$starts), 1)
  squares <- fit_cosine_moe(y ~ x | z, d, router = "linear", control = quick_em())
  expect_equal(em_fit(y ~ x | z, d, start = squares)$loglik, fit$loglik, tolerance = 1e-4)
  given <- list(beta = fit$gate$beta, b = fit$gate$b, experts = fit$experts)
  expect_equal(em_fit(y ~ x | z, d, start = given)$loglik, fit$loglik, tolerance = 1e-6)
})

test_that("bad arguments and responses are refused", {
  d <- em_data("gaussian", n = 50)
  fit <- function(formula = y ~ x | z, data = d, ...) {
    fit_cosine_moe(formula, data, method = "em", router = "linear", ...)
  }
  bad <- function(...) expect_error(fit(...), class = "cosmoe_error_input")
  bad(family = "binom")
  bad(family = quasipoisson())
  bad(family = inverse.gaussian)
  bad(family = binomial("cauchit"))
  bad(family = 1)
  bad(family = NULL)
  bad(family = mean)
  bad(sigma = "both")
  bad(sigma = NA)
  bad(family = poisson, sigma = "equal")
  bad(family = binomial, sigma = "equal")
  bad(control = moe_control(optimizer = "sgd"))
  # The default may be written out where there are no dispersions.
  for (name in c("poisson", "binomial")) {
    expect_identical(cosmoe:::as_likelihood("em", name, "free")$dispersions, "none")
  }
  expect_error(moe_control(hybrid = NA), class = "cosmoe_error_input")
  expect_error(fit_cosine_moe(y ~ x, d, family = poisson()), "em", class = "cosmoe_error_input")
  expect_error(fit_cosine_moe(y ~ x, d, sigma = "equal"), "em", class = "cosmoe_error_input")
  expect_error(fit_cosine_moe(y ~ x, d, method = "ml"), class = "cosmoe_error_input")

  refused <- function(y, family, message) {
    d$y <- y
    expect_error(fit(data = d, family = family), message, class = "cosmoe_error_data")
  }
  refused(rep(c(-1, 1), 25), "poisson", "counts")
  refused(rep(c(0.5, 1), 25), "poisson", "counts")
  refused(rep(c(0, 1), 25), "Gamma", "positive")
  refused(rep(c(-2, 1), 25), Gamma("log"), "positive")
  refused(rep(c(0.5, 1), 25), "binomial", "0 or 1")
  refused(rep(c(2, 1), 25), "binomial", "0 or 1")
  refused(factor(rep_len(c("a", "b", "c"), 50)), "binomial", "two levels")
  refused(rep(c("a", "b"), 25), "binomial", "numeric")
  refused(rep(1, 50), "binomial", "constant")
  refused(cbind(rep(1.5, 50), 1), "binomial", "counts")
  refused(cbind(rep(-1, 50), 1), "binomial", "counts")
  refused(cbind(rep(1:2, 25), 1), "poisson", "numeric vector")
  refused(rep(c(Inf, 1), 25), "poisson", "infinite")
  expect_error(
    fit_cosine_moe(as.matrix(d["x"]), replace(d$y, 3, NA), method = "em"), "missing", class = "cosmoe_error_data"
  )
  expect_error(
    fit_cosine_moe(y ~ x | 1, d, method = "em"), "router = \"linear\"", class = "cosmoe_error_data"
  )
  expect_error(fit_cosine_moe(y ~ x | 1, d, router = "linear"), "covariate", class = "cosmoe_error_data")
})
