# Data, truths and checks for the tests of the estimator (test-fit.R, test-solver.R, test-invariance.R, ...).

# ---- well-conditioned exact fits -----------------------------------------------------------------------------------

# Two experts in two covariates that differ clearly, in reported coordinates. The perturbed router's beta has norm
# tau1, where its radial information is largest. With scale 1 two *linear* experts cannot be told from a quadratic, so
# they get scale 4; GELU experts, flat on half the plane, get scale 2.
clear_truth <- function(router, expert) {
  beta <- switch(router,
    perturbed_cosine = cbind(c(0.5, 0), c(-0.25, 0.433)),
    cosine = cbind(c(1, 0), c(-0.5, 0.866)),
    linear = cbind(c(1.5, 0), c(-0.5, 1))
  )
  experts <- switch(expert,
    linear = cbind(c(3, 0, 0.5), c(-1, -2.8, -0.5)),
    gelu = cbind(c(2.9, 0.8, 0.5), c(-2.8, 1, 0.5)),
    tanh = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5))
  )
  scale <- if (router == "linear") 1 else switch(expert, linear = 4, gelu = 2, 1)
  tau <- if (router == "perturbed_cosine") 0.5 else 0
  list(
    beta = beta, b = c(0.3, 0), experts = experts,
    model = ref_model(ref_router(router, scale = scale, tau1 = tau, tau2 = tau), expert, 2)
  )
}

clear_data <- function(router, expert, seed, n = 2000, sigma = 0.1, truth = clear_truth(router, expert)) {
  theta <- ref_pack(list(u = ref_gate_from_beta(truth$model$router, truth$beta), b = truth$b, eta = truth$experts))
  ref_with_seed(seed, {
    x <- matrix(stats::runif(2 * n, -1, 1), n, 2, dimnames = list(NULL, c("x1", "x2")))
    f <- ref_f(theta, truth$model, x)
    list(
      x = x, f = f, y = f + sigma * stats::rnorm(n), sigma = sigma, theta = theta, truth = truth, model = truth$model
    )
  })
}

# The package's router with the settings of a reference router.
router_of <- function(router) {
  top_k <- if (router$top_k > 0) router$top_k
  switch(router$name,
    linear = router_linear(router$scale, top_k),
    cosine = router_cosine(router$scale, top_k),
    perturbed_cosine = router_perturbed_cosine(router$tau1, router$tau2, router$scale, top_k)
  )
}

# A fit to simulated data with the model that made them, on raw covariates.
fit_clear <- function(data, ..., router = router_of(data$model$router), k = data$model$k, standardize = FALSE) {
  fit_cosine_moe(data$x, data$y,
    k = k, router = router, expert = data$model$expert$name, standardize = standardize, ...
  )
}

# Where not converging is no fault, or is judged by the test itself.
quiet_fit <- function(...) suppressWarnings(fit_cosine_moe(...), classes = "cosmoe_warning_convergence")
quiet_fit_clear <- function(...) suppressWarnings(fit_clear(...), classes = "cosmoe_warning_convergence")

# The truth as a start, off by noise of standard deviation `by` in every parameter.
near_truth <- function(truth, by = 0.1) {
  lapply(truth[c("beta", "b", "experts")], function(value) value + by * stats::rnorm(length(value)))
}

# ---- fits in the reference's coordinates ---------------------------------------------------------------------------

theta_of <- function(fit, order = seq_len(fit$k)) {
  ref_pack(list(u = unname(fit$gate$u)[, order, drop = FALSE], b = fit$gate$b[order], eta = fit$experts[, order]))
}

ref_model_of <- function(fit) {
  router <- fit$router
  top_k <- if (is.null(router$top_k)) 0L else router$top_k
  ref_model(ref_router(router$name, router$scale, router$tau1, router$tau2, top_k), unclass(fit$expert), fit$k)
}

# The order of the fitted experts that comes closest to the true ones.
match_experts <- function(fitted, true) {
  orders <- list(1:2, 2:1)
  distance <- vapply(orders, function(order) sum((fitted[, order] - true)^2), 0)
  orders[[which.min(distance)]]
}

# Errors of two experts' identifiable parameters (gate contrasts, experts), and their covariance by the Gauss-Newton
# matrix at the truth, which is singular along the gauge only.
estimation_error <- function(fit, data) {
  d <- ncol(data$x)
  gates <- cbind(-diag(d + 1), diag(d + 1))
  q <- nrow(fit$experts)
  contrast <- rbind(cbind(gates, matrix(0, d + 1, 2 * q)), cbind(matrix(0, 2 * q, 2 * (d + 1)), diag(2 * q)))
  spectrum <- eigen(ref_normal(data$theta, data$model, data$x), symmetric = TRUE)
  kept <- spectrum$values > 1e-9 * spectrum$values[1]
  root <- contrast %*% spectrum$vectors[, kept] %*% diag(1 / sqrt(spectrum$values[kept]))
  covariance <- data$sigma^2 * tcrossprod(root)
  order <- match_experts(fit$experts, data$truth$experts)
  error <- drop(contrast %*% (theta_of(fit, order) - data$theta))
  list(ratio = error / sqrt(diag(covariance)), distance = sum(error * solve(covariance, error)), rank = sum(kept))
}

# Everything of a fit but how it was asked for.
contents <- function(fit, without = NULL) unclass(fit)[setdiff(names(fit), c("call", without))]

# ---- an optimiser of its own ---------------------------------------------------------------------------------------

# The lowest sum of squares that NLopt's SLSQP finds in plain R from `starts` random points; the gates stay in their
# balls. Covariates are those of the reference: what the gate and the experts see.
oracle_squares <- function(model, x, y, starts, seed = 1, radius = model$router$scale, z = x) {
  design <- ref_design(model, x, z)
  d_gate <- ncol(z)
  k <- model$k
  place <- function(j) (j - 1) * (d_gate + 1) + seq_len(d_gate)
  unit <- sum((y - mean(y))^2)
  objective <- function(theta) {
    pass <- ref_pass(theta, model, design, y)
    list(objective = 2 * pass$value / unit, gradient = 2 * pass$gradient / unit)
  }
  balls <- function(theta) {
    jacobian <- matrix(0, k, length(theta))
    for (j in seq_len(k)) jacobian[j, place(j)] <- 2 * theta[place(j)] / radius^2
    list(
      constraints = vapply(seq_len(k), function(j) sum(theta[place(j)]^2) / radius^2 - 1, 0), jacobian = jacobian
    )
  }
  one <- function(i) {
    u <- matrix(stats::rnorm(d_gate * k), d_gate)
    u <- u * rep(radius * stats::runif(k) / sqrt(colSums(u^2)), each = d_gate)
    near <- replicate(k, sample(length(y), max(ncol(x) + 3, length(y) %/% (3 * k))), simplify = FALSE)
    eta <- vapply(near, function(rows) {
      line <- stats::lm.fit(cbind(x, 1)[rows, , drop = FALSE], y[rows])$coefficients
      ifelse(is.na(line), 0, line) + stats::rnorm(length(line), sd = 0.3 * stats::sd(y))
    }, numeric(ncol(x) + 1))
    run <- nloptr::nloptr(ref_pack(list(u = u, b = stats::rnorm(k), eta = eta)), objective,
      eval_g_ineq = balls, opts = list(algorithm = "NLOPT_LD_SLSQP", maxeval = 1000, xtol_rel = 1e-10, ftol_rel = 1e-14)
    )
    # A run that ends outside a ball by more than rounding does not count.
    if (max(balls(run$solution)$constraints) > 1e-8) Inf else run$objective * unit
  }
  ref_with_seed(seed, vapply(seq_len(starts), one, 0))
}

# ---- fits in other processes ---------------------------------------------------------------------------------------

# Starts `code` (lines of R) in a fresh R process with the same libraries; waits for it unless told not to.
run_r <- function(code, wait = TRUE, output = tempfile("child", fileext = ".log")) {
  script <- tempfile("child", fileext = ".R")
  writeLines(c(sprintf(".libPaths(%s)", paste(deparse(.libPaths()), collapse = "")), code), script)
  status <- system2(file.path(R.home("bin"), "Rscript"), c("--vanilla", shQuote(script)),
    stdout = output, stderr = output, wait = wait
  )
  list(status = status, output = output)
}

wait_for <- function(ready, seconds) {
  end <- Sys.time() + seconds
  while (!ready() && Sys.time() < end) Sys.sleep(0.02)
  ready()
}

# ---- over-specified fits -------------------------------------------------------------------------------------------

# Two GELU experts fitted by three, from a start near the truth: one of the true experts, drawn at random, is doubled
# and all get noise. `random`: the truth itself is drawn, with ||a|| = 3, ||beta|| = 0.5 = tau1 = tau2; or one fixed
# truth.
over_data <- function(seed, n = 1e4, random = TRUE) {
  model <- ref_model(ref_router("perturbed_cosine", tau1 = 0.5, tau2 = 0.5), "gelu", 2)
  ref_with_seed(seed, {
    direction <- function(size) {
      v <- stats::rnorm(2)
      size * v / sqrt(sum(v^2))
    }
    truth <- if (random) {
      list(
        beta = cbind(direction(0.5), direction(0.5)), b = c(stats::rnorm(1, 0, 0.3), 0),
        experts = rbind(cbind(direction(3), direction(3)), stats::runif(2, -0.5, 0.5))
      )
    } else {
      list(
        beta = cbind(c(0.5, 0), c(-0.25, 0.433)), b = c(0.3, 0),
        experts = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5))
      )
    }
    x <- matrix(stats::runif(2 * n, -1, 1), n)
    theta <- ref_pack(list(u = ref_gate_from_beta(model$router, truth$beta), b = truth$b, eta = truth$experts))
    f <- ref_f(theta, model, x)
    doubled <- sample(2, 1)
    split <- function(value, sd) cbind(value, value[, doubled]) + stats::rnorm(3 * nrow(value), sd = sd)
    start <- list(
      beta = split(truth$beta, 0.2),
      b = c(truth$b, truth$b[doubled]) + stats::rnorm(3, 0, 0.2) - log(2) * (c(1, 2, doubled) == doubled),
      experts = split(truth$experts, 0.3)
    )
    list(x = x, f = f, y = f + 0.1 * stats::rnorm(n), sigma = 0.1, start = start, model = model)
  })
}

# ---- judging a solution with the reference's derivatives -----------------------------------------------------------

# The largest component of the gradient, projected on what the gates' balls leave free, in units of sqrt(curvature) *
# sigma: near a minimum its square bounds from below what a step can take off the sum of squares, over sigma^2. Also the
# multipliers of the gates on the boundary, which must not be negative.
first_order_conditions <- function(fit, x, y, z = x, limit = fit$router$scale) {
  model <- ref_model_of(fit)
  theta <- theta_of(fit)
  gradient <- ref_gradient(theta, model, x, z, y)
  curvature <- diag(ref_normal(theta, model, x, z))
  d_gate <- ncol(z)
  multiplier <- rep(0, fit$k)
  for (j in seq_len(fit$k)) {
    place <- (j - 1) * (d_gate + 1) + seq_len(d_gate)
    u <- theta[place]
    sphere <- model$router$name == "cosine"
    if (sphere || sqrt(sum(u^2)) >= limit * (1 - 1e-6)) {
      multiplier[j] <- -sum(u * gradient[place]) / sum(u^2)
      gradient[place] <- gradient[place] + multiplier[j] * u
      if (sphere) multiplier[j] <- 0
      # On the boundary one curvature may vanish, in coordinates that are no longer free; the ball adds its own.
      curvature[place] <- max(curvature[place]) + max(multiplier[j], 0)
    }
  }
  list(
    gradient = max(abs(gradient) / sqrt(curvature)) / fit$sigma,
    multiplier = multiplier * limit / sqrt(max(curvature)) / fit$sigma
  )
}
