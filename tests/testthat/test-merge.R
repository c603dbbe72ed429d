rich_fit <- function(k = 4, seed = 1, ...) {
  data <- lines_data(2, 200, seed)
  set.seed(1)
  suppressWarnings(
    fit_cosine_moe(y ~ x, data, k = k, method = "em", router = "linear", control = few_starts(), ...),
    classes = "cosmoe_warning_convergence"
  )
}

# The merges of a Gaussian mixture with linear gate and experts, all in plain R: parameters as vectors, rows in loops.
plain_merges <- function(gate_u, gate_b, slope, level, sigma, mass, x, y) {
  heights <- logliks <- c()
  repeat {
    k <- length(mass)
    logit <- outer(x, gate_u) + rep(gate_b, each = length(x))
    p <- exp(logit) / rowSums(exp(logit))
    h <- outer(x, slope) + rep(level, each = length(x))
    logliks <- c(logliks, sum(log(rowSums(p * dnorm(y, h, rep(sigma, each = length(y)))))))
    if (k == 1) break
    cost <- matrix(Inf, k, k)
    for (i in seq_len(k - 1)) for (j in (i + 1):k) {
      both <- p[, i] + p[, j]
      meet <- both * (1 - both)
      q <- mass[c(i, j)] / sum(mass[c(i, j)])
      middle <- q[1] * h[, i] + q[2] * h[, j]
      variance <- q[1] * sigma[i]^2 + q[2] * sigma[j]^2
      experts <- mean(p[, i] * (h[, i] - middle)^2 + p[, j] * (h[, j] - middle)^2) / variance
      spread <- prod(mass[c(i, j)]) / sum(mass[c(i, j)]) * 2 * (log(sigma[i]) - log(sigma[j]))^2
      gates <- 0
      if (k > 2) {
        share <- sum(meet * p[, i] / both) / sum(meet)
        a <- (gate_u[i] - gate_u[j]) * x
        a <- a - sum(meet * a) / sum(meet)
        gates <- mean((1 - both) * (p[, i] * ((1 - share) * a)^2 + p[, j] * (share * a)^2))
      }
      cost[i, j] <- log(1 + experts + spread + gates)
    }
    heights <- c(heights, min(cost))
    at <- which(cost == min(cost), arr.ind = TRUE)[1, ]
    i <- at[1]
    j <- at[2]
    q <- mass[c(i, j)] / sum(mass[c(i, j)])
    both <- p[, i] + p[, j]
    meet <- if (k > 2) both * (1 - both) else both
    share <- if (k > 2) sum(meet * p[, i] / both) / sum(meet) else q[1]
    u <- share * gate_u[i] + (1 - share) * gate_u[j]
    b <- sum(meet * (log(exp(logit[, i]) + exp(logit[, j])) - u * x)) / sum(meet)
    new <- c(q[1] * slope[i] + q[2] * slope[j], q[1] * level[i] + q[2] * level[j])
    mean <- new[1] * x + new[2]
    around <- function(l) sum(p[, l] * (h[, l] - mean)^2) / sum(p[, l])
    s <- sqrt(q[1] * (sigma[i]^2 + around(i)) + q[2] * (sigma[j]^2 + around(j)))
    put <- function(v, value) replace(v, i, value)[-j]
    mass <- put(mass, mass[i] + mass[j])
    gate_u <- put(gate_u, u)
    gate_b <- put(gate_b, b)
    slope <- put(slope, new[1])
    level <- put(level, new[2])
    sigma <- put(sigma, s)
  }
  list(heights = heights, logliks = logliks)
}

test_that("merges are those of loops in plain R", {
  fit <- rich_fit()
  data <- lines_data(2, 200)
  merged <- merge_experts(fit)
  expected <- plain_merges(
    fit$gate$beta[1, ], fit$gate$b, fit$experts["x", ], fit$experts["(Intercept)", ], fit$dispersion, fit$gate_mean,
    data$x, data$y
  )
  expect_equal(merged$merges$height, unname(expected$heights), tolerance = 1e-8)
  expect_equal(rev(merged$table$logLik), expected$logliks, tolerance = 1e-8)
  expect_equal(merged$table$logLik[4], fit$loglik, tolerance = 1e-8)
  expect_equal(merged$table$DSC, -(merged$table$height + log(200) * merged$table$logLik / 200))
  expect_identical(merged$k, merged$table$k[which.min(merged$table$DSC)])
  half <- merge_experts(fit, penalty = 2)
  expect_equal(half$table$DSC, -(half$table$height + 2 * half$table$logLik / 200))
})

test_that("two parallel lines are merged as by hand", {
  # Constant equal gates, lines x and x + 2d, sigma 1: the distance is d^2, the merged line x + d with variance 1 + d^2.
  set.seed(1)
  x <- rnorm(50)
  y <- x + rnorm(50)
  fit <- suppressWarnings(fit_cosine_moe(y ~ x, k = 2, method = "em", router = "linear",
                                         start = list(beta = matrix(0, 1, 2), b = c(0, 0), experts = cbind(1:0, 1:2)),
                                         control = moe_control(max_passes = 1)))
  fit$gate[c("u", "beta")] <- list(matrix(0, 1, 2), matrix(0, 1, 2))
  fit$gate$b <- log(c(0.5, 0.5))
  fit$experts[] <- c(1, 0, 1, 3)
  fit$dispersion[] <- 1
  fit$gate_mean[] <- 0.5
  fit$fitted.values[] <- x + 1.5
  fit$control <- moe_control()
  merged <- merge_experts(fit, refit = TRUE)
  expect_equal(merged$merges$height, log(1 + 1.5^2))
  expect_equal(merged$models[["1"]]$experts, cbind(c(1, 1.5)))
  expect_equal(merged$models[["1"]]$dispersion, sqrt(1 + 1.5^2))
  expect_equal(merged$table$logLik[1], sum(dnorm(y, x + 1.5, sqrt(1 + 1.5^2), log = TRUE)))
  # The refit of a single expert is a regression.
  expect_equal(merged$table$logLik_refit[1], as.numeric(logLik(lm(y ~ x))), tolerance = 1e-6)
})

test_that("for least squares a distance is the change of the regression function", {
  data <- lines_data(3, 200)
  set.seed(1)
  fit <- suppressWarnings(fit_cosine_moe(y ~ x, data, k = 3, router = "linear", control = few_starts()))
  merged <- merge_experts(fit)
  expect_identical(merged$criterion, "BIC")
  value <- function(model) {
    logit <- outer(data$x, drop(model$gate$u)) + rep(model$gate$b, each = 200)
    p <- exp(logit - apply(logit, 1, max))
    p <- p / rowSums(p)
    rowSums(p * (outer(data$x, model$experts[1, ]) + rep(model$experts[2, ], each = 200)))
  }
  expect_equal(value(merged$models[["3"]]), unname(fitted(fit)), tolerance = 1e-8)
  for (k in 3:2) {
    change <- value(merged$models[[as.character(k)]]) - value(merged$models[[as.character(k - 1)]])
    expect_equal(merged$table$height[k], log(1 + mean(change^2) / (fit$sse / 200)), tolerance = 1e-8)
  }
  sse <- sum((data$y - value(merged$models[["2"]]))^2)
  expect_equal(merged$table$logLik[2], -100 * (log(2 * pi * sse / 200) + 1), tolerance = 1e-8)
})

test_that("copies of an expert are merged first, at height zero, without any loss", {
  for (method in c("em", "ls")) {
    data <- lines_data(3, 150)
    set.seed(1)
    fit <- suppressWarnings(fit_cosine_moe(y ~ x, data, k = 3, method = method, router = "linear",
                                           control = few_starts()))
    start <- cosmoe:::grown_start(fit, 4)
    prepared <- cosmoe:::refit_data(fit, environment())
    settings <- cosmoe:::refit_settings(fit)
    settings$control$max_passes <- 1L
    copy <- cosmoe:::try_fit(prepared, settings, 4, fit$call, start)
    steps <- cosmoe:::merge_down(copy, prepared)
    expect_lt(steps$merges$height[1], 1e-8)
    expect_gt(steps$merges$height[2], 1e-4)
    expect_equal(steps$models[["3"]]$logLik, steps$models[["4"]]$logLik, tolerance = 1e-6)
    expect_equal(sort(steps$models[["3"]]$mass), sort(unname(fit$gate_mean)), tolerance = 1e-4)
  }
})

test_that("heights know neither units, nor gauge, nor the order of experts", {
  fit <- rich_fit()
  merged <- merge_experts(fit)
  # Order and gauge: the same model otherwise written.
  by <- c(3, 1, 4, 2)
  other <- fit
  other$gate <- list(u = fit$gate$u[, by, drop = FALSE] + 3, b = fit$gate$b[by] - 2, beta = fit$gate$beta[, by] + 3)
  other$experts[] <- fit$experts[, by]
  other$dispersion[] <- fit$dispersion[by]
  other$gate_mean[] <- fit$gate_mean[by]
  moved <- merge_experts(other)
  expect_equal(moved$table, merged$table, tolerance = 1e-7)
  relabel <- function(sides) {
    one <- function(side) paste(sort(by[as.integer(side)]), collapse = "+")
    vapply(strsplit(sides, "+", fixed = TRUE), one, "")
  }
  for (row in 1:3) {
    expect_setequal(relabel(unlist(moved$merges[row, 1:2], use.names = FALSE)), unname(unlist(merged$merges[row, 1:2])))
  }
  # Units: the same fit to transformed data.
  data <- transform(lines_data(2, 200), x = 1900 + 10 * x, y = 5 - 3 * y)
  start <- list(
    beta = fit$gate$beta / 10, b = fit$gate$b - 190 * fit$gate$beta[1, ],
    experts = rbind(-0.3 * fit$experts[1, ], 5 - 3 * fit$experts[2, ] + 570 * fit$experts[1, ])
  )
  scaled <- suppressWarnings(fit_cosine_moe(y ~ x, data, k = 4, method = "em", router = "linear", start = start,
                                            control = moe_control(max_passes = 1)))
  scaled$gate$b[] <- start$b
  scaled$gate[c("u", "beta")] <- list(start$beta, start$beta)
  scaled$experts[] <- start$experts
  scaled$dispersion[] <- 3 * fit$dispersion
  scaled$gate_mean[] <- fit$gate_mean
  scaled$fitted.values[] <- 5 - 3 * fit$fitted.values
  again <- merge_experts(scaled)
  expect_equal(again$merges, merged$merges, tolerance = 1e-6)
  expect_equal(again$table$logLik + 200 * log(3), merged$table$logLik, tolerance = 1e-6)
})

test_that("the known number of experts is found over several seeds", {
  for (seed in 1:3) {
    expect_identical(merge_experts(rich_fit(seed = seed))$k, 2L)
    expect_identical(merge_experts(rich_fit(seed = seed), "BIC")$k, 2L)
  }
  set.seed(1)
  single <- fit_cosine_moe(y ~ x, lines_data(1, 200), k = 3, method = "em", router = "linear", control = few_starts())
  expect_identical(merge_experts(single, "BIC")$k, 1L)
})

test_that("refits come from the merged parameters and are fits like others", {
  fit <- rich_fit()
  merged <- merge_experts(fit, refit = TRUE)
  expect_named(merged$fits, as.character(1:4))
  expect_identical(merged$fits[["4"]], fit)
  expect_true(all(merged$table$logLik_refit >= merged$table$logLik - 1e-6))
  expect_identical(merged$best, merged$fits[[as.character(merged$k)]])
  expect_equal(merged$table$BIC, -2 * merged$table$logLik_refit + log(200) * (5 * 1:4 - 2))
  expect_equal(predict(merged$best, lines_data(2, 200)), fitted(merged$best), ignore_attr = TRUE)
  only <- merge_experts(fit)
  expect_null(only$fits)
  expect_identical(only$best$experts, merged$best$experts)
})

test_that("every router, expert and family can be merged", {
  set.seed(3)
  data <- ref_with_seed(2, data.frame(a = rnorm(150), b = rnorm(150), o = runif(150), w = runif(150)))
  data$y <- with(data, tanh(a) + ifelse(b > 0, a, -1) + 0.3 * sin(10 * a))
  quick <- moe_control(n_starts = 1, n_long = 1, max_passes = 15)
  try_merge <- function(..., k = 3) {
    call <- match.call()
    call[[1]] <- quote(fit_cosine_moe)
    call[c("data", "k", "control")] <- list(quote(data), k, quote(quick))
    fit <- suppressWarnings(eval(call))
    merged <- suppressWarnings(merge_experts(fit, refit = TRUE))
    expect_true(all(is.finite(merged$table$height[-1])))
    expect_true(all(merged$table$height[-1] >= 0))
    expect_true(all(is.finite(merged$table$logLik)))
    expect_false(any(is.na(merged$table$status)))
    expect_equal(sum(merged$models[["2"]]$mass), 1)
  }
  try_merge(y ~ a + b, router = "cosine", expert = "tanh", weights = w, offset = o)
  try_merge(y ~ a | b + a, router = "perturbed_cosine", expert = expert_network(2))
  try_merge(y ~ a + b, router = "perturbed_cosine", expert = expert_polynomial(2))
  try_merge(y ~ a + b, router = router_linear(top_k = 2))
  try_merge(I(exp(y)) ~ a | b, router = "linear", method = "em", family = Gamma("log"), weights = w, offset = o)
  try_merge(round(exp(y)) ~ a | 1, router = "linear", method = "em", family = poisson)
  try_merge(cbind(1 + (y > 0), 3) ~ a | b, router = "linear", method = "em", family = binomial)
  try_merge(y ~ a | b, router = "perturbed_cosine", method = "em", sigma = "equal", k = 2)
})

test_that("the tree is an hclust object that can be cut", {
  merged <- merge_experts(rich_fit())
  tree <- merged$tree
  expect_s3_class(tree, "hclust")
  expect_setequal(tree$order, 1:4)
  expect_false(is.unsorted(tree$height))
  cut <- stats::cutree(tree, 2)
  expect_setequal(split(1:4, cut), lapply(merged$models[["2"]]$members, sort))
  dendrogram <- as.dendrogram(merged)
  expect_s3_class(dendrogram, "dendrogram")
  expect_setequal(labels(dendrogram), paste0("expert", 1:4))
  expect_output(print(merged), "chosen by DSC")
  expect_identical(as.data.frame(merged), merged$table)
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  expect_invisible(plot(merged))
  expect_invisible(plot(merge_experts(rich_fit(k = 2), "BIC"), which = "tree"))
})

test_that("bad arguments say so", {
  fit <- rich_fit(k = 2)
  single <- rich_fit(k = 1)
  expect_snapshot(error = TRUE, {
    merge_experts(1)
    merge_experts(single)
    merge_experts(fit, "ICL")
    merge_experts(fit, refit = NA)
    merge_experts(fit, penalty = -1)
    merge_experts(fit, penalty = NaN)
    merge_experts(fit, kappa = 3)
    plot(merge_experts(fit), which = "fitted")
  })
})

test_that("after an interrupt no further model is refitted", {
  fit <- rich_fit(3)
  stopped <- fit
  stopped$convergence$status <- "interrupted"
  calls <- 0
  refit <- cosmoe:::refit_all
  environment(refit) <- list2env(list(refit_merged = function(...) {
    calls <<- calls + 1
    stopped
  }), parent = asNamespace("cosmoe"))
  fits <- refit(3:1, list(), fit, NULL)
  expect_identical(calls, 1)
  expect_identical(cosmoe:::refit_columns(fits)$status, c("converged", "interrupted", "interrupted"))
})
