# What the tasks share: rows of results, clocks, the machine, PyTorch.

# One line of results.csv. `ratio` is ours / theirs, `goal` says what it should be, `met` is NA where nothing was
# promised.
bench_row <- function(task, figure, ours, theirs, goal = "", met = NA, ratio = ours / theirs) {
  data.frame(task = task, figure = figure, ours = ours, theirs = theirs, ratio = ratio, goal = goal, met = met)
}

clock <- function() as.numeric(Sys.time())

# Seconds of each function, called in turn so that a busy machine slows all of them: a matrix, one column a function.
time_in_turn <- function(functions, times, warm = 1) {
  for (i in seq_len(warm)) for (f in functions) f()
  seconds <- matrix(NA_real_, times, length(functions), dimnames = list(NULL, names(functions)))
  for (i in seq_len(times)) {
    for (j in seq_along(functions)) {
      start <- clock()
      functions[[j]]()
      seconds[i, j] <- clock() - start
    }
  }
  seconds
}

# The same in user seconds of this process; what is over too soon for that clock is repeated.
user_time_in_turn <- function(functions, times, at_least = 0.2) {
  clock <- function() sum(proc.time()[c("user.self", "sys.self")])
  once <- function(f) {
    start <- clock()
    runs <- 0
    while (runs == 0 || clock() - start < at_least) {
      f()
      runs <- runs + 1
    }
    (clock() - start) / runs
  }
  seconds <- vapply(seq_len(times), function(i) vapply(functions, once, numeric(1)), numeric(length(functions)))
  matrix(seconds, times, length(functions), byrow = TRUE, dimnames = list(NULL, names(functions)))
}

# Megabytes by which a process grows at most that reads the data and fits them (memory_child.R), and its seconds.
memory_child <- function(data, d, k, what) {
  folder <- tempfile("memory")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  for (name in names(data)) writeBin(as.double(data[[name]]), file.path(folder, name))
  output <- system2(file.path(R.home("bin"), "Rscript"),
    c(shQuote(file.path(bench_folder, "memory_child.R")), shQuote(folder), length(data$y), d, k, what),
    stdout = TRUE
  )
  value <- function(name) as.numeric(sub(paste0(name, " "), "", grep(paste0("^", name, " "), output, value = TRUE)))
  if (!length(value("peak_mb"))) stop("the child process did not finish:\n", paste(output, collapse = "\n"))
  c(peak_mb = value("peak_mb"), seconds = value("seconds"))
}

# ---- PyTorch ---------------------------------------------------------------------------------------------------------

# A Python that imports torch, or "". Linux distributions keep theirs at /usr/bin/python3, whatever comes first on the
# path.
find_torch <- local({
  found <- NULL
  function() {
    if (is.null(found)) {
      candidates <- unique(c(Sys.getenv("COSMOE_PYTHON"), Sys.which("python3"), "/usr/bin/python3"))
      imports <- function(python) {
        nzchar(python) && file.exists(python) &&
          suppressWarnings(system2(python, c("-c", shQuote("import torch")), stdout = FALSE, stderr = FALSE)) == 0
      }
      found <<- c(Filter(imports, candidates), "")[1]
    }
    found
  }
})

# Runs bench/<script> on one thread over the doubles in `data` (each written to its own file) and returns its results as
# a list of double vectors. Variables that pin OpenBLAS to an old kernel are lifted for this command.
run_torch <- function(script, data, arguments = list()) {
  folder <- tempfile("torch")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  for (name in names(data)) writeBin(as.double(data[[name]]), file.path(folder, paste0(name, ".in")))
  status <- system2("env", c(
    "-u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1",
    "PYTHONDONTWRITEBYTECODE=1",
    shQuote(find_torch()), shQuote(file.path(bench_folder, script)), shQuote(folder),
    vapply(arguments, format, character(1), scientific = FALSE, digits = 15)
  ))
  if (status != 0) stop(script, " failed", call. = FALSE)
  results <- list.files(folder, "[.]out$")
  read <- function(file) readBin(file.path(folder, file), "double", file.size(file.path(folder, file)) / 8)
  stats::setNames(lapply(results, read), sub("[.]out$", "", results))
}

# ---- the machine -----------------------------------------------------------------------------------------------------

describe_machine <- function() {
  version <- function(package) {
    if (requireNamespace(package, quietly = TRUE)) as.character(utils::packageVersion(package)) else "not installed"
  }
  first_line <- function(command, arguments) {
    run <- function() suppressWarnings(system2(command, arguments, stdout = TRUE, stderr = FALSE))
    lines <- tryCatch(run(), error = function(e) "")
    c(lines, "unknown")[1]
  }
  cpu <- if (file.exists("/proc/cpuinfo")) grep("^model name", readLines("/proc/cpuinfo"), value = TRUE)
  compiler <- strsplit(first_line(file.path(R.home("bin"), "R"), c("CMD", "config", "CXX17")), " ")[[1]][1]
  torch <- if (nzchar(find_torch())) {
    first_line(find_torch(), shQuote(file.path(bench_folder, "torch_model.py")))
  } else {
    "no Python with torch found"
  }
  blas <- basename(extSoftVersion()[["BLAS"]])
  pinned <- if (grepl("openblas", blas)) Sys.getenv("OPENBLAS_CORETYPE") else ""
  c(
    date = format(Sys.time(), "%Y-%m-%d", tz = "UTC"),
    cpu = sub(".*:\\s*", "", c(cpu, Sys.info()[["machine"]])[1]),
    cores = as.character(parallel::detectCores()),
    R = R.version.string,
    compiler = first_line(compiler, "--version"),
    `BLAS of R` = paste0(blas, if (nzchar(pinned)) paste0(", OPENBLAS_CORETYPE=", pinned)),
    torch = torch,
    vapply(
      c("cosmoe", "nloptr", "minpack.lm", "Rcpp", "RcppArmadillo", "flexmix", "MoEClust", "meteorits", "mixtools"),
      version, character(1)
    )
  )
}

# The figures whose ratio has grown by more than a fifth since results.csv was written. Figures are found by their words;
# numbers in brackets and behind semicolons (counts, seconds of this run) may differ.
worse_than_recorded <- function(results, folder) {
  file <- file.path(folder, "results.csv")
  if (!file.exists(file)) return(results[0, ])
  recorded <- utils::read.csv(file)
  key <- function(table) paste(table$task, gsub("\\([^)]*\\)|[;:].*", "", table$figure))
  before <- recorded$ratio[match(key(results), key(recorded))]
  # More is better where the ratio counts successes.
  worse <- ifelse(results$goal == "always", before > 1.2 * results$ratio, results$ratio > 1.2 * before)
  cbind(results, recorded = before)[worse %in% TRUE, ]
}

# Writes both tables, where tasks that were not run keep their recorded rows.
write_results <- function(results, machine, folder, tasks) {
  file <- file.path(folder, "results.csv")
  results$date <- machine[["date"]]
  if (file.exists(file)) {
    recorded <- utils::read.csv(file)
    results <- rbind(recorded[!recorded$task %in% results$task, ], results)
  }
  results <- results[order(match(results$task, tasks)), ]
  utils::write.csv(results, file, row.names = FALSE)
  number <- function(v) if (is.na(v)) "" else format(signif(v, 3), scientific = abs(v) < 1e-3, trim = TRUE)
  each <- function(v) vapply(v, number, character(1))
  met <- ifelse(is.na(results$met), "", ifelse(results$met, "yes", "no"))
  lines <- c(
    "# Results", "",
    "Written by `make bench`; `README.md` beside this file says what each task measures. `ratio` is ours / theirs.", "",
    paste0("- ", names(machine), ": ", machine), "",
    "| task | figure | ours | theirs | ratio | goal | met | date |",
    "|---|---|---:|---:|---:|---|---|---|",
    paste0(
      "| ", results$task, " | ", results$figure, " | ", each(results$ours), " | ", each(results$theirs), " | ",
      each(results$ratio), " | ", results$goal, " | ", met, " | ", results$date, " |"
    )
  )
  writeLines(lines, file.path(folder, "results.md"))
}

# What core_fit() wants as its control for one run to convergence.
fit_control <- function(...) unclass(moe_control(...))
