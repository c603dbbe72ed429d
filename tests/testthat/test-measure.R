# Mixing measures: the object, its canonical representative and the equality of regression functions.

measure_routers <- list(
  linear = router_linear(), cosine = router_cosine(scale = 3),
  perturbed_cosine = router_perturbed_cosine(tau1 = 0.5, tau2 = 0.2, scale = 2)
)
measure_experts <- list(
  expert_constant(), expert_linear(), expert_polynomial(2), expert_polynomial(3), expert_relu(), expert_gelu(),
  expert_tanh(), expert_sigmoid(), expert_softplus(), expert_network(2, "tanh"), expert_network(2, "relu"),
  expert_network(3, "sigmoid"), expert_custom(function(x, eta) eta[1] * exp(-eta[2] * x[, 1]^2), n_par = 2)
)

random_measure <- function(router, expert, k = 3, d = 2) {
  q <- cosmoe:::expert_n_par(expert, d)
  mixing_measure(rnorm(k), matrix(rnorm(d * k), d), matrix(rnorm(q * k), q), router, expert)
}

# The same function in other parameters: order and gauge.
disguised <- function(G, by = sample(length(G$beta0)), shift = 0.05) {
  name <- G$router$name
  t <- if (name == "cosine") 0 else shift * rnorm(nrow(G$u))
  u <- G$u[, by, drop = FALSE] + t
  s <- G$router$scale
  beta1 <- switch(name,
    linear = u / s,
    cosine = u * rep(rexp(ncol(u)) + 0.1, each = nrow(u)),
    perturbed_cosine = u * G$router$tau1 / rep(s - sqrt(colSums(u^2)), each = nrow(u))
  )
  mixing_measure(G$beta0[by] + rnorm(1), beta1, G$eta[, by, drop = FALSE], G$router, G$expert)
}

points_for <- function(d, n = 500) matrix(3 * rnorm(n * d), n, d)

test_that("predictions are those of the plain-R reference", {
  set.seed(1)
  for (router in measure_routers) {
    for (name in c("linear", "tanh", "gelu", "constant")) {
      G <- random_measure(router, cosmoe:::as_expert(name))
      model <- ref_model(ref_router(router$name, router$scale, router$tau1, router$tau2), name, 3)
      theta <- ref_pack(list(u = ref_gate_from_beta(model$router, G$beta1), b = G$beta0, eta = G$eta))
      x <- points_for(2)
      expect_equal(predict(G, x), ref_f(theta, model, x), tolerance = 1e-12)
    }
  }
})

test_that("the measure of a fit predicts as the fit does", {
  set.seed(2)
  for (router in c("linear", "cosine", "perturbed_cosine")) {
    fit <- quiet_fit(Ozone ~ Wind + Temp | Temp + Solar.R, airquality, router = router,
                     control = moe_control(n_starts = 4))
    used <- airquality[complete.cases(airquality), ]
    G <- as_mixing_measure(fit)
    x <- as.matrix(used[c("Wind", "Temp")])
    z <- as.matrix(used[c("Temp", "Solar.R")])
    expect_equal(predict(G, x, z = z), as.vector(fitted(fit)), tolerance = 1e-10)
    expect_equal(predict(canonicalize(fit), x, z = z), as.vector(fitted(fit)), tolerance = 1e-10)
    expect_true(equivalent(fit, canonicalize(G)), label = router)
  }
})

test_that("the canonical measure has the same function, is idempotent, and one for a whole class", {
  set.seed(3)
  for (router in measure_routers) {
    for (expert in measure_experts) {
      for (repetition in 1:5) {
        G <- random_measure(router, expert)
        label <- paste(router$name, format(expert))
        C <- canonicalize(G)
        x <- points_for(2)
        f <- predict(G, x)
        expect_lt(max(abs(predict(C, x) - f)), 1e-12 * max(1, abs(f)), label = label)
        expect_equal(sum(exp(C$beta0)), 1, tolerance = 1e-14)
        again <- canonicalize(C)
        expect_equal(again[c("beta0", "u", "eta")], C[c("beta0", "u", "eta")], tolerance = 1e-12, label = label)
        other <- canonicalize(disguised(G))
        expect_equal(other[c("beta0", "u", "beta1", "eta")], C[c("beta0", "u", "beta1", "eta")], tolerance = 1e-9,
                     label = label)
      }
    }
  }
})

test_that("a single atom is canonical with its gate on the first axis or at the origin", {
  for (router in measure_routers) {
    G <- mixing_measure(0.3, c(1, 2), 1:3, router, "tanh")
    C <- canonicalize(G)
    expect_equal(C$beta0, 0)
    expect_equal(drop(C$u), if (router$name == "cosine") c(3, 0) else c(0, 0))
    expect_equal(predict(C, diag(2)), predict(G, diag(2)), tolerance = 1e-14)
    expect_equal(canonicalize(C), C)
    expect_true(equivalent(G, C))
  }
})

test_that("canonical gates: two of a perturbed router are opposite, those of a cosine router have norm 1", {
  set.seed(4)
  G <- canonicalize(random_measure(measure_routers$perturbed_cosine, expert_tanh(), k = 2))
  expect_equal(G$u[, 1], -G$u[, 2], tolerance = 1e-14)
  G <- canonicalize(random_measure(measure_routers$cosine, expert_tanh(), k = 4, d = 3))
  expect_equal(sqrt(colSums(G$beta1^2)), rep(1, 4), tolerance = 1e-14)
})

test_that("few unit vectors in many dimensions are turned to one representative", {
  set.seed(5)
  for (repetition in 1:20) {
    k <- sample(2:4, 1)
    d <- sample(4:6, 1)
    G <- random_measure(router_cosine(scale = 2), expert_tanh(), k = k, d = d)
    # A reflection at a hyperplane that holds all contrasts leaves them alone and moves all vectors.
    contrasts <- G$u[, -1, drop = FALSE] - G$u[, 1]
    normal <- qr.Q(qr(cbind(contrasts, rnorm(d))))[, k]
    turned <- G$u - 2 * normal %o% drop(normal %*% G$u)
    expect_gt(max(abs(turned - G$u)), 1e-3)
    H <- mixing_measure(G$beta0, turned, G$eta, G$router, G$expert)
    expect_true(equivalent(G, H))
    expect_equal(canonicalize(H)$u, canonicalize(G)$u, tolerance = 1e-8)
    x <- points_for(d)
    expect_lt(max(abs(predict(canonicalize(G), x) - predict(G, x))), 1e-12)
  }
})

test_that("a cosine gate at 0 finds its equal on the sphere, or the best place among those at 0", {
  eta <- cbind(c(1, 0, 2), c(0, 1, -1))
  G <- mixing_measure(c(0, 1), cbind(c(0, 0), c(3, 0)), eta, "cosine", "tanh")
  C <- canonicalize(G)
  expect_equal(sqrt(colSums(C$u^2)), c(1, 1), tolerance = 1e-12)
  x <- points_for(2)
  expect_lt(max(abs(predict(G, x) - predict(C, x))), 1e-12)
  expect_true(equivalent(G, C))
  # In one dimension there is no room: (0, 1) and (-1, 0) are the same.
  G <- mixing_measure(c(0, 1), rbind(c(0, 1)), eta[1:2, ], "cosine", "tanh")
  H <- mixing_measure(c(0, 1), rbind(c(-1, 0)), eta[1:2, ], "cosine", "tanh")
  expect_true(equivalent(G, H))
  expect_equal(canonicalize(G)[c("beta0", "u")], canonicalize(H)[c("beta0", "u")], tolerance = 1e-12)
})

test_that("gates leave the boundary when the others let them", {
  fit <- quiet_fit(dist ~ speed, cars, control = moe_control(n_starts = 4))
  C <- canonicalize(fit)
  expect_equal(C$u, unname(fit$gate$u), tolerance = 1e-10)
  G <- as_mixing_measure(fit)
  G$u <- cbind(-0.2, 1)
  G$beta1 <- cbind(-0.2 * 0.1 / 0.8, Inf)
  expect_true(all(is.finite(canonicalize(G)$beta1)))
  expect_true(equivalent(G, canonicalize(G)))
})

test_that("equal functions are told from different ones, for every router and expert", {
  set.seed(6)
  for (router in measure_routers) {
    for (expert in measure_experts) {
      for (sparse in c(FALSE, TRUE)) {
        if (sparse) router["top_k"] <- list(2L)
        G <- random_measure(router, expert)
        H <- disguised(G)
        label <- paste(router$name, format(expert), sparse)
        x <- points_for(2)
        expect_equal(predict(G, x), predict(H, x), tolerance = 1e-10, label = label)
        expect_true(equivalent(G, H), label = label)
        for (part in c("beta0", "u", "eta")) {
          other <- H
          other[[part]][1] <- other[[part]][1] + 1e-4
          other <- cosmoe:::new_mixing_measure(other$beta0, other$beta1, other$u, other$eta, router, expert)
          expect_gt(max(abs(predict(other, x) - predict(H, x))), 1e-9, label = label)
          expect_false(equivalent(G, other), label = paste(label, part))
        }
      }
    }
  }
})

test_that("the reason names what differs", {
  beta1 <- cbind(c(1, 0), c(-1, 0.5))
  eta <- cbind(c(2, 0, 1), c(-1, 1, 0))
  G <- mixing_measure(c(0, 1), beta1, eta, expert = "tanh")
  reason <- function(...) attr(equivalent(G, mixing_measure(...)), "reason")
  expect_match(reason(c(0, 1), beta1, eta + c(0, 0, 0.1, 0, 0, 0), expert = "tanh"), "expert 1 of the first has no")
  expect_match(reason(c(0, 1.1), beta1, eta, expert = "tanh"), "biases' contrasts")
  expect_match(reason(c(0, 1), beta1 * 2, eta, expert = "tanh"), "gates' contrasts")
  expect_match(reason(c(0, 1), beta1, eta, "cosine", "tanh"), "one router is perturbed cosine, the other cosine")
  expect_match(reason(c(0, 1), beta1, eta, router_perturbed_cosine(tau2 = 0.3), "tanh"), "tau2 is 0.1 and 0.3")
  expect_match(reason(c(0, 1), beta1, eta, expert = "gelu"), "no equal")
  expect_match(reason(c(0, 1, 0), cbind(beta1, 0), cbind(eta, 3), expert = "tanh"), "second has no equal")
  expect_match(reason(c(0, 1), beta1, eta, router_perturbed_cosine(top_k = 1), "tanh"), "all and 1")
  expect_match(reason(c(0, 1), rbind(beta1, 1), rbind(eta, 1), expert = "tanh"), "2 and 3 covariates")
})

test_that("equality sees through merged atoms, flat gates, equal experts and overlapping families", {
  set.seed(7)
  beta1 <- cbind(c(1, 0), c(-1, 0.5))
  eta <- cbind(c(2, 0, 1), c(-1, 1, 0))
  G <- mixing_measure(c(0, 1), beta1, eta, expert = "tanh")
  split <- mixing_measure(c(0, 1 + log(0.3), 1 + log(0.7)), beta1[, c(1, 2, 2)], eta[, c(1, 2, 2)], expert = "tanh")
  expect_true(equivalent(G, split))
  # Numerator and denominator times the same sum of exponentials.
  linear <- mixing_measure(c(0, 1), beta1, eta, "linear", "tanh")
  times <- function(v, c) {
    mixing_measure(c(0, 1, c, 1 + c), cbind(beta1, beta1 + v), cbind(eta, eta), "linear", "tanh")
  }
  tall <- times(c(0.3, -2), 0.7)
  x <- points_for(2)
  expect_equal(predict(tall, x), predict(linear, x), tolerance = 1e-12)
  expect_true(equivalent(linear, tall))
  off <- tall
  off$beta0[4] <- off$beta0[4] + 0.01
  expect_false(equivalent(linear, off))
  # Gates without effect.
  equal <- mixing_measure(c(0, 1), beta1, eta[, c(1, 1)], expert = "tanh")
  expect_true(equivalent(equal, mixing_measure(0, c(5, 5), eta[, 1], "linear", "tanh")))
  flat <- mixing_measure(c(0, 0), cbind(c(1, 1), c(1, 1)), cbind(c(2, 0, 1), c(0, 4, 1)))
  expect_true(equivalent(flat, mixing_measure(3, c(0, 0), c(1, 2, 1), "cosine", "linear")))
  # Families.
  line <- mixing_measure(c(0, 1), beta1, eta)
  expect_true(equivalent(line, mixing_measure(c(0, 1), beta1, eta, expert = expert_polynomial(1))))
  expect_true(equivalent(
    mixing_measure(c(0, 1), beta1, eta * rep(c(1, -1), each = 3), expert = expert_polynomial(2)),
    mixing_measure(c(0, 1), beta1, eta, expert = expert_polynomial(2))
  ))
  network <- function(eta, activation = "tanh") {
    mixing_measure(c(0, 1), beta1, eta, expert = expert_network(2, activation))
  }
  eta <- matrix(rnorm(18), 9)
  other <- eta[c(4:6, 1:3, 8, 7, 9), ]
  expect_true(equivalent(network(eta), network(other)))
  other[c(1:3, 7), ] <- -other[c(1:3, 7), ]
  expect_true(equivalent(network(eta), network(other)))
  expect_false(equivalent(network(eta, "gelu"), network(other, "gelu")))
  as_sigmoid <- eta
  as_sigmoid[1:6, ] <- 2 * as_sigmoid[1:6, ]
  as_sigmoid[7:8, ] <- 2 * as_sigmoid[7:8, ]
  as_sigmoid[9, ] <- eta[9, ] - colSums(eta[7:8, ])
  expect_equal(predict(network(eta), x), predict(network(as_sigmoid, "sigmoid"), x), tolerance = 1e-12)
  expect_true(equivalent(network(eta), network(as_sigmoid, "sigmoid")))
  # ReLU: relu(t) = relu(-t) + t, positive factors.
  one <- function(eta, hidden) mixing_measure(0, c(0, 0), eta, expert = expert_network(hidden, "relu"))
  expect_true(equivalent(one(c(2, 1, 1, 3, 0), 1), one(c(4, 2, 2, 1.5, 0), 1)))
})

test_that("sparse gates: with one active expert biases and the size of u have no part; ties go by order", {
  set.seed(8)
  router <- router_linear(top_k = 1)
  G <- random_measure(router, expert_tanh())
  H <- mixing_measure(rnorm(3), 5 * G$beta1 + c(1, 2), G$eta, router, "tanh")
  x <- points_for(2)
  expect_equal(predict(H, x), predict(G, x), tolerance = 1e-12)
  expect_true(equivalent(G, H))
  expect_false(equivalent(random_measure(router_linear(top_k = 2), expert_tanh()), H))
  tied <- mixing_measure(c(0, 0), cbind(c(1, 1), c(1, 1)), cbind(c(1, 0, 0), c(0, 1, 0)), router, "tanh")
  swapped <- mixing_measure(c(0, 0), tied$beta1, tied$eta[, 2:1], router, "tanh")
  expect_false(isTRUE(all.equal(predict(tied, x), predict(swapped, x))))
  expect_false(equivalent(tied, swapped))
  expect_equal(predict(canonicalize(swapped), x), predict(swapped, x))
})

test_that("biases that are far apart do not hide differences", {
  line <- function(b, slope) mixing_measure(c(0, b), rbind(c(0, 60)), cbind(c(1, 0), c(slope, 0)), "linear", "tanh")
  x <- cbind(c(30, 33, 34, 40))
  expect_gt(max(abs(predict(line(-2000, 0.01), x) - predict(line(-2000, 0.02), x))), 0.1)
  expect_false(equivalent(line(-2000, 0.01), line(-2000, 0.02)))
  expect_false(equivalent(line(-2000, 0.01), line(-1990, 0.01)))
  expect_true(equivalent(line(-2000, 0.01), canonicalize(line(-2000, 0.01))))
})

test_that("a gate with covariates of its own must be given them", {
  fit <- quiet_fit(Ozone ~ Wind | Temp, airquality, control = moe_control(n_starts = 2))
  error <- expect_error(predict(as_mixing_measure(fit), cbind(c(5, 10))), class = "cosmoe_error_input")
  expect_identical(error$argument, "z")
})

test_that("a sparse gate with one active expert is equal to itself in any order", {
  set.seed(11)
  for (repetition in 1:20) {
    G <- random_measure(router_linear(top_k = 1), expert_tanh())
    by <- sample(3)
    expect_true(equivalent(G, mixing_measure(G$beta0[by], G$beta1[, by], G$eta[, by], G$router, "tanh")))
    expect_true(equivalent(G, canonicalize(G)))
  }
})

test_that("gates without covariates, missing arguments and threads", {
  G <- mixing_measure(c(0, 0), matrix(0, 0, 2), rbind(1:2, 0))
  expect_equal(predict(G, cbind(1:3)), c(1.5, 3, 4.5))
  expect_equal(predict(canonicalize(G), cbind(1:3)), c(1.5, 3, 4.5))
  missed <- function(code) expect_error(code, "not missing", class = "cosmoe_error_input")
  missed(canonicalize())
  missed(equivalent(G))
  missed(voronoi_loss(G))
  missed(mixing_measure(1))
  missed(as_mixing_measure())
  error <- expect_error(predict(G, cbind(1), threads = 0), class = "cosmoe_error_input")
  expect_identical(error$argument, "threads")
})

test_that("units of the covariates do not matter", {
  set.seed(9)
  for (unit in c(1e-9, 1e9)) {
    G <- random_measure(router_linear(), expert_gelu())
    rescaled <- function(factor) {
      size <- unit * factor
      mixing_measure(G$beta0, G$beta1 * size, rbind(G$eta[1:2, ] * size, G$eta[3, ]), "linear", "gelu")
    }
    expect_true(equivalent(rescaled(1), canonicalize(rescaled(1))))
    expect_false(equivalent(rescaled(1), rescaled(1.001)))
  }
})

test_that("simulated data follow the measure and the seed", {
  G <- mixing_measure(c(0.3, 0), cbind(c(1, 0), c(-1, 0.5)), cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh")
  a <- simulate(G, n = 4000, sigma = 0.2, seed = 1)
  expect_identical(a, simulate(G, 4000, sigma = 0.2, seed = 1))
  expect_identical(dim(a$x), c(4000L, 2L))
  expect_true(all(abs(a$x) <= 1))
  expect_equal(a$mean, predict(G, a$x))
  expect_equal(sd(a$y - a$mean), 0.2, tolerance = 0.05)
  expect_equal(rowSums(simulate(G, n = 9, x = "sphere", sigma = 0)$x^2), rep(1, 9))
  own <- simulate(G, n = 3, x = function(n) matrix(seq_len(2 * n), n), sigma = 0)
  expect_identical(own$y, predict(G, matrix(1:6, 3)))
  set.seed(5)
  before <- .Random.seed
  simulate(G, 2, sigma = 1, seed = 3)
  expect_identical(.Random.seed, before)
})

test_that("bad measures are refused with the argument's name", {
  refused <- function(code, argument) {
    error <- expect_error(code, class = "cosmoe_error_input")
    expect_identical(error$argument, argument)
  }
  beta1 <- diag(2)
  eta <- matrix(1, 3, 2)
  refused(mixing_measure(c(0, NA), beta1, eta), "beta0")
  refused(mixing_measure("a", beta1, eta), "beta0")
  refused(mixing_measure(numeric(), beta1, eta), "beta0")
  refused(mixing_measure(c(0, 0), diag(3), eta), "beta1")
  refused(mixing_measure(c(0, 0), beta1 / 0, eta), "beta1")
  refused(mixing_measure(c(0, 0), beta1, matrix(NaN, 3, 2)), "eta")
  refused(mixing_measure(c(0, 0), beta1, eta, expert = "constant"), "eta")
  refused(mixing_measure(c(0, 0), beta1, eta, expert = expert_network(2)), "eta")
  refused(mixing_measure(c(0, 0), beta1, eta, router = "sine"), "router")
  refused(mixing_measure(c(0, 0), beta1, eta, router = router_cosine(top_k = 3)), "router$top_k")
  G <- mixing_measure(c(0, 0), beta1, eta)
  refused(predict(G), "x")
  refused(predict(G, matrix(1, 2, 3)), "x")
  refused(predict(G, matrix(NA_real_, 2, 2)), "x")
  refused(predict(G, "a"), "x")
  refused(predict(G, diag(2), z = matrix(1, 3, 2)), "z")
  refused(simulate(G, 10), "sigma")
  refused(simulate(G, 0, sigma = 1), "n")
  refused(simulate(G, 10, sigma = -1), "sigma")
  refused(simulate(G, 10, sigma = 1, x = "cauchy"), "x")
  refused(simulate(G, 10, sigma = 1, x = diag(2)), "x")
  refused(canonicalize(1), "G")
  refused(equivalent(G, "a"), "H")
  refused(equivalent(G, G, tolerance = -1), "tolerance")
  refused(as_mixing_measure(lm(dist ~ speed, cars)), "fit")
})

test_that("measures print and plot", {
  G <- mixing_measure(c(0.3, 0), cbind(c(1, 0), c(-1, 0.5)), cbind(c(2, 0, 1), c(-1, 1, 0)), expert = "tanh")
  expect_snapshot(print(G))
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  expect_identical(plot(G), G)
  expect_no_error(plot(mixing_measure(c(0, 1), rbind(c(1, -1)), cbind(c(1, 0), c(-1, 2)))))
  expect_no_error(plot(mixing_measure(c(0, 1), rbind(c(1, -1)), rbind(c(1, 0)), expert = "constant")))
})
