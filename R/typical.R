# Typical values and ranges of the covariates as the user supplies them (x, not ns(x, 3)): where plots hold the other
# covariates, and what new data must contain. Columns come one at a time from `column(j)`, so none is copied for long.

typical_row <- function(names, column) {
  values <- lapply(seq_along(names), function(j) typical_value(column(j)))
  structure(stats::setNames(values, names), class = "data.frame", row.names = 1L)
}

# The lower median of numbers and dates, which is an observed value and so suits even factor(v), and the most frequent
# value of anything else (the first of equals).
typical_value <- function(v) {
  if (is.matrix(v)) return(matrix(apply(v, 2L, typical_value), 1L, dimnames = list(NULL, colnames(v))))
  if (is.numeric(v) && !is.object(v)) return(lower_median(v))
  if (is.numeric(v) || inherits(v, c("Date", "POSIXct", "difftime"))) {
    return(stats::quantile(v, 0.5, na.rm = TRUE, names = FALSE, type = 1L))
  }
  values <- unique(v[!is.na(v)])
  values[which.max(tabulate(match(v, values), length(values)))]
}

# Typical values are those of a million rows evenly spread where there are more; NULL for all.
typical_rows <- function(n, most = 1e6) if (n > most) as.integer(seq(1, n, length.out = most))

# quantile(v, 0.5, na.rm = TRUE, type = 1), without its overhead.
lower_median <- function(v) {
  if (anyNA(v)) v <- v[!is.na(v)]
  # Else what the columns before have left would pile up to a quarter of ten million rows of data.
  if (length(v) >= 1e6) gc(full = FALSE)
  if (length(v) == 0L) return(v[NA_integer_])
  median <- core_lower_median(v)
  if (is.integer(v)) as.integer(median) else median
}

# A number, a date or a time; also in a matrix of one column, as from scale().
is_measured <- function(v) (is.numeric(v) || inherits(v, c("Date", "POSIXct"))) && NCOL(v) == 1L

# A matrix with the rows "min" and "max" and a column for each numeric covariate.
covariate_range <- function(names, column) {
  bounds <- lapply(seq_along(names), function(j) {
    v <- column(j)
    if (!is_measured(v) || !length(v)) return(NULL)
    bounds <- as.double(c(min(v), max(v)))
    if (all(is.finite(bounds))) return(bounds)
    v <- v[is.finite(v)]
    if (length(v)) as.double(range(v))
  })
  numeric <- lengths(bounds) > 0L
  matrix(as.double(unlist(bounds)), 2L, sum(numeric), dimnames = list(c("min", "max"), names[numeric]))
}

# The variables behind a formula's right-hand side and `offset`, one value a row, with missing values kept.
raw_frame <- function(formula, data, call, env, terms, frame) {
  home <- environment(formula)
  variables <- unique(c(all.vars(terms[[3L]]), all.vars(call$offset)))
  # A model frame of the variables themselves, without transformations, has them.
  if (is.null(attr(frame, "na.action")) && all(variables %in% names(frame))) return(unclass(frame)[variables])
  n <- if (is.data.frame(data)) nrow(data) else NROW(eval(formula[[2L]], data, home))
  varies <- vapply(variables, function(name) {
    if (is.data.frame(data) && name %in% names(data)) return(TRUE)
    value <- get0(name, if (is.environment(data)) data else home)
    !is.null(value) && is.atomic(value) && NROW(value) == n
  }, NA)
  sides <- Reduce(function(a, b) call("+", a, b), lapply(variables[varies], as.name), 1)
  raw <- stats::as.formula(call("~", sides), home)
  eval_frame(raw, data, call, env, "subset", na.action = stats::na.pass)
}
