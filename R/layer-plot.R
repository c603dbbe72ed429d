#' Pictures of the training of a sparse mixture-of-experts layer
#'
#' @description
#' Draws one or several panels:
#'
#' * `"loss"`, `"accuracy"`, `"entropy"`: over the steps of training; with validation samples theirs too;
#' * `"routing"`: for some steps, the share of each cluster in what each expert was sent; the width of a bar is the
#'   load;
#' * `"gate"`: the inner products \eqn{|\theta_m'c_k|} of the gate with the centre signals over training, a colour for
#'   each k: in a layer that has specialised one of them grows for each expert.
#'
#' @param x A fit from [fit_moe_layer()].
#' @param which The panels, by name. By default those that can be drawn: `"entropy"` and `"routing"` need a fit with
#'   `cluster`, `"gate"` needs `centers`.
#' @param centers A matrix of d x K, the centre signals (`c` of [simulate_patches()]).
#' @param steps For `"routing"`: the steps to show, by default the first, one amid training, and the last.
#' @param ... Graphical parameters for [graphics::par()].
#'
#' @return `x`, invisibly. The device's parameters are put back. Bad arguments stop with a `cosmoe_error_input`.
#' @seealso [fit_moe_layer()], [specialization()].
#' @examples
#' data <- simulate_patches(1, n = 500, seed = 1)
#' fit <- fit_moe_layer(data$x, data$y, experts = 4, steps = 150, seed = 1, cluster = data$cluster)
#' plot(fit, centers = data$c)
#' @export
plot.moe_layer <- function(x, which = NULL, centers = NULL, steps = NULL, ...) {
  panels <- c("loss", "accuracy", "entropy", "routing", "gate")
  gated <- x$layer$experts > 1L
  possible <- c("loss", "accuracy", if (gated && !is.null(x$clusters)) c("entropy", "routing"),
                if (gated && !is.null(centers)) "gate")
  if (is.null(which)) which <- possible
  if (length(which) == 0L || !all(which %in% panels)) {
    stop_input("which", which, paste("among", enumerate(panels, "\"")))
  }
  missing <- setdiff(which, possible)
  if (length(missing)) {
    need <- if (!gated) "a router" else if (missing[1L] == "gate") "`centers`" else "a fit with `cluster`"
    expected <- sprintf("panels that can be drawn; this one needs %s", need)
    stop_input("which", I(sprintf("\"%s\" without it", missing[1L])), expected)
  }
  if (nrow(x$history) == 0L) stop_input("x", I("one without a step"), "a fit with at least one step of training")
  if ("gate" %in% which) centers <- check_centers(x, centers)
  if ("routing" %in% which) steps <- check_steps(x, steps)
  style <- list(mar = c(3.4, 4.2, 3.4, 1.2), mgp = c(2.2, 0.5, 0), tcl = -0.25, las = 1)
  count <- length(which) + if ("routing" %in% which) length(steps) - 1L else 0L
  if (count > 1L) style$mfrow <- grDevices::n2mfrow(count)
  given <- list(...)
  style[names(given)] <- given
  old <- graphics::par(style)
  on.exit(graphics::par(old))
  for (panel in which) {
    switch(panel,
      loss = draw_history(x, "loss", "Loss", "loss"),
      accuracy = draw_history(x, "accuracy", "Accuracy", "accuracy"),
      entropy = draw_history(x, "entropy", "Dispatch entropy", "entropy"),
      routing = for (step in steps) draw_routing(x, step),
      gate = draw_gate_products(x, centers)
    )
  }
  invisible(x)
}

check_centers <- function(fit, centers) {
  size <- nrow(fit$gates$gate)
  if (!is.null(fit$projection)) {
    stop_input("centers", I("centres where the gate sees a projection"), "used with a gate on the summed patches")
  }
  if (!is.matrix(centers)) stop_input("centers", centers, sprintf("a numeric matrix with %d rows", size))
  check_matrix(centers, size, ncol(centers), "centers")
}

check_steps <- function(fit, steps) {
  known <- fit$history$step
  if (is.null(steps)) return(unique(known[round(c(1, (length(known) + 3) / 4, length(known)))]))
  if (!is.numeric(steps) || length(steps) == 0L || !all(steps %in% known)) {
    stop_input("steps", steps, sprintf("steps of the fit, from %d to %d", min(known), max(known)))
  }
  steps
}

draw_history <- function(fit, column, title, label) {
  history <- fit$history
  y <- history[[column]]
  valid <- if (!is.null(fit$valid) && column %in% names(fit$valid)) fit$valid[[column]]
  open_panel(title, range(history$step), range(y, valid, if (column == "entropy") 0), "step", label)
  graphics::lines(history$step, y, col = okabe_ito[1L], lwd = 2)
  if (is.null(valid)) return(invisible())
  graphics::lines(fit$valid$step, valid, col = okabe_ito[2L], lwd = 2)
  draw_key(c("training", "validation"), okabe_ito[1:2], lwd = 2.5)
}

# A bar for each expert, as wide as its load; in it the shares of the clusters.
draw_routing <- function(fit, step) {
  counts <- matrix(fit$sent[, , match(step, fit$history$step)], length(fit$clusters))
  used <- which(colSums(counts) > 0)
  counts <- counts[, used, drop = FALSE]
  ends <- c(0, cumsum(colSums(counts)) / sum(counts))
  open_panel(sprintf("Routing, step %d", as.integer(step)), c(0, 1), c(0, 1), "expert, width: load",
             "share of clusters", x_axis = character())
  for (m in seq_along(used)) {
    height <- c(0, cumsum(counts[, m]) / sum(counts[, m]))
    for (k in seq_along(fit$clusters)) {
      graphics::rect(ends[m], height[k], ends[m + 1L], height[k + 1L], col = expert_colors(k)[k], border = "white")
    }
  }
  graphics::axis(1L, (ends[-1L] + ends[-length(ends)]) / 2, used, lwd = 0)
  draw_key(fit$clusters, expert_colors(length(fit$clusters)), pch = 15L)
}

draw_gate_products <- function(fit, centers) {
  products <- abs(apply(fit$gates$gate, 3L, function(gate) crossprod(centers, gate)))
  colors <- expert_colors(ncol(centers))
  open_panel("Gate and centres", range(fit$gates$step), range(products), "step", "|inner product|")
  # Rows: centre within expert.
  for (row in seq_len(nrow(products))) {
    graphics::lines(fit$gates$step, products[row, ], col = colors[(row - 1L) %% ncol(centers) + 1L], lwd = 1.5)
  }
  draw_key(paste("centre", seq_len(ncol(centers))), colors, lwd = 2.5)
}
