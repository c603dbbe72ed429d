# Sums over a source: a *task* (R/source-sums.R) turns each chunk into a part of a sum; parts are merged chunk by chunk
# within a shard and then shard by shard, so that the bits do not depend on who computes them. A source without shards
# is one shard. The workers of the user's future plan each get some shards; a worker's are evaluated again elsewhere if
# it is lost.

# Of a fit: who works, what the workers know, and what every reading must agree with.
new_handle <- function(source, design) {
  parts <- source_parts(source)
  handle <- new.env(parent = emptyenv())
  handle$description <- source$description
  handle$parts <- parts
  handle$design <- design
  handle$keep <- isTRUE(source$keep)
  handle$send <- TRUE
  handle$workers <- if (length(parts) > 1L) min(future::nbrOfWorkers(), length(parts)) else 1L
  handle$id <- basename(tempfile(sprintf("source-%d-", Sys.getpid())))
  handle
}

# The task's sum over all rows. Counts of rows must be those of the first reading.
fold_source <- function(handle, task, args = list()) {
  results <- tryCatch(
    if (handle$workers > 1L) fold_by_workers(handle, task, args) else fold_here(handle, task, args),
    interrupt = function(e) stop_interrupt()
  )
  counts <- vapply(results, function(result) result$counts, numeric(4))
  if (is.null(handle$counts)) {
    handle$counts <- counts
  } else if (task != "levels") {
    check_counts_again(handle$counts, counts)
  }
  Reduce(tasks[[task]]$merge, lapply(results, function(result) result$total))
}

check_counts_again <- function(before, now) {
  counted <- c("read", "rows", "used")
  differ <- which(colSums(before[counted, , drop = FALSE] != now[counted, , drop = FALSE]) > 0L)
  if (!length(differ)) return(invisible())
  at <- differ[1L]
  where <- if (ncol(now) > 1L) sprintf(" of shard %d", at) else ""
  row <- counted[before[counted, at] != now[counted, at]][1L]
  what <- c(read = "", rows = " for the fit", used = " of positive weight")[[row]]
  stop_source(sprintf(
    "The source gave %.0f rows%s at first, but %.0f%s in a later reading: each must give the same rows",
    before[row, at], what, now[row, at], where
  ))
}

fold_here <- function(handle, task, args, numbers = seq_along(handle$parts)) {
  lapply(numbers, function(i) {
    fold_shard(handle$parts[[i]], handle$design, task, args, shard_place(handle, i))
  })
}

# Where a shard's rows lie among all: how many are before it, once they have been counted.
shard_place <- function(handle, i) {
  before <- if (is.null(handle$counts)) numeric(4) else rowSums(handle$counts[, seq_len(i - 1L), drop = FALSE])
  list(
    read = before[[2L]], rows = before[[3L]], used = before[[4L]],
    where = if (length(handle$parts) > 1L) sprintf(" of shard %d", i) else ""
  )
}

# list(total, counts): the task's sum over the shard, and its numbers of chunks, rows read, rows in the fit, and rows of
# positive weight. With `kept`, an environment, ready chunks are kept there.
fold_shard <- function(source, design, task, args, place, kept = NULL) {
  use <- tasks[[task]]
  total <- NULL
  counts <- c(chunks = 0, read = 0, rows = 0, used = 0)
  each_chunk(source, design$columns, where = place$where, visit = function(chunk, number) {
    at <- list(chunk = number, where = place$where, read = place$read + counts[["read"]],
               rows = place$rows + counts[["rows"]], used = place$used + counts[["used"]])
    chunk <- conform_chunk(design, as_plain_frame(chunk), at)
    if (task == "levels") {
      total <<- use$merge(total, in_chunk(at, chunk_levels(design, chunk)))
      return()
    }
    part <- prepare_chunk(design, chunk, at)
    counts <<- counts + c(1, part$read, part$n, used_rows(part))
    part$raw <- function(rows = NULL) {
      raw_columns(design, if (is.null(rows)) chunk else chunk[rows, , drop = FALSE])
    }
    if (part$n == 0L && !isTRUE(use$empty)) return()
    ready <- if (is.null(use$ready)) part else use$ready(part, args)
    if (!is.null(kept)) kept$chunks[[length(kept$chunks) + 1L]] <- ready
    total <<- use$merge(total, in_chunk(at, use$chunk(ready, args, at)))
  })
  if (!is.null(kept)) kept$counts <- counts
  list(total = total, counts = counts)
}

used_rows <- function(part) if (is.null(part$w)) part$n else sum(part$w > 0)

# ---- workers ---------------------------------------------------------------------------------------------------------

# What a worker process keeps from one pass to the next: the ready chunks of its shards, of one fit at a time.
kept_shards <- new.env(parent = emptyenv())

fold_by_workers <- function(handle, task, args) {
  results <- vector("list", length(handle$parts))
  todo <- seq_along(handle$parts)
  # Replies may be missing because a worker is new, or is lost.
  for (attempt in seq_len(4L)) {
    if (!length(todo) || handle$workers < 1L) break
    send <- handle$send || attempt > 1L || task != "evaluate"
    groups <- unname(split(todo, (todo - 1L) %% handle$workers))
    for (reply in ask_workers(handle, groups, task, args, send)) {
      if (inherits(reply, "condition")) stop(reply)
      results[reply$numbers] <- reply$results
    }
    todo <- which(vapply(results, is.null, NA))
    if (attempt == 1L && task == "evaluate") handle$send <- length(todo) > 0L || !handle$keep
  }
  if (length(todo)) results[todo] <- fold_here(handle, task, args, todo)
  results
}

# The replies of those that are still there.
ask_workers <- function(handle, groups, task, args, send) {
  futures <- list()
  for (numbers in groups) {
    job <- list(
      id = handle$id, task = task, args = args, numbers = numbers, keep = handle$keep,
      design = if (send) portable_design(handle$design), shards = if (send) handle$parts[numbers],
      places = lapply(numbers, function(i) shard_place(handle, i))
    )
    asked <- tryCatch(
      future::future(run_job(job), globals = list(run_job = run_job, job = job), packages = "cosmoe", seed = NULL),
      error = function(e) e
    )
    if (inherits(asked, "error")) {
      lose_worker(handle, length(futures), asked)
      break
    }
    futures <- c(futures, list(asked))
  }
  replies <- lapply(futures, function(asked) {
    tryCatch(future::value(asked), error = function(e) {
      lose_worker(handle, handle$workers - 1L, e)
      NULL
    })
  })
  Filter(Negate(is.null), replies)
}

lose_worker <- function(handle, left, error) {
  handle$workers <- min(handle$workers, left)
  if (isTRUE(handle$warned)) return()
  handle$warned <- TRUE
  warning(structure(
    class = c("cosmoe_warning_worker", "cosmoe_warning", "warning", "condition"),
    list(message = paste0(
      "A worker is lost; others, or this process, go on with its shards: ",
      sub("([.]) .*", "\\1", trimws(conditionMessage(error)))
    ), call = NULL)
  ))
}

# In a worker: results of the shards, or the error of one. Without the shards themselves it can only use what it keeps,
# and has NULL for others.
run_job <- function(job) {
  tryCatch(list(numbers = job$numbers, results = lapply(seq_along(job$numbers), run_shard, job = job)),
           error = function(e) e)
}

run_shard <- function(i, job) {
  if (!identical(kept_shards$id, job$id)) {
    rm(list = ls(kept_shards), envir = kept_shards)
    kept_shards$id <- job$id
  }
  name <- paste0("shard", job$numbers[i])
  known <- if (job$task == "evaluate") kept_shards[[name]]
  if (!is.null(known)) return(fold_kept(known, job$task, job$args))
  if (is.null(job$shards)) return(NULL)
  kept <- if (job$keep && job$task == "evaluate") new.env(parent = emptyenv())
  result <- fold_shard(job$shards[[i]], job$design, job$task, job$args, job$places[[i]], kept)
  if (!is.null(kept)) kept_shards[[name]] <- kept
  result
}

fold_kept <- function(kept, task, args) {
  use <- tasks[[task]]
  list(total = Reduce(use$merge, lapply(kept$chunks, use$chunk, args), NULL), counts = kept$counts)
}

# A plain design needs no environment, which may be large.
portable_design <- function(design) {
  expressions <- as.list(design$call)[intersect(names(design$call), c("weights", "offset"))]
  if (!design$plain || !all(vapply(expressions, is.name, NA))) return(design)
  if (!all(vapply(expressions, as.character, "") %in% design$columns)) return(design)
  design$env <- globalenv()
  design$formula <- NULL
  design$call <- design$call[c(1L, match(c("weights", "offset", "na.action"), names(design$call), 0L))]
  design$terms <- lapply(design$terms, function(part) {
    attr(part, ".Environment") <- globalenv()
    part
  })
  design
}
