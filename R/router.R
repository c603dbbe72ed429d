#' Routers
#'
#' @description
#' A router says how the gate of a mixture of experts depends on the gate covariates z (a vector of length d). Every
#' router is the same softmax over logits that are linear in a feature map,
#' \deqn{p_k(z) = \exp(l_k) / \sum_j \exp(l_j), \qquad l_k = u_k'\zeta(z) + b_k,}{
#'   p_k(z) = exp(l_k) / sum_j exp(l_j),   l_k = u_k' zeta(z) + b_k,}
#' and differs in the feature map and in the set the weight vectors \eqn{u_k} live in. With s for `scale`:
#'
#' | router | \eqn{\zeta(z)} | \eqn{u_k} from the reported \eqn{\beta_k} | \eqn{u_k} lives in |
#' |---|---|---|---|
#' | `router_linear()` | z | \eqn{s \beta_k} | all of R^d |
#' | `router_cosine()` | z / norm(z) | \eqn{s \beta_k / norm(\beta_k)} | sphere of radius s |
#' | `router_perturbed_cosine()` | z / (norm(z) + tau2) | \eqn{s \beta_k / (norm(\beta_k) + tau1)} | ball of radius s |
#'
#' So the score of expert k, its logit without the bias \eqn{b_k}, is \eqn{s \beta_k'z} for the linear router, s times
#' the cosine of the angle between \eqn{\beta_k} and z for the cosine router, and the same with both norms enlarged by
#' tau1 and tau2 for the perturbed router.
#'
#' @param scale Inverse temperature s, a positive number that multiplies the slope of the logits, never the bias. For
#'   the cosine routers it bounds the scores by -s and s: with the default 1, the value of the paper, no expert can get
#'   more than \eqn{e^2} times the weight of another through z. Practice uses 2 to 100. For the linear router it only
#'   changes the unit of \eqn{\beta}.
#' @param top_k `NULL` for a dense gate, or the number of experts active in a row, from 1 to the number of experts. The
#'   experts with the largest scores are active; the bias takes no part in the choice, ties go to the lower index. The
#'   softmax then acts on score plus bias among the active experts, and the others get weight zero.
#' @param tau1,tau2 Positive numbers added to the norm of \eqn{\beta_k} and of z. The default 0.1 is that of the
#'   paper's experiments. `tau1` is in the unit of \eqn{\beta}: the norm of \eqn{\beta_k} shows best when it is near
#'   `tau1`. `tau2` is in the unit of z; it keeps the gate smooth near z = 0.
#'
#' @details
#' *Zero vectors.* The cosine router is 0/0 at z = 0 and at \eqn{\beta_k = 0}. There the score is 0, so the gate follows
#' the biases. The perturbed router has that value by itself, and is continuous there.
#'
#' *What can be estimated.* Adding one vector to all \eqn{u_k} or one number to all \eqn{b_k} changes no probability.
#' The norm of \eqn{\beta_k} is meaningless for the cosine router. For the perturbed router a weight vector on the
#' boundary, norm(u) = s, means an infinite \eqn{\beta_k}.
#'
#' *Sparse gates.* With `top_k` below the number of experts the regression function jumps where the choice of experts
#' changes, and so does the sum of squares as a function of the gate: a fit is then a local search among pieces, and
#' many starts matter more.
#'
#' @return An object of class `cosmoe_router`: a list with `name` (`"linear"`, `"cosine"` or `"perturbed_cosine"`),
#'   `scale`, `tau1`, `tau2` (0 where the router has none) and `top_k` (`NULL` if dense). The names also work as
#'   strings wherever a router with default settings will do. Bad values stop with a `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131. The three routers are those of its
#' introduction, of its model with the cosine router and of its model with the perturbed cosine router.
#'
#' @seealso [fit_cosine_moe()], [expert_linear()].
#' @examples
#' router_perturbed_cosine(tau1 = 0.5)
#' router_cosine(scale = 10, top_k = 2)
#' @name routers
NULL

new_router <- function(name, scale, tau1 = 0, tau2 = 0, top_k = NULL) {
  structure(
    list(
      name = name,
      scale = check_number(scale, lower = 0, strict = TRUE),
      tau1 = tau1,
      tau2 = tau2,
      top_k = if (!is.null(top_k)) check_count(top_k)
    ),
    class = "cosmoe_router"
  )
}

#' @rdname routers
#' @export
router_linear <- function(scale = 1, top_k = NULL) {
  new_router("linear", scale, top_k = top_k)
}

#' @rdname routers
#' @export
router_cosine <- function(scale = 1, top_k = NULL) {
  new_router("cosine", scale, top_k = top_k)
}

#' @rdname routers
#' @export
router_perturbed_cosine <- function(tau1 = 0.1, tau2 = 0.1, scale = 1, top_k = NULL) {
  tau1 <- check_number(tau1, lower = 0, strict = TRUE)
  tau2 <- check_number(tau2, lower = 0, strict = TRUE)
  new_router("perturbed_cosine", scale, tau1, tau2, top_k)
}

# A router object, or the name of one with default settings.
as_router <- function(x, argument = "router") {
  if (inherits(x, "cosmoe_router")) return(x)
  makers <- list(linear = router_linear, cosine = router_cosine, perturbed_cosine = router_perturbed_cosine)
  if (!is.character(x) || length(x) != 1L || !x %in% names(makers)) {
    stop_input(argument, x, paste0("a router such as router_cosine(), or ", choice_words(names(makers))))
  }
  makers[[x]]()
}

# The number of identifiable parameters of a gate with k experts and d covariates. A softmax sees
# contrasts only: d + 1 directions are free. On the sphere each u_k loses its norm instead, and k <= d unit vectors
# can still be turned without changing their differences.
router_df <- function(router, k, d) {
  slopes <- (k - 1) * d
  if (router$name == "cosine") slopes <- min(slopes, k * max(d - 1, 0))
  as.integer(slopes + k - 1)
}

#' @export
format.cosmoe_router <- function(x, digits = getOption("digits"), ...) {
  show <- function(name) paste(name, "=", format(x[[name]], digits = digits))
  fields <- c(if (x$name == "perturbed_cosine") c("tau1", "tau2"), "scale")
  settings <- paste(vapply(fields, show, ""), collapse = ", ")
  active <- if (!is.null(x$top_k)) sprintf(", top %d", x$top_k)
  paste0(gsub("_", " ", x$name), " (", settings, ")", active)
}

#' @export
print.cosmoe_router <- function(x, digits = getOption("digits"), ...) {
  digits <- check_digits(digits)
  score <- switch(x$name,
    linear = "scale beta'z",
    cosine = "scale beta'z / (|beta| |z|)",
    perturbed_cosine = "scale beta'z / ((|beta| + tau1) (|z| + tau2))"
  )
  active <- if (is.null(x$top_k)) "all experts" else sprintf("the %d with the largest scores", x$top_k)
  cat("Router: ", format(x, digits = digits), "\n", sep = "")
  cat("Score:  ", score, "\n", sep = "")
  cat("Active: ", active, "\n", sep = "")
  invisible(x)
}
