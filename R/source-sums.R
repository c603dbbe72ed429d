# What a fit asks of a source, each a sum over chunks: chunk(part, args, at) for a part made by prepare_chunk(), `at`
# telling how many rows came before; merge(a, b) for neighbours, of which one may be NULL; ready(part, args) what
# workers keep for the next pass; empty: whether chunks without rows for the fit count.

tasks <- list()

# Levels of factors: chunk_levels() takes the chunk itself.
tasks$levels <- list(merge = function(a, b) if (is.null(a) || is.null(b)) c(a, b) else merge_levels(a, b))

# ---- means and scales ------------------------------------------------------------------------------------------------

tasks$moments <- list(
  empty = TRUE,
  chunk = function(part, args, at) {
    raw <- part$raw()
    # No range of nothing: covariate_range() leaves columns without values out.
    out <- list(dropped = part$dropped, range = covariate_range(names(raw), function(j) raw[[j]]))
    if (part$n == 0L) return(out)
    check_part(part, args$likelihood)
    work <- working_response(part)
    used <- if (is.null(part$w)) rep(TRUE, part$n) else part$w > 0
    c(out, part[c("names", "contrasts", "ylevels")], list(
      x = moments(part$x, part$w),
      z = if (!is.null(part$z)) moments(part$z, part$w),
      y = moments(cbind(part$y), part$w),
      work = moments(cbind(work), part$w),
      sums = c(
        squares = sum(work[used]^2), used = sum(used), logs = if (is.null(part$w)) 0 else sum(log(part$w[used])),
        trials = !is.null(part$trials), offset = !is.null(part$offset), weighted = !is.null(part$w)
      )
    ))
  },
  merge = function(a, b) {
    if (is.null(a) || is.null(b)) return(c(a, b))
    out <- if (is.null(a$names)) b else a
    if (!is.null(a$names) && !is.null(b$names)) {
      if (!identical(a$names, b$names)) stop_source("Chunks give different columns of the model matrix")
      for (name in c("x", "z", "y", "work")) out[[name]] <- merge_moments(a[[name]], b[[name]])
      out$sums <- a$sums + b$sums
    }
    out$dropped <- a$dropped + b$dropped
    out$range <- merge_ranges(a$range, b$range)
    out
  }
)

# Checks that need one row at a time, as in check_data().
check_part <- function(part, likelihood) {
  check_weights_of_part(part$w)
  check_finite_values(part$y, response_words(part$names$y))
  check_finite_values(part$offset, "`offset`")
  check_finite_columns(part$x, part$names$x, "expert")
  check_finite_columns(part$z, part$names$z, "gate")
  if (!has_plain_offset(likelihood)) check_family_response(part, likelihood)
}

check_weights_of_part <- function(w) if (!is.null(w) && any(w != 0 | is.na(w))) check_weights(w)

# Weight, mean, cross-product about the mean, largest weight, and range over rows of positive weight. The mean is
# `center` plus the small `rest`: with a mean far from zero one number would lose digits from chunk to chunk.
moments <- function(m, w = NULL) {
  if (!is.null(w)) {
    m <- m[w > 0, , drop = FALSE]
    w <- w[w > 0]
  }
  n <- nrow(m)
  if (n == 0L) return(NULL)
  total <- if (is.null(w)) as.double(n) else sum(w)
  center <- if (is.null(w)) colMeans(m) else colSums(w * m) / total
  span <- vapply(seq_len(ncol(m)), function(j) range(m[, j]), numeric(2))
  deviation <- m - rep(center, each = n)
  rest <- colSums(if (is.null(w)) deviation else w * deviation) / total
  cross <- crossprod(if (is.null(w)) deviation else sqrt(w) * deviation)
  largest <- if (is.null(w)) 1 else max(w)
  list(weight = total, center = center, rest = rest, cross = cross, largest = largest, span = span)
}

# Chan, Golub and LeVeque (1983).
merge_moments <- function(a, b) {
  if (is.null(a) || is.null(b)) return(if (is.null(a)) b else a)
  total <- a$weight + b$weight
  step <- (b$center - a$center) + (b$rest - a$rest)
  list(
    weight = total,
    center = a$center,
    rest = a$rest + step * (b$weight / total),
    cross = a$cross + b$cross + tcrossprod(step) * (a$weight * b$weight / total),
    largest = max(a$largest, b$largest),
    span = rbind(pmin(a$span[1L, ], b$span[1L, ]), pmax(a$span[2L, ], b$span[2L, ]))
  )
}

merge_ranges <- function(a, b) {
  names <- union(colnames(a), colnames(b))
  value <- function(m, name, row) if (name %in% colnames(m)) m[row, name]
  vapply(names, function(name) {
    c(min = min(value(a, name, 1L), value(b, name, 1L)), max = max(value(a, name, 2L), value(b, name, 2L)))
  }, numeric(2))
}

mean_of <- function(moments) moments$center + moments$rest

scales_of <- function(moments) {
  variance <- diag(moments$cross) / moments$weight
  list(center = mean_of(moments), scale = ifelse(variance > 0, sqrt(variance), 1))
}

# ---- rows themselves -------------------------------------------------------------------------------------------------

# The rows `args$pick` of those with positive weight (sorted numbers; NULL for all rows), as a list of parts.
tasks$sample <- list(
  chunk = function(part, args, at) {
    if (is.null(args$pick)) return(list(take_part(part, seq_len(part$n))))
    own <- args$pick[args$pick > at$used & args$pick <= at$used + used_rows(part)] - at$used
    if (!length(own)) return(list())
    list(take_part(part, if (is.null(part$w)) own else which(part$w > 0)[own]))
  },
  merge = c
)

take_part <- function(part, use) {
  for (name in c("x", "z")) if (!is.null(part[[name]])) part[[name]] <- part[[name]][use, , drop = FALSE]
  columns <- intersect(c("y", "w", "offset", "trials"), names(part))
  part[columns] <- lapply(part[columns], function(v) v[use])
  part[c("x", "z", columns)]
}

bind_parts <- function(parts) {
  join <- function(name, how) if (!is.null(parts[[1L]][[name]])) do.call(how, lapply(parts, `[[`, name))
  list(
    x = join("x", rbind), z = join("z", rbind), y = join("y", c), w = join("w", c), offset = join("offset", c),
    trials = join("trials", c)
  )
}

# ---- the pass --------------------------------------------------------------------------------------------------------

# list(value, gradient, normal, hessian) of core_objective().
tasks$evaluate <- list(
  ready = function(part, args) place_part(args$frame, part, args$likelihood),
  chunk = function(rows, args, at) {
    core_call(core_objective(args$model, rows, args$par, args$order, args$threads))
  },
  merge = function(a, b) if (is.null(a) || is.null(b)) c(a, b) else Map(`+`, a, b)
)

# The rows of a part in working coordinates, of which `frame` has all but the values.
place_part <- function(frame, part, likelihood = NULL) {
  y <- if (is.null(likelihood)) working_response(part) else part$y
  rows <- frame
  rows[c("x", "z")] <- part[c("x", "z")]
  rows$y <- if (frame$y_scale == 1) y else y / frame$y_scale
  rows$w <- if (is.null(part$w) || frame$w_scale == 1) part$w else part$w / frame$w_scale
  if (is.null(likelihood)) return(rows)
  rows$offset <- if (!is.null(part$offset)) part$offset / frame$eta_scale
  rows$trials <- part$trials
  rows
}

# ---- at the solution -------------------------------------------------------------------------------------------------

# Derivatives, sums of sweep_block(), residuals, and rows spread evenly: `args$pick` of the rows of the fit,
# `args$pick_raw` of those read, sorted numbers.
tasks$finish <- list(
  empty = TRUE,
  chunk = function(part, args, at) {
    own <- function(pick, before, n) pick[pick > before & pick <= before + n] - before
    raw <- list(part$raw(own(args$pick_raw, at$read, part$read)))
    if (part$n == 0L) return(list(raw = raw))
    rows <- place_part(args$frame, part, args$likelihood)
    # The spread that mixture_of() adds is that of the part, and not used.
    unweighted <- replace(part, "w", list(NULL))
    mixture <- if (!is.null(args$likelihood)) {
      mixture_of(unweighted, args$likelihood, args$reported$phi, args$model$k, args$span)
    }
    model <- core_model(args$router, args$expert, args$model$k)
    gate <- args$gate_scales
    sweep <- sweep_block(
      model, list(x = part$x, z = part$z, z_center = gate$center, z_scale = gate$scale),
      args$reported[c("u", "b", "eta")], args$threads, mixture, c(mixture$rows, list(w = part$w))
    )
    weight <- if (is.null(part$w)) rep(1, part$n) else part$w
    f <- sweep$f + if (is.null(args$likelihood) && !is.null(part$offset)) part$offset else 0
    range <- expert_range(args$expert)
    work <- working_response(part)
    list(
      sums = core_call(core_objective(args$model, rows, args$working, 3L, args$threads)),
      sweep = sweep[c("gate", "influence", "extreme", "both", "difference", "entropy")],
      f = moments(cbind(sweep$f), part$w),
      plain = c(
        sse = sum(weight * (part$y - f)^2), sum = sum(sweep$f), outside = sum(work < range[1L] | work > range[2L]),
        sure = sum(pmin(f, 1 - f) < 1e-4)
      ),
      picked = list(take_part(part, own(args$pick, at$rows, part$n))),
      raw = raw
    )
  },
  merge = function(a, b) {
    if (is.null(a) || is.null(b)) return(c(a, b))
    raw <- c(a$raw, b$raw)
    if (is.null(a$sums) || is.null(b$sums)) return(replace(if (is.null(a$sums)) b else a, "raw", list(raw)))
    list(
      sums = Map(`+`, a$sums, b$sums), sweep = Map(`+`, a$sweep, b$sweep), f = merge_moments(a$f, b$f),
      plain = a$plain + b$plain, picked = c(a$picked, b$picked), raw = raw
    )
  }
)
