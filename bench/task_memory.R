# Peak memory of a fit with a million rows, in a process of its own: the highest resident size less the size after
# loading the package and before the data, against the size of the data (88 MB).
task_memory <- function(n = 1e6, d = 10, k = 4) {
  if (!file.exists("/proc/self/status")) {
    message("memory: needs a Linux /proc, left out")
    return(NULL)
  }
  data_mb <- 8 * n * (d + 1) / 1e6
  child <- memory_child(sim_moe(n, d, k, "perturbed_cosine", "gelu")[c("x", "y")], d, k, "ls")
  figure <- sprintf(
    "peak of a fit, n = %g, d = %d, k = %d, GELU, MB, against the data (%.0f s)", n, d, k, child[["seconds"]]
  )
  bench_row("memory", figure, child[["peak_mb"]], data_mb, "at most 1.3 x data + 100 MB",
    met = child[["peak_mb"]] <= 1.3 * data_mb + 100
  )
}
