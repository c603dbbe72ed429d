# Shards and workers: the same bits whoever computes the sums, and nothing lost with a worker.

shard_files <- function(data, sizes) {
  folder <- tempfile("shards")
  dir.create(folder)
  part <- rep(seq_along(sizes), sizes)
  files <- file.path(folder, sprintf("%d.rds", seq_along(sizes)))
  for (i in seq_along(sizes)) saveRDS(data[part == i, ], files[i])
  files
}

shard_fit <- function(shards, method = "ls") {
  start <- list(beta = rbind(c(-3, 3), 0), b = c(0, 0), experts = rbind(c(0, 1), c(-0.5, 0), c(0, 0), c(5, 1)))
  fit_cosine_moe(
    y ~ x1 + x2 + word_p | x1 + x2, data = shards, router = "linear", start = start, method = method
  )
}

shard_data <- function() {
  data <- stats::na.omit(stream_data(1000)[c("x1", "x2", "y", "word")])
  transform(data, word_p = as.numeric(word == "p"))
}

with_plan <- function(strategy, code, ...) {
  before <- future::plan(strategy, ...)
  on.exit(future::plan(before))
  code
}

test_that("two workers give the bits of one process", {
  data <- shard_data()
  files <- shard_files(data, c(300, 1, 450, 247))
  shards <- source_shards(files, read = readRDS)
  for (method in c("ls", "em")) {
    alone <- with_plan("sequential", shard_fit(shards, method))
    expect_equal(predict(alone, data), predict(shard_fit(data, method), data), tolerance = 1e-10)
    expect_identical(alone$source$shards, 4L)
  }
  alone <- with_plan("sequential", shard_fit(shards))
  with_plan("multisession", workers = 2, {
    expect_identical(without_origin(shard_fit(shards)), without_origin(alone))
    # Without keeping, and from data frames.
    again <- source_shards(files, read = readRDS, keep = FALSE)
    expect_identical(without_origin(shard_fit(again)), without_origin(alone))
    frames <- source_shards(lapply(files, readRDS))
    expect_identical(without_origin(shard_fit(frames)), without_origin(alone))
    # Errors in a worker are those of this process.
    bad <- source_shards(list(files[1], function() stop("disk on fire")), read = readRDS)
    expect_error(shard_fit(bad), "disk on fire", class = "cosmoe_error_source")
    half <- source_shards(list(files[1], function() transform(readRDS(tempfile()), y = 1)), read = readRDS)
    expect_error(shard_fit(half), class = "cosmoe_error_source")
  })
})

test_that("workers keep their shards between passes", {
  data <- shard_data()
  files <- shard_files(data, c(500, 498))
  log <- tempfile("reads")
  read <- local({
    log <- log
    function(file) {
      cat("read\n", file = log, append = TRUE)
      readRDS(file)
    }
  })
  reads <- function(keep) {
    unlink(log)
    fit <- shard_fit(source_shards(files, read = read, keep = keep))
    c(length(readLines(log)), fit$convergence$passes)
  }
  with_plan("multisession", workers = 2, {
    kept <- reads(TRUE)
    anew <- reads(FALSE)
  })
  expect_gt(anew[1], 2 * anew[2])
  # The design, means, the first pass, the end, and now and then a shard that has gone to the other worker.
  expect_lt(kept[1], anew[1] - 2)
})

test_that("the shards of a worker that dies are taken over", {
  skip_on_cran()
  skip_on_os("windows")
  data <- shard_data()
  files <- shard_files(data, c(300, 200, 251, 247))
  alone <- with_plan("sequential", shard_fit(source_shards(files, read = readRDS)))
  # The third reading of shard 3 in a worker, once, ends that worker.
  marks <- tempfile("marks")
  dir.create(marks)
  read <- local({
    marks <- marks
    home <- Sys.getpid()
    function(file) {
      if (basename(file) == "3.rds" && Sys.getpid() != home) {
        seen <- length(list.files(marks))
        file.create(file.path(marks, seen))
        if (seen == 2L) tools::pskill(Sys.getpid(), tools::SIGKILL)
      }
      readRDS(file)
    }
  })
  cluster <- parallel::makeCluster(3L)
  on.exit(for (node in seq_along(cluster)) try(parallel::stopCluster(cluster[node]), silent = TRUE))
  warnings <- list()
  fit <- with_plan("cluster", workers = cluster, withCallingHandlers(
    shard_fit(source_shards(files, read = read, keep = FALSE)),
    warning = function(w) {
      warnings[[length(warnings) + 1L]] <<- w
      invokeRestart("muffleWarning")
    }
  ))
  expect_gt(length(list.files(marks)), 3L)
  expect_length(warnings, 1L)
  expect_s3_class(warnings[[1]], "cosmoe_warning_worker")
  expect_identical(without_origin(fit), without_origin(alone))
})

# A fit to a slow source in a child, which gets the signal SIGINT while it runs.
interrupted_stream <- function(on_interrupt) {
  folder <- tempfile("interrupt")
  dir.create(folder)
  place <- function(name) deparse(file.path(folder, name))
  child <- run_r(c(
    "loadNamespace('cosmoe')", "set.seed(1)", "x <- stats::runif(3000, -1, 1)",
    "rows <- data.frame(x, y = ifelse(stats::runif(3000) < stats::plogis(3 * x), x, -x) + stats::rnorm(3000))",
    "at <- readings <- 0",
    "source <- function(reset) {",
    "  if (reset) { at <<- 0; readings <<- readings + 1; return(NULL) }",
    sprintf("  if (readings == 6 && at == 1) writeLines(as.character(Sys.getpid()), %s)", place("pid")),
    "  if (readings >= 6) Sys.sleep(if (readings == 6) 0.5 else 0.001)",
    "  at <<- at + 1",
    "  if (at <= 6) rows[(at - 1) * 500 + 1:500, ]",
    "}",
    "start <- list(beta = cbind(-0.1, 0.1), b = c(0, 0), experts = cbind(c(0.1, 0), c(0, 0.1)))",
    sprintf("control <- cosmoe::moe_control(on_interrupt = '%s')", on_interrupt),
    "fit <- suppressWarnings(tryCatch(",
    "  cosmoe::fit_cosine_moe(y ~ x, source, router = 'linear', start = start, control = control),",
    "  error = function(e) e, interrupt = function(e) e))",
    sprintf("saveRDS(list(class = class(fit), status = fit$convergence$status, sse = fit$sse), %s)", place("part")),
    sprintf("invisible(file.rename(%s, %s))", place("part"), place("result"))
  ), wait = FALSE)
  if (!wait_for(function() file.exists(file.path(folder, "pid")), 60)) return(NULL)
  Sys.sleep(0.2)
  tools::pskill(as.integer(readLines(file.path(folder, "pid"))), tools::SIGINT)
  if (!wait_for(function() file.exists(file.path(folder, "result")), 20)) return(NULL)
  readRDS(file.path(folder, "result"))
}

test_that("an interrupt during a reading ends the fit, with the best so far if that is wanted", {
  skip_on_cran()
  skip_on_os("windows")
  expect_true("cosmoe_error_interrupt" %in% interrupted_stream("stop")$class)
  result <- interrupted_stream("return")
  expect_identical(result$class, "cosine_moe")
  expect_identical(result$status, "interrupted")
  expect_true(is.finite(result$sse))
})
