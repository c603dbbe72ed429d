#' Do two mixing measures define the same regression function?
#'
#' @description
#' Decides by the parameters, not by sampling, whether two mixing measures (or fits) give the same regression function
#' at every x (for sparse gates but where scores tie), and says why not.
#'
#' @param G,H Mixing measures or fits.
#' @param tolerance Differences up to `tolerance`, relative to the size of the parameters, count as rounding errors; the
#'   default is far above those of double precision and far below what data can tell.
#'
#' @details
#' *Dense gates.* Both functions are ratios of sums of exponentials of linear forms in the gate's features (see
#' [routers]), times functions of the experts' covariates. Exponentials of different linear forms are linearly
#' independent, so the functions agree exactly if numerator times denominator of the other agrees term by term. This is
#' what is computed. It sees through everything that changes parameters but not the function: order, translation and
#' norms (see [canonicalize()]); for the cosine router with few experts in many dimensions, where only contrasts enter,
#' the whole spheres of u that share them; coinciding experts, which can be merged or split; gates of experts that are
#' all equal; units of a network in another order, of another sign, or without effect; families that overlap (a linear
#' expert is a polynomial of degree 1). With a single gate covariate the cosine router sees its sign only, and the two
#' sides are compared.
#'
#' Values phi(a'x + b) of different units count as independent functions, up to the identities of phi; so do means of
#' experts behind a link, up to the identities of the link. Under a *linear* router this has exceptions for tanh and
#' sigmoid (or the logit link), which are ratios of exponentials themselves, and for the log link: such coincidences are
#' not found. Custom experts are equal if they are the same function with equal parameters.
#'
#' *Sparse gates* (`top_k`). Atoms must agree one by one up to translation and order; with a single active expert
#' the biases have no part, and all u may be multiplied by one positive number. (That other u cut the space into the
#' same cells is not found.)
#'
#' @return `TRUE`, or `FALSE` with the attribute `reason`, a sentence. Anything but measures and fits stops with a
#'   `cosmoe_error_input`.
#'
#' @seealso [canonicalize()], [voronoi_loss()], [check_identifiability()].
#' @examples
#' beta1 <- cbind(c(1, 0), c(-1, 0.5))
#' G <- mixing_measure(c(0, 1), beta1, cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh")
#' equivalent(G, canonicalize(G))
#' # With two directions in three dimensions the pair can be turned about their difference.
#' cosine <- function(beta1) mixing_measure(c(0, 0), beta1, cbind(1:4, 0), "cosine", "gelu")
#' equivalent(cosine(cbind(c(1, 0, 1), c(-1, 0, 1))), cosine(cbind(c(1, 1, 0), c(-1, 1, 0))))
#' equivalent(cosine(cbind(c(1, 0, 1), c(-1, 0, 1))), cosine(cbind(c(1, 1, 1), c(-1, 1, 1))))
#' @export
equivalent <- function(G, H, tolerance = 1e-8) {
  G <- as_measure(G)
  H <- as_measure(H)
  tolerance <- check_number(tolerance, lower = 0, upper = 0.1)
  unit <- gate_unit(G, H, tolerance)
  G <- expanded_measure(G, unit)
  H <- expanded_measure(H, unit)
  if (G$d != H$d) return(differ(sprintf("the experts have %d and %d covariates", G$d, H$d)))
  values <- common_basis(G, H, tolerance)
  if (is.null(values)) return(differ("their experts have no basis in common: one is custom, the other is not"))
  G$values <- values$G
  H$values <- values$H
  if (gate_idle(G, tolerance) && gate_idle(H, tolerance)) return(same_constant_gates(G, H, tolerance))
  reason <- features_differ(G, H, tolerance)
  if (length(reason)) return(differ(reason))
  if (G$active == 0L && H$active == 0L) return(same_dense(G, H, tolerance))
  same_sparse(G, H, tolerance)
}

differ <- function(...) structure(FALSE, reason = paste0(...))

# ---- experts as combinations of basis functions ----------------------------------------------------------------------

# The size of gates' contrasts that are not small: that of the router where it bounds them.
gate_unit <- function(G, H, tolerance) {
  size <- function(M) {
    if (nrow(M$u) == 0L) return(0)
    if (M$router$name == "linear") max(gate_size(M), tolerance * abs(M$u)) else M$router$scale
  }
  unit <- max(size(G), size(H))
  if (unit > 0) unit else 1
}

# Biases, gates and, for each atom, its expert as a list of terms: `kind` ("one", "x", "monomial", an activation or
# "custom"), `key` (a vector that identifies the function among those of its kind) and `weight`.
expanded_measure <- function(G, unit) {
  d <- covariate_count(G)
  k <- length(G$beta0)
  list(
    b = G$beta0 - log_sum_exp(G$beta0), u = G$u / unit, unit = unit, d = d, router = G$router,
    z_center = G$z_center, z_scale = G$z_scale,
    active = if (is_sparse_router(G$router, k)) G$router$top_k else 0L,
    terms = lapply(seq_len(k), function(i) mean_terms(measure_link(G), G$expert, G$eta[, i], d))
  )
}

expert_terms <- function(expert, eta, d) {
  form <- function(first) eta[first - 1L + seq_len(d + 1L)]
  switch(expert$name,
    constant = list(term("one", 0, eta)),
    linear = linear_terms(eta, 1),
    polynomial = polynomial_terms(eta, expert$degree),
    custom = list(list(kind = "custom", key = eta, weight = 1, value = expert$value)),
    network = {
      size <- expert$hidden * (d + 1L)
      units <- lapply(seq_len(expert$hidden), function(j) {
        ridge_terms(expert$activation, form((j - 1L) * (d + 1L) + 1L), eta[size + j])
      })
      c(do.call(c, units), list(term("one", 0, eta[length(eta)])))
    },
    ridge_terms(expert$name, eta, 1)
  )
}

# The inverse link of an expert, by identities where it is a linear form: multiples of one exponential, squares as
# polynomials, sigmoids, one sign or size of the form.
mean_terms <- function(link, expert, eta, d) {
  terms <- expert_terms(expert, eta, d)
  if (link == "identity") return(terms)
  terms <- Filter(function(t) t$weight != 0, terms)
  kinds <- vapply(terms, function(t) t$kind, "")
  if (!all(kinds %in% c("one", "x"))) {
    whole <- term(paste(c(link, unlist(unclass(expert)[c("name", "degree", "activation")])), collapse = " "),
                  canonical_experts(matrix(eta), expert)[, 1L], 1)
    return(list(c(whole, list(value = expert$value))))
  }
  a <- Reduce(`+`, lapply(terms[kinds == "x"], function(t) t$weight * t$key), numeric(d))
  form <- c(a, sum(vapply(terms[kinds == "one"], function(t) t$weight, 0)))
  if (all(a == 0)) return(list(term("one", 0, mean_of_link(list(link = link), form[d + 1L]))))
  sign <- leading_sign(matrix(a))
  size <- sqrt(sum(a^2))
  switch(link,
    log = list(term("exp", a, exp(form[d + 1L]))),
    sqrt = polynomial_terms(form, 2L),
    logit = ridge_terms("sigmoid", form, 1),
    # Phi(t) = 1 - Phi(-t)
    probit = list(term("probit", sign * form, sign), term("one", 0, as.double(sign < 0))),
    inverse = list(term("inverse", sign * form / size, sign / size)),
    list(term(link, form, 1))
  )
}

term <- function(kind, key, weight) list(kind = kind, key = key, weight = weight)

# weight (a'x + b); `form` is (a, b).
linear_terms <- function(form, weight) {
  d <- length(form) - 1L
  slopes <- lapply(seq_len(d), function(j) term("x", as.double(seq_len(d) == j), weight * form[j]))
  c(slopes, list(term("one", 0, weight * form[d + 1L])))
}

# weight phi(a'x + b) by the identities of phi, so that equal functions get equal terms: one sign of (a, b), and norm 1
# of a for ReLU.
ridge_terms <- function(activation, form, weight) {
  d <- length(form) - 1L
  a <- form[seq_len(d)]
  t <- form[d + 1L]
  if (all(a == 0)) {
    value <- switch(activation,
      relu = max(t, 0), gelu = t * stats::pnorm(t), tanh = tanh(t), sigmoid = stats::plogis(t),
      softplus = max(t, 0) + log1p(exp(-abs(t)))
    )
    return(list(term("one", 0, weight * value)))
  }
  sign <- leading_sign(matrix(a))
  upright <- sign * form
  # relu, gelu and softplus: phi(t) = phi(-t) + t.
  odd <- if (sign < 0) linear_terms(form, weight)
  switch(activation,
    tanh = list(term("tanh", upright, sign * weight)),
    sigmoid = list(term("tanh", upright / 2, sign * weight / 2), term("one", 0, weight / 2)),
    relu = {
      size <- sqrt(sum(a^2))
      c(list(term("relu", upright / size, size * weight)), odd)
    },
    c(list(term(activation, upright, weight)), odd)
  )
}

# (a'x + b)^degree as monomials; as one power of a form of fixed sign if these are too many.
polynomial_terms <- function(form, degree, most = 2000) {
  if (degree == 1L) return(linear_terms(form, 1))
  if (choose(length(form) - 1 + degree, degree) > most) {
    sign <- leading_sign(matrix(form))
    size <- sqrt(sum(form^2))
    if (size == 0) return(list(term("one", 0, 0)))
    return(list(term(paste0("power", degree), sign * form / size, (sign * size)^degree)))
  }
  powers <- compositions(length(form), degree)
  apply(powers, 1L, function(power) {
    weight <- exp(lfactorial(degree) - sum(lfactorial(power))) * prod(form^power)
    monomial(power[-length(power)], weight)
  }, simplify = FALSE)
}

monomial <- function(power, weight) {
  switch(min(sum(power), 2L) + 1L, term("one", 0, weight), term("x", power, weight), term("monomial", power, weight))
}

# All vectors of `parts` non-negative whole numbers with the given sum, as rows.
compositions <- function(parts, sum) {
  if (parts == 1L) return(matrix(sum))
  do.call(rbind, lapply(0:sum, function(first) cbind(first, compositions(parts - 1L, sum - first), deparse.level = 0L)))
}

# The k x m matrices of weights of both measures' experts on the functions that occur in either; NULL if one is custom
# and the other is not.
common_basis <- function(G, H, tolerance) {
  all_terms <- c(do.call(c, G$terms), do.call(c, H$terms))
  custom <- vapply(all_terms, function(t) t$kind == "custom", NA)
  if (any(custom) && !all(custom)) return(NULL)
  kinds <- vapply(all_terms, function(t) paste(t$kind, length(t$key)), "")
  units <- lapply(split(all_terms, kinds), function(terms) row_units(do.call(cbind, lapply(terms, `[[`, "key"))))
  found <- list()
  index <- vapply(seq_along(all_terms), function(i) {
    t <- all_terms[[i]]
    for (j in seq_along(found)) if (same_function(found[[j]], t, tolerance * units[[kinds[i]]])) return(j)
    found[[length(found) + 1L]] <<- t
    length(found)
  }, 0L)
  weight <- vapply(all_terms, function(t) t$weight, 0)
  atom <- rep(seq_len(length(G$terms) + length(H$terms)), c(lengths(G$terms), lengths(H$terms)))
  values <- matrix(0, length(G$terms) + length(H$terms), length(found))
  for (i in seq_along(index)) values[atom[i], index[i]] <- values[atom[i], index[i]] + weight[i]
  own <- seq_along(G$terms)
  list(G = values[own, , drop = FALSE], H = values[-own, , drop = FALSE])
}

same_function <- function(s, t, tolerance) {
  s$kind == t$kind && length(s$key) == length(t$key) && all(abs(s$key - t$key) <= tolerance) &&
    identical(s$value, t$value)
}

# ---- gates -----------------------------------------------------------------------------------------------------------

# The largest contrast, whatever the order of the atoms.
gate_size <- function(G) max(1e-300, apply(G$u, 1L, max) - apply(G$u, 1L, min))

# Weights that are the same everywhere, or experts that are all the same.
gate_idle <- function(G, tolerance) {
  same_experts <- max(abs(sweep(G$values, 2L, G$values[1L, ]))) <= tolerance * max(abs(G$values))
  dense_and_flat <- G$active == 0L && (nrow(G$u) == 0L || gate_size(G) <= tolerance)
  same_experts || dense_and_flat
}

same_constant_gates <- function(G, H, tolerance) {
  first <- colSums(exp(G$b) * G$values) / sum(exp(G$b))
  second <- colSums(exp(H$b) * H$values) / sum(exp(H$b))
  if (all(abs(first - second) <= tolerance * max(abs(G$values), abs(H$values)))) return(TRUE)
  differ("their gates are constant, and the averages of their experts differ")
}

# Why the gates' features are not the same functions of the covariates: character(0) if they are.
features_differ <- function(G, H, tolerance) {
  a <- G$router
  b <- H$router
  close <- function(x, y) all(abs(x - y) <= tolerance * pmax(abs(x), abs(y), 1e-300))
  c(
    if (nrow(G$u) != nrow(H$u)) sprintf("their gates have %d and %d covariates", nrow(G$u), nrow(H$u)),
    if (a$name != b$name) sprintf("one router is %s, the other %s", gsub("_", " ", a$name), gsub("_", " ", b$name)),
    if (!close(a$tau2, b$tau2)) sprintf("tau2 is %s and %s", format(a$tau2), format(b$tau2)),
    if (nrow(G$u) == nrow(H$u) && !(close(G$z_center, H$z_center) && close(G$z_scale, H$z_scale))) {
      "their gates' covariates have another centre or scale"
    },
    if (G$active != H$active) {
      active <- ifelse(c(G$active, H$active) == 0L, "all", c(G$active, H$active))
      sprintf("the numbers of active experts differ: %s and %s", active[1L], active[2L])
    }
  )[1L]
}

# ---- dense gates -----------------------------------------------------------------------------------------------------

same_dense <- function(G, H, tolerance) {
  if (G$router$name == "cosine" && nrow(G$u) == 1L) return(same_two_sides(G, H, tolerance))
  size <- max(abs(G$values), abs(H$values), 1e-300)
  # All products of a weight of G with one of H: exponent u_i + v_j, factor exp(b_i + c_j) (value_i - value_j).
  i <- rep(seq_along(G$b), times = length(H$b))
  j <- rep(seq_along(H$b), each = length(G$b))
  exponents <- G$u[, i, drop = FALSE] + H$u[, j, drop = FALSE]
  exponents <- exponents - (G$u[, 1L] + H$u[, 1L])
  group <- match_columns(exponents, exponents, tolerance)
  # Groups are judged apart, so each may have its own unit of mass: far biases must not underflow.
  log_weight <- G$b[i] + H$b[j]
  weight <- exp(log_weight - stats::ave(log_weight, group, FUN = max))
  excess <- rowsum(weight * (G$values[i, , drop = FALSE] - H$values[j, , drop = FALSE]), group)
  allowed <- tolerance * drop(rowsum(weight, group)) * size
  if (all(abs(excess) <= allowed)) return(TRUE)
  differ(where_they_differ(G, H, tolerance, size))
}

# The cosine of a single covariate is its sign: two sets of weights.
same_two_sides <- function(G, H, tolerance) {
  mean_at <- function(M, side) {
    logit <- side * M$unit * M$u[1L, ] + M$b
    colSums(exp(logit - log_sum_exp(logit)) * M$values)
  }
  allowed <- tolerance * max(abs(G$values), abs(H$values))
  sides <- c(1, -1)
  off <- vapply(sides, function(side) any(abs(mean_at(G, side) - mean_at(H, side)) > allowed), NA)
  if (!any(off)) return(TRUE)
  differ("they differ where the gate's covariate is ", paste(c("positive", "negative")[off], collapse = " and "))
}

# A sentence on the first difference met: number of atoms, experts, gates, biases.
where_they_differ <- function(G, H, tolerance, size) {
  G <- merged(G, tolerance, size)
  H <- merged(H, tolerance, size)
  near <- function(A, B) match_columns(t(A$values) / size, t(B$values) / size, tolerance)
  partner <- near(G, H)
  lonely <- G$first[which(is.na(partner))]
  if (length(lonely)) return(sprintf("expert %d of the first has no equal in the second", lonely[1L]))
  lonely <- H$first[which(is.na(near(H, G)))]
  if (length(lonely)) return(sprintf("expert %d of the second has no equal in the first", lonely[1L]))
  if (length(G$b) != length(H$b)) {
    return(sprintf("they have %d and %d atoms that cannot be merged", length(G$b), length(H$b)))
  }
  if (anyDuplicated(partner)) return("experts are equal, but their gates differ")
  gap <- sweep(H$u[, partner, drop = FALSE] - G$u, 1L, H$u[, partner[1L]] - G$u[, 1L])
  off <- which(colSums(abs(gap) > tolerance * max(1, gate_size(G))) > 0)[1L]
  if (!is.na(off)) {
    return(sprintf("the gates' contrasts differ: u of expert %d minus u of expert %d", G$first[off], G$first[1L]))
  }
  step <- H$b[partner] - G$b
  off <- which.max(abs(step - step[1L]))
  sprintf("the biases' contrasts differ: beta_0 of expert %d minus that of expert %d", G$first[off], G$first[1L])
}

# Atoms with equal gates and experts as one.
merged <- function(G, tolerance, size) {
  key <- rbind(G$u - G$u[, 1L], t(G$values) / size)
  group <- match_columns(key, key, tolerance)
  first <- unique(group)
  b <- vapply(first, function(own) log_sum_exp(G$b[group == own]), 0)
  list(b = b, u = G$u[, first, drop = FALSE], values = G$values[first, , drop = FALSE], first = first)
}

# ---- sparse gates ----------------------------------------------------------------------------------------------------

# One atom of G is tried with each of H as its partner; that fixes the shift and with it all others.
same_sparse <- function(G, H, tolerance) {
  k <- length(G$b)
  if (k != length(H$b)) return(differ(sprintf("they have %d and %d atoms", k, length(H$b))))
  size <- max(abs(G$values), abs(H$values), 1e-300)
  key <- function(M, origin) {
    contrast <- M$u - M$u[, origin]
    if (M$active == 1L) contrast <- contrast / gate_size(M)
    bias <- if (M$active == 1L) 0 else M$b - M$b[origin]
    rbind(contrast, rep_len(bias, k), t(M$values) / size)
  }
  own <- key(G, 1L)
  ties <- match_columns(G$u, G$u, tolerance)
  for (origin in seq_len(k)) {
    partner <- match_distinct(own, key(H, origin), tolerance)
    # Of atoms with equal scores the first wins, so their order counts.
    ordered <- !anyNA(partner) && all(unlist(tapply(partner, ties, function(p) diff(p) > 0)))
    if (ordered) return(TRUE)
  }
  differ("no translation and order of the atoms makes gates, biases and experts agree")
}

# As match_columns(), but every column of `b` is used once.
match_distinct <- function(a, b, tolerance) {
  used <- integer(ncol(a))
  for (i in seq_len(ncol(a))) {
    left <- setdiff(seq_len(ncol(b)), used)
    used[i] <- left[match_columns(a[, i, drop = FALSE], b[, left, drop = FALSE], tolerance)]
    if (is.na(used[i])) return(NA_integer_)
  }
  used
}
