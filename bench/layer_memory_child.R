# Fits the layer to data read from a file and prints by how much the process grew, data included. Argument: samples.
n <- as.integer(commandArgs(trailingOnly = TRUE)[1L])

status_mb <- function(field) {
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) * 1024 / 1e6
}

suppressPackageStartupMessages(library(cosmoe))
# What loading and a first call take belongs to no data set.
small <- simulate_patches(1, 100, seed = 1)
invisible(fit_moe_layer(small$x, small$y, protocol = "notebook", steps = 2, seed = 1))
invisible(gc(full = TRUE))
baseline <- status_mb("VmRSS")
set.seed(1)
x <- array(stats::rnorm(n * 200), c(n, 4, 50))
y <- rep_len(c(-1, 1), n)
invisible(fit_moe_layer(x, y, protocol = "notebook", steps = 30, stop = c(loss = 0, rise = 0), seed = 1))
cat("data_mb", 8 * length(x) / 1e6, "\n")
cat("peak_mb", status_mb("VmHWM") - baseline, "\n")
