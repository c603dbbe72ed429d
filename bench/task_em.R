# Maximum likelihood from the same starting labels as others, one start each, with everybody's own defaults: mixtures of
# three regressions in five covariates, which the gate has too. Gaussian experts against flexmix, MoEClust, the classes
# of meteorits and EM in plain vectorised R (em_plain.R); Poisson and binomial ones against flexmix. User time; medians.
# Log-likelihoods are compared as maxima of the same function, ours minus theirs: flexmix has the divisor of maximum
# likelihood (flexmix_ml()).
task_em <- function(sizes = em_sizes(), times = 3) {
  others <- expand.grid(n = sizes[sizes < 1e5], family = c("poisson", "binomial"), stringsAsFactors = FALSE)
  do.call(rbind, c(
    lapply(sizes, em_gaussian, times = times),
    lapply(seq_len(nrow(others)), function(i) em_family(others$n[i], others$family[i], times)),
    lapply(sizes, em_default),
    list(em_memory(max(sizes)))
  ))
}

# COSMOE_BENCH_EM_SIZES, for instance "1e3 1e4", for a quicker run.
em_sizes <- function() {
  given <- Sys.getenv("COSMOE_BENCH_EM_SIZES")
  if (nzchar(given)) as.numeric(strsplit(given, " ")[[1]]) else c(1e3, 1e4, 1e5)
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
    list(data = data.frame(y = y, x), x = x, labels = label, k = k, d = d, family = family)
  })
}

# The formula of the experts; the gate has the same covariates.
em_formula <- function(case) {
  response <- if (case$family == "binomial") quote(cbind(y, 10 - y)) else quote(y)
  as.formula(call("~", response, em_gate(case)[[2]]))
}

em_gate <- function(case) reformulate(paste0("x", seq_len(case$d)))

# The regressions of the labels and a gate without effect: less than what the others take from the labels.
em_label_start <- function(case) {
  experts <- vapply(seq_len(case$k), function(j) {
    own <- coef(glm(em_formula(case), case$family, case$data[case$labels == j, ]))
    c(own[-1], own[1])
  }, numeric(case$d + 1))
  list(beta = matrix(0, case$d, case$k), b = numeric(case$k), experts = unname(experts))
}

em_ours <- function(case) {
  start <- em_label_start(case)
  function() {
    fit <- fit_cosine_moe(em_formula(case), case$data,
      k = case$k, method = "em", family = case$family, router = "linear", start = start
    )
    fit$loglik
  }
}

# Peers: functions like ours, without arguments, that fit and return the log-likelihood; NULL when not installed.
em_flexmix <- function(case, ...) {
  if (!has_peer("flexmix")) return(NULL)
  model <- flexmix_ml(case$family)
  function() {
    fit <- flexmix::flexmix(em_formula(case), case$data,
      cluster = case$labels, model = model, concomitant = flexmix::FLXPmultinom(em_gate(case)), ...
    )
    methods::slot(fit, "logLik")
  }
}

em_moeclust <- function(case) {
  if (!has_peer("MoEClust")) return(NULL)
  labels <- 1 * outer(case$labels, seq_len(case$k), "==")
  function() {
    fit <- MoEClust::MoE_clust(case$data$y,
      G = case$k, modelNames = "V", gating = em_gate(case), expert = em_gate(case), network.data = case$data,
      init.z = "list", z.list = list(labels), verbose = FALSE
    )
    utils::tail(fit$loglik, 1)
  }
}

# The loop of meteorits' emNMoE(), which itself takes one covariate only, on its classes, which take a matrix.
em_meteorits <- function(case) {
  if (!has_peer("meteorits")) return(NULL)
  function() {
    design <- cbind(1, case$x)
    param <- meteorits:::ParamNMoE(X = case$x[, 1], Y = case$data$y, K = case$k, p = case$d, q = case$d)
    param$phiBeta$XBeta <- param$phiAlpha$XBeta <- design
    stat <- meteorits:::StatNMoE(paramNMoE = param)
    stat$tik <- 1 * outer(case$labels, seq_len(case$k), "==")
    last <- -Inf
    repeat {
      gate_penalty <- param$MStep(stat, FALSE)
      stat$EStep(param)
      stat$computeLikelihood(gate_penalty)
      if (isTRUE(abs((stat$loglik - last) / last) <= 1e-6)) break
      last <- stat$loglik
    }
    sum(stat$log_sum_piik_fik)
  }
}

has_peer <- function(peer) {
  there <- requireNamespace(peer, quietly = TRUE)
  if (!there) message("em: ", peer, " is not installed, left out")
  there
}

em_gaussian <- function(n, times) {
  case <- em_bench_data(n, "gaussian")
  ours <- em_ours(case)
  peers <- list(
    `plain R` = function() em_plain(case$data$y, cbind(1, case$x), case$labels), meteorits = em_meteorits(case),
    flexmix = em_flexmix(case), MoEClust = em_moeclust(case)
  )
  em_rows(case, ours, Filter(Negate(is.null), peers), c(`plain R` = 10, meteorits = 10, flexmix = 50, MoEClust = 50),
    times = times
  )
}

em_family <- function(n, family, times) {
  case <- em_bench_data(n, family)
  peer <- em_flexmix(case)
  if (!is.null(peer)) em_rows(case, em_ours(case), list(flexmix = peer), c(flexmix = 50), times)
}

em_rows <- function(case, ours, peers, factors, times) {
  n <- nrow(case$data)
  all <- c(list(ours = ours), peers)
  loglik <- vapply(all, function(fit) fit(), numeric(1))
  seconds <- apply(user_time_in_turn(all, times), 2, stats::median)
  rows <- lapply(names(peers), function(peer) {
    gain <- loglik[["ours"]] - loglik[[peer]]
    figure <- sprintf("%s, n = %g, one start, user s, against %s; log-likelihood %+.2g", case$family, n, peer, gain)
    bench_row("em", figure, seconds[["ours"]], seconds[[peer]],
      goal = sprintf("at most 1 / %d, log-likelihood no lower", factors[[peer]]),
      met = gain > -1e-3 && factors[[peer]] * seconds[["ours"]] <= seconds[[peer]]
    )
  })
  do.call(rbind, rows)
}

# All starts of a fit with defaults against one of flexmix, from random labels as is its default.
em_default <- function(n) {
  if (!has_peer("flexmix")) return(NULL)
  case <- em_bench_data(n, "gaussian")
  ours <- function() {
    set.seed(1)
    fit_cosine_moe(em_formula(case), case$data, k = case$k, method = "em", router = "linear")
  }
  theirs <- function() {
    set.seed(1)
    flexmix::flexmix(em_formula(case), case$data, k = case$k, concomitant = flexmix::FLXPmultinom(em_gate(case)))
  }
  seconds <- user_time_in_turn(list(ours = ours, theirs = theirs), times = 1)
  bench_row("em", sprintf("gaussian, n = %g, default fit, user s, against one start of flexmix", n),
    seconds[, "ours"], seconds[, "theirs"],
    goal = "below 1", met = seconds[, "ours"] < seconds[, "theirs"]
  )
}

# Growth of a process that reads the data and fits them from the labels.
em_memory <- function(n) {
  if (!has_peer("flexmix") || !file.exists("/proc/self/status")) return(NULL)
  case <- em_bench_data(n, "gaussian")
  grown <- vapply(c("em", "flexmix"), function(what) {
    memory_child(list(x = case$x, y = case$data$y, labels = case$labels), case$d, case$k, what)[["peak_mb"]]
  }, numeric(1))
  bench_row("em", sprintf("gaussian, n = %g, peak memory of one start, data included, MB, against flexmix", n),
    grown[["em"]], grown[["flexmix"]],
    goal = "below 1 / 2", met = grown[["em"]] < grown[["flexmix"]] / 2
  )
}
