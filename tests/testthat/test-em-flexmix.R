# Maximum likelihood against the package flexmix.

test_that("flexmix reaches the same maximum from the same labels", {
  skip_if_not_installed("flexmix")
  trials <- 8
  for (family in c("gaussian", "poisson", "binomial")) {
    for (seed in 1:4) {
      what <- paste(family, seed)
      d <- em_data(family, seed, n = 300)
      if (family == "binomial") {
        eta <- ifelse(runif(300) < plogis(2 * d$z), 1, -1) * (1 + 1.6 * d$x)
        d$y <- rbinom(300, trials, plogis(eta))
      }
      labels <- ifelse(d$y > median(d$y), 1, 2)
      wrong <- runif(300) < 0.2
      labels[wrong] <- 3 - labels[wrong]

      one <- if (family == "binomial") cbind(y, trials - y) ~ x else y ~ x
      theirs <- flexmix::flexmix(one, d,
        cluster = labels, model = flexmix_ml(family), concomitant = flexmix::FLXPmultinom(~z),
        control = list(tolerance = 1e-12, iter.max = 5000)
      )
      expect_equal(theirs@k, 2)

      # flexmix begins with the regressions and the gate of the labels.
      experts <- vapply(1:2, function(j) rev(coef(glm(one, family, d[labels == j, ]))), numeric(2))
      gate <- unname(coef(glm(labels == 1 ~ z, binomial, d)))
      start <- list(beta = matrix(c(gate[2], 0), 1), b = c(gate[1], 0), experts = unname(experts))
      both <- if (family == "binomial") cbind(y, trials - y) ~ x | z else y ~ x | z
      ours <- fit_cosine_moe(both, d, method = "em", family = family, router = "linear", start = start)

      expect_lt(abs(ours$loglik - theirs@logLik), 1e-4, label = what)
      parameters <- rbind(
        flexmix::parameters(theirs)[c("coef.x", "coef.(Intercept)"), ],
        sigma = if (family == "gaussian") flexmix::parameters(theirs)["sigma", ]
      )
      gate <- flexmix::parameters(theirs, which = "concomitant")
      # Experts have no order of their own.
      from <- order(-parameters["coef.(Intercept)", ])
      to <- order(-ours$experts["(Intercept)", ])
      expect_equal(unname(rbind(ours$experts, ours$dispersion)[, to]), unname(parameters[, from]),
        tolerance = 1e-3, label = what
      )
      contrast <- function(values, order) unname(values[, order[1]] - values[, order[2]])
      expect_equal(contrast(rbind(ours$gate$b, ours$gate$beta), to), contrast(gate, from),
        tolerance = 2e-3, label = what
      )
    }
  }
})
