# Conditions. Every error of the package has the classes cosmoe_error_<what>, cosmoe_error, error, condition, so that a
# caller can catch one kind, or all of ours, and read the facts from fields instead of parsing the message.

stop_cosmoe <- function(class, message, ...) {
  stop(structure(
    class = c(paste0("cosmoe_error_", class), "cosmoe_error", "error", "condition"),
    list(message = message, call = NULL, ...)
  ))
}

# A bad argument: "`k` must be a whole number of at least 1, not -2." Wrap `got` in I() to give its description instead.
stop_input <- function(argument, got, expected, class = "input") {
  message <- sprintf("`%s` must be %s, not %s.", argument, expected, describe(got))
  stop_cosmoe(class, message, argument = argument, got = got, expected = expected)
}

# Data that cannot be fitted, whatever the arguments.
stop_data <- function(...) stop_cosmoe("data", paste0(...))

# New data that do not fit the model.
stop_newdata <- function(...) stop_cosmoe("newdata", paste0(...))

stop_interrupt <- function(message = "The fit was interrupted.") stop_cosmoe("interrupt", message)

stop_core <- function(...) stop_cosmoe("core", paste0(...))

# Conditions of the core as those of this package. Any other error inside it comes from the user's own functions.
core_call <- function(call) {
  tryCatch(call, error = function(e) {
    if (inherits(e, "cosmoe::Interrupted")) stop_interrupt("Interrupted.")
    # Of a source, which the core asks for sums.
    if (inherits(e, "cosmoe_error")) stop(e)
    if (inherits(e, "C++Error")) stop_core(conditionMessage(e))
    stop_cosmoe("expert", paste("The custom expert failed:", conditionMessage(e)), parent = e)
  })
}

# What least squares does not have.
is_em <- function(fit) identical(fit$method, "em")

check_likelihood <- function(fit, what) {
  if (!is_em(fit)) {
    stop_cosmoe(
      "input", sprintf("Only for fits by method = \"em\": %s.", what),
      argument = "object", got = "ls", expected = "em"
    )
  }
}

warn_convergence <- function(...) {
  warning(structure(
    class = c("cosmoe_warning_convergence", "cosmoe_warning", "warning", "condition"),
    list(message = paste0(...), call = NULL)
  ))
}

# Words for any value, short enough for one line of an error message.
describe <- function(x) {
  if (inherits(x, "AsIs") && is.character(x)) return(paste(x))
  if (is.null(x)) return("NULL")
  if (is.data.frame(x)) return(sprintf("a data frame with %d rows and %d columns", nrow(x), ncol(x)))
  if (is.function(x)) return("a function")
  if (is.object(x)) return(sprintf("an object of class `%s`", class(x)[1L]))
  if (is.list(x)) return(sprintf("a list of length %d", length(x)))
  if (!is.atomic(x)) return(sprintf("an object of type %s", typeof(x)))
  describe_atomic(x)
}

describe_atomic <- function(x) {
  mode <- if (is.numeric(x)) "numeric" else mode(x)
  if (!is.null(dim(x))) {
    return(paste("a", paste(dim(x), collapse = " x "), mode, if (is.matrix(x)) "matrix" else "array"))
  }
  if (length(x) == 0L) return(sprintf("an empty %s vector", mode))
  if (length(x) > 1L) return(sprintf("a %s vector of length %d", mode, length(x)))
  if (is.character(x) && !is.na(x)) return(encodeString(x, width = NA, quote = "\""))
  format(x)
}

# "`a`", "`a` and `b`", "`a`, `b` and 3 more".
enumerate <- function(names, quote = "`", max = 5L) {
  if (length(names) > max) {
    more <- sprintf("%d more", length(names) - max)
    names <- names[seq_len(max)]
  } else {
    more <- NULL
  }
  items <- c(paste0(quote, names, quote), more)
  if (length(items) == 1L) return(items)
  paste(paste(items[-length(items)], collapse = ", "), "and", items[length(items)])
}
