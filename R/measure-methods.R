#' Regression function, simulated data and picture of a mixing measure
#'
#' @description
#' `predict()` gives the regression function of a [mixing_measure()] and its parts, `simulate()` draws data from it,
#' `plot()` shows its atoms, and its curve if there is a single covariate.
#'
#' @param object,x A mixing measure; for `predict()` and `simulate()`, `x` are the experts' covariates: an n x d numeric
#'   matrix. `simulate()` also takes a function of n that returns one, or the name of a distribution: `"uniform"` on
#'   \eqn{[-1, 1]^d}{[-1, 1]^d} (the default, as in the paper's experiments), `"normal"` (standard), or `"sphere"`
#'   (uniform on the sphere of radius 1).
#' @param type As for fits, see [predict.cosine_moe()].
#' @param z The gate's covariates, an n x d matrix; the experts' by default. For cosine routers they are centred and
#'   scaled as in the fit that the measure comes from.
#' @param threads Number of threads, a whole number; the result is the same for any.
#' @param nsim Number of rows n to draw; `simulate(G, n = 100)` works too. Not needed when `x` is a matrix.
#' @param seed `NULL`, or a number for [set.seed()]; the generator's state is then restored afterwards.
#' @param sigma Standard deviation of the Gaussian noise round the regression function, a number of at least 0; for
#'   measures of other families 0 gives the mean.
#' @param xlim With a single covariate, the range over which `plot()` draws the curve: by default -1 to 1, or the gate's
#'   centre plus and minus twice its scale where they come from a fit.
#' @param ... Nothing: any further argument is an error.
#'
#' @return `predict()`: as [predict.cosine_moe()]. `simulate()`: a list of `x` (n x d), `y` and `mean` (length n), and
#'   `z` if it was given. `plot()`: its argument, invisibly. Bad arguments stop with a `cosmoe_error_input`.
#'
#' @seealso [mixing_measure()], [fit_cosine_moe()].
#' @examples
#' beta1 <- cbind(c(1, 0), c(-1, 0.5))
#' G <- mixing_measure(c(0.3, 0), beta1, cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh")
#' data <- simulate(G, n = 200, sigma = 0.1, seed = 1)
#' quick <- moe_control(n_starts = 5)
#' fit <- fit_cosine_moe(data$x, data$y, expert = "tanh", standardize = FALSE, control = quick)
#' predict(G, cbind(0.5, -0.5), type = "gate")
#' plot(as_mixing_measure(fit))
#' @name mixing_measure-methods
#' @aliases predict.mixing_measure
NULL

#' @rdname mixing_measure-methods
#' @export
predict.mixing_measure <- function(object, x, type = c("response", "experts", "gate", "class", "logit"), z = NULL,
                                   threads = 1, ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("response", "experts", "gate", "class", "logit"))
  if (missing(x)) stop_input("x", I("missing"), "a numeric matrix of covariates")
  threads <- check_count(threads)
  data <- measure_covariates(object, x, z)
  prediction(measure_experts(object), evaluate_measure(object, data, threads), type)
}

# What prediction() asks of a fit.
measure_experts <- function(G) list(experts = structure(G$eta, dimnames = list(NULL, atom_names(G))))

atom_names <- function(G) sprintf("expert%d", seq_along(G$beta0))

evaluate_measure <- function(G, data, threads = 1L) {
  rows <- list(x = data$x, z = data$z, z_center = G$z_center, z_scale = G$z_scale)
  par <- list(u = G$u, b = G$beta0, eta = G$eta)
  value <- core_call(core_predict(core_model(G$router, G$expert, length(G$beta0)), rows, par, threads))
  value$response <- as.vector(value$f)
  if (measure_link(G) == "identity") return(value)
  value$expert <- mean_of_link(G, value$expert)
  value$response <- rowSums(ifelse(value$gate > 0, value$gate * value$expert, 0))
  value
}

# Checked covariates: list(x, z), z NULL when the gate uses x.
measure_covariates <- function(G, x, z = NULL) {
  d <- expert_covariates(G$expert, nrow(G$eta))
  free <- G$expert$name %in% c("constant", "custom")
  x <- finite_covariates(x, "x", if (!free) d)
  if (is.null(z) && nrow(G$u) == 0L) z <- matrix(0, nrow(x), 0L)
  if (is.null(z)) {
    if (ncol(x) != nrow(G$u) || !G$shared) {
      stop_input("z", z, sprintf("a matrix with the %s of the gate", count_words(nrow(G$u), "covariate")))
    }
    return(list(x = x, z = NULL))
  }
  z <- finite_covariates(z, "z", nrow(G$u))
  if (nrow(z) != nrow(x)) stop_input("z", z, sprintf("a matrix of %d rows, as x", nrow(x)))
  list(x = x, z = z)
}

# A vector is one column, or one row where that is what fits.
finite_covariates <- function(x, argument, columns = NULL) {
  if (is.data.frame(x)) x <- as.matrix(x)
  if (is.numeric(x) && is.null(dim(x)) && length(columns) && columns != 1L && length(x) == columns) x <- t(x)
  size <- if (length(columns)) sprintf("a finite numeric matrix of %d columns", columns) else "a finite numeric matrix"
  if (!is.numeric(x) || length(dim(x)) > 2L) stop_input(argument, x, size)
  x <- as_covariates(x, argument)
  if (length(columns) && ncol(x) != columns) stop_input(argument, x, size)
  if (!all(is.finite(x))) stop_input(argument, I("one with missing or infinite entries"), size)
  unname(x)
}

#' @rdname mixing_measure-methods
#' @export
simulate.mixing_measure <- function(object, nsim = 1, seed = NULL, x = "uniform", sigma, z = NULL, ...) {
  check_dots_empty(...)
  given <- is.matrix(x) || is.data.frame(x)
  n <- if (given && missing(nsim)) nrow(x) else check_count(nsim, argument = "n")
  if (missing(sigma)) stop_input("sigma", I("missing"), "the standard deviation of the noise")
  sigma <- check_number(sigma, lower = 0)
  with_seed(seed, {
    if (!is.numeric(x) && !is.data.frame(x)) x <- draw_covariates(x, n, covariate_count(object))
    data <- measure_covariates(object, x, z)
    if (nrow(data$x) != n) stop_input("x", x, sprintf("covariates of %d rows", n))
    mean <- evaluate_measure(object, data)$response
    colnames(data$x) <- colnames(x)
    c(data["x"], if (!is.null(z)) data["z"], list(y = mean + sigma * stats::rnorm(n), mean = mean))
  })
}

# The experts' covariates, as far as their parameters tell.
covariate_count <- function(G) {
  if (G$expert$name %in% c("constant", "custom")) nrow(G$u) else expert_covariates(G$expert, nrow(G$eta))
}

# n rows of d covariates from a generator function or a distribution's name.
draw_covariates <- function(x, n, d, argument = "x") {
  if (is.function(x)) return(x(n))
  generators <- c("uniform", "normal", "sphere")
  if (!is.character(x) || length(x) != 1L || !x %in% generators) {
    stop_input(argument, x, paste0("a matrix, a function of n, or ", choice_words(generators)))
  }
  if (x == "uniform") return(matrix(stats::runif(n * d, -1, 1), n, d))
  normal <- matrix(stats::rnorm(n * d), n, d)
  if (x == "normal") normal else normal / sqrt(rowSums(normal^2))
}

#' @export
format.mixing_measure <- function(x, digits = getOption("digits"), ...) {
  sprintf(
    "%d atoms, %s router, %s experts%s", length(x$beta0), format(x$router, digits = digits), format(x$expert),
    link_words(x)
  )
}

link_words <- function(G) if (measure_link(G) == "identity") "" else paste0(", ", G$link, " link")

# Measures that were saved before they had links have the identity.
measure_link <- function(G) if (is.null(G$link)) "identity" else G$link

#' @export
print.mixing_measure <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  cat("Mixing measure: ", count_words(length(x$beta0), "atom"), "\n", sep = "")
  cat("Router:  ", format(x$router, digits = digits), ", ", count_words(nrow(x$u), "covariate"), "\n", sep = "")
  cat("Experts: ", format(x$expert), link_words(x), "\n\n", sep = "")
  row <- function(values, names) structure(values, dimnames = list(names, atom_names(x)))
  table <- rbind(
    row(t(exp(x$beta0)), "mass exp(beta_0)"), row(t(x$beta0), "beta_0"),
    row(x$beta1, indexed("beta_1", nrow(x$u))), row(x$eta, parameter_symbols(x))
  )
  most <- 40L
  shown <- seq_len(min(nrow(table), most))
  print(format_entries(table[shown, , drop = FALSE], digits), quote = FALSE, right = TRUE)
  if (nrow(table) > most) {
    cat("  ... and ", count_words(nrow(table) - most, "more row"), ": see its entries `beta1` and `eta`\n", sep = "")
  }
  if (any(is.infinite(x$beta1))) print_line("Infinite beta_1: a gate on the boundary, its direction is that of `u`.")
  if (any(x$z_center != 0 | x$z_scale != 1)) {
    print_line("The gate's covariates are centred by `z_center` and scaled by `z_scale`.")
  }
  invisible(x)
}

indexed <- function(symbol, size) if (size) sprintf("%s[%d]", symbol, seq_len(size)) else character()

# Names of the experts' parameters where covariates have none: a[1], a[2], ..., b.
parameter_symbols <- function(G) {
  names <- expert_par_names(G$expert, indexed("a", covariate_count(G)))
  sub("(Intercept)", "b", names, fixed = TRUE)
}

# ---- picture ---------------------------------------------------------------------------------------------------------

#' @rdname mixing_measure-methods
#' @export
plot.mixing_measure <- function(x, xlim = NULL, ...) {
  check_dots_empty(...)
  if (!is.null(xlim)) xlim <- check_vector(xlim, 2L)
  before <- graphics::par(mfrow = c(1L, 2L), mar = c(4, 4.2, 3.6, 2), las = 1L, mgp = c(2.4, 0.7, 0))
  on.exit(graphics::par(before))
  draw_gate_atoms(x)
  if (is.null(xlim)) xlim <- if (any(x$z_scale != 1)) x$z_center + 2 * x$z_scale * c(-1, 1) else c(-1, 1)
  if (covariate_count(x) == 1L && nrow(x$u) == 1L && x$shared) draw_measure_curve(x, xlim) else draw_expert_atoms(x)
  invisible(x)
}

# Two coordinates of each atom, as discs with areas in proportion to their masses; with a circle of the given radius.
draw_atoms <- function(G, at, title, xlab, ylab, radius = NULL) {
  limit <- function(v) if (length(radius)) c(-1.1, 1.1) * radius else grDevices::extendrange(c(v, 0), f = 0.2)
  at <- rbind(at, 0, 0)[1:2, , drop = FALSE]
  open_panel(title, limit(at[1L, ]), limit(at[2L, ]), xlab, ylab)
  angle <- seq(0, 2 * pi, length.out = 181L)
  if (length(radius)) graphics::lines(radius * cos(angle), radius * sin(angle), col = "grey60")
  k <- length(G$beta0)
  share <- exp(G$beta0 - log_sum_exp(G$beta0))
  fill <- vapply(expert_colors(k), grDevices::adjustcolor, "", alpha.f = 0.3)
  graphics::points(at[1L, ], at[2L, ], pch = 21L, cex = 1.5 + 4 * sqrt(share), lwd = 1.5, col = expert_colors(k),
                   bg = fill)
  graphics::text(at[1L, ], at[2L, ], seq_len(k), cex = 0.8)
}

# The gates: u where it is bounded, beta else.
draw_gate_atoms <- function(G) {
  bounded <- G$router$name != "linear"
  d <- nrow(G$u)
  name <- function(j) if (j <= d) sprintf(if (bounded) "u[%d]" else "beta_1[%d]", j) else ""
  more <- if (d > 2L) sprintf(" (2 of %d coordinates)", d)
  before <- graphics::par(pty = if (bounded) "s" else "m")
  on.exit(graphics::par(before))
  draw_atoms(G, if (bounded) G$u else G$beta1, paste0("Gates", more), name(1L), name(2L), if (bounded) G$router$scale)
}

draw_expert_atoms <- function(G) {
  names <- parameter_symbols(G)
  q <- length(names)
  more <- if (q > 2L) sprintf(" (2 of %d parameters)", q)
  draw_atoms(G, G$eta, paste0("Experts", more), names[1L], if (q > 1L) names[2L] else "")
}

# Experts, mean and gate along the single covariate.
draw_measure_curve <- function(G, xlim) {
  values <- seq(xlim[1L], xlim[2L], length.out = 201L)
  value <- evaluate_measure(G, list(x = matrix(values), z = NULL))
  at <- list(experts = value$expert, gate = value$gate, mean = value$response)
  limits <- curve_limits(at, value$response)
  strip <- limits[1L] - diff(limits) * c(0.34, 0.08)
  open_panel("Experts and mean", range(values), range(limits, strip), "x", "f(x)", y_axis = limits)
  draw_curves(values, at)
  draw_gate_strip(values, at$gate, strip, discrete = FALSE)
  draw_key(c(atom_names(G), "mean"), c(expert_colors(ncol(at$gate)), "black"), lwd = 2.5)
}
