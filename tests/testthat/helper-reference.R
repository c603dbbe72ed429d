# A plain R implementation of the model, written apart from the package: it never calls it. The tests compare the
# package with it, and bench/ times the package against it, so it is written the way an experienced R programmer would
# write it: whole columns at a time, matrix products, nothing computed twice.
#
# theta holds (u_k, b_k) for each expert k, then eta_k for each k. A model is the list that the package's core takes:
# list(router = list(name, scale, tau1, tau2, top_k), expert = list(name, degree, hidden, activation, value, gradient,
# n_par), k).

# ---- specifications --------------------------------------------------------------------------------------------------

ref_router <- function(name, scale = 1, tau1 = 0.1, tau2 = 0.1, top_k = 0L) {
  list(name = name, scale = scale, tau1 = tau1, tau2 = tau2, top_k = as.integer(top_k))
}

ref_expert <- function(name, degree = 1L, hidden = 1L, activation = "tanh", value = NULL, gradient = NULL, n_par = 0L) {
  list(
    name = name, degree = as.integer(degree), hidden = as.integer(hidden), activation = activation,
    value = value, gradient = gradient, n_par = as.integer(n_par)
  )
}

ref_model <- function(router, expert, k) {
  if (is.character(router)) router <- ref_router(router)
  if (is.character(expert)) expert <- ref_expert(expert)
  list(router = router, expert = expert, k = as.integer(k))
}

# Parameters of one expert.
ref_n_par <- function(expert, d) {
  switch(expert$name,
    constant = 1L,
    network = expert$hidden * (d + 2L) + 1L,
    custom = expert$n_par,
    d + 1L
  )
}

ref_pack <- function(par) c(rbind(par$u, as.numeric(par$b)), par$eta)

ref_unpack <- function(theta, k, d_gate, q) {
  gates <- matrix(theta[seq_len((d_gate + 1) * k)], d_gate + 1, k)
  list(
    u = gates[seq_len(d_gate), , drop = FALSE],
    b = gates[d_gate + 1, ],
    eta = matrix(theta[(d_gate + 1) * k + seq_len(q * k)], q, k)
  )
}

# ---- the gate --------------------------------------------------------------------------------------------------------

ref_features <- function(router, z) {
  size <- sqrt(rowSums(z^2))
  switch(router$name,
    linear = z,
    cosine = z / ifelse(size > 0, size, 1),
    perturbed_cosine = z / (size + router$tau2),
    stop("unknown router ", router$name)
  )
}

# u from the reported beta, and back (only for norm(u) < scale).
ref_gate_from_beta <- function(router, beta) {
  size <- sqrt(colSums(beta^2))
  factor <- switch(router$name,
    linear = rep(router$scale, length(size)),
    cosine = ifelse(size > 0, router$scale / size, 0),
    perturbed_cosine = router$scale / (size + router$tau1)
  )
  beta * rep(factor, each = nrow(beta))
}

ref_beta_from_gate <- function(router, u) {
  if (router$name == "perturbed_cosine") {
    return(u * rep(router$tau1 / (router$scale - sqrt(colSums(u^2))), each = nrow(u)))
  }
  u / router$scale
}

# TRUE for the `top` largest scores of each row; ties go to the lower index.
ref_top <- function(score, top) {
  k <- ncol(score)
  keep <- matrix(TRUE, nrow(score), k)
  for (j in seq_len(k)) {
    better <- 0
    for (i in setdiff(seq_len(k), j)) {
      better <- better + if (i < j) score[, i] >= score[, j] else score[, i] > score[, j]
    }
    keep[, j] <- better < top
  }
  keep
}

ref_softmax <- function(logit) {
  largest <- logit[, 1]
  for (j in seq_len(ncol(logit))[-1]) largest <- pmax(largest, logit[, j])
  weight <- exp(logit - largest)
  weight / rowSums(weight)
}

# ---- experts ---------------------------------------------------------------------------------------------------------

# A named activation at s: its value, and its slope when asked (with what the value already needed).
ref_activation <- function(name, s, degree = 1L) {
  of <- function(value, slope) list(value = value, slope = slope)
  switch(name,
    linear = ,
    identity = of(s, function() array(1, dim(s))),
    polynomial = of(s^degree, function() degree * s^(degree - 1)),
    relu = of(pmax(s, 0), function() (s > 0) + 0),
    gelu = {
      below <- pnorm(s)
      of(s * below, function() below + s * dnorm(s))
    },
    tanh = {
      value <- tanh(s)
      of(value, function() 1 - value^2)
    },
    sigmoid = {
      value <- plogis(s)
      of(value, function() value * (1 - value))
    },
    softplus = of(pmax(s, 0) + log1p(exp(-abs(s))), function() plogis(s)),
    stop("unknown activation ", name)
  )
}

# All experts at once. x1 is the covariate matrix with a column of ones. Returns h (n x k); `jacobian(j)`, the n x q
# derivatives of expert j; and `pull(weight)`, the q x k gradient of sum(weight * h).
ref_experts <- function(expert, x1, eta) {
  n <- nrow(x1)
  d <- ncol(x1) - 1L
  k <- ncol(eta)
  if (expert$name == "constant") {
    return(list(
      h = matrix(eta, n, k, byrow = TRUE),
      jacobian = function(j) matrix(1, n, 1),
      pull = function(weight) matrix(colSums(weight), 1)
    ))
  }
  if (expert$name == "network") {
    hidden <- expert$hidden
    outer <- eta[hidden * (d + 1) + seq_len(hidden), , drop = FALSE]
    layers <- lapply(seq_len(k), function(j) {
      ref_activation(expert$activation, x1 %*% matrix(eta[seq_len(hidden * (d + 1)), j], d + 1))
    })
    h <- vapply(seq_len(k), function(j) drop(layers[[j]]$value %*% outer[, j]) + eta[nrow(eta), j], numeric(n))
    slope <- function(j) layers[[j]]$slope() * rep(outer[, j], each = n)
    return(list(
      h = matrix(h, n, k),
      jacobian = function(j) {
        units <- lapply(seq_len(hidden), function(m) x1 * slope(j)[, m])
        do.call(cbind, c(units, list(layers[[j]]$value, 1)))
      },
      pull = function(weight) {
        vapply(seq_len(k), function(j) {
          c(crossprod(x1, slope(j) * weight[, j]), crossprod(layers[[j]]$value, weight[, j]), sum(weight[, j]))
        }, numeric(nrow(eta)))
      }
    ))
  }
  if (expert$name == "custom") {
    x <- x1[, seq_len(d), drop = FALSE]
    return(list(
      h = matrix(vapply(seq_len(k), function(j) as.numeric(expert$value(x, eta[, j])), numeric(n)), n, k),
      jacobian = function(j) expert$gradient(x, eta[, j]),
      pull = function(weight) {
        vapply(seq_len(k), function(j) drop(crossprod(expert$gradient(x, eta[, j]), weight[, j])), numeric(nrow(eta)))
      }
    ))
  }
  unit <- ref_activation(expert$name, x1 %*% eta, expert$degree)
  list(
    h = unit$value,
    jacobian = function(j) x1 * unit$slope()[, j],
    pull = function(weight) crossprod(x1, if (expert$name == "linear") weight else unit$slope() * weight)
  )
}

# ---- model, objective, derivatives -----------------------------------------------------------------------------------

# What does not change from pass to pass: the two design matrices with their columns of ones.
ref_design <- function(model, x, z = x) {
  list(x1 = cbind(x, 1, deparse.level = 0), zeta1 = cbind(ref_features(model$router, z), 1, deparse.level = 0))
}

ref_forward <- function(theta, model, design) {
  d_gate <- ncol(design$zeta1) - 1L
  par <- ref_unpack(theta, model$k, d_gate, ref_n_par(model$expert, ncol(design$x1) - 1L))
  logit <- design$zeta1 %*% rbind(par$u, par$b, deparse.level = 0)
  top <- model$router$top_k
  if (top > 0 && top < model$k) {
    score <- design$zeta1[, seq_len(d_gate), drop = FALSE] %*% par$u
    logit[!ref_top(score, top)] <- -Inf
  }
  experts <- ref_experts(model$expert, design$x1, par$eta)
  gate <- ref_softmax(logit)
  list(par = par, logit = logit, gate = gate, experts = experts, f = rowSums(gate * experts$h))
}

# Objective and gradient together: the pass that bench/ times.
ref_pass <- function(theta, model, design, y, w = NULL) {
  state <- ref_forward(theta, model, design)
  residual <- state$f - y
  slope <- if (is.null(w)) residual else w * residual
  weight <- slope * state$gate
  list(
    value = sum(slope * residual) / 2,
    gradient = c(crossprod(design$zeta1, weight * (state$experts$h - state$f)), state$experts$pull(weight))
  )
}

ref_f <- function(theta, model, x, z = x) ref_forward(theta, model, ref_design(model, x, z))$f

ref_value <- function(theta, model, x, z = x, y, w = NULL) {
  residual <- y - ref_f(theta, model, x, z)
  sum((if (is.null(w)) residual else w * residual) * residual) / 2
}

ref_gradient <- function(theta, model, x, z = x, y, w = NULL) {
  ref_pass(theta, model, ref_design(model, x, z), y, w)$gradient
}

# The n x P derivatives of f.
ref_jacobian <- function(theta, model, x, z = x, design = ref_design(model, x, z)) {
  state <- ref_forward(theta, model, design)
  gates <- lapply(seq_len(model$k), function(j) design$zeta1 * (state$gate[, j] * (state$experts$h[, j] - state$f)))
  experts <- lapply(seq_len(model$k), function(j) state$experts$jacobian(j) * state$gate[, j])
  do.call(cbind, c(gates, experts))
}

# sum of w J'J, the Gauss-Newton matrix.
ref_normal <- function(theta, model, x, z = x, w = NULL) {
  jacobian <- ref_jacobian(theta, model, x, z)
  unname(crossprod(jacobian, if (is.null(w)) jacobian else w * jacobian))
}

# ---- simulated data --------------------------------------------------------------------------------------------------

# Evaluates `code` with the generator seeded, and leaves the caller's stream of random numbers as it was.
ref_with_seed <- function(seed, code) {
  old <- get0(".Random.seed", globalenv(), inherits = FALSE)
  on.exit(if (is.null(old)) rm(".Random.seed", envir = globalenv()) else assign(".Random.seed", old, globalenv()))
  set.seed(seed)
  code
}

# k unit vectors in R^d (columns) that lie far apart: the best of many random sets.
ref_spread_directions <- function(d, k, tries = 200) {
  if (d == 1) {
    return(matrix(rep(c(1, -1), length.out = k), 1))
  }
  best <- NULL
  widest <- -Inf
  for (i in seq_len(tries)) {
    directions <- matrix(rnorm(d * k), d)
    directions <- directions / rep(sqrt(colSums(directions^2)), each = d)
    gap <- if (k > 1) min(dist(t(directions))) else 0
    if (gap > widest) {
      widest <- gap
      best <- directions
    }
  }
  best
}

# Parameters of k experts that differ clearly from one another.
ref_true_experts <- function(expert, d, k) {
  units <- function(count, size) rbind(size * ref_spread_directions(d, count), 0.3 * (seq_len(count) - (count + 1) / 2))
  level <- seq(-1, 1, length.out = max(k, 2))[seq_len(k)]
  switch(expert$name,
    constant = matrix(2 * level, 1),
    linear = units(k, 1) + rbind(matrix(0, d, k), level),
    polynomial = units(k, if (expert$degree > 1) 0.8 else 1) + rbind(matrix(0, d, k), 0.5),
    sigmoid = units(k, 4),
    network = {
      inner <- matrix(units(k * expert$hidden, 2), expert$hidden * (d + 1))
      signs <- matrix(rep(c(1, -1), length.out = expert$hidden * k), expert$hidden)
      rbind(inner, signs * runif(expert$hidden * k, 0.7, 1.3), level)
    },
    custom = matrix(rnorm(expert$n_par * k), expert$n_par),
    units(k, 2)
  )
}

# n rows from a model with k experts in d covariates; gates and experts lie far apart, so an exact fit is
# well-conditioned. Router and expert are names or lists as above. Returns the data, the model and the truth (theta, and
# the same as par = list(u, b, eta)).
sim_moe <- function(n, d, k, router = "perturbed_cosine", expert = "linear", sigma = 0.1, seed = 1) {
  model <- ref_model(router, expert, k)
  ref_with_seed(seed, {
    scale <- if (model$router$name == "linear") 2 else model$router$scale
    size <- switch(model$router$name, linear = 1, cosine = 1, perturbed_cosine = 0.7)
    par <- list(
      u = scale * size * ref_spread_directions(d, k),
      b = 0.4 * (seq_len(k) - (k + 1) / 2) / max(1, k - 1),
      eta = unname(ref_true_experts(model$expert, d, k))
    )
    x <- matrix(runif(n * d, -1.5, 1.5), n, d)
    theta <- ref_pack(par)
    f <- ref_f(theta, model, x)
    list(
      x = x, z = x, y = f + sigma * rnorm(n), f = f, model = model, theta = theta, par = par,
      beta = ref_beta_from_gate(model$router, par$u), sigma = sigma
    )
  })
}
