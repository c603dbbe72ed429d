# Where fits begin. Every start is list(kind, u, b, eta) in working coordinates, drawn with R's generator. Most begin
# with a partition of the rows: experts are fitted to its parts, the gate points from part to part. Draws look at no
# more than `start_rows` rows, so their cost does not grow with n.

start_rows <- 2000L

drawn_rows <- function(rows) {
  use <- if (is.null(rows$w)) seq_len(nrow(rows$x)) else which(rows$w > 0)
  if (length(use) > start_rows) sort(use[sample.int(length(use), start_rows)]) else use
}

# The sample that starts look at: X and Z in working coordinates, with features zeta as the gate sees them.
start_sample <- function(rows, model) {
  use <- drawn_rows(rows)
  unit <- function(x, center, scale) {
    x <- x[use, , drop = FALSE]
    if (is.null(center)) x else sweep(sweep(x, 2L, center), 2L, scale, "/")
  }
  z <- unit(if (is.null(rows$z)) rows$x else rows$z, rows$z_center, rows$z_scale)
  norm <- sqrt(rowSums(z^2))
  zeta <- switch(model$router$name,
    linear = z,
    cosine = z / ifelse(norm > 0, norm, 1),
    perturbed_cosine = z / (norm + model$router$tau2)
  )
  raw <- unname(rows$x[use, , drop = FALSE])
  w <- if (is.null(rows$w)) rep(1, length(use)) else rows$w[use]
  x <- unname(unit(rows$x, rows$x_center, rows$x_scale))
  sample <- list(
    x = x, raw = raw, z = unname(z), zeta = unname(zeta), y = rows$y[use], w = w,
    # What every draw needs again.
    design = cbind(x, 1), standard_x = standard_columns(x), standard_z = standard_columns(unname(z)),
    gate_length = gate_length(zeta, model$router)
  )
  if (!is_likelihood(model)) return(sample)
  responses <- sample_responses(rows, use)
  # Experts are fitted to the response on the scale of their linear predictors.
  near <- linearised_response(model$family, responses$response, responses$trials)
  sample$y <- near$eta - responses$offset
  sample$w <- w * near$weight
  c(sample, responses)
}

# `count` starts of all kinds in turn.
begin_starts <- function(sample, model, count) {
  kinds <- c("cluster", "direction", "residual", "cells", if (is_likelihood(model)) c("classification", "stochastic"))
  lapply(seq_len(count), function(i) draw_start(kinds[(i - 1L) %% length(kinds) + 1L], sample, model))
}

draw_start <- function(kind, sample, model) {
  part <- switch(kind,
    cluster = partition_clusters(sample, model$k),
    residual = partition_residuals(sample, model$k),
    cells = partition_cells(sample, model$k),
    classification = partition_by_em(sample, model, stochastic = FALSE),
    stochastic = partition_by_em(sample, model, stochastic = TRUE),
    direction = NULL
  )
  c(list(kind = kind), start_of_partition(part, sample, model))
}

# Parameters from a partition of the rows, or from a random gate.
start_of_partition <- function(part, sample, model) {
  gate <- if (is.null(part)) random_gate(sample, model) else gate_of_partition(part, sample, model)
  share <- if (is.null(part)) gate_shares(gate, sample) else outer(part, seq_len(model$k), "==") + 0.02
  eta <- levelled_experts(experts_of_shares(share, sample, model), share, sample, model)
  eta <- feasible_experts(eta, sample, model)
  phi <- if (is_likelihood(model)) start_dispersions(start_means(eta, sample, model), share, sample, model)
  c(gate, list(eta = eta, phi = phi))
}

# k-means on covariates and response, each with a random weight.
partition_clusters <- function(sample, k) {
  data <- cbind(sample$standard_x, sample$standard_z, standard_columns(cbind(sample$y)))
  data <- scale_columns(data, stats::runif(ncol(data), 0.2, 1))
  data[, ncol(data)] <- data[, ncol(data)] * stats::runif(1L, 0.5, 2) * sqrt(ncol(data))
  # Few rows may be too few distinct ones for k means.
  if (nrow(data) <= 2L * k && nrow(unique(data)) <= k) return(sample.int(k, nrow(data), replace = TRUE))
  tryCatch(
    suppressWarnings(stats::kmeans(data, k, iter.max = 20L)$cluster),
    error = function(e) sample.int(k, nrow(data), replace = TRUE)
  )
}

# Nearest of k random rows in the gate's covariates.
partition_cells <- function(sample, k) {
  z <- scale_columns(sample$standard_z, stats::runif(ncol(sample$z))^2)
  centers <- z[sample.int(nrow(z), k, replace = nrow(z) < k), , drop = FALSE]
  # Squared distances without what all centres share.
  closeness <- 2 * tcrossprod(z, centers) - rep(rowSums(centers^2), each = nrow(z))
  max.col(closeness, ties.method = "random")
}

# Linear fits, split again and again: the part with the largest residual sum of squares by the sign of its residuals, or
# by a random direction of the gate's covariates.
partition_residuals <- function(sample, k) {
  part <- rep(1L, length(sample$y))
  residual <- part_residuals(part == 1L, sample)
  for (new in seq_len(k)[-1L]) {
    loss <- rowsum(sample$w * residual^2, factor(part, seq_len(new - 1L)))
    present <- as.integer(rownames(loss))
    weight <- stats::runif(new - 1L, 0.5, 1)
    within <- which(part == present[which.max(loss * weight[present])])
    along <- if (stats::runif(1L) < 0.5 || ncol(sample$z) == 0L) {
      residual[within]
    } else {
      drop(sample$z[within, , drop = FALSE] %*% stats::rnorm(ncol(sample$z)))
    }
    cut <- stats::quantile(along, stats::runif(1L, 0.25, 0.75), names = FALSE)
    old <- part[within[1L]]
    part[within[along > cut]] <- new
    for (j in c(old, new)) {
      own <- part == j
      residual[own] <- part_residuals(own, sample)
    }
  }
  part
}

# Residuals of the linear fit to the rows that are `own`.
part_residuals <- function(own, sample) {
  if (!any(own)) return(numeric())
  x <- sample$design[own, , drop = FALSE]
  sample$y[own] - drop(x %*% ridge(x, sample$y[own], sample$w[own]))
}

standard_columns <- function(data) {
  data <- data - rep(colMeans(data), each = nrow(data))
  scale <- sqrt(colSums(data^2) / max(nrow(data) - 1L, 1L))
  scale_columns(data, 1 / ifelse(is.finite(scale) & scale > 0, scale, 1))
}

# sweep(data, 2, factor, "*"), without its overhead.
scale_columns <- function(data, factor) data * rep(factor, each = nrow(data))

# Weighted least squares with a little shrinkage of slopes (last column: intercept), so that small parts have a fit too.
ridge <- function(x, y, w) core_call(core_ridge(x, y, w, 1e-3))

# The gate constraint's radius, or a typical length where there is none.
gate_length <- function(zeta, router) {
  if (router$name != "linear") return(router$scale)
  2 / max(sqrt(mean(rowSums(zeta^2)) / max(ncol(zeta), 1)), 1e-300)
}

random_gate <- function(sample, model) {
  k <- model$k
  u <- matrix(stats::rnorm(ncol(sample$zeta) * k), ncol(sample$zeta), k)
  length <- sample$gate_length * if (model$router$name == "cosine") 1 else stats::runif(k)^(1 / 3)
  u <- scale_columns(u, length / pmax(sqrt(colSums(u^2)), 1e-300))
  list(u = u, b = balanced_bias(u, rep(1 / k, k), sample))
}

# Gates that point from the mean of all features to those of the parts.
gate_of_partition <- function(part, sample, model) {
  k <- model$k
  share <- pmax(tabulate(part, k), 0.5) / length(part)
  center <- colMeans(sample$zeta)
  u <- vapply(seq_len(k), function(j) {
    own <- sample$zeta[part == j, , drop = FALSE]
    if (nrow(own)) colMeans(own) - center else 0 * center
  }, numeric(length(center)))
  dim(u) <- c(length(center), k)
  u <- u + 1e-3 * max(abs(u), 1e-8) * stats::rnorm(length(u))
  reach <- if (model$router$name == "cosine") sqrt(colSums(u^2)) else max(sqrt(colSums(u^2)))
  u <- scale_columns(u, rep_len(sample$gate_length / pmax(reach, 1e-300), k))
  if (model$router$name != "cosine") u <- u * stats::runif(1L, 0.3, 1)
  list(u = u, b = balanced_bias(u, share, sample))
}

# Biases that give expert k about the wanted mean weight.
balanced_bias <- function(u, share, sample) {
  score <- sample$zeta %*% u
  log(share) - vapply(seq_along(share), function(j) log_sum_exp(score[, j]), 0) + log(nrow(score))
}

gate_shares <- function(gate, sample) {
  logit <- sample$zeta %*% gate$u + rep(gate$b, each = nrow(sample$zeta))
  p <- exp(logit - logit[cbind(seq_len(nrow(logit)), max.col(logit, ties.method = "first"))])
  p / rowSums(p)
}

# Experts fitted to rows weighted by `share` (n x k): regressions of the response, pulled back through the activation.
experts_of_shares <- function(share, sample, model) {
  expert <- model$expert
  one <- function(j) {
    w <- sample$w * share[, j]
    switch(expert$name,
      constant = sum(w * sample$y) / sum(w),
      network = network_start(expert, sample, w),
      custom = stats::rnorm(expert$n_par),
      ridge(sample$design, pull_back_response(expert, sample$y), w)
    )
  }
  eta <- matrix(vapply(seq_len(model$k), one, numeric(expert_n_par(expert, ncol(sample$x)))), ncol = model$k)
  if (expert$name == "constant") return(eta)
  noise <- stats::runif(1L, 0, 0.3) * max(sqrt(mean(eta^2)), 1e-8)
  eta + noise * matrix(stats::rnorm(length(eta)), nrow(eta))
}

# phi^-1(y) where it exists, and something near it where it does not.
pull_back_response <- function(expert, y) {
  switch(expert$name,
    tanh = atanh(pmax(pmin(y, 0.9), -0.9)),
    sigmoid = stats::qlogis(pmax(pmin(y, 0.95), 0.05)),
    softplus = {
      floor <- 0.05
      v <- pmax(y, floor)
      v + log1p(-exp(-v))
    },
    polynomial = if (expert$degree %% 2L) {
      sign(y) * abs(y)^(1 / expert$degree)
    } else {
      sample(c(-1, 1), 1L) * pmax(y, 0)^(1 / expert$degree)
    },
    y
  )
}

# Random hidden units, with output weights by least squares.
network_start <- function(expert, sample, w) {
  d <- ncol(sample$x)
  hidden <- expert$hidden
  a <- matrix(stats::rnorm((d + 1L) * hidden), d + 1L, hidden)
  spread <- apply(cbind(sample$x, 1) %*% a, 2L, stats::sd)
  a <- sweep(a, 2L, pmax(spread, 1e-8) / stats::runif(hidden, 0.5, 3), "/")
  units <- activate(expert$activation, cbind(sample$x, 1) %*% a)
  c(a, ridge(cbind(units, 1), sample$y, w))
}

activate <- function(name, s) {
  switch(name,
    relu = pmax(s, 0), gelu = s * stats::pnorm(s), tanh = tanh(s), sigmoid = stats::plogis(s),
    softplus = pmax(s, 0) + log1p(exp(-abs(s)))
  )
}

# Starts for k experts from a solution with one expert less: one of them is doubled, the copies pushed apart. The
# first of each doubled expert is exact, so the larger model never ends above the smaller one.
split_starts <- function(par, sample, model, count) {
  k <- length(par$b)
  lapply(seq_len(count), function(i) {
    j <- (i - 1L) %% k + 1L
    exact <- i <= k
    push <- if (exact) 1e-4 else stats::runif(1L, 0.05, 1)
    u <- cbind(par$u, par$u[, j])
    eta <- cbind(par$eta, par$eta[, j])
    pair <- c(j, k + 1L)
    opposite <- function(size) outer(stats::rnorm(size), c(1, -1))
    u[, pair] <- u[, pair] + push * sample$gate_length * opposite(nrow(u)) / sqrt(max(nrow(u), 1))
    eta[, pair] <- eta[, pair] + 0.3 * push * max(sqrt(mean(par$eta^2)), 1e-8) * opposite(nrow(eta)) *
      (if (exact) 0 else 1)
    b <- c(par$b, par$b[j]) - ifelse(seq_len(k + 1L) %in% pair, log(2), 0)
    phi <- if (isTRUE(model$dispersions > 1L)) c(par$phi, par$phi[j]) else par$phi
    list(
      kind = "split", u = u, b = b, eta = eta, phi = phi,
      contained = if (exact && !isTRUE(par$thinned) && !isTRUE(par$degenerate)) par$objective
    )
  })
}

# Starts near a solution that has converged to a poor optimum: one expert gives up its place and another is doubled.
exchange_starts <- function(par, sample, model, count) {
  k <- length(par$b)
  if (k < 2L) return(list())
  lapply(seq_len(count), function(i) {
    drop <- sample.int(k, 1L)
    smaller <- list(
      u = par$u[, -drop, drop = FALSE], b = par$b[-drop], eta = par$eta[, -drop, drop = FALSE],
      phi = if (length(par$phi) > 1L) par$phi[-drop] else par$phi
    )
    start <- split_starts(smaller, sample, model, k - 1L + sample.int(k - 1L, 1L))
    c(list(kind = "exchange"), start[[length(start)]][c("u", "b", "eta", "phi")])
  })
}
