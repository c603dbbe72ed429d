# The folder of a study.

stored <- function(path, ...) small_study(path = path, ...)

fresh_folder <- function() file.path(tempfile("study"), "inner")

test_that("a study goes on where it was, and may grow", {
  path <- fresh_folder()
  first <- stored(path, n = c(50, 100), reps = 2)
  expect_setequal(
    list.files(path), c("study.rds", "n50-rep1.rds", "n50-rep2.rds", "n100-rep1.rds", "n100-rep2.rds")
  )
  expect_length(list.files(path, "^[.]writing", all.files = TRUE), 0)
  before <- file.mtime(list.files(path, full.names = TRUE))
  # Times come from the files too: nothing is computed again.
  expect_identical(stored(path, n = c(50, 100), reps = 2), first)
  grown <- stored(path)
  expect_identical(lasting(grown), lasting(small_study()))
  expect_identical(file.mtime(list.files(path, full.names = TRUE, pattern = "n(50|100)-rep[12]|study")), before)
  expect_identical(stored(path, n = 100, reps = 1)$results$n, c(100L, 100L))
  plan <- plan_study(study_truth(), c(50, 400), 3, list(exact = list(k = 2), over = list(k = 3)), sigma = 0.1,
                     loss = c("L2", "L3_multi", "prediction"), sample = 200, path = path, budget = 0.01)
  expect_identical(plan$cost$replicates, c(0L, 3L, 0L, 3L))
})

test_that("damaged files are computed again, with a message", {
  path <- fresh_folder()
  whole <- stored(path, n = 50)
  victims <- file.path(path, sprintf("n50-rep%d.rds", 1:3))
  writeBin(readBin(victims[1], "raw", 40), victims[1]) # cut off
  bytes <- readBin(victims[2], "raw", 1e5)
  middle <- length(bytes) %/% 2
  bytes[middle] <- xor(bytes[middle], as.raw(255)) # a flipped byte
  writeBin(bytes, victims[2])
  file.copy(victims[2], victims[3], overwrite = TRUE)
  saveRDS(list(n = 50L, rep = 2L), victims[3]) # another replicate's
  expect_message(again <- stored(path, n = 50), "n50-rep1.rds`, `n50-rep2.rds` and `n50-rep3.rds")
  expect_identical(lasting(again), lasting(whole))
  expect_silent(stored(path, n = 50))
})

test_that("a changed argument is refused and named", {
  path <- fresh_folder()
  stored(path, n = 50, reps = 1)
  changed <- function(...) {
    error <- tryCatch(stored(path, n = 50, reps = 1, ...), cosmoe_error_study = function(e) e)
    expect_s3_class(error, "cosmoe_error_study")
    error$changed
  }
  expect_identical(changed(seed = 2), "seed")
  expect_identical(changed(x = "normal"), "x")
  expect_identical(changed(x = function(n) matrix(stats::runif(2 * n), n)), "x")
  expect_identical(changed(fits = list(exact = list(k = 3), over = list(k = 3))), "fits")
  expect_identical(changed(loss = "L2"), "loss")
  expect_setequal(changed(start = start_near(0.2)), "fits")
  expect_error(
    rate_study(study_truth(), 50, 1, list(exact = list(k = 2), over = list(k = 3)), sigma = 0.2, path = path,
               loss = c("L2", "L3_multi", "prediction"), sample = 200),
    "sigma", class = "cosmoe_error_study"
  )
  # The same function, from another place, is the same.
  other <- fresh_folder()
  generator <- function() function(n) matrix(stats::runif(2 * n), n)
  stored(other, n = 50, reps = 1, x = generator())
  expect_silent(stored(other, n = 50, reps = 1, x = generator()))
})

test_that("damaged settings are refused", {
  path <- fresh_folder()
  stored(path, n = 50, reps = 1)
  writeLines("nothing", file.path(path, "study.rds"))
  expect_error(stored(path, n = 50, reps = 1), "damaged", class = "cosmoe_error_study")
  unlink(file.path(path, "study.rds"))
  expect_error(stored(path, n = 50, reps = 1), "not its settings", class = "cosmoe_error_study")
  file <- tempfile()
  file.create(file)
  expect_error(stored(file, n = 50, reps = 1), class = "cosmoe_error_input")
})

test_that("a killed study goes on and ends with the same result", {
  path <- fresh_folder()
  script <- tempfile(fileext = ".R")
  helper <- normalizePath("helper-study.R")
  writeLines(c(
    "library(cosmoe)", sprintf("source(%s)", deparse(helper)),
    sprintf("small_study(n = c(50, 100, 200), reps = 200, path = %s)", deparse(path)), "Sys.sleep(60)"
  ), script)
  pid_file <- tempfile()
  system2("sh", c("-c", shQuote(sprintf(
    "R_LIBS='%s' '%s' '%s' > /dev/null 2>&1 & echo $! > '%s'", paste(.libPaths(), collapse = ":"),
    file.path(R.home("bin"), "Rscript"), script, pid_file
  ))))
  pid <- as.integer(readLines(pid_file))
  on.exit(tools::pskill(pid, tools::SIGKILL))
  done <- function() length(list.files(path, "^n"))
  waited <- 0
  while (done() < 5 && waited < 60) {
    Sys.sleep(0.02)
    waited <- waited + 0.02
  }
  tools::pskill(pid, tools::SIGKILL)
  skip_if(done() == 0, "the child process has not begun")
  Sys.sleep(0.1)
  killed_at <- done()
  expect_lt(killed_at, 600)
  # Large sizes come first: those are on disk.
  resumed <- small_study(n = 200, reps = 8, path = path)
  expect_identical(lasting(resumed), lasting(small_study(n = 200, reps = 8)))
  expect_gte(length(list.files(path, "^n")), killed_at)
})

test_that("an interrupt keeps what is finished", {
  path <- fresh_folder()
  calls <- new.env()
  calls$stop <- TRUE
  generator <- local({
    own <- calls
    function(n) {
      if (n == 60 && own$stop) signalCondition(structure(class = c("interrupt", "condition"), list(message = "")))
      matrix(stats::runif(2 * n), n)
    }
  })
  expect_error(
    stored(path, n = c(60, 120), reps = 2, x = generator), "call again to go on", class = "cosmoe_error_interrupt"
  )
  expect_setequal(list.files(path, "^n"), c("n120-rep1.rds", "n120-rep2.rds"))
  calls$stop <- FALSE
  expect_identical(nrow(stored(path, n = c(60, 120), reps = 2, x = generator)$results), 8L)
})
