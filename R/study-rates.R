#' Rates of a rate study
#'
#' @description
#' Estimates, for each arm and loss, how the mean loss depends on the sample size: the slope of log mean loss on log n,
#' and the curve \eqn{a n^b} of the paper's figures.
#'
#' @param object A study from [rate_study()].
#' @param level Confidence level of the intervals.
#' @param boot Number of bootstrap replicates, at least 0.
#' @param loss,arm Names of losses and arms; all by default.
#' @param x A summary, or a study.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Log-log*: least squares of the logarithm of the mean loss on log n, all sizes with equal weight; standard error
#' and interval are those of this regression, with the t distribution and m - 2 degrees of freedom for m sizes. *a n^b*:
#' least squares of the mean losses themselves, as in the paper; the small sizes with their large losses
#' dominate. Its interval comes from the linearised regression. Both are about the line and hardly see the noise of the
#' replicates. The *bootstrap* interval does: replicates are drawn with replacement within each size, and the log-log
#' slope is computed from each draw; its ends are quantiles. It says nothing of curvature. Draws have a fixed seed.
#'
#' Fits that failed, and losses that are infinite (a gate on the boundary cannot be aligned, see [voronoi_loss()]), are
#' left out and counted.
#'
#' @return An object of class `summary.rate_study`, a list with two data frames. `rates`, one row an arm and loss:
#'   `slope`, `se`, `lower`, `upper` (log-log), `boot_lower`, `boot_upper`, `a`, `b`, `b_se`, `b_lower`,
#'   `b_upper` (the curve), `fits` and `left_out` (their numbers); slopes need two sizes, standard errors three,
#'   otherwise they are `NA`. `means`, one row an arm, loss and size: `mean`, `sd`, `count`. `print()` returns its
#'   argument, invisibly.
#'
#' @seealso [rate_study()], [plot.rate_study()].
#' @examples
#' truth <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(0.5, 0), c(-0.25, 0.43)),
#'   eta = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)),
#'   router = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), expert = "tanh"
#' )
#' study <- rate_study(truth, n = c(200, 400, 800), reps = 5, fits = list(exact = list()), sigma = 0.1)
#' summary(study)$rates[c("loss", "slope", "boot_lower", "boot_upper", "a", "b")]
#' @export
summary.rate_study <- function(object, level = 0.95, boot = 1000, loss = NULL, arm = NULL, ...) {
  check_dots_empty(...)
  level <- check_level(level)
  boot <- check_count(boot, lower = 0L)
  loss <- check_names(loss, names(object$loss), "loss")
  arm <- check_names(arm, names(object$arms), "arm")
  cases <- expand.grid(loss = loss, arm = arm, stringsAsFactors = FALSE)
  parts <- Map(function(arm, loss) summarise_rate(object, arm, loss, level, boot), cases$arm, cases$loss)
  structure(
    list(
      rates = bind_rows(lapply(parts, function(part) part$rate)),
      means = bind_rows(lapply(parts, function(part) part$means)),
      level = level, study = object[c("truth", "arms", "x", "sigma")]
    ),
    class = "summary.rate_study"
  )
}

check_names <- function(x, known, argument) {
  if (is.null(x)) return(known)
  if (!is.character(x) || length(x) == 0L || !all(x %in% known)) {
    stop_input(argument, x, paste("among", enumerate(known, "\"", max = Inf)))
  }
  unique(x)
}

summarise_rate <- function(study, arm, loss, level, boot) {
  rows <- study$results[study$results$arm == arm, ]
  values <- rows[[loss]]
  use <- is.finite(values)
  by_size <- split(values[use], rows$n[use])
  means <- data.frame(
    arm = rep(arm, length(by_size)), loss = rep(loss, length(by_size)), n = as.integer(names(by_size)),
    mean = vapply(by_size, mean, 0), sd = vapply(by_size, stats::sd, 0), count = lengths(by_size), row.names = NULL
  )
  line <- log_log_rate(means$n, means$mean, level)
  curve <- power_curve(means$n, means$mean, level)
  ends <- bootstrap_slope(by_size, level, boot)
  rate <- data.frame(
    arm = arm, loss = loss, slope = line$slope, se = line$se, lower = line$lower, upper = line$upper,
    boot_lower = ends[1L], boot_upper = ends[2L], a = curve$a, b = curve$b, b_se = curve$se, b_lower = curve$lower,
    b_upper = curve$upper, fits = nrow(rows), left_out = sum(!use)
  )
  list(rate = rate, means = means)
}

# Slope of log(mean) on log(n).
log_log_rate <- function(n, mean, level) {
  use <- mean > 0
  x <- log(n[use])
  y <- log(mean[use])
  if (length(x) < 2L) return(with_interval(c(slope = NA_real_), NA_real_, 0, level))
  x <- x - mean(x)
  slope <- sum(x * y) / sum(x^2)
  residual <- y - mean(y) - slope * x
  df <- length(x) - 2L
  with_interval(c(slope = slope), sqrt(sum(residual^2) / df / sum(x^2)), df, level)
}

# Least squares of a n^b: a is linear, so that one dimension is left. The search is over all slopes one may meet.
power_curve <- function(n, mean, level) {
  none <- c(list(a = NA_real_), with_interval(c(b = NA_real_), NA_real_, 0, level))
  if (length(n) < 2L || max(mean) <= 0) return(none)
  # In units of the geometric mean size, so that neither factor under- or overflows.
  unit <- exp(mean(log(n)))
  z <- log(n / unit)
  factor_at <- function(b) sum(mean * exp(b * z)) / sum(exp(2 * b * z))
  squares <- function(b) sum((mean - factor_at(b) * exp(b * z))^2)
  grid <- seq(-4, 4, by = 0.05)
  at <- grid[which.min(vapply(grid, squares, 0))]
  b <- stats::optimize(squares, at + c(-0.06, 0.06), tol = 1e-10)$minimum
  a <- factor_at(b)
  f <- a * exp(b * z)
  jacobian <- cbind(f / a, f * z)
  df <- length(n) - 2L
  covariance <- tryCatch(squares(b) / df * solve(crossprod(jacobian)), error = function(e) matrix(NA_real_, 2L, 2L))
  c(list(a = a * unit^-b), with_interval(c(b = b), sqrt(covariance[2L, 2L]), df, level))
}

with_interval <- function(value, se, df, level) {
  if (df < 1L) se <- NA_real_
  half <- if (is.na(se)) NA_real_ else stats::qt((1 + level) / 2, df) * se
  c(as.list(value), list(se = se, lower = value[[1L]] - half, upper = value[[1L]] + half))
}

# Percentile interval of the log-log slope over draws of the replicates within each size.
bootstrap_slope <- function(by_size, level, boot) {
  if (boot == 0L || length(by_size) < 2L || any(lengths(by_size) < 2L)) return(c(NA_real_, NA_real_))
  x <- log(as.numeric(names(by_size)))
  x <- x - mean(x)
  logs <- with_seed(1, vapply(by_size, function(values) {
    log(colMeans(matrix(values[sample.int(length(values), length(values) * boot, TRUE)], ncol = boot)))
  }, numeric(boot)))
  slopes <- matrix(logs, nrow = boot) %*% x / sum(x^2)
  stats::quantile(slopes[is.finite(slopes)], c(1 - level, 1 + level) / 2, names = FALSE)
}

# "7.2 n^-0.50"
curve_label <- function(a, b) ifelse(is.na(b), "", sprintf("%s n^%.2f", format_signif(a), b))

format_signif <- function(x) vapply(x, function(v) format(signif(v, 2L), scientific = abs(log10(abs(v))) > 4), "")

#' @rdname summary.rate_study
#' @export
print.summary.rate_study <- function(x, digits = 2L, ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  # What an arm does not have, such as cells with several atoms in an exact fit, is not shown.
  rates <- x$rates[x$rates$left_out < x$rates$fits, ]
  print_design(x$study)
  cat("\n")
  number <- function(values) formatC(values, digits = digits, format = "f")
  pair <- function(low, high) ifelse(is.na(low), "", paste0("[", number(low), ", ", number(high), "]"))
  percent <- paste0(format(100 * x$level), "%")
  table <- cbind(
    arm = rates$arm, loss = rates$loss, slope = ifelse(is.na(rates$slope), "", number(rates$slope)),
    se = ifelse(is.na(rates$se), "", number(rates$se)), interval = pair(rates$lower, rates$upper),
    bootstrap = pair(rates$boot_lower, rates$boot_upper), `a n^b` = curve_label(rates$a, rates$b),
    `left out` = ifelse(rates$left_out > 0, paste(rates$left_out, "of", rates$fits), "")
  )
  if (all(rates$left_out == 0)) table <- table[, colnames(table) != "left out", drop = FALSE]
  rownames(table) <- rep("", nrow(table))
  print(table, quote = FALSE, right = FALSE)
  cat("\n")
  print_line(
    "Slopes of log mean loss on log n, with ", percent, " intervals of the line and of the bootstrap over replicates."
  )
  invisible(x)
}

print_design <- function(study) {
  x <- if (is.function(study$x)) "by a function" else study$x
  print_line("Truth: ", format(study$truth, digits = 4L))
  print_line("Data:  covariates ", x, ", noise sigma = ", format(study$sigma))
  for (name in names(study$arms)) {
    arm <- study$arms[[name]]
    over <- arm$k - length(arm$truth$beta0)
    words <- c(
      sprintf("k = %d (%s)", arm$k, if (over == 0L) "exact" else if (over > 0L) "over-specified" else "too few"),
      paste(format(arm$router, digits = 4L), "router"), paste(format(arm$expert), "experts"),
      paste(arm$control$optimizer, "started", format(arm$start))
    )
    print_line("Arm ", name, ": ", paste(words, collapse = ", "))
  }
}

#' @rdname summary.rate_study
#' @export
print.rate_study <- function(x, ...) {
  check_dots_empty(...)
  rows <- x$results
  reps <- table(rows$n[rows$arm == rows$arm[1L]])
  cat(sprintf(
    "Rate study: %s, n = %s to %s (%s), %s\n", count_words(length(x$arms), "arm"), format(min(rows$n)),
    format(max(rows$n), big.mark = ","), count_words(length(reps), "size"), count_words(max(reps), "replicate")
  ))
  odd <- table(rows$status[rows$status != "converged"])
  if (length(odd)) {
    print_line("Not converged, of ", count_words(nrow(rows), "fit"), ": ", paste(odd, names(odd), collapse = ", "), ".")
  }
  failed <- unique(rows$reason[nzchar(rows$reason)])
  if (length(failed)) print_line("Reasons, see `reason`: ", enumerate(failed, quote = "\"", max = 3L))
  print(summary(x))
  invisible(x)
}
