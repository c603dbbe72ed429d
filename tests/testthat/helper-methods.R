# Small fits for the tests of the methods: two linear experts, clearly apart, that any start should find.

methods_data <- function(n = 150) {
  set.seed(42)
  data <- data.frame(x1 = stats::runif(n, -1, 1), x2 = stats::runif(n, -1, 1))
  data$z1 <- as.vector(scale(stats::runif(n)))
  data$group <- factor(sample(c("low", "mid", "high"), n, TRUE), levels = c("low", "mid", "high"))
  data$size <- stats::runif(n, 1, 2)
  p <- stats::plogis(4 * data$z1 / (abs(data$z1) + 0.5))
  first <- 1 + 2 * data$x1 + (data$group == "high")
  data$y <- p * first + (1 - p) * (-1 - data$x2) + stats::rnorm(n, sd = 0.1)
  data
}

methods_control <- function() moe_control(n_starts = 12)

methods_router <- function() router_perturbed_cosine(tau1 = 0.5, tau2 = 0.5, scale = 4)

# Two fits that many tests use, made once: from a formula with a factor, and from matrices.
methods_cache <- new.env()

cached <- function(name, value) {
  if (is.null(methods_cache[[name]])) methods_cache[[name]] <- value
  methods_cache[[name]]
}

methods_fit <- function() {
  cached("formula", {
    train <- methods_data()
    set.seed(1)
    fit_cosine_moe(y ~ x1 + x2 + group | z1,
      data = train, k = 2, router = methods_router(), control = methods_control()
    )
  })
}

methods_matrix_fit <- function(...) {
  train <- methods_data()
  covariates <- as.matrix(train[c("x1", "x2")])
  gating <- as.matrix(train["z1"])
  response <- train$y
  set.seed(1)
  fit_cosine_moe(covariates, response, k = 2, z = gating, router = methods_router(), control = methods_control(), ...)
}

# A fit with all numbers fixed, so that what is printed does not depend on the solver or the machine.
frozen_fit <- function() {
  fit <- methods_fit()
  fit$experts[] <- c(2.0123, 0.01234, -0.5, 1.25, 1.5, 0.001234, -1.0123, 12.5, 0, -1)
  fit$gate$b[] <- c(-0.6931, -0.6931)
  fit$gate$u[] <- c(2, -2)
  fit$gate$beta[] <- c(0.1, -0.1)
  fit$gate_mean[] <- c(0.5123, 0.4877)
  fit$z_center[] <- 0.02
  fit$z_scale[] <- 0.56
  fit$residuals <- seq(-0.3, 0.3, length.out = 150)
  fit$y <- seq(-3, 3, length.out = 150)
  fit$sse <- 1.5
  fit$sigma <- 0.1049
  fit$df <- 12L
  fit$df.residual <- 138L
  fit$starts <- data.frame(
    start = 1:4, kind = c("clusters", "residuals", "random", "random"), objective = c(1.5, 1.5, 1.65, 3),
    passes = c(12L, 14L, 30L, 10L), status = c("converged", "converged", "converged", "max_passes"),
    reached_best = c(TRUE, TRUE, FALSE, FALSE)
  )
  fit$convergence <- list(
    status = "converged", converged = TRUE, message = "", passes = 12L, optimizer = "newton",
    certificate = list(
      projected_gradient = 1.2e-9, predicted_decrease = 3.4e-12, active = character(), smallest_curvature = 0.25,
      null_directions = 0L, gauge = 2L
    )
  )
  fit$diagnostics <- list(
    boundary = integer(), expert_bound = integer(), empty = integer(), coincident = integer(), nonunique = FALSE
  )
  fit
}
