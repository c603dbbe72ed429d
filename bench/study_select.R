# Which way finds the number of experts? Simulates designs with a known number, and counts how often information
# criteria, cross-validation and merging choose it. Writes inst/extdata/select_experts.csv, which the package ships.
# Takes some minutes on one core:
#   Rscript bench/study_select.R [replicates [replicates with cross-validation]]

suppressPackageStartupMessages(library(cosmoe))

arguments <- as.integer(c(commandArgs(TRUE), c("20", "4")[-seq_along(commandArgs(TRUE))]))
replicates <- arguments[1L]
validated <- arguments[2L]
largest <- 4L
quick <- moe_control(n_starts = 8)

# Experts a x + b with standard deviation sigma, chosen by logits u x + c (columns: experts).
em_truth <- function(k, overlapping) {
  near <- if (overlapping) 0.5 else 1
  list(
    a = c(2, -2, 0)[seq_len(k)] * near, b = c(0, 0.5, 3)[seq_len(k)] * near,
    u = c(0, 4, -4)[seq_len(k)] * near, c = c(0, 0, -0.5)[seq_len(k)], sigma = 0.4
  )
}

em_data <- function(k, overlapping, n) {
  truth <- em_truth(k, overlapping)
  x <- stats::runif(n, -1, 1)
  logit <- outer(x, truth$u) + rep(truth$c, each = n)
  # The largest of logits plus Gumbel noise is a draw from the softmax.
  expert <- max.col(logit - log(-log(matrix(stats::runif(n * k), n))))
  data.frame(x = x, y = truth$a[expert] * x + truth$b[expert] + truth$sigma * stats::rnorm(n))
}

# A perturbed cosine gate in two covariates; the regression function with Gaussian noise.
ls_data <- function(k, overlapping, n) {
  near <- if (overlapping) 0.5 else 1
  beta <- cbind(c(2, 0), c(-2, 1), c(0, -3))[, seq_len(k), drop = FALSE]
  eta <- cbind(c(1, 1, 2), c(-1, 2, -2), c(2, -2, 0))[, seq_len(k), drop = FALSE] * near
  G <- mixing_measure(numeric(k), beta, eta, router_perturbed_cosine(scale = 5))
  drawn <- simulate(G, n = n, sigma = 0.3)
  data.frame(x1 = drawn$x[, 1L], x2 = drawn$x[, 2L], y = drawn$y)
}

cpu <- function(code) {
  start <- proc.time()[["user.self"]]
  value <- suppressWarnings(code, classes = "cosmoe_warning_convergence")
  list(value = value, seconds = proc.time()[["user.self"]] - start)
}

# The number that each way chooses, with its CPU time.
choices <- function(method, data, cv) {
  arguments <- if (method == "em") {
    list(y ~ x, data, method = "em", router = "linear", control = quick)
  } else {
    list(y ~ x1 + x2, data, router = router_perturbed_cosine(scale = 5), standardize = FALSE, control = quick)
  }
  sweep <- cpu(do.call(select_experts, c(arguments, list(k = seq_len(largest)))))
  table <- sweep$value$table
  criteria <- c("AIC", "BIC", if (method == "em") "ICL")
  found <- data.frame(
    way = criteria, k = vapply(criteria, function(name) table$k[which.min(table[[name]])], 0L), seconds = sweep$seconds
  )
  # The rich fit is that of the sweep: a search for it alone takes about as long, since it begins with smaller models.
  for (criterion in c("DSC", "BIC")) {
    merged <- cpu(merge_experts(sweep$value$fits[[as.character(largest)]], criterion))
    way <- if (criterion == "DSC") "merged, DSC" else "merged, refit, BIC"
    found <- rbind(found, data.frame(way = way, k = merged$value$k, seconds = merged$seconds))
  }
  if (cv) {
    folds <- list(k = seq_len(largest), criterion = "cv", folds = 5, fold_starts = 5)
    chosen <- cpu(do.call(select_experts, c(arguments, folds)))
    found <- rbind(found, data.frame(way = "cv", k = chosen$value$k, seconds = chosen$seconds))
  }
  found
}

designs <- expand.grid(
  true_k = 1:3, overlapping = c(FALSE, TRUE), n = c(300, 1000), method = c("em", "ls"), stringsAsFactors = FALSE
)
# A single expert overlaps with nothing.
designs <- designs[!(designs$true_k == 1 & designs$overlapping), ]

run_design <- function(design) {
  one <- function(seed) {
    set.seed(seed)
    data <- (if (design$method == "em") em_data else ls_data)(design$true_k, design$overlapping, design$n)
    choices(design$method, data, seed <= validated && design$n == 300)
  }
  runs <- do.call(rbind, lapply(seq_len(replicates), one))
  ways <- unique(runs$way)
  of <- function(way, f) f(runs[runs$way == way, ])
  data.frame(
    method = design$method, true_k = design$true_k, overlapping = design$overlapping, n = design$n, way = ways,
    replicates = vapply(ways, of, 0L, nrow),
    right = vapply(ways, of, 0, function(own) mean(own$k == design$true_k)),
    too_few = vapply(ways, of, 0, function(own) mean(own$k < design$true_k)),
    too_many = vapply(ways, of, 0, function(own) mean(own$k > design$true_k)),
    seconds = vapply(ways, of, 0, function(own) mean(own$seconds)),
    row.names = NULL
  )
}

# Written after each design, so that a run that is stopped leaves what it has.
results <- NULL
for (i in seq_len(nrow(designs))) {
  results <- rbind(results, run_design(designs[i, ]))
  rounded <- results
  numbers <- vapply(rounded, is.double, NA)
  rounded[numbers] <- lapply(rounded[numbers], signif, 3L)
  utils::write.csv(rounded, "inst/extdata/select_experts.csv", row.names = FALSE)
  message(sprintf("design %d of %d", i, nrow(designs)))
}
print(rounded, row.names = FALSE)
