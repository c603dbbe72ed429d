# A fit to a source of rows: the same model, search and solution as in memory, from sums over chunks. See
# R/source-sums.R for the sums and R/source-shards.R for who computes them.

fit_source <- function(formula, source, call, env, contrasts, settings, start, model) {
  check_source_settings(settings, model)
  source <- as_source(source)
  handle <- new_handle(source, new_design(formula, source, call, env, contrasts, settings$likelihood))
  if (length(handle$design$factors)) {
    handle$design$levels <- final_levels(fold_source(handle, "levels"))
    handle$counts <- NULL
  }
  seen <- fold_source(handle, "moments", list(likelihood = settings$likelihood))
  data <- source_data(handle, seen)
  check_source(data, seen, settings)
  data$start <- check_start(start, data, settings)
  # At most so many rows are fitted in memory, and so are as many of more rows for a start.
  size <- sample_size(core_size(core_model(settings$router, settings$expert, settings$k), place_names(data)))
  estimate <- if (is.null(data$start)) estimate_sample(handle, data, settings, size)
  frame <- working_frame(seen, settings)
  sampled <- estimate$starts
  if (is.null(estimate) || seen$sums[["used"]] > size) {
    estimate <- estimate_source(handle, data, settings, frame, estimate)
  }
  object <- new_cosine_moe(call, finish_source(handle, data, settings, frame, estimate), settings, estimate)
  object$source$irregular <- irregularities(object, source_information(object, object$source$sample))
  object$source$sample <- NULL
  object$source["starts"] <- list(sampled)
  warn_unconverged(object)
}

check_source_settings <- function(settings, model) {
  if (check_flag(model)) stop_input("model", TRUE, "FALSE: a fit from a source keeps no rows")
  if (settings$control$optimizer == "sgd") {
    stop_input("control$optimizer", "sgd", "another for a source: it needs the rows in random order")
  }
  pure <- settings$method == "em" && settings$control$optimizer == "newton" && !settings$control$hybrid
  if (pure) stop_input("control$hybrid", FALSE, "TRUE for a source: pure EM needs the rows in memory")
}

# As many rows as a search looks at; more do not change its outcome, the run on all rows does the rest.
sample_rows_least <- function() 20000L

sample_size <- function(parameters) max(sample_rows_least(), 200L * parameters)

# What data_from_formula() gives, without rows.
source_data <- function(handle, seen) {
  design <- handle$design
  if (is.null(seen$names)) {
    stop_source("The source gave rows at first, but none when read again: each reading must begin with the first row")
  }
  names <- seen$names
  response <- names(design$levels) == names$y
  list(
    y = NULL, trials = NULL, x = NULL, z = NULL, w = NULL, offset = NULL,
    names = names[c("y", "x", "z", "shared")], formula = design$formula, terms = design$terms, ylevels = seen$ylevels,
    xlevels = if (length(design$levels)) design$levels[!response] else stats::setNames(list(), character()),
    contrasts = seen$contrasts,
    range = seen$range, seen = seen, has_weights = seen$sums[["weighted"]] > 0
  )
}

# In the shape that core_size() looks at.
place_names <- function(data) {
  list(x = matrix(0, 0L, length(data$names$x)), z = if (!data$names$shared) matrix(0, 0L, length(data$names$z)))
}

# The checks of check_data() that concern all rows together.
check_source <- function(data, seen, settings) {
  n <- seen$sums[["used"]]
  if (n == 0) stop_data("`weights` are all zero: there are no rows to fit.")
  if (n == 1) stop_data("There is a single row to fit: a regression needs more.")
  check_response_varies((if (has_plain_offset(settings$likelihood)) seen$work else seen$y)$span)
  check_counts(n, settings$k, settings$router, settings$expert, length(data$names$x), length(data$names$z),
               settings$likelihood)
  z <- if (data$names$shared) seen$x else seen$z
  linear_gate <- settings$k > 1L && (settings$standardize || settings$router$name == "linear")
  if (expert_is_linear_form(settings$expert)) check_moments(seen$x, data$names$x, "expert", data$has_weights)
  if (linear_gate) check_moments(z, data$names$z, "gate", data$has_weights)
}

check_moments <- function(moments, names, part, weighted) {
  check_spans(moments$span, names, part, weighted)
  found <- collinear_moments(moments$cross)
  if (!is.null(found)) stop_collinear(names, part, found)
}

# The first column that is a linear combination of those before it, from the cross-product about the mean. What is left
# of a column, relative to its own size, is a square here: 1e-12 is the 1e-6 that find_collinear() asks of the values.
collinear_moments <- function(cross, least = 1e-12) {
  size <- sqrt(diag(cross))
  correlation <- cross / outer(size, size)
  kept <- integer()
  for (j in seq_along(size)) {
    # The columns kept are independent, if only just: no further tolerance.
    slope <- if (length(kept)) qr.coef(qr(correlation[kept, kept, drop = FALSE], tol = 1e-15), correlation[kept, j])
    slope[is.na(slope)] <- 0
    if (1 - sum(slope * correlation[kept, j]) < least) {
      return(list(column = j, of = kept[abs(slope) > 1e-6]))
    }
    kept <- c(kept, j)
  }
  NULL
}

# The `rows` of the bridge without values: no rows, but all scales, as working_rows() has them.
working_frame <- function(seen, settings) {
  likelihood <- settings$likelihood
  scaled <- scaled_parts(settings$router, settings$expert, settings$standardize, settings$control, likelihood)
  scale_x <- if (scaled$x) scales_of(seen$x)
  scale_z <- if (scaled$z) scales_of(if (is.null(seen$z)) seen$x else seen$z)
  if (scaled$origin) scale_z$center[] <- 0
  response <- if (has_plain_offset(likelihood)) seen$work else seen$y
  y_scale <- if (scaled$y) {
    size <- if (has_plain_offset(likelihood)) {
      sqrt(seen$sums[["squares"]] / seen$sums[["used"]])
    } else {
      sqrt(scales_of(response)$scale^2 + mean_of(response)^2)
    }
    response_unit(size, settings$expert)
  } else {
    1
  }
  weighted <- seen$sums[["weighted"]] > 0
  w_scale <- if (weighted) weight_unit_of(seen$y$largest, seen$y$weight / seen$sums[["used"]], likelihood) else 1
  frame <- list(
    x = matrix(0, 0L, length(seen$names$x)), z = if (!is.null(seen$z)) matrix(0, 0L, length(seen$names$z)),
    y = numeric(), y_scale = y_scale, eta_scale = if (y_scale == 1) 1 else predictor_unit(likelihood, y_scale),
    w = if (weighted) numeric(), w_scale = w_scale,
    x_center = scale_x$center, x_scale = scale_x$scale, z_center = scale_z$center, z_scale = scale_z$scale
  )
  if (is.null(likelihood)) return(frame)
  likelihood_limits(frame, likelihood$family, seen$y$weight / w_scale, scales_of(response)$scale / y_scale)
}

# Some rows of positive weight, or all rows, in the shape of data_from_formula().
sample_data <- function(handle, data, pick) {
  rows <- bind_parts(fold_source(handle, "sample", list(pick = pick)))
  c(rows, data[c("names", "ylevels")])
}

# The ordinary fit in memory to all rows, or to a sample with the centre and scale of all.
estimate_sample <- function(handle, data, settings, size) {
  used <- data$seen$sums[["used"]]
  whole <- used <= size
  all <- sum(handle$counts["rows", ]) <= size
  part <- sample_data(handle, data, if (!whole) sort(sample.int(used, size)) else if (!all) seq_len(used))
  if (!whole) part$scales <- all_scales(data$seen)
  check_custom_expert(settings$expert, part$x)
  estimate_model(
    part, settings$router, settings$expert, settings$k, NULL, settings$standardize, settings$control,
    settings$likelihood
  )
}

# From the start, the user's or that of the sample, to the solution on all rows.
estimate_source <- function(handle, data, settings, frame, sampled) {
  likelihood <- settings$likelihood
  control <- settings$control
  k <- settings$k
  model <- likelihood_model(core_model(settings$router, settings$expert, k, control), likelihood, frame)
  df <- model_df(data$names, settings)
  state <- search_state()
  progress <- progressor(steps = control$max_passes)
  search <- list(
    model = model, rows = frame, control = control, df = df, state = state,
    df_residual = max(data$seen$sums[["used"]] - df, 1), totals = core_totals(data, settings, frame)
  )
  state$lowest <- Inf
  search$sums <- sums_function(handle, model, frame, settings, state, progress)
  search$sweep <- function(par) {
    handle$finish <- finish_sums(handle, data, settings, frame, par)
    handle$finish$outcome
  }
  from <- data$start
  if (!is.null(sampled)) {
    from <- list(beta = sampled$beta, b = sampled$b, experts = sampled$eta, u = sampled$u, phi = sampled$phi)
  }
  if (dispersion_count(likelihood, k) > length(from$phi)) {
    # A start without dispersions gets them from some rows, the same as in memory, which have their own units.
    rows <- dispersion_rows(handle, data, settings)
    there <- given_start(from, replace(search, "rows", list(rows)), settings$router, settings$expert)
    from$phi <- there$phi + dispersion_shift(model, rows)
  }
  run <- c(
    list(kind = if (is.null(sampled)) "given" else "sample"),
    working_parameters(from, settings$router, settings$expert, frame, model)
  )
  runs <- tryCatch(run_starts(search, list(run), control$max_passes), cosmoe_error_source = function(e) {
    # Nothing that was computed is lost with a chunk.
    if (!is.null(state$reached)) {
      par <- report_parameters(state$reached, settings$router, settings$expert, frame, model)
      e$start <- list(beta = par$beta, b = par$b, experts = par$eta)
    }
    stop(e)
  })
  if (isTRUE(state$interrupted) && (control$on_interrupt == "stop" || !is.finite(runs[[1L]]$objective))) {
    stop_interrupt()
  }
  finish_estimate(runs, search, data, settings$router, settings$expert, k, df, likelihood)
}

dispersion_rows <- function(handle, data, settings) {
  n <- data$seen$sums[["used"]]
  part <- sample_data(handle, data, if (n > start_rows) sort(sample.int(n, start_rows)))
  part$scales <- all_scales(data$seen)
  working_rows(part, settings$router, settings$expert, settings$standardize, settings$control, settings$likelihood)
}

all_scales <- function(seen) list(x = scales_of(seen$x), z = scales_of(if (is.null(seen$z)) seen$x else seen$z))

model_df <- function(names, settings) {
  router_df(settings$router, settings$k, length(names$z)) +
    settings$k * expert_n_par(settings$expert, length(names$x)) + dispersion_count(settings$likelihood, settings$k)
}

# In working units, what the core's RowTotals has.
core_totals <- function(data, settings, frame) {
  seen <- data$seen
  y <- if (is.null(settings$likelihood)) seen$work else seen$y
  unit <- frame$y_scale^2 * frame$w_scale
  deviation <- y$cross[1L] / unit
  weight <- y$weight / frame$w_scale
  list(
    dx = length(data$names$x), dz = length(data$names$z), used = seen$sums[["used"]], weight = weight,
    deviation = deviation, squares = deviation + weight * (mean_of(y) / frame$y_scale)^2
  )
}

# What the core calls for its sums. After an interrupt NULL; the certificate is still computed if the fit is to be
# returned, until a second one.
sums_function <- function(handle, model, frame, settings, state, progress) {
  control <- settings$control
  searching <- model
  if (is_likelihood(model)) searching$information <- "complete"
  function(par, order, judge) {
    if (isTRUE(state$interrupted) && (!judge || control$on_interrupt == "stop")) return(NULL)
    args <- list(
      model = searching, par = par, order = order, threads = control$threads, frame = frame,
      likelihood = settings$likelihood
    )
    value <- tryCatch(fold_source(handle, "evaluate", args), cosmoe_error_interrupt = function(e) {
      state$interrupted <- TRUE
      NULL
    }, error = function(e) {
      if (!inherits(e, "cosmoe_error")) stop_source(paste("The source failed:", conditionMessage(e)))
      stop(e)
    })
    if (is.null(value)) return(NULL)
    progress()
    if (is.finite(value$value) && value$value < state$lowest) {
      state$lowest <- value$value
      state$reached <- par
    }
    value
  }
}

# ---- at the solution -------------------------------------------------------------------------------------------------

# At reported parameters `par`: list(outcome (of sweep_outcome()), and what tasks$finish sums).
finish_sums <- function(handle, data, settings, frame, par) {
  likelihood <- settings$likelihood
  model <- likelihood_model(
    core_model(settings$router, settings$expert, settings$k, settings$control), likelihood, frame
  )
  start <- list(u = par$u, b = par$b, experts = par$eta, phi = if (length(par$phi)) par$phi)
  spread_over <- function(n) unique(round(seq(1, n, length.out = min(n, sample_rows_least()))))
  counts <- rowSums(handle$counts)
  found <- fold_source(handle, "finish", list(
    model = model, router = settings$router, expert = settings$expert, frame = frame, likelihood = likelihood,
    reported = par, working = working_parameters(start, settings$router, settings$expert, frame, model),
    span = data$seen$y$span, gate_scales = gate_scales(frame, settings$router), threads = settings$control$threads,
    pick = spread_over(counts[["rows"]]), pick_raw = spread_over(counts[["read"]])
  ))
  total <- data$seen$y$weight
  away <- mean_of(found$f) - found$plain[["sum"]] / counts[["rows"]]
  spread <- (found$f$cross[1L] + found$f$weight * away^2) / total
  mixture <- if (!is.null(likelihood)) {
    list(spread = scales_of(data$seen$y)$scale^2,
         phi = rep_len(par$phi, if (length(par$phi)) settings$k else 0L), dispersed = length(par$phi) > 0L)
  }
  c(found, list(outcome = sweep_outcome(found$sweep, total, spread, mixture), par = par))
}

# Where the parameters of experts in the order `by` lie in theta.
theta_order <- function(by, par) {
  blocks <- function(size, first) as.vector(outer(seq_len(size), first + (by - 1L) * size, "+"))
  gates <- (nrow(par$u) + 1L) * length(by)
  experts <- length(par$eta)
  c(
    blocks(nrow(par$u) + 1L, 0L), blocks(nrow(par$eta), gates),
    gates + experts + if (length(par$phi) > 1L) by else seq_along(par$phi)
  )
}

# `data` with what new_cosine_moe() needs in place of rows.
finish_source <- function(handle, data, settings, frame, estimate) {
  found <- handle$finish
  if (is.null(found)) {
    found <- finish_sums(handle, data, settings, frame, estimate)
  } else {
    by <- theta_order(estimate$order, estimate)
    found$sums$gradient <- found$sums$gradient[by]
    for (part in c("normal", "hessian")) found$sums[[part]] <- found$sums[[part]][by, by, drop = FALSE]
  }
  seen <- data$seen
  counts <- rowSums(handle$counts)
  raw <- as_levelled(do.call(rbind, found$raw), data$xlevels)
  data$typical <- typical_row(names(raw), function(j) raw[[j]])
  picked <- bind_parts(found$picked)
  data$source <- list(
    description = handle$description, rows = counts[["read"]], used = counts[["rows"]], chunks = counts[["chunks"]],
    shards = length(handle$parts), dropped = seen$dropped, weighted = data$has_weights, nobs = seen$sums[["used"]],
    logs = seen$sums[["logs"]], sse = found$plain[["sse"]], tss = seen$y$cross[1L],
    outside = found$plain[["outside"]] / counts[["rows"]], sure = found$plain[["sure"]] / counts[["rows"]],
    frame = frame, sums = found$sums,
    sample = c(picked[c("x", "z")], list(
      w = if (!is.null(picked$w)) picked$w / frame$w_scale,
      offset = if (!is.null(picked$offset)) picked$offset / frame$eta_scale, trials = picked$trials,
      each = counts[["rows"]] / nrow(picked$x)
    ))
  )
  # That the response has numbers of trials, of which none are kept.
  if (!is.null(picked$trials)) data$trials <- numeric()
  data
}

# Factors with the levels of the fit, or those that are used.
as_levelled <- function(raw, levels) {
  for (name in names(raw)[vapply(raw, is.factor, NA)]) {
    known <- levels[[name]]
    raw[[name]] <- if (is.null(known)) droplevels(raw[[name]]) else factor(raw[[name]], known)
  }
  raw
}

# As information() has it for rows in memory, with `sample` rows for what looks at fitted values.
source_information <- function(fit, sample = NULL) {
  rows <- fit$source$frame
  if (is.null(rows$eta_scale)) rows$eta_scale <- rows$y_scale # saved before the two could differ
  rows[names(sample)] <- sample
  information_at(fit, rows, fit$source$sums)
}
