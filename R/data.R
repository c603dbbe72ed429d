# From a formula or from matrices to what a fit works on: a list with
#   ylevels        levels of a binomial response that is a factor, else NULL
#   trials         of a binomial response given as cbind(successes, failures), else NULL; y is then the share
#   y, x, z        response, covariates of the experts and of the gate (double; z is NULL when the gate uses x itself)
#   w, offset      weights and offset, NULL if none
#   names          list(y, x, z, shared): column names (z's also when shared), and whether the gate uses x itself
#   typical, range one row of typical values, and the range, of the covariates a user has to supply
# and, from a formula, also: formula, terms = list(full, expert, gate), xlevels, contrasts, na.action, model.

# `call` is the matched call of the user's function and `env` the place it was called from, as in lm(); `data` is
# evaluated.
data_from_formula <- function(formula, data, call, env, contrasts = NULL, likelihood = NULL) {
  formula <- as_formula(formula)
  data <- without_int64(as_data(data))
  one_part <- length(formula)[2L] == 1L
  bare <- frame_terms(formula, data)
  frame <- training_frame(formula, bare, data, call, env)
  check_contrasts(contrasts, frame)
  full <- attr(frame, "terms")
  expert <- part_terms(formula, data, 1L, if (one_part) bare)
  gate <- if (one_part) expert else gate_terms(formula, data)
  shared <- identical(attr(expert, "term.labels"), attr(gate, "term.labels"))
  x <- design_matrix(expert, frame, contrasts)
  z <- if (shared) list(names = x$names) else design_matrix(gate, frame, contrasts)
  raw <- raw_frame(formula, data, call, env, full, frame)
  rows <- typical_rows(nrow(frame))
  response <- read_response(frame[[1L]], nrow(frame), response_words(names(frame)[1L]), likelihood)
  list(
    y = response$y,
    trials = response$trials,
    ylevels = response$levels,
    x = x$design,
    z = z$design,
    w = optional_row_values(stats::model.weights(frame), nrow(frame), "`weights`"),
    offset = optional_row_values(stats::model.offset(frame), nrow(frame), "`offset`"),
    names = list(y = names(frame)[1L], x = x$names, z = z$names, shared = shared),
    typical = typical_row(names(raw), function(j) {
      v <- raw[[j]]
      if (is.null(rows)) v else if (is.matrix(v)) v[rows, , drop = FALSE] else v[rows]
    }),
    range = covariate_range(names(raw), function(j) raw[[j]]),
    formula = formula,
    terms = list(full = full, expert = expert, gate = gate),
    xlevels = if (all(attr(full, "dataClasses") == "numeric")) no_levels else stats::.getXlevels(full, frame),
    contrasts = c(x$contrasts, z$contrasts[setdiff(names(z$contrasts), names(x$contrasts))]),
    na.action = attr(frame, "na.action"),
    row_names = if (!identical(attr(frame, "row.names"), seq_len(nrow(frame)))) row.names(frame),
    model = frame
  )
}

# `z = NULL` means that the gate uses x.
data_from_matrix <- function(x, y, z = NULL, weights = NULL, offset = NULL, y_name = "y", likelihood = NULL) {
  x <- as_covariates(x, "x")
  if (!is.null(z)) z <- as_covariates(z, "z")
  if (identical(z, x)) z <- NULL
  n <- nrow(x)
  if (!is.null(z) && nrow(z) != n) stop_data(sprintf("`z` has %d rows, but `x` has %d.", nrow(z), n))
  x_names <- covariate_names(x, "x")
  z_names <- if (is.null(z)) x_names else covariate_names(z, "z")
  covariates <- unique(c(x_names, z_names))
  rows <- typical_rows(n)
  column <- function(j) {
    name <- covariates[j]
    from <- if (name %in% x_names) list(x, match(name, x_names)) else list(z, match(name, z_names))
    if (is.null(rows)) from[[1L]][, from[[2L]]] else from[[1L]][rows, from[[2L]]]
  }
  ranges <- rbind(summarise_columns(x), if (!is.null(z)) summarise_columns(z))
  ranges <- ranges[match(covariates, c(x_names, if (!is.null(z)) z_names)), c("least", "largest"), drop = FALSE]
  response <- read_response(y, n, response_words(y_name), likelihood)
  list(
    y = response$y,
    trials = response$trials,
    ylevels = response$levels,
    x = x,
    z = z,
    w = optional_row_values(weights, n, "`weights`"),
    offset = optional_row_values(offset, n, "`offset`"),
    names = list(y = y_name, x = x_names, z = z_names, shared = is.null(z)),
    typical = typical_row(covariates, column),
    range = structure(t(ranges), dimnames = list(c("min", "max"), covariates)),
    row_names = rownames(x)
  )
}

# The levels of factors where there are none.
no_levels <- stats::setNames(list(), character())

# What the experts have to explain: the response without the offset.
working_response <- function(data) if (is.null(data$offset)) data$y else data$y - data$offset

# ---- formula ---------------------------------------------------------------------------------------------------------

as_formula <- function(formula) {
  if (!inherits(formula, "formula")) stop_input("formula", formula, "a formula such as y ~ x | z")
  formula <- Formula::Formula(stats::formula(formula_of_response(formula)))
  parts <- length(formula)
  if (parts[1L] != 1L || parts[2L] > 2L) {
    stop_input("formula", as_text(formula), "of the form response ~ covariates of experts | covariates of gate")
  }
  formula
}

# In a formula of several parts `y / 2` on the left would be a term; here it is a quotient, as in lm().
formula_of_response <- function(formula) {
  if (inherits(formula, "Formula") || length(formula) < 3L) return(formula)
  side <- formula[[2L]]
  while (is.call(side) && identical(side[[1L]], quote(`(`))) side <- side[[2L]]
  operators <- c("-", "*", "/", "^", ":", "%in%", "%%", "%/%")
  is_term <- is.call(side) && is.name(side[[1L]]) && as.character(side[[1L]]) %in% operators
  if (is_term) formula[[2L]] <- call("I", formula[[2L]])
  formula
}

as_text <- function(formula) I(deparse1(stats::formula(formula)))

as_data <- function(data) {
  if (is.null(data) || is.data.frame(data) || is.environment(data)) return(data)
  refuse <- function(...) stop_input("data", data, "a data frame")
  if (!is.list(data)) refuse()
  tryCatch(as.data.frame(data), error = refuse)
}

frame_error <- function(e) stop_data("The model frame cannot be built: ", conditionMessage(e), ".")

# The terms of all parts together. A formula in which nothing is to be split or expanded is one of stats, too.
frame_terms <- function(formula, data) {
  simple <- length(formula)[2L] == 1L && is.name(formula[[2L]]) && !"." %in% all.vars(formula)
  terms_of <- if (simple) stats::terms.formula else stats::terms
  tryCatch(terms_of(formula, data = data), error = frame_error)
}

# The model frame of all parts. Its arguments are evaluated in the data, as in lm(); the data are already evaluated,
# once, and go by a name of their own.
training_frame <- function(formula, terms, data, call, env) {
  arguments <- c("subset", "weights", "na.action", "offset")
  default <- !"na.action" %in% names(call) && is.null(attr(data, "na.action")) &&
    identical(getOption("na.action"), "na.omit")
  frame <- tryCatch(
    if (default) eval_frame(terms, data, call, env, arguments, na.action = omit_missing)
    else eval_frame(terms, data, call, env, arguments),
    error = frame_error
  )
  if (attr(attr(frame, "terms"), "response") != 1L) {
    stop_input("formula", as_text(formula), "one with a single response")
  }
  if (nrow(frame) == 0L) {
    dropped <- length(attr(frame, "na.action"))
    reason <- if (dropped) sprintf(": `na.action` dropped all %d that have missing values", dropped)
    stop_data("There are no rows to fit", reason, ".")
  }
  frame
}

# na.omit(), but rows without missing values are not copied.
omit_missing <- function(object, ...) {
  missing <- vapply(object, function(v) if (is.object(v) || is.list(v)) any(is.na(v)) else anyNA(v), NA)
  if (any(missing)) stats::na.omit(object, ...) else object
}

eval_frame <- function(formula, data, call, env, arguments, ...) {
  frame <- call[c(1L, match(arguments, names(call), 0L))]
  frame[[1L]] <- quote(stats::model.frame)
  frame$formula <- formula
  frame$data <- quote(.cosmoe_data)
  frame$drop.unused.levels <- TRUE
  if (...length()) frame[...names()] <- list(...)
  scope <- new.env(parent = env)
  scope$.cosmoe_data <- data
  eval(frame, scope)
}

# Columns of 64-bit integers as numbers: elsewhere they would be taken for the doubles with the same bits.
without_int64 <- function(data) {
  if (!is.data.frame(data)) return(data)
  long <- vapply(data, inherits, NA, "integer64")
  if (any(long)) data[long] <- lapply(data[long], as_double64)
  data
}

# The terms of one part, with `.` expanded; those of all parts, if `known`, are those of the only one.
part_terms <- function(formula, data, part, known = NULL) {
  terms <- if (is.null(known)) stats::terms(formula, rhs = part, data = if (is.data.frame(data)) data) else known
  if (attr(terms, "intercept") == 0L) {
    stop_input("formula", as_text(formula), "one without `- 1` or `+ 0`: every expert and every gate has an intercept")
  }
  stats::delete.response(terms)
}

gate_terms <- function(formula, data) {
  gate <- part_terms(formula, data, 2L)
  if (length(attr(gate, "offset"))) {
    stop_input("formula", as_text(formula), "one with offset() terms among the experts' covariates only")
  }
  gate
}

check_contrasts <- function(contrasts, frame) {
  if (is.null(contrasts)) return(invisible())
  if (!is.list(contrasts) || !all(names(contrasts) %in% names(frame)) || is.null(names(contrasts))) {
    stop_input("contrasts", contrasts, "a list named by factors of the formula")
  }
  numbers <- names(contrasts)[vapply(names(contrasts), function(name) is.numeric(frame[[name]]), NA)]
  if (length(numbers)) stop_input("contrasts", I(paste("one for the number", enumerate(numbers))), "for factors only")
}

# The model matrix without its column of ones, since experts and gates have their own intercepts; factors are coded as
# beside an intercept. Plain numbers are joined directly: model.matrix() would make a string for each row on the way.
design_matrix <- function(terms, frame, contrasts = NULL) {
  variables <- term_variables(terms, frame)
  plain <- all(attr(terms, "order") == 1L) && all(vapply(variables, function(v) is.numeric(v) && is.null(dim(v)), NA))
  if (plain) return(bind_numbers(terms, variables, nrow(frame)))
  single <- vapply(variables, has_single_level, NA)
  if (any(single)) stop_data("A factor needs two levels in the data: ", enumerate(names(variables)[single]), ".")
  complex <- names(variables)[vapply(variables, is.complex, NA)]
  if (length(complex)) stop_data("Covariates must be real numbers, not complex: ", enumerate(complex), ".")
  contrasts <- contrasts[intersect(names(contrasts), names(variables))]
  design <- tryCatch(
    stats::model.matrix(terms, frame, contrasts.arg = if (length(contrasts)) contrasts),
    error = function(e) stop_data("The model matrix cannot be made: ", conditionMessage(e))
  )
  used <- attr(design, "contrasts")
  design <- design[, -1L, drop = FALSE]
  columns <- colnames(design)
  dimnames(design) <- NULL
  list(design = design, names = columns, contrasts = used)
}

# The columns of the frame that the terms use, in the order of the rows of the terms' "factors".
term_variables <- function(terms, frame) {
  variables <- as.list(attr(terms, "variables"))[-1L]
  words <- function(v) if (is.name(v)) as.character(v) else paste(deparse(v, 500L, backtick = TRUE), collapse = " ")
  unclass(frame)[vapply(variables, words, "")]
}

bind_numbers <- function(terms, variables, n) {
  labels <- attr(terms, "term.labels")
  factors <- attr(terms, "factors")
  if (length(labels) && !all(colSums(factors > 0L) > 0L)) stop_data("The response is among the covariates.")
  used <- if (length(labels)) row(factors)[factors > 0L]
  list(design = join_columns(variables[used], n), names = labels, contrasts = NULL)
}

# A double matrix in one copy, of integers, too: after an empty double unlist() makes doubles of all that follows.
join_columns <- function(columns, n) {
  matrix <- unlist(c(list(double()), columns), use.names = FALSE)
  dim(matrix) <- c(n, length(columns))
  matrix
}

has_single_level <- function(v) {
  if (is.factor(v)) nlevels(v) < 2L else is.character(v) && length(unique(v[!is.na(v)])) < 2L
}

# ---- matrices --------------------------------------------------------------------------------------------------------

# A double matrix is returned as it is, uncopied.
as_covariates <- function(x, argument) {
  if (is.data.frame(x)) {
    other <- names(x)[!vapply(x, is.numeric, NA)]
    if (length(other)) {
      stop_data("`", argument, "` has columns that are not numeric: ", enumerate(other), ". Use a formula for factors.")
    }
    plain <- !any(vapply(x, function(v) is.object(v) || !is.null(dim(v)), NA))
    rows <- if (.row_names_info(x) > 0L) row.names(x)
    x <- if (plain) structure(join_columns(x, nrow(x)), dimnames = list(rows, names(x))) else as.matrix(x)
  }
  if (!is.numeric(x) || is.factor(x) || length(dim(x)) > 2L) {
    stop_input(argument, x, "a numeric matrix or a data frame of numeric columns")
  }
  if (!is.matrix(x)) x <- matrix(x, ncol = 1L)
  if (!is.double(x)) storage.mode(x) <- "double"
  x
}

# A numeric vector with one value for each row; `what` is its name in messages.
as_row_values <- function(value, n, what) {
  if (is.matrix(value) && ncol(value) == 1L) value <- value[, 1L]
  if (!is.numeric(value) || is.factor(value) || !is.null(dim(value))) {
    stop_data(what, " must be a numeric vector, not ", describe(value), ".")
  }
  if (length(value) != n) stop_data(sprintf("%s has length %d, but there are %d rows.", what, length(value), n))
  as.double(value)
}

optional_row_values <- function(value, n, what) if (!is.null(value)) as_row_values(value, n, what)

response_words <- function(name) sprintf("The response `%s`", name)

covariate_names <- function(x, prefix) {
  names <- colnames(x)
  default <- sprintf("%s%d", prefix, seq_len(ncol(x)))
  if (is.null(names)) return(default)
  ifelse(is.na(names) | !nzchar(names), default, names)
}
