# What a user waits for before the first fit: loading the package (fresh processes, against one that does nothing), the
# size of the installed package without symbols for debuggers, and an installation from clean sources on two cores.
task_startup <- function(times = 7) {
  rbind(startup_load(times), startup_install())
}

startup_load <- function(times) {
  once <- function(code) {
    force(code)
    function() system2(file.path(R.home("bin"), "Rscript"), c("-e", shQuote(code)), stdout = FALSE, stderr = FALSE)
  }
  seconds <- apply(time_in_turn(list(ours = once("library(cosmoe)"), theirs = once("1")), times), 2, stats::median)
  bench_row("startup", "library(cosmoe) in a fresh process, s, against a process that does nothing",
    seconds[["ours"]], seconds[["theirs"]],
    goal = "at most 0.3 s more", met = seconds[["ours"]] - seconds[["theirs"]] <= 0.3
  )
}

# One installation gives both figures.
startup_install <- function() {
  folder <- tempfile("install")
  library <- file.path(folder, "library")
  dir.create(library, recursive = TRUE)
  on.exit(unlink(folder, recursive = TRUE))
  sources <- startup_sources(dirname(bench_folder), folder)
  used <- function() sum(proc.time()[c("user.child", "sys.child")])
  began <- c(clock(), used())
  status <- system2(file.path(R.home("bin"), "R"),
    c("CMD", "INSTALL", "--strip", "--no-multiarch", paste0("--library=", shQuote(library)), shQuote(sources)),
    env = "MAKEFLAGS=-j2", stdout = FALSE, stderr = FALSE
  )
  seconds <- c(clock(), used()) - began
  if (status != 0) stop("the package could not be installed from clean sources")
  size <- sum(file.size(list.files(library, recursive = TRUE, full.names = TRUE))) / 1e6
  rbind(
    bench_row("startup", "size of the installed package, stripped, MB", size, NA, "below 5", met = size < 5),
    bench_row("startup", sprintf("installation from clean sources, two cores, s (%.0f s of processors)", seconds[2]),
      seconds[1], NA, "below 180",
      met = seconds[1] < 180
    )
  )
}

# A copy of what an installation needs, without objects.
startup_sources <- function(from, to) {
  to <- file.path(to, "cosmoe")
  parts <- c("DESCRIPTION", "NAMESPACE", "R", "src", "inst", "data", "man")
  files <- unlist(lapply(parts, function(part) {
    path <- file.path(from, part)
    if (dir.exists(path)) file.path(part, list.files(path, recursive = TRUE)) else if (file.exists(path)) part
  }))
  files <- files[!grepl("[.](o|so|dll|a)$", files)]
  for (each in unique(dirname(file.path(to, files)))) dir.create(each, recursive = TRUE, showWarnings = FALSE)
  stopifnot(file.copy(file.path(from, files), file.path(to, files)))
  to
}
