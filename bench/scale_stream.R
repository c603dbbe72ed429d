# A fit to more rows than memory should hold: Parquet shards on disk, read one at a time.
#
#   R_LIBS=.build/library Rscript bench/scale_stream.R n folder workers rows
#
# By default n = 1e6, a temporary folder, one worker (this process), and 1e6 rows a shard.
#
# Simulates n x 10 rows (doubles) from four experts with a linear gate, writes them with nanoparquet, fits k = 4 from a
# start that is off, and prints rows per second, passes, seconds and the peak of memory. The shards are deleted. Run from the
# package's main folder it also writes the figures into inst/extdata/streams.csv.

arguments <- commandArgs(TRUE)
given <- function(i, otherwise) if (length(arguments) >= i) arguments[i] else otherwise
n <- as.numeric(given(1, "1e6"))
folder <- file.path(given(2, tempdir()), sprintf("cosmoe-shards-%d", Sys.getpid()))
workers <- as.integer(given(3, "1"))
size <- min(n, as.numeric(given(4, "1e6")))
d <- 10
k <- 4

truth <- local({
  set.seed(1)
  list(
    beta = matrix(rnorm(d * k), d) * 1.5, b = rep(0, k),
    experts = rbind(matrix(rnorm(d * k), d), c(-3, -1, 1, 3))
  )
})

write_shard <- function(i, rows) {
  set.seed(i)
  x <- matrix(runif(rows * d, -1, 1), rows, dimnames = list(NULL, paste0("x", seq_len(d))))
  logit <- x %*% truth$beta
  expert <- max.col(logit - log(-log(runif(length(logit)))))
  mean <- x %*% truth$experts[seq_len(d), ] + rep(truth$experts[d + 1, ], each = rows)
  y <- mean[cbind(seq_len(rows), expert)] + 0.5 * rnorm(rows)
  file <- file.path(folder, sprintf("%05d.parquet", i))
  nanoparquet::write_parquet(data.frame(y = y, x), file, compression = "uncompressed")
  file
}

# Peak resident memory of this process in MB, where the system tells.
peak_memory <- function() {
  status <- tryCatch(readLines("/proc/self/status"), error = function(e) character())
  as.numeric(sub("\\D*(\\d+).*", "\\1", grep("^VmHWM", status, value = TRUE))) / 1024
}

run <- function() {
  dir.create(folder, recursive = TRUE)
  on.exit(unlink(folder, recursive = TRUE))
  shards <- ceiling(n / size)
  writing <- system.time(
    files <- vapply(seq_len(shards), function(i) write_shard(i, min(size, n - (i - 1) * size)), "")
  )[["elapsed"]]
  disk <- sum(file.size(files)) / 1e6
  cat(sprintf("%.0f rows x %d columns in %d shards, %.0f MB, written in %.0f s\n", n, d + 1, shards, disk, writing))
  if (workers > 1) {
    before <- future::plan("multisession", workers = workers)
    on.exit(future::plan(before), add = TRUE)
  }
  invisible(gc())
  at_rest <- peak_memory()
  readings <- 0
  read <- function(file) {
    readings <<- readings + 1
    nanoparquet::read_parquet(file)
  }
  if (workers > 1) read <- nanoparquet::read_parquet
  start <- truth
  start$beta <- 0.7 * truth$beta
  start$experts <- truth$experts + 0.3
  formula <- stats::reformulate(paste0("x", seq_len(d)), "y")
  seconds <- system.time(
    fit <- cosmoe::fit_cosine_moe(
      formula, cosmoe::source_shards(files, read = read), k = k, router = "linear", start = start
    )
  )[["elapsed"]]
  passes <- fit$convergence$passes
  scans <- if (workers > 1) passes + 4 else readings / shards
  cat(sprintf("%s: %d passes, %.1f readings of all rows, %.1f s\n", fit$convergence$status, passes, scans, seconds))
  cat(sprintf("%.3g rows per second and reading\n", n * scans / seconds))
  cat(sprintf("peak memory %.0f MB (%.0f MB before the fit)\n", peak_memory(), at_rest))
  cat(sprintf("residual standard deviation %.4f\n", fit$sigma))
  record(data.frame(
    n = n, shards = shards, workers = workers, passes = passes, readings = round(scans, 1), seconds = round(seconds, 1),
    peak_mb = round(peak_memory()), rest_mb = round(at_rest)
  ))
}

# The runs that the vignette "How it scales" shows: one of each size and number of workers.
record <- function(run, file = file.path("inst", "extdata", "streams.csv")) {
  if (!dir.exists(dirname(file))) return(invisible())
  known <- if (file.exists(file)) utils::read.csv(file)
  same <- known$n == run$n & known$workers == run$workers
  runs <- rbind(known[!same, ], run)
  utils::write.csv(runs[order(runs$n, runs$workers), ], file, row.names = FALSE)
}

run()
