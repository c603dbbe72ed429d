# One description of a solution for everything that asks how certain it is: vcov(), confint(), predict(se.fit = TRUE),
# estfun(), anova(), summary().
#
# Near the solution the sum of squares is a quadratic form in the *identifiable* directions: on the sphere of a cosine
# gate the tangent ones, and in all routers without the gauge, which changes no probability. `root` holds a basis B of
# these directions in working coordinates (P x r) with B'NB = I, N = sum w J'J, so that BB' is a generalized inverse of
# N. Whatever is gauge-free does not depend on the choice of B.

# A list: model, rows (the fit's, in working coordinates), par there, maps (see coordinate_maps()), normal (N), root,
# hessian (B'HB, H the exact Hessian on the tangent space), variance (of B's coordinates), irregular (reasons in
# words why standard errors would mislead, see R/irregular.R). `env` is where the data of matrix fits are looked for.
information <- function(fit, env) {
  if (is_streamed(fit)) return(c(source_information(fit), list(irregular = fit$source$irregular)))
  data <- training_data(fit, env)
  likelihood <- likelihood_of(fit)
  rows <- working_rows(data, fit$router, fit$expert, fit$standardize, fit$control, likelihood)
  info <- c(information_at(fit, rows), list(offset = data$offset))
  info$irregular <- irregularities(fit, info)
  info
}

# All but `irregular`; `at` has the sums over the rows at the solution, if they are known.
information_at <- function(fit, rows, at = NULL) {
  likelihood <- likelihood_of(fit)
  model <- likelihood_model(core_model(fit$router, fit$expert, fit$k, fit$control), likelihood, rows)
  par <- working_parameters(start_of(fit), fit$router, fit$expert, rows, model)
  if (is.null(at)) at <- core_call(core_objective(model, rows, par, 3L, fit$control$threads))
  tangent <- tangent_basis(par, fit$router)
  # A likelihood's information is the observed one, in place of the expected one of least squares.
  basis <- if (is_em(fit)) symmetric(sphere_hessian(at, par, fit$router)) else at$normal
  found <- identifiable_root(crossprod(tangent, basis %*% tangent), structural_df(fit))
  root <- tangent %*% found$root
  list(
    model = model, rows = rows, par = par, threads = fit$control$threads,
    maps = coordinate_maps(fit, rows),
    normal = at$normal,
    root = root,
    hessian = symmetric(crossprod(root, sphere_hessian(at, par, fit$router) %*% root)),
    variance = if (is_em(fit)) 1 / rows$w_scale else fit$sigma^2 / rows$y_scale^2 / rows$w_scale,
    null = max(found$null, structural_df(fit) - fit$df)
  )
}

# The rows of the fit: covariates, and response, weights and offset, which every fit keeps. A function between the user
# and a method, such as sandwich::sandwich(), has its own variables: then the frames further out are asked as well.
training_data <- function(fit, env) {
  check_rows(fit)
  places <- if (is.null(fit$formula)) c(list(env), rev(sys.frames()), list(globalenv())) else list(env)
  problem <- NULL
  for (place in places) {
    data <- tryCatch(verified_covariates(fit, place), cosmoe_error_data = function(e) e)
    if (!inherits(data, "condition")) break
    if (is.null(problem)) problem <- data
  }
  if (inherits(data, "condition")) stop(problem)
  c(data[c("x", "z")], list(
    y = fit$y, trials = fit$trials, w = fit$weights, offset = fit$offset, names = fit$names
  ))
}

verified_covariates <- function(fit, env) {
  data <- training_covariates(fit, env)
  check_unchanged(fit, evaluate_model(fit, data, fit$control$threads)$response)
  data
}

symmetric <- function(m) (m + t(m)) / 2

# The number of identifiable parameters of the model, whatever the solution.
structural_df <- function(fit) {
  router_df(fit$router, fit$k, nrow(fit$gate$u)) + length(fit$experts) + length(log_dispersion(fit))
}

# Columns span the directions in which the parameters may move: all, but on a sphere those of its tangent space.
tangent_basis <- function(par, router) {
  size <- length(unlist(par))
  if (router$name != "cosine" || nrow(par$u) == 0L) return(diag(size))
  normals <- matrix(0, size, ncol(par$u))
  for (j in seq_len(ncol(par$u))) normals[gate_block(par, j), j] <- par$u[, j]
  qr.Q(qr(normals), complete = TRUE)[, -seq_len(ncol(par$u)), drop = FALSE]
}

# Where u_j lies in theta: see R/coordinates.R and ARCHITECTURE.md.
gate_block <- function(par, j) (j - 1L) * (nrow(par$u) + 1L) + seq_len(nrow(par$u))

# Along a sphere the Hessian is that of the objective plus the sphere's multiplier on its block.
sphere_hessian <- function(at, par, router) {
  hessian <- at$hessian
  if (router$name != "cosine") return(hessian)
  for (j in seq_len(ncol(par$u))) {
    own <- gate_block(par, j)
    diag(hessian)[own] <- diag(hessian)[own] - sum(par$u[, j] * at$gradient[own]) / sum(par$u[, j]^2)
  }
  hessian
}

# A matrix R with R'NR = I over the `expected` best determined directions of N, after scaling to a diagonal of ones;
# the others are the gauge's. `null`: how many of the former the data do not determine at all.
identifiable_root <- function(normal, expected) {
  size <- sqrt(pmax(diag(normal), 1e-28 * max(diag(normal), 1e-280)))
  spectrum <- eigen(normal / outer(size, size), symmetric = TRUE)
  values <- spectrum$values[seq_len(expected)]
  kept <- which(values > 1e-11)
  root <- spectrum$vectors[, kept, drop = FALSE] / size
  list(
    root = root * rep(1 / sqrt(values[kept]), each = nrow(root)),
    null = expected - length(kept)
  )
}

# `report`: the linear map from working coordinates to those of coef(fit, "identifiable"). `work`: one from there to
# working coordinates, the gate's contrasts taken for its parameters, which is the same function.
coordinate_maps <- function(fit, rows) {
  k <- fit$k
  d <- length(fit$names$x)
  d_gate <- nrow(fit$gate$u)
  linear <- fit$router$name == "linear"
  factor <- c(rep(fit$router$scale, d_gate), 1)
  gate <- diag(d_gate + 1L)
  first <- c(d_gate + 1L, seq_len(d_gate))
  gate_report <- gate_work <- gate
  if (linear) {
    gate_report <- to_raw_scale(gate, rows$z_center, rows$z_scale) / factor
    gate_work <- to_unit_scale(gate * factor, rows$z_center, rows$z_scale)
  }
  gate_report <- gate_report[first, , drop = FALSE]
  gate_work <- gate_work[, first, drop = FALSE]

  one <- diag(nrow(fit$experts))
  intercept <- rownames(fit$experts) == "(Intercept)"
  order <- c(which(intercept), which(!intercept))
  expert_report <- convert_eta(one, fit$expert, d, to_raw_scale, rows)
  expert_report <- scale_experts(expert_report, fit$expert, d, rows$eta_scale)[order, , drop = FALSE]
  expert_work <- scale_experts(one, fit$expert, d, 1 / rows$eta_scale)
  expert_work <- convert_eta(expert_work, fit$expert, d, to_unit_scale, rows)[, order, drop = FALSE]

  each <- diag(k)
  contrasts <- each - 1 / k
  no_gate <- k == 1L
  # Logarithms of dispersions differ by a constant only.
  phi <- diag(length(log_dispersion(fit)))
  list(
    report = block_diagonal(
      if (no_gate) matrix(0, 0L, d_gate + 1L) else kronecker(contrasts, gate_report),
      block_diagonal(kronecker(each, expert_report), phi)
    ),
    work = block_diagonal(
      if (no_gate) matrix(0, d_gate + 1L, 0L) else kronecker(each, gate_work),
      block_diagonal(kronecker(each, expert_work), phi)
    )
  )
}

block_diagonal <- function(a, b) {
  rbind(cbind(a, matrix(0, nrow(a), ncol(b))), cbind(matrix(0, nrow(b), ncol(a)), b))
}

# Working parameters at theta + step, back on the spheres of a cosine gate.
move_parameters <- function(par, step, router) {
  d <- nrow(par$u)
  k <- ncol(par$u)
  gates <- seq_len((d + 1L) * k)
  gate <- rbind(par$u, par$b) + step[gates]
  u <- gate[seq_len(d), , drop = FALSE]
  if (router$name == "cosine") u <- u * rep(router$scale / sqrt(colSums(u^2)), each = d)
  rest <- step[-gates]
  own <- seq_along(par$eta)
  c(
    list(u = u, b = gate[d + 1L, ], eta = par$eta + rest[own]),
    if (length(par$phi)) list(phi = par$phi + rest[-own])
  )
}
