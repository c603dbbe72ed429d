# The core's objective and derivatives against the plain R reference (helper-reference.R) and against numDeriv.

routers <- c("linear", "cosine", "perturbed_cosine")
experts <- list(
  constant = ref_expert("constant"),
  linear = ref_expert("linear"),
  polynomial1 = ref_expert("polynomial", degree = 1),
  polynomial2 = ref_expert("polynomial", degree = 2),
  polynomial3 = ref_expert("polynomial", degree = 3),
  relu = ref_expert("relu"),
  gelu = ref_expert("gelu"),
  tanh = ref_expert("tanh"),
  sigmoid = ref_expert("sigmoid"),
  softplus = ref_expert("softplus"),
  network1_gelu = ref_expert("network", hidden = 1, activation = "gelu"),
  network2_tanh = ref_expert("network", hidden = 2, activation = "tanh"),
  network3_relu = ref_expert("network", hidden = 3, activation = "relu"),
  network2_sigmoid = ref_expert("network", hidden = 2, activation = "sigmoid"),
  network2_softplus = ref_expert("network", hidden = 2, activation = "softplus")
)
custom_linear <- ref_expert("custom",
  value = function(x, eta) drop(x %*% eta[-length(eta)]) + eta[length(eta)],
  gradient = function(x, eta) cbind(x, 1, deparse.level = 0), n_par = 3
)
custom_tanh <- ref_expert("custom",
  value = function(x, eta) tanh(drop(x %*% eta[-length(eta)]) + eta[length(eta)]),
  gradient = function(x, eta) {
    cbind(x, 1, deparse.level = 0) * (1 - tanh(drop(x %*% eta[-length(eta)]) + eta[length(eta)])^2)
  }, n_par = 3
)

as_rows <- function(x, y = NULL, z = NULL, w = NULL, x_center = NULL, x_scale = NULL, z_center = NULL, z_scale = NULL) {
  list(
    x = x, z = z, y = y, w = w,
    x_center = x_center, x_scale = x_scale, z_center = z_center, z_scale = z_scale
  )
}

# A problem at a random point. Odd seeds have gate covariates of their own, seeds from 2 on have weights.
random_case <- function(router, expert, top_k = 0, seed = 1, n = 60, d = 2, k = 3, scale = 2) {
  model <- ref_model(ref_router(router, scale = scale, tau1 = 0.3, tau2 = 0.2, top_k = top_k), expert, k)
  ref_with_seed(seed, {
    x <- matrix(rnorm(n * d), n, d)
    z <- if (seed %% 2 == 1) matrix(rnorm(n * (d + 1)), n)
    d_gate <- ncol(if (is.null(z)) x else z)
    direction <- matrix(rnorm(d_gate * k), d_gate)
    length <- switch(router, linear = runif(k, 0.5, 2), cosine = scale, perturbed_cosine = scale * runif(k, 0.1, 0.95))
    par <- list(
      u = direction * rep(length / sqrt(colSums(direction^2)), each = d_gate),
      b = rnorm(k, sd = 0.5),
      eta = matrix(rnorm(ref_n_par(model$expert, d) * k), ncol = k)
    )
    case <- list(
      model = model, x = x, z = if (is.null(z)) x else z, w = if (seed > 1) runif(n, 0.2, 3),
      par = par, theta = ref_pack(par), own_z = !is.null(z)
    )
    case <- keep_rows(case, clear_of_kinks(case))
    case$y <- ref_f(case$theta, model, case$x, case$z) + rnorm(nrow(case$x))
    case
  })
}

keep_rows <- function(case, keep) {
  case$x <- case$x[keep, , drop = FALSE]
  case$z <- case$z[keep, , drop = FALSE]
  if (!is.null(case$w)) case$w <- case$w[keep]
  if (!is.null(case$y)) case$y <- case$y[keep]
  case
}

# Rows where no choice of experts and no ReLU is about to flip, so that differences are derivatives.
clear_of_kinks <- function(case, margin = 0.01) {
  model <- case$model
  clear <- rep(TRUE, nrow(case$x))
  score <- ref_features(model$router, case$z) %*% case$par$u
  top <- model$router$top_k
  if (top > 0 && top < model$k) {
    clear <- clear & apply(score, 1, function(s) diff(sort(s)[model$k - top + 0:1]) > margin)
  }
  if (model$expert$name == "relu" || (model$expert$name == "network" && model$expert$activation == "relu")) {
    units <- matrix(case$par$eta[seq_len((ncol(case$x) + 1) * model$expert$hidden), ], ncol(case$x) + 1)
    clear <- clear & apply(abs(cbind(case$x, 1) %*% units) > margin, 1, all)
  }
  clear
}

rows_of <- function(case) as_rows(case$x, case$y, if (case$own_z) case$z, case$w)
evaluate <- function(case, order, threads = 1L, par = case$par, rows = rows_of(case)) {
  cosmoe:::core_objective(case$model, rows, par, as.integer(order), as.integer(threads))
}
value_at <- function(case) function(theta) ref_value(theta, case$model, case$x, case$z, case$y, case$w)
gradient_at <- function(case) function(theta) ref_gradient(theta, case$model, case$x, case$z, case$y, case$w)

# Largest difference relative to the largest entry.
expect_close <- function(object, expected, tolerance, label = NULL) {
  object <- as.matrix(object)
  expected <- as.matrix(expected)
  testthat::expect_identical(dim(object), dim(expected), label = label)
  gap <- max(abs(object - expected)) / max(1, abs(expected))
  testthat::expect_lt(gap, tolerance, label = paste(c(label, "largest relative difference"), collapse = ": "))
}

each_case <- function(test, experts_tested = experts, top_ks = 0:2, seeds = 1:3, ...) {
  for (router in routers) {
    for (expert in names(experts_tested)) {
      for (top_k in top_ks) {
        for (seed in seeds) {
          test(
            random_case(router, experts_tested[[expert]], top_k, seed, ...),
            paste0(router, ", ", expert, ", top_k ", top_k, ", seed ", seed)
          )
        }
      }
    }
  }
}

# ---- values and derivatives ------------------------------------------------------------------------------------------

test_that("value and gradient agree with the reference, for every router, expert and top-K", {
  each_case(function(case, label) {
    got <- evaluate(case, 1)
    expect_close(got$value, value_at(case)(case$theta), 1e-13, label)
    expect_close(got$gradient, gradient_at(case)(case$theta), 1e-12, label)
  })
})

test_that("the gradient agrees with differences of the reference value", {
  skip_if_not_installed("numDeriv")
  each_case(function(case, label) {
    expect_close(evaluate(case, 1)$gradient, numDeriv::grad(value_at(case), case$theta), 1e-7, label)
  }, seeds = 4, n = 40)
})

test_that("the Gauss-Newton matrix agrees with the reference", {
  each_case(function(case, label) {
    got <- evaluate(case, 2)
    expect_close(got$normal, ref_normal(case$theta, case$model, case$x, case$z, case$w), 1e-12, label)
  })
})

test_that("the Hessian agrees with differences of the reference gradient", {
  skip_if_not_installed("numDeriv")
  each_case(function(case, label) {
    got <- evaluate(case, 3)
    expect_close(got$hessian, numDeriv::jacobian(gradient_at(case), case$theta), 1e-7, label)
    expect_identical(got$hessian, t(got$hessian), label = label)
    expect_identical(got$normal, t(got$normal), label = label)
  }, seeds = 3, n = 40)
})

test_that("the Hessian agrees with second differences of the reference value", {
  # numDeriv's second differences take long steps: smooth experts and no choice of experts only
  skip_if_not_installed("numDeriv")
  each_case(function(case, label) {
    expect_close(evaluate(case, 3)$hessian, numDeriv::hessian(value_at(case), case$theta), 1e-5, label)
  }, experts_tested = experts[c("linear", "polynomial3", "gelu", "network1_gelu")], top_ks = 0, seeds = 6, n = 25)
})

test_that("one expert, one covariate and many covariates work", {
  for (router in routers) {
    for (size in list(c(d = 1, k = 1), c(d = 1, k = 2), c(d = 9, k = 2), c(d = 17, k = 5), c(d = 2, k = 9))) {
      for (expert in experts[c("linear", "gelu", "network2_tanh")]) {
        case <- random_case(router, expert, seed = 2, d = size[["d"]], k = size[["k"]])
        got <- evaluate(case, 3)
        expect_close(got$gradient, gradient_at(case)(case$theta), 1e-12, router)
        expect_close(got$normal, ref_normal(case$theta, case$model, case$x, case$z, case$w), 1e-12, router)
      }
    }
  }
})

test_that("the value is the same whatever derivatives are asked", {
  each_case(function(case, label) {
    values <- vapply(0:3, function(order) evaluate(case, order)$value, numeric(1))
    gradients <- lapply(1:3, function(order) evaluate(case, order)$gradient)
    expect_identical(values[1:2], rep(values[1], 2), label = label)
    expect_identical(values[3:4], rep(values[3], 2), label = label)
    expect_identical(gradients[[2]], gradients[[3]], label = label)
    if (grepl("top_k 0", label)) {
      expect_identical(values, rep(values[1], 4), label = label)
      expect_identical(gradients[[1]], gradients[[3]], label = label)
    } else {
      # Sparse gates: without matrices rows are not sorted, and sums are made in another order.
      expect_equal(values, rep(values[1], 4), tolerance = 1e-13, label = label)
      expect_equal(gradients[[1]], gradients[[3]], tolerance = 1e-12, label = label)
    }
  }, seeds = 3, n = 300)
})

test_that("each order returns what it promises", {
  case <- random_case("cosine", "tanh")
  n_par <- length(case$theta)
  expect_named(evaluate(case, 0), "value")
  expect_named(evaluate(case, 1), c("value", "gradient"))
  expect_named(evaluate(case, 2), c("value", "gradient", "normal"))
  expect_named(evaluate(case, 3), c("value", "gradient", "normal", "hessian"))
  got <- evaluate(case, 3)
  expect_length(got$gradient, n_par)
  expect_identical(dim(got$normal), c(n_par, n_par))
  expect_identical(dim(got$hessian), c(n_par, n_par))
})

test_that("predictions agree with the reference", {
  each_case(function(case, label) {
    got <- cosmoe:::core_predict(case$model, rows_of(case)[c("x", "z")], case$par, 1L)
    expected <- ref_forward(case$theta, case$model, ref_design(case$model, case$x, case$z))
    expect_close(got$f, expected$f, 1e-13, label)
    expect_close(got$gate, expected$gate, 1e-13, label)
    expect_close(got$expert, expected$experts$h, 1e-13, label)
    if (case$model$router$top_k == 0) expect_close(got$logit, expected$logit, 1e-13, label)
  }, seeds = 1:2)
})

# ---- custom experts --------------------------------------------------------------------------------------------------

test_that("custom experts agree with built-in ones of the same formula", {
  pairs <- list(list(custom_linear, ref_expert("linear")), list(custom_tanh, ref_expert("tanh")))
  for (pair in pairs) {
    for (router in routers) {
      for (top_k in 0:2) {
        built_in <- random_case(router, pair[[2]], top_k, seed = 3, n = 900)
        custom <- built_in
        custom$model$expert <- pair[[1]]
        expect_equal(evaluate(custom, 2), evaluate(built_in, 2), tolerance = 1e-12)
      }
    }
  }
})

test_that("a custom expert linear in its parameters has the exact Hessian", {
  built_in <- random_case("perturbed_cosine", "linear", seed = 2)
  custom <- built_in
  custom$model$expert <- custom_linear
  expect_equal(evaluate(custom, 3)$hessian, evaluate(built_in, 3)$hessian, tolerance = 1e-7)
})

# ---- rows: weights, centres and scales, special rows -----------------------------------------------------------------

test_that("weights count rows, and weight zero drops a row", {
  each_case(function(case, label) {
    twice <- rep(seq_len(nrow(case$x)), length.out = nrow(case$x) + 7)
    count <- as.numeric(tabulate(twice, nrow(case$x)))
    case$w <- NULL
    doubled <- keep_rows(case, twice)
    case$w <- count
    expect_equal(evaluate(case, 3), evaluate(doubled, 3), tolerance = 1e-12, label = label)
    case$w <- rep(c(1, 0), length.out = nrow(case$x))
    kept <- keep_rows(case, case$w > 0)
    kept$w <- NULL
    expect_equal(evaluate(case, 3), evaluate(kept, 3), tolerance = 1e-12, label = label)
  }, seeds = 1)
})

test_that("no weights are weights of one", {
  case <- random_case("perturbed_cosine", "gelu", seed = 1)
  ones <- case
  ones$w <- rep(1, nrow(case$x))
  expect_equal(evaluate(ones, 3), evaluate(case, 3), tolerance = 1e-14)
})

test_that("centres and scales act on the covariates as they are read", {
  for (router in routers) {
    for (expert in experts[c("linear", "gelu", "network2_tanh")]) {
      case <- random_case(router, expert, seed = 3)
      center_x <- c(3, -50)
      scale_x <- c(2, 0.01)
      center_z <- c(-7, 0, 1000)
      scale_z <- c(1, 5, 100)
      moved <- as_rows(
        sweep(sweep(case$x, 2, scale_x, `*`), 2, center_x, `+`), case$y,
        sweep(sweep(case$z, 2, scale_z, `*`), 2, center_z, `+`), case$w, center_x, scale_x, center_z, scale_z
      )
      expect_equal(evaluate(case, 3, rows = moved), evaluate(case, 3), tolerance = 1e-9)
    }
  }
})

test_that("a gate that uses the experts' matrix has its own centre and scale", {
  for (router in routers) {
    case <- random_case(router, "tanh", seed = 2)
    center <- c(0.4, -1)
    scale <- c(2, 0.5)
    scaled <- sweep(sweep(case$x, 2, center), 2, scale, `/`)
    expected <- function(x, z) {
      case$x <- x
      case$z <- z
      case$own_z <- TRUE
      evaluate(case, 3)
    }
    experts_only <- as_rows(case$x, case$y, NULL, case$w, center, scale)
    expect_equal(evaluate(case, 3, rows = experts_only), expected(scaled, case$x), tolerance = 1e-12)
    gate_only <- as_rows(case$x, case$y, NULL, case$w, NULL, NULL, center, scale)
    expect_equal(evaluate(case, 3, rows = gate_only), expected(case$x, scaled), tolerance = 1e-12)
    both <- as_rows(case$x, case$y, NULL, case$w, center, scale, center, scale)
    expect_equal(evaluate(case, 3, rows = both), expected(scaled, scaled), tolerance = 1e-12)
  }
})

test_that("rows at the origin and gates at the origin are finite and right", {
  for (router in routers) {
    for (top_k in 0:2) {
      case <- random_case(router, "gelu", top_k, seed = 2)
      case$x[c(1, 7), ] <- 0
      case$z <- case$x
      expect_origin <- function(case) {
        got <- evaluate(case, 3)
        expect_true(all(is.finite(unlist(got))))
        expect_close(got$value, value_at(case)(ref_pack(case$par)), 1e-13, router)
        expect_close(got$gradient, gradient_at(case)(ref_pack(case$par)), 1e-12, router)
      }
      expect_origin(case)
      case$par$u[, 2] <- 0
      expect_origin(case)
      case$par$u[] <- 0
      expect_origin(case)
    }
  }
})

test_that("ties of top-K go to the lower index", {
  for (router in routers) {
    case <- random_case(router, "linear", top_k = 1, seed = 2)
    case$par$u <- case$par$u[, c(1, 1, 1)]
    gate <- cosmoe:::core_predict(case$model, rows_of(case)[c("x", "z")], case$par, 1L)$gate
    expect_identical(gate, cbind(rep(1, nrow(gate)), 0, 0, deparse.level = 0))
    case$model$router$top_k <- 2L
    case$par$u <- case$par$u * 0
    gate <- cosmoe:::core_predict(case$model, rows_of(case)[c("x", "z")], case$par, 1L)$gate
    expect_true(all(gate[, 1:2] > 0))
    expect_identical(gate[, 3], rep(0, nrow(gate)))
  }
})

test_that("the bias takes no part in the choice of top-K", {
  case <- random_case("cosine", "linear", top_k = 1, seed = 2)
  before <- evaluate(case, 1)$value
  case$par$b <- c(100, -100, 30)
  expect_equal(evaluate(case, 1)$value, before, tolerance = 1e-14)
})

test_that("huge logits do not overflow", {
  for (router in routers) {
    for (top_k in 0:2) {
      for (scale in c(500, 1e5)) {
        case <- random_case(router, "tanh", top_k, seed = 2, scale = scale)
        if (router == "linear") case$par$u <- case$par$u * scale
        case$par$b <- c(-800, 0, 900)
        got <- evaluate(case, 3)
        expect_true(all(is.finite(unlist(got))))
        expect_close(got$value, value_at(case)(ref_pack(case$par)), 1e-10, router)
        expect_close(got$gradient, gradient_at(case)(ref_pack(case$par)), 1e-8, router)
      }
    }
  }
})

test_that("extreme expert arguments stay finite", {
  for (expert in c("relu", "gelu", "tanh", "sigmoid", "softplus")) {
    case <- random_case("perturbed_cosine", expert, seed = 2)
    case$par$eta <- case$par$eta * 1e3
    got <- evaluate(case, 3)
    expect_true(all(is.finite(unlist(got))))
    expect_close(got$value, value_at(case)(ref_pack(case$par)), 1e-12, expert)
    expect_close(got$gradient, gradient_at(case)(ref_pack(case$par)), 1e-11, expert)
  }
})

# ---- invariances -----------------------------------------------------------------------------------------------------

test_that("the number of threads changes no bit", {
  for (n in c(1, 2, 255, 257, 4097, 20000)) {
    for (expert in experts[c("constant", "linear", "gelu", "network2_tanh")]) {
      case <- random_case("perturbed_cosine", expert, top_k = if (n == 4097) 2 else 0, seed = 3, n = n)
      for (order in c(0, 3)) {
        one <- evaluate(case, order, 1)
        expect_identical(evaluate(case, order, 2), one, label = paste("n", n, expert$name, "2 threads"))
        expect_identical(evaluate(case, order, 3), one, label = paste("n", n, expert$name, "3 threads"))
      }
    }
  }
})

test_that("long data agree with the reference", {
  for (router in routers) {
    for (n in c(1, 2, 7, 8, 9, 511, 513, 4097, 20000)) {
      case <- random_case(router, "gelu", seed = 3, n = n)
      expected <- ref_pass(case$theta, case$model, ref_design(case$model, case$x, case$z), case$y, case$w)
      got <- evaluate(case, 2)
      expect_close(got$value, expected$value, 1e-12, paste(router, n))
      expect_close(got$gradient, expected$gradient, 1e-11, paste(router, n))
      expect_close(got$normal, ref_normal(case$theta, case$model, case$x, case$z, case$w), 1e-11, paste(router, n))
    }
  }
})

test_that("the order of the rows does not matter beyond rounding", {
  case <- random_case("perturbed_cosine", "tanh", seed = 3, n = 5000)
  shuffled <- keep_rows(case, ref_with_seed(1, sample(nrow(case$x))))
  expect_equal(evaluate(shuffled, 3), evaluate(case, 3), tolerance = 1e-11)
})

test_that("the order of the experts does not matter", {
  each_case(function(case, label) {
    order <- c(3, 1, 2)
    par <- list(u = case$par$u[, order], b = case$par$b[order], eta = case$par$eta[, order, drop = FALSE])
    index <- ref_unpack(seq_along(case$theta), 3, nrow(case$par$u), nrow(case$par$eta))
    moved <- ref_pack(list(u = index$u[, order], b = index$b[order], eta = index$eta[, order, drop = FALSE]))
    here <- evaluate(case, 3)
    there <- evaluate(case, 3, par = par)
    expect_equal(there$value, here$value, tolerance = 1e-13, label = label)
    expect_equal(there$gradient, here$gradient[moved], tolerance = 1e-11, label = label)
    expect_equal(there$normal, here$normal[moved, moved], tolerance = 1e-11, label = label)
    expect_equal(there$hessian, here$hessian[moved, moved], tolerance = 1e-11, label = label)
  }, seeds = 1)
})

test_that("adding one vector to all gates and one number to all biases changes nothing", {
  each_case(function(case, label) {
    d_gate <- nrow(case$par$u)
    par <- case$par
    par$u <- par$u + seq_len(d_gate) / 10
    par$b <- par$b - 3
    here <- evaluate(case, 3)
    expect_equal(evaluate(case, 3, par = par), here, tolerance = 1e-10, label = label)
    # so the d + 1 directions of the gauge are null directions of both matrices, and orthogonal to the gradient
    q <- nrow(case$par$eta)
    gauge <- rbind(diag(d_gate + 1)[rep(seq_len(d_gate + 1), 3), ], matrix(0, 3 * q, d_gate + 1))
    size <- max(1, abs(here$hessian))
    expect_lt(max(abs(crossprod(gauge, here$gradient))), 1e-11 * max(1, abs(here$gradient)), label = label)
    expect_lt(max(abs(here$normal %*% gauge)), 1e-11 * size, label = label)
    expect_lt(max(abs(here$hessian %*% gauge)), 1e-11 * size, label = label)
  }, seeds = 1)
})

test_that("inputs are left as they were", {
  case <- random_case("perturbed_cosine", "gelu", seed = 3)
  rows <- rows_of(case)
  before <- serialize(list(rows, case$par, case$model), NULL)
  evaluate(case, 3, rows = rows)
  expect_identical(serialize(list(rows, case$par, case$model), NULL), before)
})

# ---- Jacobian --------------------------------------------------------------------------------------------------------

test_that("the Jacobian of the rows agrees with the reference, for every router and expert", {
  for (router in routers) {
    for (name in names(experts)) {
      case <- random_case(router, experts[[name]], seed = match(name, names(experts)))
      got <- cosmoe:::core_jacobian(case$model, rows_of(case), case$par, 1L)
      want <- ref_jacobian(case$theta, case$model, case$x, case$z)
      expect_equal(got, unname(want), tolerance = 1e-10, label = paste(router, name))
    }
    for (expert in list(custom_linear, custom_tanh)) {
      case <- random_case(router, expert)
      got <- cosmoe:::core_jacobian(case$model, rows_of(case), case$par, 1L)
      expect_equal(got, unname(ref_jacobian(case$theta, case$model, case$x, case$z)), tolerance = 1e-10)
    }
  }
})

test_that("the Jacobian agrees with numDeriv, sums to the normal matrix, and knows threads, scales and sparse gates", {
  case <- random_case("perturbed_cosine", ref_expert("tanh"), seed = 2, n = 5000)
  rows <- rows_of(case)
  got <- cosmoe:::core_jacobian(case$model, rows, case$par, 1L)
  expect_identical(cosmoe:::core_jacobian(case$model, rows, case$par, 2L), got)
  normal <- cosmoe:::core_objective(case$model, rows, case$par, 2L, 1L)$normal
  expect_equal(crossprod(got, case$w * got), normal, tolerance = 1e-10)
  few <- 1:7
  numeric <- numDeriv::jacobian(function(theta) ref_f(theta, case$model, case$x[few, ], case$z[few, ]), case$theta)
  expect_equal(got[few, ], numeric, tolerance = 1e-7)

  center <- c(0.3, -0.2)
  scale <- c(2, 0.5)
  scaled <- (case$x - rep(center, each = nrow(case$x))) / rep(scale, each = nrow(case$x))
  rows$x_center <- rows$z_center <- center
  rows$x_scale <- rows$z_scale <- scale
  got <- cosmoe:::core_jacobian(case$model, rows, case$par, 1L)
  expect_equal(got, unname(ref_jacobian(case$theta, case$model, scaled, scaled)), tolerance = 1e-10)

  sparse <- random_case("linear", ref_expert("gelu"), top_k = 2)
  got <- cosmoe:::core_jacobian(sparse$model, rows_of(sparse), sparse$par, 1L)
  expect_equal(got, unname(ref_jacobian(sparse$theta, sparse$model, sparse$x, sparse$z)), tolerance = 1e-10)
})
