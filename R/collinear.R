# Exact linear dependence among the columns of a large matrix and a column of ones. A QR decomposition of some rows
# decides: full rank on some rows is full rank on all. A dependence found there is verified on all rows; where it fails,
# the row that contradicts it most joins the sample.

# Returns NULL, or list(column, of): a dependent column and the columns it depends on. No column may be constant.
find_collinear <- function(x, rows, ends = column_ends(x, rows)) {
  d <- ncol(x)
  if (d < 2L) return(NULL)
  span <- ends$span
  center <- span[1L, ] / 2 + span[2L, ] / 2
  half <- span[2L, ] / 2 - span[1L, ] / 2
  scaled <- function(at) {
    all <- function(v) rep(v, each = length(at))
    cbind(1, (x[at, , drop = FALSE] - all(center)) / all(half))
  }
  sample <- sample_rows(rows, d, ends$at)
  for (attempt in seq_len(d + 1L)) {
    decomposition <- qr(scaled(sample), tol = 1e-7)
    rank <- decomposition$rank
    if (rank == d + 1L) return(NULL)
    kept <- decomposition$pivot[seq_len(rank)]
    column <- decomposition$pivot[rank + 1L]
    upper <- qr.R(decomposition)
    slope <- backsolve(upper[seq_len(rank), seq_len(rank), drop = FALSE], upper[seq_len(rank), rank + 1L])
    worst <- largest_deviation(rows, function(at) {
      block <- scaled(at)
      abs(block[, column] - block[, kept, drop = FALSE] %*% slope)
    })
    if (worst$size < 1e-6) {
      of <- kept[abs(slope) > 1e-6]
      return(list(column = column - 1L, of = sort(of[of > 1L]) - 1L))
    }
    sample <- unique(c(sample, worst$row))
  }
  NULL
}

# Least and largest values of the columns, in two rows (`span`), and the rows of the data in which they are (`at`).
column_ends <- function(x, rows) {
  if (length(rows) == nrow(x)) {
    each <- summarise_columns(x)
    return(list(
      span = rbind(each[, "least"], each[, "largest"]), at = as.integer(each[, c("least_row", "largest_row")])
    ))
  }
  at <- vapply(seq_len(ncol(x)), function(j) {
    v <- x[rows, j]
    rows[c(which.min(v), which.max(v))]
  }, integer(2))
  list(span = matrix(x[cbind(c(at), c(col(at)))], 2L), at = c(at))
}

# Rows evenly spread, and the rows with the extremes of each column, which rare levels of factors need.
sample_rows <- function(rows, columns, extremes) {
  size <- min(length(rows), max(100L, 5L * columns))
  spread <- rows[round(seq(1, length(rows), length.out = size))]
  if (size == length(rows)) spread else unique(c(spread, extremes))
}

# The row with the largest of the values that `deviation(rows)` gives, in blocks.
largest_deviation <- function(rows, deviation, block = 1e5) {
  best <- list(row = NA_integer_, size = -Inf)
  for (start in seq(1, length(rows), by = block)) {
    at <- rows[start:min(start + block - 1, length(rows))]
    size <- deviation(at)
    if (max(size) > best$size) best <- list(row = at[which.max(size)], size = max(size))
  }
  best
}
