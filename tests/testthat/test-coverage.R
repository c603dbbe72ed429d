# Intervals cover as often as they promise. A thousand replicates of more designs: bench/study_coverage.R.

test_that("95% intervals of gate contrasts, experts and predictions cover", {
  replicates <- 150
  for (router in c("linear", "perturbed_cosine")) {
    truth <- clear_truth(router, "tanh")
    points <- cbind(x1 = c(0, 0.8, -0.5), x2 = c(0, 0.1, 0.7))
    covers <- vapply(seq_len(replicates), function(seed) {
      data <- clear_data(router, "tanh", seed, 1000)
      covariates <- data$x
      response <- data$y
      fit <- fit_cosine_moe(covariates, response,
        router = router_of(data$model$router), expert = "tanh", standardize = FALSE,
        start = truth[c("beta", "b", "experts")]
      )
      by <- match_experts(fit$experts, truth$experts)
      gate <- rbind(truth$b, ref_gate_from_beta(data$model$router, truth$beta))[, by]
      true <- c(gate - rowMeans(gate), truth$experts[c(3, 1, 2), by])
      inside <- function(ends, value) ends[, 1] <= value & value <= ends[, 2]
      c(
        mean(inside(confint(fit), true)), mean(inside(confint(fit, type = "sandwich"), true)),
        mean(inside(predict(fit, points, interval = "confidence")[, 2:3], ref_f(data$theta, data$model, points)))
      )
    }, numeric(3))
    # The mean over coordinates that depend on each other: three standard deviations of the mean over replicates.
    for (i in 1:3) {
      limit <- 3 * max(stats::sd(covers[i, ]) / sqrt(replicates), 0.01)
      expect_lt(abs(mean(covers[i, ]) - 0.95), limit, label = paste(router, i))
    }
  }
})

test_that("the shipped study covers between 93 and 97 percent, and flags experts too many", {
  study <- utils::read.csv(system.file("extdata", "coverage.csv", package = "cosmoe"))
  regular <- study[study$k == study$true_k, ]
  expect_identical(nrow(unique(regular[c("router", "expert", "n")])), 6L)
  expect_true(all(study$replicates == 1000))
  expect_true(all(regular$coverage > 0.93 & regular$coverage < 0.97))
  expect_true(all(regular$flagged < 0.01))
  expect_true(all(study$flagged[study$k > study$true_k] > 0.99))
  expect_true(all(abs(regular$mean_drop - regular$df) < 3 * regular$se_drop))
})
