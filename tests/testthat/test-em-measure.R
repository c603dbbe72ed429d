# Mixing measures of fits by maximum likelihood.

linked_measure <- function(link, router = "perturbed_cosine", expert = "linear") {
  eta <- ref_with_seed(3, matrix(stats::runif(9, 0.2, 0.9), 3))
  mixing_measure(c(0.3, 0, -0.4), cbind(c(1, 0), c(-1, 0.5), c(0.2, 0.8)), eta, router, expert, link)
}

all_links <- c("identity", "log", "inverse", "sqrt", "logit", "probit", "cloglog")
some_x <- function(n = 40) ref_with_seed(4, matrix(stats::runif(2 * n), n))

test_that("the measure of a fit has its mean", {
  for (name in c("gaussian", "poisson", "binomial", "Gamma")) {
    for (router in c("linear", "perturbed_cosine")) {
      d <- em_data(name, n = 150)
      family <- if (name == "Gamma") Gamma("log") else name
      set.seed(1)
      fit <- suppressWarnings(em_fit(y ~ x, d, family = family, router = router, control = moe_control(n_starts = 4)))
      G <- as_mixing_measure(fit)
      expect_identical(G$link, fit$family$link)
      x <- as.matrix(d["x"])
      expect_equal(unname(predict(G, x)), unname(fitted(fit)), tolerance = 1e-10, label = paste(name, router))
      for (type in c("experts", "gate")) expect_equal(unname(predict(G, x, type)), unname(predict(fit, type = type)))
      H <- canonicalize(G)
      expect_identical(H$link, G$link)
      expect_equal(predict(H, x), predict(G, x), tolerance = 1e-10)
      expect_true(equivalent(G, H))
      expect_true(equivalent(fit, H))
      expect_lt(as.numeric(voronoi_loss(fit, H)), 1e-8)
      expect_equal(simulate(G, x = x, sigma = 0)$y, predict(G, x))
    }
  }
  expect_output(print(G), "linear, log link")
  expect_match(format(G), "log link")
  expect_no_match(format(linked_measure("identity")), "link")
})

test_that("means behind links, by hand", {
  x <- some_x()
  for (link in all_links) {
    G <- linked_measure(link)
    mean <- stats::make.link(link)$linkinv(cbind(x, 1) %*% G$eta)
    expect_equal(unname(predict(G, x, "experts")), mean, label = link)
    expect_equal(predict(G, x), rowSums(predict(G, x, "gate") * mean), label = link)
  }
})

test_that("equality sees through the gauge, and through nothing else", {
  x <- some_x()
  for (link in all_links) {
    for (router in c("linear", "cosine", "perturbed_cosine")) {
      for (expert in c("linear", "tanh")) {
        G <- linked_measure(link, router, expert)
        H <- canonicalize(G)
        label <- paste(link, router, expert)
        expect_true(equivalent(G, H), label = label)
        expect_equal(predict(G, x), predict(H, x), tolerance = 1e-9, label = label)
        H$eta[1, 2] <- H$eta[1, 2] + 0.01
        expect_false(equivalent(G, H), label = label)
        H <- G
        H$beta0[1] <- H$beta0[1] + 0.01
        expect_false(equivalent(G, H), label = label)
      }
    }
    other <- linked_measure(setdiff(all_links, link)[1])
    expect_false(equivalent(linked_measure(link), other))
    expect_error(voronoi_loss(linked_measure(link), other), "link", class = "cosmoe_error_input")
  }
})

test_that("identities of links", {
  x <- some_x()
  same <- function(G, H) {
    expect_equal(predict(G, x), predict(H, x), tolerance = 1e-10)
    expect_true(equivalent(G, H))
  }
  beta1 <- cbind(c(1, 0), c(-1, 0.5))
  at <- function(eta, link, expert = "linear", beta0 = c(0.3, 0)) {
    mixing_measure(beta0, beta1, eta, expert = expert, link = link)
  }
  eta <- cbind(c(0.4, 0.1, 0.3), c(0.2, 0.5, 0.6))
  same(at(eta, "logit"), at(eta, "identity", "sigmoid"))
  same(at(eta, "sqrt"), at(eta, "identity", expert_polynomial(2)))
  same(at(eta, "sqrt"), at(-eta, "sqrt"))
  same(at(eta, "log"), at(eta, "log", expert_polynomial(1)))
  # Equal gates: multiples of one exponential have a mean that is one too; probabilities add up to one.
  equal_gates <- function(eta, link) mixing_measure(c(0, 0), cbind(c(1, 0), c(1, 0)), eta, link = link)
  one <- function(eta, link) mixing_measure(0, c(1, 0), eta, link = link)
  same(equal_gates(cbind(c(1, -1, 0), c(1, -1, log(3))), "log"), one(c(1, -1, log(2)), "log"))
  for (link in c("logit", "probit")) {
    same(equal_gates(cbind(c(1, -1, 0.2), c(-1, 1, -0.2)), link), one(c(0, 0, 0), link))
  }
  same(equal_gates(cbind(c(1, 1, 0.5), c(2, 2, 1)), "inverse"), one(c(1, 1, 0.5) / 0.75, "inverse"))
})

test_that("bad links are errors", {
  expect_error(linked_measure("cauchit"), "link", class = "cosmoe_error_input")
  expect_error(linked_measure(NA), "link", class = "cosmoe_error_input")
  expect_error(check_identifiability(at = linked_measure("log")), "identity", class = "cosmoe_error_input")
})

test_that("the Voronoi loss compares parameters, whatever the link and the dispersions", {
  eta <- cbind(c(0.4, 0.1, 0.3), c(0.2, 0.5, 0.6))
  beta1 <- cbind(c(1, 0), c(-1, 0.5))
  loss <- function(link) {
    G <- mixing_measure(c(0.3, 0), beta1, eta, "linear", link = link)
    H <- mixing_measure(c(0.3, 0), beta1, eta + 0.1, "linear", link = link)
    as.numeric(voronoi_loss(G, H, align = "none"))
  }
  # Each atom is 0.1 sqrt(3) off.
  for (link in all_links) expect_equal(loss(link), sum(exp(c(0.3, 0))) * 0.1 * sqrt(3))
  d <- em_data("gaussian")
  set.seed(1)
  fit <- em_fit(y ~ x | z, d, control = moe_control(n_starts = 4))
  other <- fit
  other$dispersion <- other$dispersion * 2
  expect_identical(as_mixing_measure(other), as_mixing_measure(fit))
})

test_that("measures saved before they had links have the identity", {
  new <- mixing_measure(matrix(c(1, -1), 1), c(0, 0), matrix(1:4, 2), router = "linear")
  old <- new
  old$link <- NULL
  expect_identical(format(old), format(new))
  expect_identical(predict(old, matrix(0.5)), predict(new, matrix(0.5)))
  expect_true(equivalent(old, new))
  expect_equal(as.double(voronoi_loss(old, new)), 0)
})
