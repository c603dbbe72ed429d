#' Mixing measures
#'
#' @description
#' The parameters of a mixture of experts as one object: the mixing measure
#' \deqn{G = \sum_{i} \exp(\beta_{0i}) \delta_{(\beta_{1i}, \eta_i)}}{G = sum_i exp(beta_0i) delta_(beta_1i, eta_i)}
#' with its router and its experts. Its regression function is \eqn{f_G(x) = \sum_i p_i(z) h(x, \eta_i)}{f_G(x) =
#' sum_i p_i(z) h(x, eta_i)}, where the weights p are the softmax of the router's scores plus \eqn{\beta_0} (see
#' [routers]) and z is x unless the gate has covariates of its own. With a link g other than the identity the experts
#' are linear predictors, and \eqn{g^{-1}(h)} stands for h.
#'
#' @param beta0 Biases \eqn{\beta_{0i}}{beta_0i}, logarithms of the masses of the atoms: a finite numeric vector of
#'   length k.
#' @param beta1 The gates' vectors \eqn{\beta_{1i}}{beta_1i}: a finite d x k matrix, one column an atom. A plain vector
#'   is a matrix of one column if k = 1, else of one row.
#' @param eta The experts' parameters: a finite q x k matrix, one column an atom, in the order of [experts]; for
#'   phi(a'x + b) first a, then b.
#' @param router,expert A router and an expert, or their names: see [routers] and [experts].
#' @param link The link of the experts' means: `"identity"`, the paper's model, `"log"`, `"inverse"`, `"sqrt"`,
#'   `"logit"`, `"probit"` or `"cloglog"`.
#' @param fit A fit from [fit_cosine_moe()].
#'
#' @details
#' A fit may have gates on the boundary, where \eqn{\beta_1} is infinite: its measure keeps the bounded vectors
#' \eqn{u_i} of [routers] as well, and everything that can be computed from them is. For cosine routers with
#' `standardize = TRUE` the gate of a fit belongs to centred and scaled covariates; the measure keeps that centre and
#' scale.
#'
#' The measure of a fit by maximum likelihood is that of its mean: it keeps the link of the family, but neither the
#' family nor the dispersions (sigma or shape), which have no part in the regression function. So they have none in
#' [canonicalize()], [equivalent()] and [voronoi_loss()] either: experts that differ in their dispersions alone have
#' equal atoms. For responses of the family draw from the fit, see [simulate.cosine_moe()].
#'
#' @return An object of class `mixing_measure`: a list with `beta0` (length k), `beta1` and `u` (d x k, see [routers]),
#'   `eta` (q x k), `router`, `expert`, and `z_center`, `z_scale` (length d; 0 and 1 unless they come from a fit),
#'   `shared` (`FALSE` if it comes from a fit whose gate has covariates of its own), `link`. Bad arguments stop with a
#'   `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131: the mixing measure of its model section.
#'
#' @seealso [canonicalize()], [equivalent()], [voronoi_loss()], [predict.mixing_measure()].
#' @examples
#' G <- mixing_measure(
#'   beta0 = c(0.3, 0), beta1 = cbind(c(1, 0), c(-1, 0.5)), eta = cbind(c(2, 0, 1), c(-1, 1, 0)),
#'   router = "perturbed_cosine", expert = "tanh"
#' )
#' G
#' predict(G, cbind(c(-1, 0, 1), 0.5))
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, control = moe_control(n_starts = 5))
#' as_mixing_measure(fit)
#' @export
mixing_measure <- function(beta0, beta1, eta, router = "perturbed_cosine", expert = "linear", link = "identity") {
  if (missing(beta0)) stop_input("beta0", I("missing"), "a finite numeric vector with one bias an atom")
  if (missing(beta1)) stop_input("beta1", I("missing"), "a finite numeric matrix with one column an atom")
  if (missing(eta)) stop_input("eta", I("missing"), "a finite numeric matrix with one column an atom")
  router <- as_router(router)
  expert <- as_expert(expert)
  link <- check_choice(link, unique(unlist(links_of_families)))
  if (!is.numeric(beta0) || length(beta0) == 0L) {
    stop_input("beta0", beta0, "a finite numeric vector with one bias an atom")
  }
  k <- length(beta0)
  if (!is.null(router$top_k)) check_count(router$top_k, upper = k, argument = "router$top_k")
  beta0 <- check_vector(beta0, k)
  beta1 <- atoms_matrix(beta1, k, "beta1")
  eta <- atoms_matrix(eta, k, "eta")
  if (is.na(expert_covariates(expert, nrow(eta)))) {
    stop_input("eta", eta, paste("a matrix with the parameters of", format(expert), "experts as columns"))
  }
  u <- core_call(core_direction_to_gate(core_router(router), beta1))
  new_mixing_measure(beta0, beta1, u, eta, router, expert, link = link)
}

# `u` agrees with `beta1`, which may be infinite.
new_mixing_measure <- function(beta0, beta1, u, eta, router, expert, z_center = NULL, z_scale = NULL, shared = TRUE,
                               link = "identity") {
  structure(
    list(
      beta0 = as.double(beta0), beta1 = unname(beta1), u = unname(u), eta = unname(eta),
      router = router, expert = expert,
      z_center = if (is.null(z_center)) rep(0, nrow(u)) else as.double(z_center),
      z_scale = if (is.null(z_scale)) rep(1, nrow(u)) else as.double(z_scale),
      shared = shared, link = link
    ),
    class = "mixing_measure"
  )
}

#' @rdname mixing_measure
#' @export
as_mixing_measure <- function(fit) {
  if (missing(fit)) stop_input("fit", I("missing"), "a fit from fit_cosine_moe(), or a mixing measure")
  if (inherits(fit, "mixing_measure")) return(fit)
  if (!inherits(fit, "cosine_moe")) stop_input("fit", fit, "a fit from fit_cosine_moe(), or a mixing measure")
  new_mixing_measure(
    fit$gate$b, fit$gate$beta, fit$gate$u, fit$experts, fit$router, fit$expert, fit$z_center, fit$z_scale,
    fit$names$shared, if (is_em(fit)) fit$family$link else "identity"
  )
}

# A finite matrix with one column an atom.
atoms_matrix <- function(x, k, argument) {
  if (is.numeric(x) && is.null(dim(x))) x <- if (k == 1L) matrix(x) else matrix(x, nrow = 1L)
  check_matrix(x, NROW(x), k, argument = argument)
}

# The number of covariates of an expert with q parameters: NA when there is none, any number for experts whose
# parameters do not tell (0).
expert_covariates <- function(expert, q) {
  d <- switch(expert$name,
    constant = if (q == 1L) 0 else NA,
    custom = if (q == expert$n_par) 0 else NA,
    network = (q - 1) / expert$hidden - 2,
    q - 1
  )
  if (is.na(d) || d < 0 || d != round(d)) NA_integer_ else as.integer(d)
}
