# Mixtures of regressions by maximum likelihood against flexmix, both from the same starting labels: three experts in
# five covariates, which the gate has too. Log-likelihoods are compared as maxima of the same function, ours minus
# theirs; flexmix's sigma has the divisor n_k - p, so its Gaussian maximum is put at its own coefficients with ours.
task_em <- function(sizes = c(1e3, 1e4), times = 3) {
  if (!requireNamespace("flexmix", quietly = TRUE)) {
    message("flexmix is not installed: nothing to compare with")
    return(NULL)
  }
  cases <- expand.grid(n = sizes, family = c("gaussian", "poisson", "binomial"), stringsAsFactors = FALSE)
  rows <- lapply(seq_len(nrow(cases)), function(i) em_case(cases$n[i], cases$family[i], times))
  do.call(rbind, c(rows, list(em_default(sizes[1]))))
}

em_bench_data <- function(n, family, d = 5, k = 3) {
  ref_with_seed(5, {
    x <- matrix(rnorm(n * d), n, dimnames = list(NULL, paste0("x", seq_len(d))))
    size <- if (family == "gaussian") 2 else 0.5
    experts <- matrix(rnorm(k * (d + 1), sd = size), d + 1)
    gate <- exp(cbind(1, x) %*% matrix(rnorm(k * (d + 1)), d + 1))
    label <- max.col(log(gate) - log(-log(matrix(runif(n * k), n))))
    eta <- (cbind(1, x) %*% experts)[cbind(seq_len(n), label)]
    y <- switch(family,
      gaussian = eta + rnorm(n), poisson = rpois(n, exp(pmin(eta + 1, 5))), binomial = rbinom(n, 10, plogis(2 * eta))
    )
    # One row in four begins in a wrong cluster.
    wrong <- runif(n) < 0.25
    label[wrong] <- sample.int(k, sum(wrong), replace = TRUE)
    list(data = data.frame(y = y, x), labels = label, k = k, d = d)
  })
}

em_case <- function(n, family, times) {
  case <- em_bench_data(n, family)
  d <- case$data
  covariates <- reformulate(paste0("x", seq_len(case$d)))
  response <- if (family == "binomial") quote(cbind(y, 10 - y)) else quote(y)
  formula <- as.formula(call("~", response, covariates[[2]]))
  experts <- vapply(seq_len(case$k), function(j) {
    own <- coef(glm(formula, family, d[case$labels == j, ]))
    c(own[-1], own[1])
  }, numeric(case$d + 1))
  start <- list(beta = matrix(0, case$d, case$k), b = numeric(case$k), experts = unname(experts))
  one <- function() {
    fit_cosine_moe(formula, d, k = case$k, method = "em", family = family, router = "linear", start = start)
  }
  theirs <- function() {
    flexmix::flexmix(formula,
      data = d, cluster = case$labels, model = flexmix::FLXMRglm(family = family),
      concomitant = flexmix::FLXPmultinom(covariates)
    )
  }
  seconds <- apply(time_in_turn(list(ours = one, theirs = theirs), times), 2, stats::median)
  gain <- one()$loglik - methods::slot(theirs(), "logLik")
  figure <- sprintf("%s, n = %g, one start, s, against flexmix; log-likelihood %+.2g", family, n, gain)
  bench_row("em", figure, seconds[["ours"]], seconds[["theirs"]],
    goal = "at most 1 / 50, log-likelihood no lower",
    met = gain > -1e-2 && 50 * seconds[["ours"]] <= seconds[["theirs"]]
  )
}

# All starts of a fit with defaults against one of flexmix.
em_default <- function(n) {
  case <- em_bench_data(n, "gaussian")
  ours <- function() fit_cosine_moe(y ~ ., case$data, k = case$k, method = "em", router = "linear")
  theirs <- function() {
    flexmix::flexmix(y ~ .,
      data = case$data, cluster = case$labels, concomitant = flexmix::FLXPmultinom(~ x1 + x2 + x3 + x4 + x5)
    )
  }
  seconds <- time_in_turn(list(ours = ours, theirs = theirs), 1, warm = 0)
  bench_row("em", sprintf("gaussian, n = %g, default fit, s, against one start of flexmix", n),
    seconds[, "ours"], seconds[, "theirs"],
    goal = "below 1", met = seconds[, "ours"] < seconds[, "theirs"]
  )
}
