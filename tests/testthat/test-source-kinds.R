# Where rows may come from, and what happens when they do not come as they should.

kinds_data <- function() stats::na.omit(stream_data(600)[c("x1", "x2", "y", "word")])

kinds_fit <- function(rows, ...) {
  start <- list(beta = rbind(c(-3, 3)), b = c(0, 0), experts = rbind(c(0, 1), c(-0.5, 0), 0, 0, c(5, 1)))
  fit_cosine_moe(y ~ x1 + x2 + word | x1, data = rows, router = "linear", start = start, ...)
}

expect_kind <- function(rows, chunks, data = kinds_data()) {
  fit <- kinds_fit(rows)
  testthat::expect_equal(predict(fit, data), predict(kinds_fit(data), data), tolerance = 1e-10)
  testthat::expect_identical(fit$source$chunks, chunks)
}

test_that("a function and a source made of it are the same", {
  data <- kinds_data()
  expect_kind(chunks_of(data, 250), 3, data)
  expect_identical(
    without_origin(kinds_fit(chunks_of(data, 250))), without_origin(kinds_fit(source_function(chunks_of(data, 250))))
  )
})

test_that("SQLite", {
  skip_if_not_installed("RSQLite")
  data <- kinds_data()
  connection <- DBI::dbConnect(RSQLite::SQLite(), ":memory:")
  on.exit(DBI::dbDisconnect(connection))
  DBI::dbWriteTable(connection, "rows", data)
  query <- source_query(connection, "SELECT * FROM rows", chunk_rows = 250)
  expect_kind(query, 3, data)
  expect_output(print(query), "Source of rows: a query")
  # The result is cleared after an error too, in the query or in a later chunk: the next one gives no warning.
  data$y[598 - 3] <- -Inf
  DBI::dbWriteTable(connection, "bad", data)
  expect_error(
    kinds_fit(source_query(connection, "SELECT * FROM bad", chunk_rows = 250)), "In chunk 3: .* infinite",
    class = "cosmoe_error_data"
  )
  expect_error(kinds_fit(source_query(connection, "SELECT * FROM none")), "none", class = "cosmoe_error_source")
  expect_silent(DBI::dbGetQuery(connection, "SELECT y FROM rows LIMIT 1"))
  # A function that opens a connection closes it again.
  file <- tempfile()
  on.exit(unlink(file), add = TRUE)
  write <- DBI::dbConnect(RSQLite::SQLite(), file)
  DBI::dbWriteTable(write, "rows", kinds_data())
  DBI::dbDisconnect(write)
  opened <- list()
  open <- function() {
    opened[[length(opened) + 1L]] <<- DBI::dbConnect(RSQLite::SQLite(), file)
    opened[[length(opened)]]
  }
  expect_kind(source_query(open, "SELECT * FROM rows"), 1)
  expect_false(any(vapply(opened, DBI::dbIsValid, NA)))
  for (bad in list(1, NULL, "rows.db")) expect_error(source_query(bad, "SELECT 1"), class = "cosmoe_error_input")
  for (bad in list(1, NA_character_, c("a", "b"))) {
    expect_error(source_query(connection, bad), class = "cosmoe_error_input")
  }
  expect_error(source_query(connection, "SELECT 1", chunk_rows = 0), class = "cosmoe_error_input")
})

test_that("DuckDB", {
  skip_if_not_installed("duckdb")
  connection <- DBI::dbConnect(duckdb::duckdb())
  on.exit(DBI::dbDisconnect(connection, shutdown = TRUE))
  DBI::dbWriteTable(connection, "rows", kinds_data())
  expect_kind(source_query(connection, "SELECT * FROM rows", chunk_rows = 250), 3)
})

test_that("Arrow", {
  skip_if_not_installed("arrow")
  data <- kinds_data()
  table <- arrow::arrow_table(data)
  expect_kind(table, 1, data)
  expect_error(
    kinds_fit(arrow::as_record_batch_reader(table)), "read only once", class = "cosmoe_error_input"
  )
  skip_if_not(arrow::arrow_with_dataset())
  expect_kind(arrow::InMemoryDataset$create(table), 1, data)
})

test_that("Parquet files by nanoparquet", {
  skip_if_not_installed("nanoparquet")
  data <- kinds_data()
  folder <- tempfile()
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  parts <- split(data, rep(1:3, length.out = nrow(data)))
  files <- file.path(folder, paste0(1:3, ".parquet"))
  for (i in 1:3) nanoparquet::write_parquet(parts[[i]], files[i])
  expect_kind(source_shards(files, read = nanoparquet::read_parquet), 3, data)
})

test_that("64-bit integers are numbers", {
  skip_if_not_installed("bit64")
  data <- kinds_data()
  data$x2 <- round(data$x2)
  long <- data
  long$x2 <- bit64::as.integer64(long$x2)
  expect_equal(predict(kinds_fit(chunks_of(long, 400)), data), predict(kinds_fit(data), data), tolerance = 1e-10)
})

test_that("shards may be data frames, functions, files and sources", {
  data <- kinds_data()
  parts <- split(data, rep(1:5, each = 120)[seq_len(nrow(data))])
  file <- tempfile()
  saveRDS(parts[[4]], file)
  on.exit(unlink(file))
  shards <- list(
    parts[[1]], source_function(chunks_of(parts[[2]], 50)), function() parts[[3]], file,
    function() chunks_of(parts[[5]], 100)
  )
  expect_kind(source_shards(shards, read = readRDS), 8, data)
  for (bad in list(NULL, list(), data, 1, source_shards(parts))) {
    expect_error(source_shards(bad), class = "cosmoe_error_input")
  }
  expect_error(source_shards("a.rds"), "`read`", class = "cosmoe_error_input")
  expect_error(source_shards(list(1)), "shards[[1]]", fixed = TRUE, class = "cosmoe_error_input")
  expect_error(source_shards(list(source_shards(parts))), class = "cosmoe_error_input")
  expect_error(source_shards(parts, keep = NA), class = "cosmoe_error_input")
  expect_error(kinds_fit(source_shards(list(parts[[1]], function() 3))), class = "cosmoe_error_source")
})

# ---- what a source must not do ---------------------------------------------------------------------------------------

test_that("rows that differ from reading to reading are an error", {
  data <- kinds_data()
  readings <- 0
  good <- chunks_of(data, 250)
  expect_source_error <- function(source, words) {
    expect_error(kinds_fit(source), words, class = "cosmoe_error_source")
  }
  # Never goes back.
  first <- TRUE
  once <- function(reset) {
    if (reset && !first) return(NULL)
    first <<- FALSE
    good(reset)
  }
  expect_source_error(once, "none when read again")
  # One row less from the fourth reading on.
  less <- function(reset) {
    if (reset) readings <<- readings + 1
    chunk <- good(reset)
    if (readings < 4 || is.null(chunk)) chunk else chunk[-1L, ]
  }
  expect_source_error(less, "598 rows at first, but 595")
  # Another row without missing values.
  readings <- 0
  gap <- function(reset) {
    if (reset) readings <<- readings + 1
    chunk <- good(reset)
    if (readings >= 5 && !is.null(chunk)) chunk$y[1] <- NA
    chunk
  }
  expect_source_error(gap, "for the fit")
})

test_that("a failure during the fit leaves the parameters that it reached", {
  data <- kinds_data()
  readings <- 0
  good <- chunks_of(data, 250)
  failing <- function(reset) {
    if (reset) readings <<- readings + 1
    if (readings > 7 && !reset) stop("disk on fire")
    good(reset)
  }
  found <- tryCatch(kinds_fit(failing), error = function(e) e)
  expect_s3_class(found, "cosmoe_error_source")
  expect_named(found$start, c("beta", "b", "experts"))
  again <- fit_cosine_moe(y ~ x1 + x2 + word | x1, good, router = "linear", start = found$start)
  whole <- kinds_fit(good)
  expect_equal(again$sse, whole$sse, tolerance = 1e-9)
  expect_lt(again$convergence$passes, whole$convergence$passes)
})

test_that("chunks that cannot be used name their number", {
  data <- kinds_data()
  spoilt <- function(spoil, at = 2) {
    good <- chunks_of(data, 250)
    count <- 0
    function(reset) {
      count <<- if (reset) 0 else count + 1
      chunk <- good(reset)
      if (count == at) spoil(chunk) else chunk
    }
  }
  expect_spoilt <- function(spoil, words, class = "cosmoe_error_source") {
    expect_error(kinds_fit(spoilt(spoil)), words, class = class)
  }
  expect_spoilt(function(chunk) stop("disk on fire"), "Chunk 2 cannot be read: disk on fire")
  expect_spoilt(function(chunk) chunk[c("x1", "y")], "Chunk 2 lacks `x2` and `word`")
  expect_spoilt(
    function(chunk) transform(chunk, x2 = as.character(x2)),
    "`x2` was numeric in the first chunk, but is a factor or strings in chunk 2"
  )
  expect_spoilt(
    function(chunk) transform(chunk, word = 1),
    "`word` was a factor or strings in the first chunk, but is numeric in chunk 2"
  )
  expect_spoilt(function(chunk) as.matrix(chunk), "Chunk 2 is a 250 x 4 character matrix")
  expect_spoilt(function(chunk) transform(chunk, x1 = Inf), "In chunk 2: .* infinite", "cosmoe_error_data")
  expect_error(kinds_fit(function(reset) stop("no")), "cannot be opened: no", class = "cosmoe_error_source")
  expect_error(
    kinds_fit(source_shards(list(data, spoilt(function(chunk) stop("no")) |> source_function()))),
    "Chunk 2 of shard 2", class = "cosmoe_error_source"
  )
  # A level that was not there at first.
  readings <- 0
  good <- chunks_of(data, 300)
  late <- function(reset) {
    if (reset) readings <<- readings + 1
    chunk <- good(reset)
    if (readings > 4 && !is.null(chunk)) chunk$word[2] <- "new"
    chunk
  }
  expect_error(kinds_fit(late), "new level", class = "cosmoe_error_data")
})

test_that("data that cannot be fitted are refused as in memory", {
  data <- stream_data(400)
  refused <- function(formula, change, words, class = "cosmoe_error_data", ...) {
    expect_error(
      fit_cosine_moe(formula, chunks_of(change(data), 150), control = stream_control(), ...), words, class = class
    )
  }
  same <- function(data) data
  refused(y ~ x1, function(data) data[0L, ], "no rows")
  refused(y ~ x1, function(data) data[1L, ], "single row")
  refused(y ~ x1, function(data) transform(data, y = NA_real_), "no rows")
  refused(y ~ x1, function(data) transform(data, y = 1), "constant")
  refused(y ~ x1 + x2, function(data) transform(data, x2 = 3), "Constant expert covariate: `x2`")
  refused(y ~ x1 + x2 + x3, function(data) transform(data, x3 = x1 - 2 * x2), "`x3` is a linear .* of `x1` and `x2`")
  refused(y ~ x1 | x2 + x3, function(data) transform(data, x3 = 1e6 + x2), "Collinear gate covariates: `x3`")
  refused(y ~ x1 + I(x2), same, "missing", na.action = na.fail)
  refused(y ~ x1 + x2, same, "missing", na.action = "na.fail")
  for (weight in c(-1, 0)) {
    source <- chunks_of(transform(data, w = weight), 150)
    expect_error(fit_cosine_moe(y ~ x1, source, weights = w), "negative|all zero", class = "cosmoe_error_data")
  }
  refused(y ~ x1, function(data) data[1:5, ], "more experts", k = 6)
  refused(count ~ x1, function(data) transform(data, count = count + 0.5), "counts", method = "em", family = "poisson")
  refused(y ~ x1 + nowhere, same, "model frame")
  refused(y ~ x1 - 1, same, "intercept", "cosmoe_error_input")
  refused(~ x1, same, "formula", "cosmoe_error_input")
  refused(y ~ x1, same, "`k`", "cosmoe_error_input", k = 0)
  # Nearly collinear columns are none.
  near <- transform(stream_data(400), x3 = x1 + 1e-4 * sin(seq_len(400)))
  expect_s3_class(suppressWarnings(
    fit_cosine_moe(y ~ x1 + x3, chunks_of(near, 150), k = 1, control = stream_control())
  ), "cosine_moe")
})

test_that("terms that need other rows are refused, others are not", {
  data <- stats::na.omit(stream_data(400))
  fit <- function(formula) {
    suppressWarnings(fit_cosine_moe(formula, chunks_of(data, 150), k = 1, control = stream_control()))
  }
  for (formula in list(
    y ~ poly(x1, 2), y ~ scale(x1), y ~ I(x1 - mean(x1)), y ~ splines::ns(x1, 3), y ~ cut(x1, 3), y ~ cumsum(x1) + x2,
    y ~ x1 | rank(x2)
  )) {
    expect_error(fit(formula), "other rows", class = "cosmoe_error_input", label = deparse1(formula))
  }
  expect_error(
    fit_cosine_moe(y ~ x1, chunks_of(data, 150), weights = w / sum(w)), "other rows", class = "cosmoe_error_input"
  )
  for (formula in list(
    y ~ poly(x1, 2, raw = TRUE), log(exposure) ~ x1 * x2, y ~ cut(x1, c(-2, 0, 2)),
    y ~ splines::ns(x1, knots = 0, Boundary.knots = c(-1, 1))
  )) {
    memory <- suppressWarnings(fit_cosine_moe(formula, data, k = 1, control = stream_control()))
    expect_equal(predict(fit(formula), data), predict(memory, data), tolerance = 1e-10)
  }
})

test_that("settings that need rows are refused", {
  source <- chunks_of(stream_data(300), 100)
  refused <- function(words, ...) {
    expect_error(fit_cosine_moe(y ~ x1, source, ...), words, class = "cosmoe_error_input")
  }
  refused("optimizer", control = moe_control(optimizer = "sgd"))
  refused("hybrid", method = "em", control = moe_control(hybrid = FALSE))
  refused("model", model = TRUE)
  refused("start", start = 3)
  expect_error(fit_cosine_moe(y ~ x1, mean), "`reset`", class = "cosmoe_error_input")
  expect_error(source_function(3), class = "cosmoe_error_input")
  expect_error(source_function(function(x) NULL), "`reset`", class = "cosmoe_error_input")
})

test_that("rows cannot be chosen by number, nor codes be those of a chunk", {
  data <- kinds_data()
  source <- source_shards(list(data[1:300, ], data[301:nrow(data), ]))
  start <- kinds_fit(data)
  fit <- function(...) fit_cosine_moe(y ~ x1 | x1, source, k = 1, ...)
  keep <- rep(c(TRUE, FALSE), length.out = nrow(data))
  expect_error(fit(subset = 1:100), class = "cosmoe_error_input")
  expect_error(fit(subset = keep), class = "cosmoe_error_input")
  expect_error(
    fit_cosine_moe(y ~ as.integer(factor(word)) | x1, source, k = 1), "depends on other rows",
    class = "cosmoe_error_input"
  )
})

test_that("columns that are all but collinear are not taken for collinear", {
  set.seed(1)
  x <- stats::rnorm(400)
  data <- data.frame(a = x, b = x + 1e-4 * stats::rnorm(400), c = stats::rnorm(400))
  data$y <- data$a + data$c + stats::rnorm(400)
  fit <- suppressWarnings(fit_cosine_moe(y ~ a + b + c, source_shards(split(data, rep(1:2, 200))), k = 1))
  expect_equal(fit$sse, sum(stats::resid(stats::lm(y ~ a + b + c, data))^2), tolerance = 1e-8)
})

test_that("a streamed fit to numbers of successes knows that it needs the trials", {
  set.seed(1)
  n <- 600
  data <- data.frame(x = stats::runif(n, -1, 1), m = 10)
  data$s <- stats::rbinom(n, 10, stats::plogis(ifelse(stats::runif(n) < stats::plogis(5 * data$x), 2, -2) + data$x))
  fit <- function(rows, ...) {
    fit_cosine_moe(cbind(s, m - s) ~ x, rows,
      method = "em", family = binomial, router = "linear", control = moe_control(n_starts = 3), ...
    )
  }
  memory <- fit(data)
  streamed <- fit(source_shards(list(data[1:300, ], data[301:600, ])), start = memory)
  new <- data.frame(x = c(-0.5, 0.5))
  y <- cbind(c(5, 5), c(5, 5))
  quantiles <- function(fit) predict(fit, new, type = "quantile", y = y)
  expect_equal(quantiles(streamed), quantiles(memory), tolerance = 1e-8)
  expect_error(predict(streamed, new, type = "quantile"), class = "cosmoe_error")
  expect_equal(vcov(streamed), vcov(memory), tolerance = 1e-6)
  expect_false(anyNA(vcov(streamed)))
})

test_that("64-bit integers are numbers, also in memory and in new data", {
  skip_if_not_installed("bit64")
  data <- data.frame(x = seq(-1, 1, length.out = 200))
  data$y <- data$x + sin(seq_len(200))
  data$big <- bit64::as.integer64(round(1e6 * data$x + 1e9))
  fit <- fit_cosine_moe(y ~ big, data, k = 1)
  expect_equal(unname(fitted(fit)), unname(fitted(lm(y ~ x, data))), tolerance = 1e-6)
  expect_equal(unname(predict(fit, data[1:3, ])), unname(fitted(fit)[1:3]))
})

test_that("a rare level is not left to a part of the rows", {
  set.seed(1)
  n <- 12000
  data <- data.frame(x = stats::runif(n, -1, 1), rare = as.numeric(seq_len(n) %in% c(10, 5000, 9000)))
  first <- stats::runif(n) < stats::plogis(6 * data$x)
  data$y <- stats::rpois(n, exp(ifelse(first, 1 + data$x, -1 - data$x)))
  start <- list(beta = rbind(c(-3, 3)), b = c(0, 0), experts = rbind(c(-0.5, 0.5), c(0, 0), c(0, 0)))
  fit <- function(...) {
    fit_cosine_moe(y ~ x + rare | x, data,
      method = "em", family = poisson, router = "linear", start = start, control = moe_control(...)
    )
  }
  hybrid <- fit()
  expect_gt(as.numeric(logLik(hybrid)), as.numeric(logLik(fit(hybrid = FALSE, max_passes = 2000))) - 1e-3)
  expect_lt(max(fitted(hybrid)), 100)
})
