#' Pictures of a mixture of experts
#'
#' @description
#' Draws one or several of four panels:
#'
#' * `"fitted"`: observed against fitted values, coloured by the most probable expert; the line is equality;
#' * `"covariate"`: along one covariate, with the others held at typical values, the curve of each expert, wide where
#'   the gate favours it, the regression function in black, and below them the shares of the experts in the gate;
#' * `"residuals"`: residuals (least squares: Pearson residuals) against fitted values, with a smooth;
#' * `"starts"`: the sum of squares that each start reached, as a multiple of the best, coloured by kind of start;
#'   filled points reached the best.
#'
#' @param x A fit from [fit_cosine_moe()].
#' @param which The panels to draw, by name. More than one share the page; a single one goes wherever the device's
#'   layout (`par(mfrow)`, `layout()`) puts it.
#' @param covariate For `"covariate"`, the name of a covariate as the user supplies it (`age`, not `log(age)`): numbers,
#'   dates, a factor, strings or logical values, but no matrix of several columns. By default the one along which the
#'   gate changes most; where there is none, the panel is left out.
#' @param ... Graphical parameters for [graphics::par()], such as `cex` or `mar`.
#'
#' @details
#' Typical values are medians, and the most frequent level of factors. Curves leave offsets out; experts of which
#' nothing is in view are named below the panel. Colours are those of Okabe and Ito, which colour-blind readers can tell
#' apart; from the eighth expert on they repeat. Above 20,000 rows, points are drawn for an evenly spread part of them.
#' Colours in `"fitted"` and the points in `"covariate"` need the data of the fit again (see [predict.cosine_moe()]);
#' without them the panel is drawn in one colour, or without points.
#'
#' @return `x`, invisibly. The device's parameters are put back. A `covariate` that the model does not have, or that
#'   cannot be drawn, stops with a `cosmoe_error_input`, as does asking for this panel alone where there is none.
#'
#' @seealso [summary.cosine_moe()], [predict.cosine_moe()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, k = 2, control = moe_control(n_starts = 5))
#' plot(fit)
#' plot(fit, which = "covariate", covariate = "speed")
#' @export
plot.cosine_moe <- function(x, which = c("fitted", "covariate", "residuals", "starts"), covariate = NULL, ...) {
  panels <- c("fitted", "covariate", "residuals", "starts")
  if (length(which) == 0L || !all(which %in% panels)) {
    stop_input("which", which, paste("among", enumerate(panels, "\"")))
  }
  which <- unique(which)
  if (any(which != "starts")) check_rows(x, "Every panel but \"starts\"")
  if ("covariate" %in% which) {
    covariate <- check_covariate(x, covariate)
    if (is.null(covariate)) which <- setdiff(which, "covariate")
    if (length(which) == 0L) stop_input("which", "covariate", "another panel, since no covariate can be drawn")
  }
  data <- if (any(c("fitted", "covariate") %in% which)) quiet_training(x, parent.frame())
  old <- panel_style(length(which), ...)
  on.exit(graphics::par(old))
  for (panel in which) {
    switch(panel,
      fitted = draw_fitted(x, data),
      covariate = draw_covariate(x, covariate, data),
      residuals = draw_residuals(x),
      starts = draw_starts(x)
    )
  }
  invisible(x)
}

# Sets the graphical parameters of a page of panels and gives the old ones.
panel_style <- function(panels, ...) {
  style <- list(mar = c(3.4, 4.2, 3.4, 2.2), mgp = c(2.2, 0.5, 0), tcl = -0.25, las = 1)
  if (panels > 1L) style$mfrow <- c(if (panels > 2L) 2L else 1L, 2L)
  given <- list(...)
  style[names(given)] <- given
  graphics::par(style)
}

# ---- panels ----------------------------------------------------------------------------------------------------------

draw_fitted <- function(fit, data) {
  rows <- shown_rows(length(fit$y))
  limits <- range(fit$y[rows], fit$fitted.values[rows])
  open_panel("Observed against fitted", limits, limits, "fitted", paste("observed", fit$names$y))
  graphics::abline(0, 1, col = "grey60")
  class <- if (is.null(data)) 1L else data$class[rows]
  color <- if (is.null(data)) "grey30" else expert_colors(fit$k)[class]
  graphics::points(fit$fitted.values[rows], fit$y[rows], pch = expert_symbols(fit$k)[class], cex = 0.8,
                   col = grDevices::adjustcolor(color, point_alpha(length(rows))))
  if (!is.null(data) && fit$k > 1L) draw_key(expert_labels(fit), expert_colors(fit$k), pch = expert_symbols(fit$k))
}

draw_residuals <- function(fit) {
  rows <- shown_rows(length(fit$y))
  x <- fit$fitted.values[rows]
  y <- as.vector(stats::residuals(fit, if (is_em(fit)) "response" else "pearson"))
  y <- y[!is.na(y)][rows]
  label <- if (is.null(fit$weights) || is_em(fit)) "residual" else "Pearson residual"
  open_panel("Residuals against fitted", range(x), range(y), "fitted", label)
  graphics::abline(h = 0, col = "grey60")
  graphics::points(x, y, pch = 16L, cex = 0.8, col = grDevices::adjustcolor("grey30", point_alpha(length(rows))))
  if (length(unique(x)) > 3L) graphics::lines(stats::lowess(x, y), col = okabe_ito[2L], lwd = 2.5)
  draw_key("smooth", okabe_ito[2L], lwd = 2.5)
}

# On a log scale, relative to the best; sums of squares below rounding errors count as equal.
draw_starts <- function(fit) {
  starts <- fit$starts[is.finite(fit$starts$objective), ]
  starts <- starts[order(starts$objective), ]
  rounding <- .Machine$double.eps * sum(fit$y^2)
  size <- pmax(starts$objective, rounding) / max(min(starts$objective), rounding)
  label <- "sum of squares / best"
  if (is_em(fit)) {
    # Ratios of likelihoods, on the log scale differences of log-likelihoods; degenerate solutions have none.
    size <- exp(pmin(pmax(starts$objective / 2 + fit$loglik, 0), 500))
    label <- "best likelihood / likelihood"
  }
  kinds <- unique(fit$starts$kind)
  color <- expert_colors(length(kinds))
  open_panel("Starts", c(1, max(5, nrow(starts))), range(size, 1.05), "start, best first", label,
             log = "y")
  graphics::abline(h = 1, col = "grey60")
  graphics::points(seq_along(size), size, pch = ifelse(starts$reached_best, 16L, 1L), lwd = 1.5,
                   col = color[match(starts$kind, kinds)])
  draw_key(kinds, color, pch = 16L)
}

# Curves above, gate weights in a strip below, in one plot region so that the panel goes anywhere.
draw_covariate <- function(fit, covariate, data) {
  at <- profile_along(fit, covariate)
  seen <- if (!at$discrete) seen_points(fit, covariate, data)
  limits <- curve_limits(at, if (is_em(fit)) fit$y else working_response(fit))
  strip <- limits[1L] - diff(limits) * c(0.34, 0.08)
  x <- if (at$discrete) seq_along(at$values) else at$values
  open_panel(paste("Experts along", covariate), range(x) + if (at$discrete) c(-0.5, 0.5) else 0,
             range(limits, if (fit$k > 1L) strip), covariate, fit$names$y,
             x_axis = if (at$discrete) as.character(at$values), y_axis = limits)
  usr <- graphics::par("usr")
  graphics::clip(usr[1L], usr[2L], limits[1L] - 0.04 * diff(limits), usr[4L])
  faint <- grDevices::adjustcolor("grey50", point_alpha(length(seen$x)) / 2)
  graphics::points(seen$x, seen$y, pch = 16L, cex = 0.6, col = faint)
  if (at$discrete) draw_levels(x, at) else draw_curves(x, at)
  do.call(graphics::clip, as.list(usr))
  if (fit$k > 1L) draw_gate_strip(x, at$gate, strip, at$discrete)
  draw_key(c(expert_labels(fit), "mean"), c(expert_colors(fit$k), "black"), lwd = 2.5)
  hidden <- colSums(at$experts >= limits[1L] & at$experts <= limits[2L]) == 0L
  if (any(hidden)) {
    names <- paste("outside:", paste(colnames(fit$experts)[hidden], collapse = ", "))
    graphics::mtext(names, 1L, line = 1.4, adj = 1, col = "grey40", cex = 0.7 * graphics::par("cex"))
  }
}

# All responses and the mean, and curves where the gate uses them, as far as they do not squeeze the rest.
curve_limits <- function(at, y) {
  limits <- range(at$mean, y)
  used <- at$experts[at$gate > 0.2]
  range(limits, pmin(pmax(used, limits[1L] - diff(limits) / 2), limits[2L] + diff(limits) / 2))
}

draw_curves <- function(x, at) {
  n <- length(x)
  for (j in seq_len(ncol(at$experts))) {
    weight <- at$gate[, j]
    color <- vapply(0.25 + 0.75 * weight[-n], grDevices::adjustcolor, "", col = expert_colors(j)[j])
    graphics::segments(x[-n], at$experts[-n, j], x[-1L], at$experts[-1L, j],
                       lwd = 1 + 4 * weight[-n], col = color, lend = 1L)
  }
  graphics::lines(x, at$mean, lwd = 2)
}

draw_levels <- function(x, at) {
  for (j in seq_len(ncol(at$experts))) {
    graphics::points(x, at$experts[, j], pch = 16L, cex = 0.7 + 2 * at$gate[, j], col = expert_colors(j)[j])
  }
  graphics::segments(x - 0.3, at$mean, x + 0.3, at$mean, lwd = 2)
}

# Weights stacked to 1, expert 1 at the bottom.
draw_gate_strip <- function(x, gate, strip, discrete) {
  share <- cbind(0, t(apply(gate, 1L, cumsum)))
  if (ncol(gate) == 1L) share <- cbind(0, gate[, 1L])
  height <- strip[1L] + diff(strip) * share
  for (j in seq_len(ncol(gate))) {
    color <- expert_colors(j)[j]
    if (discrete) {
      graphics::rect(x - 0.4, height[, j], x + 0.4, height[, j + 1L], col = color, border = NA)
    } else {
      graphics::polygon(c(x, rev(x)), c(height[, j], rev(height[, j + 1L])), col = color, border = NA)
    }
  }
  graphics::axis(4L, strip, c("0", "1"), lwd = 0, lwd.ticks = 1)
  graphics::mtext("gate", 4L, line = 0.8, at = mean(strip), las = 0L, cex = 0.8 * graphics::par("cex"))
}

# ---- what is drawn ---------------------------------------------------------------------------------------------------

# The training rows as far as they can be found again: most probable expert and covariates, or NULL.
quiet_training <- function(fit, env) {
  tryCatch({
    covariates <- training_covariates(fit, env)
    class <- as.integer(predict_training(fit, "class", 1L, env))
    covariates$class <- class[!is.na(class)]
    covariates
  }, error = function(e) NULL)
}

# Observed responses at the values of a covariate that enters the model as it is.
seen_points <- function(fit, covariate, data) {
  if (is.null(data)) return(NULL)
  column <- function(part, names) part[, match(covariate, names)]
  x <- if (covariate %in% fit$names$x) column(data$x, fit$names$x)
  if (is.null(x) && covariate %in% fit$names$z) x <- column(if (is.null(data$z)) data$x else data$z, fit$names$z)
  if (is.null(x)) return(NULL)
  rows <- shown_rows(length(x))
  y <- if (is.null(fit$offset)) fit$y else fit$y - fit$offset
  list(x = x[rows], y = y[rows])
}

# Experts, gate and mean along one covariate, with all others at typical values.
profile_along <- function(fit, covariate, size = 201L) {
  levels <- covariate_levels(fit, covariate)
  values <- if (is.null(levels)) covariate_grid(fit, covariate, size) else levels
  newdata <- fit$typical[rep(1L, length(values)), , drop = FALSE]
  newdata[[covariate]] <- values
  if (is.null(fit$formula)) {
    newdata <- list(x = newdata[fit$names$x], z = newdata[fit$names$z], offset = numeric(length(values)))
    newdata <- newdata[matrix_parts(fit)]
  }
  value <- evaluate_model(fit, prepare_newdata(fit, newdata), threads = 1L)
  list(
    values = values, discrete = !is.null(levels), experts = value$expert, gate = value$gate,
    mean = rowSums(value$gate * value$expert)
  )
}

covariate_grid <- function(fit, covariate, size) {
  bounds <- fit$range[, covariate]
  grid <- seq(bounds[[1L]], bounds[[2L]], length.out = size)
  # Dates, times and matrices of one column stay what they are.
  typical <- fit$typical[[covariate]]
  if (is.matrix(typical)) grid <- matrix(grid)
  if (is.object(typical)) attributes(grid) <- attributes(typical)[c("class", "tzone", "units")]
  grid
}

# All values of a covariate that has few of them, in its own type; NULL for numbers.
covariate_levels <- function(fit, covariate) {
  typical <- fit$typical[[covariate]]
  if (is.logical(typical)) return(c(FALSE, TRUE))
  levels <- levels_along(fit, covariate)
  if (is.factor(typical)) return(factor(levels, levels))
  if (is.character(typical)) return(levels)
  codes <- suppressWarnings(as.numeric(levels))
  if (length(codes) && !anyNA(codes)) codes
}

# The levels of a factor, also of one made in the formula, factor(covariate).
levels_along <- function(fit, covariate) {
  made_of <- function(term) tryCatch(all.vars(str2lang(term)), error = function(e) term)
  for (term in names(fit$xlevels)) {
    if (term == covariate || identical(made_of(term), covariate)) return(fit$xlevels[[term]])
  }
  NULL
}

# NULL where no covariate is given and none can be drawn.
check_covariate <- function(fit, covariate) {
  known <- Filter(function(name) is_drawable(fit, name), names(fit$typical))
  if (is.null(covariate)) return(if (length(known)) most_gating(fit, known))
  if (length(known) == 0L) stop_input("covariate", covariate, "left out, since no covariate can be drawn")
  check_choice(covariate, known)
}

# Of matrices, those of one column.
is_drawable <- function(fit, covariate) {
  if (covariate %in% colnames(fit$range)) return(TRUE)
  is.null(dim(fit$typical[[covariate]])) && !is.null(covariate_levels(fit, covariate))
}

# Of the known covariates the one of the gate along which the weight of some expert changes most.
most_gating <- function(fit, known) {
  candidates <- if (is.null(fit$terms)) fit$names$z else all.vars(fit$terms$gate)
  candidates <- c(intersect(candidates, known), known)
  change <- vapply(candidates, function(name) {
    gate <- tryCatch(profile_along(fit, name, size = 25L)$gate, error = function(e) NULL)
    if (is.null(gate)) -1 else max(apply(gate, 2L, max) - apply(gate, 2L, min))
  }, 0)
  candidates[which.max(change)]
}

# ---- style -----------------------------------------------------------------------------------------------------------

# Without black, the colour of the mean.
okabe_ito <- c("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#999999")

expert_colors <- function(k) rep_len(okabe_ito, k)

expert_symbols <- function(k) rep_len(c(16L, 17L, 15L, 18L, 1L, 2L, 0L, 5L), k)

# Many experts share one line: "expert1", "2", "3", ...
expert_labels <- function(fit) {
  labels <- colnames(fit$experts)
  if (fit$k > 4L) labels[-1L] <- seq_len(fit$k)[-1L]
  labels
}

point_alpha <- function(n) min(0.8, max(0.15, 20 / sqrt(n)))

shown_rows <- function(n, most = 20000L) if (n <= most) seq_len(n) else round(seq(1, n, length.out = most))

# An empty panel with a grid, axes without lines and a title at the left. `x_axis`: names of the positions 1, 2, ...
# instead of numbers; `y_axis`: the part of y that is labelled.
open_panel <- function(title, xlim, ylim, xlab, ylab, log = "", x_axis = NULL, y_axis = ylim) {
  graphics::plot.new()
  graphics::plot.window(xlim, ylim, log = log)
  ticks <- graphics::axTicks(2L)
  ticks <- ticks[ticks >= min(y_axis) & ticks <= max(y_axis)]
  graphics::abline(h = ticks, col = "grey92")
  if (is.null(x_axis)) graphics::abline(v = graphics::axTicks(1L), col = "grey92")
  at <- if (is.null(x_axis)) graphics::axTicks(1L) else seq_along(x_axis)
  graphics::axis(1L, at, if (is.null(x_axis)) TRUE else x_axis, lwd = 0, lwd.ticks = 1)
  graphics::axis(2L, ticks, lwd = 0, lwd.ticks = 1)
  graphics::box(bty = "l", col = "grey40")
  graphics::title(xlab = xlab)
  graphics::title(ylab = ylab, line = 2.9)
  graphics::mtext(title, 3L, line = 1.7, adj = 0, font = 2L, cex = 1.1 * graphics::par("cex"))
}

# A key in one line between title and panel, smaller if it would not fit.
draw_key <- function(labels, col, ...) {
  key <- function(cex, plot) {
    graphics::legend("bottomleft", labels, col = col, ..., horiz = TRUE, bty = "n", cex = cex, inset = c(-0.02, 1),
                     xpd = NA, x.intersp = 0.6, seg.len = 1.2, text.width = NA, plot = plot)
  }
  available <- diff(graphics::par("usr")[1:2])
  key(0.9 * min(1, available / key(0.9, FALSE)$rect$w), TRUE)
}
