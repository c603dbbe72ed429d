# Sums of squares this close (relative) count as one optimum: those at infinity are approached, never reached.
same_optimum <- 1e-5

# How often a default fit finds the best optimum that 1,000 random starts find, on real data, over ten seeds. The best
# comes from oracle.csv; COSMOE_BENCH_ORACLE=1 computes that file anew.
task_starts <- function(seeds = 1:10) {
  sets <- bench_datasets()
  file <- file.path(bench_folder, "oracle.csv")
  if (nzchar(Sys.getenv("COSMOE_BENCH_ORACLE"))) {
    utils::write.csv(do.call(rbind, lapply(sets, oracle)), file, row.names = FALSE)
  }
  if (!file.exists(file)) {
    message("starts: no oracle.csv yet (COSMOE_BENCH_ORACLE=1 computes it), left out")
    return(NULL)
  }
  known <- utils::read.csv(file)
  rows <- lapply(sets, function(set) {
    best <- known[known$data == set$name & known$k == set$k & known$expert == set$expert, ]
    if (!nrow(best)) {
      message("starts: no oracle for ", set$name)
      return(NULL)
    }
    began <- clock()
    squares <- vapply(seeds, function(seed) default_fit(set, seed)$sse, numeric(1))
    seconds <- (clock() - began) / length(seeds)
    lowest <- min(best$best, best$best_plain_r, na.rm = TRUE)
    hits <- sum(squares <= lowest * (1 + same_optimum))
    figure <- sprintf(
      "%s, k = %d, %s: default fits at the best of %d random starts (%d of those are there; a fit takes %.2g s)",
      set$name, set$k, set$expert, best$starts, best$hits, seconds
    )
    below <- 1 - min(squares) / lowest
    if (below > same_optimum) figure <- sprintf("%s; %.1e below it", figure, below)
    bench_row("starts", figure, hits, length(seeds), "always", met = hits == length(seeds))
  })
  do.call(rbind, rows)
}

default_fit <- function(set, seed, ...) {
  set.seed(seed)
  suppressWarnings(
    fit_cosine_moe(set$formula, data = set$data, k = set$k, expert = set$expert, router = "perturbed_cosine", ...),
    classes = "cosmoe_warning_convergence"
  )
}

# The problem of a data set in the core's coordinates. Experts may be standardized at will; the gate as the package
# does.
oracle_problem <- function(set) {
  formula <- Formula::as.Formula(set$formula)
  frame <- stats::model.frame(formula, set$data)
  matrix_of <- function(part) stats::model.matrix(formula, frame, rhs = part)[, -1, drop = FALSE]
  fit <- default_fit(set, 1, control = moe_control(n_starts = 1, short_passes = 1, max_passes = 1))
  z <- scale(matrix_of(length(formula)[2]), fit$z_center, fit$z_scale)
  list(
    x = unname(scale(matrix_of(1))[, , drop = FALSE]), z = unname(z[, , drop = FALSE]),
    y = as.double(stats::model.response(frame)), model = ref_model(ref_router("perturbed_cosine"), set$expert, set$k)
  )
}

# Gates anywhere in the ball; experts from regressions on few rows round a random one, or anything.
oracle_start <- function(problem) {
  k <- problem$model$k
  d_gate <- ncol(problem$z)
  u <- matrix(rnorm(d_gate * k), d_gate)
  u <- u * rep(runif(k)^(1 / d_gate) * problem$model$router$scale / sqrt(colSums(u^2)), each = d_gate)
  spread <- stats::sd(problem$y)
  d <- ncol(problem$x)
  local <- runif(1) < 0.5
  expert <- function(j) {
    if (!local) {
      return(c(rnorm(d, sd = spread), mean(problem$y) + rnorm(1, sd = spread)))
    }
    center <- problem$x[sample.int(nrow(problem$x), 1), ]
    distance <- colSums((t(problem$x) - center)^2)
    near <- order(distance)[seq_len(max(d + 3, nrow(problem$x) %/% (2 * k)))]
    line <- stats::lm.fit(cbind(problem$x[near, , drop = FALSE], 1), problem$y[near])$coefficients
    unname(ifelse(is.na(line), 0, line))
  }
  list(u = u, b = rnorm(k), eta = vapply(seq_len(k), expert, numeric(d + 1)))
}

# The best of many random starts, by the package's solver and, for small data, by plain R as well.
oracle <- function(set, starts = 1000, plain = set$name %in% c("cars", "faithful")) {
  message("oracle ", set$name, ", k = ", set$k)
  problem <- oracle_problem(set)
  rows <- list(
    x = problem$x, z = problem$z, y = problem$y, w = NULL,
    x_center = NULL, x_scale = NULL, z_center = NULL, z_scale = NULL
  )
  best_of <- function(solve, seed) {
    set.seed(seed)
    squares <- vapply(seq_len(starts), function(i) solve(oracle_start(problem)), numeric(1))
    list(best = min(squares), hits = sum(squares <= min(squares) * (1 + same_optimum)))
  }
  # Every start gets 60 passes, the best forty of them up to 2,000.
  core_best <- function(seed) {
    set.seed(seed)
    control <- function(passes) fit_control(max_passes = passes)
    runs <- lapply(seq_len(starts), function(i) {
      cosmoe:::core_fit(problem$model, rows, oracle_start(problem), control(60))[c("u", "b", "eta", "objective")]
    })
    squares <- vapply(runs, function(run) run$objective, numeric(1))
    for (i in utils::head(order(squares), 40)) {
      squares[i] <- cosmoe:::core_fit(problem$model, rows, runs[[i]], control(2000))$objective
    }
    list(best = min(squares), hits = sum(squares <= min(squares) * (1 + same_optimum)))
  }
  core <- core_best(1)
  r <- if (plain) best_of(function(start) oracle_plain(problem, start), 2) else list(best = NA, hits = NA)
  data.frame(
    data = set$name, k = set$k, expert = set$expert, n = length(problem$y), starts = starts,
    best = core$best, hits = core$hits, best_plain_r = r$best, hits_plain_r = r$hits
  )
}

# NLopt's SLSQP on the plain R objective, with the balls as constraints.
oracle_plain <- function(problem, start) {
  k <- problem$model$k
  d_gate <- ncol(problem$z)
  design <- ref_design(problem$model, problem$x, problem$z)
  radius <- problem$model$router$scale
  unit <- stats::var(problem$y) * length(problem$y)
  gates <- function(theta) matrix(theta[seq_len((d_gate + 1) * k)], d_gate + 1)[seq_len(d_gate), , drop = FALSE]
  objective <- function(theta) {
    pass <- ref_pass(theta, problem$model, design, problem$y)
    list(objective = pass$value / unit, gradient = pass$gradient / unit)
  }
  balls <- function(theta) {
    u <- gates(theta)
    jacobian <- matrix(0, k, length(theta))
    for (j in seq_len(k)) jacobian[j, (j - 1) * (d_gate + 1) + seq_len(d_gate)] <- 2 * u[, j]
    list(constraints = colSums(u^2) - radius^2, jacobian = jacobian)
  }
  fit <- nloptr::nloptr(ref_pack(start), objective, eval_g_ineq = balls, opts = list(
    algorithm = "NLOPT_LD_SLSQP", ftol_rel = 1e-13, xtol_rel = 1e-12, maxeval = 3000
  ))
  # SLSQP may end a little outside; the projected point counts
  par <- ref_unpack(fit$solution, k, d_gate, ref_n_par(problem$model$expert, ncol(problem$x)))
  par$u <- par$u * rep(pmin(1, radius / sqrt(colSums(par$u^2))), each = d_gate)
  2 * ref_pass(ref_pack(par), problem$model, design, problem$y)$value
}
