# The losses of a rate study: names such as "L2", "L3_raw" or "L1r2_u_direction" as settings, and values for a fit.
# Grammar: type (L1, L2, L3; L1r2 is L1 with r = 2), then "_raw" without alignment, "_u" for gates compared by u, then
# one of the parts.

loss_parts <- c("mass", "gate", "direction", "norm", "expert", "single", "multi")

as_losses <- function(x, argument = "loss") {
  expected <- paste(
    "names such as \"L2\", \"L3_raw\", \"L2_u\", \"L3_multi\" and \"prediction\", each once:",
    "see the details of rate_study()"
  )
  if (!is.character(x) || length(x) == 0L || anyNA(x) || anyDuplicated(x)) stop_input(argument, x, expected)
  pattern <- sprintf("^(L1r[0-9]+([.][0-9]+)?|L[123])(_raw)?(_u)?(_(%s))?$", paste(loss_parts, collapse = "|"))
  unknown <- x[x != "prediction" & !grepl(pattern, x)]
  if (length(unknown)) stop_input(argument, unknown[1L], expected)
  lapply(stats::setNames(x, x), function(name) {
    if (name == "prediction") return(list(type = "prediction"))
    field <- function(i) sub(pattern, sprintf("\\%d", i), name)
    type <- field(1L)
    list(
      type = substr(type, 1L, 2L), r = if (nchar(type) > 2L) as.numeric(substring(type, 4L)) else 1,
      align = if (nzchar(field(3L))) "none" else "gauge", space = if (nzchar(field(4L))) "u" else "beta",
      part = field(6L)
    )
  })
}

is_voronoi <- function(losses) vapply(losses, function(loss) loss$type != "prediction", NA)

# Values of all losses for a fit. `sample` has rows x and the truth's mean there.
study_losses <- function(losses, fit, truth, sample) {
  reported <- as_mixing_measure(fit)
  measures <- list(gauge = reported, none = last_measure(fit, reported))
  # Several names share one minimisation.
  known <- list()
  vapply(losses, function(loss) {
    if (loss$type == "prediction") {
      f <- evaluate_measure(reported, list(x = sample$x, z = NULL))$response
      return(sqrt(mean((f - sample$mean)^2)))
    }
    key <- paste(loss$type, loss$r, loss$align, loss$space)
    G <- measures[[loss$align]]
    if (is.null(known[[key]])) {
      known[[key]] <<- voronoi_loss(
        G, truth, loss$type, loss$r, loss$align, loss$space,
        top_k = truth$router$top_k
      )
    }
    voronoi_part(loss$part, known[[key]], G, truth)
  }, 0)
}

# The measure without any change of gauge: what stochastic gradient descent ended with; others report the canonical
# representative only.
last_measure <- function(fit, reported) {
  last <- fit$convergence$last
  if (is.null(last)) return(reported)
  new_mixing_measure(last$b, last$beta, last$u, last$eta, fit$router, fit$expert)
}

voronoi_part <- function(part, loss, G, truth) {
  if (part == "") return(as.numeric(loss))
  if (part %in% c("mass", "gate", "expert")) return(attr(loss, "parts")[[part]])
  bounded <- attr(loss, "space") == "u"
  atoms <- shifted_atoms(G, loss, bounded)
  cells <- attr(loss, "cells")
  terms <- attr(loss, "terms")
  counted <- terms$counted[cells]
  target <- (if (bounded) truth$u else truth$beta1)[, cells, drop = FALSE]
  size <- function(m) sqrt(colSums(m^2))
  if (part %in% c("single", "multi")) {
    own <- counted & (terms$atoms[cells] > 1L) == (part == "multi")
    if (!any(own)) return(NA_real_)
    distance <- size(atoms$gate - target) + size(G$eta - truth$eta[, cells, drop = FALSE])
  } else {
    own <- counted
    distance <- if (part == "norm") {
      abs(size(atoms$gate) - size(target))
    } else {
      unit <- function(m) m / rep(pmax(size(m), 1e-300), each = nrow(m))
      size(unit(atoms$direction) - unit(target))
    }
  }
  sum((exp(atoms$bias) * distance)[own])
}

# The atoms after the shift that the loss has found: bias, gates as they were compared, and their directions, which are
# finite on the boundary too.
shifted_atoms <- function(G, loss, bounded) {
  u <- G$u + attr(loss, "shift")
  aligned <- attr(loss, "align") == "gauge"
  norms <- attr(loss, "norms")
  gate <- if (bounded) {
    u
  } else if (!aligned) {
    G$beta1
  } else if (!is.null(norms)) {
    u / G$router$scale * rep(norms, each = nrow(u))
  } else {
    core_call(core_gate_to_beta(core_model(G$router, expert_constant(), 1L)$router, u))
  }
  list(bias = G$beta0 + attr(loss, "c"), gate = gate, direction = u)
}
