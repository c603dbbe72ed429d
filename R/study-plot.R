#' Rate plots
#'
#' @description
#' The mean loss of each arm against the sample size, both on log scales, with two standard deviations of the replicates
#' to either side, the fitted line of each arm with its formula, and a dashed line with the slope that theory gives.
#' `plot()` draws with base graphics, `autoplot()` with ggplot2.
#'
#' @param x,object A study from [rate_study()], or its [summary()][summary.rate_study].
#' @param loss Names of losses, one panel each; all by default.
#' @param arm Names of arms; all by default.
#' @param theory The slope of the dashed line: one number, or one for each loss (`c(L2 = -0.5, L3_multi = -0.25)`);
#'   `NULL` for none. The default -1/2 is the rate of regular estimates.
#' @param curve The fitted line: `"loglog"` (a line through the logarithms of the means) or `"power"` (least squares of
#'   \eqn{a n^b}, as in the paper): see [summary.rate_study()].
#' @param main Titles of the panels, one for each loss.
#' @param ... For `plot()`, graphical parameters for [graphics::par()]; `autoplot()` takes none.
#'
#' @details
#' Where a mean minus two standard deviations is not positive, its bar ends at the lower edge. Arms have the colours of
#' Okabe and Ito, which colour-blind readers can tell apart, and different symbols, for print. The dashed line goes
#' through the geometric mean of the drawn points; only its slope has a meaning.
#'
#' @return `plot()`: its argument, invisibly. `autoplot()`: a ggplot. Bad arguments stop with a `cosmoe_error_input`.
#'
#' @seealso [rate_study()], [summary.rate_study()].
#' @examples
#' truth <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(0.5, 0), c(-0.25, 0.43)),
#'   eta = cbind(c(2.9, 0.8, 0.5), c(-1, 2.8, -0.5)),
#'   router = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), expert = "gelu"
#' )
#' study <- rate_study(truth,
#'   n = c(200, 400, 800), reps = 5, fits = list(exact = list(k = 2), over = list(k = 3)), sigma = 0.1
#' )
#' plot(study, loss = c("L3", "prediction"))
#' if (requireNamespace("ggplot2", quietly = TRUE)) ggplot2::autoplot(study)
#' @export
plot.rate_study <- function(x, loss = NULL, arm = NULL, theory = -0.5, curve = c("loglog", "power"), main = NULL, ...) {
  plot(summary(x, boot = 0L), loss = loss, arm = arm, theory = theory, curve = curve, main = main, ...)
  invisible(x)
}

#' @rdname plot.rate_study
#' @export
plot.summary.rate_study <- function(x, loss = NULL, arm = NULL, theory = -0.5, curve = c("loglog", "power"),
                                    main = NULL, ...) {
  picture <- rate_picture(x, loss, arm, theory, curve, main)
  panels <- length(picture)
  style <- list(mar = c(3.4, 4.2, 4.4, 1), mgp = c(2.2, 0.5, 0), tcl = -0.25, las = 1)
  if (panels > 1L) style$mfrow <- rev(grDevices::n2mfrow(panels))
  given <- list(...)
  style[names(given)] <- given
  old <- graphics::par(style)
  on.exit(graphics::par(old))
  for (panel in picture) draw_rates(panel)
  invisible(x)
}

#' @rdname plot.rate_study
#' @exportS3Method ggplot2::autoplot
autoplot.rate_study <- function(object, loss = NULL, arm = NULL, theory = -0.5, # nolint: object_name_linter.
                                curve = c("loglog", "power"), main = NULL, ...) {
  ggplot2::autoplot(summary(object, boot = 0L), loss, arm, theory, curve, main, ...)
}

#' @rdname plot.rate_study
#' @exportS3Method ggplot2::autoplot
autoplot.summary.rate_study <- function(object, loss = NULL, arm = NULL, theory = -0.5, # nolint: object_name_linter.
                                        curve = c("loglog", "power"), main = NULL, ...) {
  check_dots_empty(...)
  if (!requireNamespace("ggplot2", quietly = TRUE)) {
    stop_cosmoe("package", "autoplot() needs the package ggplot2: install it, or use plot().")
  }
  picture <- rate_picture(object, loss, arm, theory, curve, main)
  part <- function(name) {
    bind_rows(lapply(picture, function(panel) {
      rows <- panel[[name]]
      if (!is.null(rows) && nrow(rows)) cbind(rows, panel = factor(panel$title, unique(titles(picture))))
    }))
  }
  points <- part("points")
  lines <- part("lines")
  labels <- part("labels")
  arms <- picture[[1L]]$arms
  colors <- stats::setNames(expert_colors(length(arms)), arms)
  symbols <- stats::setNames(expert_symbols(length(arms)), arms)
  column <- function(name) as.name(name)
  map <- function(...) do.call(ggplot2::aes, lapply(list(...), column))
  # Formulas one below the other in the upper right corner, which falling lines leave free.
  labels$line <- 1.6 * stats::ave(seq_len(nrow(labels)), labels$panel, FUN = seq_along)
  labels$corner <- rep(Inf, nrow(labels))
  plot <- ggplot2::ggplot(points, map(x = "at", y = "mean", colour = "arm")) +
    ggplot2::geom_line(map(x = "n", y = "y", colour = "arm"), lines) +
    ggplot2::geom_linerange(map(ymin = "low", ymax = "high"), alpha = 0.5) +
    ggplot2::geom_point(map(shape = "arm"), size = 2.5) +
    ggplot2::geom_text(
      map(x = "corner", y = "corner", label = "label", colour = "arm", vjust = "line"), labels, hjust = 1.1,
      size = 3.5, show.legend = FALSE
    ) +
    ggplot2::scale_x_log10() + ggplot2::scale_y_log10() +
    ggplot2::scale_colour_manual(values = colors) + ggplot2::scale_shape_manual(values = symbols) +
    ggplot2::facet_wrap("panel", scales = "free_y") +
    ggplot2::labs(x = "sample size n", y = "loss, mean and two standard deviations", colour = NULL, shape = NULL) +
    ggplot2::theme_bw() + ggplot2::theme(legend.position = "top", panel.grid.minor = ggplot2::element_blank())
  theory <- part("theory")
  if (!is.null(theory)) {
    plot <- plot + ggplot2::geom_line(map(x = "n", y = "y"), theory, linetype = 2, colour = "grey30",
                                      inherit.aes = FALSE)
  }
  plot
}

titles <- function(picture) vapply(picture, function(panel) panel$title, "")

# What both kinds of graphics draw: for each loss points (n, mean, low, high, and where at the axis), lines and labels
# of the arms, the line of the theory.
rate_picture <- function(found, loss, arm, theory, curve, main) {
  loss <- check_names(loss, unique(found$rates$loss), "loss")
  arm <- check_names(arm, unique(found$rates$arm), "arm")
  curve <- check_choice(curve, c("loglog", "power"))
  theory <- check_theory(theory, loss)
  if (is.null(main)) main <- loss
  if (!is.character(main) || length(main) != length(loss)) stop_input("main", main, "one title for each loss")
  Map(function(name, title) {
    means <- found$means[found$means$loss == name & found$means$arm %in% arm, ]
    rates <- found$rates[found$rates$loss == name, ]
    means$low <- means$mean - 2 * means$sd
    means$high <- means$mean + 2 * means$sd
    if (nrow(means) == 0L) stop_input("loss", name, "one with finite values")
    floor <- min(means$mean[means$mean > 0], Inf) / 3
    means$low <- pmax(means$low, floor, na.rm = TRUE)
    means$high <- ifelse(is.na(means$sd), means$mean, means$high)
    means <- means[means$mean > 0, ]
    # Side by side, so that bars do not hide each other.
    off <- (match(means$arm, arm) - (length(arm) + 1) / 2) / max(length(arm), 3)
    means$at <- means$n * (max(means$n) / min(means$n))^(0.02 * off)
    lines <- lapply(arm, function(own) fitted_line(means[means$arm == own, ], rates[rates$arm == own, ], curve))
    lines <- bind_rows(lines)
    at <- lines[!duplicated(lines$arm), ]
    list(
      title = title, arms = arm, points = means, lines = lines,
      labels = at, theory = theory_line(means, theory[[name]])
    )
  }, loss, main)
}

# The line of an arm at its smallest and largest size, with its formula.
fitted_line <- function(means, rate, curve) {
  if (is.na(rate$slope) || nrow(means) < 2L) return(NULL)
  n <- range(means$n)
  y <- if (curve == "power") {
    rate$a * n^rate$b
  } else {
    exp(mean(log(means$mean)) + rate$slope * (log(n) - mean(log(means$n))))
  }
  label <- if (curve == "power") curve_label(rate$a, rate$b) else curve_label(y[1L] * n[1L]^-rate$slope, rate$slope)
  data.frame(arm = rate$arm, n = n, y = y, label = label)
}

theory_line <- function(means, slope) {
  if (is.null(slope) || is.na(slope)) return(NULL)
  n <- range(means$n)
  data.frame(n = n, y = exp(mean(log(means$mean)) + slope * (log(n) - mean(log(means$n)))))
}

check_theory <- function(theory, loss) {
  if (is.null(theory)) return(NULL)
  if (!is.numeric(theory) || length(theory) == 0L || any(is.infinite(theory))) {
    stop_input("theory", theory, "slopes, or NULL")
  }
  if (is.null(names(theory)) && length(theory) == 1L) theory <- stats::setNames(rep(theory, length(loss)), loss)
  if (is.null(names(theory)) || !all(loss %in% names(theory))) {
    stop_input("theory", theory, "one slope, or one for each loss by its name")
  }
  as.list(theory[loss])
}

# ---- base graphics ---------------------------------------------------------------------------------------------------

draw_rates <- function(panel) {
  points <- panel$points
  color <- expert_colors(length(panel$arms))
  symbol <- expert_symbols(length(panel$arms))
  at <- match(points$arm, panel$arms)
  open_log_panel(panel$title, range(points$at), range(points$low, points$high, panel$lines$y))
  if (!is.null(panel$theory)) graphics::lines(panel$theory$n, panel$theory$y, lty = 2L, col = "grey30")
  for (name in unique(panel$lines$arm)) {
    own <- panel$lines[panel$lines$arm == name, ]
    graphics::lines(own$n, own$y, col = color[match(name, panel$arms)], lwd = 1.5)
  }
  faint <- grDevices::adjustcolor(color[at], 0.5)
  graphics::segments(points$at, points$low, points$at, points$high, col = faint, lwd = 2)
  graphics::points(points$at, points$mean, pch = symbol[at], col = color[at], cex = 1.2)
  shown <- which(panel$arms %in% points$arm)
  label <- panel$labels$label[match(panel$arms, panel$labels$arm)]
  label <- ifelse(is.na(label), panel$arms, paste0(panel$arms, ": ", label))
  draw_rate_key(label[shown], color[shown], symbol[shown])
}

# Powers of ten as grid and labels; with few of them also 2 and 5.
open_log_panel <- function(title, xlim, ylim) {
  graphics::plot.new()
  graphics::plot.window(xlim, ylim, log = "xy")
  for (side in 1:2) {
    limits <- 10^graphics::par("usr")[2L * side - 1:0]
    exponents <- seq(floor(log10(limits[1L])), ceiling(log10(limits[2L])))
    ticks <- 10^exponents
    if (sum(ticks >= limits[1L] & ticks <= limits[2L]) < 3L) ticks <- sort(c(ticks, 2 * ticks, 5 * ticks))
    ticks <- ticks[ticks >= limits[1L] & ticks <= limits[2L]]
    if (side == 1L) graphics::abline(v = ticks, col = "grey92") else graphics::abline(h = ticks, col = "grey92")
    plain <- all(ticks > 1e-4 & ticks < 1e4)
    labels <- if (plain) format_each(ticks) else parse(text = power_labels(ticks))
    graphics::axis(side, ticks, labels, lwd = 0, lwd.ticks = 1)
  }
  graphics::box(bty = "l", col = "grey40")
  graphics::title(xlab = "sample size n")
  graphics::title(ylab = "loss", line = 3.1)
  graphics::mtext(title, 3L, line = 2.9, adj = 0, font = 2L, cex = 1.1 * graphics::par("cex"))
}

format_each <- function(x) vapply(x, format, "", scientific = FALSE)

# 10^3, 2 %*% 10^3
power_labels <- function(ticks) {
  exponent <- floor(log10(ticks) + 1e-9)
  front <- round(ticks / 10^exponent)
  ifelse(front == 1, sprintf("10^%d", exponent), sprintf("%d %%*%% 10^%d", front, exponent))
}

# Above the panel, in up to two columns.
draw_rate_key <- function(labels, col, pch) {
  columns <- if (length(labels) > 2L) 2L else 1L
  key <- function(cex, plot) {
    graphics::legend("bottomleft", labels, col = col, pch = pch, lwd = 1.5, ncol = columns, bty = "n", cex = cex,
                     inset = c(-0.02, 1), xpd = NA, x.intersp = 0.6, seg.len = 1.4, plot = plot)
  }
  # On log axes the legend's width is in powers of ten.
  available <- diff(graphics::par("usr")[1:2])
  key(0.85 * min(1, available / max(key(0.85, FALSE)$rect$w, 1e-9)), TRUE)
}
