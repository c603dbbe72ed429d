# Where the asymptotic theory behind standard errors fails, in words; an empty vector where the solution itself gives no
# sign of that.
#
# The last three signs are matters of degree. In fits with as many experts as the truth all three are far from their
# limits; with an expert too many, at least one is beyond (tests/testthat/test-irregular.R, bench/study_coverage.R):
# then some directions enter f by their squares, and the linear terms that standard errors are made of are accidents.
irregularities <- function(fit, info) {
  reasons <- structural_irregularities(fit)
  # There the first derivatives vanish along what all gates have in common, but the fit is not flat.
  if (!at_cosine_limit(fit)) reasons <- c(reasons, flat_words(info$null))
  if (length(reasons)) return(reasons)
  if (is_em(fit)) return(c(separated_words(fit, info), certain_words(fit, info)))
  curvature <- eigen(info$hessian, symmetric = TRUE, only.values = TRUE)$values
  bent <- nonlinearity(fit, info) > most_nonlinearity
  separated <- separated_words(fit, info)
  c(
    if (min(curvature) < least_curvature || max(curvature) > 1 / least_curvature) {
      paste(
        "exact and expected information disagree, as with more experts than the data support, or with experts or a",
        "gate of the wrong form"
      )
    },
    separated,
    if (any(bent) && is.null(separated)) {
      paste(
        "within two standard errors the fit is far from linear in", count_words(sum(bent), "direction"),
        "of its parameters: the data hardly determine them"
      )
    }
  )
}

# Five rows in doubt for each parameter of a gate suffice: gates with fewer are flagged, steep ones with more cover.
separated_words <- function(fit, info) {
  if (fit$k == 1L || nrow(fit$gate$u) == 0L) return(NULL)
  contested <- contested_rows(fit, info)
  if (contested < 5 * (nrow(fit$gate$u) + 1L) && contested < fit$nobs / 2) {
    "the gate is nearly separable: hardly any row has doubts about its expert"
  }
}

# A binomial expert that foretells its rows without doubt has its maximum at infinity: it expects to be wrong less than
# once in a hundred such samples. A row of average weight counts as one.
certain_words <- function(fit, info) {
  if (fit$family$name != "binomial") return(NULL)
  rows <- sampled_rows(info$rows, 20000L)
  at <- predict_working(info, rows, info$par)
  values <- function(v, default) if (is.null(v)) default else v[rows$use]
  share <- mean_of_link(fit$family, at$expert + values(info$rows$offset, 0))
  weight <- rows$each * rows$w / mean(rows$w[rows$w > 0]) * values(info$rows$trials, 1)
  doubt <- colSums(weight * at$gate * share * (1 - share))
  sure <- which(doubt < 0.01)
  about("expert", sure, "foretells its responses without doubt", "foretell their responses without doubt")
}

# B'HB is the identity when the exact Hessian is the expected one.
least_curvature <- 0.5
# Of the second-order change of f within two standard errors, relative to the first-order change.
most_nonlinearity <- 2

structural_irregularities <- function(fit) {
  found <- fit$diagnostics
  c(
    if (!isTRUE(fit$convergence$converged)) "the fit has not converged",
    if (fit$df.residual < 1L) "there are no residual degrees of freedom",
    if (!is_em(fit) && isTRUE(fit$sigma == 0)) "the fit is perfect: there is no residual variance",
    if (is_sparse_router(fit$router, fit$k)) {
      what <- if (is_em(fit)) "likelihood" else "sum of squares"
      sprintf("the gate is sparse: the %s jumps where its choice of experts changes", what)
    },
    about("gate", found$boundary, "is on the boundary", "are on the boundary"),
    if (at_cosine_limit(fit)) "the gates are as far apart as a cosine router allows",
    about("expert", found$expert_bound, "is on its bound", "are on their bound"),
    about(
      "expert", found$outside, "has means that the family does not allow", "have means that the family does not allow"
    ),
    about("expert", found$empty, "has lost all weight", "have lost all weight"),
    about("expert", found$runaway, "has run off to infinity", "have run off to infinity"),
    about("expert", found$extreme, "has means far beyond the responses", "have means far beyond the responses"),
    about("expert", sort(unique(unlist(found$coincident))), "coincides with another", "coincide")
  )
}

# No more gates than covariates, with nothing in common: their contrasts are at the edge of what a sphere allows.
at_cosine_limit <- function(fit) {
  u <- fit$gate$u
  fit$router$name == "cosine" && fit$k >= 2L && fit$k <= nrow(u) && common_part(u) < 1e-3 * fit$router$scale
}

flat_words <- function(null) if (null > 0L) paste("the fit is flat in", count_words(null, "direction"))

# How far f is from linear within `reach` standard errors along each column of `root`: the norm of the change of second
# order relative to that of the first order. On at most 20,000 rows, evenly spread.
nonlinearity <- function(fit, info, reach = 2) {
  rows <- sampled_rows(info$rows, 20000L)
  f_at <- function(step) predict_working(info, rows, move_parameters(info$par, step, fit$router))$f
  f <- f_at(rep(0, nrow(info$root)))
  size <- reach * sqrt(info$variance)
  vapply(seq_len(ncol(info$root)), function(j) {
    step <- size * info$root[, j]
    second <- (f_at(step) + f_at(-step)) / 2 - f
    value <- sqrt(rows$each * sum(rows$w * second^2)) / size
    if (is.finite(value)) value else Inf
  }, 0)
}

# Rows in which no expert has more than 99% of the weight.
contested_rows <- function(fit, info) {
  rows <- sampled_rows(info$rows, 20000L)
  gate <- predict_working(info, rows, info$par)$gate
  largest <- gate[cbind(seq_len(nrow(gate)), max.col(gate, ties.method = "first"))]
  rows$each * sum(rows$w > 0 & largest < 0.99)
}

# Every so many-th row, each of which stands for `each`. Rows may stand for several themselves (R/fit-source.R).
sampled_rows <- function(rows, most) {
  n <- nrow(rows$x)
  use <- if (n > most) round(seq(1, n, length.out = most)) else seq_len(n)
  part <- take_rows(rows, use)
  part$w <- if (is.null(rows$w)) rep(1, length(use)) else rows$w[use]
  part$each <- (if (is.null(rows$each)) 1 else rows$each) * n / length(use)
  part$use <- use
  part
}

take_rows <- function(rows, use) {
  if (length(use) < nrow(rows$x)) {
    rows$x <- rows$x[use, , drop = FALSE]
    if (!is.null(rows$z)) rows$z <- rows$z[use, , drop = FALSE]
  }
  rows[c("x", "z", "x_center", "x_scale", "z_center", "z_scale")]
}

predict_working <- function(info, rows, par) {
  model <- info$model[c("router", "expert", "k")]
  core_call(core_predict(model, rows[names(rows) != "w"], par[c("u", "b", "eta")], info$threads))
}

# One warning for whatever rests on standard errors of an irregular fit.
warn_irregular <- function(reasons, what) {
  if (length(reasons) == 0L) return(invisible())
  warning(structure(
    class = c("cosmoe_warning_irregular", "cosmoe_warning", "warning", "condition"),
    list(message = paste0(what, ": ", paste(reasons, collapse = "; "), "."), call = NULL, reasons = reasons)
  ))
}
