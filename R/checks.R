# Checks of one argument each. They return the value in the type the package works with, or stop with `stop_input()`.
# `argument` is the name shown to the user: by default, the expression that was passed.

check_number <- function(x, lower = -Inf, upper = Inf, strict = FALSE, finite = TRUE,
                         argument = deparse1(substitute(x))) {
  valid <- is.numeric(x) && !is.object(x) && length(x) == 1L && !is.na(x) &&
    (is.finite(x) || !finite) && x >= lower && x <= upper && !(strict && x == lower)
  if (!valid) stop_input(argument, x, number_words(lower, upper, strict, finite))
  as.double(x)
}

number_words <- function(lower, upper, strict, finite) {
  kind <- if (finite) "a finite number" else "a number"
  if (strict && lower == 0 && upper == Inf) {
    return(if (finite) "a positive finite number" else "a positive number")
  }
  bounds <- c(
    if (lower > -Inf) paste(if (strict) "above" else "of at least", format(lower)),
    if (upper < Inf) paste("at most", format(upper))
  )
  paste(c(kind, paste(bounds, collapse = " and ")), collapse = " ")
}

check_count <- function(x, lower = 1L, upper = Inf, argument = deparse1(substitute(x))) {
  valid <- is.numeric(x) && !is.object(x) && length(x) == 1L && is.finite(x) && x == round(x) &&
    x >= lower && x <= min(upper, .Machine$integer.max)
  if (!valid) {
    range <- if (is.finite(upper)) sprintf("from %d to %d", lower, upper) else sprintf("of at least %d", lower)
    stop_input(argument, x, paste("a whole number", range))
  }
  as.integer(x)
}

# Significant digits of what is printed.
check_digits <- function(digits) check_count(digits, upper = 22L)

check_flag <- function(x, argument = deparse1(substitute(x))) {
  if (!is.logical(x) || length(x) != 1L || is.na(x)) stop_input(argument, x, "TRUE or FALSE")
  as.logical(x)
}

# One of `choices`. The whole vector of choices, the usual default of an R function, means the first.
check_choice <- function(x, choices, argument = deparse1(substitute(x))) {
  if (identical(x, choices)) return(choices[1L])
  if (!is.character(x) || length(x) != 1L || !x %in% choices) {
    stop_input(argument, x, choice_words(choices))
  }
  as.character(x)
}

choice_words <- function(choices) {
  if (length(choices) == 1L) return(sprintf("\"%s\"", choices))
  paste("one of", enumerate(choices, quote = "\"", max = Inf))
}

check_function <- function(x, argument = deparse1(substitute(x))) {
  if (!is.function(x)) stop_input(argument, x, "a function")
  x
}

# A finite numeric matrix of the given size; a vector of the right length is taken as a matrix of one row or column.
check_matrix <- function(x, rows, columns, argument = deparse1(substitute(x))) {
  size <- sprintf("a finite numeric matrix of %d x %d", rows, columns)
  if (!is.numeric(x)) stop_input(argument, x, size)
  if (is.null(dim(x)) && length(x) == rows * columns && min(rows, columns) <= 1L) x <- matrix(x, rows, columns)
  if (!identical(dim(x), c(as.integer(rows), as.integer(columns)))) stop_input(argument, x, size)
  if (!all(is.finite(x))) stop_input(argument, I("one with missing or infinite entries"), size)
  matrix(as.double(x), rows, columns)
}

check_vector <- function(x, length, argument = deparse1(substitute(x))) {
  size <- sprintf("a finite numeric vector of length %d", length)
  if (!is.numeric(x) || length(x) != length) stop_input(argument, x, size)
  if (!all(is.finite(x))) stop_input(argument, I("one with missing or infinite entries"), size)
  as.double(x)
}

# Stops when `...` holds anything: a misspelt argument must not be ignored.
check_dots_empty <- function(...) {
  if (...length() == 0L) return(invisible())
  given <- names(match.call(expand.dots = FALSE)$...)
  if (is.null(given)) given <- rep("", ...length())
  words <- enumerate(ifelse(nzchar(given), paste0("`", given, "`"), "one without a name"), quote = "")
  plural <- if (length(given) > 1L) "s" else ""
  stop_cosmoe("input", sprintf("Unused argument%s: %s.", plural, words), argument = given, expected = "nothing")
}
