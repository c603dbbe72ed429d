# Every bad input stops before any work, with one classed error; the snapshot holds the messages.

# What `code` is refused with: the kind of error and its message.
refusal <- function(code) {
  condition <- tryCatch(code, condition = identity)
  testthat::expect_s3_class(condition, "cosmoe_error")
  cat(class(condition)[1], ": ", conditionMessage(condition), "\n", sep = "")
}

good <- function(n = 30) {
  i <- seq_len(n)
  data.frame(y = sin(i) + i / n, u = cos(3 * i), v = i / n, f = factor(c("a", "b", "c")[1 + i %% 3]))
}

with_value <- function(column, row, value) {
  data <- good()
  data[[column]][row] <- value
  data
}

fit <- function(data = good(), formula = y ~ u + v, ...) fit_cosine_moe(formula, data, ...)

# ---- arguments -------------------------------------------------------------------------------------------------------

test_that("bad arguments of the fit are named", {
  expect_snapshot({
    refusal(fit(k = 0))
    refusal(fit(k = 2.5))
    refusal(fit(k = NA))
    refusal(fit(k = 1:2))
    refusal(fit(k = "two"))
    refusal(fit(router = "round"))
    refusal(fit(router = router_cosine))
    refusal(fit(router = router_cosine(top_k = 3)))
    refusal(fit(expert = "lineer"))
    refusal(fit(expert = lm))
    refusal(fit(standardize = NA))
    refusal(fit(standardize = "yes"))
    refusal(fit(model = 1))
    refusal(fit(method = "ml"))
    refusal(fit(control = list(starts = 3)))
    refusal(fit(control = list(3)))
    refusal(fit(control = list(threads = 0)))
    refusal(fit(control = "newton"))
    refusal(fit(tau1 = 0.5))
    refusal(fit_cosine_moe(cbind(good()$u), good()$y, n_starts = 3, tau = 1))
    refusal(fit(contrasts = "contr.sum"))
    refusal(fit(contrasts = list(nothing = "contr.sum")))
  })
})

test_that("bad formulas are explained", {
  expect_snapshot({
    refusal(fit(formula = ~ u + v))
    refusal(fit(formula = y + v ~ u))
    refusal(fit(formula = y | v ~ u))
    refusal(fit(formula = y ~ u | v | f))
    refusal(fit(formula = y ~ u - 1))
    refusal(fit(formula = y ~ u | 0 + v))
    refusal(fit(formula = y ~ u | v + offset(u)))
    refusal(fit_cosine_moe(data = good()))
    refusal(fit_cosine_moe(y ~ u, as.matrix(good()[1:3])))
    refusal(data_from_formula("y ~ u", good(), quote(f()), environment()))
  })
  expect_error(fit(formula = y ~ nowhere), "nowhere", class = "cosmoe_error_data")
  expect_error(fit_cosine_moe(y ~ u, good(), weights = 1:3), class = "cosmoe_error_data")
})

test_that("bad routers, experts and settings are named", {
  expect_snapshot({
    refusal(router_linear(scale = 0))
    refusal(router_cosine(scale = Inf))
    refusal(router_perturbed_cosine(tau1 = 0))
    refusal(router_perturbed_cosine(tau2 = -1))
    refusal(router_perturbed_cosine(tau2 = c(1, 2)))
    refusal(router_linear(top_k = 0))
    refusal(expert_polynomial(0))
    refusal(expert_polynomial(degree = NULL))
    refusal(expert_network(hidden = 1.5))
    refusal(expert_network(activation = "cos"))
    refusal(expert_custom("value", n_par = 1))
    refusal(expert_custom(function(x, eta) 1))
    refusal(expert_custom(function(x, eta) 1, gradient = 2, n_par = 1))
    refusal(moe_control(optimizer = "adam"))
    refusal(moe_control(n_starts = -2))
    refusal(moe_control(tolerance = 0))
    refusal(moe_control(tolerance = 2))
    refusal(moe_control(bound_gate = 0))
    refusal(moe_control(bound_expert = NaN))
    refusal(moe_control(max_passes = 1e10))
    refusal(moe_control(on_interrupt = "ignore"))
    refusal(moe_control(learning_rate = Inf))
    refusal(moe_control(threads = TRUE))
  })
})

test_that("custom experts are tried before the fit", {
  custom <- function(value, gradient = NULL) fit(expert = expert_custom(value, gradient, n_par = 2))
  expect_snapshot({
    refusal(custom(function(x, eta) 1:7))
    refusal(custom(function(x, eta) "one"))
    refusal(custom(function(x, eta) stop("no luck")))
    refusal(custom(function(x, eta) x[, 1] * eta[1], function(x, eta) x[, 1]))
  })
})

test_that("a start must have the shape of the model", {
  beta <- matrix(0, 2, 2)
  b <- c(0, 0)
  experts <- matrix(0, 3, 2)
  expect_snapshot({
    refusal(fit(start = 1))
    refusal(fit(start = list(beta = beta, b = b)))
    refusal(fit(start = list(beta = beta, b = 0, experts = experts)))
    refusal(fit(start = list(beta = beta, b = b, experts = t(experts))))
    refusal(fit(start = list(beta = beta + Inf, b = b, experts = experts)))
    refusal(fit(start = list(beta = "beta", b = b, experts = experts)))
  })
  other <- structure(list(k = 3L, gate = list(beta = matrix(0, 2, 3)), experts = matrix(0, 3, 3)), class = "cosine_moe")
  expect_snapshot(refusal(fit(start = other)))
})

# ---- data ------------------------------------------------------------------------------------------------------------

test_that("missing and infinite values are found", {
  x <- as.matrix(good()[c("u", "v")])
  bad <- function(row, value) replace(x, row, value)
  expect_snapshot({
    refusal(fit(with_value("y", 3, Inf)))
    refusal(fit(with_value("u", 4, -Inf)))
    refusal(fit(with_value("v", 4, Inf), y ~ u | v))
    refusal(fit(with_value("u", 1:9, NA), na.action = na.pass))
    refusal(fit(with_value("y", 2, NaN), na.action = na.pass))
    refusal(fit(with_value("y", 1:30, NA)))
    refusal(fit_cosine_moe(y ~ u, good(), weights = replace(v, 2, Inf)))
    refusal(fit_cosine_moe(y ~ u, good(), offset = replace(v, 2, Inf)))
    refusal(fit_cosine_moe(bad(1, NA), good()$y))
    refusal(fit_cosine_moe(bad(40, NaN), good()$y))
    refusal(fit_cosine_moe(bad(c(2, 3), Inf), good()$y))
    refusal(fit_cosine_moe(x, good()$y, z = bad(31, NA)))
    refusal(fit_cosine_moe(x, replace(good()$y, 1, NA)))
    refusal(fit_cosine_moe(x, good()$y, weights = replace(good()$v, 5, NA)))
    refusal(fit_cosine_moe(x, good()$y, offset = replace(good()$v, 5, NaN)))
  })
  expect_error(fit(with_value("u", 3, NA), na.action = na.fail), class = "cosmoe_error_data")
})

test_that("too few rows are refused", {
  expect_snapshot({
    refusal(fit(good()[0, ]))
    refusal(fit(good()[1, ]))
    refusal(fit_cosine_moe(y ~ u, good(), subset = v > 2))
    refusal(fit_cosine_moe(matrix(0, 0, 2), numeric()))
    refusal(fit_cosine_moe(matrix(1, 1, 2), 1))
    refusal(fit(good(4), k = 5))
    refusal(fit(good(10), k = 3))
    refusal(fit(good(10), k = 2, expert = "network"))
    refusal(fit_cosine_moe(y ~ u, good(), k = 4, weights = +(v > 0.9)))
    refusal(fit_cosine_moe(y ~ u, good(), weights = +(v == 1)))
  })
})

test_that("bad weights are refused", {
  expect_snapshot({
    refusal(fit_cosine_moe(y ~ u, good(), weights = -v))
    refusal(fit_cosine_moe(y ~ u, good(), weights = 0 * v))
    refusal(fit_cosine_moe(y ~ u, good(), weights = f))
    refusal(fit_cosine_moe(good()["u"], good()$y, weights = 1:3))
    refusal(fit_cosine_moe(good()["u"], good()$y, weights = "v"))
  })
})

test_that("a response must be a numeric vector that varies", {
  expect_snapshot({
    refusal(fit(formula = f ~ u))
    refusal(fit(formula = (u > 0) ~ v))
    refusal(fit(formula = cbind(y, u) ~ v))
    refusal(fit(formula = 0 * y ~ v))
    refusal(fit_cosine_moe(u ~ v, good(), offset = u))
    refusal(fit_cosine_moe(good()["u"], letters[1:30]))
    refusal(fit_cosine_moe(good()["u"], cbind(good()$y, 1)))
    refusal(fit_cosine_moe(good()["u"], 1:3))
    refusal(fit_cosine_moe(good()["u"], NULL))
    refusal(fit_cosine_moe(good()["u"]))
  })
})

test_that("covariates of the wrong type are refused", {
  expect_snapshot({
    refusal(fit_cosine_moe(good()[c("u", "f")], good()$y))
    refusal(fit_cosine_moe(matrix("a", 30, 2), good()$y))
    refusal(fit_cosine_moe(NULL, good()$y))
    refusal(fit_cosine_moe(good()["u"], good()$y, z = good()[1:3, "v"]))
    refusal(fit_cosine_moe(good()["u"], good()$y, z = good()["f"]))
    refusal(fit_cosine_moe(array(0, c(30, 1, 1)), good()$y))
    refusal(fit_cosine_moe(y ~ f, good(), subset = f == "a"))
  })
})

test_that("constant columns are refused where they leave slopes undefined", {
  constant <- transform(good(), v = 3, f = "a")
  expect_snapshot({
    refusal(fit(constant))
    refusal(fit(constant, y ~ f))
    refusal(fit(constant, y ~ u | v))
    refusal(fit(constant, y ~ u | v, router = "linear", standardize = FALSE))
    refusal(fit_cosine_moe(y ~ u + pmin(u, 0), good(), weights = +(u > 0)))
    refusal(fit(formula = y ~ u | 1))
  })
  checked <- function(formula, router, expert, standardize = TRUE, k = 2L) {
    data <- data_from_formula(formula, constant, quote(fit()), environment())
    expect_silent(check_data(data, k, as_router(router), as_expert(expert), standardize))
  }
  checked(y ~ u | v, "cosine", "linear", standardize = FALSE)
  checked(y ~ u + v | u, "cosine", "constant")
  checked(y ~ u + v | u, "cosine", expert_custom(function(x, eta) x %*% eta, n_par = 2))
  checked(y ~ u | 1, "cosine", "linear", k = 1L)
})

test_that("duplicated and collinear columns are refused where they leave slopes undefined", {
  double <- transform(good(), w = u, s = 1 - u + 2 * v)
  expect_snapshot({
    refusal(fit(double, y ~ u + v + w))
    refusal(fit(double, y ~ u + v + s))
    refusal(fit(double, y ~ u | u + v + s))
    refusal(fit(double, y ~ u | u + w, router = "linear", standardize = FALSE))
    refusal(fit_cosine_moe(cbind(good()$u, good()$u), good()$y))
  })
  data <- data_from_formula(y ~ u | u + w, double, quote(fit()), environment())
  expect_silent(check_data(data, 2L, router_cosine(), expert_linear(), standardize = FALSE))
})

test_that("values that cannot be squared are refused", {
  expect_snapshot({
    refusal(fit(formula = I(y * 1e200) ~ u))
    refusal(fit(formula = I(y / 1e200) ~ u))
    refusal(fit(formula = y ~ u + I(v * 1e200)))
    refusal(fit(formula = y ~ u | I(v / 1e200)))
  })
})

test_that("huge and tiny scales are fitted", {
  truth <- unname(fitted(lm(y ~ u + v, good())))
  for (size in c(1e-100, 1e-8, 1e8, 1e100)) {
    data <- transform(good(), u = u * size, v = v / size)
    expect_equal(as.vector(fit(data, k = 1)$fitted.values), truth, tolerance = 1e-6)
    data <- transform(good(), y = y * size)
    expect_equal(as.vector(fit(data, k = 1)$fitted.values) / size, truth, tolerance = 1e-6)
  }
})

# ---- new data --------------------------------------------------------------------------------------------------------

test_that("new data that do not fit the model are refused", {
  formula <- y ~ splines::ns(u, 3) + f | v
  object <- data_from_formula(formula, good(), quote(fit()), environment())
  u <- v <- good()$u
  changed <- function(...) transform(good(), ...)
  expect_snapshot({
    refusal(prepare_newdata(object, good()["f"]))
    refusal(prepare_newdata(object, 1:3))
    refusal(prepare_newdata(object, changed(f = "d")))
    refusal(prepare_newdata(object, changed(f = v)))
    refusal(prepare_newdata(object, changed(v = f)))
    refusal(prepare_newdata(object, changed(v = as.character(v))))
    refusal(prepare_newdata(object, changed(u = f)))
    refusal(prepare_newdata(object, changed(v = v / 0)))
    refusal(prepare_newdata(object, changed(v = NA), na.fail))
  })
})

test_that("new matrices that do not fit the model are refused", {
  x <- as.matrix(good()[c("u", "v")])
  shared <- data_from_matrix(x, good()$y)
  separate <- data_from_matrix(unname(x), good()$y, z = good()$u, offset = good()$v)
  expect_snapshot({
    refusal(prepare_newdata(shared, x[, "u", drop = FALSE]))
    refusal(prepare_newdata(shared, unname(x)[, 1, drop = FALSE]))
    refusal(prepare_newdata(shared, good()["f"]))
    refusal(prepare_newdata(shared, "x"))
    refusal(prepare_newdata(shared, list(z = x)))
    refusal(prepare_newdata(shared, x / 0))
    refusal(prepare_newdata(separate, list(x = x)))
    refusal(prepare_newdata(separate, list(x = x, z = 1:3, offset = 1:30)))
    refusal(prepare_newdata(separate, list(x = x, z = good()$u, offset = 1)))
    refusal(prepare_newdata(separate, list(x = x[, c(1, 1, 1)], z = 1, offset = 1)))
  })
})

# ---- conditions and printing -----------------------------------------------------------------------------------------

test_that("an error says which argument, what it got and what it expected", {
  error <- tryCatch(fit(k = -2), error = identity)
  expect_s3_class(error, c("cosmoe_error_input", "cosmoe_error", "error", "condition"), exact = TRUE)
  expect_identical(error$argument, "k")
  expect_identical(error$got, -2)
  expect_identical(error$expected, "a whole number of at least 1")
  expect_identical(conditionMessage(error), "`k` must be a whole number of at least 1, not -2.")
  expect_error(stop_interrupt(), class = "cosmoe_error_interrupt")
  expect_warning(warn_convergence("The fit has not converged."), class = "cosmoe_warning_convergence")
})

test_that("any value can be described in a few words", {
  values <- list(
    NULL, NA, -2, 1e300, TRUE, "a\nb", NA_character_, 1:3, numeric(), letters, matrix(0, 2, 3), good(), list(1, 2), lm,
    y ~ x, factor("a"), quote(x), globalenv()
  )
  expect_snapshot(for (value in values) cat(describe(value), "\n"))
})

test_that("routers, experts and settings print what they are", {
  expect_snapshot({
    router_linear(scale = 1 / 3)
    router_cosine(scale = 10)
    router_perturbed_cosine(tau1 = 0.5, top_k = 2)
    expert_constant()
    expert_polynomial(3)
    expert_gelu()
    expert_softplus()
    expert_network(hidden = 1, activation = "relu")
    expert_custom(function(x, eta) x %*% eta, n_par = 2)
    moe_control()
    moe_control(optimizer = "sgd", n_starts = 1)
  })
})

# ---- routers and experts ---------------------------------------------------------------------------------------------

test_that("names stand for constructors with default settings", {
  expect_equal(as_router("perturbed_cosine"), router_perturbed_cosine())
  expect_equal(as_router("linear"), router_linear())
  for (name in c("constant", "linear", "polynomial", "relu", "gelu", "tanh", "sigmoid", "softplus", "network")) {
    expect_equal(as_expert(name), match.fun(paste0("expert_", name))())
  }
  expect_equal(as_control(list(threads = 2)), moe_control(threads = 2))
})

test_that("parameters are counted and named", {
  for (expert in list("constant", "linear", "network", expert_polynomial(3), expert_network(1), "gelu")) {
    expert <- as_expert(expert)
    for (d in 0:2) expect_length(expert_par_names(expert, letters[seq_len(d)]), expert_n_par(expert, d))
  }
  expect_equal(expert_par_names(expert_tanh(), c("u", "v")), c("u", "v", "(Intercept)"))
  expect_equal(expert_par_names(expert_network(2), "u"), c(
    "hidden1:u", "hidden1:(Intercept)", "hidden2:u", "hidden2:(Intercept)",
    "output:hidden1", "output:hidden2", "output:(Intercept)"
  ))
  expect_equal(router_df(router_linear(), 3, 2), 6)
  expect_equal(router_df(router_perturbed_cosine(), 3, 2), 6)
  expect_equal(router_df(router_linear(), 1, 2), 0)
  # The number of independent contrasts u_i - u_j of k unit vectors in R^d, by the rank of their derivatives.
  for (k in 2:5) {
    for (d in 1:4) {
      u <- apply(matrix(sin(seq_len(k * d)^2), d), 2, function(v) v / sqrt(sum(v^2)))
      u <- matrix(u, d)
      tangents <- lapply(seq_len(k), function(j) diag(d) - tcrossprod(u[, j]))
      blocks <- lapply(seq_len(k - 1), function(j) {
        row <- matrix(0, d, k * d)
        row[, (j - 1) * d + seq_len(d)] <- tangents[[j]]
        row[, (k - 1) * d + seq_len(d)] <- -tangents[[k]]
        row
      })
      expect_equal(router_df(router_cosine(), k, d), qr(do.call(rbind, blocks))$rank + k - 1)
    }
  }
})

test_that("the numeric gradient of a custom expert is accurate", {
  expert <- expert_custom(function(x, eta) eta[1] * exp(-eta[2] * x[, 1]), n_par = 2)
  x <- cbind(c(-1, 0.5, 2))
  eta <- c(1.3, 0.7)
  exact <- cbind(exp(-0.7 * x[, 1]), -1.3 * x[, 1] * exp(-0.7 * x[, 1]))
  expect_equal(expert$gradient(x, eta), exact, tolerance = 1e-11)
  expect_equal(expert$gradient(x[1, , drop = FALSE], eta), exact[1, , drop = FALSE], tolerance = 1e-11)
})
