#' cosmoe: mixture-of-experts regression with cosine gates
#'
#' Fits `f(x) = sum_k p_k(z) h(x, eta_k)`, a weighted mean of k expert regressions, by least squares, or the
#' mixture of k regressions by maximum likelihood. The weights p_k are a softmax gate with a linear, cosine or perturbed
#' cosine router.
#'
#' * [fit_cosine_moe()] fits a model, from a formula or from matrices.
#' * [router_linear()], [router_cosine()] and [router_perturbed_cosine()] choose the gate.
#' * [expert_linear()] and its page choose the experts.
#' * [moe_control()] holds the numerical settings.
#' * [vcov()][vcov.cosine_moe], [confint()][confint.cosine_moe], [summary()][summary.cosine_moe],
#'   [predict()][predict.cosine_moe], [logLik()][logLik.cosine_moe] and [bootstrap_moe()] say how certain a fit is.
#' * [select_experts()], [merge_experts()] and [test_experts()] choose the number of experts.
#' * [mixing_measure()], [canonicalize()], [equivalent()], [voronoi_loss()] and [check_identifiability()] are the
#'   theory's side.
#' * [fit_moe_layer()] trains the sparse mixture-of-experts layer for classification.
#' * [rate_study()] measures how fast estimates converge, [plan_study()] says how long that takes.
#' * [cosmoe-glossary] defines every number that is printed.
#'
#' Every error of the package has the class `cosmoe_error` and one that says its kind: `cosmoe_error_input` (a bad
#' argument), `cosmoe_error_data` (data that cannot be fitted), `cosmoe_error_newdata`, `cosmoe_error_expert` (an error
#' in a custom expert's functions), `cosmoe_error_profile` and `cosmoe_error_bootstrap` (no interval can be given),
#' `cosmoe_error_checkpoint` (a checkpoint that cannot be written), `cosmoe_error_study` (the folder of a study),
#' `cosmoe_error_package` (a suggested package is missing), `cosmoe_error_interrupt` or `cosmoe_error_core`. A fit that
#' has not converged gives one warning of class `cosmoe_warning_convergence`; standard errors that would mislead are
#' `NA`, with one of class `cosmoe_warning_irregular`.
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
