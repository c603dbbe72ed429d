# What must not change a fit, or only in a known way.

routers <- c("perturbed_cosine", "cosine", "linear")
tight <- function(...) moe_control(tolerance = 1e-12, ...)

# A problem in the user's units, with gate covariates of its own: a start in reported coordinates, and what fits it.
raw_problem <- function(router, seed = 1, n = 400) {
  data <- clear_data(router, "tanh", seed, n)
  data$start <- ref_with_seed(seed, near_truth(data$truth, 0.05))
  data
}

expect_same_fit <- function(fit, other, label, tolerance = 1e-6) {
  testthat::expect_equal(fit$sse, other$sse, tolerance = 1e-9, label = paste(label, "sse"))
  experts <- function(fit) unname(fit$experts)
  testthat::expect_equal(experts(fit), experts(other), tolerance = tolerance, label = paste(label, "experts"))
  contrasts <- function(fit) unname(fit$gate$u - fit$gate$u[, 1])
  testthat::expect_equal(contrasts(fit), contrasts(other), tolerance = tolerance, label = paste(label, "gate"))
  testthat::expect_equal(fit$gate$b, other$gate$b, tolerance = tolerance, label = paste(label, "bias"))
}

# ---- rows and weights ----------------------------------------------------------------------------------------------

test_that("the order of the rows does not matter", {
  for (router in routers) {
    for (standardize in c(TRUE, FALSE)) {
      label <- paste(router, standardize)
      data <- raw_problem(router)
      by <- ref_with_seed(1, sample(nrow(data$x)))
      shuffled <- data
      shuffled$x <- data$x[by, ]
      shuffled$y <- data$y[by]
      # The same start, and drawn ones.
      fit <- fit_clear(data, start = data$start, standardize = standardize, control = tight())
      other <- fit_clear(shuffled, start = data$start, standardize = standardize, control = tight())
      expect_same_fit(other, fit, label)
      expect_equal(other$fitted.values, fit$fitted.values[by], tolerance = 1e-7, label = label)
      set.seed(1)
      drawn <- fit_clear(data, standardize = standardize, control = tight(n_starts = 6))
      set.seed(1)
      redrawn <- fit_clear(shuffled, standardize = standardize, control = tight(n_starts = 6))
      expect_same_fit(redrawn, drawn, paste(label, "drawn"))
    }
  }
})

test_that("doubled rows are rows of weight 2", {
  for (router in routers) {
    for (standardize in c(TRUE, FALSE)) {
      label <- paste(router, standardize)
      data <- raw_problem(router)
      twice <- 1:150
      doubled <- data
      doubled$x <- data$x[c(seq_along(data$y), twice), ]
      doubled$y <- data$y[c(seq_along(data$y), twice)]
      w <- rep(1, length(data$y))
      w[twice] <- 2
      weighted <- fit_clear(data, weights = w, start = data$start, standardize = standardize, control = tight())
      repeated <- fit_clear(doubled, start = data$start, standardize = standardize, control = tight())
      expect_equal(repeated$z_center, weighted$z_center, tolerance = 1e-12, label = paste(label, "centre"))
      expect_equal(repeated$z_scale, weighted$z_scale, tolerance = 1e-12, label = paste(label, "scale"))
      expect_same_fit(repeated, weighted, label)
      expect_equal(repeated$gate_mean, weighted$gate_mean, tolerance = 1e-6, label = label)
      expect_equal(repeated$fitted.values[seq_along(w)], weighted$fitted.values, tolerance = 1e-6, label = label)
    }
  }
})

test_that("rows of weight zero are no rows", {
  for (router in routers) {
    for (standardize in c(TRUE, FALSE)) {
      label <- paste(router, standardize)
      data <- raw_problem(router)
      w <- rep(c(1, 0.5, 0), length.out = length(data$y))
      spoilt <- data
      spoilt$y[w == 0] <- 1e3
      spoilt$x[w == 0, 1] <- spoilt$x[w == 0, 1] + 5
      kept <- data
      kept$x <- data$x[w > 0, ]
      kept$y <- data$y[w > 0]
      with <- fit_clear(spoilt, weights = w, start = data$start, standardize = standardize, control = tight())
      without <- fit_clear(kept, weights = w[w > 0], start = data$start, standardize = standardize, control = tight())
      expect_same_fit(with, without, label)
      expect_equal(with$fitted.values[w > 0], without$fitted.values, tolerance = 1e-6, label = label)
      expect_identical(c(with$nobs, with$df.residual), c(without$nobs, without$df.residual))
      expect_equal(c(with$sigma, with$gate_mean), c(without$sigma, without$gate_mean), tolerance = 1e-6, label = label)
    }
  }
  # Drawn starts do not look at them either.
  data <- raw_problem("linear", n = 200)
  w <- rep(c(1, 0), length.out = 200)
  spoilt <- data$y
  spoilt[w == 0] <- 1e3
  fit <- function(y) {
    set.seed(1)
    fit_cosine_moe(data$x, y, router = "linear", expert = "tanh", weights = w, control = moe_control(n_starts = 5))
  }
  expect_identical(fit(spoilt)[c("gate", "experts", "starts")], fit(data$y)[c("gate", "experts", "starts")])
})

test_that("a common factor of all weights changes the sum of squares only", {
  for (router in routers) {
    for (standardize in c(TRUE, FALSE)) {
      label <- paste(router, standardize)
      data <- raw_problem(router)
      w <- rep(c(1, 2, 0.3), length.out = length(data$y))
      fit <- fit_clear(data, weights = w, start = data$start, standardize = standardize, control = tight())
      for (factor in c(1e-6, 1e6)) {
        other <- fit_clear(data,
          weights = factor * w, start = data$start, standardize = standardize, control = tight()
        )
        expect_equal(other$sse, factor * fit$sse, tolerance = 1e-9, label = label)
        expect_equal(other$experts, fit$experts, tolerance = 1e-6, label = label)
        expect_equal(other$gate, fit$gate, tolerance = 1e-6, label = label)
        expect_equal(other$z_scale, fit$z_scale, tolerance = 1e-12, label = label)
      }
    }
  }
})

# ---- units of the data ---------------------------------------------------------------------------------------------

test_that("units and origin of covariates do not matter when they are standardized", {
  center <- c(1900, -3)
  unit <- c(10, 1e-3)
  for (router in routers) {
    data <- raw_problem(router)
    moved <- data
    moved$x <- sweep(sweep(data$x, 2, unit, "*"), 2, center, "+")
    fit_to <- function(data, ...) {
      set.seed(1)
      fit_clear(data, standardize = TRUE, control = tight(n_starts = 4))
    }
    fit <- fit_to(data)
    other <- fit_to(moved)
    expect_equal(other$sse, fit$sse, tolerance = 1e-9, label = router)
    expect_equal(other$fitted.values, fit$fitted.values, tolerance = 1e-6, label = router)
    # a'x + b is the same form of the new covariates.
    slopes <- fit$experts[1:2, ] / unit
    expect_equal(other$experts[1:2, ], slopes, tolerance = 1e-5, label = router)
    expect_equal(other$experts[3, ], fit$experts[3, ] - colSums(slopes * center), tolerance = 1e-5, label = router)
    if (router == "linear") {
      slopes <- fit$gate$beta / unit
      expect_equal(other$gate$beta, slopes, tolerance = 1e-5)
      expect_equal(diff(other$gate$b), diff(fit$gate$b - colSums(slopes * center)), tolerance = 1e-5)
      expect_equal(sum(exp(other$gate$b)), 1)
    } else {
      # Its centre and scale move along, the gate stays.
      expect_equal(other$gate, fit$gate, tolerance = 1e-5, label = router)
      expect_equal(other$z_center, fit$z_center * unit + center, tolerance = 1e-12, label = router)
      expect_equal(other$z_scale, fit$z_scale * unit, tolerance = 1e-9, label = router)
    }
    # Without standardizing, a cosine depends on the origin.
    if (router != "linear") {
      raw <- quiet_fit_clear(moved, start = data$start, control = moe_control(max_passes = 1))
      expect_identical(unname(c(raw$z_center, raw$z_scale)), c(0, 0, 1, 1))
    }
  }
})

test_that("for the linear router standardizing is numerics only", {
  data <- raw_problem("linear")
  data$x <- sweep(data$x, 2, c(3, 0.5), "*") + 1
  set.seed(1)
  inside <- fit_clear(data, standardize = TRUE, control = tight(n_starts = 6))
  outside <- fit_clear(data, standardize = FALSE, start = inside, control = tight())
  expect_same_fit(outside, inside, "linear")
  expect_equal(outside$fitted.values, inside$fitted.values, tolerance = 1e-7)
})

test_that("the unit of the response does not matter to experts that can be multiplied", {
  data <- clear_data("perturbed_cosine", "linear", 1, n = 300)
  fit_to <- function(y, expert) {
    set.seed(1)
    quiet_fit(data$x, y,
      router = router_of(data$model$router), expert = expert, control = tight(n_starts = 4)
    )
  }
  fit <- fit_to(data$y, "linear")
  for (unit in c(1e-6, 1e6)) {
    other <- fit_to(unit * data$y, "linear")
    expect_true(other$convergence$converged)
    expect_equal(other$sse, unit^2 * fit$sse, tolerance = 1e-8)
    expect_equal(other$fitted.values, unit * fit$fitted.values, tolerance = 1e-6)
    expect_equal(other$experts, unit * fit$experts, tolerance = 1e-5)
    expect_equal(other$gate$u, fit$gate$u, tolerance = 1e-5)
  }
  # Powers of two are exact: a search over many optima takes the same way, to the last bit.
  experts <- list(
    linear = expert_linear(), relu = expert_relu(), polynomial = expert_polynomial(2),
    network = expert_network(2, "tanh"), constant = expert_constant()
  )
  for (name in names(experts)) {
    fit <- fit_to(data$y, experts[[name]])
    for (unit in 2^c(-20, 20)) {
      other <- fit_to(unit * data$y, experts[[name]])
      expect_equal(other$fitted.values, unit * fit$fitted.values, tolerance = 1e-12, label = paste(name, unit))
      expect_identical(other$convergence$passes, fit$convergence$passes, label = paste(name, unit))
      expect_identical(other$gate, fit$gate, label = paste(name, unit))
    }
  }
  # Others see the unit, but bear it.
  data <- clear_data("perturbed_cosine", "gelu", 1, n = 300)
  for (unit in c(1e-6, 1e6)) {
    fit <- fit_to(unit * data$y, "gelu")
    expect_lt(fit$sse, unit^2 * stats::deviance(stats::lm(data$y ~ data$x)), label = paste("gelu", unit))
  }
})

test_that("an offset is a known part of the response", {
  data <- raw_problem("perturbed_cosine")
  shift <- 100 * data$x[, 2]
  fit <- fit_clear(data, start = data$start, control = tight())
  moved <- data
  moved$y <- data$y + shift
  other <- fit_clear(moved, offset = shift, start = data$start, control = tight())
  expect_same_fit(other, fit, "offset", tolerance = 1e-5)
  expect_equal(other$fitted.values, fit$fitted.values + shift, tolerance = 1e-9)
})

# ---- threads, workers ----------------------------------------------------------------------------------------------

test_that("any number of threads gives the same bits", {
  for (router in routers) {
    data <- clear_data(router, "gelu", 1, n = 20000)
    start <- ref_with_seed(1, near_truth(data$truth))
    fit <- lapply(1:2, function(threads) {
      contents(fit_clear(data, start = start, control = moe_control(threads = threads)), "control")
    })
    expect_identical(fit[[2]], fit[[1]], label = router)
  }
  # With drawn starts, weights, gate covariates of its own.
  data <- clear_data("linear", "linear", 1, n = 3000)
  w <- rep(c(1, 2, 0.5), 1000)
  fit <- lapply(1:2, function(threads) {
    set.seed(1)
    contents(
      quiet_fit(data$x, data$y, z = data$x[, 2:1], k = 3, weights = w, expert = "softplus",
                control = moe_control(n_starts = 3, threads = threads)),
      "control"
    )
  })
  expect_identical(fit[[2]], fit[[1]])
})

test_that("parallel workers give the same fit as one process", {
  skip_on_cran()
  data <- clear_data("perturbed_cosine", "tanh", 1, n = 300)
  fit <- function() {
    set.seed(1)
    quiet_fit_clear(data, k = 3, control = moe_control(n_starts = 6, max_passes = 60))
  }
  alone <- fit()
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  expect_equal(future::nbrOfWorkers(), 2)
  together <- fit()
  expect_identical(together, alone)
})

test_that("a worker of a parallel plan uses one thread, and no process more than it has cores", {
  skip_on_cran()
  expect_equal(cosmoe:::usable_threads(1L), 1L)
  expect_lte(cosmoe:::usable_threads(1000L), future::availableCores())
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  usable <- future.apply::future_lapply(1:2, function(i) cosmoe:::usable_threads(4L), future.packages = "cosmoe")
  expect_identical(usable, list(1L, 1L))
  threads_of_fit <- function(i) {
    x <- matrix(stats::rnorm(60), 30)
    fit <- suppressWarnings(fit_cosine_moe(x, x[, 1], control = moe_control(n_starts = 1, threads = 4)))
    fit$control$threads
  }
  fitted <- future.apply::future_lapply(1:2, threads_of_fit, future.packages = "cosmoe", future.seed = TRUE)
  expect_identical(fitted, list(1L, 1L))
})

# ---- the canonical representative ----------------------------------------------------------------------------------

# Centre of the smallest ball round the columns of u, from all pairs and triples (d = 2).
ball_center <- function(u) {
  points <- t(u)
  candidates <- c(
    utils::combn(nrow(points), 2, function(i) colMeans(points[i, ]), simplify = FALSE),
    if (nrow(points) > 2) utils::combn(nrow(points), 3, function(i) {
      p <- points[i, ]
      tryCatch(
        solve(2 * sweep(p[-1, ], 2, p[1, ]), rowSums(p[-1, ]^2) - sum(p[1, ]^2)),
        error = function(e) c(Inf, Inf)
      )
    }, simplify = FALSE)
  )
  radius <- vapply(candidates, function(center) max(sqrt(colSums((u - center)^2))), 0)
  candidates[[which.min(radius)]]
}

test_that("gates are reported round the origin, biases with exponentials that sum to 1, experts by weight", {
  for (router in routers) {
    for (k in 2:3) {
      for (seed in 1:2) {
        label <- paste(router, k, seed)
        data <- sim_moe(400, 2, k, router, "tanh", seed = seed)
        set.seed(seed)
        fit <- quiet_fit_clear(data, standardize = seed == 1, control = moe_control(n_starts = 3))
        expect_equal(sum(exp(fit$gate$b)), 1, tolerance = 1e-12, label = label)
        expect_false(is.unsorted(-fit$gate_mean), label = label)
        expect_equal(fit$gate_mean, colMeans(predict(fit, data$x, type = "gate")), tolerance = 1e-10, label = label)
        u <- unname(fit$gate$u)
        size <- max(sqrt(colSums(u^2)))
        if (router == "cosine") {
          expect_equal(sqrt(colSums(u^2)), rep(fit$router$scale, k), tolerance = 1e-10, label = label)
        } else {
          expect_lt(sqrt(sum(ball_center(u)^2)), 1e-6 * size, label = label)
        }
        if (router == "perturbed_cosine") expect_lte(size, fit$router$scale * (1 + 1e-9), label = label)
        # u and beta are the same point in two charts.
        finite <- colSums(!is.finite(unname(fit$gate$beta))) == 0
        chart <- ref_gate_from_beta(ref_model_of(fit)$router, unname(fit$gate$beta))
        expect_equal(chart[, finite], u[, finite], tolerance = 1e-8, label = label)
      }
    }
  }
})
