# Larger models by maximum likelihood against those that they contain.

test_that("a larger model never ends below one that it contains", {
  cases <- list(
    list(data = faithful, full = eruptions ~ waiting, constant = eruptions ~ waiting | 1, family = "gaussian"),
    list(data = mtcars, full = mpg ~ wt | hp, constant = mpg ~ wt | 1, family = "gaussian"),
    list(data = MASS::mcycle, full = accel ~ times, constant = accel ~ times | 1, family = "gaussian"),
    list(data = warpbreaks, full = breaks ~ tension | wool, constant = breaks ~ tension | 1, family = "poisson"),
    list(data = na.omit(airquality), full = Ozone ~ Temp, constant = Ozone ~ Temp | 1, family = Gamma("log")),
    list(data = MASS::Boston, full = medv ~ lstat | rm, constant = medv ~ lstat | 1, family = "gaussian")
  )
  for (case in cases) {
    value <- function(formula, k, ...) {
      set.seed(4)
      suppressWarnings(fit_cosine_moe(formula, case$data,
        k = k, method = "em", router = "linear", family = case$family, control = moe_control(n_starts = 16), ...
      ))$loglik
    }
    last <- -Inf
    for (k in 1:3) {
      # Three experts for 32 cars are a search for spikes.
      if (k == 3 && nrow(case$data) < 50) next
      free <- value(case$full, k)
      expect_gte(free, last - 1e-3)
      if (k > 1) expect_gte(free, value(case$constant, k) - 1e-3)
      if (k > 1 && !identical(case$family, "poisson")) expect_gte(free, value(case$full, k, sigma = "equal") - 1e-3)
      last <- free
    }
  }
})

test_that("with few rows for each parameter every contained model is searched as by itself", {
  # Fifty rows: there are many maxima, and a short search for a constant gate missed the best of them.
  value <- function(formula, family, k, seed, ...) {
    set.seed(seed)
    suppressWarnings(fit_cosine_moe(formula, cars,
      k = k, method = "em", router = "linear", family = family, control = moe_control(n_starts = 8), ...
    ))$loglik
  }
  seeds <- list(log = c(3, 10), identity = c(3, 4))
  for (link in names(seeds)) {
    for (seed in seeds[[link]]) {
      full <- value(dist ~ speed, Gamma(link), 2, seed)
      expect_gte(full, value(dist ~ speed | 1, Gamma(link), 2, seed) - 1e-3)
      expect_gte(full, value(dist ~ speed, Gamma(link), 2, seed, sigma = "equal") - 1e-3)
      expect_gte(full, value(dist ~ speed, Gamma(link), 1, seed) - 1e-3)
    }
  }
  expect_gte(value(dist ~ speed, Gamma("identity"), 3, 9), value(dist ~ speed | 1, Gamma("identity"), 3, 9) - 1e-3)
  # The search of contained models leaves no trace in the generator.
  set.seed(1)
  first <- suppressWarnings(fit_cosine_moe(dist ~ speed, cars, method = "em", control = moe_control(n_starts = 4)))
  set.seed(1)
  again <- suppressWarnings(fit_cosine_moe(dist ~ speed, cars, method = "em", control = moe_control(n_starts = 4)))
  expect_identical(first, again)
})

test_that("counts and heights: more covariates of the gate, more experts", {
  cases <- list(
    list(data = quakes[1:200, ], full = stations ~ mag | depth, constant = stations ~ mag | 1, family = poisson()),
    list(data = trees, full = Volume ~ Girth, constant = Volume ~ Girth | 1, family = Gamma("log")),
    list(data = mtcars, full = am ~ wt | hp, constant = am ~ wt | 1, family = binomial())
  )
  for (case in cases) {
    value <- function(formula, k) {
      set.seed(2)
      suppressWarnings(fit_cosine_moe(formula, case$data,
        k = k, method = "em", router = "linear", family = case$family, control = moe_control(n_starts = 12)
      ))$loglik
    }
    last <- value(case$full, 1)
    for (k in 2:3) {
      full <- value(case$full, k)
      expect_gte(full, last - 1e-3)
      expect_gte(full, value(case$constant, k) - 1e-3)
      last <- full
    }
  }
})
