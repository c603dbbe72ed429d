# New data for a fitted model, in the shape that prediction works on: a list with
#   x, z       covariates of experts and gate of the complete rows (double; z is NULL when the gate uses x)
#   offset     NULL, or the offset of the same rows
#   n, rows    number of rows of the result, and which of them x and z hold; the others lack values: see fill_rows()
#   na.action  what `na.action` dropped, for naresid()
# Everything that does not fit the model stops with a `cosmoe_error_newdata`.
prepare_newdata <- function(object, newdata, na.action = stats::na.pass) {
  if (is.null(na.action)) na.action <- stats::na.pass
  na.action <- match.fun(na.action)
  prepared <- if (is.null(object$terms)) {
    newdata_from_matrix(object, newdata, na.action)
  } else {
    newdata_from_formula(object, newdata, na.action)
  }
  check_newdata_finite(prepared$x, object$names$x)
  check_newdata_finite(prepared$z, object$names$z)
  prepared
}

# Results for the rows of `prepared$x`, a vector or a matrix with these rows, put into all rows: missing elsewhere.
fill_rows <- function(value, prepared) {
  if (length(prepared$rows) < prepared$n) {
    at <- match(seq_len(prepared$n), prepared$rows)
    value <- if (is.matrix(value)) value[at, , drop = FALSE] else value[at]
  }
  stats::napredict(prepared$na.action, value)
}

check_newdata_finite <- function(x, names) {
  j <- first_nonfinite_column(x)
  if (length(j)) stop_newdata("`newdata` has infinite values in `", names[j], "`: ", row_words(!is.finite(x[, j])), ".")
}

# ---- formula ---------------------------------------------------------------------------------------------------------

newdata_from_formula <- function(object, newdata, na.action) {
  newdata <- without_int64(as_newdata_frame(newdata, object$typical))
  terms <- stats::delete.response(object$terms$full)
  frame <- newdata_frame(terms, newdata, na.action, object$typical)
  check_newdata_types(frame, attr(terms, "dataClasses"))
  frame <- align_levels(frame, object$xlevels)
  dropped <- attr(frame, "na.action")
  rows <- if (ncol(frame)) which(stats::complete.cases(frame)) else seq_len(nrow(frame))
  n <- nrow(frame)
  offset <- newdata_offset(object, newdata, frame, dropped)[rows]
  if (length(rows) < n) frame <- frame[rows, , drop = FALSE]
  design <- function(part) design_matrix(object$terms[[part]], frame, object$contrasts)$design
  list(
    x = design("expert"),
    z = if (!object$names$shared) design("gate"),
    offset = if (length(offset)) offset,
    n = n, rows = rows, na.action = dropped
  )
}

# All covariates must be there: a variable of the same name in the workspace is not what the user means. A column of
# nothing but NA takes the type that the model expects.
as_newdata_frame <- function(newdata, typical) {
  if (is.matrix(newdata) || (is.list(newdata) && !is.data.frame(newdata))) newdata <- as.data.frame(newdata)
  if (!is.data.frame(newdata)) stop_input("newdata", newdata, "a data frame", class = "newdata")
  absent <- setdiff(names(typical), names(newdata))
  if (length(absent)) stop_newdata("`newdata` lacks ", enumerate(absent, max = Inf), ".")
  for (name in names(typical)) {
    v <- newdata[[name]]
    if (is.logical(v) && is.null(dim(typical[[name]])) && all(is.na(v))) {
      newdata[[name]] <- typical[[name]][rep(NA_integer_, length(v))]
    }
  }
  newdata
}

newdata_frame <- function(terms, newdata, na.action, typical) {
  frame <- tryCatch(
    stats::model.frame(terms, newdata, na.action = na.action),
    error = function(e) stop_newdata(newdata_problem(newdata, typical, conditionMessage(e)))
  )
  if (nrow(frame) + length(attr(frame, "na.action")) != nrow(newdata)) {
    stop_newdata(sprintf("The terms give %d rows for the %d rows of `newdata`.", nrow(frame), nrow(newdata)))
  }
  frame
}

# A covariate of the wrong type is the likeliest reason why a term cannot be evaluated.
newdata_problem <- function(newdata, typical, message) {
  wrong <- Filter(function(name) is.numeric(typical[[name]]) && !is.numeric(newdata[[name]]), names(typical))
  if (length(wrong) == 0L) return(paste0("The terms cannot be evaluated in `newdata`: ", message, "."))
  type_problem(wrong[1L], "numeric", stats::.MFclass(newdata[[wrong[1L]]]))
}

type_problem <- function(name, old, new) sprintf("`%s` was %s in the fit, but is %s in `newdata`.", name, old, new)

check_newdata_types <- function(frame, fitted) {
  class_of <- function(v) sub("^(ordered|character)$", "factor", v)
  new <- vapply(frame, stats::.MFclass, "")
  for (name in intersect(names(new), names(fitted))) {
    if (class_of(new[[name]]) != class_of(fitted[[name]])) {
      stop_newdata(type_problem(name, fitted[[name]], new[[name]]))
    }
  }
}

# Factors and strings get the levels of the fit, in their order.
align_levels <- function(frame, levels) {
  for (name in intersect(names(levels), names(frame))) {
    value <- as.character(frame[[name]])
    unseen <- setdiff(value[!is.na(value)], levels[[name]])
    if (length(unseen)) {
      stop_newdata("`", name, "` has levels in `newdata` that the fit has not seen: ", enumerate(unseen, "\""), ".")
    }
    frame[[name]] <- factor(value, levels = levels[[name]], exclude = NULL)
  }
  frame
}

# The sum of offset() terms and of the argument `offset`, which is evaluated again in the new data, as by lm().
newdata_offset <- function(object, newdata, frame, dropped) {
  inside <- stats::model.offset(frame)
  expression <- object$call$offset
  if (is.null(expression)) return(inside)
  outside <- tryCatch(
    as_row_values(eval(expression, newdata, environment(object$formula)), nrow(newdata), "`offset`"),
    error = function(e) stop_newdata("The offset of the fit cannot be evaluated in `newdata`: ", conditionMessage(e))
  )
  if (length(dropped)) outside <- outside[-dropped]
  if (is.null(inside)) outside else inside + outside
}

# ---- matrices --------------------------------------------------------------------------------------------------------

newdata_from_matrix <- function(object, newdata, na.action) {
  parts <- as_newdata_error(split_newdata(object, newdata))
  n <- nrow(parts$x)
  # `na.action` sees a stand-in for the rows, so that no matrix is copied when there is nothing to drop.
  stand_in <- data.frame(position = seq_len(n), value = ifelse(complete_rows(parts), 0, NA_real_))
  stand_in <- as_newdata_error(na.action(stand_in))
  rows <- which(!is.na(stand_in$value))
  kept <- stand_in$position[rows]
  take <- function(part) if (length(kept) == n) part else part[kept, , drop = FALSE]
  list(
    x = take(parts$x),
    z = if (!is.null(parts$z)) take(parts$z),
    offset = if (!is.null(parts$offset)) parts$offset[kept],
    n = nrow(stand_in), rows = rows, na.action = attr(stand_in, "na.action")
  )
}

as_newdata_error <- function(value) tryCatch(value, error = function(e) stop_newdata(conditionMessage(e)))

complete_rows <- function(parts) {
  complete <- rep(TRUE, nrow(parts$x))
  for (part in parts[c("x", "z")]) if (anyNA(part)) complete <- complete & rowSums(is.na(part)) == 0
  complete
}

# What a fit from matrices needs of list(x = , z = , offset = ), and has to be given without anything else.
matrix_parts <- function(fit) c("x", if (!fit$names$shared) "z", if (!is.null(fit$offset)) "offset")

# A matrix or data frame with all columns, or list(x = , z = , offset = ).
split_newdata <- function(object, newdata) {
  separate <- !object$names$shared
  if (!is.list(newdata) || is.data.frame(newdata)) {
    newdata <- if (separate) list(x = newdata, z = newdata) else list(x = newdata)
  }
  wanted <- matrix_parts(object)
  absent <- setdiff(wanted, names(newdata))
  form <- paste(wanted, "= ", collapse = ", ")
  if (length(absent)) {
    stop_newdata("The fit needs `newdata = list(", form, ")`; it lacks ", enumerate(absent), ".")
  }
  surplus <- setdiff(names(Filter(Negate(is.null), newdata)), wanted)
  if (length(surplus)) {
    stop_newdata("The fit needs `newdata = list(", form, ")`; it has no use for ", enumerate(surplus), ".")
  }
  x <- select_columns(newdata$x, object$names$x, "x")
  z <- if (separate) select_columns(newdata$z, object$names$z, "z")
  if (separate && nrow(z) != nrow(x)) stop_newdata(sprintf("`z` has %d rows, but `x` has %d.", nrow(z), nrow(x)))
  list(x = x, z = z, offset = if ("offset" %in% wanted) as_row_values(newdata$offset, nrow(x), "`offset`"))
}

# The columns of the fit, by name where both have names, else by position.
select_columns <- function(given, names, part) {
  given <- as_covariates(given, part)
  default <- identical(names, covariate_names(matrix(0, 0L, length(names)), part))
  if (is.null(colnames(given)) || (default && !any(names %in% colnames(given)))) {
    if (ncol(given) != length(names)) {
      stop_newdata(sprintf("`%s` has %d columns in `newdata`, but %d in the fit.", part, ncol(given), length(names)))
    }
    return(given)
  }
  absent <- setdiff(names, colnames(given))
  if (length(absent)) stop_newdata("`newdata` lacks the columns ", enumerate(absent, max = Inf), " of `", part, "`.")
  if (identical(colnames(given), names)) given else given[, names, drop = FALSE]
}
