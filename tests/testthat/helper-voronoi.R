# The formulas of the Voronoi losses in plain R, and random measures to try them on.

# The loss of atoms with the given gates (d x k, as compared), by loops over atoms and cells.
ref_voronoi <- function(b, gate, eta, b0, gate0, eta0, type = "L1", r = 1, top_k = NULL) {
  k <- length(b)
  k0 <- length(b0)
  cell <- integer(k)
  for (i in seq_len(k)) {
    squares <- vapply(seq_len(k0), function(j) sum((gate[, i] - gate0[, j])^2) + sum((eta[, i] - eta0[, j])^2), 0)
    cell[i] <- which.min(squares)
  }
  total <- numeric(k0)
  for (j in seq_len(k0)) {
    own <- which(cell == j)
    power <- if (type != "L3") r else if (length(own) > 1L) 2 else 1
    total[j] <- abs(sum(exp(b[own])) - exp(b0[j]))
    for (i in own) {
      distance <- c(sqrt(sum((gate[, i] - gate0[, j])^2)), sqrt(sum((eta[, i] - eta0[, j])^2)))
      total[j] <- total[j] + exp(b[i]) * sum(distance^power)
    }
  }
  if (is.null(top_k)) sum(total) else sum(sort(total, decreasing = TRUE)[seq_len(top_k)])
}

ref_chart <- function(router, u, norms = 1) {
  if (router$name == "linear") return(u / router$scale)
  size <- rep(sqrt(colSums(u^2)), each = nrow(u))
  if (router$name == "cosine") return(rep(norms, each = nrow(u)) * u / router$scale)
  router$tau1 * u / (router$scale - size)
}

# The loss after a shift of all u and of all biases (and with the norms given): infinite where it is not allowed.
ref_shifted <- function(g, truth, t, c, norms = 1, space = "beta", ...) {
  u <- g$u + t
  size <- sqrt(colSums(u^2))
  if (space == "beta" && g$router$name == "perturbed_cosine" && any(size >= g$router$scale)) return(Inf)
  gate <- if (space == "u") u else ref_chart(g$router, u, norms)
  gate0 <- if (space == "u") truth$u else truth$beta1
  ref_voronoi(g$beta0 + c, gate, g$eta, truth$beta0, gate0, truth$eta, ...)
}

ref_at <- function(loss, g, truth, ...) {
  of <- function(name) attr(loss, name)
  norms <- if (is.null(of("norms"))) 1 else of("norms")
  ref_shifted(g, truth, of("shift"), of("c"), norms, of("space"), type = of("type"), r = of("r"), top_k = of("top_k"))
}

# k atoms in d dimensions; `near`: atoms of another measure, each with noise of the size `noise` (recycled atoms share
# the mass).
random_measure <- function(k, d, router = "perturbed_cosine", near = NULL, noise = 0.1, size = 1) {
  if (is.null(near)) {
    return(mixing_measure(
      rnorm(k), matrix(size * rnorm(d * k), d), matrix(rnorm((d + 1) * k), d + 1), router, "tanh"
    ))
  }
  from <- rep_len(seq_along(near$beta0), k)
  shake <- function(x) x[, from, drop = FALSE] + noise * rnorm(nrow(x) * k)
  b <- near$beta0[from] - log(table(from)[from]) + noise * rnorm(k)
  mixing_measure(as.vector(b), shake(near$beta1), shake(near$eta), near$router, near$expert)
}
