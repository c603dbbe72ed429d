# Data with a known number of experts for the choice of k.

# Lines a x + b, chosen by a softmax with slopes u.
lines_data <- function(k, n = 300, seed = 1, sigma = 0.3) {
  ref_with_seed(seed, {
    x <- stats::runif(n, -1, 1)
    a <- c(2, -2, 0)[seq_len(k)]
    b <- c(0, 0.5, 3)[seq_len(k)]
    logit <- outer(x, c(0, 4, -4)[seq_len(k)])
    expert <- max.col(logit - log(-log(matrix(stats::runif(n * k), n))))
    data.frame(x = x, y = a[expert] * x + b[expert] + sigma * stats::rnorm(n), g = rep_len(letters, n))
  })
}

few_starts <- function(...) moe_control(n_starts = 4, ...)

selected <- function(formula, data, ..., seed = 1) {
  set.seed(seed)
  suppressWarnings(select_experts(formula, data, ...), classes = "cosmoe_warning_convergence")
}
