# EM for Gaussian mixtures of linear regressions with a softmax gate, in plain vectorised R: what one would write in an
# afternoon. A Newton step for the gate and weighted normal equations for the experts in each iteration, from labels;
# stops, as flexmix and meteorits do, when the log-likelihood changes by less than a millionth of itself.
em_plain <- function(y, x, labels, tolerance = 1e-6, max_iterations = 1000) {
  k <- max(labels)
  p <- ncol(x)
  share <- 1 * outer(labels, seq_len(k), "==")
  gate <- matrix(0, p, k)
  mean <- matrix(0, length(y), k)
  sigma <- numeric(k)
  last <- -Inf
  for (iteration in seq_len(max_iterations)) {
    for (j in seq_len(k)) {
      wx <- share[, j] * x
      mean[, j] <- x %*% solve(crossprod(wx, x), crossprod(wx, y))
      sigma[j] <- sqrt(sum(share[, j] * (y - mean[, j])^2) / sum(share[, j]))
    }
    gate <- em_plain_gate(gate, x, share)
    log_density <- em_plain_log_softmax(x %*% gate) - 0.5 * ((y - mean) / rep(sigma, each = length(y)))^2 -
      rep(log(sigma) + 0.5 * log(2 * pi), each = length(y))
    top <- log_density[cbind(seq_along(y), max.col(log_density, "first"))]
    log_sum <- top + log(rowSums(exp(log_density - top)))
    share <- exp(log_density - log_sum)
    loglik <- sum(log_sum)
    if (abs(loglik - last) <= tolerance * abs(loglik)) break
    last <- loglik
  }
  loglik
}

em_plain_log_softmax <- function(logit) {
  top <- logit[cbind(seq_len(nrow(logit)), max.col(logit, "first"))]
  logit - top - log(rowSums(exp(logit - top)))
}

# A Newton step towards the best gate for the responsibilities, the last expert's vector being zero.
em_plain_gate <- function(gate, x, share) {
  k <- ncol(share)
  p <- ncol(x)
  weight <- exp(em_plain_log_softmax(x %*% gate))
  free <- seq_len(k - 1)
  hessian <- matrix(0, p * (k - 1), p * (k - 1))
  rows <- function(j) (j - 1) * p + seq_len(p)
  for (i in free) {
    for (j in free) hessian[rows(i), rows(j)] <- crossprod(x, weight[, i] * ((i == j) - weight[, j]) * x)
  }
  gradient <- crossprod(x, share[, free] - weight[, free])
  gate[, free] <- gate[, free] + solve(hessian, as.vector(gradient))
  gate
}
