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
        k = k, method = "em", router = "linear", family = case$family, control = moe_control(n_starts = 60), ...
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
