# Voronoi losses: the formulas by hand and against loops in plain R, and the infimum over the gauge.

routers <- list(
  router_linear(scale = 2), router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5), router_cosine(scale = 3),
  router_perturbed_cosine(tau1 = 0.3, tau2 = 0.1, scale = 2)
)

line <- function(b, beta, eta, router = "linear") mixing_measure(b, beta, rbind(eta), router, "constant")

# The measure g moved by a shift of all u and of all biases, its atoms in another order; for the cosine router with new
# norms.
moved <- function(g, t, c, order = sample(length(g$beta0)), norms = 1) {
  g$beta0 <- g$beta0[order] + c
  g$u <- (g$u + t)[, order, drop = FALSE]
  g$beta1 <- ref_chart(g$router, g$u, norms)
  g$eta <- g$eta[, order, drop = FALSE]
  g
}

# A shift that keeps the gates inside.
allowed_shift <- function(g) {
  d <- nrow(g$u)
  switch(g$router$name,
    linear = rnorm(d),
    cosine = rep(0, d),
    perturbed_cosine = {
      size <- sqrt(max(colSums(g$u^2)))
      t <- rnorm(d)
      0.9 * (g$router$scale - size) * t / sqrt(sum(t^2))
    }
  )
}

# ---- by hand ---------------------------------------------------------------------------------------------------------

test_that("the formulas hold for cases worked by hand", {
  truth <- line(log(c(1, 2, 4)), c(0, 10, 100), c(0, 0, 0))
  # Atoms 1 and 2 in cell 1, atom 3 in cell 2, none in cell 3.
  g <- line(log(c(0.5, 0.25, 3)), c(2, -1, 7), c(3, 0.5, -2))
  loss <- function(...) voronoi_loss(g, truth, ..., align = "none")
  gate <- c(0.5 * 2 + 0.25 * 1, 3 * 3, 0)
  expert <- c(0.5 * 3 + 0.25 * 0.5, 3 * 2, 0)
  expect_equal(as.numeric(loss()), 0.25 + 1 + 4 + sum(gate) + sum(expert), tolerance = 1e-14)
  expect_equal(as.numeric(loss("L2")), as.numeric(loss("L1")), tolerance = 0)
  expect_identical(attr(loss(), "cells"), c(1L, 1L, 2L))
  expect_equal(attr(loss(), "parts"), c(mass = 5.25, gate = sum(gate), expert = sum(expert)), tolerance = 1e-14)
  terms <- attr(loss(), "terms")
  expect_identical(terms$atoms, c(2L, 1L, 0L))
  expect_equal(terms$mass, c(0.25, 1, 4), tolerance = 1e-14)
  expect_equal(terms$gate, gate, tolerance = 1e-14)
  expect_equal(terms$expert, expert, tolerance = 1e-14)
  expect_equal(terms$total, c(0.25, 1, 4) + gate + expert, tolerance = 1e-14)
  # r = 2, and the powers of L3: 2 where there are two atoms, 1 where there is one.
  squares <- c(0.5 * (4 + 9) + 0.25 * (1 + 0.25), 3 * (9 + 4), 0)
  expect_equal(as.numeric(loss(r = 2)), 5.25 + sum(squares), tolerance = 1e-14)
  expect_equal(as.numeric(loss("L3")), 5.25 + squares[1] + gate[2] + expert[2], tolerance = 1e-14)
  expect_equal(as.numeric(loss(r = 1.5)),
    5.25 + 0.5 * (2^1.5 + 3^1.5) + 0.25 * (1 + 0.5^1.5) + 3 * (3^1.5 + 2^1.5), tolerance = 1e-14
  )
  # The K largest cells: totals 0.25 + 1.25 + 1.625, 16, 4.
  expect_equal(as.numeric(loss(top_k = 1)), 16, tolerance = 1e-14)
  expect_equal(as.numeric(loss(top_k = 2)), 20, tolerance = 1e-14)
  expect_equal(as.numeric(loss(top_k = 3)), as.numeric(loss()), tolerance = 1e-14)
  expect_identical(attr(loss(top_k = 2), "terms")$counted, c(FALSE, TRUE, TRUE))
  expect_equal(attr(loss(top_k = 2), "parts"), c(mass = 5, gate = 9, expert = 6), tolerance = 1e-14)
})

test_that("ties go to the lower index", {
  truth <- line(c(0, 0, 0), c(1, -1, -1), c(0, 0, 0))
  g <- line(0, 0, 0)
  expect_identical(attr(voronoi_loss(g, truth, align = "none"), "cells"), 1L)
  expect_identical(attr(voronoi_loss(line(0, -3, 0), truth, align = "none"), "cells"), 2L)
  expect_equal(as.numeric(voronoi_loss(g, truth, align = "none")), 3, tolerance = 1e-14)
})

test_that("the bounded space compares u", {
  router <- router_perturbed_cosine(tau1 = 1)
  truth <- line(0, 1, 0, router)  # u = 1/2
  g <- line(0, 3, 0, router)  # u = 3/4
  expect_equal(as.numeric(voronoi_loss(g, truth, align = "none")), 2, tolerance = 1e-14)
  expect_equal(as.numeric(voronoi_loss(g, truth, align = "none", space = "u")), 0.25, tolerance = 1e-14)
})

test_that("the aligned loss of single atoms leaves what cannot be aligned", {
  truth <- line(log(2), 1, 3)
  expect_equal(as.numeric(voronoi_loss(line(0, 5, 3.5), truth)), 2 * 0.5, tolerance = 1e-12)
  expect_equal(attr(voronoi_loss(line(0, 5, 3.5), truth), "c"), log(2), tolerance = 1e-12)
  expect_equal(attr(voronoi_loss(line(0, 5, 3.5), truth), "shift"), -4, tolerance = 1e-12)
  # Costs of more than 1 a unit of mass: better no mass at all.
  far <- voronoi_loss(line(0, 5, 5), truth)
  expect_equal(as.numeric(far), 2, tolerance = 1e-14)
  expect_identical(attr(far, "c"), -Inf)
})

test_that("the gates meet at a weighted median", {
  truth <- line(log(c(3, 1)), c(0, 10), c(0, 20))
  g <- line(log(c(3, 1)), c(5, 15.1), c(0, 20))
  loss <- voronoi_loss(g, truth)
  # Shifts -5 (mass 3) and -5.1 (mass 1): the heavier atom fits.
  expect_equal(as.numeric(loss), 0.1, tolerance = 1e-12)
  expect_equal(attr(loss, "shift"), -5, tolerance = 1e-12)
})

# ---- against plain R -------------------------------------------------------------------------------------------------

test_that("verbatim losses agree with loops in plain R", {
  for (seed in 1:40) {
    set.seed(seed)
    router <- routers[[1 + seed %% 4]]
    d <- sample(4, 1)
    k0 <- sample(5, 1)
    truth <- random_measure(k0, d, router)
    g <- if (seed %% 2) random_measure(sample(6, 1), d, router) else random_measure(sample(6, 1), d, near = truth)
    top_k <- if (seed %% 3 == 0) sample(k0, 1)
    for (type in c("L1", "L2", "L3")) {
      r <- if (type == "L1") 1 + seed %% 5 / 2 else 1
      for (space in c("beta", "u")) {
        ours <- voronoi_loss(g, truth, type, r, "none", space, top_k)
        gate <- if (space == "u") "u" else "beta1"
        theirs <- ref_voronoi(g$beta0, g[[gate]], g$eta, truth$beta0, truth[[gate]], truth$eta, type, r, top_k)
        expect_equal(as.numeric(ours), theirs, tolerance = 1e-13)
        expect_equal(sum(attr(ours, "parts")), theirs, tolerance = 1e-13)
        expect_equal(sum(attr(ours, "terms")$total[attr(ours, "terms")$counted]), theirs, tolerance = 1e-13)
      }
    }
  }
})

test_that("the aligned loss is the literal loss at the values it returns", {
  for (seed in 1:48) {
    set.seed(seed)
    router <- routers[[1 + seed %% 4]]
    d <- sample(5, 1)
    k0 <- sample(4, 1)
    truth <- random_measure(k0, d, router, size = 0.5)
    g <- if (seed %% 2) random_measure(sample(5, 1), d, router) else random_measure(sample(5, 1), d, near = truth)
    top_k <- if (seed %% 3 == 0) sample(k0, 1)
    for (type in c("L1", "L3")) {
      for (space in c("beta", "u")) {
        loss <- voronoi_loss(g, truth, type, space = space, top_k = top_k)
        expect_equal(as.numeric(loss), ref_at(loss, g, truth), tolerance = 1e-9)
        expect_lte(as.numeric(loss), as.numeric(voronoi_loss(g, truth, type, 1, "none", space, top_k)) * (1 + 1e-12))
      }
    }
  }
})

# ---- the infimum -----------------------------------------------------------------------------------------------------

test_that("equal measures up to gauge and order have no loss", {
  for (seed in 1:40) {
    set.seed(seed)
    router <- routers[[1 + seed %% 4]]
    d <- sample(c(1, 2, 3, 7, 40), 1)
    k <- sample(6, 1)
    truth <- random_measure(k, d, router)
    norms <- if (router$name == "cosine") rexp(k) else 1
    g <- moved(truth, allowed_shift(truth), rnorm(1), norms = norms)
    size <- sum(exp(truth$beta0)) * max(1, abs(truth$beta1), abs(truth$eta))
    for (type in c("L1", "L3")) {
      expect_lt(as.numeric(voronoi_loss(g, truth, type)), 1e-12 * size)
      expect_lt(as.numeric(voronoi_loss(g, truth, type, space = "u")), 1e-12 * size)
      expect_lt(as.numeric(voronoi_loss(g, truth, type, top_k = k)), 1e-12 * size)
    }
  }
})

test_that("a cosine gate with few experts may be turned", {
  router <- router_cosine(scale = 2)
  for (seed in 1:20) {
    set.seed(seed)
    d <- sample(2:6, 1)
    k <- sample(d, 1)
    truth <- random_measure(k, d, router)
    # The part common to all u, orthogonal to their differences, in a new direction of the same space.
    basis <- svd(truth$u - truth$u[, 1], nu = d)$u[, k:d, drop = FALSE]
    common <- crossprod(basis, truth$u[, 1])
    turned <- rnorm(length(common))
    t <- basis %*% (turned * sqrt(sum(common^2) / sum(turned^2)) - common)
    g <- moved(truth, as.vector(t), 1, norms = rexp(k))
    expect_equal(colSums(g$u^2), rep(4, k))
    expect_lt(as.numeric(voronoi_loss(g, truth)), 1e-11)
    expect_lt(as.numeric(voronoi_loss(g, truth, "L3")), 1e-11)
  }
})

test_that("a cosine gate that is zero may change places with one on the sphere", {
  truth <- mixing_measure(c(0, 1), cbind(c(0, 0), c(3, 4)), cbind(1, 2), "cosine", "constant")
  g <- mixing_measure(c(0, 1), cbind(c(-3, -4), c(0, 0)), cbind(1, 2), "cosine", "constant")
  expect_lt(as.numeric(voronoi_loss(g, truth)), 1e-14)
})

test_that("shifts do not change the aligned loss, nor does the order of atoms", {
  for (seed in 1:40) {
    set.seed(seed)
    router <- routers[[1 + seed %% 4]]
    d <- sample(4, 1)
    truth <- random_measure(sample(5, 1), d, router)
    g <- if (seed %% 3) random_measure(sample(5, 1), d, near = truth) else random_measure(sample(5, 1), d, router)
    norms <- if (router$name == "cosine") rexp(length(g$beta0)) else 1
    h <- moved(g, allowed_shift(g), rnorm(1), norms = norms)
    o <- sample(length(truth$beta0))
    other <- truth
    other$beta0 <- truth$beta0[o]
    for (field in c("u", "beta1", "eta")) other[[field]] <- truth[[field]][, o, drop = FALSE]
    for (space in c("beta", "u")) {
      own <- as.numeric(voronoi_loss(g, truth, "L3", space = space))
      expect_equal(as.numeric(voronoi_loss(h, other, "L3", space = space)), own, tolerance = 1e-7)
    }
  }
})

# The least literal loss that Nelder and Mead's method finds from several starts.
searched <- function(g, truth, space, type, top_k, starts = 12) {
  d <- nrow(g$u)
  literal <- function(p) ref_shifted(g, truth, p[-1], p[1], space = space, type = type, top_k = top_k)
  best <- Inf
  for (start in seq_len(starts)) {
    t <- if (start %% 2) rnorm(d, sd = 0.3) else truth$u[, sample(ncol(truth$u), 1)] - g$u[, sample(ncol(g$u), 1)]
    p <- c(rnorm(1), t)
    if (!is.finite(literal(p))) p[-1] <- 0
    for (round in 1:2) p <- suppressWarnings(stats::optim(p, literal, control = list(maxit = 400, reltol = 1e-11)))$par
    best <- min(best, literal(p))
  }
  best
}

test_that("no general optimiser finds a lower loss", {
  skip_on_cran()
  for (seed in 1:12) {
    set.seed(seed)
    router <- routers[[c(1, 2, 4)[1 + seed %% 3]]]
    d <- sample(2, 1)
    k0 <- sample(3, 1)
    truth <- random_measure(k0, d, router, size = 0.3)
    truth$eta <- 0.2 * truth$eta
    g <- if (seed %% 2) random_measure(sample(3, 1), d, near = truth, noise = 0.2) else random_measure(2, d, router)
    g$eta <- 0.2 * g$eta
    space <- if (seed %% 4) "beta" else "u"
    top_k <- if (seed %% 5 == 0) 1
    type <- c("L1", "L3")[1 + seed %% 2]
    ours <- as.numeric(voronoi_loss(g, truth, type, space = space, top_k = top_k))
    expect_lte(ours, searched(g, truth, space, type, top_k) * (1 + 1e-6))
  }
})

# ---- boundary and extremes -------------------------------------------------------------------------------------------

with_u <- function(g, u) {
  g$u <- u
  g$beta1 <- core_gate_to_beta(core_model(g$router, g$expert, 1L)$router, u)
  g
}

test_that("gates on the boundary are compared without NaN", {
  set.seed(1)
  router <- router_perturbed_cosine(tau1 = 0.5)
  truth <- random_measure(2, 2, router)
  g <- with_u(truth, cbind(c(0.6, 0.8), c(0.1, 0)))
  expect_true(any(is.infinite(g$beta1)))
  expect_identical(as.numeric(voronoi_loss(g, truth, align = "none")), Inf)
  expect_lt(as.numeric(voronoi_loss(g, g, align = "none")), 1e-14)
  expect_lt(as.numeric(voronoi_loss(g, truth, align = "none", space = "u")), Inf)
  # A shift brings it inside.
  inside <- voronoi_loss(g, truth)
  expect_lt(as.numeric(inside), Inf)
  expect_equal(as.numeric(inside), ref_at(inside, g, truth), tolerance = 1e-9)
  # A boundary measure against itself, shifted.
  g <- with_u(truth, cbind(c(0.6, 0.8), c(-0.5, 0.1)))
  h <- with_u(g, (g$u - 0.2)[, 2:1])
  h$eta <- h$eta[, 2:1]
  h$beta0 <- h$beta0[2:1]
  expect_lt(as.numeric(voronoi_loss(h, g)), 1e-13)
  # Antipodal gates on the boundary stay there.
  g <- with_u(truth, cbind(c(0.6, 0.8), c(-0.6, -0.8)))
  expect_identical(as.numeric(voronoi_loss(g, truth)), Inf)
  expect_lt(as.numeric(voronoi_loss(g, truth, space = "u")), Inf)
  expect_lt(as.numeric(voronoi_loss(g, g)), 1e-14)
  # A true gate on the boundary is out of reach for those inside.
  loss <- voronoi_loss(truth, with_u(truth, cbind(c(0.6, 0.8), c(-0.5, 0.1))), align = "none")
  expect_identical(attr(loss, "cells"), c(2L, 2L))
  expect_lt(as.numeric(loss), Inf)
})

test_that("extreme biases give numbers", {
  truth <- line(c(1000, 0), c(0, 5), c(0, 1))
  expect_identical(as.numeric(voronoi_loss(truth, truth, align = "none")), 0)
  expect_lt(as.numeric(voronoi_loss(line(c(-1000, -2000), c(1, 6), c(0, 1)), truth)), Inf)
  expect_identical(as.numeric(voronoi_loss(line(999, 0, 0), truth, align = "none")), Inf)
  expect_equal(as.numeric(voronoi_loss(line(c(-1000, -1000), c(1, 6), c(0, 1)), line(c(0, 0), c(0, 5), c(0, 1)))), 0)
  expect_equal(as.numeric(voronoi_loss(line(-1e5, 1, 0), line(0, 0, 0), align = "none")), 1)
})

# ---- the value -------------------------------------------------------------------------------------------------------

test_that("the value is a number that prints its parts", {
  truth <- line(log(c(1, 2, 4)), c(0, 10, 100), c(0, 0, 0))
  g <- line(log(c(0.5, 0.25, 3)), c(2, -1, 7), c(3, 0.5, -2))
  loss <- voronoi_loss(g, truth, "L1", align = "none")
  expect_s3_class(loss, "voronoi_loss")
  expect_identical(as.numeric(loss), as.vector(unclass(loss)))
  expect_null(attributes(2 * loss + 1))
  expect_null(attributes(-loss))
  expect_null(attributes(log(loss)))
  expect_true(loss > 1)
  expect_snapshot({
    print(loss)
    print(voronoi_loss(g, truth, "L1", r = 2, align = "none", space = "u", top_k = 2))
    print(voronoi_loss(line(c(0, 0), c(5, 15), c(0, 20)), line(c(1, 1), c(0, 10), c(0.5, 20)), "L3"))
    print(voronoi_loss(line(0, 5, 9), line(0, 5, 0)))
  })
})

test_that("fits are measures", {
  fit <- methods_fit()
  g <- as_mixing_measure(fit)
  expect_lt(as.numeric(voronoi_loss(fit, g)), 1e-12)
  expect_lt(as.numeric(voronoi_loss(g, fit, "L3", align = "none")), 1e-12)
})

test_that("bad input is named", {
  g <- line(c(0, 0), c(1, 2), c(1, 2))
  two <- mixing_measure(0, matrix(1:2, 2), 1, "linear", "constant")
  perturbed <- function(...) line(0, 1, 1, router_perturbed_cosine(...))
  refused <- function(...) {
    condition <- tryCatch(voronoi_loss(...), condition = identity)
    expect_s3_class(condition, "cosmoe_error_input")
    cat(conditionMessage(condition), "\n")
  }
  expect_snapshot({
    refused(1, g)
    refused(g, NULL)
    refused(g, g, "L4")
    refused(g, g, c("L1", "L2"))
    refused(g, g, r = 0.5)
    refused(g, g, r = NA)
    refused(g, g, r = Inf)
    refused(g, g, r = "1")
    refused(g, g, "L2", r = 2)
    refused(g, g, "L3", r = 1.5)
    refused(g, g, align = TRUE)
    refused(g, g, space = "eta")
    refused(g, g, top_k = 0)
    refused(g, g, top_k = 3)
    refused(g, g, top_k = NA)
    refused(g, perturbed())
    refused(perturbed(), perturbed(tau1 = 0.2))
    refused(perturbed(), perturbed(tau2 = 0.2))
    refused(perturbed(), perturbed(scale = 3))
    refused(g, two)
    refused(g, mixing_measure(0, 1, rbind(1, 2), "linear", "tanh"))
    refused(mixing_measure(0, 1, rbind(1, 2), "linear", expert_polynomial(2)),
            mixing_measure(0, 1, rbind(1, 2), "linear", expert_polynomial(3)))
    refused(replace(g, "z_center", 0.5), g)
    refused(replace(g, "z_scale", 2), g)
  })
})

test_that("fits may activate more experts than the truth", {
  perturbed <- function(top_k) {
    router <- router_perturbed_cosine(top_k = top_k)
    mixing_measure(c(0.2, 0), cbind(c(1, 0), c(0, 1)), cbind(c(1, 0, 1), c(0, 1, 1)), router, "tanh")
  }
  expect_equal(as.numeric(voronoi_loss(perturbed(2), perturbed(1), "L3")), 0, tolerance = 1e-12)
})
