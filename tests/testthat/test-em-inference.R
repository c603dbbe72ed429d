# Scores, likelihood ratio tests, bootstrap, profiles and standard errors of predictions after maximum likelihood.

em_routers <- list(
  linear = router_linear(), cosine = router_cosine(scale = 5), perturbed_cosine = router_perturbed_cosine(scale = 10)
)

family_of <- function(name) switch(name, Gamma = Gamma("log"), get(name, mode = "function")())

# Two gate covariates, weights, offset, and for the binomial family trials. Gates are inside their spheres and balls.
em_inference <- function(name, router = "linear") {
  cached(paste("em inference", name, router), {
    d <- em_data(name, n = 250)
    d$z2 <- ref_with_seed(5, stats::rnorm(nrow(d)))
    d$o <- d$v / 5
    if (name == "binomial") {
      d$trials <- 3 + seq_len(nrow(d)) %% 4
      first <- ref_with_seed(7, stats::runif(nrow(d))) < stats::plogis(2 * d$z)
      d$y <- ref_with_seed(6, stats::rbinom(nrow(d), d$trials, stats::plogis(ifelse(first, 1.5 + d$x, -1.5 - d$x))))
    }
    formula <- if (name == "binomial") cbind(y, trials - y) ~ x | z + z2 else y ~ x | z + z2
    set.seed(1)
    fit <- fit_cosine_moe(formula, d,
      method = "em", family = family_of(name), router = em_routers[[router]], weights = v, offset = o,
      control = moe_control(n_starts = 4, tolerance = 1e-10)
    )
    list(data = d, fit = fit)
  })
}

# Weighted log-likelihoods of the rows of a linear router as a function of coef(fit, "identifiable"), in plain R.
plain_rows <- function(at, family) {
  fit <- at$fit
  d <- at$data
  share <- if (family$family == "binomial") d$y / d$trials else d$y
  k <- fit$k
  function(t) {
    gate <- matrix(t[seq_len(3 * k)], 3)
    fit$gate$b <- gate[1, ]
    fit$gate$beta[] <- gate[-1, ]
    fit$experts[] <- matrix(t[3 * k + seq_len(2 * k)], 2)[2:1, ]
    if (length(t) > 5 * k) fit$dispersion <- exp(t[-seq_len(5 * k)])
    density <- em_density(fit, family, d["x"], share, d$o, if (family$family == "binomial") d$trials else 1)
    d$v * log(rowSums(em_gate(fit, d[c("z", "z2")]) * density))
  }
}

test_that("estfun() has the rows' scores, which vanish in sum, and serves the sandwich", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    for (router in names(em_routers)) {
      at <- em_inference(name, router)
      score <- cosmoe:::estfun.cosine_moe(at$fit)
      expect_equal(dim(score), c(250L, length(coef(at$fit, "identifiable"))))
      expect_identical(colnames(score), names(coef(at$fit, "identifiable")))
      label <- paste(name, router)
      expect_lt(max(abs(colSums(score))), 1e-3 * max(abs(score)), label = label)
      bread <- cosmoe:::bread.cosine_moe(at$fit)
      expect_equal(bread, 250 * vcov(at$fit), tolerance = 1e-8, label = label)
      meat <- crossprod(score)
      expect_equal(bread %*% meat %*% bread / 250^2, vcov(at$fit, "sandwich"), tolerance = 1e-8, label = label)
    }
    at <- em_inference(name)
    expected <- numDeriv::jacobian(plain_rows(at, family_of(name)), coef(at$fit, "identifiable"))
    expect_equal(unname(cosmoe:::estfun.cosine_moe(at$fit)), expected, tolerance = 1e-6, label = name)
  }
  skip_if_not_installed("sandwich")
  expect_equal(sandwich::sandwich(at$fit), vcov(at$fit, "sandwich"), tolerance = 1e-8)
  expect_equal(dim(sandwich::vcovCL(at$fit, rep(1:25, 10))), dim(vcov(at$fit)))
})

test_that("coef() has the estimates of vcov(): the delta method from coordinates without a gauge", {
  for (name in c("gaussian", "poisson")) {
    at <- em_inference(name)
    rows <- plain_rows(at, family_of(name))
    # The second gate is zero; the rest is free.
    free <- coef(at$fit)[-(4:6)]
    free[1:3] <- coef(at$fit)[1:3] - coef(at$fit)[4:6]
    # From there to contrasts with the mean of both gates.
    rest <- length(free) - 3
    map <- rbind(
      cbind(rbind(diag(3), -diag(3)) / 2, matrix(0, 6, rest)),
      cbind(matrix(0, rest, 3), diag(rest))
    )
    expect_equal(drop(map %*% free), unname(coef(at$fit)), label = name)
    information <- -numDeriv::hessian(function(t) sum(rows(drop(map %*% t))), free)
    expect_equal(unname(vcov(at$fit)), map %*% solve(information, t(map)), tolerance = 1e-5, label = name)
  }
})

test_that("one expert has the likelihood ratio test of glm()", {
  d <- em_data("poisson")
  fit <- function(formula) {
    fit_cosine_moe(formula, d, k = 1, method = "em", family = poisson, weights = v, control = quick_em())
  }
  table <- anova(fit(y ~ x + z), fit(y ~ x))
  expected <- anova(glm(y ~ x, poisson, d, weights = v), glm(y ~ x + z, poisson, d, weights = v), test = "Chisq")
  expect_s3_class(table, "anova")
  expect_named(table, c("Npar", "logLik", "Df", "Chisq", "Pr(>Chisq)"))
  expect_equal(table$Npar, 2:3)
  expect_equal(table$Chisq[2], expected$Deviance[2], tolerance = 1e-6)
  expect_equal(table[["Pr(>Chisq)"]][2], expected[["Pr(>Chi)"]][2], tolerance = 1e-5)
  expect_output(print(table), "Likelihood Ratio Tests")
})

test_that("nested mixtures are compared, others refused", {
  d <- em_data("gaussian")
  set.seed(1)
  fit <- function(formula = y ~ x | z, ...) em_fit(formula, d, control = moe_control(n_starts = 4), ...)
  free <- fit()
  equal <- fit(sigma = "equal")
  constant <- fit(y ~ x | 1, sigma = "equal")
  table <- anova(free, constant, equal)
  expect_equal(table$Npar, c(6, 7, 8))
  expect_equal(table$Chisq[-1], 2 * diff(c(constant$loglik, equal$loglik, free$loglik)))
  expect_equal(table[["Pr(>Chisq)"]][-1], pchisq(table$Chisq[-1], 1, lower.tail = FALSE))
  # Dispersions differ by a factor of two, and so do the weights of the experts.
  expect_true(all(table[["Pr(>Chisq)"]][-1] < 1e-6))
  one <- fit(k = 1)
  warned <- reasons_of(against <- anova(one, free))
  expect_match(warned, "chi-square .*cannot be identified")
  expect_true(is.na(against[["Pr(>Chisq)"]][2]))
  expect_equal(against$Chisq[2], 2 * (free$loglik - one$loglik))

  refused <- function(other, pattern) expect_error(anova(free, other), pattern, class = "cosmoe_error_input")
  refused(free, "same degrees")
  refused(fit_cosine_moe(y ~ x | z, d, router = "linear", control = moe_control(n_starts = 2)), "methods")
  refused(fit(y ~ 1 | 1, family = gaussian("inverse")), "families")
  refused(fit(y + 1 ~ x | 1), "`y`")
  quick <- moe_control(n_starts = 4)
  refused(em_fit(y ~ x | 1, d, weights = v, control = quick), "weights")
  refused(em_fit(y ~ x | 1, d, offset = v, control = quick), "offset")
  refused(fit(y ~ z | 1), "covariates")
  more <- fit(y ~ x | z + v, sigma = "equal")
  more$df <- 9L
  refused(more, "dispersions")
  worse <- constant
  worse$loglik <- free$loglik + 1
  refused(worse, "maximum")
  poisson <- em_inference("binomial")$fit
  other <- poisson
  other$df <- other$df + 1
  other$trials <- other$trials + 1
  expect_error(anova(poisson, other), "trials", class = "cosmoe_error_input")
})

test_that("likelihood ratio tests keep their level", {
  p <- vapply(1:60, function(seed) {
    d <- em_data("poisson", seed, 300)
    truth <- list(beta = cbind(1, -1), b = c(0, 0), experts = cbind(c(0.8, 1), c(-0.8, -0.5)))
    small <- em_fit(y ~ x | z, d, family = poisson, start = truth)
    truth$experts <- rbind(truth$experts[1, ], 0, truth$experts[2, ])
    large <- em_fit(y ~ x + v | z, d, family = poisson, start = truth)
    suppressWarnings(anova(small, large))[["Pr(>Chisq)"]][2]
  }, 0)
  expect_lt(mean(is.na(p)), 0.1)
  expect_gt(stats::ks.test(p, "punif")$p.value, 0.01)
})

test_that("bootstraps of mixtures have about the asymptotic standard errors, with labels in order", {
  for (name in c("gaussian", "poisson")) {
    d <- em_data(name, n = 2000)
    set.seed(1)
    fit <- em_fit(y ~ x | z, d, family = name, weights = v, control = moe_control(n_starts = 4))
    for (type in c("parametric", "cases")) {
      set.seed(1)
      boot <- bootstrap_moe(fit, 60, type)
      expect_identical(colnames(boot$coefficients), names(coef(fit, "identifiable")))
      expect_named(boot$status, c("loglik", "status", "message"))
      # Weights are not numbers of equal rows, so that both have the spread of the sandwich. 60 replicates give standard
      # errors with a relative error of 9%.
      off <- log(standard_errors(boot) / standard_errors(fit, type = "sandwich"))
      expect_lt(max(abs(off)), 0.4, label = paste(name, type))
      expect_lt(abs(mean(off)), 0.15, label = paste(name, type))
      expect_true(all(sign(boot$coefficients[, "gate1:z"]) == sign(boot$estimate[["gate1:z"]])))
    }
    expect_lt(max(abs(boot$status$loglik / fit$loglik - 1)), 0.2)
  }
  for (name in c("binomial", "Gamma")) {
    at <- em_inference(name)
    d <- at$data
    set.seed(1)
    boot <- bootstrap_moe(at$fit, 5, "cases")
    expect_false(anyNA(boot$coefficients))
  }
  expect_output(print(boot), "rows drawn with replacement")
  # The default of a mixture draws from it.
  set.seed(1)
  boot <- bootstrap_moe(at$fit, 3)
  expect_identical(boot$type, "parametric")
  expect_output(print(boot), "drawn from the fit")
  set.seed(1)
  expect_identical(vcov(at$fit, "bootstrap", R = 3), vcov(boot))
  expect_equal(dim(confint(boot)), c(length(boot$estimate), 2L))
  expect_error(bootstrap_moe(at$fit, 3, "residual"), "maximum likelihood", class = "cosmoe_error_input")
})

test_that("replicates of shared dispersions and of one expert", {
  d <- em_data("gaussian")
  set.seed(1)
  boot <- bootstrap_moe(em_fit(y ~ x | z, d, sigma = "equal"), 10, n_starts = 2)
  expect_equal(utils::tail(colnames(boot$coefficients), 1), "log(sigma)")
  expect_false(anyNA(boot$coefficients))
  fit <- fit_cosine_moe(y ~ x, d, k = 1, method = "em", control = quick_em())
  set.seed(1)
  boot <- bootstrap_moe(fit, 200)
  expect_true(all(abs(log(standard_errors(boot) / standard_errors(fit))) < 0.2))
})

test_that("profile intervals of one expert are those of glm()", {
  for (family in list(poisson(), binomial(), poisson("identity"), binomial("cloglog"))) {
    d <- one_expert_data(family, 150)
    start <- c(family$linkfun(mean(d$y)), 0)
    fit <- fit_cosine_moe(y ~ x1, d,
      k = 1, method = "em", family = family, weights = w, control = moe_control(n_starts = 4, tolerance = 1e-10)
    )
    other <- suppressWarnings(glm(y ~ x1, family, d, weights = w, start = start))
    # The root is sought to 1e-4 of the quantile.
    error <- standard_errors(fit)
    off <- confint(fit, method = "profile") - suppressMessages(suppressWarnings(confint(other)))
    expect_lt(max(abs(off / error)), 2e-3, label = label_of(family))
  }
})

test_that("profile intervals of mixtures end where the profile likelihood has dropped by half a quantile", {
  for (name in c("gaussian", "poisson")) {
    d <- em_data(name, n = 200)
    set.seed(1)
    fit <- em_fit(y ~ x | z, d, family = name, control = moe_control(n_starts = 4, tolerance = 1e-10))
    family <- family_of(name)
    # Gate difference, experts, log dispersions: the coordinate at `which` is fixed at a value.
    value <- function(t) {
      part <- fit
      part$gate$b <- c(t[1], 0)
      part$gate$beta[] <- c(t[2], 0)
      part$experts[] <- t[3:6]
      if (length(t) > 6) part$dispersion <- exp(t[7:8])
      -em_loglik(part, family, d["x"], d["z"], d$y)
    }
    spread <- if (length(fit$dispersion)) log(fit$dispersion)
    at <- unname(c(-diff(fit$gate$b), -diff(fit$gate$beta[1, ]), fit$experts, spread))
    drop <- function(which, end) {
      free <- stats::optim(at[-which], function(t) value(append(t, end, which - 1)), method = "BFGS",
        control = list(reltol = 1e-12, maxit = 500)
      )
      free$value + fit$loglik
    }
    names <- c("gate1:z", "expert1:x", if (name == "gaussian") "expert2:log(sigma)")
    ends <- confint(fit, names, level = 0.9, method = "profile")
    for (j in seq_along(names)) {
      # A contrast to the mean of two is half the difference.
      size <- if (j == 1) 2 else 1
      found <- vapply(ends[j, ], function(end) drop(c(2, 3, 8)[j], size * end), 0)
      expect_equal(unname(2 * found), rep(qchisq(0.9, 1), 2), tolerance = 2e-3, label = paste(name, names[j]))
    }
  }
})

test_that("a profile that finds a larger likelihood says so", {
  at <- em_inference("poisson")
  fit <- at$fit
  d <- at$data
  info <- cosmoe:::information(fit, environment())
  info$par$eta <- info$par$eta * 1.2
  expect_error(cosmoe:::profile_ends(fit, info, 3, 2), "larger likelihood", class = "cosmoe_error_profile")
})

test_that("standard errors of predictions are glm's for one expert", {
  for (family in list(poisson(), binomial(), Gamma(), gaussian("log"))) {
    d <- one_expert_data(family, 150)
    start <- c(family$linkfun(mean(d$y)), 0)
    fit <- fit_cosine_moe(y ~ x1, d,
      k = 1, method = "em", family = family, offset = off, control = moe_control(n_starts = 4, tolerance = 1e-10)
    )
    other <- glm(y ~ x1, family, d, offset = off, start = start, control = list(epsilon = 1e-12))
    new <- data.frame(x1 = c(0, 0.4, 1.1), off = c(0, 0.1, 0.2))
    dispersion <- switch(family$family, gaussian = sigma(fit)^2, Gamma = 1 / fit$dispersion, 1)
    for (type in c("response", "link")) {
      value <- predict(fit, new, type = type, se.fit = TRUE)
      expected <- predict(other, new, type = type, se.fit = TRUE, dispersion = unname(dispersion))
      expect_equal(as.vector(value$fit), unname(expected$fit), tolerance = 1e-6, label = label_of(family))
      # The observed information is the expected one for canonical links.
      size <- if (family$link == "log" && family$family == "gaussian") 0.02 else 1e-5
      expect_equal(as.vector(value$se.fit), unname(expected$se.fit), tolerance = size, label = label_of(family))
      expect_identical(value$df, Inf)
    }
    if (!family$family %in% c("poisson", "binomial")) next
    ends <- predict(fit, new, interval = "confidence", level = 0.9)
    link <- predict(other, new, se.fit = TRUE)
    expected <- family$linkinv(link$fit + outer(link$se.fit, c(-1, 1) * qnorm(0.95)))
    expect_equal(unname(ends[, 2:3]), unname(expected), tolerance = 1e-4, label = label_of(family))
  }
})

test_that("standard errors of predictions are those of the delta method", {
  for (name in c("binomial", "Gamma")) {
    for (router in names(em_routers)) {
      fit <- em_inference(name, router)$fit
      d <- em_inference(name, router)$data
      new <- d[1:3, ]
      covariance <- vcov(fit)
      # Contrasts are parameters that give the same function; on a sphere too, where only contrasts enter.
      moved <- function(t) {
        k <- fit$k
        gate <- matrix(t[seq_len(3 * k)], 3)
        fit$gate$b[] <- gate[1, ]
        fit$gate$u[] <- gate[-1, ]
        fit$experts[] <- matrix(t[3 * k + seq_len(2 * k)], 2)[2:1, ]
        fit
      }
      for (type in c("response", "gate", "experts", "link")) {
        values <- function(t) as.vector(predict(moved(t), new, type = type))
        slope <- numDeriv::jacobian(values, coef(fit, "identifiable"))
        value <- predict(fit, new, type = type, se.fit = TRUE)
        expect_equal(as.vector(value$se.fit), sqrt(rowSums((slope %*% covariance) * slope)),
          tolerance = 1e-5, label = paste(name, router, type)
        )
        expect_identical(dim(value$se.fit), dim(value$fit))
        expect_equal(value$fit, predict(fit, new, type = type))
      }
    }
  }
  for (type in c("gate", "experts")) {
    squares <- methods_fit()
    value <- predict(squares, methods_data()[1:4, ], type = type, se.fit = TRUE)
    expect_identical(dimnames(value$se.fit), dimnames(value$fit))
    expect_true(all(value$se.fit > 0))
  }
})

test_that("prediction intervals are quantiles of the mixture, confidence intervals stay in the family's range", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    at <- em_inference(name)
    fit <- at$fit
    d <- at$data
    ends <- predict(fit, d, interval = "prediction", level = 0.8)
    quantiles <- predict(fit, d, type = "quantile", probs = c(0.1, 0.9))
    size <- if (name == "binomial") d$trials else 1
    expect_equal(unname(ends), unname(cbind(fitted(fit), quantiles / size)), label = name)
    expect_equal(predict(fit, interval = "prediction", level = 0.8), ends, ignore_attr = TRUE)
    response <- if (name == "binomial") d$y / d$trials else d$y
    inside <- mean(response >= ends[, 2] & response <= ends[, 3])
    # Exact for continuous responses; steps of a discrete one add to it.
    expect_gt(inside, 0.75, label = name)
    if (name %in% c("gaussian", "Gamma")) expect_lt(inside, 0.85, label = name)
    ends <- predict(fit, d, interval = "confidence")
    expect_true(all(ends[, 2] < ends[, 1] & ends[, 1] < ends[, 3]))
    if (name != "gaussian") expect_gt(min(ends), 0)
    if (name == "binomial") expect_lt(max(ends), 1)
    expect_identical(dim(predict(fit, d[1, ], interval = "confidence")), c(1L, 3L))
    expect_identical(dimnames(predict(fit, d[1, ], interval = "prediction")), list("1", c("fit", "lwr", "upr")))
    for (interval in c("confidence", "prediction")) {
      expect_identical(dim(predict(fit, d[0, ], interval = interval)), c(0L, 3L))
    }
    expect_identical(dim(predict(fit, d[0, ], type = "gate", se.fit = TRUE)$se.fit), c(0L, 2L))
    expect_identical(dim(predict(fit, d[0, ], type = "quantile")), c(0L, 3L))
    missing <- predict(fit, transform(d[1:3, ], x = c(NA, 1, 0)), interval = "confidence", se.fit = TRUE)
    expect_identical(unname(is.na(missing$se.fit)), c(TRUE, FALSE, FALSE))
  }
  refused <- function(...) expect_error(predict(fit, ...), "type", class = "cosmoe_error_input")
  refused(type = "class", se.fit = TRUE)
  refused(type = "quantile", se.fit = TRUE)
  refused(type = "gate", interval = "confidence")
})
