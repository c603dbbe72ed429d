# Fits a large simulated data set and prints by how much the process grew. Arguments: folder with the data, n, d, k, and
# what to fit: "ls", or from labels "em" or "flexmix".
arguments <- commandArgs(trailingOnly = TRUE)
n <- as.numeric(arguments[2])
d <- as.numeric(arguments[3])
k <- as.numeric(arguments[4])
what <- arguments[5]

status_mb <- function(field) {
  line <- grep(paste0("^", field, ":"), readLines("/proc/self/status"), value = TRUE)
  as.numeric(gsub("[^0-9]", "", line)) * 1024 / 1e6
}
numbers <- function(name, count = n) readBin(file.path(arguments[1], name), "double", count)

suppressPackageStartupMessages(library(if (what == "flexmix") "flexmix" else "cosmoe", character.only = TRUE))
invisible(gc(full = TRUE))
baseline <- status_mb("VmRSS")

x <- numbers("x", n * d)
dim(x) <- c(n, d)
dimnames(x) <- list(NULL, paste0("x", seq_len(d)))
y <- numbers("y")
set.seed(1)
began <- Sys.time()
if (what == "ls") {
  fit <- fit_cosine_moe(x, y, k = k, expert = "gelu", router = "perturbed_cosine", control = moe_control(n_starts = 2))
} else {
  data <- data.frame(y = y, x)
  rm(x, y)
  labels <- numbers("labels")
  covariates <- reformulate(paste0("x", seq_len(d)))
  formula <- update(covariates, y ~ .)
  if (what == "em") {
    of_label <- function(j) unname(coef(lm(formula, data[labels == j, ]))[c(1 + seq_len(d), 1)])
    experts <- vapply(seq_len(k), of_label, numeric(d + 1))
    fit <- fit_cosine_moe(formula, data,
      k = k, method = "em", router = "linear", start = list(beta = matrix(0, d, k), b = numeric(k), experts = experts)
    )
  } else {
    fit <- flexmix(formula, data, cluster = labels, concomitant = FLXPmultinom(covariates))
  }
}
cat("seconds", as.numeric(difftime(Sys.time(), began, units = "secs")), "\n")
cat("peak_mb", status_mb("VmHWM") - baseline, "\n")
