# Profile of the sum of squares, or of -2 log likelihood: its minimum over all other parameters as a function of one
# identifiable coordinate.
#
# The parameters move in the coordinates v of R/information.R, theta(v) = theta + sqrt(variance) B v, on spheres
# retracted: near the solution the rise of the sum of squares over sigma^2, or of -2 log likelihood, is the squared norm
# of v, so that NLopt's SLSQP, which begins with the identity for a Hessian, needs few passes. The coordinate is an
# equality constraint.
# Bounded gates lie in their balls after a common shift, which changes no probability: the shift is a variable too.

# Both ends of the interval, relative to the estimate.
profile_ends <- function(fit, info, j, quantile) {
  problem <- profile_problem(fit, info, j)
  if (problem$error == 0) return(c(0, 0))
  c(profile_end(problem, -quantile), profile_end(problem, quantile))
}

# The change of the coordinate at which the signed root of the rise reaches `target`, or infinity. Beside secant steps,
# the bracket at least closes by a tenth.
profile_end <- function(problem, target) {
  inner <- list(at = 0, root = 0)
  outer <- NULL
  at <- target
  point <- NULL
  for (pass in seq_len(40L)) {
    point <- constrained_minimum(problem, at, point)
    if (!is.null(point) && abs(point$root - abs(target)) < 1e-4 * abs(target)) return(at * problem$error)
    if (is.null(point) || point$root > abs(target)) {
      outer <- list(at = at, root = if (is.null(point)) Inf else point$root)
    } else {
      inner <- list(at = at, root = point$root)
    }
    if (is.null(outer)) {
      at <- at * min(2, max(1.1, abs(target) / max(inner$root, 1e-3)))
      if (abs(at) > 1e4 * abs(target)) break
    } else {
      share <- if (is.finite(outer$root)) (abs(target) - inner$root) / (outer$root - inner$root) else 0.5
      at <- inner$at + min(0.9, max(0.1, share)) * (outer$at - inner$at)
      if (abs(outer$at - inner$at) < 1e-6 * abs(outer$at)) break
    }
  }
  # A closed bracket is the end; a value that no point of the parameter space has, beyond all where the sum of squares
  # rises too little, leaves it open.
  if (!is.null(outer) && is.finite(outer$root)) return(outer$at * problem$error)
  if (is.null(problem$balls) && !is.null(outer)) return(NA_real_)
  sign(target) * Inf
}

# What NLopt needs, with v followed by the shift of the gates (if any).
profile_problem <- function(fit, info, j) {
  par <- info$par
  d <- nrow(par$u)
  size <- sqrt(info$variance)
  direction <- as.vector(crossprod(info$root, info$maps$report[j, ])) * size
  radius <- gate_radius(fit)
  shifts <- if (is.finite(radius)) d else 0L
  r <- ncol(info$root)
  value <- core_call(core_objective(info$model, info$rows, par, 0L, info$threads))$value
  place <- function(v) {
    step <- size * as.vector(info$root %*% v[seq_len(r)])
    moved <- move_parameters(par, step, fit$router)
    if (shifts > 0L) moved$u <- moved$u + radius * v[r + seq_len(shifts)]
    list(par = moved, step = step)
  }
  # d theta / d v, applied to the left of a gradient in theta.
  pull_back <- function(gradient, at) {
    if (fit$router$name == "cosine") {
      for (i in seq_len(ncol(par$u))) {
        own <- gate_block(par, i)
        unit <- at$par$u[, i] / fit$router$scale
        tangent <- gradient[own] - unit * sum(unit * gradient[own])
        gradient[own] <- tangent * fit$router$scale / sqrt(sum((par$u[, i] + at$step[own])^2))
      }
    }
    c(size * as.vector(crossprod(info$root, gradient)), rep(0, shifts))
  }
  coordinate <- info$maps$report[j, ]
  start <- theta_vector(par)
  error <- sqrt(sum(direction^2))
  list(
    error = error, likelihood = is_em(fit),
    start = function(at) c(direction * at / error, rep(0, shifts)),
    rise = function(v) {
      at <- place(v)
      now <- core_call(core_objective(info$model, info$rows, at$par, 1L, info$threads))
      list(
        objective = 2 * (now$value - value) / info$variance,
        gradient = 2 * pull_back(now$gradient, at) / info$variance
      )
    },
    # Of the coordinate, in standard errors.
    change = function(v) {
      at <- place(v)
      list(
        constraints = sum(coordinate * (theta_vector(at$par) - start)) / error,
        jacobian = pull_back(coordinate, at) / error
      )
    },
    balls = ball_constraints(fit, info, radius, shifts, place, pull_back)
  )
}

theta_vector <- function(par) c(rbind(par$u, par$b), par$eta, par$phi)

# The radius of the ball that holds the gates' working vectors; infinite when there is none.
gate_radius <- function(fit) {
  bound <- fit$control$bound_gate
  switch(fit$router$name,
    linear = fit$router$scale * bound,
    perturbed_cosine = fit$router$scale * if (is.finite(bound)) bound / (bound + fit$router$tau1) else 1,
    cosine = Inf
  )
}

# The squared norms of bounded gates and experts over their squared bounds, minus 1; NULL when nothing is bounded.
ball_constraints <- function(fit, info, radius, shifts, place, pull_back) {
  bound <- fit$control$bound_expert
  r <- ncol(info$root)
  k <- fit$k
  if (!is.finite(radius) && !is.finite(bound)) return(NULL)
  function(v) {
    at <- place(v)
    zero <- numeric(length(theta_vector(at$par)))
    value <- NULL
    jacobian <- NULL
    for (i in seq_len(k * is.finite(radius))) {
      u <- at$par$u[, i]
      row <- pull_back(replace(zero, gate_block(at$par, i), 2 * u / radius^2), at)
      row[r + seq_len(shifts)] <- 2 * u / radius
      value <- c(value, sum(u^2) / radius^2 - 1)
      jacobian <- rbind(jacobian, row)
    }
    for (i in seq_len(k * is.finite(bound))) {
      eta <- at$par$eta[, i]
      own <- k * (nrow(at$par$u) + 1L) + (i - 1L) * length(eta) + seq_along(eta)
      value <- c(value, sum(eta^2) / bound^2 - 1)
      jacobian <- rbind(jacobian, pull_back(replace(zero, own, 2 * eta / bound^2), at))
    }
    list(constraints = value, jacobian = unname(jacobian))
  }
}

# The minimum with the coordinate `at` standard errors from its estimate: v and the root of the rise; NULL when there is
# no such point in the parameter space. `near` is the minimum for another value.
constrained_minimum <- function(problem, at, near) {
  start <- if (is.null(near)) problem$start(at) else near$v * at / near$at
  run <- nloptr(
    start, problem$rise,
    eval_g_eq = function(v) {
      now <- problem$change(v)
      list(constraints = now$constraints - at, jacobian = now$jacobian)
    },
    eval_g_ineq = problem$balls,
    opts = list(algorithm = "NLOPT_LD_SLSQP", maxeval = 500L, ftol_abs = 1e-9, ftol_rel = 1e-12, xtol_rel = 1e-10)
  )
  v <- run$solution
  off <- abs(problem$change(v)$constraints - at)
  outside <- if (is.null(problem$balls)) 0 else max(problem$balls(v)$constraints, 0)
  # 5: the limit of evaluations. Failures are common near a minimum and say little.
  if (run$status == 5L || off > 1e-4 * max(1, abs(at)) || outside > 1e-6 || !is.finite(run$objective)) return(NULL)
  if (run$objective < -0.01) {
    what <- if (problem$likelihood) "larger likelihood" else "smaller sum of squares"
    stop_cosmoe("profile", paste0("The profile found a ", what, " than the fit: refit with more starts."))
  }
  list(v = v, at = at, root = sqrt(max(run$objective, 0)))
}
