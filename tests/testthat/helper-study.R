# Small rate studies.

study_truth <- function(router = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), expert = "gelu") {
  mixing_measure(
    beta0 = log(c(0.55, 0.45)), beta1 = cbind(c(0.5, 0), c(-0.25, 0.43)),
    eta = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)), router = router, expert = expert
  )
}

small_study <- function(n = c(50, 100, 200), reps = 3, fits = list(exact = list(k = 2), over = list(k = 3)), ...,
                        loss = c("L2", "L3_multi", "prediction")) {
  rate_study(study_truth(), n, reps, fits, ..., sigma = 0.1, loss = loss, sample = 200)
}

# All but the times, which nobody promises.
lasting <- function(study) study$results[names(study$results) != "time"]

# A study with made-up losses: `value(n, rep)` for its one arm.
made_up_study <- function(n, reps, value) {
  study <- small_study(n = n, reps = 1, fits = list(exact = list()), loss = "prediction")
  rows <- study$results[rep(seq_along(n), each = reps), ]
  rows$rep <- rep(seq_len(reps), length(n))
  rows$prediction <- value(rows$n, rows$rep)
  study$results <- rows
  study
}
