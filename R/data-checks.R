# Checks of the data against the model, before any work: each stops with a `cosmoe_error_data` that names the culprit.

check_data <- function(data, k, router, expert, standardize, likelihood = NULL) {
  check_weights(data$w)
  rows <- if (is.null(data$w) || all(data$w > 0)) seq_along(data$y) else which(data$w > 0)
  n <- length(rows)
  if (n == 0L) stop_data("There are no rows to fit.")
  if (n == 1L) stop_data("There is a single row to fit: a regression needs more.")
  check_finite_values(data$y, response_words(data$names$y))
  check_finite_values(data$offset, "`offset`")
  check_finite_columns(data$x, data$names$x, "expert")
  check_finite_columns(data$z, data$names$z, "gate")
  if (has_plain_offset(likelihood)) {
    response <- working_response(data)
    check_response_varies(if (n < length(response)) response[rows] else response)
  } else {
    check_family_response(data, likelihood)
    check_response_varies(data$y[rows])
  }
  check_counts(n, k, router, expert, length(data$names$x), length(data$names$z), likelihood)

  linear_gate <- k > 1L && (standardize || router$name == "linear")
  linear_experts <- expert_is_linear_form(expert)
  if (linear_experts) check_columns(data$x, rows, data$names$x, "expert")
  if (linear_gate && !(linear_experts && is.null(data$z))) {
    check_columns(if (is.null(data$z)) data$x else data$z, rows, data$names$z, "gate")
  }
  invisible(n)
}

check_weights <- function(w) {
  if (is.null(w)) return(invisible())
  check_finite_values(w, "`weights`")
  if (any(w < 0)) stop_data("`weights` must not be negative: ", row_words(w < 0), ".")
  if (length(w) && all(w == 0)) stop_data("`weights` are all zero: there are no rows to fit.")
}

check_finite_values <- function(v, what) {
  if (is.null(v) || is.finite(sum(v)) || all(is.finite(v))) return(invisible())
  kind <- if (anyNA(v)) "missing" else "infinite"
  stop_data(what, " has ", kind, " values: ", row_words(if (anyNA(v)) is.na(v) else is.infinite(v)), ".")
}

check_finite_columns <- function(x, names, part) {
  j <- first_nonfinite_column(x)
  if (length(j)) check_finite_values(x[, j], sprintf("The %s covariate `%s`", part, names[j]))
}

# Column by column: the data may be large, and a column's range is finite if and only if its values are. So are these if
# their sum is.
first_nonfinite_column <- function(x) {
  if (is.null(x) || is.finite(sum(x))) return(NULL)
  for (j in seq_len(NCOL(x) * !is.null(x))) {
    if (nrow(x) && !all(is.finite(range(x[, j])))) return(j)
  }
  NULL
}

# "row 3", "rows 3, 7 and 12 more".
row_words <- function(bad) {
  rows <- which(bad)
  paste(if (length(rows) == 1L) "row" else "rows", enumerate(rows, quote = ""))
}

check_response_varies <- function(y) {
  least <- min(y)
  largest <- max(y)
  if (least == largest) stop_data("The response is constant: there is nothing to fit.")
  if (!has_squares(least, largest)) stop_data("The response is too large or too small to be squared: rescale it.")
}

# Whether sums of squares of values in these ranges, and of their differences, neither overflow nor underflow.
has_squares <- function(least, largest) least > -1e150 & largest < 1e150 & largest - least > 1e-150

check_counts <- function(n, k, router, expert, d, d_gate, likelihood = NULL) {
  if (k > n) stop_data(sprintf("There are more experts (k = %d) than rows (%d).", k, n))
  # A regression function that is a constant mixture cannot be told from one expert, a distribution can.
  if (k > 1L && d_gate == 0L && (is.null(likelihood) || router$name != "linear")) {
    stop_data(sprintf(
      "A gate that chooses among k = %d experts needs at least one covariate%s.", k,
      if (!is.null(likelihood)) "; for constant weights give router = \"linear\"" else ""
    ))
  }
  parameters <- k * expert_n_par(expert, d) + router_df(router, k, d_gate) + dispersion_count(likelihood, k)
  if (parameters > n) stop_data(sprintf("The model has more parameters (%d) than there are rows (%d).", parameters, n))
}

# Columns that are constant, or linear combinations of others, leave slopes undefined.
check_columns <- function(x, rows, names, part) {
  ends <- column_ends(x, rows)
  check_spans(ends$span, names, part, length(rows) < nrow(x))
  found <- find_collinear(x, rows, ends)
  if (!is.null(found)) stop_collinear(names, part, found)
}

# `span`: least and largest values of the columns, in two rows; `weighted`: of rows with positive weight.
check_spans <- function(span, names, part, weighted) {
  constant <- span[1L, ] == span[2L, ]
  if (any(constant)) {
    stop_data("Constant ", part, " covariate: ", enumerate(names[constant]), ". The intercept already stands for it",
              if (weighted) " (only rows with a positive weight count)", ".")
  }
  extreme <- !has_squares(span[1L, ], span[2L, ])
  if (any(extreme)) stop_data("Too large or too small to be squared: ", enumerate(names[extreme]), ". Rescale it.")
}

stop_collinear <- function(names, part, found) {
  stop_data(
    "Collinear ", part, " covariates: `", names[found$column], "` is a linear combination of ",
    enumerate(names[found$of]), " and the intercept."
  )
}
