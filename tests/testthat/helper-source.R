# Data and sources for the tests of fits from chunks.

# A source function over the rows of `data`; `sizes` of its chunks in turn, 0 for an empty one.
chunks_of <- function(data, sizes) {
  at <- 0
  count <- 0
  function(reset) {
    if (reset) {
      at <<- count <<- 0
      return(NULL)
    }
    if (at >= nrow(data)) return(NULL)
    count <<- count + 1
    size <- sizes[(count - 1) %% length(sizes) + 1]
    if (size == 0) return(data[0L, , drop = FALSE])
    rows <- seq(at + 1, min(nrow(data), at + size))
    at <<- max(rows)
    data[rows, , drop = FALSE]
  }
}

# Two regimes in x1, with everything that a formula may use.
stream_data <- function(n = 1500, seed = 1) {
  ref_with_seed(seed, {
    x1 <- stats::runif(n, -1, 1)
    x2 <- stats::runif(n, -1, 1)
    first <- stats::runif(n) < stats::plogis(6 * x1)
    data <- data.frame(
      x1 = x1, x2 = 10 + 4 * x2, exposure = stats::runif(n, 1, 3), w = sample(c(0, 0.5, 1, 2), n, TRUE),
      group = factor(sample(c("u", "v", "w"), n, TRUE), levels = c("w", "u", "v", "unused")),
      word = sample(c("p", "q", "r"), n, TRUE)
    )
    data$y <- ifelse(first, 1 + x1, -2 * x2) + 0.3 * (data$group == "v") + 0.25 * stats::rnorm(n)
    data$count <- stats::rpois(n, data$exposure * exp(ifelse(first, 1.5, -0.5 + 0.5 * x2)))
    data$x2[c(3, 50)] <- NA
    data$group[7] <- NA
    data
  })
}

stream_control <- function(...) moe_control(n_starts = 4, ...)

# The fit without what describes where its rows came from.
without_origin <- function(fit) {
  fit <- unclass(fit)
  fit[c("call", "formula", "terms")] <- NULL
  fit$source$description <- NULL
  fit
}

expect_same_fit <- function(streamed, memory, data, tolerance = 1e-10) {
  testthat::expect_equal(predict(streamed, data), predict(memory, data), tolerance = tolerance)
  for (field in c("nobs", "df", "df.residual", "xlevels", "contrasts", "names", "range", "typical", "diagnostics")) {
    testthat::expect_equal(streamed[[field]], memory[[field]], label = field)
  }
  for (field in c("sse", "sigma", "gate_mean", "loglik", "entropy", "z_center", "z_scale", "dispersion")) {
    testthat::expect_equal(streamed[[field]], memory[[field]], tolerance = 100 * tolerance, label = field)
  }
}

# Standard errors and what is made of them.
expect_same_inference <- function(streamed, memory, data, tolerance = 1e-8) {
  same <- function(of) {
    testthat::expect_equal(of(streamed), of(memory), tolerance = tolerance, label = deparse1(substitute(of)))
  }
  same(vcov)
  same(confint)
  same(function(fit) as.numeric(logLik(fit)))
  same(AIC)
  same(BIC)
  same(cosmoe:::bread.cosine_moe)
  same(function(fit) coef(summary(fit)))
  same(function(fit) summary(fit)$r.squared)
  same(function(fit) predict(fit, data[1:5, ], se.fit = TRUE))
}

# As if so many rows made data that are searched on a sample.
with_sample_rows <- function(rows, code) {
  space <- asNamespace("cosmoe")
  set <- function(value) {
    get("unlockBinding", baseenv())("sample_rows_least", space)
    assign("sample_rows_least", value, envir = space)
    lockBinding("sample_rows_least", space)
  }
  before <- get("sample_rows_least", envir = space)
  on.exit(set(before))
  set(function() rows)
  code
}
