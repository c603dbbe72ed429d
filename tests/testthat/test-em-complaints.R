# What users of other packages complain about, for fits by maximum likelihood. Others of these tests: reordered levels,
# missing values and labels in test-em-coverage.R, nested models in test-em-nested.R, k in test-em.R.

complaints_control <- function(...) moe_control(n_starts = 6, ...)

# Experts far apart, and a gate that hardly any row is in doubt about; `gap` leaves out rows in between.
steep_data <- function(name, gap = 0, n = 200, seed = 1) {
  ref_with_seed(seed, {
    x <- stats::runif(n, -1, 1)
    x <- ifelse(x < 0, x * (1 - gap) - gap, x * (1 - gap) + gap)
    eta <- ifelse(x > 0, 1 + 0.5 * x, -1 - 0.5 * x)
    y <- switch(name,
      gaussian = eta + 0.2 * stats::rnorm(n), poisson = stats::rpois(n, exp(1 + eta)),
      binomial = stats::rbinom(n, 5, stats::plogis(eta)), Gamma = stats::rgamma(n, 8, 8 / exp(eta))
    )
    data.frame(x = x, y = y, size = 5)
  })
}

complaint_formula <- function(name, env = parent.frame()) {
  formula <- if (name == "binomial") cbind(y, size - y) ~ x else y ~ x
  environment(formula) <- env
  formula
}

complaint_family <- function(name) if (name == "Gamma") Gamma("log") else get(name, mode = "function")()

test_that("new data get gate, experts, class and mean, in any router, one row or many", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    d <- steep_data(name)
    for (router in c("linear", "perturbed_cosine")) {
      set.seed(1)
      fit <- suppressWarnings(fit_cosine_moe(complaint_formula(name), d,
        method = "em", family = complaint_family(name), router = router, control = complaints_control()
      ))
      new <- data.frame(x = c(-2, -0.3, 0.4, 3), row.names = c("a", "b", "c", "d"))
      gate <- predict(fit, new, type = "gate")
      experts <- predict(fit, new, type = "experts")
      expect_equal(rowSums(gate), c(a = 1, b = 1, c = 1, d = 1))
      expect_equal(predict(fit, new), rowSums(gate * experts), tolerance = 1e-10)
      class <- predict(fit, new, type = "class")
      expect_identical(unname(class), factor(colnames(gate)[max.col(gate)], levels = colnames(gate)))
      expect_true(class[["a"]] != class[["d"]])
      for (type in c("gate", "experts")) {
        one <- predict(fit, new["c", , drop = FALSE], type = type)
        expect_equal(one, predict(fit, new, type = type)["c", , drop = FALSE])
      }
    }
  }
})

test_that("the best of known optima is found from every seed", {
  best <- vapply(1:5, function(seed) {
    set.seed(seed)
    em_fit(medv ~ lstat, MASS::Boston, k = 3, control = moe_control(n_starts = 16))$loglik
  }, 0)
  expect_lt(max(best) - min(best), 0.01)
})

test_that("a scale of x far from 0 changes nothing, however steep the gate", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    d <- steep_data(name)
    fit_at <- function(d) {
      set.seed(2)
      suppressWarnings(fit_cosine_moe(complaint_formula(name), d,
        method = "em", family = complaint_family(name), router = "linear", control = complaints_control()
      ))
    }
    fit <- fit_at(d)
    far <- fit_at(transform(d, x = 1900 + 10 * x))
    expect_equal(far$loglik, fit$loglik, tolerance = 1e-6, label = name)
    expect_equal(unname(far$experts["x", ]), unname(fit$experts["x", ] / 10), tolerance = 1e-3, label = name)
    new <- data.frame(x = c(-0.5, 0.1, 0.9))
    expect_equal(predict(far, 1900 + 10 * new), predict(fit, new), tolerance = 1e-4, label = name)
  }
})

test_that("a separable gate is reported, and has no tiny standard errors", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    # With a gap between the experts' rows the gate's slope has no end.
    d <- steep_data(name, gap = 0.3)
    if (name != "gaussian") d$y <- ifelse(d$x > 0, switch(name, binomial = pmax(d$y, 4), d$y + 30), d$y)
    set.seed(1)
    fit <- suppressWarnings(fit_cosine_moe(complaint_formula(name), d,
      method = "em", family = complaint_family(name), router = "linear", control = complaints_control()
    ))
    expect_gt(max(abs(fit$gate$beta)), 5, label = name)
    reasons <- reasons_of(errors <- vcov(fit))
    expect_length(reasons, 1L)
    expect_match(reasons, "separable|converged|flat", label = name)
    expect_true(all(is.na(errors)))
    expect_true(all(is.na(suppressWarnings(confint(fit)))))
    expect_output(print(summary(fit)), "standard errors")
  }
})

test_that("weights multiply the rows' likelihoods, whole numbers or not", {
  for (name in c("gaussian", "poisson", "Gamma")) {
    d <- em_data(name, n = 120)
    d$w <- ref_with_seed(3, stats::runif(120, 0.2, 3))
    start <- NULL
    fit_to <- function(d) {
      set.seed(1)
      suppressWarnings(fit_cosine_moe(y ~ x | z, d,
        method = "em", family = complaint_family(name), router = "linear", weights = w, start = start,
        model = TRUE, control = moe_control(n_starts = 4, tolerance = 1e-10)
      ))
    }
    start <- fit <- fit_to(d)
    half <- fit_to(transform(d, w = w / 2)[rep(seq_len(120), 2), ])
    expect_equal(half$loglik, fit$loglik, tolerance = 1e-8, label = name)
    expect_equal(half$experts, fit$experts, tolerance = 1e-4, label = name)
    twice <- fit_to(transform(d, w = 2 * w))
    expect_equal(twice$loglik, 2 * fit$loglik, tolerance = 1e-8, label = name)
    expect_equal(vcov(twice), vcov(fit) / 2, tolerance = 1e-4, label = name)
    two <- fit_to(transform(d, w = 2))
    copies <- fit_to(transform(d, w = 1)[rep(seq_len(120), 2), ])
    expect_equal(copies$loglik, two$loglik, tolerance = 1e-8, label = name)
  }
})

test_that("no expert is dropped, also where the data have fewer", {
  for (name in c("gaussian", "poisson", "Gamma")) {
    d <- ref_with_seed(1, data.frame(x = stats::runif(80)))
    d$y <- ref_with_seed(2, switch(name,
      gaussian = d$x + stats::rnorm(80), poisson = stats::rpois(80, exp(d$x)), Gamma = stats::rgamma(80, 3, exp(d$x))
    ))
    set.seed(1)
    fit <- suppressWarnings(fit_cosine_moe(y ~ x, d,
      k = 3, method = "em", family = complaint_family(name), router = "linear", control = complaints_control()
    ))
    expect_identical(dim(fit$experts), c(2L, 3L))
    expect_identical(dim(posterior(fit)), c(80L, 3L))
    expect_identical(nlevels(clusters(fit)), 3L)
    expect_length(fit$gate_mean, 3)
    expect_true(is.finite(fit$loglik))
  }
})

test_that("every method answers for every family, router and number of experts", {
  cases <- expand.grid(
    name = c("gaussian", "poisson", "binomial", "Gamma"), k = 1:3, router = c("linear", "cosine", "perturbed_cosine"),
    stringsAsFactors = FALSE
  )
  # A third of them, each family with each router and each k.
  cases <- cases[(seq_len(nrow(cases)) + cases$k + match(cases$router, unique(cases$router))) %% 3 == 0, ]
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  for (i in seq_len(nrow(cases))) {
    case <- cases[i, ]
    d <- steep_data(case$name, n = 60)
    d$z <- ref_with_seed(9, stats::rnorm(60))
    formula <- stats::update(complaint_formula(case$name), . ~ x)
    formula[[3]] <- quote(x | x + z)
    sigma <- if (case$name %in% c("gaussian", "Gamma")) list(sigma = c("free", "equal")[1 + i %% 2])
    set.seed(1)
    fit <- suppressWarnings(do.call(fit_cosine_moe, c(list(formula, quote(d),
      k = case$k, router = case$router, method = "em", family = complaint_family(case$name),
      control = moe_control(n_starts = 2)
    ), sigma)))
    label <- paste(case, collapse = " ")
    sound <- function(value, what) expect_false(any(is.nan(value)), label = paste(label, what))
    withCallingHandlers({
      for (type in c("response", "experts", "gate", "logit", "link", "density", "quantile")) {
        sound(predict(fit, type = type), type)
        expect_identical(NROW(predict(fit, d[1:3, ], type = type)), 3L, label = label)
      }
      for (type in c("response", "experts", "gate", "link")) {
        sound(predict(fit, d[1:3, ], type = type, se.fit = TRUE)$se.fit, paste(type, "error"))
      }
      for (interval in c("confidence", "prediction")) sound(predict(fit, d[1:3, ], interval = interval), interval)
      for (type in c("response", "pearson", "quantile")) sound(residuals(fit, type), type)
      for (type in c("model", "sandwich")) sound(vcov(fit, type), type)
      for (what in c("all", "gate", "experts", "identifiable")) sound(coef(fit, what), what)
      sound(confint(fit), "confint")
      sound(posterior(fit), "posterior")
      sound(unlist(simulate(fit, 2, seed = 1)), "simulate")
      sound(c(logLik(fit), AIC(fit), BIC(fit), ICL(fit), nobs(fit), df.residual(fit), deviance(fit)), "numbers")
      sound(cosmoe:::estfun.cosine_moe(fit), "estfun")
      expect_identical(levels(clusters(fit)), paste0("expert", seq_len(case$k)))
      expect_output(print(summary(fit)), "Mixture-of-experts")
      plot(fit)
      expect_true(equivalent(fit, canonicalize(as_mixing_measure(fit))), label = label)
      expect_identical(update(fit, k = 1)$k, 1L)
    }, cosmoe_warning = function(w) invokeRestart("muffleWarning"))
  }
})

test_that("the shipped study covers between 93 and 97 percent", {
  study <- utils::read.csv(system.file("extdata", "coverage-em.csv", package = "cosmoe"))
  expect_identical(nrow(unique(study[c("family", "router", "n")])), 6L)
  expect_true(all(study$replicates == 1000))
  expect_true(all(study$flagged < 0.01))
  expect_true(all(abs(study$mean_drop - study$df) < 3 * study$se_drop))
  expect_gt(min(study$coverage), 0.93)
  expect_lt(max(study$coverage), 0.97)
})

test_that("a level with a single row counts as a parameter", {
  set.seed(5)
  d <- data.frame(x = runif(60, -2, 2), g = factor(c("rare", rep(c("a", "b"), length.out = 59))))
  d$y <- 1 + d$x + rnorm(60)
  fit <- fit_cosine_moe(y ~ x + g, d, k = 1, method = "em")
  reference <- glm(y ~ x + g, data = d)
  expect_equal(AIC(fit), AIC(reference), tolerance = 1e-8)
  own <- sqrt(diag(vcov(fit)))[1:4]
  # Least squares divides by n - p, maximum likelihood by n.
  expect_equal(sort(unname(own)), sort(unname(sqrt(diag(vcov(reference)) * 56 / 60))), tolerance = 1e-5)
})

test_that("tiny weights give the same solution", {
  d <- em_data("gaussian", n = 120)
  fit <- function(unit) {
    set.seed(1)
    em_fit(y ~ x | z, d, weights = rep(unit, 120), router = "linear")
  }
  one <- fit(1)
  for (unit in c(1e-6, 1e-12)) {
    tiny <- fit(unit)
    expect_equal(tiny$loglik / unit, one$loglik, tolerance = 1e-7)
    expect_equal(sqrt(diag(vcov(tiny)) * unit), sqrt(diag(vcov(one))), tolerance = 1e-4)
  }
})

test_that("the response is no covariate", {
  d <- data.frame(x = 1:20, y = rnorm(20))
  expect_error(fit_cosine_moe(y ~ x | y, d), class = "cosmoe_error_data", regexp = "response is among the covariates")
  expect_error(fit_cosine_moe(y ~ y, d, method = "em"), class = "cosmoe_error_data")
})

test_that("experts do not coincide because another one runs off", {
  x <- seq(-1, 1, length.out = 201)
  data <- list(y = x, w = NULL)
  gaussian <- list(family = list(name = "gaussian", link = "identity"))
  # Experts one and two differ by 0.1, where the response spreads by 0.6; the third has hardly any weight.
  par <- list(u = matrix(0, 1, 3), b = c(0, 0, -10), eta = rbind(c(1, 1, 1e7), c(0, 0.1, 0)))
  swept <- function(par) {
    mixture <- cosmoe:::mixture_of(data, gaussian, c(0, 0, 0), 3L)
    model <- cosmoe:::core_model(router_linear(), expert_linear(), 3L)
    cosmoe:::sweep_rows(model, list(x = cbind(x), z = NULL), par, NULL, 1L, mixture)
  }
  expect_equal(swept(par)$difference[1, 2], 0.01 / mean((x - mean(x))^2), tolerance = 1e-6)
  gate <- exp(par$b) / sum(exp(par$b))
  values <- cbind(x, 1) %*% par$eta
  expect_equal(swept(par)$f, drop(values %*% gate))
  expect_equal(swept(par)$gate_mean, gate)
  par$eta[1, 3] <- 2
  values <- cbind(x, 1) %*% par$eta
  found <- swept(par)
  share <- t(gate * t(dnorm(x, values, 1)))
  share <- share / rowSums(share)
  expect_equal(found$entropy, -sum(share * log(share)))
  for (i in 1:2) for (j in (i + 1):3) {
    expect_equal(found$both[i, j], length(x) * gate[i] * gate[j])
    expect_equal(found$difference[i, j], mean((values[, i] - values[, j])^2) / mean((x - mean(x))^2))
  }
})

test_that("one expert with the square root link finds the maximum that glm() finds, for every seed", {
  set.seed(1)
  n <- 2000
  data <- data.frame(x = stats::runif(n, -1, 1))
  first <- stats::runif(n) < stats::plogis(6 * data$x)
  data$y <- stats::rpois(n, exp(ifelse(first, 1 + data$x, -1 - data$x)))
  expected <- as.numeric(logLik(stats::glm(y ~ x, stats::poisson("sqrt"), data)))
  for (seed in 1:20) {
    set.seed(seed)
    fit <- fit_cosine_moe(y ~ x, data, k = 1, method = "em", family = stats::poisson("sqrt"))
    expect_equal(as.numeric(logLik(fit)), expected, tolerance = 1e-8)
  }
})
