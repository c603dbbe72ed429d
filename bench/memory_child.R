# Fits a large simulated data set and prints by how much the process grew. Arguments: folder with the data, n, d, k.
arguments <- commandArgs(trailingOnly = TRUE)
n <- as.numeric(arguments[2])
d <- as.numeric(arguments[3])
k <- as.numeric(arguments[4])

status_mb <- function(field) {
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) * 1024 / 1e6
}

suppressPackageStartupMessages(library(cosmoe))
invisible(gc(full = TRUE))
baseline <- status_mb("VmRSS")

x <- readBin(file.path(arguments[1], "x"), "double", n * d)
dim(x) <- c(n, d)
y <- readBin(file.path(arguments[1], "y"), "double", n)
set.seed(1)
began <- Sys.time()
fit <- fit_cosine_moe(x, y, k = k, expert = "gelu", router = "perturbed_cosine", control = moe_control(n_starts = 2))
cat("seconds", as.numeric(difftime(Sys.time(), began, units = "secs")), "\n")
cat("peak_mb", status_mb("VmHWM") - baseline, "\n")
