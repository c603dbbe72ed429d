# Methods of fits by maximum likelihood.

em_cached <- function(name) {
  cached(paste("em", name), {
    d <- em_data(name)
    set.seed(1)
    list(data = d, fit = fit_cosine_moe(y ~ x | z, d,
      method = "em", family = if (name == "Gamma") Gamma("log") else name, router = "linear", control = quick_em()
    ))
  })
}
em_names <- c("gaussian", "poisson", "binomial", "Gamma")
new_rows <- function() data.frame(x = c(-0.7, 0.2, 0.9), z = c(0.5, -1, 0))

test_that("predictions are those of the mixture", {
  for (name in em_names) {
    at <- em_cached(name)
    family <- if (name == "Gamma") Gamma("log") else get(name)()
    new <- new_rows()
    gate <- em_gate(at$fit, new["z"])
    link <- cbind(new$x, 1) %*% at$fit$experts
    expect_equal(unname(predict(at$fit, new, type = "gate")), unname(gate), tolerance = 1e-10)
    expect_equal(unname(predict(at$fit, new, type = "link")), unname(link), tolerance = 1e-10)
    expect_equal(unname(predict(at$fit, new, type = "experts")), unname(family$linkinv(link)), tolerance = 1e-10)
    expect_equal(predict(at$fit, new), rowSums(gate * family$linkinv(link)), tolerance = 1e-10)
    expect_equal(unname(predict(at$fit, at$data)), unname(fitted(at$fit)), tolerance = 1e-8)
    new$y <- c(1, 0, 1) + (name == "Gamma")
    dense <- rowSums(gate * em_density(at$fit, family, new["x"], new$y))
    expect_equal(predict(at$fit, new, type = "density"), dense, tolerance = 1e-10)
    expect_equal(predict(at$fit, new[c("x", "z")], type = "density", y = new$y), dense, tolerance = 1e-10)
    expect_equal(sum(log(predict(at$fit, type = "density"))), at$fit$loglik, tolerance = 1e-8)
  }
})

test_that("densities integrate to one", {
  for (name in em_names) {
    fit <- em_cached(name)$fit
    new <- new_rows()[1, ]
    at <- function(y) predict(fit, new[rep(1, length(y)), ], type = "density", y = y)
    total <- switch(name,
      gaussian = integrate(at, -20, 20)$value, Gamma = integrate(at, 1e-10, 100)$value,
      poisson = sum(at(0:100)), binomial = sum(at(0:1))
    )
    expect_equal(total, 1, tolerance = 1e-4, label = name)
  }
})

test_that("quantiles invert the distribution function", {
  probs <- c(0.01, 0.3, 0.5, 0.975)
  for (name in em_names) {
    fit <- em_cached(name)$fit
    new <- new_rows()
    q <- predict(fit, new, type = "quantile", probs = probs)
    expect_equal(dim(q), c(3L, 4L))
    expect_equal(colnames(q), c("1%", "30%", "50%", "97.5%"))
    for (i in 1:3) {
      below <- function(y) {
        mean <- predict(fit, new[i, ], type = "experts")
        s <- fit$dispersion
        sum(predict(fit, new[i, ], type = "gate") * switch(name,
          gaussian = pnorm(y, mean, s), poisson = ppois(y, mean), binomial = pbinom(y, 1, mean),
          Gamma = pgamma(y, s, s / mean)
        ))
      }
      for (j in seq_along(probs)) {
        if (name %in% c("gaussian", "Gamma")) {
          expect_equal(below(q[i, j]), probs[j], tolerance = 1e-8)
        } else {
          expect_gte(below(q[i, j]), probs[j])
          expect_lt(below(q[i, j] - 1), probs[j])
        }
      }
    }
  }
})

test_that("offsets move the linear predictors", {
  d <- em_data("poisson")
  set.seed(1)
  fit <- em_fit(y ~ x + offset(log(v)) | z, d, family = poisson)
  expect_equal(unname(fitted(fit)),
    rowSums(em_gate(fit, d["z"]) * exp(cbind(d$x, 1) %*% fit$experts + log(d$v))),
    tolerance = 1e-8
  )
  new <- cbind(new_rows(), v = c(1, 2, 3))
  expect_equal(unname(predict(fit, new, type = "link")), unname(cbind(new$x, 1) %*% fit$experts + log(new$v)))
})

test_that("responsibilities, clusters and ICL", {
  for (name in em_names) {
    at <- em_cached(name)
    family <- if (name == "Gamma") Gamma("log") else get(name)()
    joint <- em_gate(at$fit, at$data["z"]) * em_density(at$fit, family, at$data["x"], at$data$y)
    r <- joint / rowSums(joint)
    share <- posterior(at$fit)
    expect_equal(unname(share), unname(r), tolerance = 1e-8)
    expect_equal(colnames(share), c("expert1", "expert2"))
    expect_equal(as.integer(clusters(at$fit)), max.col(r, ties.method = "first"))
    expect_equal(levels(clusters(at$fit)), c("expert1", "expert2"))
    expect_equal(ICL(at$fit), BIC(at$fit) - 2 * sum(r * log(r)), tolerance = 1e-8)
    some <- at$data[5:9, ]
    rownames(some) <- letters[1:5]
    expect_equal(posterior(at$fit, some), structure(r[5:9, ], dimnames = list(letters[1:5], colnames(share))),
      tolerance = 1e-8
    )
    expect_equal(names(clusters(at$fit, some)), letters[1:5])
  }
  some$y[2] <- NA
  expect_true(all(is.na(posterior(at$fit, some)[2, ])))
  expect_true(is.na(clusters(at$fit, some)[2]))
})

test_that("residuals", {
  for (name in em_names) {
    at <- em_cached(name)
    expect_equal(unname(residuals(at$fit)), at$data$y - unname(fitted(at$fit)))
    expect_lt(abs(mean(residuals(at$fit, "pearson")^2) - 1), 0.25, label = name)
  }
  # By hand, for two Poisson experts.
  at <- em_cached("poisson")
  gate <- em_gate(at$fit, at$data["z"])
  mean <- exp(cbind(at$data$x, 1) %*% at$fit$experts)
  variance <- rowSums(gate * (mean + mean^2)) - rowSums(gate * mean)^2
  expect_equal(unname(residuals(at$fit, "pearson")), (at$data$y - rowSums(gate * mean)) / sqrt(variance))
})

test_that("quantile residuals are standard normal under the model", {
  for (name in em_names) {
    p <- vapply(1:10, function(seed) {
      d <- em_data(name, seed, 300)
      fit <- suppressWarnings(fit_cosine_moe(y ~ x | z, d,
        method = "em", family = if (name == "Gamma") Gamma("log") else name, router = "linear",
        control = moe_control(n_starts = 4)
      ))
      set.seed(1000 + seed)
      r <- residuals(fit, "quantile")
      set.seed(1000 + seed)
      expect_identical(r, residuals(fit, "quantile"))
      ks.test(r, "pnorm")$p.value
    }, 0)
    expect_gt(min(p), 0.001, label = name)
  }
})

test_that("simulated responses have the mixture's distribution", {
  for (name in em_names) {
    at <- em_cached(name)
    draws <- simulate(at$fit, 400, seed = 7)
    expect_identical(draws, simulate(at$fit, 400, seed = 7))
    expect_equal(dim(draws), c(400L, 400L))
    m <- as.matrix(draws)
    pearson <- (rowMeans(m) - fitted(at$fit)) / (apply(m, 1, sd) / sqrt(400))
    expect_lt(abs(mean(pearson)), 0.2, label = name)
    expect_lt(abs(sd(pearson) - 1), 0.15, label = name)
    q <- predict(at$fit, type = "quantile", probs = 0.9)
    expect_gt(mean(m <= q[, 1]), 0.89)
    if (name %in% c("gaussian", "Gamma")) expect_lt(abs(mean(m <= q[, 1]) - 0.9), 0.01)
  }
})

# Minus the log-likelihood as a function of gate contrasts, experts and log dispersions of two experts, in plain R.
plain_information <- function(fit, d, family) {
  value <- function(t) {
    part <- fit
    part$gate$b <- c(t[1], 0)
    part$gate$beta[] <- c(t[2], 0)
    part$experts[] <- t[3:6]
    if (length(t) > 6) part$dispersion <- exp(t[7:8])
    -em_loglik(part, family, d["x"], d["z"], d$y)
  }
  at <- c(-diff(fit$gate$b), -diff(fit$gate$beta[1, ]), fit$experts, if (length(fit$dispersion)) log(fit$dispersion))
  expect_lt(max(abs(vapply(seq_along(at), function(j) {
    (value(replace(at, j, at[j] + 1e-4)) - value(replace(at, j, at[j] - 1e-4))) / 2e-4
  }, 0))), 0.05)
  at <- unname(at)
  solve(optimHess(at, value, control = list(ndeps = rep(1e-4, length(at)))))
}

test_that("standard errors are those of the observed information", {
  for (name in em_names) {
    at <- em_cached(name)
    family <- if (name == "Gamma") Gamma("log") else get(name)()
    expected <- plain_information(at$fit, at$data, family)
    v <- vcov(at$fit)
    expect_equal(rownames(v), names(coef(at$fit, "identifiable")))
    # Contrasts to the mean are half the differences.
    expect_equal(v["gate1:z", "gate1:z"], expected[2, 2] / 4, tolerance = 2e-3, label = name)
    expect_equal(v["gate1:(Intercept)", "gate2:(Intercept)"], -expected[1, 1] / 4, tolerance = 2e-3)
    own <- c("expert1:x", "expert1:(Intercept)", "expert2:x", "expert2:(Intercept)")
    expect_equal(unname(v[own, own]), expected[3:6, 3:6], tolerance = 2e-3, label = name)
    if (length(at$fit$dispersion)) {
      own <- grep("log", rownames(v))
      expect_equal(unname(v[own, own]), expected[7:8, 7:8], tolerance = 2e-3, label = name)
    }
    ends <- confint(at$fit)
    expect_equal(unname(ends[, 2] - ends[, 1]), unname(2 * qnorm(0.975) * sqrt(diag(v))), tolerance = 1e-10)
    expect_true(all(dim(vcov(at$fit, "sandwich")) == dim(v)))
  }
})

test_that("one expert has the covariance matrix of glm()", {
  d <- em_data("poisson")
  fit <- fit_cosine_moe(y ~ x, d, k = 1, method = "em", family = poisson, control = moe_control(n_starts = 2))
  expect_equal(unname(vcov(fit)), unname(vcov(glm(y ~ x, poisson, d))), tolerance = 1e-4)
  skip_if_not_installed("sandwich")
  expect_equal(unname(vcov(fit, "sandwich")), unname(sandwich::sandwich(glm(y ~ x, poisson, d))), tolerance = 1e-4)
  fit <- fit_cosine_moe(y ~ x, d,
    k = 1, method = "em", family = poisson, weights = v, control = moe_control(n_starts = 2)
  )
  weighted <- glm(y ~ x, poisson, d, weights = v)
  expect_equal(unname(vcov(fit)), unname(vcov(weighted)), tolerance = 1e-4)
  expect_equal(unname(vcov(fit, "sandwich")), unname(sandwich::sandwich(weighted)), tolerance = 1e-4)
})

test_that("means outside the family have no quantiles, and R's warnings do not get through", {
  d <- ref_with_seed(1, {
    x <- stats::runif(80, 0, 2)
    data.frame(x = x, size = stats::rgamma(80, 20, 20 / (1 + 2 * x)), count = stats::rpois(80, 1 + 2 * x))
  })
  new <- data.frame(x = c(1, -5, 2))
  probs <- c(0.1, 0.9)
  fit <- fit_cosine_moe(size ~ x, d, k = 1, method = "em", family = Gamma("identity"))
  expect_silent(quantiles <- predict(fit, new, type = "quantile", probs = probs))
  expect_true(all(is.na(quantiles[2, ]) & !is.nan(quantiles[2, ])))
  mean <- predict(fit, new)
  shape <- fit$dispersion[[1]]
  expected <- outer(mean[c(1, 3)], probs, function(m, p) stats::qgamma(p, shape, scale = m / shape))
  expect_equal(unname(quantiles[c(1, 3), ]), unname(expected), tolerance = 1e-10)
  expect_silent(ends <- predict(fit, new, interval = "prediction"))
  expect_identical(is.na(ends[, "lwr"]), c(FALSE, TRUE, FALSE))
  fit <- fit_cosine_moe(count ~ x, d, k = 1, method = "em", family = poisson("identity"))
  expect_silent(quantiles <- predict(fit, new, type = "quantile", probs = probs))
  expect_true(all(is.na(quantiles[2, ])))
  expected <- outer(predict(fit, new)[c(1, 3)], probs, function(m, p) stats::qpois(p, m))
  expect_equal(unname(quantiles[c(1, 3), ]), unname(expected))

  # Of two experts only those with weight count.
  mixture <- list(family = list(name = "Gamma", link = "identity"), dispersion = c(2, 3))
  values <- list(gate = rbind(c(1, 0), c(0.5, 0.5), c(0, 1)), expert = rbind(c(2, -1), c(2, -1), c(-1, 2)))
  expect_silent(quantiles <- cosmoe:::mixture_quantiles(mixture, values, NULL, 0.3))
  expected <- c(stats::qgamma(0.3, 2, scale = 1), NA, stats::qgamma(0.3, 3, scale = 2 / 3))
  expect_equal(as.vector(quantiles), expected, tolerance = 1e-10)
})

test_that("coefficients have the dispersions among them", {
  fit <- em_cached("gaussian")$fit
  sigmas <- c("expert1:sigma" = sigma(fit)[[1]], "expert2:sigma" = sigma(fit)[[2]])
  expect_equal(utils::tail(coef(fit, "all"), 2), sigmas)
  expect_equal(utils::tail(names(coef(fit, "identifiable")), 2), c("expert1:log(sigma)", "expert2:log(sigma)"))
  expect_equal(names(coef(em_cached("Gamma")$fit, "all"))[9], "expert1:shape")
  expect_length(coef(em_cached("poisson")$fit), 8)
  expect_error(sigma(em_cached("poisson")$fit), class = "cosmoe_error_input")
  equal <- em_fit(y ~ x | z, em_data("gaussian"), sigma = "equal")
  expect_equal(utils::tail(names(coef(equal, "all")), 1), "sigma")
  expect_equal(nrow(vcov(equal)), length(coef(equal, "identifiable")))
})

test_that("print and summary tell the method", {
  fit <- em_cached("gaussian")$fit
  expect_output(print(fit), "maximum likelihood, gaussian\\(identity\\)")
  expect_output(print(fit), "log-likelihood")
  expect_output(print(summary(fit)), "sigma")
  expect_output(print(summary(fit)), "ICL")
  expect_output(print(summary(em_cached("Gamma")$fit)), "shape")
  expect_equal(colnames(coef(summary(fit)))[3], "z value")
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  for (name in em_names) expect_no_error(plot(em_cached(name)$fit))
})

test_that("what needs least squares, or a likelihood, says so", {
  at <- em_cached("gaussian")
  refused <- function(call) expect_error(call, "em|maximum likelihood", class = "cosmoe_error_input")
  refused(bootstrap_moe(at$fit, type = "residual"))
  squares <- fit_cosine_moe(y ~ x | z, at$data, router = "linear", control = moe_control(n_starts = 4))
  refused(posterior(squares))
  refused(clusters(squares))
  refused(ICL(squares))
  refused(residuals(squares, "quantile"))
  for (type in c("link", "density", "quantile")) refused(predict(squares, type = type))
  expect_error(predict(at$fit, type = "quantile", probs = 2), class = "cosmoe_error_input")
  expect_error(predict(at$fit, type = "quantile", probs = "a"), class = "cosmoe_error_input")
  expect_error(predict(at$fit, new_rows(), type = "density"), "lacks", class = "cosmoe_error_newdata")
  expect_error(predict(at$fit, new_rows(), type = "density", y = 1:2), "length", class = "cosmoe_error_newdata")
  expect_error(predict(at$fit, new_rows(), type = "density", y = "a"), class = "cosmoe_error_newdata")
})

test_that("matrix fits, grouped responses, factors and missing rows go through the methods", {
  d <- em_data("binomial", n = 200)
  x <- as.matrix(d["x"])
  z <- as.matrix(d["z"])
  y <- d$y
  set.seed(1)
  fit <- fit_cosine_moe(x, y, z = z, method = "em", family = binomial, router = "linear", control = quick_em())
  expect_equal(nrow(posterior(fit)), 200)
  expect_equal(predict(fit, list(x = x[1:3, , drop = FALSE], z = z[1:3, , drop = FALSE]), type = "density", y = y[1:3]),
    predict(fit, type = "density")[1:3],
    tolerance = 1e-10
  )
  expect_error(posterior(fit, list(x = x, z = z)), "`y`", class = "cosmoe_error_newdata")

  d$f <- factor(ifelse(d$y == 1, "yes", "no"))
  d$x[3] <- NA
  set.seed(1)
  by_factor <- em_fit(f ~ x | z, d, family = binomial, na.action = na.exclude)
  expect_true(is.na(posterior(by_factor)[3, 1]))
  expect_true(is.na(residuals(by_factor, "quantile")[3]))
  expect_equal(unname(posterior(by_factor, d[4:6, ])), unname(posterior(by_factor)[4:6, ]), tolerance = 1e-10)
  expect_equal(nrow(simulate(by_factor)), 200)

  d$x[3] <- 0
  d$n <- rep(1:4, 50)
  d$s <- rbinom(200, d$n, 0.5)
  set.seed(1)
  grouped <- suppressWarnings(em_fit(cbind(s, n - s) ~ x | z, d, family = binomial))
  draws <- simulate(grouped, 2, seed = 1)
  expect_equal(unname(rowSums(draws$sim_1)), d$n)
  expect_equal(sum(log(predict(grouped, d, type = "density"))), grouped$loglik, tolerance = 1e-8)
  expect_equal(dim(predict(grouped, type = "quantile")), c(200L, 3L))
  expect_error(predict(grouped, d[c("x", "z")], type = "quantile"), class = "cosmoe_error_newdata")
  copy <- unserialize(serialize(grouped, NULL))
  expect_equal(predict(copy, d), predict(grouped, d))
  expect_s3_class(update(grouped, k = 1), "cosine_moe")
  expect_equal(update(grouped, k = 1)$k, 1)
})

test_that("a family's name means the family with its default link", {
  for (name in names(links_of_families)) {
    family <- get(name, envir = asNamespace("stats"))
    expect_identical(as_family(name), as_family(family))
    expect_identical(as_family(name), as_family(family()))
  }
})

test_that("the entropy is that of the responsibilities, with weights, for any number of rows", {
  for (seed in 1:4) {
    for (family in list("gaussian", "poisson")) {
      set.seed(seed)
      n <- 250 + 7 * seed
      data <- data.frame(u = rnorm(n), w = rexp(n) * (runif(n) > 0.1))
      mean <- 3 + ifelse(runif(n) < 0.5, 2 * data$u, -data$u)
      data$y <- if (family == "poisson") rpois(n, exp(mean / 3)) else mean + rnorm(n)
      fit <- suppressWarnings(fit_cosine_moe(y ~ u, data,
        weights = w, method = "em", family = family, router = "linear", control = moe_control(n_starts = 1)
      ))
      r <- posterior(fit)
      expect_equal(fit$entropy, -sum(data$w * ifelse(r > 0, r * log(r), 0)), tolerance = 1e-9)
    }
  }
})
