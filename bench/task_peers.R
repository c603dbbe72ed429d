# Maximum likelihood on real data: default fits against the best that flexmix and MoEClust find in many starts
# (peers.csv; COSMOE_BENCH_ORACLE=1 computes what is missing there, so delete the file to begin anew). All maximise the
# same function: sigmas are free, and flexmix has the divisor of maximum likelihood (flexmix_ml()), which MoEClust's
# variance model "V" has by itself.
task_peers <- function(seeds = 1:3) {
  cases <- peer_cases()
  file <- file.path(bench_folder, "peers.csv")
  if (nzchar(Sys.getenv("COSMOE_BENCH_ORACLE"))) {
    known <- if (file.exists(file)) utils::read.csv(file)
    for (case in Filter(function(case) !peer_label(case) %in% known$model, cases)) {
      known <- rbind(known, peer_best(case))
      utils::write.csv(known, file, row.names = FALSE)
    }
  }
  if (!file.exists(file)) {
    message("peers: no peers.csv yet (COSMOE_BENCH_ORACLE=1 computes it), left out")
    return(NULL)
  }
  known <- utils::read.csv(file)
  rows <- lapply(cases, function(case) {
    best <- known[known$model == peer_label(case) & !is.na(known$best), ]
    if (!nrow(best)) {
      message("peers: nothing known about ", peer_label(case))
      return(NULL)
    }
    if (nrow(case$data) > 1e4) seeds <- seeds[1]
    began <- clock()
    fits <- lapply(seeds, function(seed) peer_ours(case, seed))
    seconds <- (clock() - began) / length(seeds)
    ours <- vapply(fits, function(fit) fit$loglik, numeric(1))
    theirs <- max(best$best)
    figure <- sprintf(
      "%s: log-likelihood, lowest of %d default fits (%.2g s each), against %s",
      peer_label(case), length(seeds), seconds,
      paste(sprintf("%s's best of %d starts (%.4f)", best$peer, best$starts, best$best), collapse = ", ")
    )
    spikes <- sum(vapply(fits, function(fit) fit$convergence$status == "degenerate", NA))
    if (spikes) figure <- sprintf("%s; %d of the fits degenerate", figure, spikes)
    bench_row("peers", figure, min(ours), theirs, "at most 1e-3 lower", min(ours) >= theirs - 1e-3, ratio = NA)
  })
  do.call(rbind, rows)
}

# Data, formula of the experts, gate, number of experts, family; fewer starts where one takes minutes.
peer_cases <- function() {
  case <- function(package, name, experts, gate, k, family = "gaussian", offset = NULL, starts = 50) {
    data <- bench_data(package, name)
    if (is.null(data)) message("peers: ", package, "::", name, " could not be had")
    list(
      name = name, data = data, experts = experts, gate = gate, k = k, family = family, offset = offset, starts = starts
    )
  }
  cases <- list(
    case("mixtools", "CO2data", CO2 ~ GNP, ~1, 2),
    case("mixtools", "CO2data", CO2 ~ GNP, ~GNP, 2),
    case("mixtools", "NOdata", Equivalence ~ NO, ~1, 2),
    case("mixtools", "NOdata", Equivalence ~ NO, ~NO, 2),
    case("mixtools", "tonedata", tuned ~ stretchratio, ~1, 2),
    case("mixtools", "tonedata", tuned ~ stretchratio, ~stretchratio, 2),
    case("flexmix", "patent", Patents ~ lgRD, ~RDS, 3, "poisson"),
    case("flexmix", "NregFix", y ~ x1 + x2, ~w, 2),
    case("flexmix", "NregFix", y ~ x1 + x2, ~w, 3),
    case("flexmix", "tribolium", cbind(Remaining, Total - Remaining) ~ Species, ~1, 2, "binomial"),
    case("flexmix", "seizure", Seizures ~ Treatment * log(Day), ~1, 2, "poisson", quote(log(Hours))),
    case("MASS", "Boston", medv ~ lstat + rm + ptratio, ~ lstat + rm + ptratio, 2),
    case("MASS", "Boston", medv ~ lstat + rm + ptratio, ~ lstat + rm + ptratio, 3),
    case("MASS", "mcycle", accel ~ times, ~times, 2),
    case("MASS", "mcycle", accel ~ times, ~times, 3),
    case("lattice", "ethanol", NOx ~ E + C, ~E, 2),
    case("lattice", "ethanol", NOx ~ E + C, ~E, 3),
    case("ggplot2", "diamonds", log(price) ~ log(carat) + depth + table, ~ log(carat), 2, starts = 2)
  )
  Filter(function(case) !is.null(case$data), cases)
}

peer_label <- function(case) {
  words <- function(part) paste(deparse(part, width.cutoff = 500), collapse = " ")
  sprintf("%s, %s | %s, k = %d", case$name, words(case$experts), words(case$gate[[2]]), case$k)
}

peer_ours <- function(case, seed) {
  experts <- case$experts
  if (!is.null(case$offset)) experts[[3]] <- call("+", experts[[3]], call("offset", case$offset))
  formula <- experts
  formula[[3]] <- call("|", experts[[3]], case$gate[[2]])
  set.seed(seed)
  suppressWarnings(
    fit_cosine_moe(formula, case$data, k = case$k, method = "em", family = case$family, router = "linear"),
    classes = "cosmoe_warning_convergence"
  )
}

# The best log-likelihood of each peer.
peer_best <- function(case) {
  best_of <- function(peer, solve) {
    if (!requireNamespace(peer, quietly = TRUE)) {
      message("peers: ", peer, " is not installed")
      return(NULL)
    }
    message(peer, ": ", peer_label(case))
    began <- proc.time()[["user.self"]]
    set.seed(1)
    solutions <- solve(case)
    admitted <- vapply(solutions, peer_admits, NA, case = case)
    values <- vapply(solutions[admitted], function(solution) solution$loglik, numeric(1))
    data.frame(
      model = peer_label(case), peer = peer, version = as.character(utils::packageVersion(peer)), starts = case$starts,
      best = if (length(values)) max(values) else NA, refused = sum(!admitted),
      seconds = proc.time()[["user.self"]] - began
    )
  }
  rbind(best_of("flexmix", peer_flexmix), if (case$family == "gaussian") best_of("MoEClust", peer_moeclust))
}

# A solution counts when it has all its experts, each with more rows (summed responsibilities) than the parameters that
# it has in them, and no sigma below the bound of fit_cosine_moe(), a thousandth of the response's spread: otherwise an
# expert runs through a few rows, and its likelihood has no maximum.
peer_admits <- function(solution, case) {
  y <- stats::model.response(stats::model.frame(case$experts, case$data))
  p <- ncol(stats::model.matrix(case$experts, case$data))
  parameters <- p + (case$family == "gaussian")
  length(solution$rows) == case$k && is.finite(solution$loglik) && all(solution$rows > parameters) &&
    all(solution$sigma > sqrt(mean((y - mean(y))^2)) / 1000)
}

# All starts with flexmix's defaults, except that it keeps small experts; the best tenth then goes on.
peer_flexmix <- function(case) {
  model <- flexmix_ml(case$family, if (!is.null(case$offset)) eval(case$offset, case$data))
  run <- function(..., control) {
    tryCatch(
      flexmix::flexmix(case$experts, case$data,
        k = case$k, model = model, concomitant = flexmix::FLXPmultinom(case$gate), control = control, ...
      ),
      error = function(e) NULL
    )
  }
  found <- Filter(Negate(is.null), lapply(seq_len(case$starts), function(i) run(control = list(minprior = 0))))
  solutions <- lapply(found, peer_of_flexmix)
  admitted <- which(vapply(solutions, peer_admits, NA, case = case))
  best <- admitted[order(-vapply(solutions[admitted], function(solution) solution$loglik, numeric(1)))]
  long <- lapply(found[utils::head(best, ceiling(case$starts / 10))], function(fit) {
    run(cluster = flexmix::posterior(fit), control = list(minprior = 0, tolerance = 1e-10, iter.max = 1000))
  })
  c(solutions, lapply(Filter(Negate(is.null), long), peer_of_flexmix))
}

peer_of_flexmix <- function(fit) {
  parameters <- flexmix::parameters(fit)
  list(
    loglik = methods::slot(fit, "logLik"), rows = colSums(flexmix::posterior(fit)),
    sigma = if ("sigma" %in% rownames(parameters)) parameters["sigma", ]
  )
}

# Starts from random labels, one by one, and its default start.
peer_moeclust <- function(case) {
  frame <- stats::model.frame(case$experts, case$data)
  run <- function(...) {
    fit <- tryCatch(
      suppressWarnings(utils::capture.output(result <- MoEClust::MoE_clust(
        as.numeric(stats::model.response(frame)),
        G = case$k, modelNames = if (case$k > 1) "V" else "E", gating = case$gate, expert = case$experts[-2],
        network.data = as.data.frame(case$data), verbose = FALSE, tol = 1e-9, ...
      ))),
      error = function(e) NULL
    )
    if (is.null(fit)) return(NULL)
    list(
      loglik = utils::tail(result$loglik, 1), rows = colSums(result$z), sigma = result$parameters$variance$sigmasq^0.5
    )
  }
  default <- if (nrow(case$data) <= 5000) list(run()) # hierarchical clustering: memory goes with the square of n
  Filter(Negate(is.null), c(lapply(seq_len(case$starts), function(i) run(init.z = "random.hard")), default))
}
