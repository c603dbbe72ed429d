#' Experts
#'
#' @description
#' An expert is the regression function h(x, eta) of one component, with its own parameters eta for each of the k
#' experts and the form they share. With d covariates x:
#'
#' | constructor | h(x, eta) | parameters |
#' |---|---|---|
#' | `expert_constant()` | b | 1 |
#' | `expert_linear()` | a'x + b | d + 1 |
#' | `expert_polynomial(degree)` | (a'x + b)^degree | d + 1 |
#' | `expert_relu()` | max(0, a'x + b) | d + 1 |
#' | `expert_gelu()` | t Phi(t), t = a'x + b, Phi the normal distribution function | d + 1 |
#' | `expert_tanh()` | tanh(a'x + b) | d + 1 |
#' | `expert_sigmoid()` | 1 / (1 + exp(-(a'x + b))) | d + 1 |
#' | `expert_softplus()` | log(1 + exp(a'x + b)) | d + 1 |
#' | `expert_network(hidden, activation)` | c_0 + sum_j c_j phi(a_j'x + b_j), j = 1, ..., hidden | hidden (d + 2) + 1 |
#' | `expert_custom(value, gradient, n_par)` | value(x, eta) | n_par |
#'
#' @param degree Degree of the polynomial, a whole number of at least 1. A polynomial expert is a power of one linear
#'   form, as in the paper; use `poly()` in the formula for general polynomials.
#' @param hidden Number of hidden units, a whole number of at least 1; the default 4 keeps a network small.
#' @param activation Activation phi of the hidden units: `"relu"`, `"gelu"`, `"tanh"`, `"sigmoid"` or `"softplus"`.
#'   The default `"tanh"` is smooth and strongly identifiable in the paper's sense.
#' @param value Function of `x`, a numeric matrix with a block of rows of the expert covariates, and `eta`, a numeric
#'   vector of length `n_par`; returns a numeric vector with one value for each row of `x`. The columns of `x` come in
#'   the order of the model matrix, on the user's scale whatever `standardize` says, and without names. The rows of a
#'   data set are cut into blocks, so a value may depend on its own row only.
#' @param gradient Function of the same arguments that returns the `nrow(x)` x `n_par` matrix of derivatives of
#'   `value` by `eta`, or `NULL`: then they come from differences of fourth order, with about twelve correct digits
#'   for a smooth `value` at four evaluations for each parameter.
#' @param n_par Number of parameters of one expert, a whole number of at least 1.
#'
#' @details
#' GELU is the exact one, with the error function, not its tanh approximation.
#'
#' The paper's theory needs experts that are *weakly identifiable* for exact-specified fits, which constant experts
#' are not, and *strongly identifiable* for fits with more experts than the truth has, which linear experts are not.
#' Without it the parameters are hard to estimate, but the regression function is not. [check_identifiability()] decides
#' both numerically, with a table of all experts beside the paper's.
#'
#' @return An object of class `cosmoe_expert`: a list with `name`, `degree`, `hidden`, `activation`, `value`,
#'   `gradient` and `n_par`; entries that do not belong to the family hold neutral values. The names `"constant"`,
#'   `"linear"`, `"polynomial"`, `"relu"`, `"gelu"`, `"tanh"`, `"sigmoid"`, `"softplus"` and `"network"` also work as
#'   strings wherever an expert with default settings will do. Bad values stop with a `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131; weak and strong identifiability of
#' experts are defined there.
#'
#' @seealso [fit_cosine_moe()], [router_perturbed_cosine()].
#' @examples
#' expert_gelu()
#' expert_network(hidden = 3, activation = "relu")
#' # A decay with its own rate: eta = (height, rate).
#' expert_custom(function(x, eta) eta[1] * exp(-eta[2] * x[, 1]), n_par = 2)
#' @name experts
NULL

expert_activations <- c("relu", "gelu", "tanh", "sigmoid", "softplus")

new_expert <- function(name, degree = 1L, hidden = 0L, activation = "", value = NULL, gradient = NULL, n_par = 0L) {
  structure(
    list(
      name = name, degree = degree, hidden = hidden, activation = activation,
      value = value, gradient = gradient, n_par = n_par
    ),
    class = "cosmoe_expert"
  )
}

#' @rdname experts
#' @export
expert_constant <- function() new_expert("constant")

#' @rdname experts
#' @export
expert_linear <- function() new_expert("linear")

#' @rdname experts
#' @export
expert_polynomial <- function(degree = 2) new_expert("polynomial", degree = check_count(degree))

#' @rdname experts
#' @export
expert_relu <- function() new_expert("relu")

#' @rdname experts
#' @export
expert_gelu <- function() new_expert("gelu")

#' @rdname experts
#' @export
expert_tanh <- function() new_expert("tanh")

#' @rdname experts
#' @export
expert_sigmoid <- function() new_expert("sigmoid")

#' @rdname experts
#' @export
expert_softplus <- function() new_expert("softplus")

#' @rdname experts
#' @export
expert_network <- function(hidden = 4, activation = "tanh") {
  new_expert("network", hidden = check_count(hidden), activation = check_choice(activation, expert_activations))
}

#' @rdname experts
#' @export
expert_custom <- function(value, gradient = NULL, n_par) {
  if (missing(value)) stop_input("value", I("missing"), "a function")
  value <- check_function(value)
  if (missing(n_par)) stop_input("n_par", I("missing"), "the number of parameters of one expert")
  n_par <- check_count(n_par)
  gradient <- if (is.null(gradient)) numeric_gradient(value, n_par) else check_function(gradient)
  new_expert("custom", value = value, gradient = gradient, n_par = n_par)
}

# Central differences of fourth order: truncation and rounding errors balance at a step of eps^(1/5).
numeric_gradient <- function(value, n_par) {
  force(value)
  force(n_par)
  function(x, eta) {
    step <- .Machine$double.eps^0.2 * pmax(1, abs(eta))
    column <- function(j) {
      at <- function(multiple) {
        eta[j] <- eta[j] + multiple * step[j]
        value(x, eta)
      }
      (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * step[j])
    }
    matrix(vapply(seq_len(n_par), column, numeric(nrow(x))), nrow(x), n_par)
  }
}

# An expert object, or the name of one with default settings.
as_expert <- function(x, argument = "expert") {
  if (inherits(x, "cosmoe_expert")) return(x)
  makers <- list(
    constant = expert_constant, linear = expert_linear, polynomial = expert_polynomial, relu = expert_relu,
    gelu = expert_gelu, tanh = expert_tanh, sigmoid = expert_sigmoid, softplus = expert_softplus,
    network = expert_network
  )
  if (!is.character(x) || length(x) != 1L || !x %in% names(makers)) {
    stop_input(argument, x, paste0("an expert such as expert_linear(), or ", choice_words(names(makers))))
  }
  makers[[x]]()
}

# Whether the expert acts through linear forms a'x + b, so that collinear covariates leave its parameters undefined.
expert_is_linear_form <- function(expert) !expert$name %in% c("constant", "custom")

# The number of parameters of one expert with d covariates.
expert_n_par <- function(expert, d) {
  switch(expert$name,
    constant = 1L,
    network = expert$hidden * (as.integer(d) + 2L) + 1L,
    custom = expert$n_par,
    as.integer(d) + 1L
  )
}

# Names of the parameters of one expert, in the order in which they travel to the core.
expert_par_names <- function(expert, x_names) {
  form <- c(x_names, "(Intercept)")
  units <- sprintf("hidden%d", seq_len(expert$hidden))
  switch(expert$name,
    constant = "(Intercept)",
    network = c(
      as.vector(outer(form, units, function(name, unit) paste0(unit, ":", name))),
      paste0("output:", c(units, "(Intercept)"))
    ),
    custom = sprintf("eta%d", seq_len(expert$n_par)),
    form
  )
}

#' @export
format.cosmoe_expert <- function(x, ...) {
  switch(x$name,
    polynomial = sprintf("polynomial of degree %d", x$degree),
    network = sprintf("network of %d %s unit%s", x$hidden, x$activation, if (x$hidden == 1L) "" else "s"),
    custom = sprintf("custom with %d parameter%s", x$n_par, if (x$n_par == 1L) "" else "s"),
    x$name
  )
}

#' @export
print.cosmoe_expert <- function(x, ...) {
  form <- switch(x$name,
    constant = "b",
    linear = "a'x + b",
    polynomial = sprintf("(a'x + b)^%d", x$degree),
    gelu = "t Phi(t), t = a'x + b",
    network = sprintf("c_0 + sum_j c_j %s(a_j'x + b_j), j = 1, ..., %d", x$activation, x$hidden),
    custom = "value(x, eta)",
    sprintf("%s(a'x + b)", x$name)
  )
  cat("Expert: ", format(x), "\n", sep = "")
  cat("h(x) =  ", form, "\n", sep = "")
  invisible(x)
}

# The smallest and largest value of an expert, whatever its parameters.
expert_range <- function(expert) {
  switch(expert$name,
    tanh = c(-1, 1),
    sigmoid = c(0, 1),
    relu = , softplus = c(0, Inf),
    gelu = c(-0.17, Inf), # minimum of t Phi(t)
    polynomial = c(if (expert$degree %% 2L) -Inf else 0, Inf),
    c(-Inf, Inf)
  )
}
