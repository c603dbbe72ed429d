# Weak and strong identifiability, decided numerically. Functions of x are columns, points x are rows: the functions are
# linearly independent when the matrix of their values, columns scaled to length one, has full rank.

#' Weak and strong identifiability, decided numerically
#'
#' @description
#' The theory of the perturbed cosine router rests on derivatives of
#' \deqn{F(x; \beta_1, \eta) = \exp(score(x; \beta_1)) h(x, \eta),}{F(x; beta_1, eta) = exp(score(x; beta_1))
#' h(x, eta),}
#' the numerator of the regression function, in the parameters of k different atoms. *Weak identifiability* (needed for
#' rates of exact-specified fits) asks that all first derivatives be linearly independent as functions of x, *strong
#' identifiability* (needed when there are more experts than the truth has) the same of all first and second
#' derivatives together. `check_identifiability()` evaluates these functions at many points, finds the rank of the
#' matrix of their values, and says in words which derivatives depend on which. It does the same for the derivatives of
#' the regression function itself, where the freedom of the softmax shows.
#'
#' @param expert,router An expert and a router, or their names: see [experts] and [routers]. May be missing with `at`.
#' @param order 1 for weak identifiability, 2 for strong, or both.
#' @param k Number of atoms, a whole number. The default 2 shows what happens within an atom and between two.
#' @param d Number of covariates, of gate and experts alike.
#' @param at A [mixing_measure()] or a fit whose parameters are taken, or `NULL` for random ones. Errors are infinite
#'   \eqn{\beta_1}, and \eqn{\beta_1 = 0} where derivatives do not exist: those of the cosine router, and second ones of
#'   the perturbed router.
#' @param x The points: a finite numeric matrix with d columns and at least as many different rows as functions; or
#'   `list(x = , z = )` for experts and gate, where they have covariates of their own; or `NULL` for random points, five
#'   for each function but not less than 2000, from the standard normal distribution (on the scale of the gate's
#'   covariates when `at` comes from a fit). Gate and experts share the points unless they differ in dimension. For the
#'   methods: the result.
#' @param draws Number of random choices of the parameters, on the same points; the lowest rank is reported, all ranks
#'   are kept.
#' @param tolerance Singular values up to this number, relative to the largest, count as zero. The default is 1e-12;
#'   1e-8 for custom experts, whose second derivatives are differences of the gradient.
#'
#' @details
#' *Numerics.* Derivatives are exact (custom experts: see `tolerance`). Columns are scaled to length one, and the
#' singular values come from a QR decomposition, accumulated over blocks of points: a Gram matrix would square the
#' condition number. Random parameters are drawn by R's generator, so [set.seed()] reproduces them: absolute values are
#' uniform between 0.5 and 1.5, times `tau1` for \eqn{\beta_1} of the perturbed router (where its norm shows best) and 1
#' / `scale` for that of the linear one; of 20 draws of \eqn{\beta_1} the one counts whose columns lie farthest apart.
#' All built-in experts without ReLU are analytic in their parameters: functions that are independent for one choice of
#' parameters are for almost every one. Special parameters, such as two equal atoms or a slope of zero, are a matter for
#' `at`.
#'
#' *For rates* the condition as stated asks too much. In an over-specified fit the coefficients of the second
#' derivatives are second moments of the errors of the atoms in one cell, \eqn{\sum_i w_i \Delta_{ip} \Delta_{iq}}{sum_i
#' w_i Delta_ip Delta_iq}. Those of \eqn{d^2F/dp^2} are sums of squares, and where they vanish, so do all others. Hence
#' it is enough that the first derivatives be independent and that no null direction contain some \eqn{d^2F/dp^2}.
#' `rates` says whether this is so; it is this package's reading of the paper's proof, and `FALSE` means only that the
#' argument does not apply. For an activation \eqn{\phi(a'x + b)} in two or more covariates, which gate and expert
#' share, mixed derivatives by \eqn{\beta_1} and a always depend on each other, because they lead to the products
#' \eqn{x_i x_j = x_j x_i}; such null directions are harmless.
#'
#' *The regression function* depends on more: adding one vector to all gate vectors u (see [routers]) or one number to
#' all \eqn{\beta_0} changes nothing. These d + 1 directions are no null directions of the sets above, which look at
#' each atom's F alone; the paper's normalisation \eqn{\beta_{0k} = 0} removes one of them only. For the cosine router,
#' whose u_i lie on a sphere, they are the norms of \eqn{\beta_1}, the shift of \eqn{\beta_0}, and, with k < d,
#' translations orthogonal to all u_i. `regression` counts them as `gauge` and describes any others. A sparse gate
#' (`top_k`) matters for this part only.
#'
#' @section Experts and routers:
#' Rank and number of functions for order 1 and for order 2, and `rates` of order 2, at k = 2 and d = 2 (networks have
#' two units, polynomials their degree); first the paper's claims on weak and strong identifiability, for the perturbed
#' router, where it makes any.
#'
#' | expert | paper: weak / strong | linear | cosine | perturbed cosine |
#' | --- | --- | --- | --- | --- |
#' | constant | no / no | 6/6, 12/18, no | 4/6, 6/18, no | 6/6, 12/18, no |
#' | linear | yes / no | 10/10, 18/40, no | 8/10, 14/40, no | 10/10, 22/40, no |
#' | polynomial(2) | yes / yes | 10/10, 24/40, no | 8/10, 20/40, no | 10/10, 28/40, no |
#' | polynomial(3) | yes / yes | 10/10, 24/40, no | 8/10, 20/40, no | 10/10, 28/40, no |
#' | relu | yes / yes | 10/10, 18/40, no | 8/10, 14/40, no | 10/10, 22/40, no |
#' | gelu |  | 10/10, 34/40, yes | 8/10, 28/40, no | 10/10, 38/40, yes |
#' | tanh | yes / yes | 10/10, 34/40, yes | 8/10, 28/40, no | 10/10, 38/40, yes |
#' | sigmoid |  | 10/10, 34/40, yes | 8/10, 28/40, no | 10/10, 38/40, yes |
#' | softplus |  | 10/10, 34/40, yes | 8/10, 28/40, no | 10/10, 38/40, yes |
#' | network, tanh |  | 22/22, 72/154, no | 20/22, 62/154, no | 22/22, 80/154, no |
#' | network, relu |  | 18/22, 36/154, no | 16/22, 30/154, no | 18/22, 44/154, no |
#'
#' In every row the regression function has exactly the null directions of the softmax: d + 1 = 3 for the linear and the
#' perturbed router, two norms and a shift for the cosine router; ReLU networks add the four of their weak condition.
#' Each "no" of the perturbed router is a real one: a family of different measures with two atoms in one cell defines
#' one function. Where numbers and paper differ, and why:
#' * *Cosine router*: F does not change with the norm of \eqn{\beta_1}, so no expert is even weakly identifiable. That
#'   is the paper's reason for its slow rates; the directions and the experts alone are not affected.
#' * *Constant experts*: the paper says that weak identifiability fails; the functions it names are independent. \eqn{F
#'   = b dF/db}, so they are dependent once F itself is counted, but then linear experts, polynomials and ReLU fail as
#'   well, since \eqn{F = (a'dF/da + b dF/db) / degree}. Here F does not count.
#' * *Linear experts*: weakly identifiable. Strong identifiability fails under every router:
#'   \eqn{d^2F/d\eta^2}{d2F/deta2} is zero, and \eqn{dF/d\beta_1}{dF/dbeta_1} is a combination of second derivatives.
#'   The linear router adds \eqn{d^2F/d\beta_1 db = s dF/da}{d2F/dbeta_1 db = s dF/da}, which the
#'   perturbed router has not.
#' * *ReLU*: on the paper's list of strongly identifiable experts. Its second derivative is zero almost everywhere, so
#'   the numbers say what they say of linear experts. (Its kink is not seen by derivatives.)
#' * *Polynomials of degree p >= 2*: on the paper's list, too. But \eqn{(a'x + b)^p} is homogeneous in (a, b): two atoms
#'   with the same \eqn{\beta_1} and experts \eqn{(1 + \epsilon_i) \eta}{(1 + eps_i) eta} give the same function as one
#'   atom when \eqn{\sum_i w_i (1 + \epsilon_i)^p = \sum_i w_i}{sum_i w_i (1 + eps_i)^p = sum_i w_i}. The same holds for
#'   linear and ReLU experts, and for the output weights of a network.
#' * *Networks*: the second derivatives by output weights vanish. ReLU units are not even weakly identifiable: a and b
#'   can be multiplied by what c is divided by.
#' * *tanh, sigmoid, GELU, softplus*: strong identifiability holds as far as rates need it, under the linear router as
#'   well, although the set as stated is dependent for d >= 2 (see above); for d = 1 and the perturbed router it is not.
#'
#' @return An object of class `identifiability`, a list with `weak` and `strong` (those asked for), `regression`, the
#'   model (`expert`, `router`, `k`, `d`), `given` (`TRUE` with `at`), `draws`, `nobs` (points) and `tolerance`. `weak`
#'   and `strong` are lists with
#'   * `size`, `rank`, `singular_values`: number of functions, their rank, and the singular values (largest one: 1);
#'     `ranks`: the rank for each draw; `clear`: `FALSE` if rounding errors leave the rank in doubt;
#'   * `holds`: `TRUE` if all functions are linearly independent; `rates`: `TRUE` if what rates need holds;
#'   * `functions`: a data frame with the atom, the order and the name of each function;
#'   * `null`: a matrix with one column a null direction, coefficients of the functions, chosen such that few are not
#'     zero, the largest 1; `words`: what they say;
#'   * `atoms`: the parameters.
#'
#'   `regression` has `gauge`, the number of the softmax's own directions, instead of `rates`; its `null`, `words` and
#'   `holds` are about all others. `print()` returns its argument invisibly; `as.data.frame()` gives one row for each
#'   condition. Bad arguments stop with a `cosmoe_error_input`.
#'
#' @references Nguyen, H., Akbarian, P., Pham, T., Nguyen, T., Zhang, S. and Ho, N. (2025). Statistical advantages of
#' perturbing cosine router in mixture of experts. ICLR 2025, arXiv:2405.14131: the definitions of weak and strong
#' identifiability for the perturbed cosine router.
#'
#' @seealso [mixing_measure()], [canonicalize()], [experts], [routers].
#' @examples
#' set.seed(1)
#' check_identifiability("tanh", "perturbed_cosine")
#' check_identifiability("linear", "cosine", order = 1)
#' # Two equal atoms cannot be told apart.
#' G <- mixing_measure(c(0, 0), cbind(1:2, 1:2), cbind(c(1, 0, 1), c(1, 0, 1)), expert = "tanh")
#' check_identifiability(at = G, order = 1)
#' @export
check_identifiability <- function(expert, router, order = c(1, 2), k = 2, d = 2, at = NULL, x = NULL, draws = 3,
                                  tolerance = NULL) {
  order <- check_orders(order)
  draws <- check_count(draws)
  if (!is.null(at)) {
    at <- as_measure(at)
    other <- measure_link(at) != "identity"
    if (other) stop_input("at", I(paste("one with the link", at$link)), "a measure with the identity link")
    if (missing(expert)) expert <- at$expert
    if (missing(router)) router <- at$router
    if (missing(k)) k <- length(at$beta0)
    if (missing(d)) d <- nrow(at$u)
    draws <- 1L
  } else if (missing(d) && !is.null(x)) {
    d <- NCOL(if (is_pair(x)) x$z else x)
  }
  model <- identifiability_model(expert, router, k, d, at, order)
  if (is.null(tolerance)) tolerance <- if (model$expert$name == "custom") 1e-8 else 1e-12
  tolerance <- check_number(tolerance, lower = 0, upper = 0.01, strict = TRUE)
  functions <- derivative_names(model, max(order))
  if (nrow(functions) > 4000L) {
    stop_input("order", I(sprintf("one that asks for %d functions", nrow(functions))),
               "one with at most 4000 functions for these `k`, `d` and experts")
  }
  points <- design_points(x, model, at, nrow(functions))
  results <- lapply(seq_len(draws), function(i) {
    atoms <- if (is.null(at)) random_atoms(model) else at[c("beta0", "beta1", "eta")]
    decide(model, points, atoms, order, functions, tolerance)
  })
  worst_draw(results, c(model, list(given = !is.null(at))), nrow(points$x), tolerance)
}

# ---- arguments -------------------------------------------------------------------------------------------------------

check_orders <- function(order) {
  if (!is.numeric(order) || !length(order) || !all(order %in% 1:2)) {
    stop_input("order", order, "1 (weak), 2 (strong), or both")
  }
  sort(unique(as.integer(order)))
}

# What is asked about: router, expert, k atoms, covariates of the gate (d) and of the experts (dx).
identifiability_model <- function(expert, router, k, d, at, order) {
  if (missing(expert)) stop_input("expert", I("missing"), "an expert such as expert_tanh(), or its name")
  if (missing(router)) stop_input("router", I("missing"), "a router such as router_cosine(), or its name")
  expert <- as_expert(expert)
  router <- as_router(router)
  k <- check_count(k)
  d <- check_count(d)
  dx <- d
  if (!is.null(at)) {
    same <- function(given, own) isTRUE(all.equal(unclass(given), unclass(own)))
    if (!same(expert, at$expert)) stop_input("expert", I(format(expert)), "missing, or the expert of `at`")
    if (!same(router, at$router)) stop_input("router", I(format(router)), "missing, or the router of `at`")
    if (k != length(at$beta0)) stop_input("k", k, "missing, or the number of atoms of `at`")
    if (d != nrow(at$u)) stop_input("d", d, "missing, or the number of gate covariates of `at`")
    check_smooth(at, max(order))
    if (!expert$name %in% c("constant", "custom")) dx <- expert_covariates(expert, nrow(at$eta))
  }
  if (!is.null(router$top_k)) check_count(router$top_k, upper = k, argument = "router$top_k")
  list(expert = expert, router = router, k = k, d = d, dx = dx)
}

# The derivatives must exist.
check_smooth <- function(at, order) {
  if (!all(is.finite(at$beta1))) {
    stop_input("at", I("one with a gate on the boundary"), "a mixing measure with finite beta_1")
  }
  needs <- switch(at$router$name, linear = Inf, cosine = 1L, perturbed_cosine = 2L)
  if (order >= needs && any(colSums(at$beta1 != 0) == 0)) {
    stop_input("at", I("one with a gate that is 0, where the score has no derivatives"),
               "a mixing measure with beta_1 other than 0")
  }
}

# The points as the `rows` of the bridge.
design_points <- function(x, model, at, functions) {
  # The regression function has derivatives of its own.
  functions <- max(functions, model$k * (1L + model$d + expert_n_par(model$expert, model$dx)))
  points <- if (is.null(x)) random_points(max(2000L, 5L * functions), model, at) else given_points(x, model)
  distinct <- nrow(unique(cbind(points$x, points$z)))
  if (distinct < functions) {
    stop_input("x", I(sprintf("one with %d", distinct)), sprintf("at least %d different points, as many as functions",
                                                                functions))
  }
  c(points, list(z_center = at$z_center, z_scale = at$z_scale))
}

given_points <- function(x, model) {
  if (is_pair(x)) {
    if (!setequal(names(x), c("x", "z"))) stop_input("x", x, "a matrix, or list(x = , z = )")
    z <- check_points(x$z, model$d, NROW(x$z), "x$z")
    return(list(x = check_points(x$x, model$dx, NROW(z), "x$x"), z = z))
  }
  if (model$dx != model$d) stop_input("x", x, "list(x = , z = ), since gate and experts differ in covariates")
  list(x = check_points(x, model$d, NROW(x), "x"), z = NULL)
}

# Points of experts and gate, apart.
is_pair <- function(x) is.list(x) && !is.data.frame(x)

check_points <- function(x, columns, rows, argument) {
  if (is.data.frame(x)) x <- as.matrix(x)
  if (!is.numeric(x)) stop_input(argument, x, "a finite numeric matrix of points")
  check_matrix(x, rows, columns, argument = argument)
}

random_points <- function(n, model, at) {
  draw <- function(d) matrix(stats::rnorm(n * d), n, d)
  z <- draw(model$d)
  if (!is.null(at)) z <- z * rep(at$z_scale, each = n) + rep(at$z_center, each = n)
  if (model$dx == model$d) list(x = z, z = NULL) else list(x = draw(model$dx), z = z)
}

# Random parameters of a size at which all of them show: none near zero, kinks of ReLU among the points, the norm of
# beta_1 near tau_1, where it matters most, and gates apart, the best of many draws.
random_atoms <- function(model) {
  draw <- function(rows) matrix(stats::runif(rows * model$k, 0.5, 1.5) * sample(c(-1, 1), rows * model$k, TRUE), rows)
  gap <- function(beta) min(Inf, stats::dist(t(if (model$router$name == "cosine") unit_columns(beta) else beta)))
  gates <- replicate(20L, draw(model$d), simplify = FALSE)
  beta <- gates[[which.max(vapply(gates, gap, 0))]]
  unit <- switch(model$router$name, linear = 1 / model$router$scale, cosine = 1, perturbed_cosine = model$router$tau1)
  list(beta0 = drop(draw(1L)), beta1 = unit * beta, eta = draw(expert_n_par(model$expert, model$dx)))
}

# ---- the functions ---------------------------------------------------------------------------------------------------

# One row a function, in the core's order: the atom, the order of the derivative, its one or two parameters.
derivative_names <- function(model, order) {
  parameters <- parameter_names(model)
  p <- length(parameters)
  first <- data.frame(order = 1L, p = seq_len(p), q = NA_integer_)
  pairs <- data.frame(order = 2L, p = rep(seq_len(p), p:1), q = unlist(lapply(seq_len(p), seq.int, to = p)))
  one <- if (order > 1L) rbind(first, pairs) else first
  all <- one[rep(seq_len(nrow(one)), model$k), ]
  data.frame(
    atom = rep(seq_len(model$k), each = nrow(one)), order = all$order,
    square = !is.na(all$q) & all$p == all$q, gate = all$p <= model$d,
    name = derivative_label(parameters[all$p], parameters[all$q]),
    class = derivative_label(without_index(parameters)[all$p], without_index(parameters)[all$q])
  )
}

parameter_names <- function(model) {
  entries <- function(name, size) if (size == 1L) name else sprintf("%s[%d]", name, seq_len(size))
  hidden <- seq_len(model$expert$hidden)
  c(entries("beta_1", model$d), switch(model$expert$name,
    constant = "b",
    custom = entries("eta", model$expert$n_par),
    network = c(
      unlist(lapply(hidden, function(j) c(entries(sprintf("a_%d", j), model$dx), sprintf("b_%d", j)))),
      sprintf("c_%d", hidden), "c_0"
    ),
    c(if (model$dx > 0L) entries("a", model$dx), "b")
  ))
}

without_index <- function(name) sub("\\[.*", "", name)

derivative_label <- function(p, q) {
  second <- ifelse(p == q, sprintf("d2F/d%s^2", p), sprintf("d2F/d%s d%s", p, q))
  ifelse(is.na(q), sprintf("dF/d%s", p), second)
}

# ---- rank and null directions ----------------------------------------------------------------------------------------

# All conditions at one set of parameters.
decide <- function(model, points, atoms, order, functions, tolerance) {
  factors <- core_call(core_identifiability(
    core_model(model$router, model$expert, model$k), points, atoms, max(order)
  ))
  factors$functions <- without_noise(factors$functions, functions, model, tolerance)
  among <- function(own) null_space(factors$functions[, own, drop = FALSE], tolerance)
  condition <- function(highest) {
    own <- functions$order <= highest
    table <- functions[own, ]
    decomposed <- among(own)
    null <- sparse_directions(decomposed)
    # All null directions are such without the squares when there are as many without them.
    without_squares <- ncol(among(own & !functions$square)$null) == ncol(null)
    c(summary_of(decomposed), list(
      order = highest,
      holds = ncol(null) == 0L,
      rates = ncol(among(functions$order == 1L)$null) == 0L && without_squares,
      functions = table,
      null = named_directions(null, table),
      words = direction_words(null, table, atoms$beta1),
      atoms = atoms
    ))
  }
  results <- list(weak = if (1L %in% order) condition(1L), strong = if (2L %in% order) condition(2L))
  results$regression <- decide_regression(model, factors, atoms, tolerance)
  results[!vapply(results, is.null, NA)]
}

# The Jacobian of the regression function. Its null space holds the gauge of the softmax: directions in the gates'
# parameters that keep all contrasts u_i - u_k, beta_0i - beta_0k. What is left is reported in words.
decide_regression <- function(model, factors, atoms, tolerance) {
  parameters <- c("beta_0", parameter_names(model))
  table <- data.frame(
    atom = rep(seq_len(model$k), each = length(parameters)), order = 1L, square = FALSE,
    name = parameters, class = without_index(parameters)
  )
  decomposed <- null_space(factors$regression, tolerance)
  gauge <- gauge_directions(factors$chart, model, decomposed$size)
  extra <- sparse_directions(decomposed, known = gauge)
  summary <- summary_of(decomposed)
  # The gauge is null whatever the parameters: where it is not, rounding errors hide it.
  summary$clear <- summary$clear && summary$rank <= summary$size - ncol(gauge)
  c(summary, list(
    gauge = ncol(gauge), holds = ncol(extra) == 0L, functions = table, null = named_directions(extra, table),
    words = direction_words(extra, table, atoms$beta1, of = "f_G"), atoms = atoms
  ))
}

summary_of <- function(decomposed) {
  values <- decomposed$values
  tolerance <- decomposed$tolerance
  list(
    size = length(values), rank = sum(values > tolerance), singular_values = values,
    clear = !any(values > tolerance / 10 & values < 10 * tolerance)
  )
}

# Second derivatives of custom experts are differences: those that are nothing but rounding errors become zero. All
# other derivatives that vanish do so exactly.
without_noise <- function(factor, functions, model, tolerance) {
  if (model$expert$name != "custom") return(factor)
  size <- column_norms(factor)
  for (atom in seq_len(model$k)) {
    own <- functions$atom == atom & !functions$gate
    factor[, own & size <= tolerance * max(size[own])] <- 0
  }
  factor
}

# Columns scaled to length one, except those that are zero.
null_space <- function(factor, tolerance) {
  size <- column_norms(factor)
  size[size == 0] <- 1
  scaled <- factor / rep(size, each = nrow(factor))
  decomposition <- svd(scaled, nu = 0L)
  values <- decomposition$d / max(decomposition$d, .Machine$double.xmin)
  list(
    values = values, null = decomposition$v[, values <= tolerance, drop = FALSE], size = size, scaled = scaled,
    tolerance = tolerance
  )
}

column_norms <- function(x) {
  top <- apply(abs(x), 2L, max)
  top[top == 0] <- 1
  top * sqrt(colSums((x / rep(top, each = nrow(x)))^2))
}

# A basis of the null space (modulo the span of the orthonormal columns `known`) whose directions have few entries, as
# coefficients of the functions themselves, the largest of them 1.
sparse_directions <- function(decomposed, known = NULL) {
  rows <- t(decomposed$null)
  if (!is.null(known)) rows <- outside(rows, known)
  rows <- echelon(rows)$rows
  null <- vapply(seq_len(nrow(rows)), function(i) {
    direction <- rows[i, ]
    support <- abs(direction) > 1e-6 * max(abs(direction))
    # Among its own few functions a direction is known to more digits.
    if (is.null(known)) direction[support] <- refine(direction[support], decomposed, support)
    direction[!support] <- 0
    direction <- direction / decomposed$size
    direction / direction[which.max(abs(direction))]
  }, numeric(ncol(rows)))
  matrix(null, ncol(rows))
}

refine <- function(direction, decomposed, support) {
  own <- svd(decomposed$scaled[, support, drop = FALSE], nu = 0L)
  unique <- sum(own$d <= decomposed$tolerance * max(own$d, 1)) == 1L
  if (unique) own$v[, length(own$d)] else direction
}

# The rows, reduced by the known directions, without those that vanish.
outside <- function(rows, known) {
  reduced <- echelon(t(known))
  rows <- rows - rows[, reduced$pivots, drop = FALSE] %*% reduced$rows
  keep <- nrow(rows) - ncol(known)
  if (keep <= 0L) return(rows[0L, , drop = FALSE])
  t(svd(rows, nu = 0L)$v[, seq_len(keep), drop = FALSE])
}

# Reduced row echelon form with its pivots as far right as possible: each row has one pivot of its own and else only
# columns without a pivot.
echelon <- function(rows, smallest = 1e-5) {
  free <- seq_len(nrow(rows))
  pivots <- integer(nrow(rows))
  for (j in rev(seq_len(ncol(rows)))) {
    if (!length(free)) break
    i <- free[which.max(abs(rows[free, j]))]
    if (abs(rows[i, j]) <= smallest) {
      rows[free, j] <- 0
      next
    }
    rows[i, ] <- rows[i, ] / rows[i, j]
    rows[-i, ] <- rows[-i, , drop = FALSE] - rows[-i, j] %o% rows[i, ]
    pivots[i] <- j
    free <- setdiff(free, i)
  }
  by <- order(pivots)
  list(rows = rows[by, , drop = FALSE], pivots = pivots[by])
}

# Directions in (beta_0, beta_1, eta), atom by atom, that keep the contrasts of biases and gate vectors: an orthonormal
# basis, as coefficients of derivatives of length one.
gauge_directions <- function(chart, model, size) {
  d <- model$d
  k <- model$k
  place <- function(i) (i - 1L) * (length(size) / k) + seq_len(d + 1L)
  gates <- unlist(lapply(seq_len(k), place))
  contrasts <- matrix(0, (k - 1L) * (d + 1L), length(size))
  of_gate <- function(i) rbind(c(1, rep(0, d)), cbind(0, matrix(chart[, , i], d)))
  for (i in seq_len(k - 1L)) {
    own <- (i - 1L) * (d + 1L) + seq_len(d + 1L)
    contrasts[own, place(i)] <- of_gate(i)
    contrasts[own, place(k)] <- -of_gate(k)
  }
  gauge <- matrix(0, length(size), length(gates))
  gauge[gates, ] <- diag(length(gates))
  if (k == 1L) return(gauge)
  contrasts <- (contrasts / rep(size, each = nrow(contrasts)))[, gates]
  length <- column_norms(t(contrasts))
  decomposition <- svd(contrasts / ifelse(length > 0, length, 1), nu = 0L, nv = length(gates))
  rank <- sum(decomposition$d > 1e-10 * decomposition$d[1L])
  gauge %*% decomposition$v[, -seq_len(rank), drop = FALSE]
}

named_directions <- function(null, table) {
  dimnames(null) <- list(paste0(table$name, ", expert ", table$atom), NULL)
  null
}

# ---- words -----------------------------------------------------------------------------------------------------------

# One sentence for all directions of a kind.
direction_words <- function(null, table, beta1, of = "F") {
  if (ncol(null) == 0L) return(character())
  facts <- lapply(seq_len(ncol(null)), function(j) direction_facts(null[, j], table, beta1))
  # Short statements first.
  facts <- facts[order(!vapply(facts, `[[`, NA, "first"), lengths(lapply(facts, `[[`, "classes")))]
  kind <- vapply(facts, `[[`, "", "kind")
  of_kind <- function(key) {
    members <- facts[kind == key]
    experts <- sort(unique(unlist(lapply(members, `[[`, "atoms"))))
    classes <- unique(unlist(lapply(members, `[[`, "classes")))
    sprintf("%s (%s)", sentence(members[[1L]], classes, experts, of), count_words(length(members), "direction"))
  }
  vapply(unique(kind), of_kind, "", USE.NAMES = FALSE)
}

direction_facts <- function(direction, table, beta1) {
  used <- table[direction != 0, ]
  atoms <- unique(used$atom)
  classes <- unique(used$class)
  first <- all(used$order == 1L)
  type <- if (nrow(used) == 1L) {
    "zero"
  } else if (length(atoms) > 1L) {
    "between"
  } else if (is_norm_direction(direction[direction != 0], used, beta1[, atoms])) {
    "norm"
  } else {
    "within"
  }
  key <- switch(type, zero = , norm = type, within = c(type, classes), between = c(type, atoms, classes))
  list(type = type, atoms = atoms, classes = classes, first = first, kind = paste(c(first, key), collapse = " "))
}

is_norm_direction <- function(coefficients, used, beta1) {
  all(used$order == 1L) && all(grepl("beta_1$", used$class)) && length(coefficients) == length(beta1) &&
    max(abs(coefficients / beta1 / (coefficients[1L] / beta1[1L]) - 1)) < 1e-6
}

sentence <- function(facts, classes, experts, of) {
  list_of <- function(x) enumerate(x, quote = "", max = Inf)
  whose <- paste0(if (length(experts) > 1L) "experts " else "expert ", list_of(experts))
  parameters <- list_of(sub("^dF/d", "", classes))
  several <- length(classes) > 1L
  switch(facts$type,
    zero = if (facts$first) {
      paste(of, "does not change with", parameters, "of", whose)
    } else {
      paste0(whose, ": ", list_of(classes), if (several) " are zero" else " is zero")
    },
    norm = paste(of, "does not change with the norm of beta_1 of", whose),
    between = paste(if (facts$first) parameters else list_of(classes), "of", whose, "cannot be told apart"),
    within = if (facts$first) {
      paste(if (several) parameters else paste("the entries of", parameters), "of", whose, "cannot be told apart")
    } else {
      paste0(whose, ": ", if (!several) "the derivatives ", list_of(classes), " are linearly dependent")
    }
  )
}

# ---- the result ------------------------------------------------------------------------------------------------------

# For each condition the draw of the lowest rank.
worst_draw <- function(results, model, n, tolerance) {
  conditions <- lapply(stats::setNames(nm = names(results[[1L]])), function(name) {
    ranks <- vapply(results, function(result) result[[name]]$rank, 0)
    c(results[[which.min(ranks)]][[name]], list(ranks = ranks))
  })
  structure(
    c(conditions, model[setdiff(names(model), "dx")], list(draws = length(results), nobs = n, tolerance = tolerance)),
    class = "identifiability"
  )
}

#' @rdname check_identifiability
#' @export
print.identifiability <- function(x, ...) {
  check_dots_empty(...)
  print_line("Identifiability: ", x$k, " x ", format(x$expert), ", router ", format(x$router))
  where <- if (x$given) "the given parameters" else count_words(x$draws, "draw of parameters", "draws of parameters")
  print_line(count_words(x$d, "covariate"), ", ", where, ", ", x$nobs, " points")
  for (name in intersect(c("weak", "strong"), names(x))) print_condition(x[[name]], name)
  print_regression(x$regression)
  invisible(x)
}

#' @rdname check_identifiability
#' @param row.names,optional Ignored.
#' @param ... Nothing: any further argument is an error.
#' @export
as.data.frame.identifiability <- function(x, row.names = NULL, optional = FALSE, ...) {
  check_dots_empty(...)
  conditions <- intersect(c("weak", "strong", "regression"), names(x))
  entry <- function(name, type) vapply(x[conditions], function(condition) condition[[name]], type, USE.NAMES = FALSE)
  data.frame(
    condition = conditions, size = entry("size", 0L), rank = entry("rank", 0L), holds = entry("holds", NA),
    rates = vapply(x[conditions], function(condition) if (is.null(condition$rates)) NA else condition$rates, NA,
                   USE.NAMES = FALSE)
  )
}

print_condition <- function(x, name) {
  cat("\n")
  verdict <- if (x$holds) "holds" else "does not hold"
  print_line(
    if (name == "weak") "Weak" else "Strong", " (order ", x$order, "): ", verdict, ". ", rank_words(x, "function")
  )
  if (!x$holds && x$order == 2L) {
    print_line("  For rates: ", if (x$rates) {
      "enough, since no null direction contains some d2F/dp^2."
    } else {
      "not enough, since null directions contain some d2F/dp^2, or first derivatives only."
    })
  }
  print_words(x$words)
}

print_regression <- function(x) {
  cat("\n")
  print_line(
    "Regression function: ", rank_words(x, "parameter"), ". Null directions: ", x$gauge, " of the softmax",
    if (x$holds) "." else sprintf(", %d more.", ncol(x$null))
  )
  print_words(x$words)
}

rank_words <- function(x, what) {
  values <- x$singular_values
  show <- function(value) sprintf("%.0e", value)
  between <- if (x$rank == x$size) {
    paste("smallest singular value", show(values[x$rank]))
  } else {
    paste("singular values fall from", show(values[x$rank]), "to", show(values[x$rank + 1L]))
  }
  varied <- if (length(unique(x$ranks)) > 1L) paste0(" (others: up to ", max(x$ranks), ")")
  doubt <- if (!x$clear) ", with rounding errors too near to be sure"
  paste0(count_words(x$size, what), ", rank ", x$rank, varied, "; ", between, doubt)
}

print_words <- function(words, most = 8L) {
  for (line in words[seq_len(min(most, length(words)))]) print_line(line, bullet = "  * ")
  if (length(words) > most) cat("  * ... and ", length(words) - most, " more: see `words`\n", sep = "")
}
