# The sparse layer in plain R, sample by sample, written from the formulas and not from the core.

lay_phi <- list(
  cubic = list(value = function(z) z^3, slope = function(z) 3 * z^2),
  linear = list(value = identity, slope = function(z) z^0),
  relu = list(value = function(z) pmax(z, 0), slope = function(z) (z > 0) + 0),
  gelu = list(value = function(z) z * stats::pnorm(z), slope = function(z) stats::pnorm(z) + z * stats::dnorm(z)),
  celu = list(
    value = function(z) ifelse(z > 0, z, exp(pmin(z, 0)) - 1), slope = function(z) ifelse(z > 0, 1, exp(pmin(z, 0)))
  ),
  tanh = list(value = tanh, slope = function(z) 1 - tanh(z)^2)
)

lay_softmax <- function(v) exp(v - max(v)) / sum(exp(v - max(v)))

# Features of the gate for one sample, and u from beta.
lay_feature <- function(router, s) {
  switch(router$name,
    linear = s, cosine = s / sqrt(sum(s^2)), perturbed_cosine = s / (sqrt(sum(s^2)) + router$tau2)
  )
}
lay_gate <- function(router, beta) {
  norm <- rep(sqrt(colSums(beta^2)), each = nrow(beta))
  router$scale * switch(router$name,
    linear = beta, cosine = beta / norm, perturbed_cosine = beta / (norm + router$tau1)
  )
}

# theta as a list of filters (J x d x M), bias (J x M) and gate (q x M).
lay_unpack <- function(layer, theta, d) {
  J <- layer$filters
  M <- layer$experts
  bias <- if (layer$protocol == "notebook") J else 0L
  at <- cumsum(c(0L, J * d * M, bias * M, length(theta) - (J * d + bias) * M))
  part <- function(i) theta[at[i] + seq_len(at[i + 1L] - at[i])]
  list(filters = array(part(1L), c(J, d, M)), bias = matrix(part(2L), bias, M), gate = matrix(part(3L), ncol = M))
}

# Mean loss (with the balance loss) and everything else of one pass. x is n x P x d, y coded from 0, noise M x n;
# `route` fixes the chosen experts (K x n, from 1).
lay_loss <- function(layer, theta, x, y, noise, route = NULL) {
  n <- dim(x)[1L]
  d <- dim(x)[3L]
  par <- lay_unpack(layer, theta, d)
  phi <- lay_phi[[layer$activation]]$value
  outputs <- if (layer$protocol == "paper" && layer$classes == 2L) 1L else layer$classes
  own <- rep(seq_len(outputs), each = layer$filters / outputs)
  M <- layer$experts
  u <- if (M > 1L) lay_gate(layer$router, par$gate)
  loss <- numeric(n)
  probability <- matrix(1, M, n)
  chosen <- matrix(1L, layer$router$top_k, n)
  right <- 0
  for (i in seq_len(n)) {
    patches <- matrix(x[i, , ], ncol = d)
    weight <- 1
    if (M > 1L) {
      h <- drop(crossprod(u, lay_feature(layer$router, colSums(patches))))
      noisy <- h + noise[, i]
      chosen[, i] <- if (is.null(route)) order(-noisy)[seq_len(layer$router$top_k)] else route[, i]
      probability[, i] <- lay_softmax(h)
      weight <- (if (layer$protocol == "paper") probability[, i] else noisy)[chosen[, i]]
    }
    out <- numeric(outputs)
    for (k in seq_along(weight)) {
      m <- chosen[k, i]
      z <- matrix(par$filters[, , m], layer$filters) %*% t(patches)
      if (layer$protocol == "notebook") z <- z + par$bias[, m]
      out <- out + weight[k] * rowsum(rowSums(phi(z)), own)[, 1L]
    }
    if (outputs == 1L) {
      margin <- (2 * y[i] - 1) * out
      loss[i] <- log(1 + exp(-margin))
      right <- right + (margin > 0)
    } else {
      q <- lay_softmax(out)
      if (layer$protocol == "notebook") q <- lay_softmax(q)
      loss[i] <- -log(q[y[i] + 1L])
      right <- right + (which.max(out) == y[i] + 1L)
    }
  }
  share <- tabulate(chosen, M) / length(chosen)
  total <- mean(loss) + if (M > 1L) layer$balance * M * sum(share * rowMeans(probability)) else 0
  list(loss = unname(total), accuracy = unname(right) / n, chosen = chosen)
}

# The loss above with the choice of experts held, differentiated numerically.
lay_gradient <- function(layer, theta, x, y, noise, route) {
  numDeriv::grad(function(theta) lay_loss(layer, theta, x, y, noise, route)$loss, theta)
}

# Analytic gradient for a linear gate, one chosen expert, no balance: for whole steps to 1e-10.
lay_exact_gradient <- function(layer, theta, x, y, noise) {
  n <- dim(x)[1L]
  d <- dim(x)[3L]
  M <- layer$experts
  par <- lay_unpack(layer, theta, d)
  phi <- lay_phi[[layer$activation]]
  notebook <- layer$protocol == "notebook"
  chosen <- lay_loss(layer, theta, x, y, noise)$chosen
  outputs <- if (!notebook && layer$classes == 2L) 1L else layer$classes
  own <- rep(seq_len(outputs), each = layer$filters / outputs)
  out <- list(filters = 0 * par$filters, bias = 0 * par$bias, gate = 0 * par$gate)
  for (i in seq_len(n)) {
    patches <- matrix(x[i, , ], ncol = d)
    s <- colSums(patches)
    h <- drop(crossprod(par$gate, s))
    m <- chosen[1L, i]
    z <- matrix(par$filters[, , m], layer$filters) %*% t(patches)
    if (notebook) z <- z + par$bias[, m]
    f <- rowsum(rowSums(phi$value(z)), own)[, 1L]
    g <- if (notebook) h[m] + noise[m, i] else lay_softmax(h)[m]
    if (outputs == 1L) {
      sign <- 2 * y[i] - 1
      df <- -sign / (1 + exp(sign * g * f)) / n
    } else {
      q <- lay_softmax(g * f)
      target <- replace(numeric(outputs), y[i] + 1L, 1)
      df <- if (notebook) {
        t <- lay_softmax(q) - target
        q * (t - sum(q * t)) / n
      } else {
        (q - target) / n
      }
    }
    dz <- g * df[own] * phi$slope(z)
    out$filters[, , m] <- out$filters[, , m] + dz %*% patches
    if (notebook) out$bias[, m] <- out$bias[, m] + rowSums(dz)
    dg <- sum(df * f)
    dh <- if (notebook) replace(numeric(M), m, dg) else dg * g * (replace(numeric(M), m, 1) - lay_softmax(h))
    out$gate <- out$gate + outer(s, dh)
  }
  out
}

# `steps` steps of normalised gradient descent, from the definition.
lay_train <- function(layer, theta, x, y, steps, expert_rate, gate_rate) {
  d <- dim(x)[3L]
  loss <- numeric(steps)
  for (step in seq_len(steps)) {
    noise <- core_layer_noise(layer, step - 1L, dim(x)[1L], TRUE)
    loss[step] <- lay_loss(layer, theta, x, y, noise)$loss
    gradient <- lay_exact_gradient(layer, theta, x, y, noise)
    par <- lay_unpack(layer, theta, d)
    for (m in seq_len(layer$experts)) {
      norm <- sqrt(sum(gradient$filters[, , m]^2)) + sqrt(sum(gradient$bias[, m]^2))
      if (norm == 0) next
      par$filters[, , m] <- par$filters[, , m] - expert_rate * gradient$filters[, , m] / norm
      par$bias[, m] <- par$bias[, m] - expert_rate * gradient$bias[, m] / norm
    }
    par$gate <- par$gate - gate_rate * gradient$gate
    theta <- unlist(par, use.names = FALSE)
  }
  list(theta = theta, loss = loss)
}

lay_layer <- function(...) {
  utils::modifyList(list(
    router = list(name = "linear", scale = 1, tau1 = 0, tau2 = 0, top_k = 1L), activation = "cubic", experts = 3L,
    filters = 2L, classes = 2L, protocol = "paper", noise = "uniform", fresh_noise = TRUE, balance = 0, seed = 3
  ), list(...))
}

# A small problem: n x P x d samples and everything the core wants.
lay_problem <- function(layer, n = 7L, patches = 2L, d = 2L, seed = 1L) {
  ref_with_seed(seed, {
    x <- array(stats::rnorm(n * patches * d), c(n, patches, d))
    y <- sample(rep_len(seq_len(layer$classes) - 1L, n))
    core_x <- as_patches(x)
    bias <- layer$protocol == "notebook"
    gate <- if (layer$experts > 1L) d else 0L
    theta <- 0.6 * stats::rnorm(layer$experts * (layer$filters * (d + bias) + gate))
    list(x = x, y = y, theta = theta, data = layer_data(layer, core_x, y))
  })
}
