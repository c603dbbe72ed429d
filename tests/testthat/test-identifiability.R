# check_identifiability(): the derivatives it looks at, their ranks, and what it says.

routers <- list(
  linear = ref_router("linear", scale = 1.5), cosine = ref_router("cosine", scale = 2),
  perturbed = ref_router("perturbed_cosine", scale = 2, tau1 = 0.4, tau2 = 0.3)
)

experts <- list(
  constant = ref_expert("constant"), linear = ref_expert("linear"), quadratic = ref_expert("polynomial", 2),
  cubic = ref_expert("polynomial", 3), relu = ref_expert("relu"), gelu = ref_expert("gelu"), tanh = ref_expert("tanh"),
  sigmoid = ref_expert("sigmoid"), softplus = ref_expert("softplus"),
  network = ref_expert("network", hidden = 2, activation = "gelu"),
  custom = ref_expert("custom", value = function(x, eta) eta[1] * exp(-eta[2] * x[, 1]),
                      gradient = function(x, eta) exp(-eta[2] * x[, 1]) * cbind(1, -eta[1] * x[, 1]), n_par = 2)
)

random_case <- function(router, expert, d = 2, k = 2, dx = d, n = 5) {
  list(
    model = ref_model(router, expert, k), k = k, d = d,
    atoms = list(
      beta0 = rnorm(k), beta1 = matrix(rnorm(d * k), d), eta = matrix(rnorm(ref_n_par(expert, dx) * k), ncol = k)
    ),
    x = matrix(rnorm(n * dx), n), z = if (dx == d) NULL else matrix(rnorm(n * d), n)
  )
}

score_of <- function(model, beta, z) {
  drop(ref_features(model$router, z) %*% ref_gate_from_beta(model$router, cbind(beta)))
}

# exp(score) h for two covariates as an expression in beta_1 = (g1, g2) and eta, with features (z1, z2) and points
# (x1, x2).
symbolic_function <- function(model) {
  score <- switch(model$router$name,
    linear = "(g1*z1 + g2*z2)",
    "(g1*z1 + g2*z2) / (sqrt(g1^2 + g2^2) + tau1)"
  )
  activation <- function(name, t) {
    unit <- switch(name,
      linear = "T", polynomial = sprintf("T^%d", model$expert$degree), relu = "(T) * on", gelu = "(T) * pnorm(T)",
      tanh = "sinh(T) / cosh(T)", sigmoid = "1 / (1 + exp(-(T)))", softplus = "log(1 + exp(T))"
    )
    sprintf("(%s)", gsub("T", t, unit))
  }
  h <- switch(model$expert$name,
    constant = "e1",
    custom = "e1 * exp(-e2 * x1)",
    network = sprintf("(e7 * %s + e8 * %s + e9)", activation(model$expert$activation, "(e1*x1 + e2*x2 + e3)"),
                      activation(model$expert$activation, "(e4*x1 + e5*x2 + e6)")),
    activation(model$expert$name, "(e1*x1 + e2*x2 + e3)")
  )
  str2lang(sprintf("exp(scale * %s) * %s", score, h))
}

# Its exact derivatives, one row a point, a matrix for each atom: first ones, then (a, b), a <= b, b fastest.
reference_functions <- function(case, x = case$x) {
  router <- case$model$router
  zeta <- ref_features(router, x)
  one <- function(i) {
    eta <- case$atoms$eta[, i]
    values <- c(as.list(stats::setNames(eta, sprintf("e%d", seq_along(eta)))), list(
      g1 = case$atoms$beta1[1, i], g2 = case$atoms$beta1[2, i], scale = router$scale,
      tau1 = if (router$name == "cosine") 0 else router$tau1, z1 = zeta[, 1], z2 = zeta[, 2], x1 = x[, 1], x2 = x[, 2]
    ))
    if (case$model$expert$name == "relu") values$on <- as.numeric(cbind(x, 1) %*% eta > 0)
    parameters <- c("g1", "g2", sprintf("e%d", seq_along(eta)))
    value <- eval(stats::deriv3(symbolic_function(case$model), parameters), values)
    pairs <- which(lower.tri(diag(length(parameters)), diag = TRUE), arr.ind = TRUE)
    second <- apply(pairs, 1, function(ab) attr(value, "hessian")[, ab[1], ab[2]])
    cbind(attr(value, "gradient"), matrix(second, nrow(x)))
  }
  lapply(seq_len(case$k), one)
}

factors_of <- function(case, order = 2L, x = case$x, z = case$z) {
  cosmoe:::core_identifiability(case$model, list(x = x, z = z), case$atoms, order)
}

# Largest difference of two Gram matrices, columns scaled to length one; functions that are zero are to be zero.
gram_difference <- function(factor, reference) {
  size <- sqrt(colSums(reference^2))
  size[size < 1e-12 * max(size)] <- 1
  max(abs(crossprod(factor) - crossprod(reference)) / outer(size, size))
}

# ---- derivatives -----------------------------------------------------------------------------------------------------

test_that("the functions are the derivatives of exp(score) h, point by point", {
  for (router in names(routers)) {
    for (expert in names(experts)) {
      case <- ref_with_seed(1, random_case(routers[[router]], experts[[expert]], n = 5))
      reference <- reference_functions(case)
      scores <- score_of(case$model, case$atoms$beta1, case$x)
      tolerance <- if (expert == "custom") 1e-8 else 1e-11
      for (i in 1:5) {
        # At one point the Gram matrix holds the product of each two functions, all divided by exp(score).
        values <- lapply(1:2, function(j) reference[[j]][i, ] / exp(scores[i, j]))
        factor <- factors_of(case, x = case$x[i, , drop = FALSE])$functions
        expect_lt(gram_difference(factor, rbind(unlist(values))), tolerance, label = paste(router, expert))
      }
    }
  }
})

test_that("blocks of points add up", {
  for (router in routers) {
    case <- ref_with_seed(3, random_case(router, experts$gelu, n = 700))
    scores <- score_of(case$model, case$atoms$beta1, case$x)
    reference <- reference_functions(case)
    reference <- do.call(cbind, lapply(1:2, function(j) reference[[j]] / exp(max(scores[, j]))))
    expect_lt(gram_difference(factors_of(case)$functions, reference), 1e-11)
    firsts <- c(1:5, 20 + 1:5)
    expect_lt(gram_difference(factors_of(case, order = 1L)$functions, reference[, firsts]), 1e-11)
  }
})

test_that("gates may have covariates of their own", {
  skip_if_not_installed("numDeriv")
  # First derivatives are those of scores and experts, which the reference knows.
  for (router in routers) {
    case <- ref_with_seed(3, random_case(router, experts$gelu, d = 2, k = 1, dx = 3, n = 300))
    score <- score_of(case$model, case$atoms$beta1, case$z)
    h <- ref_experts(case$model$expert, cbind(case$x, 1), case$atoms$eta)
    slopes <- numDeriv::jacobian(function(beta) score_of(case$model, beta, case$z), case$atoms$beta1)
    reference <- exp(score - max(score)) * cbind(slopes * drop(h$h), h$jacobian(1))
    expect_lt(gram_difference(factors_of(case, order = 1L)$functions, reference), 1e-8)
  }
})

test_that("differences of a custom expert's gradient agree with exact second derivatives", {
  tanh_custom <- ref_expert("custom", value = function(x, eta) tanh(drop(x %*% eta[1:2]) + eta[3]),
    gradient = function(x, eta) (1 - tanh(drop(x %*% eta[1:2]) + eta[3])^2) * cbind(x, 1), n_par = 3
  )
  case <- ref_with_seed(4, random_case(routers$perturbed, experts$tanh, n = 100))
  custom <- case
  custom$model$expert <- tanh_custom
  expect_lt(gram_difference(factors_of(custom)$functions, factors_of(case)$functions), 1e-10)
})

test_that("the Jacobian is that of the regression function, also with sparse gates", {
  skip_if_not_installed("numDeriv")
  for (router in routers) {
    for (top_k in c(0L, 2L)) {
      router$top_k <- top_k
      for (expert in experts[c("constant", "tanh", "network", "custom")]) {
        case <- ref_with_seed(5, random_case(router, expert, k = 3, n = 40))
        value <- function(p) {
          atoms <- matrix(p, ncol = 3)
          beta <- atoms[2:3, ]
          par <- list(u = ref_gate_from_beta(router, beta), b = atoms[1, ], eta = atoms[-(1:3), , drop = FALSE])
          ref_f(ref_pack(par), case$model, case$x)
        }
        p <- with(case$atoms, c(rbind(beta0, beta1, eta)))
        expect_lt(gram_difference(factors_of(case)$regression, numDeriv::jacobian(value, p)), 1e-7)
      }
    }
  }
})

# ---- ranks -----------------------------------------------------------------------------------------------------------

test_that("the table on the help page is what the function finds", {
  page <- tools::Rd_db("cosmoe")[["check_identifiability.Rd"]]
  squashed <- function(text) gsub("[[:space:]|]|\\\\tab|\\\\cr", "", text)
  page <- squashed(paste(as.character(page), collapse = ""))
  rows <- identifiability_table()[-2]
  for (row in rows) expect_true(grepl(squashed(row), page, fixed = TRUE), label = row)
})

test_that("ranks do not depend on the seed", {
  # Weak, strong and regression at d = k = 2.
  expected <- list(
    linear = list(linear = c(10, 18, 9), gelu = c(10, 34, 9), polynomial = c(10, 24, 9), constant = c(6, 12, 5)),
    cosine = list(linear = c(8, 14, 9), gelu = c(8, 28, 9), polynomial = c(8, 20, 9), constant = c(4, 6, 5)),
    perturbed_cosine = list(
      linear = c(10, 22, 9), gelu = c(10, 38, 9), polynomial = c(10, 28, 9), constant = c(6, 12, 5)
    )
  )
  for (router in names(expected)) {
    for (name in names(expected[[router]])) {
      expert <- if (name == "polynomial") expert_polynomial() else name
      found <- ref_with_seed(11, check_identifiability(expert, router, draws = 15))
      ranks <- rbind(found$weak$ranks, found$strong$ranks, found$regression$ranks)
      expect_equal(ranks, matrix(expected[[router]][[name]], 3, 15), label = paste(router, name))
      expect_true(found$weak$clear && found$strong$clear)
    }
  }
})

test_that("the softmax's own directions are counted: d + 1, for the cosine router norms instead of translations", {
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    for (k in 1:4) {
      for (d in 1:3) {
        found <- ref_with_seed(1, check_identifiability("tanh", router, 1, k = k, d = d, draws = 1))$regression
        gauge <- if (router == "cosine") k * (d + 1) - (min((k - 1) * d, k * (d - 1)) + k - 1) else d + 1
        expect_equal(found$gauge, gauge)
        # On the line a cosine gate has no parameter but its sign, so equal signs are one gate.
        if (d > 1 || router != "cosine") expect_equal(found$size - found$rank, gauge)
      }
    }
  }
})

test_that("units of the gate's parameters do not matter", {
  for (router in list(router_linear(1e6), router_linear(1e-6), router_perturbed_cosine(1e-7, 0.5), router_cosine(20))) {
    found <- ref_with_seed(1, check_identifiability("tanh", router))
    expected <- switch(found$router$name, linear = c(10, 34, 9), perturbed_cosine = c(10, 38, 9), cosine = c(8, 28, 9))
    expect_equal(as.data.frame(found)$rank, expected)
    expect_equal(found$regression$gauge, 3)
  }
})

test_that("in one dimension strong identifiability holds as stated under the perturbed router", {
  for (expert in c("tanh", "sigmoid", "gelu", "softplus")) {
    found <- ref_with_seed(1, check_identifiability(expert, "perturbed_cosine", d = 1))
    expect_true(found$strong$holds && found$strong$rates && found$weak$holds)
    expect_equal(found$strong$words, character())
  }
})

test_that("null directions are null directions at other points", {
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    for (expert in list("constant", "linear", expert_polynomial(2), "relu", "tanh", expert_network(2))) {
      found <- ref_with_seed(2, check_identifiability(expert, router, draws = 1))
      model <- cosmoe:::core_model(found$router, found$expert, 2)
      fresh <- ref_with_seed(3, matrix(runif(2000, -1, 1), 1000))
      factors <- cosmoe:::core_identifiability(model, list(x = fresh), found$strong$atoms, 2L)
      for (condition in found[c("weak", "strong")]) {
        expect_equal(ncol(condition$null), condition$size - condition$rank)
        expect_equal(qr(condition$null)$rank, ncol(condition$null))
        if (condition$holds) next
        factor <- factors$functions[, if (condition$order == 2) TRUE else found$strong$functions$order == 1]
        terms <- colSums(sqrt(colSums(factor^2)) * abs(condition$null))
        sums <- sqrt(colSums((factor %*% condition$null)^2))
        # A function that is zero is a direction of its own.
        expect_lt(max(sums / ifelse(terms > 0, terms, 1)), 1e-9)
      }
    }
  }
})

test_that("special parameters are seen", {
  gates <- cbind(c(1, 2), c(-1, 1))
  experts <- cbind(c(1, 0.5, 1), c(-1, 1, 0.5))
  regular <- check_identifiability(at = mixing_measure(c(0, 0), gates, experts, "linear", "linear"), order = 1)
  expect_true(regular$weak$holds)
  # A slope of zero under the linear router: F = b exp(beta_1'x), so dF/dbeta_1 = b dF/da.
  flat <- mixing_measure(c(0, 0), gates, cbind(c(0, 0, 1), experts[, 2]), "linear", "linear")
  found <- ref_with_seed(1, check_identifiability(at = flat, order = 1))
  expect_equal(found$weak$words, "beta_1 and a of expert 1 cannot be told apart (2 directions)")
  # Two equal atoms, and two that share the gate: equal numerators of a linear expert by (a, b).
  equal <- mixing_measure(c(0, 1), gates[, c(1, 1)], experts[, c(1, 1)], "perturbed_cosine", "tanh")
  found <- ref_with_seed(1, check_identifiability(at = equal, order = 1))
  expect_equal(c(found$weak$rank, found$weak$size), c(5, 10))
  expect_setequal(found$weak$words, c(
    "beta_1 of experts 1 and 2 cannot be told apart (2 directions)",
    "a of experts 1 and 2 cannot be told apart (2 directions)",
    "b of experts 1 and 2 cannot be told apart (1 direction)"
  ))
  shared <- mixing_measure(c(0, 1), gates[, c(1, 1)], experts, "perturbed_cosine", "linear")
  expect_equal(ref_with_seed(1, check_identifiability(at = shared, order = 1))$weak$rank, 7)
})

test_that("rounding errors that leave a rank in doubt are admitted", {
  near <- mixing_measure(c(0, 0), cbind(c(1, 0), c(1, 1e-9)), cbind(c(1, 2, 0), c(1, 2, 0)), expert = "tanh")
  found <- ref_with_seed(1, check_identifiability(at = near))
  expect_false(found$strong$clear)
  expect_false(found$regression$clear)
  expect_output(print(found), "too near to be sure")
})

test_that("a perturbed gate of zero has first derivatives, but no second ones", {
  zero <- mixing_measure(c(0, 0), cbind(c(0, 0), c(-1, 1)), cbind(c(1, 0.5, 1), c(-1, 1, 0.5)), expert = "tanh")
  expect_true(ref_with_seed(1, check_identifiability(at = zero, order = 1))$weak$holds)
  expect_error(check_identifiability(at = zero), class = "cosmoe_error_input")
})

test_that("homogeneous experts on one ray are one expert: why polynomials are not strongly identifiable", {
  x <- ref_with_seed(1, matrix(rnorm(40), 20))
  beta <- c(0.3, -0.2)
  eta <- c(1, -0.5, 0.7)
  for (degree in 1:3) {
    model <- ref_model("perturbed_cosine", ref_expert("polynomial", degree), 3)
    # Weights 1/3 and 2/3 of one atom, moved along the ray such that sum w (1 + eps)^p stays 1.
    first <- 1.2
    second <- ((1 - first^degree / 3) / (2 / 3))^(1 / degree)
    measure <- function(steps) {
      beta1 <- cbind(beta, beta, c(-1, 0.5))
      eta1 <- cbind(steps[1] * eta, steps[2] * eta, c(0, 1, 0))
      ref_pack(list(u = ref_gate_from_beta(model$router, beta1), b = c(log(1 / 3), log(2 / 3), 0.4), eta = eta1))
    }
    expect_equal(ref_f(measure(c(first, second)), model, x), ref_f(measure(c(1, 1)), model, x), tolerance = 1e-13)
  }
})

# ---- words and printing ----------------------------------------------------------------------------------------------

test_that("null directions are said in words", {
  words <- function(expert, router, order) {
    found <- ref_with_seed(1, check_identifiability(expert, router, order))
    found[[c("weak", "strong")[order]]]$words
  }
  expect_equal(
    words("tanh", "cosine", 1), "F does not change with the norm of beta_1 of experts 1 and 2 (2 directions)"
  )
  expect_equal(
    words("tanh", "perturbed_cosine", 2),
    "experts 1 and 2: the derivatives d2F/dbeta_1 da are linearly dependent (2 directions)"
  )
  expect_setequal(words("constant", "perturbed_cosine", 2), c(
    "experts 1 and 2: d2F/db^2 is zero (2 directions)",
    "experts 1 and 2: dF/dbeta_1 and d2F/dbeta_1 db are linearly dependent (4 directions)"
  ))
  expect_setequal(words("linear", "linear", 2), c(
    "experts 1 and 2: d2F/da^2, d2F/da db and d2F/db^2 are zero (12 directions)",
    "experts 1 and 2: dF/da and d2F/dbeta_1 db are linearly dependent (4 directions)",
    "experts 1 and 2: dF/dbeta_1, dF/da and d2F/dbeta_1 da are linearly dependent (6 directions)"
  ))
})

test_that("coefficients of null directions are the identities behind them", {
  # Linear router with scale s, linear expert: d2F/dbeta_1j db = s dF/da_j.
  found <- ref_with_seed(1, check_identifiability("linear", router_linear(scale = 4), k = 1, draws = 1))
  null <- found$strong$null
  pairs <- Filter(function(v) sum(v != 0) == 2, asplit(null, 2))
  expect_length(pairs, 2)
  for (j in 1:2) {
    v <- Filter(function(v) v[[sprintf("d2F/dbeta_1[%d] db, expert 1", j)]] != 0, pairs)[[1]]
    expect_equal(v[[sprintf("dF/da[%d], expert 1", j)]] / v[[sprintf("d2F/dbeta_1[%d] db, expert 1", j)]], -4)
  }
  # Cosine router: beta_1' dF/dbeta_1 = 0.
  found <- ref_with_seed(1, check_identifiability("tanh", "cosine", order = 1, k = 1, draws = 1))
  direction <- found$weak$null[1:2, 1]
  expect_equal(unname(direction / max(abs(direction))), with(found$weak$atoms, beta1[, 1] / max(abs(beta1))) *
                 sign(sum(direction * found$weak$atoms$beta1)))
})

test_that("printing", {
  show <- function(...) print(ref_with_seed(1, check_identifiability(..., draws = 2)))
  digits <- function(lines) gsub("[0-9]e[-+][0-9]+", "#", lines)
  expect_snapshot(show("tanh", "cosine", k = 1), transform = digits)
  expect_snapshot(show("constant", "perturbed_cosine", order = 1), transform = digits)
  equal <- mixing_measure(c(0, 1), cbind(c(1, 1), c(1, 1)), cbind(c(1, 2, 0), c(1, 2, 0)), expert = "gelu")
  expect_snapshot(show(at = equal, order = 1), transform = digits)
})

# ---- arguments -------------------------------------------------------------------------------------------------------

test_that("random parameters come from R's generator", {
  one <- ref_with_seed(7, check_identifiability("gelu", "cosine", order = 1))
  expect_identical(ref_with_seed(7, check_identifiability("gelu", "cosine", order = 1)), one)
  other <- ref_with_seed(8, check_identifiability("gelu", "cosine", order = 1))
  expect_false(identical(other$weak$atoms, one$weak$atoms))
})

test_that("a measure brings its model; points may be given", {
  gates <- cbind(c(0.5, 0), c(-0.2, 0.4), c(0, -0.3))
  measure <- mixing_measure(1:3, gates, cbind(c(1, 2, 0), c(0, -1, 1), c(2, 0, 1)), router_cosine(2), "sigmoid")
  x <- ref_with_seed(1, matrix(runif(800), 400))
  found <- check_identifiability(at = measure, x = x)
  expect_s3_class(found, "identifiability")
  expect_equal(found[c("k", "d", "nobs", "draws")], list(k = 3L, d = 2L, nobs = 400L, draws = 1L))
  expect_equal(found$weak$atoms$beta1, gates)
  expect_identical(check_identifiability("sigmoid", router_cosine(2), k = 3, at = measure, x = data.frame(x)), found)
  both <- check_identifiability(at = measure, x = list(z = x, x = x))
  expect_equal(both$strong$rank, found$strong$rank)
  expect_equal(check_identifiability("tanh", "linear", 1, x = x[, 1])$d, 1L)
  expect_equal(check_identifiability("tanh", "linear", 1, x = data.frame(x))$d, 2L)
  # Covariates of a network's gate and of its experts that differ in number.
  wide <- mixing_measure(0, c(1, 2), c(1, 2, 3, 0.5, 1, 1), "perturbed_cosine", expert_network(1))
  expect_equal(ref_with_seed(1, check_identifiability(at = wide, order = 1))$weak$size, 8L)
})

test_that("the gate of a fit belongs to scaled covariates", {
  fit <- suppressWarnings(fit_cosine_moe(methods_data()$y ~ x1 | z1, data = methods_data(),
    k = 2, router = router_perturbed_cosine(tau1 = 0.5, scale = 4), control = moe_control(n_starts = 4, bound_gate = 5)
  ))
  found <- ref_with_seed(1, check_identifiability(at = as_mixing_measure(fit), order = 1))
  expect_true(found$weak$holds)
  expect_equal(found$regression$gauge, 2)
})

test_that("the table of results", {
  facts <- as.data.frame(ref_with_seed(1, check_identifiability("tanh", "perturbed_cosine")))
  expect_equal(facts, data.frame(
    condition = c("weak", "strong", "regression"), size = c(10L, 40L, 12L), rank = c(10L, 38L, 9L),
    holds = c(TRUE, FALSE, TRUE), rates = c(TRUE, TRUE, NA)
  ))
  expect_equal(nrow(as.data.frame(check_identifiability("tanh", "cosine", order = 2))), 2)
})

test_that("bad arguments are named", {
  measure <- mixing_measure(c(0, 0), cbind(c(1, 0), c(0, 1)), cbind(c(1, 2, 0), c(0, -1, 1)), "cosine", "tanh")
  zero <- mixing_measure(c(0, 0), cbind(c(1, 0), c(0, 0)), cbind(c(1, 2, 0), c(0, -1, 1)), "cosine", "tanh")
  boundary <- measure
  boundary$beta1[1, 1] <- Inf
  uneven <- mixing_measure(c(0, 0), cbind(1, 2), cbind(c(1, 2, 0), c(0, -1, 1)), "cosine", "tanh")
  points <- matrix(1:20 / 7, 10)
  refused <- function(code) {
    condition <- tryCatch(code, condition = identity)
    expect_s3_class(condition, "cosmoe_error_input")
    cat(conditionMessage(condition), "\n", sep = "")
  }
  expect_snapshot({
    refused(check_identifiability())
    refused(check_identifiability("tanh"))
    refused(check_identifiability("tan", "cosine"))
    refused(check_identifiability("tanh", "round"))
    refused(check_identifiability("tanh", "cosine", order = 3))
    refused(check_identifiability("tanh", "cosine", order = "weak"))
    refused(check_identifiability("tanh", "cosine", order = integer()))
    refused(check_identifiability("tanh", "cosine", order = NA))
    refused(check_identifiability("tanh", "cosine", k = 0))
    refused(check_identifiability("tanh", "cosine", d = 1.5))
    refused(check_identifiability("tanh", "cosine", draws = 0))
    refused(check_identifiability("tanh", "cosine", tolerance = 0))
    refused(check_identifiability("tanh", router_cosine(top_k = 3)))
    refused(check_identifiability("tanh", "cosine", x = points))
    refused(check_identifiability("tanh", "cosine", x = points[rep(1:10, 10), ]))
    refused(check_identifiability("tanh", "cosine", d = 32, k = 8))
    refused(check_identifiability("tanh", "cosine", order = 1, d = 3, x = points))
    refused(check_identifiability("tanh", "cosine", order = 1, x = replace(points, 3, NA)))
    refused(check_identifiability("tanh", "cosine", x = "points"))
    refused(check_identifiability("tanh", "cosine", x = list(points)))
    refused(check_identifiability("tanh", "cosine", x = list(x = points, z = points[1:5, ])))
    refused(check_identifiability(at = "measure"))
    refused(check_identifiability("gelu", at = measure))
    refused(check_identifiability(router = "linear", at = measure))
    refused(check_identifiability(k = 3, at = measure))
    refused(check_identifiability(d = 3, at = measure))
    refused(check_identifiability(at = zero))
    refused(check_identifiability(at = boundary))
    refused(check_identifiability(at = uneven, x = points))
  })
})

test_that("derivatives that overflow are an error", {
  x <- 1e3 * matrix(sin(1:400), 200)
  check <- function() check_identifiability(expert_polynomial(400), "linear", x = x)
  overflow <- ref_with_seed(1, tryCatch(check(), error = identity))
  expect_s3_class(overflow, "cosmoe_error")
  expect_match(conditionMessage(overflow), "not finite")
})
