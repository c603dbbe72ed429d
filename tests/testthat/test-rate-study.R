test_that("a study has one row for each arm, size and replicate", {
  study <- small_study()
  expect_s3_class(study, "rate_study")
  expect_identical(
    study$results[c("arm", "n", "rep")],
    data.frame(
      arm = rep(c("exact", "over"), each = 9), n = rep(rep(c(50L, 100L, 200L), each = 3), 2), rep = rep(1:3, 6)
    )
  )
  expect_true(all(is.finite(study$results$prediction)))
  # Cells with several atoms: none in an exact fit whose atoms are near their own.
  expect_true(all(is.na(study$results$L3_multi[study$results$arm == "exact" & study$results$n == 200])))
  long <- as.data.frame(study, long = TRUE)
  expect_identical(dim(long), c(18L * 3L, 12L))
  expect_identical(long$value[long$loss == "L2"], study$results$L2)
  expect_identical(as.data.frame(study), study$results)
})

test_that("a row is what the estimator and the losses say, by hand", {
  truth <- study_truth()
  study <- rate_study(truth,
    n = 120, reps = 2, fits = list(a = list(), b = list(k = 3)), sigma = 0.1, sample = 50, seed = 7,
    loss = c(
      "L2", "L2_raw", "L3", "L3_u", "L1r2", "L3_mass", "L3_gate", "L3_expert", "L3_direction", "L3_norm", "L3_single",
      "L3_multi", "L3_u_multi", "prediction"
    ), start = start_near(noise = 0.05, exponent = 0.25)
  )
  # The seeds once more: those of size 120 come from a sequence of their own, two a replicate.
  old <- RNGkind("Mersenne-Twister", "Inversion", "Rejection")
  on.exit(RNGkind(old[1], old[2], old[3]))
  seeds_of <- function(n) {
    set.seed(7)
    set.seed(bitwXor(sample.int(.Machine$integer.max, 1), n))
    sample.int(.Machine$integer.max, 6)
  }
  seeds <- seeds_of(120L)
  set.seed(seeds[3]) # replicate 2
  x <- matrix(stats::runif(240, -1, 1), 120)
  noise <- 0.1 * stats::rnorm(120)
  y <- predict(truth, x) + noise
  set.seed(seeds[4])
  from <- c(1, 2, sample.int(2, 1, replace = TRUE))[sample.int(3)]
  off <- function(v) v + 0.05 * 120^-0.25 * stats::rnorm(length(v))
  begin <- list(
    beta = off(truth$beta1[, from]), b = off((truth$beta0 - log(tabulate(from, 2)))[from]),
    experts = off(truth$eta[, from])
  )
  fit <- fit_cosine_moe(x, y,
    k = 3, router = truth$router, expert = "gelu", standardize = FALSE, start = begin
  )
  row <- study$results[study$results$arm == "b" & study$results$rep == 2, ]
  expect_identical(row$passes, fit$convergence$passes)
  expect_identical(row$boundary, length(fit$diagnostics$boundary))
  expect_equal(row$gain, (sum(noise^2) - fit$sse) / 0.01)
  for (type in c("L2", "L3")) expect_identical(row[[type]], as.numeric(voronoi_loss(fit, truth, type)))
  expect_identical(row$L2_raw, as.numeric(voronoi_loss(fit, truth, "L2", align = "none")))
  expect_identical(row$L1r2, as.numeric(voronoi_loss(fit, truth, "L1", r = 2)))
  bounded <- voronoi_loss(fit, truth, "L3", space = "u")
  expect_identical(row$L3_u, as.numeric(bounded))

  # Parts from the atoms, for u, where nothing is infinite.
  G <- as_mixing_measure(fit)
  cells <- attr(bounded, "cells")
  mass <- exp(G$beta0 + attr(bounded, "c"))
  length_of <- function(m) sqrt(colSums(m^2))
  shifted <- G$u + attr(bounded, "shift")
  distance <- length_of(shifted - truth$u[, cells]) + length_of(G$eta - truth$eta[, cells])
  several <- tabulate(cells, 2)[cells] > 1
  expect_equal(row$L3_u_multi, sum((mass * distance)[several]))
  aligned <- voronoi_loss(fit, truth, "L3")
  expect_equal(c(row$L3_mass, row$L3_gate, row$L3_expert), unname(attr(aligned, "parts")))

  set.seed(seeds_of(0L)[1]) # before all sizes
  fixed <- matrix(stats::runif(100, -1, 1), 50)
  expect_equal(row$prediction, sqrt(mean((predict(fit, fixed) - predict(truth, fixed))^2)))
})

test_that("directions and norms are those of the aligned gates", {
  truth <- study_truth(router_cosine())
  study <- rate_study(truth,
    n = 300, reps = 1, fits = list(a = list()), sigma = 0.1, sample = 50,
    loss = c("L2_gate", "L2_direction", "L2_norm", "L2_raw_norm", "L2_raw_direction", "L2_mass", "L2_expert", "L2")
  )
  row <- study$results
  expect_equal(row$L2, row$L2_gate + row$L2_mass + row$L2_expert)
  # The cosine router's norms are free, so that the aligned ones are orthogonal projections of the true vectors.
  expect_lt(row$L2_norm, row$L2_direction)
  # Without alignment the norms are those of unit vectors.
  norms <- sqrt(colSums(truth$beta1^2))
  expect_equal(row$L2_raw_norm, mean(1 - norms), tolerance = 0.1)
})

test_that("numbers do not depend on plan, workers, other sizes, replicates or arms", {
  base <- small_study()
  set.seed(99)
  caller <- .Random.seed
  expect_identical(lasting(small_study()), lasting(base))
  expect_identical(.Random.seed, caller)
  old <- future::plan(future::multisession, workers = 2)
  on.exit(future::plan(old))
  expect_identical(lasting(small_study()), lasting(base))
  future::plan(old)
  wider <- small_study(n = c(75, 200, 50, 100), reps = 4, fits = list(over = list(k = 3), more = list(k = 4)))
  common <- function(study) {
    rows <- lasting(study)
    rows <- rows[rows$arm == "over" & rows$n != 75 & rows$rep <= 3, ]
    rownames(rows) <- NULL
    rows
  }
  expect_identical(common(wider), common(base))
  expect_identical(lasting(small_study(reps = 2:3)), {
    rows <- lasting(base)
    rows <- rows[rows$rep > 1, ]
    rownames(rows) <- NULL
    rows
  })
  expect_false(identical(lasting(small_study(seed = 2))$L2, base$results$L2))
  # Another kind of generator of the caller changes nothing, and stays.
  kinds <- suppressWarnings(RNGkind("Wichmann-Hill", "Box-Muller", "Rounding"))
  expect_identical(lasting(small_study()), lasting(base))
  expect_identical(RNGkind()[1:2], c("Wichmann-Hill", "Box-Muller"))
  RNGkind(kinds[1], kinds[2], kinds[3])
})

test_that("arms share data, and may have a truth of their own", {
  generator <- function(n) matrix(stats::rnorm(2 * n), n)
  vanilla <- study_truth(router_cosine())
  study <- small_study(
    n = 200, reps = 1, x = generator,
    fits = list(
      a = list(), twin = list(), vanilla = list(truth = vanilla),
      cold = list(start = "cold", control = list(n_starts = 4))
    )
  )
  rows <- lasting(study)
  expect_identical(unlist(rows[1, -1]), unlist(rows[2, -1]))
  expect_true(rows$gain[3] != rows$gain[1])
  # Same data, same optimum.
  expect_equal(rows$gain[4], rows$gain[1], tolerance = 1e-3)
})

test_that("slopes and curves are exact on exact data", {
  for (b in c(-0.5, -0.25, 0, -1.3, 0.2)) {
    made <- made_up_study(c(100, 1000, 10000), 4, function(n, rep) 7.2 * n^b * (1 + 0.1 * (rep - 2.5)))
    rate <- summary(made)$rates
    expect_equal(rate$slope, b)
    expect_equal(c(rate$a, rate$b), c(7.2, b), tolerance = 1e-6)
    expect_equal(rate$se, 0, tolerance = 1e-10)
    means <- summary(made)$means
    expect_equal(means$mean, 7.2 * c(100, 1000, 10000)^b)
    expect_equal(means$sd / means$mean, rep(stats::sd(1 + 0.1 * (1:4)), 3))
  }
})

test_that("the fits of lines and curves are those of lm() and nls()", {
  value <- function(n, rep) ref_with_seed(3, 5 * n^-0.4 * exp(0.3 * stats::rnorm(length(n))))
  made <- made_up_study(c(100, 300, 1000, 5000, 20000), 10, value)
  found <- summary(made)
  means <- found$means
  line <- stats::lm(log(mean) ~ log(n), means)
  expect_equal(found$rates$slope, unname(stats::coef(line)[2]))
  expect_equal(found$rates$se, summary(line)$coefficients[2, 2])
  expect_equal(c(found$rates$lower, found$rates$upper), unname(stats::confint(line)[2, ]))
  curve <- stats::nls(mean ~ a * n^b, means, start = list(a = 5, b = -0.4))
  expect_equal(c(found$rates$a, found$rates$b), unname(stats::coef(curve)), tolerance = 1e-4)
  expect_equal(found$rates$b_se, summary(curve)$coefficients[2, 2], tolerance = 1e-3)
  # The bootstrap by itself, in a loop.
  slope <- function(rows) {
    stats::coef(stats::lm(log(v) ~ log(n), stats::aggregate(v ~ n, rows, mean)))[[2]]
  }
  rows <- data.frame(n = made$results$n, v = made$results$prediction)
  draws <- ref_with_seed(1, vapply(1:300, function(i) {
    slope(rows[unlist(lapply(split(seq_len(50), rows$n), sample, replace = TRUE)), ])
  }, 0))
  expect_equal(c(found$rates$boot_lower, found$rates$boot_upper), unname(stats::quantile(draws, c(0.025, 0.975))),
               tolerance = 0.03)
})

test_that("few sizes, failed fits and infinite losses are left out and counted", {
  one <- made_up_study(100, 3, function(n, rep) rep)
  rate <- summary(one)$rates
  expect_true(is.na(rate$slope) && is.na(rate$b) && is.na(rate$boot_lower))
  expect_output(print(one), "1 size")
  two <- made_up_study(c(100, 400), 3, function(n, rep) n^-0.5)
  expect_equal(summary(two)$rates$slope, -0.5)
  expect_true(is.na(summary(two)$rates$se))
  odd <- made_up_study(c(100, 400), 3, function(n, rep) ifelse(rep == 2, c(Inf, NA)[1 + (n > 100)], n^-0.5))
  rate <- summary(odd)$rates
  expect_equal(c(rate$slope, rate$left_out, rate$fits), c(-0.5, 2, 6))
  expect_output(print(summary(odd)), "2 of 6")
})

test_that("failed fits are rows with a reason", {
  # Too few rows for the parameters at the smallest size.
  study <- small_study(n = c(8, 60), reps = 2)
  rows <- study$results
  expect_identical(nrow(rows), 8L)
  failed <- rows$n == 8
  expect_true(all(rows$status[failed] == "failed"))
  expect_match(rows$reason[failed], "rows")
  expect_true(all(is.na(rows$L2[failed])))
  expect_true(all(rows$reason[!failed] == ""))
  expect_output(print(study), "Not converged, of 8 fits: 4 failed")
  # A generator that breaks down now and then.
  moody <- function(n) if (n == 30) stop("no rows") else matrix(stats::runif(2 * n), n)
  broken <- small_study(n = c(30, 60), reps = 1, x = moody)
  expect_match(broken$results$reason[broken$results$n == 30], "no rows")
  expect_true(all(is.finite(broken$results$prediction[broken$results$n == 60])))
})

test_that("near starts are random surjections with noise that shrinks as promised", {
  truth <- study_truth()
  set.seed(1)
  for (k in 2:5) {
    for (i in 1:50) {
      from <- cosmoe:::random_surjection(k, 2)
      expect_identical(sort(unique(from)), 1:2)
      expect_length(from, k)
    }
  }
  counts <- table(replicate(300, paste(cosmoe:::random_surjection(3, 2), collapse = "")))
  expect_setequal(names(counts), c("112", "121", "211", "122", "212", "221"))
  expect_gt(min(counts), 25)
  exact <- cosmoe:::draw_study_start(start_near(0), truth, 4, 100)
  expect_equal(sum(exp(exact$b)), 1)
  expect_true(all(apply(exact$beta, 2, function(b) any(colSums(abs(truth$beta1 - b)) == 0))))
  spread <- function(policy, n) {
    set.seed(2)
    off <- replicate(200, cosmoe:::draw_study_start(policy, truth, 2, n)$b)
    stats::sd(apply(off, 2, function(b) sum(b) - sum(truth$beta0))) / sqrt(2)
  }
  expect_equal(spread(start_near(0.1), 1e4), 0.1, tolerance = 0.1)
  expect_equal(spread(start_near(0.1, 0.25), 1e4), 0.01, tolerance = 0.1)
  expect_null(cosmoe:::draw_study_start(start_cold(), truth, 2, 100))
  expect_output(print(start_near(0.1, 0.25)), "near the truth (noise 0.1 n^-0.25)", fixed = TRUE)
})

test_that("stochastic gradient descent is judged at its last iterate", {
  truth <- study_truth(router_cosine())
  study <- small_study(
    n = 100, reps = 1, fits = list(sgd = list(
      truth = truth, optimizer = "sgd", start = start_near(0), control = list(learning_rate = 1e-12, epochs = 1)
    )), loss = c("L2", "L2_raw", "L2_raw_norm")
  )
  # With a step of nearly nothing it stays at the truth, norms included.
  expect_lt(study$results$L2_raw, 1e-8)
  expect_lt(study$results$L2_raw_norm, 1e-8)
  expect_lt(study$results$L2, 1e-8)
})

test_that("studies merge", {
  whole <- small_study()
  parts <- c(small_study(reps = 1), small_study(n = c(50, 200), reps = 2:3), small_study(n = 100, reps = 2:3))
  expect_identical(lasting(parts), lasting(whole))
  expect_identical(lasting(c(whole, whole)), lasting(whole))
  arms <- c(small_study(fits = list(exact = list())), small_study(fits = list(over = list(k = 3))))
  expect_identical(lasting(arms), lasting(whole))
  losses <- c(small_study(loss = "L2"), small_study(loss = "prediction", n = 400))
  expect_identical(names(losses$loss), c("L2", "prediction"))
  expect_true(all(is.na(losses$results$prediction[losses$results$n == 50])))
  expect_snapshot(error = TRUE, {
    c(whole, small_study(seed = 2))
    c(whole, small_study(x = "normal"))
    c(whole, small_study(fits = list(exact = list(k = 4))))
    c(whole, 1)
  })
})

test_that("bad arguments stop before any work", {
  truth <- study_truth()
  bad <- function(...) {
    arguments <- list(truth = truth, n = 100, reps = 1, fits = list(a = list()), sigma = 0.1)
    given <- list(...)
    arguments[names(given)] <- given
    do.call(rate_study, arguments)
  }
  expect_snapshot(error = TRUE, {
    rate_study(1, 100, 1, list(a = list()), sigma = 0.1)
    rate_study(truth, 100, 1, list(a = list()))
    bad(n = c(100, 100))
    bad(n = 1.5)
    bad(reps = 0)
    bad(reps = c(1, 1))
    bad(fits = list(list()))
    bad(fits = list(a = 1))
    bad(fits = list(a = list(K = 2)))
    bad(fits = list(a = list(k = 0)))
    bad(fits = list(a = list(k = 1)))
    bad(fits = list(a = list(router = "cosine")))
    bad(fits = list(a = list(expert = "linear")))
    bad(fits = list(a = list(optimizer = "adam")))
    bad(fits = list(a = list(top_k = 3)))
    bad(x = "cube")
    bad(x = function(n) matrix(0, n, 3))
    bad(x = function(n) stop("no"))
    bad(sigma = -1)
    bad(start = "warm")
    bad(loss = "L4")
    bad(loss = c("L2", "L2"))
    bad(loss = character())
    bad(seed = 1.5)
    bad(path = 1)
    bad(sample = 0)
    bad(wrong = 1)
    start_near(-1)
  })
  # Fits by another model have a regression function, if nothing else.
  other <- bad(
    fits = list(linear = list(router = "linear", start = "cold", control = list(n_starts = 2))), loss = "prediction"
  )
  expect_true(is.finite(other$results$prediction))
})

test_that("summaries and pictures", {
  study <- made_up_study(c(100, 1000, 10000), 4, function(n, rep) 7.2 * n^-0.5 * (1 + 0.1 * (rep - 2.5)))
  expect_snapshot(print(study))
  file <- tempfile(fileext = ".pdf")
  grDevices::pdf(file)
  on.exit(unlink(file))
  expect_invisible(plot(study))
  expect_identical(plot(study, theory = NULL, curve = "power", main = "A title"), study)
  plot(small_study(), loss = c("L2", "prediction"), theory = c(L2 = -0.5, prediction = -0.5))
  grDevices::dev.off()
  picture <- cosmoe:::rate_picture(summary(study), NULL, NULL, -0.5, "power", NULL)[[1]]
  expect_identical(picture$labels$label, "7.2 n^-0.50")
  expect_equal(picture$points$high - picture$points$mean, 2 * picture$points$mean * stats::sd(0.1 * (1:4)))
  expect_equal(diff(log(picture$theory$y)) / diff(log(picture$theory$n)), -0.5)
  skip_if_not_installed("ggplot2")
  drawn <- ggplot2::autoplot(study)
  expect_s3_class(drawn, "ggplot")
  expect_silent(ggplot2::ggplot_build(drawn))
  expect_error(plot(study, loss = "L2"), class = "cosmoe_error_input")
  expect_error(plot(study, theory = "x"), class = "cosmoe_error_input")
  expect_error(summary(study, arm = "none"), class = "cosmoe_error_input")
})

test_that("plans count what there is to do", {
  plan <- plan_study(study_truth(), n = c(50, 100, 400000), reps = 3, fits = list(a = list(), b = list(k = 3)),
                     sigma = 0.1, sample = 100, budget = 0.01, workers = c(1, 4))
  expect_identical(plan$cost$replicates, rep(3L, 6))
  expect_false(plan$cost$measured[3])
  at <- function(arm, n) plan$cost$seconds[plan$cost$arm == arm & plan$cost$n == n]
  last <- function(arm) max(plan$cost$n[plan$cost$arm == arm & plan$cost$measured])
  expect_equal(at("a", 400000), at("a", last("a")) * 400000 / last("a"))
  expect_equal(plan$total, sum(3 * plan$cost$seconds))
  expect_equal(plan$wall$seconds[1], plan$total)
  expect_gte(plan$wall$seconds[2], plan$total / 4)
  expect_output(print(plan), "18 fits")
  expect_error(
    plan_study(study_truth(), 100, 1, list(a = list()), sigma = 0.1, workers = 0), class = "cosmoe_error_input"
  )
})
