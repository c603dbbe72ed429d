#' cosmoe: mixture-of-experts regression with cosine gates
#'
#' Fits `f(x) = sum_k p_k(z) h(x, eta_k)`, a weighted mean of k expert regressions, by least squares. The weights
#' p_k are a softmax gate with a linear, cosine or perturbed cosine router.
#'
#' * [fit_cosine_moe()] fits a model, from a formula or from matrices.
#' * [router_linear()], [router_cosine()] and [router_perturbed_cosine()] choose the gate.
#' * [expert_linear()] and its page choose the experts.
#' * [moe_control()] holds the numerical settings.
#'
#' Every error of the package has the class `cosmoe_error` and one that says its kind: `cosmoe_error_input` (a bad
#' argument), `cosmoe_error_data` (data that cannot be fitted), `cosmoe_error_newdata`, `cosmoe_error_interrupt` or
#' `cosmoe_error_core`. A fit that has not converged gives one warning of class `cosmoe_warning_convergence`; standard
#' errors that would mislead are `NA`, with one of class `cosmoe_warning_irregular`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131.
#'
#' @useDynLib cosmoe, .registration = TRUE
#' @importFrom Rcpp evalCpp
#' @importFrom nloptr nloptr
#' @importFrom progressr progressor
#' @keywords internal
"_PACKAGE"
