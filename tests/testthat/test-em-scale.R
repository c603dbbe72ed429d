# Likelihood fits to responses in any unit, and to tiny ones.

scale_control <- function(...) moe_control(n_starts = 4, ...)

# A response that any of these families can have, with means 1 / (1 + 2 x - off) or 1 + 2 x + off.
unit_data <- function(family, n = 150) {
  ref_with_seed(2, {
    d <- data.frame(x = stats::runif(n), off = stats::runif(n, 0, 0.2))
    mean <- if (family$link == "inverse") 1 / (1 + 2 * d$x + d$off) else 1 + 2 * d$x + d$off
    d$y <- if (family$family == "Gamma") stats::rgamma(n, 8, 8 / mean) else mean * (1 + 0.05 * stats::rnorm(n))
    d
  })
}

scaled_families <- list(
  Gamma("inverse"), Gamma("identity"), gaussian("inverse"), gaussian("identity"), Gamma("log"), gaussian("log")
)

test_that("the unit of the response changes nothing but the unit of the parameters", {
  for (family in scaled_families) {
    d <- unit_data(family)
    for (k in 1:2) {
      fit_in <- function(unit) {
        # Of a linear predictor.
        d$own <- d$off * switch(family$link, identity = unit, inverse = 1 / unit, 1)
        d$y <- d$y * unit
        set.seed(1)
        fit <- em_fit(y ~ x + offset(own), d, k = k, family = family, control = scale_control(tolerance = 1e-10))
        list(fit = fit, d = d)
      }
      one <- fit_in(1)$fit
      for (unit in c(1e-80, 1e15, 1e80)) {
        label <- paste(label_of(family), k, unit)
        at <- fit_in(unit)
        fit <- at$fit
        d_at <- at$d
        expect_equal(fit$loglik + nrow(d) * log(unit), one$loglik, tolerance = 1e-7, label = label)
        expect_equal(predict(fit, d_at[1:5, ]) / unit, predict(one, transform(d, own = off)[1:5, ]),
          tolerance = 1e-4, label = label
        )
        expect_true(fit$convergence$converged, label = label)
        if (family$link == "log" || k > 1L) next
        factor <- if (family$link == "identity") unit else 1 / unit
        expect_equal(fit$experts / factor, one$experts, tolerance = 1e-5, label = label)
        dispersion <- if (family$family == "gaussian") one$dispersion * unit else one$dispersion
        expect_equal(fit$dispersion / dispersion, 1 + 0 * dispersion, tolerance = 1e-5, label = label)
        gauge <- c(factor, factor, 1)
        expect_equal(vcov(fit) / outer(gauge, gauge), vcov(one), tolerance = 1e-4, label = label)
        expect_equal(
          predict(fit, d_at[1:3, ], se.fit = TRUE)$se.fit / unit,
          predict(one, transform(d, own = off)[1:3, ], se.fit = TRUE)$se.fit,
          tolerance = 1e-4, label = label
        )
      }
    }
  }
})

test_that("one expert is glm() in any unit", {
  for (family in scaled_families[1:2]) {
    d <- unit_data(family)
    for (unit in c(1, 1e15)) {
      d$v <- d$y * unit
      fit <- em_fit(v ~ x, d, k = 1, family = family, control = scale_control(tolerance = 1e-10))
      truth <- glm(v ~ x, family = family, data = d, control = glm.control(epsilon = 1e-12))
      expect_equal(unname(coef(fit, "experts")[c("(Intercept)", "x"), 1L] / coef(truth)), c(1, 1), tolerance = 1e-5)
    }
  }
})

test_that("a response in another unit, read in chunks, has the same fit", {
  d <- unit_data(Gamma("inverse"))
  d$y <- d$y * 1e20
  set.seed(1)
  whole <- em_fit(y ~ x, d, k = 1, family = Gamma("inverse"), control = scale_control())
  chunks <- source_function(chunks_of(d, 40))
  set.seed(1)
  part <- em_fit(y ~ x, chunks, k = 1, family = Gamma("inverse"), control = scale_control())
  expect_equal(part$loglik, whole$loglik, tolerance = 1e-8)
  expect_equal(part$experts * 1e20, whole$experts * 1e20, tolerance = 1e-4)
})

test_that("where experts have no unit an extreme one is a classed error or a fit", {
  d <- unit_data(Gamma("inverse"), 60)
  for (family in scaled_families[1:3]) {
    for (unit in c(1e-140, 1e80, 1e140)) {
      d$v <- d$y * unit
      set.seed(1)
      result <- tryCatch(
        suppressWarnings(em_fit(v ~ x, d, k = 2, expert = "tanh", family = family, control = scale_control())),
        cosmoe_error = function(e) e
      )
      expect_match(class(result)[1L], "cosmoe_error_core|^cosine_moe", label = paste(label_of(family), unit))
    }
  }
})

# ---- Gamma responses of small shape ---------------------------------------------------------------------------------

small_shape_data <- function(shape, seed, n = 200) {
  ref_with_seed(seed, {
    x <- stats::rnorm(n)
    y <- stats::rgamma(n, shape, shape / exp(1 + 0.5 * x))
    data.frame(x = x, y = pmax(y, 1e-300))
  })
}

gamma_loglik <- function(par, d) {
  sum(dgamma(d$y, exp(par[3L]), scale = exp(par[1L] + par[2L] * d$x - par[3L]), log = TRUE))
}

gamma_maximum <- function(d, shape) {
  -optim(c(1, 0.5, log(shape)), function(par) -gamma_loglik(par, d), control = list(reltol = 1e-13, maxit = 5000))$value
}

test_that("Gamma responses of small shape have their maximum likelihood fit", {
  for (shape in c(0.1, 0.05, 0.03)) {
    for (seed in 1:6) {
      d <- small_shape_data(shape, seed)
      label <- paste(shape, seed)
      set.seed(1)
      one <- em_fit(y ~ x, d, k = 1, family = Gamma("log"), control = scale_control())
      expect_equal(one$loglik, gamma_maximum(d, shape), tolerance = 1e-8, label = label)
      expect_true(one$convergence$converged, label = label)
      set.seed(1)
      two <- suppressWarnings(em_fit(y ~ x, d, k = 2, family = Gamma("log"), control = scale_control()))
      expect_gte(two$loglik, one$loglik - 1e-6)
    }
  }
})

test_that("one tiny Gamma response costs no more than its likelihood", {
  d <- small_shape_data(5, 1)
  for (tiny in c(1e-30, 1e-60, 1e-200)) {
    d$y[1L] <- tiny
    one <- em_fit(y ~ x, d, k = 1, family = Gamma("log"), control = scale_control())
    expect_equal(one$loglik, gamma_maximum(d, 0.5), tolerance = 1e-8)
    for (link in c("identity", "inverse", "log")) {
      set.seed(1)
      fits <- lapply(1:2, function(k) {
        suppressWarnings(em_fit(y ~ 1, d, k = k, family = Gamma(link), control = scale_control()))
      })
      expect_equal(unname(fitted(fits[[1L]])[1L]), mean(d$y), tolerance = 1e-4, label = link)
      expect_gte(fits[[2L]]$loglik, fits[[1L]]$loglik - 1e-6)
    }
  }
})
