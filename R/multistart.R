# Least squares and maximum likelihood from many starts: runs of a first quarter, which may show that the rest is not
# needed; short runs of the others, longer ones of their better half, long runs of the best, then exchanges round the
# best solution. Runs spread over the user's future plan; randomness is drawn here,
# before they do. The objective of a likelihood is -2 log likelihood.

# How much worse than the best a run may end and still count as the same optimum: a hundredth of the residual variance,
# or of a unit of the likelihood's chi-square scale, far below what the data can tell apart.
same_optimum <- function(objective, best, search) {
  if (is_likelihood(search$model)) return(objective <= best + 0.01)
  objective <= best + 0.01 * best / max(search$df_residual, 1) + 1e-9 * best
}

# Returns parameters in reported coordinates and canonical order, fitted values (without offset), and how they were
# found. `smaller`: the solution with one expert less, as a start, if it is known already.
estimate_model <- function(data, router, expert, k, start, standardize, control, likelihood = NULL, smaller = NULL) {
  rows <- working_rows(data, router, expert, standardize, control, likelihood)
  model <- likelihood_model(core_model(router, expert, k, control), likelihood, rows)
  df <- router_df(router, k, length(data$names$z)) + k * expert_n_par(expert, length(data$names$x)) +
    dispersion_count(likelihood, k)
  n <- if (is.null(data$w)) length(data$y) else sum(data$w > 0)
  search <- list(
    model = model, rows = rows, control = control, df = df, df_residual = max(n - df, 1), state = search_state()
  )
  if (!is.null(smaller)) {
    search$smaller <- c(list(kind = "nested"), working_parameters(smaller, router, expert, rows, model))
  }
  given <- if (!is.null(start)) given_start(start, search, router, expert)
  runs <- tryCatch(
    if (is.null(given)) search_starts(search) else run_starts(search, list(given), control$max_passes),
    # Ctrl-C between two calls of the core; within one the core hands back what it has reached.
    interrupt = function(e) {
      search$state$interrupted <- TRUE
      list()
    }
  )
  if (isTRUE(search$state$interrupted)) {
    best <- search$state$best
    if (is.null(best) && !is.null(given)) best <- begin_run(given, search)
    if (control$on_interrupt == "stop" || is.null(best)) stop_interrupt()
    if (!length(runs) || length(best$b) < k || best$thinned) {
      runs <- c(runs, list(evaluate_run(grow_run(best, k, search$model), search)))
    }
  }
  finish_estimate(runs, search, data, router, expert, k, df, likelihood)
}

# The user's start; dispersions that it lacks come from its residuals.
given_start <- function(start, search, router, expert) {
  par <- c(list(kind = "given"), working_parameters(start, router, expert, search$rows, search$model))
  if (!is_likelihood(search$model) || length(par$phi)) return(par)
  use <- drawn_rows(search$rows)
  sample <- sample_responses(search$rows, use)
  at <- core_call(core_predict(
    search$model[c("router", "expert", "k")], take_rows(search$rows, use), par[c("u", "b", "eta")], 1L
  ))
  mean <- mean_of_link(search$model$family, at$expert + sample$offset)
  par$phi <- start_dispersions(mean, at$gate + 1e-8, sample, search$model)
  par
}

# The run over all rows and with the model of `search`, without moving.
evaluate_run <- function(run, search) {
  run[c("objective", "certificate")] <- begin_run(run, search)[c("objective", "certificate")]
  run$thinned <- FALSE
  run
}

# A run that has not gone anywhere yet.
begin_run <- function(start, search) {
  search$control[c("max_passes", "optimizer", "certify", "hybrid")] <- list(1L, "newton", TRUE, TRUE)
  run_start(start, search)
}

# The run with k experts: that with the largest bias is cut into equal ones, which gives the same function unless the
# gate is sparse. The search may have been interrupted while it was at a smaller model.
grow_run <- function(run, k, model) {
  use <- c(seq_along(run$b), rep(which.max(run$b), k - length(run$b)))
  run$b <- (run$b - log(tabulate(use)))[use]
  run$u <- run$u[, use, drop = FALSE]
  run$eta <- run$eta[, use, drop = FALSE]
  if (isTRUE(model$dispersions > 1L)) run$phi <- run$phi[use]
  run
}

# Keeps the best run so far, of whatever size, for an interrupt.
remember_best <- function(state, run) {
  best <- state$best
  rank <- function(run) c(run$thinned, isTRUE(run$degenerate), run$objective)
  if (is.finite(run$objective) && (is.null(best) || comes_before(rank(run), rank(best)))) state$best <- run
}

comes_before <- function(a, b) {
  differ <- which(a != b)
  length(differ) > 0L && a[differ[1L]] < b[differ[1L]]
}

search_starts <- function(search, sample = start_sample(search$rows, search$model),
                          progress = progressor(steps = search_steps(search))) {
  control <- search$control
  force(sample)
  seed <- generator_state()
  # At first on a part of the data, when they are many: the objective decides between starts, not its digits.
  few <- thinned_search(search)
  count <- drawn_starts(search)
  first <- min(count, max(first_starts, ceiling(count / 4)))
  runs <- run_short(few, sample, begin_starts(sample, search$model, first), progress)
  runs <- continue_runs(few, runs, length(runs), 3 * control$short_passes)
  easy <- is_easy(runs, first, few)
  smaller <- search_smaller(search, sample, progress, seed, if (easy) first_starts else control$n_starts)
  if (easy && !is_clear_gain(runs, smaller, few)) {
    easy <- FALSE
    if (control$n_starts > first_starts) smaller <- search_smaller(search, sample, progress, seed, control$n_starts)
  }
  if (isTRUE(search$state$interrupted)) return(runs)
  nested <- nested_starts(smaller, sample, search$model, control$n_starts)
  contained <- contained_starts(search, sample, nested, if (easy) 2L else control$n_starts %/% 4L)
  if (isTRUE(search$state$interrupted)) return(runs)
  rest <- if (easy) utils::head(nested, 2L * (search$model$k - 1L)) else nested
  rest <- c(if (!easy) begin_starts(sample, search$model, count - first), rest, contained)
  more <- run_short(few, sample, rest, progress)
  more <- continue_runs(few, more, ceiling(length(more) / 2), 3 * control$short_passes)
  long <- if (easy) min(4L, control$n_long) else control$n_long
  runs <- continue_runs(search, c(runs, more), long, control$max_passes, progress)
  exchange_runs(search, sample, runs, easy)
}

run_short <- function(search, sample, starts, progress) {
  runs <- run_starts(search, starts, search$control$short_passes, progress)
  if (is_likelihood(search$model)) runs else search_gates(search, sample, runs)
}

# When three of four of these starts, or of a quarter of all, lead to the best solution so far, few others are tried.
first_starts <- 20L

is_easy <- function(runs, first, search) {
  objective <- vapply(runs, function(run) run$objective, 0)
  best <- min(objective)
  is.finite(best) && first >= first_starts && mean(same_optimum(objective, best, search)) >= 0.75
}

# Whether the best of the runs gains more on the model with one expert less than the data may well do by chance.
is_clear_gain <- function(runs, smaller, search) {
  if (is.null(smaller)) return(TRUE)
  # A known solution has its objective over all rows.
  if (isTRUE(search$thinned) && !smaller$thinned) {
    search$model <- smaller_model(search$model)
    smaller <- evaluate_run(smaller, search)
  }
  best <- min(vapply(runs, function(run) run$objective, 0))
  unit <- if (is_likelihood(search$model)) 1 else best / search$df_residual
  smaller$objective - best > 20 * unit
}

# How many starts to draw: a single linear or constant expert has one optimum.
drawn_starts <- function(search) {
  if (search$model$k == 1L && search$model$expert$name %in% c("linear", "constant")) 1L else search$control$n_starts
}

# About as many as run_starts() reports for the model and those nested in it.
search_steps <- function(search) search$model$k * (search$control$n_starts + search$control$n_long)

# The best run with one expert less, or NULL: found in the same way, with the generator's state `seed`, as that model is
# found when fitted by itself with this seed.
search_smaller <- function(search, sample, progress, seed, n_starts) {
  k <- search$model$k
  if (k < 2L || isTRUE(search$state$interrupted)) return(NULL)
  before <- generator_state()
  on.exit(set_generator_state(before))
  set_generator_state(seed)
  known <- search$smaller
  smaller <- if (is.null(known)) thinned_search(search) else search
  smaller$model <- smaller_model(search$model)
  smaller$control$n_starts <- min(smaller$control$n_starts, n_starts)
  runs <- if (is.null(known)) search_once(smaller, sample, progress) else list(evaluate_run(known, smaller))
  if (length(runs)) runs[[best_run(runs)]]
}

smaller_model <- function(model) {
  model$k <- model$k - 1L
  model$router$top_k <- min(model$router$top_k, model$k)
  if (isTRUE(model$dispersions > 1L)) model$dispersions <- model$k
  model
}

# The run with one expert less, its experts doubled in turn: a larger model has the smaller one's solution among its
# starts.
nested_starts <- function(smaller, sample, model, n_starts) {
  if (is.null(smaller)) return(list())
  split_starts(smaller, sample, model, max(model$k - 1L, n_starts %/% 4L))
}

# The number of parameters.
core_size <- function(model, rows) {
  d_gate <- ncol(if (is.null(rows$z)) rows$x else rows$z)
  phi <- if (is.null(model$dispersions)) 0L else model$dispersions
  model$k * (d_gate + 1L + expert_n_par(model$expert, ncol(rows$x))) + phi
}

# The search over at most `most` rows, enough for the parameters, or over more where columns need them, or the same
# search.
thinned_search <- function(search, most = max(2000L, 40L * core_size(search$model, search$rows))) {
  rows <- search$rows
  counts <- if (is.null(rows$w)) nrow(rows$x) else which(rows$w > 0)
  n <- if (is.null(rows$w)) counts else length(counts)
  repeat {
    if (n <= 2L * most) return(search)
    use <- sort(sample.int(n, most))
    if (!is.null(rows$w)) use <- counts[use]
    if (represents(rows$x, use, rows$x_scale) && (is.null(rows$z) || represents(rows$z, use, rows$z_scale))) break
    most <- 4L * most
  }
  search$rows$x <- rows$x[use, , drop = FALSE]
  if (!is.null(rows$z)) search$rows$z <- rows$z[use, , drop = FALSE]
  columns <- intersect(c("y", "w", "offset", "trials"), names(rows))
  search$rows[columns] <- lapply(rows[columns], function(value) value[use])
  search$df_residual <- max(length(use) - search$df, 1)
  search$thinned <- TRUE
  search
}

# Whether every column varies among these rows as it does among all: a rare level would be without rows, and its
# coefficients without a value. As in `approach()` of the core.
represents <- function(x, use, scale) {
  if (!ncol(x)) return(TRUE)
  if (is.null(scale)) scale <- summarise_columns(x)[, "spread"]
  ratio <- summarise_columns(x[use, , drop = FALSE])[, "spread"]^2 / scale^2
  all(ratio > 0.5 & ratio < 2)
}

# Exchanges round the best solution, until two rounds in a row have not found a better one.
exchange_runs <- function(search, sample, runs, easy) {
  rounds <- if (easy) 1L else 8L
  count <- min(if (easy) 4L else 24L, search$control$n_starts %/% 4L)
  idle <- 0L
  for (round in seq_len(rounds)) {
    if (count < 1L || search$model$k < 2L || idle == 2L || isTRUE(search$state$interrupted)) break
    best <- runs[[best_run(runs)]]
    few <- thinned_search(search)
    tried <- run_starts(few, exchange_starts(best, sample, search$model, count), 2L * search$control$short_passes)
    if (!is_likelihood(search$model)) tried <- search_gates(few, sample, tried, 2L)
    tried <- continue_runs(search, tried, 4L, search$control$max_passes)
    better <- min(vapply(tried, function(run) if (isTRUE(run$degenerate) || run$thinned) Inf else run$objective, 0))
    improved <- better < best$objective && !same_optimum(best$objective, better, search)
    idle <- if (improved) 0L else idle + 1L
    runs <- c(runs, tried)
  }
  runs
}

# Goes on with the `count` best runs, from where they are, for up to `passes` more. The others stay as they are.
continue_runs <- function(search, runs, count, passes, progress = NULL) {
  # Stochastic gradient descent has had its epochs.
  if (isTRUE(search$state$interrupted) || search$control$optimizer == "sgd") return(runs)
  objective <- vapply(runs, function(run) run$objective, 0)
  chosen <- distinct_best(runs, objective, count)
  # A converged run on the same rows has nothing left to do.
  idle <- vapply(runs[chosen], function(run) run$status == "converged" && isTRUE(search$thinned) == run$thinned, NA)
  chosen <- chosen[!idle]
  if (length(chosen)) {
    runs[chosen] <- run_starts(search, runs[chosen], passes, progress)
  }
  runs
}

# The best `count` runs; of runs with the same objective to five digits only one, while there are others.
distinct_best <- function(runs, objective, count) {
  by <- order(are_degenerate(runs), objective)
  by <- by[is.finite(objective[by])]
  if (!length(by)) return(seq_len(min(count, length(runs))))
  repeated <- duplicated(signif(objective[by], 5L))
  utils::head(c(by[!repeated], by[repeated]), count)
}

best_run <- function(runs) {
  if (length(runs) == 1L) return(1L)
  finished <- !vapply(runs, function(run) run$thinned, NA)
  objective <- vapply(runs, function(run) run$objective, 0)
  if (any(finished & is.finite(objective))) objective[!finished] <- Inf
  # A degenerate likelihood has no meaning as long as there is another solution; but no model ends below one that it
  # contains.
  sound <- is.finite(objective) & !are_degenerate(runs)
  contained <- unlist(lapply(runs, function(run) run$contained))
  if (any(sound) && min(objective[sound]) <= min(contained, Inf) + 1e-6) objective[!sound] <- Inf
  if (!any(is.finite(objective))) return(1L)
  # Of runs that end at the same objective, up to rounding, one that knows that it has arrived.
  least <- min(objective)
  tied <- which(objective <= least + 1e-10 * abs(least))
  arrived <- tied[vapply(runs[tied], function(run) identical(run$status, "converged"), NA)]
  if (length(arrived)) arrived[which.min(objective[arrived])] else which.min(objective)
}

are_degenerate <- function(runs) vapply(runs, function(run) isTRUE(run$degenerate), NA)

# Runs the core from every start for up to `passes` passes. After an interrupt the remaining starts are left as they
# are; workers of a parallel plan cannot hand back what they had reached.
run_starts <- function(search, starts, passes, progress = NULL) {
  # A short run that reaches its limit needs no certificate.
  search$control$certify <- passes >= search$control$max_passes
  search$control$max_passes <- passes
  order <- if (search$control$optimizer == "sgd") draw_orders(search)
  if (length(starts) > 1L && future::nbrOfWorkers() > 1L) {
    search$state <- NULL
    return(tryCatch(
      future.apply::future_lapply(
        starts, run_start, search = search, order = order, progress = progress,
        future.seed = NULL, future.packages = "cosmoe"
      ),
      interrupt = function(e) stop_interrupt()
    ))
  }
  runs <- vector("list", length(starts))
  for (i in seq_along(starts)) {
    stopped <- isTRUE(search$state$interrupted)
    runs[[i]] <- if (stopped) skipped_run(starts[[i]]) else run_start(starts[[i]], search, order, progress)
    remember_best(search$state, runs[[i]])
    if (runs[[i]]$status == "interrupted") search$state$interrupted <- TRUE
  }
  runs
}

run_start <- function(start, search, order = NULL, progress = NULL) {
  control <- unclass(search$control)
  control$order <- order
  control$threads <- usable_threads(control$threads)
  par <- start[names(start) %in% c("u", "b", "eta", "phi", "beta")]
  # Over the rows, or over the sums of a source (R/fit-source.R).
  fit <- core_call(
    if (is.null(search$sums)) core_fit(search$model, search$rows, par, control)
    else core_fit_sums(search$model, search$sums, search$totals, par, control)
  )
  for (count in c("passes", "probes")) fit[[count]] <- sum(fit[[count]], start[[count]])
  if (!is.finite(fit$objective)) fit$objective <- Inf
  if (!is.null(progress)) progress()
  fit$kind <- start$kind
  fit$thinned <- isTRUE(search$thinned)
  spikes <- spikes(fit$phi, search$model, search$rows)
  # Where all experts are exact, the data are.
  fit$degenerate <- length(spikes) > 0L && length(spikes) < length(fit$phi)
  fit$contained <- start$contained
  fit
}

skipped_run <- function(start) {
  if (!is.null(start$objective)) return(start)
  c(start, list(objective = Inf, passes = 0L, status = "interrupted", message = "not begun", thinned = FALSE))
}

draw_orders <- function(search) {
  n <- nrow(search$rows$x)
  lapply(seq_len(search$control$epochs), function(epoch) sample.int(n))
}

# From runs to the estimate: best run, reported coordinates, canonical order, table of starts, diagnostics.
finish_estimate <- function(runs, search, data, router, expert, k, df, likelihood = NULL) {
  control <- search$control
  best <- runs[[best_run(runs)]]
  if (is.finite(best$objective) && is.null(best$certificate)) best <- evaluate_run(best, search)
  if (!is.finite(best$objective)) {
    stop_core(
      "no start has a finite ", if (is.null(likelihood)) "sum of squares" else "likelihood",
      if (expert$name == "custom") {
        ": see whether `value` of the custom expert gives NA or overflows"
      } else if (!is.null(likelihood)) {
        ": a response in another unit, or another link, may help"
      }
    )
  }
  if (isTRUE(search$state$interrupted)) best[c("status", "message")] <- "interrupted"
  spikes <- spikes(best$phi, search$model, search$rows)
  par <- report_parameters(best, router, expert, search$rows, search$model)
  d_gate <- length(data$names$z)
  gate <- gate_scales(search$rows, router)
  if (is.null(search$sweep)) {
    rows <- list(x = data$x, z = data$z, z_center = gate$center, z_scale = gate$scale)
    mixture <- if (!is.null(likelihood)) mixture_of(data, likelihood, par$phi, k)
    outcome <- sweep_rows(
      core_model(router, expert, k), rows, par[c("u", "b", "eta")], data$w, control$threads, mixture
    )
    outside <- experts_outside(core_model(router, expert, k), rows, par, data, likelihood, control$threads)
  } else {
    outcome <- search$sweep(par)
    outside <- integer()
  }
  by <- order(-outcome$gate_mean)
  # Where scores of a sparse gate tie the first expert wins: the order stays if another would choose others. Of rows
  # that are not in memory nothing is known.
  tied <- is_sparse(search$model) && is.unsorted(by) && (is.null(outcome$f) || changes_values(
    order_experts(par, by), outcome$f, core_model(router, expert, k), rows, data$w, control$threads, mixture
  ))
  if (tied) by <- seq_len(k)
  par <- order_experts(par, by)
  found <- diagnose(par, outcome, best, by, router, control)
  found$spike <- if (length(best$phi) > 1L) {
    reported_index(spikes, by)
  } else if (length(spikes)) {
    seq_len(k)
  } else {
    integer()
  }
  found$outside <- reported_index(outside, by)
  found$unordered <- tied
  # With few distinct rows, or experts without effect, fewer parameters matter than the model has. Near infinity the
  # rank is an accident of rounding. Information criteria of likelihoods count the model's own.
  rank <- max(best$certificate$rank, 1L)
  if (is.null(likelihood) && !is_sparse(search$model) && !length(found$runaway) && isTRUE(rank < df)) {
    best$certificate$null_directions <- max(best$certificate$null_directions, df - rank)
    found$nonunique <- TRUE
    df <- rank
  }
  if (length(found$spike) && best$status != "interrupted") {
    best <- degenerate_status(best, found$spike, likelihood$family)
  }
  c(par, list(
    loglik = if (!is.null(likelihood)) -user_objective(best$objective, search$rows) / 2,
    entropy = outcome$entropy,
    z_center = if (is.null(gate$center)) rep(0, d_gate) else gate$center,
    z_scale = if (is.null(gate$scale)) rep(1, d_gate) else gate$scale,
    fitted = outcome$f,
    gate_mean = outcome$gate_mean[by],
    order = by,
    df = df,
    starts = starts_table(runs, best, search),
    convergence = c(convergence_of(best, control, by), last_iterate(best, search$rows)),
    diagnostics = found
  ))
}

# Experts whose mean leaves the family's range in rows where they have weight: there their density is 0, and the
# likelihood has an edge that its derivatives know nothing of.
experts_outside <- function(model, rows, par, data, likelihood, threads) {
  if (is.null(likelihood) || has_safe_link(likelihood$family)) return(integer())
  at <- core_call(core_predict(model, rows, par[c("u", "b", "eta")], threads))
  mean <- mean_of_link(likelihood$family, at$expert + if (is.null(data$offset)) 0 else data$offset)
  counted <- if (is.null(data$w)) TRUE else data$w > 0
  which(colSums(counted & at$gate > 1e-3 & is_outside(likelihood$family, mean)) > 0)
}

# Centre and scale of the gate's covariates that are part of the model, NULL where they are not.
gate_scales <- function(rows, router) {
  if (router$name != "linear") list(center = rows$z_center, scale = rows$z_scale)
}

starts_table <- function(runs, best, search) {
  column <- function(name, type) vapply(runs, function(run) run[[name]], type)
  objective <- column("objective", 0)
  thinned <- column("thinned", NA)
  objective[thinned | !is.finite(objective)] <- NA
  spurious <- are_degenerate(runs) & !isTRUE(best$degenerate)
  structure(class = "data.frame", row.names = .set_row_names(length(runs)), list(
    start = seq_along(runs),
    kind = column("kind", ""),
    objective = user_objective(objective, search$rows),
    passes = as.integer(column("passes", 0)),
    status = ifelse(are_degenerate(runs), "degenerate", column("status", "")),
    reached_best = !is.na(objective) & !spurious & same_optimum(objective, best$objective, search)
  ))
}

# Numbers of experts in the reported order `by`, from those in the order of the fit.
reported_index <- function(index, by) which(by %in% index)

convergence_of <- function(best, control, by) {
  found <- best$certificate
  certificate <- c(
    found[c("projected_gradient", "predicted_decrease")],
    list(active = c(
      sprintf("gate %d", reported_index(found$active_gates, by)),
      sprintf("expert %d", reported_index(found$active_experts, by))
    )),
    found[c("smallest_curvature", "null_directions", "rank", "gauge")]
  )
  list(
    status = best$status, converged = best$status == "converged", message = best$message,
    passes = as.integer(best$passes), probes = as.integer(best$probes), optimizer = control$optimizer,
    certificate = certificate
  )
}

# Where stochastic gradient descent ended, in the gauge and the order of its start, if it worked on the user's scale.
last_iterate <- function(best, rows) {
  own_scale <- is.null(rows$x_center) && is.null(rows$z_center) && rows$y_scale == 1
  if (!is.null(best$last) && own_scale) list(last = best$last)
}

# A dispersion at its bound is no maximum of the likelihood, which has none.
degenerate_status <- function(best, spike, family) {
  best$status <- "degenerate"
  what <- if (family$name == "gaussian") "at its lower bound" else "at its upper bound"
  best$message <- sprintf(
    "the %s of expert%s %s is %s: the likelihood grows without limit", dispersion_name(family),
    if (length(spike) > 1L) "s" else "", enumerate(spike, quote = "", max = Inf), what
  )
  best
}

# What turns the experts' values into mean responses and responsibilities. `data` as from R/data.R; `span`: the range of
# the responses that count.
mixture_of <- function(data, likelihood, phi, k, span = range(if (is.null(data$w)) data$y else data$y[data$w > 0])) {
  list(
    family = likelihood$family, phi = if (length(phi)) rep_len(phi, k) else numeric(k),
    dispersed = length(phi) > 0L,
    rows = c(
      data[intersect(c("y", "offset", "trials"), names(data))],
      list(limits = supported_means(likelihood$family, span))
    ),
    spread = column_scales(data$y, data$w)$scale^2
  )
}

# Fitted values, mean gate weights, what each expert does to the fit (the mean square of p_k (h_k - f), relative to the
# variance of the fitted values), and how much pairs of experts differ where both have weight (a k x k matrix of
# mean squares, relative to the variance of the fitted values).
# With a `mixture` (see mixture_of()) all this for mean responses, relative to the variance of the response; and the
# entropy of the responsibilities.
sweep_rows <- function(model, rows, par, w, threads, mixture = NULL) {
  # Beside the data there should be room for the fitted values alone.
  if (nrow(rows$x) > 1e6) gc()
  sums <- sweep_block(model, rows, par, threads, mixture, c(mixture$rows, list(w = w)))
  f <- sums$f
  total <- if (is.null(w)) length(f) else sum(w)
  spread <- if (is.null(w)) summarise_columns(f)[[1L, "spread"]]^2 else sum(w * (f - mean(f))^2) / total
  c(list(f = f), sweep_outcome(sums, total, spread, mixture))
}

# Whether these parameters give other fitted values than f in some row, beyond rounding; infinite ones do not count.
changes_values <- function(par, f, model, rows, w, threads, mixture) {
  other <- sweep_block(model, rows, par[c("u", "b", "eta")], threads, mixture, c(mixture$rows, list(w = w)))$f
  size <- abs(f)
  any(abs(other - f) > 1e-9 * (size + stats::median(size)), na.rm = TRUE)
}

# Fitted values and sums; `own` has the rows' response, weights, offset and trials.
sweep_block <- function(model, rows, par, threads, mixture, own) {
  core_call(core_outcome(model, rows, par, own, mixture$family, as.double(mixture$phi), threads))
}

# From the sums over all rows, of total weight `total`, with fitted values of variance `spread`.
sweep_outcome <- function(sums, total, spread, mixture) {
  spread <- max(spread, mixture$spread, 1e-300)
  # An expert that runs off spreads a mixture's fitted values without limit.
  difference <- sums$difference / pmax(sums$both, 1e-300) / max(min(spread, mixture$spread), 1e-300)
  # Experts with different dispersions are different.
  if (isTRUE(mixture$dispersed)) difference[abs(outer(mixture$phi, mixture$phi, "-")) >= 1e-3] <- Inf
  list(
    gate_mean = sums$gate / total, influence = sums$influence / total / spread, entropy = sums$entropy,
    extreme = sums$extreme, both = sums$both, difference = difference
  )
}

# From log p_k f_k, an n x k matrix, the probabilities of the experts given the response. A response that is impossible
# under all experts has none.
responsibilities <- function(log_joint) {
  share <- exp(log_joint - row_maxima(log_joint))
  share / rowSums(share)
}

row_maxima <- function(m) Reduce(pmax, lapply(seq_len(ncol(m)), function(j) m[, j]))

# What a reader must know of a solution; indices of experts in the reported order.
diagnose <- function(par, outcome, best, by, router, control) {
  k <- length(by)
  bound <- control$bound_gate
  gate_limit <- switch(router$name,
    perturbed_cosine = router$scale * bound / (bound + router$tau1),
    linear = router$scale * bound,
    Inf
  )
  length_of <- function(m) sqrt(colSums(m^2))
  # Little weight, and values ten standard deviations from the fit: the solution lies at infinity, where the weight is
  # zero.
  mean_weight <- outcome$gate_mean[by]
  runs_off <- mean_weight < 0.1 & outcome$influence[by] > 100 * mean_weight^2
  alike <- outcome$both[by, by, drop = FALSE] > 0 & outcome$difference[by, by, drop = FALSE] < 1e-6
  list(
    boundary = if (k == 1L) {
      integer()
    } else if (router$name == "perturbed_cosine" && is.infinite(bound)) {
      unname(which(colSums(is.infinite(par$beta)) > 0))
    } else {
      which(length_of(par$u) >= gate_limit * (1 - 1e-6))
    },
    expert_bound = which(length_of(par$eta) >= control$bound_expert * (1 - 1e-6)),
    empty = which(mean_weight < 1e-3 & !runs_off),
    runaway = which(runs_off),
    extreme = which(outcome$extreme[by] > 0),
    coincident = if (k > 1L) lapply(which(alike & lower.tri(alike)), function(at) c(col(alike)[at], row(alike)[at])),
    nonunique = isTRUE(best$certificate$null_directions > 0) || has_mirror_image(par$u, router)
  )
}

# Only contrasts of gates enter. On a sphere k gates in k dimensions can be mirrored at the plane of their contrasts.
has_mirror_image <- function(u, router) {
  k <- ncol(u)
  router$name == "cosine" && k >= 2L && nrow(u) == k && common_part(u) > 1e-6 * router$scale
}

# With fewer gates than dimensions there is a whole sphere of such images.
turns_freely <- function(fit) {
  u <- fit$gate$u
  fit$router$name == "cosine" && fit$k >= 2L && nrow(u) > fit$k && common_part(u) > 1e-6 * fit$router$scale
}

# The length of what all gates have in common, the part orthogonal to their contrasts. On a sphere it is zero where few
# gates are as far apart as they can be.
common_part <- function(u) sqrt(sum(stats::lm.fit(u[, -1L, drop = FALSE] - u[, 1L], u[, 1L])$residuals^2))
