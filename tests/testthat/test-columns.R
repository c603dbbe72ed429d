# What the core says of a column of the data, and the weighted regressions of starts.

test_that("the lower median is an observed value, in whatever order the rows come", {
  middle <- function(v) sort(v)[(length(v) + 1) %/% 2]
  expect_identical(core_lower_median(c(3, 1, 2)), 2)
  expect_identical(core_lower_median(c(4, 3, 1, 2)), 2)
  for (seed in 1:5) {
    set.seed(seed)
    for (n in c(1:9, 100, 4095:4097, 10007)) {
      v <- rnorm(n)
      # The rows by which a long column is bracketed are unlike the others.
      misled <- replace(v, (seq_len(1024) - 1) * max(1, n %/% 1024) + 1, 1e3)[seq_len(n)]
      columns <- list(
        v, sort(v), sort(v, decreasing = TRUE), round(v), rep(7, n), misled, -misled, rep(-Inf, n),
        c(rep(Inf, n %/% 2), v)[seq_len(n)]
      )
      for (column in columns) expect_identical(core_lower_median(column), middle(column))
    }
  }
  expect_identical(lower_median(c(5L, NA, 1L, 2L, 9L)), 2L)
  expect_identical(lower_median(c(NaN, 2.5)), 2.5)
  expect_identical(lower_median(NA_real_), NA_real_)
  expect_identical(lower_median(integer()), NA_integer_)
})

test_that("columns are summarised as by R, with weights and at any size", {
  fields <- c("center", "spread", "least", "largest", "least_row", "largest_row")
  by_hand <- function(v, w) {
    center <- sum(w * v) / sum(w)
    top <- max(abs(v - center), 1e-300)
    c(center, top * sqrt(sum(w * ((v - center) / top)^2) / sum(w)), min(v), max(v), which.min(v), which.max(v))
  }
  for (seed in 1:10) {
    set.seed(seed)
    for (n in c(1, 2, 3, 5, 64, 1001)) {
      x <- cbind(rnorm(n), 1e6 + runif(n), round(rnorm(n)), 1e200 * rnorm(n), 1e-200 * rnorm(n), 4)
      w <- rexp(n)
      plain <- summarise_columns(x)
      weighted <- summarise_columns(x, w)
      expect_identical(colnames(plain), fields)
      for (j in seq_len(ncol(x))) {
        expect_equal(unname(plain[j, ]), by_hand(x[, j], rep(1, n)), tolerance = 1e-12)
        expect_equal(unname(weighted[j, ]), by_hand(x[, j], w), tolerance = 1e-12)
      }
      expect_identical(summarise_columns(x[, 1])[1, ], plain[1, ])
    }
  }
  expect_true(all(is.na(summarise_columns(matrix(0, 0, 2)))))
  # Whole numbers are taken as they are.
  expect_identical(summarise_columns(matrix(1:6, 3)), summarise_columns(matrix(as.double(1:6), 3)))
})

test_that("the regression of starts is least squares with a penalty", {
  # The penalty as rows of its own, by another decomposition.
  by_rows <- function(x, y, w) {
    d <- ncol(x)
    penalty <- 1e-3 * sum(w * x^2) / d * c(rep(1, d - 1), 1e-6)
    center <- sum(w * y) / sum(w)
    long <- rbind(sqrt(w) * x, diag(sqrt(penalty), d))
    qr.coef(qr(long), c(sqrt(w) * (y - center), numeric(d))) + c(numeric(d - 1), center)
  }
  for (seed in 1:10) {
    set.seed(seed)
    for (d in 0:6) {
      for (n in c(1, 3, 50)) {
        x <- cbind(matrix(rnorm(n * d), n, d), 1)
        y <- 100 + rnorm(n)
        w <- runif(n)
        expect_equal(ridge(x, y, w), by_rows(x, y, w), tolerance = 1e-6)
      }
    }
  }
  # Nothing to fit.
  expect_identical(ridge(cbind(1:3, 1), c(1, 5, 2), numeric(3)), c(0, 0))
  expect_identical(ridge(matrix(0, 0, 2), numeric(), numeric()), c(0, 0))
})
