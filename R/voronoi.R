#' Voronoi losses
#'
#' @description
#' The distance of a mixing measure from a true one by which the theory of these models measures estimates: atoms of G
#' are assigned to their nearest true atoms, and every cell counts its error of mass and the distances of its atoms,
#' weighted with their masses. `align = "gauge"`, the default, takes the infimum over everything about the gates that
#' the model cannot tell from G; without it the losses of two equal functions may be anything.
#'
#' @param G,truth Mixing measures from [mixing_measure()], or fits from [fit_cosine_moe()], with the same router,
#'   expert, link and covariates (dispersions have no part). The numbers of atoms, k and \eqn{k_*}{k*}, may differ, and
#'   so may the numbers of active experts: the paper's over-specified sparse fits have more of them.
#' @param type `"L1"`, `"L2"` or `"L3"`: see Details.
#' @param r The power of the distances in L1, a finite number of at least 1. L2 and L3 have powers of their own, so `r`
#'   must be 1, the default.
#' @param align `"gauge"`: the infimum over the gauge of G. `"none"`: the formula for the numbers as they are.
#' @param space Where gates are compared: `"beta"`, the paper's parameters, or `"u"`, the vectors the logits are made
#'   of (see [routers]), bounded for the cosine routers.
#' @param top_k `NULL`: the loss is the sum over all true atoms. A number K from 1 to \eqn{k_*}{k*}: the largest sum
#'   over K of them, which is the paper's loss for sparse gates.
#'
#' @details
#' *Formulas.* Let \eqn{\omega_i = (\beta_{1i}, \eta_i)}{omega_i = (beta_1i, eta_i)}, and let the cell \eqn{A_j} hold
#' the atoms of G whose \eqn{\omega_i}{omega_i} is nearest to \eqn{\omega_j^*}{omega*_j} in the Euclidean norm. Biases
#' take no part. A tie goes to the true atom with the lower index. The cell loses
#' \deqn{|\sum_{i \in A_j} e^{\beta_{0i}} - e^{\beta_{0j}^*}| + \sum_{i \in A_j} e^{\beta_{0i}}
#' (\|\beta_{1i} - \beta_{1j}^*\|^r + \|\eta_i - \eta_j^*\|^r),}{
#' |sum_{i in A_j} exp(beta_0i) - exp(beta*_0j)| + sum_{i in A_j} exp(beta_0i) (|beta_1i - beta*_1j|^r +
#' |eta_i - eta*_j|^r),}
#' an empty cell \eqn{e^{\beta_{0j}^*}}{exp(beta*_0j)}. L1 is the sum over cells; L2 is L1 with r = 1; L3 has the power
#' 1 in cells with one atom and 2 in cells with several.
#'
#' *Gauge.* The regression function does not change when a number c is added to all biases of G and a vector t to all
#' \eqn{u_i}, and for the cosine router with the norms of its \eqn{\beta_{1i}}{beta_1i}. The aligned loss is the infimum
#' over
#' - all c. For measures far apart it may be approached as all masses vanish, c = -Inf, and is then the sum of the
#'   (largest) true masses;
#' - with `space = "u"` all t, for every router; with `space = "beta"` the t that keep u where its router has it: all
#'   for the linear router, those with norm(u_i + t) below `scale` for all i for the perturbed one, and for the cosine
#'   router those that keep all \eqn{u_i} on the sphere: turns and reflections of what all \eqn{u_i} have in common,
#'   the part orthogonal to their differences. With more experts than covariates there are usually none but t = 0;
#' - for the cosine router with `space = "beta"` all norms of each \eqn{\beta_{1i}}{beta_1i}, 0 included.
#'
#' Atoms belong to the cells they have after the shift. Where cells change the loss may jump, so the infimum is often
#' approached and not attained; the value is the loss at the shift that is returned, just beside the jump.
#' Equal measures up to gauge and order have the loss 0, up to rounding. Equal functions with other *experts'*
#' parameters (units of a network in another order, the sign of an even polynomial) have not: see [canonicalize()]. Nor
#' have equal atoms of the truth, of which all but the first have empty cells: write them as one.
#'
#' *Accuracy.* With the cells given, the best shift solves a convex problem for the linear router and for `space = "u"`,
#' also with `top_k`; for the cosine routers it is a local solution. Either has a relative error of about 1e-9. Which
#' cells are best is found by a search that starts from all shifts that carry an atom of G to a true one, goes on from
#' cells to neighbouring cells, and leaves out what a lower bound excludes. In measures far apart there may be too many
#' cells to try them all: the search then ends after 150 minimisations, with an upper bound of the infimum.
#'
#' *Boundary.* For a perturbed router \eqn{\beta_1}{beta_1} may be infinite, \eqn{u} on the boundary of its ball. With
#' `space = "beta"` such a gate has the distance 0 from an equal one and is infinitely far from all others: the loss is
#' `Inf`, unless a shift brings all gates inside. An atom that is infinitely far from all true ones counts in the cell
#' of the first. `space = "u"` is always finite.
#'
#' @return A number of class `voronoi_loss`; arithmetic with it gives plain numbers, and so does `as.numeric()`.
#' `print()` shows its attributes:
#' - `cells`: the index of the true atom of each atom of G;
#' - `terms`: a data frame with one row a true atom: `atoms` in its cell, `mass`, `gate` and `expert`, the three parts
#'   of its loss, their sum `total`, and `counted`, whether it is among the largest `top_k`;
#' - `parts`: the sums of mass, gate and expert over the cells that count;
#' - `shift`, `c`: t (of length d) and c as above, 0 without alignment; `norms`: the norms of
#'   \eqn{\beta_{1i}}{beta_1i} (aligned cosine router in `space = "beta"`, else `NULL`);
#' - `type`, `r`, `align`, `space`, `top_k`: as given.
#'
#' Bad arguments, and measures that cannot be compared, stop with a `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131: the losses are those of its theorems on
#' the cosine router (L1), the perturbed router with the exact number of experts (L2) and with too many (L3). The
#' infimum over the gauge is this package's; Nguyen, Nguyen and Ho (2023), arXiv:2305.03288, use one over translations.
#'
#' @seealso [mixing_measure()], [canonicalize()], [equivalent()].
#' @examples
#' truth <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(1, 0), c(-1, 0.5)),
#'   eta = cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh"
#' )
#' G <- mixing_measure(
#'   beta0 = c(0.1, -1, -0.9), beta1 = cbind(c(1.1, 0), c(-1, 0.4), c(-0.9, 0.6)),
#'   eta = cbind(c(2, 0.1, 1), c(-1.1, 1, 0), c(-1, 1, 0.2)), expert = "tanh"
#' )
#' voronoi_loss(G, truth, "L3")
#' voronoi_loss(G, truth, align = "none")
#' as.numeric(voronoi_loss(G, truth, space = "u"))
#' @export
voronoi_loss <- function(G, truth, type = c("L1", "L2", "L3"), r = 1, align = c("gauge", "none"),
                         space = c("beta", "u"), top_k = NULL) {
  G <- as_measure(G)
  truth <- as_measure(truth)
  type <- check_choice(type, c("L1", "L2", "L3"))
  align <- check_choice(align, c("gauge", "none"))
  space <- check_choice(space, c("beta", "u"))
  r <- check_number(r, lower = 1)
  if (type != "L1" && r != 1) stop_input("r", r, sprintf("1 for %s, which has its own powers", type))
  if (!is.null(top_k)) top_k <- check_count(top_k, upper = length(truth$beta0))
  check_comparable(G, truth)
  loss <- core_call(core_voronoi_loss(G, truth, G$router, list(
    power = r, squares = type == "L3", bounded = space == "u", align = align == "gauge",
    counted = if (is.null(top_k)) 0L else top_k
  )))
  terms <- loss$terms
  columns <- list(
    atoms = tabulate(loss$cells, nrow(terms)), mass = terms[, 1L], gate = terms[, 2L], expert = terms[, 3L],
    total = terms[, 1L] + terms[, 2L] + terms[, 3L], counted = loss$counted
  )
  counted <- terms[loss$counted, , drop = FALSE]
  structure(
    loss$value,
    class = "voronoi_loss", cells = loss$cells,
    terms = structure(columns, class = "data.frame", row.names = .set_row_names(nrow(terms))),
    parts = c(mass = sum(counted[, 1L]), gate = sum(counted[, 2L]), expert = sum(counted[, 3L])),
    shift = loss$shift, c = loss$c, norms = if (length(loss$norms)) loss$norms,
    type = type, r = r, align = align, space = space, top_k = top_k
  )
}

# Stops at the first thing in which the models of two measures differ.
check_comparable <- function(fit, truth) {
  same <- function(own, other, what) {
    if (identical(own, other)) return(invisible())
    words <- function(value) if (is.null(value)) "NULL" else gsub("_", " ", format(value, digits = 4L))
    stop_input("G", I(words(own)), sprintf("a measure with the same %s as `truth`, %s", what, words(other)))
  }
  # Over-specified sparse fits activate more experts than the truth: `top_k` may differ.
  for (field in c("name", "scale", "tau1", "tau2")) {
    if (!identical(fit$router[[field]], truth$router[[field]])) {
      same(fit$router[[field]], truth$router[[field]], paste("router", field))
    }
  }
  for (field in c("name", "degree", "hidden", "activation", "n_par")) {
    if (!identical(fit$expert[[field]], truth$expert[[field]])) {
      same(fit$expert[[field]], truth$expert[[field]], paste("expert", field))
    }
  }
  same(measure_link(fit), measure_link(truth), "link")
  same(nrow(fit$u), nrow(truth$u), "number of gate covariates")
  same(nrow(fit$eta), nrow(truth$eta), "number of expert parameters")
  for (field in c("z_center", "z_scale")) {
    own <- fit[[field]]
    other <- truth[[field]]
    if (any(abs(own - other) > 1e-12 * (abs(own) + abs(other)))) {
      what <- if (field == "z_center") "centre" else "scale"
      stop_input(
        "G", I(sprintf("one with another %s", what)),
        "a measure whose gate sees the covariates as that of `truth` does (raw ones with `standardize = FALSE`)"
      )
    }
  }
}

#' @rdname voronoi_loss
#' @param x A `voronoi_loss`.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#' @export
print.voronoi_loss <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  show <- function(value) format(value, digits = digits)
  loss <- attributes(x)
  # What is nothing but rounding is shown as 0.
  size <- if (is.finite(x)) as.numeric(x) else 0
  tidy <- function(value) replace(value, abs(value) < 1e-12 * size, 0)
  loss$parts <- tidy(loss$parts)
  columns <- c("mass", "gate", "expert", "total")
  loss$terms[columns] <- lapply(loss$terms[columns], tidy)
  power <- if (loss$type == "L1" && loss$r != 1) sprintf(", r = %s", show(loss$r))
  how <- if (loss$align == "gauge") "infimum over the gauge" else "not aligned"
  sparse <- if (!is.null(loss$top_k)) sprintf(", largest %d of %s", loss$top_k, count_words(nrow(loss$terms), "cell"))
  print_line(
    "Voronoi loss ", loss$type, power, " (", how, "; gates compared by ", loss$space, sparse, "): ",
    show(as.numeric(x))
  )
  print_line(paste(names(loss$parts), vapply(loss$parts, show, ""), collapse = ", "), bullet = "  ")
  if (loss$align == "gauge") {
    if (is.infinite(loss$c)) {
      print_line("Approached as the masses of G vanish (c = -Inf).")
    } else {
      rounded <- function(value) if (abs(value) < 1e-12) 0 else value
      shift <- rounded(sqrt(sum(loss$shift^2)))
      print_line("Aligned by c = ", show(rounded(loss$c)), " and a shift t of norm ", show(shift), ".")
    }
  }
  members <- vapply(seq_len(nrow(loss$terms)), function(j) {
    own <- which(loss$cells == j)
    if (length(own)) paste(own, collapse = " ") else "none"
  }, "")
  cat("\n")
  numbers <- format_entries(as.matrix(loss$terms[columns]), digits)
  table <- cbind(atoms = members, numbers, counted = if (!is.null(loss$top_k)) ifelse(loss$terms$counted, "yes", "no"))
  rownames(table) <- paste("cell", seq_len(nrow(table)))
  print(table, quote = FALSE, right = TRUE)
  invisible(x)
}

# The attributes describe one loss: results of arithmetic, and columns of data frames, are plain numbers.
#' @export
as.data.frame.voronoi_loss <- function(x, ...) as.data.frame(as.numeric(x), ...)

#' @export
Ops.voronoi_loss <- function(e1, e2) { # nolint: object_name_linter.
  bare <- function(x) if (inherits(x, "voronoi_loss")) as.numeric(x) else x
  operation <- get(.Generic) # nolint: object_usage_linter.
  if (missing(e2)) operation(bare(e1)) else operation(bare(e1), bare(e2))
}

#' @export
Math.voronoi_loss <- function(x, ...) { # nolint: object_name_linter.
  get(.Generic)(as.numeric(x), ...) # nolint: object_usage_linter.
}
