# Three sets of coordinates (see ARCHITECTURE.md). *Working*: what the core moves, on covariates centred and scaled
# while they are loaded. *Reported*: what the user sees. Canonical: the one representative of all reported parameters
# that give the same regression function.

# The `model` list of the bridge.
core_model <- function(router, expert, k, control = NULL) {
  expert <- unclass(expert)
  expert$bound_expert <- if (is.null(control)) Inf else control$bound_expert
  list(router = core_router(router, control), expert = expert, k = as.integer(k))
}

core_router <- function(router, control = NULL) {
  router <- unclass(router)
  router$top_k <- if (is.null(router$top_k)) 0L else as.integer(router$top_k)
  router$bound_gate <- if (is.null(control)) Inf else control$bound_gate
  router
}

# The `rows` list of the bridge for a fit. Experts and linear gates are functions of linear predictors, so the scale
# they are fitted on is a matter of numerics, except: bounds are promises about reported parameters, a custom expert
# sees the user's own covariates, and stochastic gradients are the protocol on the scale the user has chosen. The gate
# is also left alone when its covariates have been standardized before (`data$gate_frozen`).
working_rows <- function(data, router, expert, standardize, control, likelihood = NULL) {
  z <- if (is.null(data$z)) data$x else data$z
  scaled <- scaled_parts(router, expert, standardize, control, likelihood, data$gate_frozen)
  # Of a sample, centre and scale may be those of all rows.
  scale_x <- if (!scaled$x) NULL else if (is.null(data$scales)) column_scales(data$x, data$w) else data$scales$x
  same_z <- is.null(data$z) && scaled$x
  scale_z <- if (!scaled$z) {
    NULL
  } else if (same_z) {
    scale_x
  } else if (is.null(data$scales)) {
    column_scales(z, data$w)
  } else {
    data$scales$z
  }
  if (scaled$origin) scale_z$center[] <- 0
  plain_offset <- has_plain_offset(likelihood)
  y_scale <- if (scaled$y) response_scale(if (plain_offset) working_response(data) else data$y, data$w, expert) else 1
  # In a likelihood the offset belongs to the linear predictors.
  y <- if (is.null(likelihood)) working_response(data) else data$y
  w_scale <- weight_unit(data$w, likelihood)
  rows <- list(
    x = data$x, z = data$z, y = if (y_scale == 1) y else y / y_scale, y_scale = y_scale,
    eta_scale = if (y_scale == 1) 1 else predictor_unit(likelihood, y_scale),
    w = if (w_scale == 1) data$w else data$w / w_scale, w_scale = w_scale,
    x_center = scale_x$center, x_scale = scale_x$scale,
    z_center = scale_z$center, z_scale = scale_z$scale
  )
  if (is.null(likelihood)) rows else likelihood_rows(rows, data, likelihood)
}

# What working_rows() scales: covariates of experts and gate, the response; `origin`: the gate's scale only, since a
# sparse gate chooses by scores without bias, and a centre would change the choice.
scaled_parts <- function(router, expert, standardize, control, likelihood, gate_frozen = FALSE) {
  as_given <- !standardize && control$optimizer == "sgd"
  raw_x <- as_given || expert$name == "custom" || is.finite(control$bound_expert)
  linear <- router$name == "linear"
  raw_z <- if (linear) as_given || is.finite(control$bound_gate) else !standardize || isTRUE(gate_frozen)
  scalable <- !as_given && !is.finite(control$bound_expert) && !is.null(predictor_unit(likelihood, 1))
  list(x = !raw_x, z = !raw_z, y = scalable, origin = linear && !is.null(router$top_k) && !raw_z)
}

# Weighted means and standard deviations (divisor: sum of weights), column by column: no copy of a large matrix. A row
# of weight 2 counts as two rows, one of weight 0 as none. Constant columns keep their scale.
column_scales <- function(x, w = NULL) {
  each <- summarise_columns(x, w)
  scale <- each[, "spread"]
  scale[!is.finite(scale) | scale == 0] <- 1
  list(center = unname(each[, "center"]), scale = unname(scale))
}

# Weighted means and spreads, smallest and largest values and their first rows: a matrix with a row for each column.
summarise_columns <- function(x, w = NULL) {
  if (!is.double(x)) storage.mode(x) <- "double"
  core_summarise_columns(x, if (!is.null(w)) as.double(w))
}

# Experts that can be multiplied by a number are fitted to a response of unit size; for others the unit of y has a
# meaning.
response_scale <- function(y, w, expert) {
  if (!is.null(w)) y <- y[w > 0]
  # The root mean square from mean and spread: no copy of a long response.
  about <- summarise_columns(y)[1L, ]
  top <- max(abs(about[c("least", "largest")]))
  response_unit(top * sqrt(sum((about[c("center", "spread")] / top)^2)), expert)
}

# From the root mean square of the response.
response_unit <- function(size, expert) {
  if (length(scaled_parameters(expert, 1L)) && is.finite(size) && size > 0) size else 1
}

# The parameters by which an expert is homogeneous, for d covariates.
scaled_parameters <- function(expert, d) {
  q <- expert_n_par(expert, d)
  switch(expert$name,
    constant = , linear = , relu = , polynomial = seq_len(q),
    network = q - expert$hidden + seq_len(expert$hidden + 1L) - 1L,
    integer()
  )
}

scale_experts <- function(eta, expert, d, factor) {
  own <- scaled_parameters(expert, d)
  eta[own, ] <- eta[own, ] * if (expert$name == "polynomial") factor^(1 / expert$degree) else factor
  eta
}

# Weights of extreme size would under- or overflow. A likelihood is judged in its own units: where weights make these
# tiny, in those of an average row.
weight_unit <- function(w, likelihood) {
  if (is.null(w)) return(1)
  weight_unit_of(max(w), mean(w[w > 0]), likelihood)
}

weight_unit_of <- function(largest, average, likelihood) {
  if (largest < 1e-100 || largest > 1e100) return(largest)
  if (!is.null(likelihood) && average < 0.1) average else 1
}

# Slopes and intercept of linear predictors a'x + b (columns of `coef`, intercept last) on the scale (x - center) /
# scale, as those on the scale of x, and back.
to_raw_scale <- function(coef, center, scale) {
  if (is.null(center)) return(coef)
  d <- length(center)
  a <- coef[seq_len(d), , drop = FALSE] / scale
  rbind(a, coef[d + 1L, ] - colSums(a * center))
}

to_unit_scale <- function(coef, center, scale) {
  if (is.null(center)) return(coef)
  d <- length(center)
  a <- coef[seq_len(d), , drop = FALSE]
  rbind(a * scale, coef[d + 1L, ] + colSums(a * center))
}

# Applies `convert` to each linear predictor of eta (a network has several, constants and custom experts none).
convert_eta <- function(eta, expert, d, convert, rows) {
  units <- switch(expert$name, constant = , custom = 0L, network = expert$hidden, 1L)
  for (j in seq_len(units)) {
    own <- (j - 1L) * (d + 1L) + seq_len(d + 1L)
    eta[own, ] <- convert(eta[own, , drop = FALSE], rows$x_center, rows$x_scale)
  }
  eta
}

# Working parameters as reported ones, in the canonical gauge. For the linear router the gate is on the scale of z.
report_parameters <- function(par, router, expert, rows, model = NULL) {
  d <- ncol(rows$x)
  u <- par$u
  b <- par$b
  if (router$name == "linear") {
    gate <- to_raw_scale(rbind(u, b), rows$z_center, rows$z_scale)
    u <- unname(gate[-nrow(gate), , drop = FALSE])
    b <- gate[nrow(gate), ]
  }
  # A softmax sees contrasts only.
  u <- if (router$name == "cosine") canonical_directions(u, router$scale) else centred_gates(u)
  list(
    u = u,
    b = unname(b) - log_sum_exp(b),
    beta = core_call(core_gate_to_beta(core_router(router), u)),
    eta = scale_experts(convert_eta(par$eta, expert, d, to_raw_scale, rows), expert, d, rows$eta_scale),
    phi = par$phi + dispersion_shift(model, rows)
  )
}

# The logarithm of sigma has the unit of the response, that of a Gamma distribution's shape has none.
dispersion_shift <- function(model, rows) {
  if (is_likelihood(model) && model$family$name == "gaussian") log(rows$y_scale) else 0
}

# A start in reported coordinates (see check_start()) as working parameters.
working_parameters <- function(start, router, expert, rows, model = NULL) {
  u <- if (is.null(start$u)) core_call(core_direction_to_gate(core_router(router), start$beta)) else start$u
  b <- start$b
  if (router$name == "linear") {
    gate <- to_unit_scale(rbind(u, b), rows$z_center, rows$z_scale)
    u <- unname(gate[-nrow(gate), , drop = FALSE])
    b <- gate[nrow(gate), ]
  }
  d <- ncol(rows$x)
  eta <- scale_experts(start$experts, expert, d, 1 / rows$eta_scale)
  par <- list(u = u, b = unname(b), eta = convert_eta(eta, expert, d, to_unit_scale, rows))
  if (length(start$phi)) par$phi <- start$phi - dispersion_shift(model, rows)
  # Stochastic gradient descent moves beta itself, which has a norm under the cosine router too.
  if (is.null(start$u) && router$name != "linear") par$beta <- start$beta
  par
}

log_sum_exp <- function(b) max(b) + log(sum(exp(b - max(b))))

order_experts <- function(par, by) {
  list(
    u = par$u[, by, drop = FALSE], b = par$b[by], beta = par$beta[, by, drop = FALSE],
    eta = par$eta[, by, drop = FALSE], phi = if (length(par$phi) > 1L) par$phi[by] else par$phi
  )
}
