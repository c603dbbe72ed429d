# From chunks of rows to model matrices. A *design* is all that must be known of a formula to turn any chunk into what a
# fit works on: terms, levels of factors, contrasts; plain data, so that other processes can be sent it.
#   formula, call, env     as in R/data.R; `call` has the expressions of weights, offset, subset and na.action
#   terms, names, contrasts, xlevels, shared   as in the fitted object
#   columns, types         the columns of a chunk that are needed, and what each holds
#   plain                  whether all are plain numbers: then no model frame is made
#   likelihood, ylevels, k as in the fit

new_design <- function(formula, source, call, env, contrasts, likelihood) {
  formula <- as_formula(formula)
  design <- NULL
  seen <- 0L
  visit <- function(chunk, number) {
    seen <<- seen + nrow(chunk)
    design <<- first_design(formula, chunk, call, env, contrasts, likelihood)
    is.null(design)
  }
  for (shard in source_parts(source)) {
    if (is.null(design)) each_chunk(shard, NULL, visit)
  }
  if (is.null(design)) {
    reason <- if (seen) sprintf(": `na.action` or `subset` dropped all %d of the source", seen)
    stop_data("There are no rows to fit", reason, ".")
  }
  design
}

source_parts <- function(source) if (is.null(source$shards)) list(source) else source$shards

# From the first chunk that has rows for the fit; NULL from others.
first_design <- function(formula, chunk, call, env, contrasts, likelihood) {
  chunk <- as_plain_frame(chunk)
  frame_of <- function(rows) {
    tryCatch(
      eval_frame(formula, rows, call, env, c("subset", "weights", "na.action", "offset"), drop.unused.levels = FALSE),
      error = frame_error
    )
  }
  head <- utils::head(chunk, 1000L)
  frame <- frame_of(head)
  if (nrow(frame) == 0L) frame <- frame_of(chunk)
  if (attr(attr(frame, "terms"), "response") != 1L) {
    stop_input("formula", as_text(formula), "one with a single response")
  }
  if (nrow(frame) == 0L) return(NULL)
  check_contrasts(contrasts, frame)
  full <- attr(frame, "terms")
  expert <- part_terms(formula, chunk, 1L)
  gate <- if (length(formula)[2L] == 2L) gate_terms(formula, chunk) else expert
  used <- call[match(c("weights", "subset", "offset"), names(call), 0L)]
  columns <- intersect(unique(c(all.vars(full), all.vars(as.call(c(quote(list), as.list(used)))))), names(chunk))
  design <- list(
    formula = formula, call = call, env = env, terms = list(full = full, expert = expert, gate = gate),
    shared = identical(attr(expert, "term.labels"), attr(gate, "term.labels")), contrasts = contrasts,
    columns = columns, types = vapply(columns, function(name) column_type(chunk[[name]]), ""),
    covariates = intersect(unique(c(all.vars(stats::delete.response(full)), all.vars(call$offset))), names(chunk)),
    likelihood = likelihood
  )
  design$plain <- is_plain_design(design, frame, chunk)
  check_rowwise(design, head)
  design$factors <- names(frame)[vapply(frame, function(v) is.factor(v) || is.character(v), NA)]
  design
}

# Without classes of data frames that have methods of their own, such as data.table.
as_plain_frame <- function(chunk) {
  if (identical(class(chunk), "data.frame")) return(chunk)
  as.data.frame(chunk)
}

# Whether weights and offset are columns or absent and all variables numeric columns.
is_plain_design <- function(design, frame, chunk) {
  full <- design$terms$full
  variables <- as.list(attr(full, "variables"))[-1L]
  symbols <- all(vapply(variables, is.name, NA)) && all(vapply(variables, as.character, "") %in% names(chunk))
  known <- na_action_name(design) %in% c("na.omit", "na.exclude", "na.fail")
  simple <- function(part) length(part) == 0L || all(attr(part, "order") == 1L)
  columns <- design_columns(design)
  symbols && known && !columns$y %in% c(columns$x, columns$z) && is.null(design$call$subset) &&
    length(attr(full, "offset")) == 0L && simple(design$terms$expert) && simple(design$terms$gate) &&
    all(vapply(variables, function(v) column_type(chunk[[as.character(v)]]) == "numeric", NA))
}

column_type <- function(v) {
  if (is.logical(v) && all(is.na(v))) return("missing")
  if (!is.null(dim(v))) return(paste(class(v)[1L], ncol(v)))
  if (is.factor(v) || is.character(v)) return("factor")
  if (inherits(v, "integer64") || (is.numeric(v) && !is.object(v))) return("numeric")
  if (is.logical(v)) "logical" else class(v)[1L]
}

# Factors and strings are one type: chunks may have either.
type_words <- function(type) if (type == "factor") "a factor or strings" else type

# The needed columns of a chunk, checked against the first one. Columns of nothing but NA take the expected type.
conform_chunk <- function(design, chunk, at) {
  absent <- setdiff(design$columns, names(chunk))
  if (length(absent)) stop_source(sprintf("Chunk %d%s lacks %s", at$chunk, at$where, enumerate(absent, max = Inf)))
  columns <- lapply(design$columns, function(name) {
    v <- .subset2(chunk, name)
    type <- column_type(v)
    expected <- design$types[[name]]
    if (type == "missing" && expected == "numeric") return(rep(NA_real_, length(v)))
    if (type == "missing" && expected == "factor") return(rep(NA_character_, length(v)))
    if (type != expected && type != "missing" && expected != "missing") {
      stop_source(sprintf(
        "`%s` was %s in the first chunk, but is %s in chunk %d%s", name, type_words(expected), type_words(type),
        at$chunk, at$where
      ))
    }
    if (inherits(v, "integer64")) as_double64(v) else v
  })
  structure(stats::setNames(columns, design$columns), class = "data.frame", row.names = .set_row_names(nrow(chunk)))
}

# 64-bit integers are kept as the bits of doubles.
as_double64 <- function(v) {
  need_package("bit64", "A column of 64-bit integers")
  as.double(v)
}

# A term whose value in a row depends on other rows has no meaning in chunks. Terms, weights, offset and subset of some
# rows of a chunk must be these rows of the whole chunk's.
check_rowwise <- function(design, chunk) {
  n <- nrow(chunk)
  if (n < 2L) return(invisible())
  home <- environment(design$formula)
  check <- function(expression, env) {
    value <- function(rows) tryCatch(eval(expression, chunk[rows, , drop = FALSE], env), error = function(e) NULL)
    whole <- value(seq_len(n))
    few <- if (n > 2L) 1:2 else 1L
    # Codes of levels show only among rows that lack the first ones.
    words <- lapply(intersect(all.vars(expression), names(chunk)), function(name) chunk[[name]])
    words <- lapply(Filter(function(v) is.character(v) || is.factor(v), words), as.character)
    last <- lapply(Filter(function(v) !all(is.na(v)), words), function(v) which(v == max(v, na.rm = TRUE)))
    tried <- c(list(seq.int(1L, n, by = 2L), few), Filter(function(some) length(some) < n, last))
    found <- vapply(tried, function(some) depends_on_rows(whole, value(some), some, n), NA)
    if (!any(found)) return()
    stop_input("formula", I(sprintf("one with %s", deparse1(expression))), paste(
      "without terms whose value in a row depends on other rows, since these come in chunks (give knots, use raw",
      "polynomials, or put the column into the source)"
    ))
  }
  for (v in as.list(attr(design$terms$full, "variables"))[-1L]) check(v, home)
  for (argument in c("weights", "offset", "subset")) {
    if (!is.null(design$call[[argument]])) check(design$call[[argument]], design$env)
  }
}

depends_on_rows <- function(whole, part, some, n) {
  if (NROW(whole) != n) return(FALSE)
  plain <- function(v) {
    if (is.factor(v) || is.character(v)) return(as.character(v))
    if (is.matrix(v)) matrix(as.double(v), nrow(v)) else as.double(v)
  }
  whole <- plain(whole)
  part <- if (NROW(part) == length(some)) plain(part)
  same <- if (is.matrix(whole)) whole[some, , drop = FALSE] else whole[some]
  is.null(part) || !isTRUE(all.equal(same, part, tolerance = 1e-12))
}

# ---- one chunk -------------------------------------------------------------------------------------------------------

# list(y, trials, ylevels, x, z, w, offset, names, contrasts, n, read, dropped) of a chunk in the shape of
# conform_chunk(): `n` rows of `read` are in the fit, `dropped` had missing values. `at` is list(chunk, where), for
# messages.
prepare_chunk <- function(design, chunk, at) {
  part <- in_chunk(at, if (design$plain) plain_chunk(design, chunk) else framed_chunk(design, chunk))
  part$read <- nrow(chunk)
  part
}

# What is wrong with the data names the chunk.
in_chunk <- function(at, value) {
  tryCatch(value, cosmoe_error_data = function(e) {
    e$message <- sprintf("In chunk %d%s: %s", at$chunk, at$where, conditionMessage(e))
    stop(e)
  })
}

plain_chunk <- function(design, chunk) {
  names <- design_columns(design)
  w <- eval_plain(design, chunk, "weights")
  offset <- eval_plain(design, chunk, "offset")
  used <- unique(c(names$y, names$x, names$z))
  missing <- vapply(used, function(name) anyNA(chunk[[name]]), NA)
  keep <- NULL
  if (any(missing) || anyNA(w) || anyNA(offset)) {
    if (identical(na_action_name(design), "na.fail")) stop_data("There are missing values.")
    keep <- stats::complete.cases(c(chunk[used[missing]], list(w, offset)[!vapply(list(w, offset), is.null, NA)]))
    chunk <- lapply(chunk[used], function(v) v[keep])
  }
  n <- if (is.null(keep)) nrow(chunk) else sum(keep)
  dropped <- length(keep) - sum(keep)
  if (n == 0L) return(list(n = n, dropped = dropped))
  matrix_of <- function(names) {
    value <- as.double(unlist(chunk[names], use.names = FALSE))
    dim(value) <- c(n, length(names))
    value
  }
  response <- read_response(chunk[[names$y]], n, response_words(names$y), design$likelihood)
  list(
    y = response$y, trials = NULL, ylevels = NULL, x = matrix_of(names$x), z = if (!design$shared) matrix_of(names$z),
    w = if (is.null(keep)) w else w[keep], offset = if (is.null(keep)) offset else offset[keep],
    names = c(list(y = names$y), lapply(list(x = design$terms$expert, z = design$terms$gate), term_labels),
              list(shared = design$shared)),
    n = n, dropped = dropped
  )
}

term_labels <- function(terms) attr(terms, "term.labels")

# Of a plain design.
design_columns <- function(design) {
  label <- function(terms) sub("^`(.*)`$", "\\1", term_labels(terms))
  list(y = as.character(attr(design$terms$full, "variables")[[2L]]), x = label(design$terms$expert),
       z = label(design$terms$gate))
}

na_action_name <- function(design) {
  if (!is.null(design$call$na.action)) return(as.character(design$call$na.action)[1L])
  getOption("na.action", "na.omit")
}

eval_plain <- function(design, chunk, argument) {
  expression <- design$call[[argument]]
  if (is.null(expression)) return(NULL)
  value <- tryCatch(eval(expression, chunk, design$env), error = function(e) {
    stop_data("`", argument, "` cannot be evaluated: ", conditionMessage(e), ".")
  })
  optional_row_values(value, nrow(chunk), paste0("`", argument, "`"))
}

# Numbers of rows, and values from outside the source, mean something else in every chunk.
check_subset <- function(design, chunk) {
  subset <- design$call$subset
  if (is.null(subset)) return(invisible())
  keep <- tryCatch(eval(subset, chunk, design$env), error = function(e) {
    stop_data("`subset` cannot be evaluated: ", conditionMessage(e), ".")
  })
  if (is.logical(keep) && length(keep) == nrow(chunk)) return(invisible())
  stop_input(
    "subset", I(sprintf("`%s`", deparse1(subset))),
    "a condition on the columns of the source, TRUE or FALSE for each row of a chunk"
  )
}

framed_chunk <- function(design, chunk) {
  check_subset(design, chunk)
  frame <- chunk_frame(design, chunk, c("subset", "weights", "na.action", "offset"))
  n <- nrow(frame)
  dropped <- length(attr(frame, "na.action"))
  if (n == 0L) return(list(n = 0L, dropped = dropped))
  x <- design_matrix(design$terms$expert, frame, design$contrasts)
  z <- if (design$shared) list(names = x$names) else design_matrix(design$terms$gate, frame, design$contrasts)
  response <- read_response(frame[[1L]], n, response_words(names(frame)[1L]), design$likelihood)
  list(
    y = response$y, trials = response$trials, ylevels = response$levels, x = x$design, z = z$design,
    w = optional_row_values(stats::model.weights(frame), n, "`weights`"),
    offset = optional_row_values(stats::model.offset(frame), n, "`offset`"),
    names = list(y = names(frame)[1L], x = x$names, z = z$names, shared = design$shared),
    contrasts = c(x$contrasts, z$contrasts[setdiff(names(z$contrasts), names(x$contrasts))]),
    n = n, dropped = dropped
  )
}

chunk_frame <- function(design, chunk, arguments) {
  tryCatch(
    eval_frame(design$terms$full, chunk, design$call, design$env, arguments, xlev = design$levels,
               drop.unused.levels = FALSE),
    error = function(e) stop_data("The model frame cannot be built: ", conditionMessage(e), ".")
  )
}

# The covariates as the user supplies them, with missing values.
raw_columns <- function(design, chunk) {
  subset <- design$call$subset
  chunk <- chunk[design$covariates]
  if (is.null(subset)) return(chunk)
  keep <- eval(subset, chunk, design$env)
  chunk[keep & !is.na(keep), , drop = FALSE]
}

# ---- levels of factors -----------------------------------------------------------------------------------------------

# For each factor of a chunk's frame: `declared` (NULL for strings) and `used` levels.
chunk_levels <- function(design, chunk) {
  frame <- chunk_frame(design, chunk, c("subset", "weights", "na.action", "offset"))
  lapply(stats::setNames(nm = design$factors), function(name) {
    v <- frame[[name]]
    if (is.character(v)) return(list(kind = "strings", used = unique(v)))
    if (is.null(v) || all(is.na(v))) return(NULL)
    list(kind = if (is.ordered(v)) "ordered" else "factor", declared = levels(v), used = levels(droplevels(v)))
  })
}

merge_levels <- function(a, b) {
  stats::setNames(lapply(names(b), function(name) {
    one <- a[[name]]
    two <- b[[name]]
    if (is.null(one) || is.null(two)) return(if (is.null(one)) two else one)
    same <- one$kind == two$kind && identical(one$declared, two$declared)
    if (!same && "ordered" %in% c(one$kind, two$kind)) {
      stop_source(sprintf("The ordered factor `%s` has different levels in different chunks", name))
    }
    list(
      kind = if (one$kind == two$kind) one$kind else "strings",
      declared = if (same) one$declared, used = union(one$used, two$used)
    )
  }), names(b))
}

# The levels of all chunks that are used, in their order: the declared one, if all chunks agree; else sorted.
final_levels <- function(found) {
  lapply(Filter(Negate(is.null), found), function(one) {
    if (!is.null(one$declared)) return(one$declared[one$declared %in% one$used])
    number <- if (one$kind == "factor") suppressWarnings(as.numeric(one$used)) else NA
    if (anyNA(number)) sort(one$used) else one$used[order(number)]
  })
}
