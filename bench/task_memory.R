# Peak memory of a fit with a million rows, in a process of its own: the highest resident size less the size after
# loading the package and before the data, against the size of the data (88 MB).
task_memory <- function(n = 1e6, d = 10, k = 4) {
  if (!file.exists("/proc/self/status")) {
    message("memory: needs a Linux /proc, left out")
    return(NULL)
  }
  folder <- tempfile("memory")
  dir.create(folder)
  on.exit(unlink(folder, recursive = TRUE))
  data <- sim_moe(n, d, k, "perturbed_cosine", "gelu")
  writeBin(as.vector(data$x), file.path(folder, "x"))
  writeBin(data$y, file.path(folder, "y"))
  rm(data)
  data_mb <- 8 * n * (d + 1) / 1e6

  output <- system2(file.path(R.home("bin"), "Rscript"),
    c(shQuote(file.path(bench_folder, "memory_child.R")), shQuote(folder), n, d, k),
    stdout = TRUE
  )
  peak <- as.numeric(sub("peak_mb ", "", grep("^peak_mb ", output, value = TRUE)))
  seconds <- as.numeric(sub("seconds ", "", grep("^seconds ", output, value = TRUE)))
  if (!length(peak)) stop("the child process did not finish:\n", paste(output, collapse = "\n"))
  figure <- sprintf("peak of a fit, n = %g, d = %d, k = %d, GELU, MB, against the data (%.0f s)", n, d, k, seconds)
  bench_row("memory", figure, peak, data_mb, "at most 1.3 x data + 100 MB",
    met = peak <= 1.3 * data_mb + 100
  )
}
