# Fits and an independent plain-R computation for the tests of standard errors and intervals.

# A fit to clear_data(), started at the truth. The data are local variables, where the methods find them again.
inference_fit <- function(router, expert, seed = 1, n = 1000, ..., standardize = FALSE, weights = NULL) {
  data <- clear_data(router, expert, seed, n)
  covariates <- data$x
  response <- data$y
  start <- data$truth[c("beta", "b", "experts")]
  fit <- fit_cosine_moe(covariates, response,
    k = 2, router = router_of(data$model$router), expert = expert, standardize = standardize, start = start,
    weights = weights, control = moe_control(tolerance = 1e-12), ...
  )
  list(fit = fit, data = data)
}

# The matrices of the fit's identifiable coordinates from the reference's derivatives and numDeriv's. psi is theta,
# except that on a sphere any vector stands for its direction; L is the derivative of coef(fit, "identifiable").
reference_inference <- function(fit, x, y, w = rep(1, length(y))) {
  model <- ref_model_of(fit)
  z <- (x - rep(fit$z_center, each = nrow(x))) / rep(fit$z_scale, each = nrow(x))
  d <- ncol(x)
  k <- fit$k
  psi <- theta_of(fit)
  gates <- seq_len(k * (d + 1))
  theta <- function(psi) {
    if (fit$router$name != "cosine") return(psi)
    gate <- matrix(psi[gates], d + 1)
    u <- gate[seq_len(d), ]
    c(rbind(fit$router$scale * u / rep(sqrt(colSums(u^2)), each = d), gate[d + 1, ]), psi[-gates])
  }
  identifiable <- function(psi) {
    theta <- theta(psi)
    gate <- matrix(theta[gates], d + 1)[c(d + 1, seq_len(d)), ]
    experts <- matrix(theta[-gates], ncol = k)
    if (fit$router$name == "linear") gate[-1, ] <- gate[-1, ] / fit$router$scale
    c(gate - rowMeans(gate), experts[c(nrow(experts), seq_len(nrow(experts) - 1)), ])
  }
  jacobian <- ref_jacobian(theta(psi), model, x, z) %*% numDeriv::jacobian(theta, psi)
  map <- numDeriv::jacobian(identifiable, psi)
  hessian <- numDeriv::hessian(function(psi) ref_value(theta(psi), model, x, z, y, w), psi)
  inverse <- function(m) {
    unit <- 1 / sqrt(diag(m) + 1e-12 * max(diag(m)))
    spectrum <- eigen(m * outer(unit, unit), symmetric = TRUE)
    kept <- seq_len(fit$df)
    root <- unit * spectrum$vectors[, kept] %*% diag(1 / sqrt(spectrum$values[kept]))
    tcrossprod(root)
  }
  residual <- y - ref_f(theta(psi), model, x, z)
  bread <- map %*% inverse(hessian)
  n <- sum(w > 0)
  list(
    estimate = identifiable(psi),
    model = fit$sigma^2 * map %*% inverse(crossprod(jacobian, w * jacobian)) %*% t(map),
    sandwich = n / (n - fit$df) * bread %*% crossprod(jacobian, (w * residual)^2 * jacobian) %*% t(bread)
  )
}

standard_errors <- function(...) sqrt(diag(vcov(...)))

reasons_of <- function(code) {
  reasons <- character()
  withCallingHandlers(code, cosmoe_warning_irregular = function(w) {
    reasons <<- c(reasons, conditionMessage(w))
    invokeRestart("muffleWarning")
  })
  reasons
}
