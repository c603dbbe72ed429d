# Plain-R likelihoods and data for the tests of maximum likelihood.

quick_em <- function(...) moe_control(n_starts = 12, ...)

# fit_cosine_moe() with other defaults; the call is the caller's own, so that weights are found.
em_fit <- function(...) {
  call <- match.call()
  call[[1L]] <- quote(fit_cosine_moe)
  call$method <- "em"
  if (is.null(call$router)) call$router <- "linear"
  if (is.null(call$control)) call$control <- quote(quick_em())
  eval(call, parent.frame())
}

# A matrix of p_k, n x k, of a linear router from the reported coefficients.
em_gate <- function(fit, z) {
  logit <- sweep(as.matrix(z) %*% fit$gate$beta * fit$router$scale, 2L, fit$gate$b, "+")
  p <- exp(logit - apply(logit, 1L, max))
  p / rowSums(p)
}

# Densities f(y | h_k + offset), n x k, of linear experts from the reported coefficients.
em_density <- function(fit, family, x, y, offset = 0, trials = 1) {
  eta <- cbind(as.matrix(x), 1) %*% fit$experts + offset
  mean <- family$linkinv(eta)
  vapply(seq_len(fit$k), function(k) {
    switch(family$family,
      gaussian = dnorm(y, mean[, k], fit$dispersion[k]),
      poisson = dpois(y, mean[, k]),
      binomial = dbinom(round(y * trials), trials, mean[, k]),
      Gamma = dgamma(y, fit$dispersion[k], fit$dispersion[k] / mean[, k])
    )
  }, numeric(length(y)))
}

em_loglik <- function(fit, family, x, z, y, w = 1, ...) {
  sum(w * log(rowSums(em_gate(fit, z) * em_density(fit, family, x, y, ...))))
}

# Two experts that differ, gate in z; the response of each family.
em_data <- function(name, seed = 1, n = 400) {
  set.seed(seed)
  d <- data.frame(x = runif(n, -1, 1), z = rnorm(n), v = runif(n, 0.2, 2))
  first <- runif(n) < plogis(2 * d$z)
  eta <- ifelse(first, 1 + 0.8 * d$x, -0.5 - 0.8 * d$x)
  d$y <- switch(name,
    gaussian = eta + ifelse(first, 0.3, 0.6) * rnorm(n),
    poisson = rpois(n, exp(eta)),
    binomial = rbinom(n, 1, plogis(2 * eta)),
    Gamma = rgamma(n, 5, 5 / exp(eta))
  )
  d
}

label_of <- function(family) sprintf("%s(%s)", family$family, family$link)

# A response with a positive mean that all links can have.
one_expert_data <- function(family, n = 300, seed = 3) {
  set.seed(seed)
  d <- data.frame(x1 = runif(n), x2 = runif(n), w = runif(n, 0.5, 2), off = runif(n, 0, 0.2))
  eta <- 0.9 + 0.5 * d$x1 - 0.3 * d$x2 + d$off
  if (family$family == "binomial") eta <- eta - 1
  mean <- family$linkinv(eta)
  d$y <- switch(family$family,
    gaussian = mean + 0.1 * rnorm(n), poisson = rpois(n, mean), binomial = rbinom(n, 1, mean),
    Gamma = rgamma(n, 4, 4 / mean)
  )
  d
}
