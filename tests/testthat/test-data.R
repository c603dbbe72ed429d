# What a formula or matrices become, against model.matrix() and lm(). No fit is needed: the tests call the step before.

model_data <- function(formula, data = NULL, weights, subset, na.action, offset, contrasts = NULL) {
  data_from_formula(formula, data, match.call(), parent.frame(), contrasts)
}

lm_matrix <- function(...) {
  design <- model.matrix(...)
  unname(design[, colnames(design) != "(Intercept)", drop = FALSE])
}

# As much of a fitted object as prediction on new data looks at.
as_fitted <- function(data, call = NULL) {
  list(
    call = call, formula = data$formula, terms = data$terms, xlevels = data$xlevels, contrasts = data$contrasts,
    names = data$names, typical = data$typical, offset = data$offset
  )
}

toy <- function(n = 40) {
  i <- seq_len(n)
  data.frame(
    y = sin(i), u = cos(3 * i), v = i / n, t = 1 + i %% 5,
    f = factor(c("low", "mid", "high")[1 + i %% 3], levels = c("low", "mid", "high")),
    g = c("a", "b")[1 + (i %/% 3) %% 2],
    l = i %% 4 == 0,
    o = ordered(c("s", "m", "l")[1 + (i %/% 2) %% 3], levels = c("s", "m", "l"))
  )
}

# ---- formula ---------------------------------------------------------------------------------------------------------

test_that("one part serves experts and gate", {
  data <- model_data(y ~ u + v, toy())
  expect_equal(data$x, lm_matrix(y ~ u + v, toy()), ignore_attr = TRUE)
  expect_null(data$z)
  expect_equal(data$names, list(y = "y", x = c("u", "v"), z = c("u", "v"), shared = TRUE))
  expect_equal(data$y, toy()$y)
  expect_null(data$w)
  expect_null(data$offset)
})

test_that("two parts are kept apart, equal ones are shared", {
  data <- model_data(log(2 + y) ~ u + v | t, toy())
  expect_equal(data$x, lm_matrix(~ u + v, toy()), ignore_attr = TRUE)
  expect_equal(data$z, cbind(toy()$t))
  expect_equal(data$names, list(y = "log(2 + y)", x = c("u", "v"), z = "t", shared = FALSE))
  expect_equal(data$y, log(2 + toy()$y))
  expect_true(model_data(y ~ u + v | u + v, toy())$names$shared)
})

test_that("the dot means all other variables, in either part", {
  data <- toy()[c("y", "u", "v", "f")]
  experts <- model_data(y ~ . | u, data)
  expect_equal(experts$names$x, c("u", "v", "fmid", "fhigh"))
  expect_equal(experts$x, lm_matrix(y ~ ., data), ignore_attr = TRUE)
  gate <- model_data(log(y + 2) ~ u | ., data)
  expect_equal(gate$z, lm_matrix(y ~ ., data), ignore_attr = TRUE)
})

test_that("every kind of term gives the matrix of model.matrix", {
  formulas <- list(
    y ~ 1, y ~ f, y ~ g + l, y ~ o, y ~ f * u, y ~ f:u, y ~ f:g + v, y ~ u:v, y ~ (u + v + f)^2, y ~ I(u^2) + log(t),
    y ~ poly(u, 2), y ~ splines::ns(u, 3), y ~ splines::bs(u, df = 5) * l, y ~ factor(t), y ~ cut(v, c(-1, 0.3, 2)),
    y ~ scale(u) + v, y ~ v + offset(u), y ~ v + f + offset(u)
  )
  for (formula in formulas) {
    data <- model_data(formula, toy())
    label <- deparse1(formula)
    expect_equal(data$x, lm_matrix(formula, toy()), ignore_attr = TRUE, label = label)
    expect_identical(data$names$x, as.character(colnames(model.matrix(formula, toy()))[-1]), label = label)
    expect_identical(names(attributes(data$x)), "dim", label = label)
    expect_type(data$x, "double")
  }
})

test_that("a response may be any expression, as in lm", {
  train <- methods_data()
  for (side in expression(y / 2, y * 2, (y), (y / 2), y^2, log(y + 50), -y, y %% 3)) {
    formula <- as.formula(call("~", side, quote(x1)))
    label <- deparse(side)
    fit <- fit_cosine_moe(formula, train, k = 1)
    expect_equal(unname(coef(fit)), unname(coef(lm(formula, train))), tolerance = 1e-6, label = label)
    expect_equal(update(fit, . ~ .)$sse, fit$sse, label = label)
  }
  two <- suppressWarnings(fit_cosine_moe(y / 2 ~ x1 | z1, train, control = moe_control(n_starts = 2)))
  expect_identical(two$y, train$y / 2)
  expect_identical(two$names$z, "z1")
})

test_that("names that need backticks work", {
  data <- setNames(toy()[c("y", "u", "f")], c("my y", "my u", "my f"))
  result <- model_data(`my y` ~ `my u` | `my f`, data)
  expect_equal(result$x, cbind(data$`my u`))
  expect_equal(result$z, lm_matrix(~`my f`, data), ignore_attr = TRUE)
  expect_equal(prepare_newdata(as_fitted(result), data)$z, result$z)
})

test_that("contrasts are used, kept and reproduced", {
  choice <- list(f = "contr.sum", o = "contr.helmert")
  data <- model_data(y ~ f + o | f * u, toy(), contrasts = choice)
  expect_equal(data$x, lm_matrix(y ~ f + o, toy(), contrasts.arg = choice), ignore_attr = TRUE)
  expect_equal(data$z, lm_matrix(y ~ f * u, toy(), contrasts.arg = choice["f"]), ignore_attr = TRUE)
  expect_equal(data$contrasts, choice)
  expect_equal(prepare_newdata(as_fitted(data), toy())[c("x", "z")], data[c("x", "z")])
})

test_that("weights, subset, offsets and missing values act as in lm", {
  holes <- toy()
  holes$u[3] <- NA
  holes$t[5] <- NA
  holes$case <- seq_len(nrow(holes))
  data <- model_data(
    y ~ u + offset(v) | l, holes,
    weights = case / 2, subset = case > 2, na.action = na.exclude, offset = t
  )
  reference <- lm(
    y ~ u + l + offset(v), holes,
    weights = case / 2, subset = case > 2, na.action = na.exclude, offset = t
  )
  frame <- model.frame(reference)
  expect_equal(data$y, frame$y)
  expect_equal(data$w, as.vector(model.weights(frame)))
  expect_equal(data$offset, as.vector(model.offset(frame)))
  expect_equal(data$na.action, reference$na.action)
  expect_equal(working_response(data), frame$y - data$offset)
  expect_equal(nrow(data$x), nobs(reference))
  expect_equal(nrow(data$z), nobs(reference))
})

test_that("unused levels are dropped as in lm", {
  data <- model_data(y ~ f, toy(), subset = f != "mid")
  expect_equal(data$xlevels, list(f = c("low", "high")))
  expect_equal(data$names$x, "fhigh")
})

test_that("variables come from the data, then from the formula's environment", {
  data <- toy()
  extra <- data$t
  inside <- function() {
    w <- data$v
    knot <- 0.1
    model_data(y ~ splines::ns(u, knots = knot) + extra, data, weights = w)
  }
  result <- inside()
  expect_equal(result$w, data$v)
  expect_named(result$typical, c("u", "extra"), ignore.order = TRUE)

  y <- data$y
  u <- data$u
  expect_equal(model_data(y ~ u)$x, cbind(u), ignore_attr = TRUE)
})

test_that("the data are evaluated once", {
  count <- 0
  make <- function() {
    count <<- count + 1
    toy()
  }
  model_data(y ~ u + v | t, make(), subset = v > 0.1, weights = v)
  expect_equal(count, 1)
})

test_that("typical values and ranges are those of the variables behind the terms", {
  holes <- toy(41)
  holes$u[1] <- NA
  knots <- 0.5
  data <- model_data(y ~ splines::ns(v, knots = knots) + u + factor(t) | f + g + l, holes, offset = u)
  expect_named(data$typical, c("v", "u", "t", "f", "g", "l"))
  expect_equal(data$typical$v, median(holes$v))
  expect_true(data$typical$t %in% holes$t)
  most_frequent <- function(v) names(which.max(table(v)))
  expect_equal(as.character(data$typical$f), most_frequent(holes$f))
  expect_equal(levels(data$typical$f), levels(holes$f))
  expect_equal(data$typical$g, most_frequent(holes$g))
  expect_false(data$typical$l)
  expect_equal(data$range, vapply(holes[c("v", "u", "t")], range, numeric(2), na.rm = TRUE), ignore_attr = "dimnames")
  expect_equal(dimnames(data$range), list(c("min", "max"), c("v", "u", "t")))
  expect_equal(nrow(prepare_newdata(as_fitted(data, quote(fit(offset = u))), data$typical)$x), 1)
})

# ---- matrices --------------------------------------------------------------------------------------------------------

test_that("matrices, data frames and vectors are taken, integers become double", {
  x <- as.matrix(toy()[c("u", "v")])
  expect_identical(data_from_matrix(x, toy()$y)$x, x)
  expect_equal(data_from_matrix(toy()[c("u", "v")], toy()$y)$x, x, ignore_attr = TRUE)
  expect_equal(data_from_matrix(toy()$u, toy()$y)$x, cbind(toy()$u))
  expect_type(data_from_matrix(matrix(1:40), toy()$y)$x, "double")
  expect_equal(data_from_matrix(x, toy()$y)$names, list(y = "y", x = c("u", "v"), z = c("u", "v"), shared = TRUE))
  expect_null(data_from_matrix(x, toy()$y, z = x)$z)
  separate <- data_from_matrix(unname(x), toy()$y, z = toy()$t, weights = toy()$v, offset = toy()$u)
  expect_equal(separate$names, list(y = "y", x = c("x1", "x2"), z = "z1", shared = FALSE))
  expect_equal(separate[c("w", "offset")], list(w = toy()$v, offset = toy()$u))
  expect_named(separate$typical, c("x1", "x2", "z1"))
  expect_equal(separate$range["max", ], c(x1 = max(x[, 1]), x2 = 1, z1 = 5))
})

test_that("a double matrix is not copied", {
  skip_if_not(capabilities("profmem"))
  x <- as.matrix(toy()[c("u", "v")])
  y <- toy()$y
  expect_output(tracemem(x), NA)
  on.exit(untracemem(x))
  expect_output(data_from_matrix(x, y), NA)
  expect_output(check_data(data_from_matrix(x, y), 2L, router_linear(), expert_linear(), TRUE), NA)
})

# ---- new data --------------------------------------------------------------------------------------------------------

test_that("the training data as new data give the training matrices", {
  for (formula in list(
    y ~ u + v, y ~ splines::ns(u, 3) + scale(v) | poly(t, 2) + f * v, y ~ f * g + l | o, y ~ factor(t) | u, y ~ 1 | u,
    y ~ u | 1
  )) {
    data <- model_data(formula, toy())
    prepared <- prepare_newdata(as_fitted(data), toy())
    expect_equal(prepared$x, data$x, label = deparse1(formula))
    expect_equal(prepared$z, data$z, label = deparse1(formula))
    expect_equal(prepared[c("n", "rows")], list(n = 40L, rows = 1:40))
    few <- prepare_newdata(as_fitted(data), toy()[c(7, 2), ])
    expect_equal(few$x, data$x[c(7, 2), , drop = FALSE], label = deparse1(formula))
  }
})

test_that("re-ordered levels, strings and a single level give the same numbers", {
  data <- model_data(y ~ f * u + g | o, toy())
  object <- as_fitted(data)
  changed <- toy()
  changed$f <- factor(as.character(changed$f), levels = c("high", "low", "mid", "unused"))
  changed$g <- factor(changed$g, levels = c("b", "a"))
  changed$o <- as.character(changed$o)
  expect_equal(prepare_newdata(object, changed)[c("x", "z")], data[c("x", "z")])
  changed$f <- as.character(changed$f)
  expect_equal(prepare_newdata(object, changed)$x, data$x)
  expect_equal(prepare_newdata(object, droplevels(toy()[4, ]))$x, data$x[4, , drop = FALSE])
})

test_that("offsets of new data are those of lm", {
  data <- model_data(y ~ u + offset(v), toy(), offset = log(t))
  object <- as_fitted(data, quote(fit_cosine_moe(y ~ u + offset(v), toy(), offset = log(t))))
  expect_equal(prepare_newdata(object, toy()[5:9, ])$offset, toy()$v[5:9] + log(toy()$t[5:9]))
  expect_null(prepare_newdata(as_fitted(model_data(y ~ u, toy())), toy())$offset)
})

test_that("rows with missing values follow na.action", {
  data <- model_data(y ~ u + f + offset(v), toy())
  object <- as_fitted(data)
  holes <- toy()[1:4, ]
  holes$u[2] <- NA
  holes$f[3] <- NA

  passed <- prepare_newdata(object, holes)
  expect_equal(passed[c("n", "rows")], list(n = 4L, rows = c(1L, 4L)))
  expect_equal(passed$x, data$x[c(1, 4), ])
  expect_equal(passed$offset, holes$v[c(1, 4)])
  expect_equal(fill_rows(c(10, 40), passed), c(10, NA, NA, 40))
  expect_equal(fill_rows(cbind(a = c(10, 40), b = 1), passed), cbind(a = c(10, NA, NA, 40), b = c(1, NA, NA, 1)))

  dropped <- prepare_newdata(object, holes, na.omit)
  expect_equal(dropped[c("n", "rows")], list(n = 2L, rows = 1:2))
  expect_equal(dropped[c("x", "offset")], passed[c("x", "offset")])
  expect_equal(fill_rows(c(10, 40), dropped), c(10, 40))
  expect_equal(fill_rows(c(10, 40), prepare_newdata(object, holes, na.exclude)), c(10, NA, NA, 40))
  expect_error(prepare_newdata(object, holes, na.fail), class = "cosmoe_error_newdata")

  all_missing <- prepare_newdata(object, data.frame(u = NA, f = NA, v = NA))
  expect_equal(fill_rows(numeric(), all_missing), NA_real_)
})

test_that("new matrices follow na.action and the names of columns", {
  x <- as.matrix(toy()[c("u", "v")])
  object <- as_fitted(data_from_matrix(x, toy()$y))
  expect_identical(prepare_newdata(object, x)$x, x)
  expect_equal(prepare_newdata(object, toy()[c("t", "v", "u")])$x, x, ignore_attr = TRUE)
  expect_equal(prepare_newdata(object, list(x = unname(x)))$x, unname(x))

  holes <- x
  holes[3, 2] <- NA
  passed <- prepare_newdata(object, holes)
  expect_equal(passed$x, x[-3, ])
  expect_equal(fill_rows(passed$x[, "u"], passed), replace(x[, "u"], 3, NA), ignore_attr = TRUE)
  expect_equal(prepare_newdata(object, holes, na.omit)[c("n", "rows")], list(n = 39L, rows = 1:39))
  expect_error(prepare_newdata(object, holes, na.fail), class = "cosmoe_error_newdata")

  separate <- as_fitted(data_from_matrix(x, toy()$y, z = cbind(t = toy()$t), offset = toy()$v))
  new <- prepare_newdata(separate, list(x = holes, z = toy()$t, offset = toy()$v))
  expect_equal(new$z, cbind(toy()$t[-3]))
  expect_equal(new$offset, toy()$v[-3])
  named <- as_fitted(data_from_matrix(x, toy()$y, z = cbind(t = toy()$t)))
  expect_equal(prepare_newdata(named, toy()[c("t", "u", "v")])$z, cbind(t = toy()$t))
})

test_that("a formula has the terms that it has in parts, whether or not it is taken apart", {
  data <- data.frame(y = rnorm(9), u = 1:9 / 3, v = cos(1:9), f = factor(rep(c("a", "b", "c"), 3)))
  formulas <- list(
    y ~ u, y ~ u + v, y ~ u * f + I(v^2), y ~ offset(v) + u, y ~ 1, y ~ ., y ~ . - u, log(y^2) ~ u, cbind(u, v) ~ f,
    y ~ u | v, y ~ u | ., y ~ (u + v) | f:u
  )
  for (formula in formulas) {
    formula <- as_formula(formula)
    expect_identical(formula, Formula::as.Formula(formula))
    expect_equal(frame_terms(formula, data), stats::terms(formula, data = data))
    parts <- seq_len(length(formula)[2L])
    whole <- if (length(parts) == 1L) frame_terms(formula, data)
    for (part in parts) expect_equal(part_terms(formula, data, part, whole), part_terms(formula, data, part))
  }
  expect_error(frame_terms(as_formula(y ~ .), NULL), "data", class = "cosmoe_error_data")
})

# ---- collinearity ----------------------------------------------------------------------------------------------------

test_that("collinear columns are found, and only these, whatever the rows that show it", {
  n <- 5000
  i <- seq_len(n)
  x <- cbind(sin(i), cos(i), sin(2 * i))
  expect_null(find_collinear(x, i))
  expect_equal(find_collinear(cbind(x, 3 - x[, 1] + 2 * x[, 3]), i)$of, c(1, 3), ignore_attr = TRUE)
  expect_equal(find_collinear(1e100 * cbind(x, x[, 2]), i), list(column = 4, of = 2), ignore_attr = TRUE)
  # Rare events far from the sampled rows: equal but for one row, then equal.
  rare <- as.double(i %in% c(12, 4321))
  expect_null(find_collinear(cbind(x, rare, replace(rare, 4322, 1)), i))
  expect_equal(find_collinear(cbind(x, rare, rare), i)$column, 5)
  # The difference lies in rows that do not count.
  expect_equal(find_collinear(cbind(x, rare, replace(rare, 4322, 1)), i[-4322])$column, 5)
})

# ---- the object ------------------------------------------------------------------------------------------------------

test_that("the object adds up: offset, weights, degrees of freedom, names", {
  data <- toy(30)
  data$w <- as.double(seq_len(30) %% 3)
  model <- model_data(y ~ u + l | t, data, weights = w, offset = v)
  settings <- fit_settings(2, "perturbed_cosine", "linear", TRUE, moe_control())
  estimate <- list(
    u = matrix(0.1, 1, 2), b = c(-1, 1), beta = matrix(c(0.2, Inf), 1), eta = matrix(1:6, 3), z_center = 3, z_scale = 2,
    fitted = rep(0.5, 30), gate_mean = c(0.6, 0.4), starts = data.frame(start = 1), df = 8L,
    convergence = list(converged = TRUE), diagnostics = list()
  )
  fit <- new_cosine_moe(quote(fit_cosine_moe()), model, settings, estimate)
  expect_s3_class(fit, "cosine_moe")
  expect_equal(fit$fitted.values, 0.5 + data$v)
  expect_equal(fit$residuals, data$y - 0.5 - data$v)
  expect_equal(fit$sse, sum(data$w * fit$residuals^2))
  expect_equal(fit[c("nobs", "df", "df.residual")], list(nobs = 20L, df = 8L, df.residual = 12L))
  expect_equal(fit$sigma, sqrt(fit$sse / 12))
  expect_equal(fit$gate$beta, matrix(c(0.2, Inf), 1, dimnames = list("t", c("expert1", "expert2"))))
  expect_equal(fit$gate$b, c(expert1 = -1, expert2 = 1))
  expect_equal(rownames(fit$experts), c("u", "lTRUE", "(Intercept)"))
  expect_equal(fit[c("z_center", "z_scale")], list(z_center = c(t = 3), z_scale = c(t = 2)))
  expect_s3_class(fit$model, "data.frame")
  expect_true(all(c("formula", "na.action", "offset", "weights", "xlevels", "typical", "range") %in% names(fit)))

  start <- check_start(fit, model, settings)
  expect_equal(start, list(
    beta = estimate$beta, b = estimate$b, experts = unname(fit$experts), u = estimate$u
  ))
  other <- fit_settings(2, router_perturbed_cosine(tau1 = 1), "linear", TRUE, moe_control())
  expect_error(check_start(fit, model, other), "finite", class = "cosmoe_error_input")
  given <- start[c("beta", "b", "experts")]
  given$beta[2] <- 7
  expect_equal(check_start(given, model, settings), c(given, list(u = NULL)))
})

# ---- copies ----------------------------------------------------------------------------------------------------------

# The sizes in bytes of what `expr` allocates in pieces larger than `least`.
allocated <- function(expr, least) {
  log <- tempfile()
  on.exit(unlink(log))
  utils::Rprofmem(log, threshold = least)
  tryCatch(expr, finally = utils::Rprofmem(NULL))
  as.numeric(sub(" ?:.*", "", grep("^[0-9]", readLines(log), value = TRUE)))
}

test_that("covariates are copied once at most, of integers and data frames, too", {
  skip_if_not(capabilities("profmem"))
  set.seed(4)
  n <- 50000
  numbers <- matrix(rnorm(6 * n), n, dimnames = list(NULL, paste0("x", 1:6)))
  whole <- matrix(sample.int(50L, 6 * n, TRUE), n, dimnames = dimnames(numbers))
  y <- rnorm(n)
  copies <- function(expr) sum(allocated(expr, 8 * n * 6)) / (8 * n * 6)
  expect_lt(copies(data_from_matrix(numbers, y)), 0.1)
  expect_lt(copies(data_from_matrix(whole, y)), 1.1)
  expect_lt(copies(data_from_matrix(as.data.frame(numbers), y)), 1.1)
  expect_lt(copies(data_from_matrix(as.data.frame(whole), y)), 1.1)
  for (x in list(numbers, whole)) {
    data <- data.frame(y, x)
    call <- quote(fit_cosine_moe(formula, data))
    # Columns by themselves: typical values look at each, twice.
    sizes <- allocated(made <- data_from_formula(y ~ ., data, call, environment()), 8 * n - 1)
    expect_equal(sum(sizes > 8 * n * 5), 1)
    expect_lte(sum(sizes < 8 * n * 5), 2 * 6 + 1)
    expect_identical(made$x, unname(x) + 0)
  }
})

test_that("rows with missing values are left out as na.omit() does it", {
  set.seed(5)
  data <- data.frame(y = rnorm(40), x = rnorm(40), g = factor(rep(c("a", "b", "c", "d"), 10)))
  call <- quote(fit_cosine_moe(formula, data))
  frame_of <- function(data) data_from_formula(y ~ x + g, data, call, environment())$model
  as_lm <- function(data) stats::model.frame(y ~ x + g, data, drop.unused.levels = TRUE)
  same <- function(data) expect_equal(frame_of(data), as_lm(data), ignore_attr = c("terms", "formula"))
  same(data)
  data$x[3] <- NaN
  data$y[40] <- NA
  same(data)
  data$g[data$g == "c"] <- NA
  same(data)
  expect_identical(levels(frame_of(data)$g), c("a", "b", "d"))
  expect_identical(attr(frame_of(data), "na.action"), attr(as_lm(data), "na.action"))
  # Other actions are asked, as before.
  call$na.action <- quote(stats::na.fail)
  expect_error(frame_of(data), class = "cosmoe_error_data")
  old <- options(na.action = "na.fail")
  on.exit(options(old))
  call$na.action <- NULL
  expect_error(frame_of(data), class = "cosmoe_error_data")
})

test_that("a data frame of integers and numbers is the matrix it stands for", {
  data <- data.frame(a = 1:5, b = c(0.5, 2, 3, 1, 7))
  expect_identical(as_covariates(data, "x"), as.matrix(data))
  row.names(data) <- letters[1:5]
  expect_identical(as_covariates(data, "x"), as.matrix(data))
  whole <- as_covariates(data["a"], "x")
  expect_identical(whole, matrix(as.double(1:5), 5, dimnames = list(letters[1:5], "a")))
  data$m <- matrix(1:10, 5)
  expect_identical(as_covariates(data, "x"), as.matrix(data))
})
