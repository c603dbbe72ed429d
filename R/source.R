#' Sources of rows, for data larger than memory
#'
#' @description
#' [fit_cosine_moe()] takes as `data` not only a data frame but also a source that delivers the rows in chunks: a
#' function, a query of a data base, an Arrow dataset, or shards, which several processes or machines can share. A fit
#' needs nothing from the rows but sums over all of them, so only one chunk is in memory at a time, and the answer is
#' that of a fit to all rows at once.
#'
#' @param next_chunk A function of one argument, `reset`, as for `biglm::bigglm()`: with `reset = TRUE` it goes back to
#'   the beginning (its value is not used), with `reset = FALSE` it returns the next data frame, or `NULL` after the
#'   last. Such a function may also be given as `data` itself.
#' @param connection A connection from [DBI::dbConnect()], or a function without arguments that opens one (which is then
#'   closed after each pass): the form for shards, since connections cannot be sent to other processes.
#' @param query One SQL query. It runs once a pass and must give the same rows each time.
#' @param chunk_rows Rows fetched at a time, a whole number. The default 100,000 keeps ten columns in 8 MB, beyond which
#'   chunks gain no speed.
#' @param shards A list; each element is one part of the rows: a source, a data frame, a function without arguments
#'   that returns a data frame or a source, or, with `read`, the name of a file.
#' @param read `NULL`, or a function that turns a file name into a data frame or a source.
#' @param keep Whether worker processes keep their shards in memory from one pass to the next. `TRUE` is the default
#'   because reading takes longer than a pass; `FALSE` for shards that do not fit into the workers' memory. Without
#'   workers nothing is kept.
#' @param x A source.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Passes.* A fit reads the source once to learn means, scales and ranges of its columns (twice if there are factors,
#' whose levels come first), once to draw a sample, once for each step of the solver (`fit$convergence$passes`, mostly
#' 10 to 50), once for the certificate, and once at the end. Every reading must give the same rows: an error of class
#' `cosmoe_error_source` with the number of the chunk tells of a chunk that cannot be read or has other columns or types
#' than the first, and of readings that differ in their number of rows. If that happens while the solver runs, the
#' best parameters so far are in the condition's field `start`, which can be given as `start` to the next attempt.
#'
#' *The start.* A `start` given to [fit_cosine_moe()] is used on all rows at once. Otherwise the ordinary search runs on
#' a uniform random sample (`set.seed()` reproduces it) of 20,000 rows, or 200 for each parameter if that is more, with
#' the gate's centre and scale of all rows; its solution is the start on all rows. Data of at most 20,000 rows are
#' fitted in memory.
#'
#' *Formulas.* As for data frames, with `weights`, `offset`, `subset`, `na.action` and `contrasts`; expressions are
#' evaluated in each chunk. Strings get the levels of all chunks in alphabetical order; factors keep the order of their
#' levels if all chunks have the same ones, else the levels of all are sorted. Terms whose value in a row depends on
#' other rows (`poly(x, 2)`, `scale(x)`, `x - mean(x)`, splines without given knots) are refused: give knots, use
#' `poly(x, 2, raw = TRUE)`, or put the column into the source. Plain numeric columns are fastest.
#'
#' *The object.* It has no `fitted.values`, `residuals` and `y`, so whatever needs the rows (`residuals()`, `plot()` of
#' them, [bootstrap_moe()], the sandwich, profile intervals) stops with a `cosmoe_error_input`; use
#' [predict()][predict.cosine_moe] on chunks. `coef()`, `vcov()`, `confint()`, `summary()`, `logLik()`, `AIC()` and
#' `predict(newdata = )` work as ever.
#' `fit$source` describes the source; its `starts` is the table of the starts on the sample. `typical` (for plots) is
#' taken from at most 20,000 rows. `optimizer = "sgd"`, pure EM (`hybrid = FALSE`) and `model = TRUE` need rows in
#' memory and are refused.
#'
#' *Arrow.* A `Dataset`, a query of dplyr verbs on one, or a `Table` may be given as `data`. After the first look only
#' the columns of the formula are read. A `RecordBatchReader` can be read only once and is refused.
#'
#' *Shards.* The workers of the current [future::plan()] share the shards, receive parameters and return sums. Sums are
#' added in the order of the shards, so that results have the same bits for any number of workers. If a worker is lost,
#' its shards go to others, at last to the main process: the answer is the same, with one warning of class
#' `cosmoe_warning_worker`. Shards that are functions or files are read where they are needed; data frames are sent.
#' Functions for workers must bring what they use: variables of the workspace are not there, packages go by `::`. How
#' many of the other workers can still be used then depends on the version of future.
#'
#' *Accuracy.* Sums over chunks differ from sums over all rows by rounding errors. From the same start the fitted values
#' of both agree to ten digits or better, except where the solver's last step promises less than rounding errors and is
#' taken in one fit only: then they agree within the solver's `tolerance`, a thousandth of a standard error.
#'
#' @return An object of class `row_source`, a list of functions and a description.
#'
#' @section Recipes:
#' Tried: functions, RSQLite, nanoparquet, tables of arrow, the plans `sequential`, `multisession`, `cluster` and
#' `future.mirai::mirai_cluster` (local processes, one of which is killed during the fit). Written by the documentation
#' of the packages, not tried: datasets of arrow, DuckDB, Slurm, Spark. The last two rest on the interface of future
#' alone.
#' ```r
#' # Parquet files by Arrow
#' fit_cosine_moe(y ~ x1 + x2, arrow::open_dataset("folder"), k = 3)
#' # Parquet files by nanoparquet, one a shard
#' files <- list.files("folder", full.names = TRUE)
#' fit_cosine_moe(y ~ x1 + x2, source_shards(files, read = nanoparquet::read_parquet), k = 3)
#' # DuckDB
#' connection <- DBI::dbConnect(duckdb::duckdb(), "rows.duckdb", read_only = TRUE)
#' fit_cosine_moe(y ~ x1, source_query(connection, "SELECT y, x1 FROM rows ORDER BY id"), k = 3)
#' # Several processes on this machine, or on others
#' future::plan("multisession", workers = 4)
#' future::plan("cluster", workers = c("node1", "node2"))
#' # Slurm: each worker is a job; the files lie on a shared disk
#' cluster <- parallelly::makeClusterPSOCK(parallelly::availableWorkers())
#' future::plan("cluster", workers = cluster)
#' # mirai daemons
#' mirai::daemons(4)
#' future::plan(future.mirai::mirai_cluster)
#' # Spark: let it write Parquet files to a shared disk, and read these as shards
#' sparklyr::spark_write_parquet(table, "folder")
#' ```
#' With `future.batchtools` each future is a new job, so nothing can be kept between passes: prefer workers that live as
#' long as the fit, as above.
#'
#' @references Miller, A. J. (1992). Algorithm AS 274: Least squares routines to supplement those of Gentleman. Applied
#' Statistics 41, 458-478: regression from sums over chunks. Chan, T. F., Golub, G. H. and LeVeque, R. J. (1983).
#' Algorithms for computing the sample variance. The American Statistician 37, 242-247: the sums of two parts as those
#' of the whole.
#' @seealso [fit_cosine_moe()], [future::plan()].
#' @examples
#' set.seed(1)
#' x <- runif(600, -1, 1)
#' p <- plogis(10 * x)
#' rows <- data.frame(x, y = p * (1 + x) - (1 - p) * (1 - 0.5 * x) + rnorm(600, sd = 0.1))
#' at <- 0
#' next_chunk <- function(reset) {
#'   if (reset) return(at <<- 0)
#'   if (at == 600) return(NULL)
#'   at <<- at + 200
#'   rows[(at - 199):at, ]
#' }
#' fit_cosine_moe(y ~ x, next_chunk, router = "linear", control = moe_control(n_starts = 5))
#' # The same rows as shards
#' source <- source_shards(split(rows, rep(1:3, each = 200)))
#' source
#' fit <- fit_cosine_moe(y ~ x, source, router = "linear", control = moe_control(n_starts = 5))
#' confint(fit)
#' @name row_source
NULL

#' @rdname row_source
#' @export
source_function <- function(next_chunk) {
  check_function(next_chunk)
  if (!"reset" %in% names(formals(args(next_chunk)))) {
    stop_input("next_chunk", I("one without it"), "a function with the argument `reset`")
  }
  new_source("a function", function(columns) {
    next_chunk(reset = TRUE)
    list(read = function() next_chunk(reset = FALSE), close = function() NULL)
  })
}

#' @rdname row_source
#' @export
source_query <- function(connection, query, chunk_rows = 1e5) {
  need_package("DBI", "`source_query()`")
  if (!is.function(connection) && !inherits(connection, "DBIConnection")) {
    stop_input("connection", connection, "a DBI connection, or a function that opens one")
  }
  if (!is.character(query) || length(query) != 1L || is.na(query)) stop_input("query", query, "one SQL query")
  chunk_rows <- check_count(chunk_rows)
  new_source("a query", function(columns) {
    own <- is.function(connection)
    handle <- if (own) connection() else connection
    result <- NULL
    close <- function() {
      if (!is.null(result)) DBI::dbClearResult(result)
      result <<- NULL
      if (own) DBI::dbDisconnect(handle)
    }
    tryCatch(result <- DBI::dbSendQuery(handle, query), error = function(e) {
      close()
      stop(e)
    })
    read <- function() {
      chunk <- DBI::dbFetch(result, n = chunk_rows)
      if (nrow(chunk)) chunk
    }
    list(read = read, close = close)
  })
}

#' @rdname row_source
#' @export
source_shards <- function(shards, read = NULL, keep = TRUE) {
  keep <- check_flag(keep)
  if (!is.null(read)) check_function(read)
  if (is.character(shards)) shards <- as.list(shards)
  if (!is.list(shards) || is.data.frame(shards) || inherits(shards, "row_source") || !length(shards)) {
    stop_input("shards", shards, "a list with one element for each shard")
  }
  parts <- lapply(seq_along(shards), function(i) as_shard(shards[[i]], read, sprintf("shards[[%d]]", i)))
  structure(
    list(description = sprintf("%d shard%s", length(parts), if (length(parts) > 1L) "s" else ""), shards = parts,
         keep = keep),
    class = "row_source"
  )
}

#' @rdname row_source
#' @export
print.row_source <- function(x, ...) {
  check_dots_empty(...)
  cat("Source of rows: ", x$description, "\n", sep = "")
  invisible(x)
}

# ---- inside ----------------------------------------------------------------------------------------------------------

# `open(columns)` begins a reading: list(read, close), read() giving the next data frame or NULL. `columns` are the
# names that are needed (NULL: all), of which a source may take notice.
new_source <- function(description, open) structure(list(description = description, open = open), class = "row_source")

arrow_classes <- c("Dataset", "arrow_dplyr_query", "ArrowTabular", "RecordBatchReader")

is_source <- function(data) inherits(data, c("row_source", arrow_classes)) || is.function(data)

as_source <- function(data) {
  if (inherits(data, "row_source")) return(data)
  if (is.function(data)) return(source_function(data))
  if (inherits(data, "RecordBatchReader")) {
    stop_input("data", I("a RecordBatchReader, which can be read only once"), "a source that can be read several times")
  }
  source_arrow(data)
}

source_arrow <- function(dataset) {
  need_package("arrow", "An Arrow dataset")
  new_source("an Arrow dataset", function(columns) {
    columns <- if (is.null(columns)) names(dataset) else intersect(names(dataset), columns)
    # Tables need no scanner, which not every build of Arrow has.
    reader <- if (inherits(dataset, "ArrowTabular")) {
      arrow::as_record_batch_reader(dataset[, columns])
    } else {
      arrow::Scanner$create(dataset, projection = columns)$ToRecordBatchReader()
    }
    read <- function() {
      batch <- reader$read_next_batch()
      if (!is.null(batch)) as.data.frame(batch)
    }
    list(read = read, close = function() NULL)
  })
}

source_frame <- function(frame) {
  new_source("a data frame", function(columns) {
    left <- TRUE
    read <- function() {
      if (!left) return(NULL)
      left <<- FALSE
      frame
    }
    list(read = read, close = function() NULL)
  })
}

as_shard <- function(x, read, argument) {
  if (is.data.frame(x)) return(source_frame(x))
  if (inherits(x, "row_source")) {
    if (!is.null(x$shards)) stop_input(argument, I("made of shards itself"), "a part of the rows")
    return(x)
  }
  if (inherits(x, arrow_classes)) return(as_source(x))
  if (is.function(x)) return(source_later(x))
  if (is.character(x) && length(x) == 1L && !is.na(x)) {
    if (is.null(read)) stop_input("read", NULL, "a function that reads the files of the shards")
    return(source_later(function() read(x)))
  }
  stop_input(argument, x, "a source, a data frame, a function without arguments, or the name of a file")
}

# What `make()` returns, a data frame or a source, is asked for where and when it is needed.
source_later <- function(make) {
  force(make)
  new_source("a function", function(columns) {
    made <- make()
    if (!is.data.frame(made) && !is_source(made)) {
      stop_cosmoe("source", sprintf("A shard must give a data frame or a source, not %s.", describe(made)))
    }
    if (is.data.frame(made)) source_frame(made)$open(columns) else as_source(made)$open(columns)
  })
}

# Calls visit(chunk, number) for the chunks with rows until that gives FALSE; returns the number of chunks. The reading
# is closed in any case. `where` names a shard in messages.
each_chunk <- function(source, columns, visit, where = "") {
  reader <- reading(source$open(columns), paste0("The source cannot be opened", sub("of", "at", where)))
  on.exit(reader$close())
  number <- 0L
  repeat {
    chunk <- reading(reader$read(), sprintf("Chunk %d%s cannot be read", number + 1L, where))
    if (is.null(chunk)) break
    number <- number + 1L
    if (!is.data.frame(chunk)) {
      stop_source(sprintf("Chunk %d%s is %s, not a data frame", number, where, describe(chunk)))
    }
    if (nrow(chunk) && isFALSE(visit(chunk, number))) break
  }
  number
}

reading <- function(value, problem) {
  tryCatch(value, error = function(e) {
    if (inherits(e, "cosmoe_error")) stop(e)
    stop_source(sprintf("%s: %s", problem, sub("[.]$", "", conditionMessage(e))), parent = e)
  })
}

stop_source <- function(message, ...) stop_cosmoe("source", paste0(message, "."), ...)

need_package <- function(package, what) {
  if (requireNamespace(package, quietly = TRUE)) return(invisible())
  stop_cosmoe("package", sprintf("%s needs the package %s: install it.", what, package))
}

# A fit from a source has no rows.
is_streamed <- function(fit) !is.null(fit$source)

check_rows <- function(fit, what = "This") {
  if (!is_streamed(fit)) return(invisible())
  stop_cosmoe(
    "input",
    paste(what, "needs the rows, which a fit from a source does not keep. Use predict() on chunks of them, or fit to a",
          "sample in memory."),
    argument = "object", got = "a fit from a source", expected = "a fit from data in memory"
  )
}
