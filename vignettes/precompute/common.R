# What the scripts in this folder share. Each is run from the package's main folder, with the package installed:
#   Rscript vignettes/precompute/<script>.R [REPS] [NMAX] [WORKERS]
# Replicates are kept in .build/studies, so that a run that was stopped goes on where it was.

library(cosmoe) # nolint: undesirable_function_linter.

settings <- local({
  given <- as.numeric(commandArgs(TRUE))
  default <- c(reps = 40, nmax = 1e5, workers = 1)
  default[seq_along(given)] <- given
  as.list(default)
})

if (settings$workers > 1) future::plan(future::multisession, workers = settings$workers)

# Sizes up to the largest that was asked for.
sizes_to <- function(exponents) {
  n <- round(10^exponents)
  n[n <= settings$nmax]
}

kept_in <- function(...) file.path(".build", "studies", paste(..., sep = "-"))

# A table with numbers of few digits, but for some columns.
short <- function(table, digits = 4L, but = character()) {
  numbers <- vapply(table, is.double, NA) & !names(table) %in% but
  table[numbers] <- lapply(table[numbers], signif, digits)
  table
}

# A summary small enough to be shipped.
small_summary <- function(study) {
  out <- summary(study)
  out$rates <- short(out$rates)
  out$means <- short(out$means)
  out$study$arms <- lapply(out$study$arms, function(arm) arm[c("truth", "router", "expert", "k", "start", "control")])
  out
}

# Whether a slope is where it should be: one row of the table of checks.
check_slope <- function(summary, arm, loss, from, to, what) {
  rate <- summary$rates[summary$rates$arm == arm & summary$rates$loss == loss, ]
  data.frame(
    what = what, arm = arm, loss = loss, replicates = max(summary$means$count[summary$means$arm == arm]),
    slope = rate$slope, boot_lower = rate$boot_lower, boot_upper = rate$boot_upper,
    from = from, to = to, holds = isTRUE(rate$slope >= from & rate$slope <= to)
  )
}

ship <- function(object, name) {
  object$made <- list(
    reps = settings$reps, nmax = settings$nmax, cosmoe = as.character(utils::packageVersion("cosmoe"))
  )
  file <- file.path("inst", "extdata", name)
  saveRDS(object, file, compress = "xz")
  message(file, ": ", file.size(file), " bytes")
}
