#' The canonical representative of a mixing measure
#'
#' @description
#' Many mixing measures define the same regression function. `canonicalize()` gives the documented one of them: same
#' function, comparable parameters.
#'
#' @param G A [mixing_measure()], or a fit from [fit_cosine_moe()].
#'
#' @details
#' A softmax sees contrasts only: one number may be added to all \eqn{\beta_0} and one vector to all u (see [routers])
#' without any change of the function; a choice of the top K does not see it either. The representative has
#' * \eqn{\sum_i \exp(\beta_{0i}) = 1}{sum_i exp(beta_0i) = 1};
#' * for the linear and the perturbed router, the u shifted so that the centre of the smallest ball that holds them is
#'   the origin. For the perturbed router this is always possible, and takes gates off the boundary where it can;
#' * for the cosine router, \eqn{\beta_1} of norm 1: norms carry nothing. With few experts in many dimensions unit
#'   vectors can be turned together without any change of their contrasts: their common component orthogonal to the
#'   contrasts keeps its norm, but may point anywhere orthogonal to them. The representative has it along the coordinate
#'   axis that is nearest to that space (of equals, the first). An atom with \eqn{\beta_1 = 0}, whose score is 0, is
#'   replaced by an equal one on the sphere if there is one;
#' * experts of even polynomials with the first non-zero of (a, b) positive; networks with hidden units in a fixed order
#'   and, where the activation allows, of fixed sign (tanh, sigmoid) or with a of norm 1 (ReLU);
#' * atoms in the order of decreasing mass; of equal masses (to 1e-9), in increasing order of eta, then of u. In a
#'   sparse gate atoms with equal u keep their order, since the first of them wins. At single points where scores of
#'   different u tie (such as x = 0 with a linear router) the order decides, so there the function may change.
#'
#' Atoms are never merged or dropped. With nearly coinciding gates of a cosine router, contrasts near rounding errors
#' decide about the representative, which is then only as exact as they are.
#'
#' @return A [mixing_measure()] with the same regression function (to about 1e-12, relative). Canonical measures are
#'   left as they are (to rounding), and measures that are equal up to gauge and order give equal results. Anything but
#'   a measure or a fit stops with a `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025), arXiv:2405.14131, takes
#' \eqn{\beta_{0k} = 0}{beta_0k = 0} as the representative; that leaves the d directions of the translation free.
#'
#' @seealso [equivalent()], [voronoi_loss()].
#' @examples
#' beta1 <- cbind(c(1, 0), c(-1, 0.5))
#' G <- mixing_measure(c(0, 1), beta1, cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh")
#' canonicalize(G)
#' @export
canonicalize <- function(G) {
  G <- as_measure(G)
  u <- if (G$router$name == "cosine") canonical_directions(G$u, G$router$scale, G) else centred_gates(G$u)
  eta <- canonical_experts(G$eta, G$expert)
  b <- G$beta0 - log_sum_exp(G$beta0)
  by <- canonical_order(b, eta, u, sparse = is_sparse_router(G$router, length(b)))
  u <- u[, by, drop = FALSE]
  beta <- core_call(core_gate_to_beta(core_router(G$router), u))
  eta <- eta[, by, drop = FALSE]
  new_mixing_measure(b[by], beta, u, eta, G$router, G$expert, G$z_center, G$z_scale, G$shared, measure_link(G))
}

as_measure <- function(x, argument = deparse1(substitute(x))) {
  force(argument)
  # Missing where the user has left it out.
  x <- tryCatch(x, missingArgError = function(e) I("missing"), error = function(e) {
    if (grepl("is missing, with no default", conditionMessage(e), fixed = TRUE)) I("missing") else stop(e)
  })
  if (inherits(x, c("mixing_measure", "cosine_moe"))) return(as_mixing_measure(x))
  stop_input(argument, x, "a mixing measure, or a fit from fit_cosine_moe()")
}

is_sparse_router <- function(router, k) !is.null(router$top_k) && router$top_k < k

centred_gates <- function(u) if (nrow(u)) u - core_call(core_enclosing_ball(u))$center else u

# ---- order -----------------------------------------------------------------------------------------------------------

canonical_order <- function(b, eta, u, sparse) {
  by <- do.call(order, c(list(tolerant_rank(-exp(b))), row_ranks(eta), row_ranks(u)))
  if (!sparse) return(by)
  # Atoms with equal u go where the first of them goes, in the order they had.
  group <- match_columns(u, u)
  unlist(lapply(unique(group[by]), function(first) which(group == first)))
}

# Columns by their entries, row by row, with a unit for each row, since covariates have units of their own.
row_ranks <- function(m) {
  unit <- row_units(m)
  lapply(seq_len(nrow(m)), function(j) tolerant_rank(m[j, ] / unit[j]))
}

# The size of the entries of each row; rows of rounding errors are measured against the others.
row_units <- function(m) {
  if (nrow(m) == 0L) return(numeric())
  size <- apply(abs(m), 1L, max)
  pmax(size, 1e-9 * max(size), 1e-300)
}

# Ranks in which values that differ by rounding errors only are equal.
tolerant_rank <- function(v, tolerance = 1e-9) {
  by <- order(v)
  step <- diff(v[by]) > tolerance
  rank <- integer(length(v))
  rank[by] <- cumsum(c(TRUE, step))
  rank
}

# For each column of `a` the first column of `b` that is equal up to `tolerance`, NA if there is none.
match_columns <- function(a, b, tolerance = 1e-9) {
  size <- tolerance * max(1, abs(a), abs(b))
  equal <- function(i) which(colSums(abs(b - a[, i]) > size) == 0)[1L]
  vapply(seq_len(ncol(a)), equal, 0L)
}

# ---- directions of the cosine router ---------------------------------------------------------------------------------

# Gates with the same contrasts that all lie on the sphere: those at distance rho from the affine hull of the gates,
# above its point that is equidistant from them all. None if some gate is 0 and the others stand in the way.
# `G` has what decides between gates at 0 (see heaviest_at_zero()); without it they stay.
canonical_directions <- function(u, radius, G = NULL) {
  d <- nrow(u)
  if (d == 0L) return(u)
  zero <- colSums(u^2) == 0
  edges <- u[, -1L, drop = FALSE] - u[, 1L]
  decomposition <- svd(cbind(edges, 0) / radius)
  rank <- sum(decomposition$d > 1e-10)
  span <- decomposition$u[, seq_len(rank), drop = FALSE]
  if (!any(zero)) {
    height <- drop(u[, 1L] - span %*% crossprod(span, u[, 1L]))
    foot <- height
  } else {
    foot <- equidistant_point(u, span)
    gap <- radius^2 - sum((u[, 1L] - foot)^2)
    off_sphere <- max(abs(sqrt(colSums((u - foot)^2)) - sqrt(sum((u[, 1L] - foot)^2)))) > 1e-9 * radius
    if (off_sphere || gap < -1e-9 * radius^2 || (rank == d && gap > 1e-9 * radius^2)) {
      return(if (is.null(G)) u else heaviest_at_zero(G))
    }
    height <- sqrt(max(gap, 0))
  }
  height <- sqrt(sum(height^2))
  if (rank == d || height <= 1e-9 * radius) return(if (any(zero)) u - foot else u)
  u - foot + height * nearest_axis(span, d)
}

# The point of the affine hull u_1 + span with equal distances to all gates, if there is one (else some other point).
equidistant_point <- function(u, span) {
  edges <- u[, -1L, drop = FALSE] - u[, 1L]
  if (ncol(span) == 0L) return(u[, 1L])
  in_span <- crossprod(edges, span)
  drop(u[, 1L] + span %*% qr.coef(qr(in_span, LAPACK = TRUE), colSums(edges^2) / 2))
}

# The unit vector orthogonal to `span` along the coordinate axis nearest to that space.
nearest_axis <- function(span, d) {
  left <- 1 - rowSums(span^2)
  axis <- which(left > max(left) - 1e-9)[1L]
  direction <- as.double(seq_len(d) == axis) - drop(span %*% span[axis, ])
  direction <- direction - drop(span %*% crossprod(span, direction))
  direction / sqrt(sum(direction^2))
}

# A gate at 0 may change places with one that is as far from all others: the heaviest of these is put at 0.
heaviest_at_zero <- function(G) {
  allowed <- function(i) {
    size <- sqrt(colSums((G$u - G$u[, i])^2))
    all(size < 1e-9 * G$router$scale | abs(size - G$router$scale) < 1e-9 * G$router$scale)
  }
  candidates <- which(vapply(seq_along(G$beta0), allowed, NA))
  by <- canonical_order(G$beta0 - log_sum_exp(G$beta0), G$eta, G$u - G$u[, candidates[1L]], sparse = FALSE)
  u <- G$u - G$u[, by[by %in% candidates][1L]]
  u[abs(u) < 1e-14 * G$router$scale] <- 0
  u
}

# ---- experts ---------------------------------------------------------------------------------------------------------

canonical_experts <- function(eta, expert) {
  switch(expert$name,
    polynomial = if (expert$degree %% 2L) eta else eta * rep(leading_sign(eta), each = nrow(eta)),
    network = apply_columns(eta, canonical_network, expert),
    eta
  )
}

apply_columns <- function(m, change, ...) {
  for (j in seq_len(ncol(m))) m[, j] <- change(m[, j], ...)
  m
}

# 1 or -1 for each column: the sign of its first entry that is not (nearly) zero.
leading_sign <- function(m) {
  apply(m, 2L, function(column) {
    first <- which(abs(column) > 1e-12 * max(abs(column)))[1L]
    if (is.na(first) || column[first] >= 0) 1 else -1
  })
}

# One network's parameters: hidden units of fixed sign or norm, in lexicographic order.
canonical_network <- function(eta, expert) {
  hidden <- expert$hidden
  d <- (length(eta) - 1L) / hidden - 2L
  units <- matrix(eta[seq_len(hidden * (d + 1L))], d + 1L)
  out <- eta[hidden * (d + 1L) + seq_len(hidden)]
  constant <- eta[length(eta)]
  if (expert$activation %in% c("tanh", "sigmoid")) {
    sign <- leading_sign(units)
    # tanh(-t) = -tanh(t) and sigmoid(-t) = 1 - sigmoid(t).
    if (expert$activation == "sigmoid") constant <- constant + sum(out[sign < 0])
    units <- units * rep(sign, each = d + 1L)
    out <- out * sign
  } else if (expert$activation == "relu" && d > 0L) {
    size <- sqrt(colSums(units[seq_len(d), , drop = FALSE]^2))
    size[size == 0] <- 1
    units <- units / rep(size, each = d + 1L)
    out <- out * size
  }
  by <- do.call(order, row_ranks(rbind(units, out)))
  c(units[, by], out[by], constant)
}
