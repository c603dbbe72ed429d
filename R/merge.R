#' Number of experts from one fit: merging its experts bottom-up
#'
#' @description
#' Takes a fit with more experts than needed and merges the two most similar ones again and again, down to one. The
#' heights of the merges draw a dendrogram, and a criterion reads the number of experts off it: no search for the
#' smaller models is needed.
#'
#' @param fit A fit from [fit_cosine_moe()] with at least two experts, by either method: rather too many experts than
#'   too few.
#' @param criterion `"DSC"`, the dendrogram selection criterion, which chooses among 2, ..., `fit$k` experts; `"BIC"`,
#'   that of the merged models after a refit, which may also choose a single expert. `NULL`, the default, is `"DSC"` for
#'   `method = "em"`, and `"BIC"` for least squares, for which DSC has no theory.
#' @param refit Whether all merged models are fitted again, each in one run from the merged parameters. By default only
#'   the chosen one is (and all for `"BIC"`).
#' @param penalty The weight omega of the mean log-likelihood in the criterion, a positive number; `NULL`, the default,
#'   for log(n), the one of the references.
#' @param x,object Result of `merge_experts()`.
#' @param which The panels to draw: `"tree"`, the dendrogram, and `"criterion"`.
#' @param digits Number of significant digits.
#' @param row.names,optional As for the generic function; they do nothing.
#' @param ... For `plot()`, graphical parameters for [graphics::par()]. Otherwise nothing: any further argument is an
#'   error.
#'
#' @details
#' *Distances.* In the references atoms i and j with masses \eqn{p_i, p_j} and parameters \eqn{\theta_i, \theta_j} are
#' at the distance \eqn{\|\theta_i - \theta_j\|^2 / (1/p_i + 1/p_j)}{|theta_i - theta_j|^2 / (1/p_i + 1/p_j)}, which is
#' \eqn{p_i \|\theta_i - \theta_*\|^2 + p_j \|\theta_j - \theta_*\|^2}{p_i |theta_i - theta_*|^2 + p_j |theta_j -
#' theta_*|^2} to the merged atom \eqn{\theta_*}, the mean of both with weights p. The norm of raw parameters depends
#' on the units of covariates and response and on the gauge of the gate. Here atoms are measured by what they say about
#' the rows, in the metric of the Fisher information. For `method = "em"` the distance d is the sum of three (weighted)
#' means over the rows:
#' * *experts*: squared differences of the linear predictors from the merged one, weighted by the gate of i where the
#'   difference is that of i, and by that of j for j, times the information about a predictor, \eqn{(d\mu/dh)^2 /
#'   V(\mu)}{(dmu/dh)^2 / V(mu)} (for the Gaussian family 1 over the mean variance of both);
#' * *dispersions* (one for each expert): the squared difference of the logarithms of sigma (or shape) times the
#'   information about it and \eqn{p_i p_j / (p_i + p_j)}{p_i p_j / (p_i + p_j)};
#' * *gates*: squared differences of the logits from the merged one, up to a constant (a constant is only a matter of
#'   masses), weighted in the same way and by 1 minus the joint weight of i and j: how the gate cuts
#'   between i and j does not matter to the merged model, how it separates them from the others does.
#'
#' For atoms whose gates cover the rows alike this is the references' formula in this metric. Least squares sees
#' nothing but the regression function: two different experts with the same gate are no more to it than their mean. So
#' there d is the mean squared change of the regression function by the merge, over the residual variance. Distances do
#' not change with the units of x, z and y, the gauge or the order of experts. Masses p are the mean gate weights; they
#' add up.
#'
#' *Heights* are log(1 + d): near d for small distances, to which the theory refers, and in general, with the variance
#' estimated anew, about twice the loss in mean log-likelihood. So the two terms of the criterion are in the same
#' unit; otherwise a few experts that are very far apart would decide alone.
#'
#' *Merged parameters.* Those of the experts are means with weights p, gate vectors are means whose weights are the
#' shares of i and j where both meet other experts (p where there are none), the bias is such that the masses of both
#' add up there; a dispersion takes up the scatter of both means. Units of networks are put in a
#' canonical order before, but networks and other experts with several equivalent parameters are averaged without any
#' theory behind it: look at the log-likelihoods. Least squares fits with more experts than the data need often have
#' experts that run off to infinity with a vanishing weight; their merges mean little (`notes` says so).
#'
#' *Criterion.* With \eqn{h_\kappa}{h_kappa} the height at which the model of \eqn{\kappa}{kappa} experts is merged next
#' and \eqn{\ell_\kappa}{l_kappa} its mean log-likelihood, without refit, DSC is \eqn{-(h_\kappa + \omega
#' \ell_\kappa)}{-(h_kappa + omega l_kappa)}; smallest is best. Below the true number experts that differ are merged
#' and the likelihood falls, above it heights are small. If it chooses all experts of the fit, begin with more. A
#' single expert has no next merge: whether one is enough is a question for `"BIC"`, [select_experts()] or
#' [test_experts()]. For least squares the log-likelihood is that of Gaussian errors with variance SSE / n. The theory
#' is for maximum likelihood with linear Gaussian experts.
#'
#' @section Which way to trust when:
#' The package ships a small study, `system.file("extdata", "select_experts.csv", package = "cosmoe")`: simulated data
#' with 1, 2 or 3 experts, well separated or overlapping; `vignette("choose-k")` shows its tables. BIC of a sweep
#' ([select_experts()]) finds the number most reliably, for both methods; BIC after merging and refitting a rich fit is
#' nearly as good. The dendrogram criterion is right for well separated experts by maximum likelihood, less so with few
#' rows or overlapping experts, cannot say 1, and is not to be trusted for least squares. ICL counts clusters: it is
#' right where experts are well separated, and takes overlapping ones for one. AIC takes too many. Cross-validation
#' agrees with BIC and costs several times as much.
#'
#' @return An object of class `merge_experts`, a list: `k`, the chosen number of experts; `criterion`; `table`, a data
#'   frame with a row for each number of experts (`k`, `height` of its next merge, `logLik` of the merged model, `DSC`,
#'   and after a refit `df`, `logLik_refit`, `BIC`, `status`); `merges`, a data frame with a row for each merge
#'   (`first` and `second`, the experts of the fit on its two sides, and `height`); `tree`, an object of class
#'   [stats::hclust()] (its heights are made non-decreasing); `models`, the merged models by number of experts, each
#'   with `gate`, `experts`, `dispersion`, `mass` and `members`; `best`, the refitted model with k experts, a
#'   `cosine_moe` as from [fit_cosine_moe()]; `fits`, all refitted models (with `refit`); `notes`, reasons in words to
#'   mistrust the heights. [stats::as.dendrogram()] gives
#'   the tree as a dendrogram, `as.data.frame()` the table. A model that cannot be fitted again has `NA` there. Bad
#'   arguments stop with a `cosmoe_error_input`, data that cannot be found again with a `cosmoe_error_data`.
#'
#' @references Do, D., Do, L., McKinley, S. A., Terhorst, J. and Nguyen, X. (2024). Dendrogram of mixing measures:
#' hierarchical clustering and model selection for finite mixture models. arXiv:2403.01684.
#'
#' @references Hai, D. T., Mai, T. N., Nguyen, T., Ho, N., Nguyen, B. T. and Drovandi, C. (2025). Dendrograms of mixing
#' measures for softmax-gated Gaussian mixture of experts: consistency without model sweeps. arXiv:2510.12744.
#'
#' @seealso [select_experts()], [test_experts()], [canonicalize()].
#' @examples
#' set.seed(1)
#' x <- runif(300, -1, 1)
#' y <- ifelse(runif(300) < plogis(6 * x), 1 + x, -1 + x) + rnorm(300, sd = 0.2)
#' rich <- fit_cosine_moe(y ~ x,
#'   k = 4, method = "em", router = "linear", control = moe_control(n_starts = 8)
#' )
#' merged <- merge_experts(rich)
#' merged
#' plot(merged)
#' coef(merged$best, "experts")
#' @export
merge_experts <- function(fit, criterion = NULL, refit = FALSE, penalty = NULL, ...) {
  if (missing(fit)) stop_input("fit", I("missing"), "made by fit_cosine_moe()")
  check_dots_empty(...)
  check_mergeable(fit)
  if (is.null(criterion)) criterion <- if (is_em(fit)) "DSC" else "BIC"
  criterion <- check_choice(criterion, c("DSC", "BIC"))
  refit <- check_flag(refit) || criterion == "BIC"
  omega <- if (is.null(penalty)) log(fit$nobs) else check_number(penalty, 0, strict = TRUE)
  data <- refit_data(fit, parent.frame())
  steps <- merge_down(fit, data)
  table <- merge_table(steps, omega, if (is.null(data$w) || !is_em(fit)) fit$nobs else sum(data$w))
  chosen <- if (criterion == "DSC") table$k[which.min(table$DSC)]
  wanted <- if (refit) table$k else chosen
  fits <- refit_all(wanted, steps$models, fit, data)
  if (refit) table <- cbind(table, refit_columns(fits))
  if (criterion == "BIC") chosen <- table$k[choose_row(table, "BIC")]
  best <- fits[[as.character(chosen)]]
  structure(
    list(
      call = match.call(), k = chosen, criterion = criterion, penalty = omega, table = table, merges = steps$merges,
      tree = merge_tree(steps$merges, colnames(fit$experts)), models = lapply(steps$models, plain_model),
      best = if (is_fit(best)) best, fits = if (refit) fits, notes = c(merge_notes(fit), refit_note(best, chosen))
    ),
    class = "merge_experts"
  )
}

refit_note <- function(best, k) {
  if (is_fit(best)) return(character())
  sprintf("There is no `best`: the model with k = %d cannot be refitted (%s)", k, conditionMessage(best))
}

# What makes heights hard to read.
merge_notes <- function(fit) {
  found <- fit$diagnostics
  c(
    if (length(found$runaway)) {
      "experts run off to infinity: their merges mean little; see `bound_expert` in moe_control()"
    },
    if (length(found$spike)) "the fit is degenerate: the likelihood of an expert at its bound means little",
    if (is_sparse_router(fit$router, fit$k)) "the gate is sparse: smaller models are no special cases of larger ones"
  )
}

check_mergeable <- function(fit) {
  expected <- "a fit from fit_cosine_moe() with at least two experts"
  if (!is_fit(fit)) stop_input("fit", fit, expected)
  if (fit$k < 2L) stop_input("fit", I("one with a single expert"), expected)
}

# ---- merging ---------------------------------------------------------------------------------------------------------

# Merges the experts of a fit down to one. A list: `models`, by number of experts, as merging_model() makes them, with
# logLik; `merges`.
merge_down <- function(fit, data) {
  model <- merging_model(fit, data)
  # Values at the rows are large, and not needed again.
  parameters <- function() list(model[setdiff(names(model), "at")])
  models <- parameters()
  merges <- list()
  while (model$k > 1L) {
    cost <- merge_costs(model, data)
    least <- which.min(cost)
    pair <- arrayInd(least, dim(cost))
    merges[[length(merges) + 1L]] <- list(sides = model$members[pair], height = cost[least])
    model <- merge_pair(model, pair, data)
    models <- c(models, parameters())
  }
  names(models) <- vapply(models, function(model) model$k, 0L)
  list(models = models, merges = merge_rows(merges))
}

merge_rows <- function(merges) {
  side <- function(merge, i) paste(sort(merge$sides[[i]]), collapse = "+")
  data.frame(
    first = vapply(merges, side, "", 1L), second = vapply(merges, side, "", 2L),
    height = vapply(merges, function(merge) merge$height, 0)
  )
}

# A fit as a model whose experts can be merged: what evaluate_model() needs, masses, members (experts of the fit), and
# its values at the rows. Of several equivalent parameters of an expert the canonical ones are taken.
merging_model <- function(fit, data) {
  model <- unclass(fit)[c(
    "gate", "experts", "router", "expert", "k", "z_center", "z_scale", "method", "family", "dispersions", "dispersion",
    "control", "sse", "nobs"
  )]
  model$gate <- lapply(model$gate, unname)
  model$experts <- unname(canonical_experts(unname(fit$experts), fit$expert))
  model["dispersion"] <- list(unname(fit$dispersion))
  model$mass <- unname(fit$gate_mean)
  model$members <- as.list(seq_len(fit$k))
  evaluated(model, data)
}

# With `at`, the values at the rows, and logLik.
evaluated <- function(model, data) {
  model$at <- evaluate_model(model, data, model$control$threads)
  w <- row_weights(data)
  if (is_em(model)) {
    joint <- log_sum_rows(log_joint(model, model$at, data))
    model$logLik <- sum(ifelse(w > 0, w * joint, 0))
  } else {
    model$logLik <- gaussian_loglik(sum(w * (data$y - model$at$response)^2), model$nobs, data$w)
  }
  model
}

# The heights of all merges of two experts, log(1 + distance), a k x k matrix (missing on and below the diagonal).
merge_costs <- function(model, data) {
  cost <- matrix(NA_real_, model$k, model$k)
  for (i in seq_len(model$k - 1L)) {
    for (j in seq.int(i + 1L, model$k)) {
      height <- log1p(merge_cost(model, c(i, j), data))
      # Values that overflow are far apart.
      cost[i, j] <- if (is.na(height)) Inf else height
    }
  }
  cost
}

# The distance of two experts.
merge_cost <- function(model, pair, data) {
  w <- row_weights(data)
  if (!is_em(model)) {
    # Of an exact fit the changes count relative to the response.
    variance <- max(model$sse / sum(w), 1e-12 * stats::var(data$y), 1e-300)
    return(sum(w * (merge_pair(model, pair, data)$at$response - model$at$response)^2) / sum(w) / variance)
  }
  gate <- model$at$gate[, pair]
  share <- pair_shares(model, pair)
  # Distances to the merged one: of the first, the second's share of the difference.
  spread <- function(weight, difference, by) {
    sum(w * (weight[, 1L] * by[2L]^2 + weight[, 2L] * by[1L]^2) * difference^2) / sum(w)
  }
  link <- model$at$link[, pair]
  experts <- spread(gate * predictor_information(model, pair, data), link[, 1L] - link[, 2L], share)
  meeting <- meeting_weights(model, pair, w)
  contrast <- model$at$logit[, pair[1L]] - model$at$logit[, pair[2L]]
  contrast <- contrast - sum(meeting$rows * contrast) / sum(meeting$rows)
  others <- pmax(1 - rowSums(gate), 0)
  gates <- if (meeting$alone) 0 else spread(gate * others, contrast, meeting$share)
  experts + gates + dispersion_distance(model, pair)
}

pair_shares <- function(model, pair) {
  mass <- pmax(model$mass[pair], 1e-300)
  mass / sum(mass)
}

# Where the pair meets other experts: weights of the rows, and the shares of the two in them. Without others (`alone`)
# its own rows and masses.
meeting_weights <- function(model, pair, w) {
  gate <- model$at$gate[, pair]
  both <- rowSums(gate)
  rows <- w * both * pmax(1 - both, 0)
  if (sum(rows) <= 1e-10 * sum(w)) {
    return(list(rows = w * pmax(both, 1e-300), share = pair_shares(model, pair), alone = TRUE))
  }
  first <- sum(rows * ifelse(both > 0, gate[, 1L] / both, 0)) / sum(rows)
  list(rows = rows, share = c(first, 1 - first), alone = FALSE)
}

# The Fisher information of each row about a predictor halfway between the two.
predictor_information <- function(model, pair, data) {
  middle <- rowMeans(model$at$link[, pair])
  share <- pair_shares(model, pair)
  dispersion <- switch(model$family$name,
    gaussian = sqrt(sum(share * model$dispersion[pair]^2)), Gamma = 1 / sum(share / model$dispersion[pair])
  )
  trials <- if (is.null(data$trials)) 1 else data$trials
  mean <- mean_of_link(model$family, middle)
  value <- trials * link_slope(model$family, middle)^2 / response_variance(model$family, mean, dispersion)
  ifelse(is.finite(value) & value > 0, value, 0)
}

dispersion_distance <- function(model, pair) {
  if (!identical(model$dispersions, "free")) return(0)
  level <- log(model$dispersion[pair])
  shape <- exp(mean(level))
  information <- if (model$family$name == "gaussian") 2 else shape^2 * trigamma(shape) - shape
  prod(pair_shares(model, pair)) * sum(model$mass[pair]) * information * diff(level)^2
}

# The model with the two experts merged, in the place of the first.
merge_pair <- function(model, pair, data) {
  i <- pair[1L]
  j <- pair[2L]
  w <- row_weights(data)
  share <- pair_shares(model, pair)
  meeting <- meeting_weights(model, pair, w)
  old <- model
  u <- drop(model$gate$u[, pair, drop = FALSE] %*% meeting$share)
  score <- sweep(model$at$logit[, pair], 2L, model$gate$b[pair])
  score <- drop(score %*% meeting$share)
  size <- sqrt(sum(u^2))
  if (model$router$name == "cosine" && size > 0) {
    u <- u * model$router$scale / size
    score <- score * model$router$scale / size
  }
  joint <- log_sum_rows(model$at$logit[, pair])
  model$gate$u[, i] <- u
  model$gate$b[i] <- sum(meeting$rows * (joint - score)) / sum(meeting$rows)
  model$experts[, i] <- model$experts[, pair, drop = FALSE] %*% share
  model$mass[i] <- sum(model$mass[pair])
  model$members[[i]] <- unlist(model$members[pair])
  keep <- seq_len(model$k) != j
  model$gate <- list(u = model$gate$u[, keep, drop = FALSE], b = model$gate$b[keep])
  model$experts <- model$experts[, keep, drop = FALSE]
  model[c("mass", "members")] <- list(model$mass[keep], model$members[keep])
  model$k <- model$k - 1L
  if (!is.null(model$router$top_k)) model$router$top_k <- min(model$router$top_k, model$k)
  merged <- evaluate_model(model, data, model$control$threads)
  model["dispersion"] <- list(merged_dispersion(model, old, pair, merged$expert[, i], w))
  evaluated(model, data)
}

# Dispersions after a merge: that of the merged expert has the variance (squared coefficient of variation) of both, and
# that of their means round the merged one.
merged_dispersion <- function(model, old, pair, mean, w) {
  if (!length(old$dispersion)) return(NULL)
  gaussian <- model$family$name == "gaussian"
  variance <- if (gaussian) old$dispersion^2 else 1 / old$dispersion
  weight <- w * old$at$gate[, pair]
  scatter <- (old$at$expert[, pair] - mean)^2
  if (!gaussian) scatter <- scatter / mean^2
  scatter <- colSums(weight * scatter) / pmax(colSums(weight), 1e-300)
  mass <- old$mass[pair]
  if (model$dispersions == "equal") {
    all <- variance[1L] + sum(mass * scatter) / sum(old$mass)
    merged <- rep(all, model$k)
  } else {
    merged <- variance[-pair[2L]]
    merged[pair[1L]] <- sum(mass * (variance[pair] + scatter)) / sum(mass)
  }
  if (gaussian) sqrt(merged) else 1 / merged
}

# Starts with one expert less: the cheapest merges of two experts of the fit.
merged_starts <- function(fit, data, count = 3L) {
  model <- merging_model(fit, data)
  cost <- merge_costs(model, data)
  cheapest <- utils::head(order(cost), min(count, sum(!is.na(cost))))
  lapply(cheapest, function(cell) model_start(merge_pair(model, arrayInd(cell, dim(cost)), data)))
}

model_start <- function(model) {
  phi <- model$dispersion
  if (length(phi)) phi <- log(if (model$dispersions == "equal") phi[1L] else phi)
  list(u = model$gate$u, b = model$gate$b, experts = model$experts, phi = phi)
}

# ---- results ---------------------------------------------------------------------------------------------------------

merge_table <- function(steps, omega, size) {
  k <- vapply(steps$models, function(model) model$k, 0L, USE.NAMES = FALSE)
  loglik <- vapply(steps$models, function(model) model$logLik, 0, USE.NAMES = FALSE)
  height <- c(steps$merges$height, NA)
  data.frame(k = k, height = height, logLik = loglik, DSC = -(height + omega * loglik / size))[order(k), ]
}

# One run from the merged parameters.
refit_merged <- function(model, fit, data) {
  call <- fit$call
  call$start <- NULL
  settings <- refit_settings(fit)
  # A sparse gate cannot choose more experts than are left.
  if (!is.null(settings$router$top_k)) settings$router$top_k <- min(settings$router$top_k, model$k)
  try_fit(data, settings, model$k, call, model_start(model))
}

# Refits by number of experts. After an interrupt the others are conditions that say so.
refit_all <- function(wanted, models, fit, data) {
  fits <- list()
  for (k in wanted) {
    stopped <- any(vapply(fits, is_interrupted, NA))
    fits[[as.character(k)]] <- if (k == fit$k) {
      fit
    } else if (stopped) {
      simpleCondition("interrupted")
    } else {
      refit_merged(models[[as.character(k)]], fit, data)
    }
  }
  fits
}

refit_columns <- function(fits) {
  value <- function(name) {
    vapply(fits, function(fit) if (is_fit(fit)) as.double(information_criteria(fit)[[name]]) else NA_real_, 0)
  }
  data.frame(
    df = value("df"), logLik_refit = value("logLik"), BIC = value("BIC"),
    status = vapply(fits, function(fit) if (is_fit(fit)) fit$convergence$status else conditionMessage(fit), ""),
    row.names = NULL
  )
}

# What a user may want of a merged model.
plain_model <- function(model) {
  list(gate = model$gate, experts = model$experts, dispersion = model$dispersion, mass = model$mass,
       members = model$members)
}

# An hclust object: merges of single experts (negative) and of earlier merges (positive).
merge_tree <- function(merges, labels) {
  sides <- lapply(c("first", "second"), function(side) match_sides(merges, side))
  merge <- do.call(cbind, sides)
  leaves <- function(node) if (node < 0L) -node else unlist(lapply(merge[node, ], leaves))
  structure(
    list(
      merge = merge, height = cummax(merges$height), order = leaves(nrow(merge)), labels = labels, method = "merge",
      dist.method = "Fisher information", call = quote(merge_experts())
    ),
    class = "hclust"
  )
}

match_sides <- function(merges, side) {
  joined <- vapply(seq_len(nrow(merges)), function(row) {
    parts <- unlist(strsplit(unlist(merges[row, c("first", "second")]), "+", fixed = TRUE))
    paste(sort(as.integer(parts)), collapse = "+")
  }, "")
  node <- match(merges[[side]], joined)
  ifelse(is.na(node), -suppressWarnings(as.integer(merges[[side]])), node)
}

#' @rdname merge_experts
#' @export
print.merge_experts <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  print_line(sprintf("Experts merged from %d down to 1; chosen by %s: k = %d", max(x$table$k), x$criterion, x$k))
  cat("\n")
  print(format_numbers(x$table, digits), row.names = FALSE)
  print_line("height: of the next merge; logLik: of the merged model as it is")
  if (length(x$notes)) print_notes(x$notes)
  invisible(x)
}

#' @rdname merge_experts
#' @export
as.data.frame.merge_experts <- function(x, row.names = NULL, optional = FALSE, ...) x$table

#' @rdname merge_experts
#' @importFrom stats as.dendrogram
#' @export
as.dendrogram.merge_experts <- function(object, ...) {
  check_dots_empty(...)
  stats::as.dendrogram(object$tree)
}

#' @rdname merge_experts
#' @export
plot.merge_experts <- function(x, which = c("tree", "criterion"), ...) {
  if (length(which) == 0L || !all(which %in% c("tree", "criterion"))) {
    stop_input("which", which, "among \"tree\" and \"criterion\"")
  }
  old <- panel_style(length(unique(which)), ...)
  on.exit(graphics::par(old))
  for (panel in unique(which)) {
    switch(panel,
      tree = draw_tree(x),
      criterion = draw_criteria(
        x$table[x$criterion], x$table$k, x$k, if (x$criterion == "DSC") "Dendrogram criterion" else "BIC after refit"
      )
    )
  }
  invisible(x)
}

# The tree cut at the chosen number of experts.
draw_tree <- function(x) {
  tree <- x$tree
  k <- length(tree$order)
  top <- max(tree$height)
  open_panel("Merged experts", c(0.6, k + 0.4), c(0, 1.05 * top), "expert", "height (Fisher information)",
             x_axis = as.character(tree$order))
  at <- numeric(k - 1L)
  place <- function(node) if (node < 0L) c(match(-node, tree$order), 0) else c(at[node], tree$height[node])
  for (node in seq_len(k - 1L)) {
    ends <- vapply(tree$merge[node, ], place, numeric(2L))
    at[node] <- mean(ends[1L, ])
    above <- node > k - x$k
    graphics::lines(rep(ends[1L, ], each = 2L), c(ends[2L, 1L], rep(tree$height[node], 2L), ends[2L, 2L]),
                    lwd = 2, col = if (above) "grey60" else okabe_ito[1L])
  }
  cut <- if (x$k == 1L) NULL else mean(c(tree$height[k - x$k + 1L], if (x$k < k) tree$height[k - x$k] else 0))
  if (!is.null(cut)) {
    graphics::abline(h = cut, lty = 2)
    graphics::mtext(sprintf("k = %d", x$k), 4L, at = cut, las = 1L, line = 0.1, cex = 0.75 * graphics::par("cex"))
  }
}
