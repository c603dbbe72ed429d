#' Printing and summarising a mixture of experts
#'
#' @description
#' `print()` says in a few lines what was fitted and how well. `summary()` adds the residuals' quartiles, the tables
#' of experts and gate, the evidence for convergence, how often the starts found the best solution, and everything
#' unusual about the solution, and standard errors with tests.
#'
#' @param object,x A fit from [fit_cosine_moe()], or for `print()` its summary.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' *Table of experts.* One column for each expert, in order of decreasing mean gate weight, and that weight.
#'
#' *Table of the gate.* The bias b of each expert and its \eqn{\beta}. For the cosine routers \eqn{\beta} is split
#' into its norm (the perturbed router's; the cosine router has none) and its direction, a vector of norm 1. `Inf` is
#' a gate on the boundary of the parameter space. Only differences between experts have a meaning. When the gate's
#' covariates were standardized, their centre and scale are in the table, and \eqn{\beta} belongs to the standardized
#' ones.
#'
#' *Standard errors* stand in parentheses behind the estimates, with stars for the p-values of t tests against zero
#' (`coef(summary(fit))` has the numbers). An expert's parameter is tested against zero, a gate's bias or vector against
#' the mean of all gates, as in `coef(fit)`. Where standard errors would mislead, or the data of the fit
#' cannot be found again, there are none and a line says why; see [vcov.cosine_moe()].
#'
#' *Convergence.* The predicted decrease is what one more step of the solver could take off the sum of squares, in
#' units of the residual variance: far below 1, the data cannot tell the solution from the exact minimum. The smallest
#' curvature is that of the sum of squares in the direction that is worst determined, among those that change the
#' model. Every gate has some flat directions of its own, in which no probability changes; more of them make the
#' solution non-unique.
#'
#' *Maximum likelihood.* The table of experts has their dispersions (sigma, or the shape of the Gamma distribution), the
#' tests are z tests, log-likelihood, AIC, BIC and [ICL()] take the place of the sum of squares, and residuals are
#' observed minus fitted. A dispersion on its bound and experts with hardly more rows than parameters, which a
#' likelihood may fit as closely as it likes, are among the notes.
#'
#' *R-squared* is 1 minus the (weighted) sum of squares over that around the (weighted) mean of the response.
#'
#' @return `summary()`: an object of class `summary.cosine_moe`, a list with `call`, `residuals` (Pearson), `experts`
#'   and `gate` (the tables), `gate_mean`, `sse`, `sigma`, `df`, `df.residual`, `nobs`, `r.squared`, `convergence`,
#'   `starts`, `notes` (whatever is unusual, in words), `coefficients` (a matrix with a row for each entry of
#'   `coef(fit)` and the columns of [stats::summary.lm()]), `no.errors` (why they are missing, in words; else
#'   empty), and what describes the model. `print()`: its argument,
#'   invisibly.
#'
#' @seealso [coef.cosine_moe()], [plot.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(
#'   Ozone ~ Solar.R + Wind + Temp | Wind + Temp,
#'   data = airquality, k = 2, control = moe_control(n_starts = 5)
#' )
#' fit
#' summary(fit)
#' @export
print.cosine_moe <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  print_head(x, digits)
  shown <- ifelse(x$gate_mean > 0 & x$gate_mean < 5e-4, "<0.001", format(round(x$gate_mean, 3L)))
  weights <- paste(names(x$gate_mean), shown)
  print_line("Mean gate weights: ", paste(weights, collapse = ", "))
  print_line(fit_words(x, digits))
  print_line(convergence_words(x$convergence))
  print_line(starts_words(x$starts, is_em(x)))
  print_notes(fit_notes(x))
  invisible(x)
}

#' @rdname print.cosine_moe
#' @export
summary.cosine_moe <- function(object, ...) {
  check_dots_empty(...)
  kept <- c(
    "call", "k", "router", "expert", "standardize", "names", "na.action", "gate_mean", "sse", "sigma", "df",
    "df.residual", "nobs", "convergence", "starts", "method", "family", "dispersions", "dispersion", "loglik", "source"
  )
  tests <- coefficient_tests(object, parent.frame())
  structure(
    c(unclass(object)[kept], list(
      weighted = is_weighted(object),
      residuals = if (!is_streamed(object)) {
        as.vector(stats::residuals(object, if (is_em(object)) "response" else "pearson"))
      },
      icl = if (is_em(object)) ICL.cosine_moe(object),
      experts = intercept_first(object$experts),
      gate = gate_table(object),
      contrasts = gate_contrasts(object$gate, object$router),
      coefficients = tests$coefficients,
      no.errors = tests$reasons,
      r.squared = r_squared(object),
      notes = fit_notes(object)
    )),
    class = "summary.cosine_moe"
  )
}

#' @rdname print.cosine_moe
#' @export
print.summary.cosine_moe <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  print_head(x, digits)
  print_residuals(x, digits)
  errors <- length(x$no.errors) == 0L
  weights <- rbind(`mean gate weight` = x$gate_mean)
  if (length(x$dispersion)) {
    weights <- rbind(weights, x$dispersion)
    rownames(weights)[2L] <- dispersion_name(x$family)
  }
  if (errors) {
    print_tests("Experts (standard errors)", x$experts, x$coefficients, digits, weights)
  } else {
    print_section("Experts", rbind(weights, x$experts), digits)
  }
  if (x$k > 1L) print_section(gate_title(x), x$gate, digits)
  if (errors && x$k > 1L) print_tests(contrasts_title(x), x$contrasts, x$coefficients, digits)
  if (errors) cat("Stars: p < 0.05 (*), p < 0.01 (**), p < 0.001 (***); see coef(summary())\n")
  cat("\n")
  print_line(fit_words(x, digits), "; R-squared ", format(x$r.squared, digits = digits), omitted_words(x))
  cat("\n")
  print_line(convergence_words(x$convergence))
  print_certificate(x$convergence$certificate, digits, is_em(x))
  print_line(starts_words(x$starts, is_em(x)))
  print_notes(c(x$notes, no_errors_words(x$no.errors)))
  invisible(x)
}

# ---- tables ----------------------------------------------------------------------------------------------------------

# Bias and beta for each expert; for cosine routers norm and direction of beta, and centre and scale of the covariates.
gate_table <- function(fit) {
  bias <- rbind(`bias b` = fit$gate$b)
  if (fit$router$name == "linear") return(rbind(bias, fit$gate$beta))
  size <- if (fit$router$name == "perturbed_cosine") rbind(`norm of beta` = sqrt(colSums(fit$gate$beta^2)))
  direction <- unit_columns(fit$gate$u)
  table <- rbind(bias, size, direction)
  if (!fit$standardize) return(table)
  blank <- rep(NA_real_, nrow(table) - nrow(direction))
  center <- ifelse(abs(fit$z_center) < 1e-12 * fit$z_scale, 0, fit$z_center)
  cbind(table, center = c(blank, center), scale = c(blank, fit$z_scale))
}

unit_columns <- function(u) {
  size <- sqrt(colSums(u^2))
  u / rep(ifelse(size > 0, size, 1), each = nrow(u))
}

gate_title <- function(x) {
  if (x$router$name == "linear") return("Gate: bias and beta")
  covariates <- if (x$standardize) ", for (covariate - center) / scale" else ""
  size <- if (x$router$name == "perturbed_cosine") ", norm" else ""
  paste0("Gate: bias", size, " and direction of beta", covariates)
}

contrasts_title <- function(x) {
  what <- if (x$router$name == "linear") "beta" else "u"
  sprintf("Gate: bias and %s, minus their mean over the experts (standard errors)", what)
}

# Estimates, standard errors and t tests against zero of coef(fit, "identifiable"), and the reasons when there are none.
coefficient_tests <- function(fit, env) {
  estimate <- coef(fit, "identifiable")
  info <- tryCatch(information(fit, env), cosmoe_error_data = function(e) {
    list(irregular = sub("^The", "the", sub("[.]$", "", conditionMessage(e))))
  })
  error <- suppressWarnings(sqrt(diag(covariance(fit, info))))
  t <- ifelse(error > 0, estimate / error, NA)
  p <- 2 * stats::pt(-abs(t), if (is_em(fit)) Inf else max(fit$df.residual, 1))
  coefficients <- cbind(Estimate = estimate, `Std. Error` = error, `t value` = t, `Pr(>|t|)` = p)
  if (is_em(fit)) colnames(coefficients)[3:4] <- c("z value", "Pr(>|z|)")
  list(
    coefficients = coefficients,
    reasons = info$irregular
  )
}

is_weighted <- function(fit) !is.null(fit$weights) || isTRUE(fit$source$weighted)

r_squared <- function(fit) {
  if (is_streamed(fit)) return(1 - fit$sse / fit$source$tss)
  w <- if (is.null(fit$weights)) rep(1, length(fit$y)) else fit$weights
  1 - fit$sse / sum(w * (fit$y - stats::weighted.mean(fit$y, w))^2)
}

# ---- words -----------------------------------------------------------------------------------------------------------

count_words <- function(n, what, plural = paste0(what, "s")) paste(n, if (n == 1L) what else plural)

fit_words <- function(x, digits) {
  show <- function(value) format(value, digits = digits)
  if (is_em(x)) {
    bic <- -2 * x$loglik + log(x$nobs) * x$df
    return(sprintf(
      "%s, %s; log-likelihood %s, AIC %s, BIC %s%s", count_words(x$nobs, "row"),
      count_words(x$df, "identifiable parameter"), show(x$loglik), show(-2 * x$loglik + 2 * x$df), show(bic),
      if (is.null(x$icl)) "" else paste(", ICL", show(x$icl))
    ))
  }
  sprintf(
    "%s, %s; %ssum of squares %s, residual standard deviation %s on %s",
    count_words(x$nobs, "row"), count_words(x$df, "identifiable parameter"),
    if (is_weighted(x) || isTRUE(x$weighted)) "weighted " else "",
    show(x$sse), if (is.nan(x$sigma)) "not estimable" else show(x$sigma),
    count_words(x$df.residual, "degree of freedom", "degrees of freedom")
  )
}

omitted_words <- function(x) {
  omitted <- if (is_streamed(x)) x$source$dropped else length(x$na.action)
  if (omitted) sprintf("; %s with missing values left out", count_words(omitted, "row"))
}

convergence_words <- function(convergence) {
  passes <- count_words(convergence$passes, "pass", "passes")
  method <- convergence$optimizer
  how <- if (length(method)) sprintf(" (%s)", method) else ""
  words <- switch(convergence$status,
    degenerate = sprintf("DEGENERATE after %s over the data%s: %s", passes, how, convergence$message),
    converged = sprintf("Converged after %s over the data%s", passes, how),
    max_passes = sprintf("NOT CONVERGED: stopped after %s over the data%s, the limit", passes, how),
    stalled = sprintf("NOT CONVERGED: no further progress after %s over the data%s", passes, how),
    interrupted = sprintf("UNFINISHED: interrupted; the best fit after %s over the data%s", passes, how),
    sprintf("Status %s after %s over the data%s", convergence$status, passes, how)
  )
  paste0(words, ".")
}

# "7 of 50 starts reached the best sum of squares; the second-best optimum is 1.2% higher."
starts_words <- function(starts, likelihood = FALSE) {
  best <- sum(starts$reached_best)
  what <- if (likelihood) "log-likelihood" else "sum of squares"
  words <- sprintf("%d of %s reached the best %s", best, count_words(nrow(starts), "start"), what)
  others <- starts$objective[!starts$reached_best & starts$status %in% "converged"]
  lowest <- min(starts$objective, na.rm = TRUE)
  if (likelihood && length(others)) {
    below <- (min(others) - min(starts$objective[starts$reached_best])) / 2
    return(sprintf("%s; the second-best optimum is %s lower.", words, format(below, digits = 2L)))
  }
  if (length(others) == 0L || lowest <= 0) return(paste0(words, "."))
  ratio <- min(others) / lowest
  how <- if (ratio < 2) {
    paste0(format(100 * (ratio - 1), digits = 2L), "% higher")
  } else {
    paste(format(ratio, digits = 2L), "times as high")
  }
  sprintf("%s; the second-best optimum is %s.", words, how)
}

runaway_words <- function(has) {
  paste0(
    has, " little weight and huge values: the solution lies at or near infinity. Trust fitted values only; bounds ",
    "(see moe_control) or another scale may help."
  )
}

extreme_words <- function(has) {
  paste(
    has, "means a thousand times beyond all responses in rows where the gate gives weight: no data support them, and",
    "neither fitted values nor predictions are to be trusted in such rows. Fewer experts, or bounds (see moe_control),",
    "may help."
  )
}

# "Gate 2 is ...", "Gates 1 and 3 are ...".
about <- function(what, index, one, many) {
  if (length(index) == 0L) return(NULL)
  several <- length(index) > 1L
  paste0(what, if (several) "s", " ", enumerate(index, quote = "", max = Inf), " ", if (several) many else one)
}

# Everything unusual about the solution, one sentence each.
fit_notes <- function(fit) {
  found <- fit$diagnostics
  infinite <- fit$router$name == "perturbed_cosine" && is.infinite(fit$control$bound_gate)
  c(
    about("Expert", found$empty, "has lost all weight: fewer experts fit as well.",
          "have lost all weight: fewer experts fit as well."),
    about("Expert", found$extreme, extreme_words("has"), extreme_words("have")),
    about("Expert", setdiff(found$runaway, found$extreme), runaway_words("has"), runaway_words("have")),
    about("Expert", setdiff(which(fit$gate_mean < 0.01), c(found$empty, found$runaway)),
          "has less than 1% of the weight: its coefficients are hard to determine.",
          "have less than 1% of the weight: their coefficients are hard to determine."),
    about("Expert", sort(unique(unlist(found$coincident))), "coincides with another.",
          "coincide: fewer experts fit as well."),
    if (infinite) {
      about("Gate", found$boundary, "is on the boundary: infinite beta, of which only the direction counts.",
            "are on the boundary: infinite beta, only directions count.")
    } else {
      about("Gate", found$boundary, "is on its bound, `bound_gate`.", "are on their bound, `bound_gate`.")
    },
    if (isTRUE(found$unordered) && !is_streamed(fit)) {
      paste(
        "Scores of the gate tie in some rows, where the first of the experts wins: they are not in order of their",
        "weights."
      )
    },
    about("Expert", found$outside, outside_words("has"), outside_words("have")),
    if (length(found$spike)) spike_words(fit),
    separated_response_words(fit),
    about("Expert", setdiff(few_rows(fit), found$spike),
          "has hardly more rows than parameters: a likelihood can have such maxima anywhere.",
          "have hardly more rows than parameters: a likelihood can have such maxima anywhere."),
    about("Expert", found$expert_bound, "is on its bound, `bound_expert`.", "are on their bound, `bound_expert`."),
    if (isTRUE(found$nonunique)) nonunique_words(fit$convergence$certificate$null_directions),
    if (turns_freely(fit)) {
      paste(
        "With fewer experts than covariates the gates of a cosine router can be turned together: only their contrasts",
        "are determined, directions are one choice (see canonicalize)."
      )
    },
    if (!is_em(fit)) range_words(fit),
    if (!is_em(fit) && isTRUE(r_squared(fit) < 0)) {
      "The fit is worse than a constant: it has diverged or not begun to converge. Try other settings or more starts."
    }
  )
}

outside_words <- function(has) {
  paste(
    has, "means that the family does not allow in rows where it has weight: the likelihood has edges there, at which a",
    "run may stop below the maximum. Try a link that keeps to the range."
  )
}

# Experts with a dispersion of their own that explain few rows well: spurious maxima of the likelihood.
few_rows <- function(fit) {
  if (!is_em(fit) || fit$k < 2L || !identical(fit$dispersions, "free")) return(integer())
  unname(which(fit$gate_mean * fit$nobs < 2 * (nrow(fit$experts) + 1L)))
}

# As in logistic regression, coefficients of experts that tell failures from successes exactly are infinite.
separated_response_words <- function(fit) {
  if (!is_em(fit) || fit$family$name != "binomial") return(NULL)
  sure <- if (is_streamed(fit)) fit$source$sure else mean(pmin(fit$fitted.values, 1 - fit$fitted.values) < 1e-4)
  if (sure < 0.5) return(NULL)
  sprintf(
    "Fitted probabilities of %.0f%% of the rows are 0 or 1: the response is separated, coefficients are at infinity.",
    100 * sure
  )
}

spike_words <- function(fit) {
  gaussian <- fit$family$name == "gaussian"
  about(if (gaussian) "Sigma of expert" else "Shape of expert", fit$diagnostics$spike,
        paste("is at its", if (gaussian) "lower" else "upper", "bound: the likelihood grows without limit. Try",
              "sigma = \"equal\" or fewer experts."),
        paste("are at their", if (gaussian) "lower" else "upper", "bounds: the likelihood grows without limit. Try",
              "sigma = \"equal\" or fewer experts."))
}

# Reasons that concern gates or experts stand in notes of their own.
no_errors_words <- function(reasons) {
  if (length(reasons) == 0L) return(NULL)
  if (any(grepl("^(gate|expert)s? [0-9]", reasons))) {
    return("For these reasons there are no standard errors: see ?vcov.cosine_moe.")
  }
  paste0("No standard errors: ", paste(reasons, collapse = "; "), ".")
}

nonunique_words <- function(null_directions) {
  if (isTRUE(null_directions == 0)) {
    return(paste(
      "The solution is not unique: with as many experts as covariates a cosine gate has a mirror image that gives the",
      "same fit. Gates are one choice of two."
    ))
  }
  where <- if (length(null_directions)) paste(" in", count_words(null_directions, "direction"))
  paste0("The solution is not unique, the fit flat", where, ": coefficients are one choice.")
}

# A weighted mean of experts stays in their range.
range_words <- function(fit) {
  range <- expert_range(fit$expert)
  y <- if (is.null(fit$offset)) fit$y else fit$y - fit$offset
  outside <- if (is_streamed(fit)) fit$source$outside else mean(y < range[1L] | y > range[2L])
  if (!isTRUE(outside > 0.05)) return(NULL)
  sprintf(
    "%s%% of the responses lie outside the range of the experts, from %s to %s: no such fit can reach them.",
    format(100 * outside, digits = 2L), format(range[1L], digits = 2L), format(range[2L], digits = 2L)
  )
}

# ---- lines on the screen ---------------------------------------------------------------------------------------------

line_width <- function() min(80L, getOption("width"))

# One paragraph, wrapped; further lines are indented.
print_line <- function(..., bullet = "") {
  cat(strwrap(paste0(bullet, ...), width = line_width(), exdent = 2L), sep = "\n")
}

print_head <- function(x, digits) {
  how <- if (is_em(x)) sprintf("maximum likelihood, %s(%s)", x$family$name, x$family$link) else "least squares"
  cat("Mixture-of-experts regression, ", how, "\n\nCall:\n", sep = "")
  cat(strwrap(deparse1(x$call), width = line_width(), exdent = 4L), sep = "\n")
  covariates <- function(names) count_words(length(names), "covariate")
  cat("\n")
  print_line("Experts: ", x$k, " x ", format(x$expert), ", ", covariates(x$names$x))
  print_line(
    "Router: ", format(x$router, digits = digits), ", ", covariates(x$names$z),
    if (x$standardize && x$router$name != "linear") ", standardized"
  )
  if (is_streamed(x)) print_line(source_words(x$source))
}

# "Data streamed: 1,000 rows in 10 chunks (a query)".
source_words <- function(source) {
  count <- function(n, what) paste0(format(n, big.mark = ",", scientific = FALSE), " ", what, if (n != 1) "s")
  sprintf("Data streamed: %s in %s (%s)", count(source$rows, "row"), count(source$chunks, "chunk"), source$description)
}

print_section <- function(title, table, digits) print_text(title, format_entries(table, digits))

print_text <- function(title, table, most_rows = 30L) {
  cat("\n", title, ":\n", sep = "")
  shown <- seq_len(min(nrow(table), most_rows))
  print(table[shown, , drop = FALSE], quote = FALSE, right = TRUE)
  more <- nrow(table) - length(shown)
  if (more > 0L) cat("  ... and ", count_words(more, "more row"), ": see coef()\n", sep = "")
}

# A table of estimates with standard errors and stars, which are the next rows of `tests` that go by the table's names.
print_tests <- function(title, table, tests, digits, above = NULL) {
  own <- match(names(by_column(table, if (is.null(above)) "gate" else "expert")), rownames(tests))
  error <- paste0(" (", format_entries(tests[own, 2L], 2L), ")")
  p <- tests[own, 4L]
  stars <- as.character(cut(ifelse(is.na(p), 1, p), c(-1, 0.001, 0.01, 0.05, 2), c("***", "** ", "*  ", "   ")))
  text <- array(paste0(format_entries(table, digits), error, stars), dim(table), dimnames(table))
  if (!is.null(above)) above <- array(paste0(format_entries(above, digits), "   "), dim(above), dimnames(above))
  print_text(title, rbind(above, text))
}

# Rows are in different units, so every number has its own digits; missing ones are left blank.
format_entries <- function(table, digits) {
  text <- sub("[.]$", "", formatC(table, digits = digits, format = "g", flag = "#"))
  text[is.na(table)] <- ""
  if (is.null(dim(table))) text else array(text, dim(table), dimnames(table))
}

# The same for the columns of a data frame, each in one unit.
format_numbers <- function(table, digits) {
  numbers <- vapply(table, is.double, NA)
  table[numbers] <- lapply(table[numbers], function(v) ifelse(is.na(v), "", format(signif(v, digits))))
  table
}

print_residuals <- function(x, digits) {
  if (is.null(x$residuals)) return(invisible())
  quartiles <- stats::quantile(x$residuals, na.rm = TRUE)
  names(quartiles) <- c("Min", "1Q", "Median", "3Q", "Max")
  cat("\n", if (x$weighted) "Weighted residuals" else "Residuals", ":\n", sep = "")
  print(zapsmall(quartiles, digits + 1L), digits = digits)
}

print_certificate <- function(certificate, digits, likelihood = FALSE) {
  if (length(certificate) == 0L) return(invisible())
  show <- function(value) format(value, digits = 2L)
  active <- certificate$active
  print_line(
    "Another step would lower the ", if (likelihood) "deviance" else "sum of squares", " by ",
    show(certificate$predicted_decrease), if (!likelihood) " residual variances", "; projected gradient ",
    show(certificate$projected_gradient),
    ". Active constraints: ", if (length(active)) paste(active, collapse = ", ") else "none", ". Smallest curvature ",
    show(certificate$smallest_curvature), ". Flat directions: the gate's own ", certificate$gauge,
    if (certificate$null_directions) sprintf(" and %d more.", certificate$null_directions) else ", no others.",
    bullet = "  "
  )
}

print_notes <- function(notes) {
  if (length(notes) == 0L) return(invisible())
  cat("\nPlease note:\n")
  for (note in notes) print_line(note, bullet = "* ")
}
