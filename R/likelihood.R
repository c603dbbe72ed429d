# The likelihood of a mixture in working coordinates: what maximum likelihood adds to the rows, the model and the starts
# of a least squares fit.

is_likelihood <- function(model) !is.null(model$family)

# The least coefficient of variation of an expert's errors, relative to the response's spread: a Gaussian mixture has no
# maximum, since an expert may pass through a few points exactly with sigma -> 0.
least_spread <- 1e-3

# Adds to rows: offset, trials; shift, of the objective by the unit of the response; spike, the dispersion parameter at
# which an expert degenerates, and its bound.
likelihood_rows <- function(rows, data, likelihood) {
  family <- likelihood$family
  rows$offset <- if (!is.null(data$offset)) data$offset / rows$eta_scale
  rows$trials <- data$trials
  weight <- if (is.null(rows$w)) length(rows$y) else sum(rows$w)
  spread <- rows$y - if (has_plain_offset(likelihood) && !is.null(rows$offset)) rows$offset else 0
  likelihood_limits(rows, family, weight, column_scales(spread, data$w)$scale)
}

likelihood_limits <- function(rows, family, weight, spread) {
  rows$shift <- 2 * weight * log(rows$y_scale)
  rows$spread <- spread
  rows$spike <- if (family$name == "gaussian") log(least_spread * rows$spread) else -2 * log(least_spread)
  rows$dispersion_bound <- max(abs(rows$spike), 2 * abs(log(rows$spread)) + 1)
  rows
}

# Adds to the model what the bridge needs for a likelihood.
likelihood_model <- function(model, likelihood, rows) {
  if (is.null(likelihood)) return(model)
  c(model, list(
    family = likelihood$family,
    dispersions = dispersion_count(likelihood, model$k), dispersion_bound = rows$dispersion_bound
  ))
}

# Which dispersions are at the bound that keeps the likelihood finite.
spikes <- function(phi, model, rows) {
  if (!is_likelihood(model) || length(phi) == 0L) return(integer())
  which(if (model$family$name == "gaussian") phi < rows$spike + 1e-4 else phi > rows$spike - 1e-4)
}

# -2 log likelihood or sum of squares in the user's units.
user_objective <- function(objective, rows) {
  (if (is.null(rows$shift)) objective * rows$y_scale^2 else objective + rows$shift) * rows$w_scale
}

# What a likelihood needs of the rows `use`.
sample_responses <- function(rows, use) {
  list(
    response = rows$y[use],
    counts = if (is.null(rows$w)) rep(1, length(use)) else rows$w[use],
    offset = if (is.null(rows$offset)) 0 else rows$offset[use],
    trials = if (is.null(rows$trials)) 1 else rows$trials[use],
    spread = rows$spread
  )
}

# Dispersion parameters from the experts' mean responses at a start, rows weighted by `share`; not so small that the
# start is a spike.
start_dispersions <- function(mean, share, sample, model) {
  if (!is_likelihood(model) || model$dispersions == 0L) return(numeric())
  gaussian <- model$family$name == "gaussian"
  square <- (sample$response - mean)^2 / if (gaussian) sample$spread^2 else mean^2
  if (!all(is.finite(square))) square[!is.finite(square)] <- 1
  weight <- sample$counts * share
  square <- if (model$dispersions == 1L) {
    sum(weight * square) / sum(weight)
  } else {
    colSums(weight * square) / pmax(colSums(weight), 1e-300)
  }
  square <- pmin(pmax(square, 4e-4), 1e4)
  if (gaussian) log(square) / 2 + log(sample$spread) else -log(square)
}

# Mean responses of the experts, n x k.
start_means <- function(eta, sample, model) {
  gate <- list(u = matrix(0, ncol(sample$z), ncol(eta)), b = numeric(ncol(eta)))
  start_values(c(gate, list(eta = eta)), sample, model)$mean
}

# Gate, dense, and mean responses of the experts, n x k both.
start_values <- function(par, sample, model) {
  model$router$top_k <- 0L
  at <- core_call(core_predict(
    model[c("router", "expert", "k")], list(x = sample$x, z = sample$z), par[c("u", "b", "eta")], 1L
  ))
  list(gate = at$gate, mean = mean_of_link(model$family, at$expert + sample$offset))
}

# Classification EM (Celeux and Govaert, 1992) from random cells: every row goes to the expert to which it belongs most
# probably. Stochastic EM (Celeux and Diebolt, 1985) draws the expert with these probabilities. A few iterations take
# starts to where experts differ, which is all that a start must do.
partition_by_em <- function(sample, model, stochastic, iterations = 3L) {
  part <- partition_cells(sample, model$k)
  for (i in seq_len(iterations)) {
    at <- start_of_partition(part, sample, model)
    dispersion <- if (length(at$phi)) rep_len(exp(at$phi), model$k)
    values <- start_values(at, sample, model)
    joint <- log(values$gate) + log_density(model$family, sample$response, sample$trials, values$mean, dispersion)
    # The largest of log probabilities with Gumbel noise is a draw from them.
    if (stochastic) joint <- joint - log(-log(stats::runif(length(joint))))
    joint[is.na(joint)] <- -Inf
    part <- max.col(joint, ties.method = "first")
  }
  part
}

# The mean of the logarithms of a Gamma response lies far below the logarithm of the mean when the shape is small:
# intercepts move until each expert's mean is, in proportion, right on average.
levelled_experts <- function(eta, share, sample, model) {
  if (!is_likelihood(model) || !identical(model$family, list(name = "Gamma", link = "log"))) return(eta)
  if (!model$expert$name %in% c("constant", "linear")) return(eta)
  weight <- sample$counts * share
  level <- log(colSums(weight * sample$response / start_means(eta, sample, model)) / colSums(weight))
  level[!is.finite(level)] <- 0
  eta[nrow(eta), ] <- eta[nrow(eta), ] + level
  eta
}

# Linear experts of families whose predictors must be positive are flattened until they are.
feasible_experts <- function(eta, sample, model) {
  family <- model$family
  restricted <- is_likelihood(model) && model$expert$name == "linear" && family$name %in% c("poisson", "Gamma") &&
    family$link %in% c("identity", "inverse")
  if (!restricted) return(eta)
  x <- cbind(sample$x, 1)
  level <- max(sum(sample$w * sample$y) / sum(sample$w), 1e-8)
  flat <- c(numeric(ncol(x) - 1L), level)
  for (j in seq_len(ncol(eta))) {
    own <- eta[, j]
    for (share in c(1, 0.7, 0.5, 0.3, 0.1, 0)) {
      eta[, j] <- share * own + (1 - share) * flat
      if (min(x %*% eta[, j] + sample$offset) > 0.05 * level) break
    }
  }
  eta
}

# Solutions of the models that this one contains as starts: one dispersion for all, and a gate without covariates.
# `starts` are the fit's own with one expert less, split; a short search draws `count` more.
contained_starts <- function(search, sample, starts, count) {
  model <- search$model
  if (!is_likelihood(model) || search$control$optimizer == "sgd") return(list())
  if (model$k < 2L) return(if (model$expert$name == "linear") list(constant_start(sample, model)) else list())
  find <- function(...) {
    if (isTRUE(search$state$interrupted)) return(list())
    if (is_scarce(search)) whole_search(search, ...) else short_search(search, sample, starts, count, ...)
  }
  c(
    if (model$dispersions > 1L) find("equal dispersion", equal = TRUE),
    if (ncol(sample$z) > 0L && !is_sparse(model)) find("constant gate", constant_gate = TRUE)
  )
}

# With few rows for each parameter the likelihood has so many maxima that a short search may well miss those which the
# contained model has when fitted by itself.
is_scarce <- function(search) {
  rows <- search$rows
  n <- if (is.null(rows$w)) nrow(rows$x) else sum(rows$w > 0)
  n < 10L * core_size(search$model, rows)
}

contained_model <- function(search, equal, constant_gate) {
  if (equal) search$model$dispersions <- 1L
  if (constant_gate) {
    search$rows$z <- matrix(0, nrow(search$rows$x), 0L)
    search$rows[c("z_center", "z_scale")] <- NULL
    search$model$router <- core_router(router_linear())
  }
  search$smaller <- NULL
  # The contained model is not what an interrupt should hand back.
  search$state <- search_state(search$state)
  search
}

# The search that the contained model would have by itself, with the same random numbers: so the larger model never ends
# lower with one seed. Models that several others contain are searched once.
whole_search <- function(search, kind, equal = FALSE, constant_gate = FALSE) {
  part <- contained_model(search, equal, constant_gate)
  before <- generator_state()
  on.exit(set_generator_state(before))
  set_generator_state(search$state$seed)
  runs <- search_once(part, start_sample(part$rows, part$model), NULL)
  contained_start(runs, part, search, kind)
}

# The state of a search: whether it was interrupted and the best run then (R/multistart.R), the generator's state at the
# beginning, and the results of models that were searched.
search_state <- function(parent = NULL) {
  state <- new.env()
  state$seed <- if (is.null(parent)) generator_state() else parent$seed
  state$searched <- if (is.null(parent)) new.env() else parent$searched
  state
}

# search_starts(), or its runs if this model has been searched, with the generator left as the search leaves it.
search_once <- function(search, sample, progress) {
  dispersions <- if (is_likelihood(search$model)) search$model$dispersions else 0L
  key <- paste(search$model$k, dispersions, ncol(sample$z), search$control$n_starts)
  known <- search$state$searched[[key]]
  if (is.null(known)) {
    known <- list(runs = search_starts(search, sample, progress), generator = generator_state())
    if (!isTRUE(search$state$interrupted)) assign(key, known, envir = search$state$searched)
  } else {
    set_generator_state(known$generator)
  }
  known$runs
}

# A shorter search from starts of the larger model.
short_search <- function(search, sample, starts, count, kind, equal = FALSE, constant_gate = FALSE) {
  control <- search$control
  k <- search$model$k
  part <- contained_model(search, equal, constant_gate)
  fit_to <- function(start) {
    if (constant_gate) start$u <- matrix(0, 0L, k)
    if (part$model$dispersions == 1L) start$phi <- mean(start$phi)
    start
  }
  starts <- c(begin_starts(sample, search$model, max(k, count)), utils::head(starts, k - 1L))
  few <- thinned_search(part)
  runs <- run_starts(few, lapply(starts, fit_to), control$short_passes)
  runs <- continue_runs(few, runs, min(4L, control$n_long), control$max_passes)
  contained_start(runs, few, search, kind)
}

# The best of the contained model's runs as a start of the larger one.
contained_start <- function(runs, part, search, kind) {
  if (isTRUE(part$state$interrupted)) {
    search$state$interrupted <- TRUE
    return(list())
  }
  best <- runs[[best_run(runs)]]
  if (!is.finite(best$objective)) return(list())
  model <- search$model
  d <- ncol(if (is.null(search$rows$z)) search$rows$x else search$rows$z)
  u <- best$u
  if (nrow(u) < d) u <- matrix(if (model$router$name == "cosine") model$router$scale / sqrt(d) else 0, d, model$k)
  list(list(
    kind = kind, u = u, b = best$b, eta = best$eta, phi = rep_len(best$phi, model$dispersions),
    contained = if (!isTRUE(part$thinned) && !isTRUE(best$degenerate)) best$objective
  ))
}

# One expert without slopes: with links such as the square root the likelihood has maxima of its own where linear
# predictors change their sign, and a line through linearised responses may begin there.
constant_start <- function(sample, model) {
  mean <- stats::weighted.mean(sample$response, sample$w)
  at <- stats::make.link(model$family$link)$linkfun(mean) - mean(sample$offset)
  eta <- matrix(c(rep(0, ncol(sample$x)), at))
  share <- matrix(1, nrow(sample$x), 1L)
  phi <- start_dispersions(start_means(eta, sample, model), share, sample, model)
  c(list(kind = "constant"), random_gate(sample, model), list(eta = eta, phi = phi))
}
