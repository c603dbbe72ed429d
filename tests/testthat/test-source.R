# Fits to sources of row chunks: the same as to the same rows in memory.

# Each with few starts, and from a start that is off.
compare_with_memory <- function(data, sizes, ...) {
  call <- function(rows, ...) eval(as.call(c(list(quote(fit_cosine_moe), data = rows), list(...))))
  quick <- function(rows) ref_with_seed(4, fit_quietly(rows, control = stream_control(), ...))
  memory <- quick(data)
  expect_same_fit(quick(chunks_of(data, sizes)), memory, data)
  start <- list(beta = 0.8 * memory$gate$beta, b = memory$gate$b, experts = memory$experts + 0.02)
  precise <- function(rows) fit_quietly(rows, control = stream_control(tolerance = 1e-12), start = start, ...)
  memory <- precise(data)
  streamed <- precise(chunks_of(data, sizes))
  expect_same_fit(streamed, memory, data)
  expect_same_inference(streamed, memory, data)
  invisible(streamed)
}

# Arguments as expressions, since weights and offset are evaluated in the data.
fit_quietly <- function(rows, formula, control, start = NULL, weights = NULL, offset = NULL, subset = NULL, ...) {
  call <- list(quote(fit_cosine_moe), formula, data = rows, control = control, start = start, router = "linear", ...)
  call <- c(call, list(weights = weights, offset = offset, subset = subset))
  suppressWarnings(eval(as.call(Filter(Negate(is.null), call))), classes = "cosmoe_warning_convergence")
}

test_that("least squares over chunks of any size is that in memory", {
  data <- stream_data()
  fit <- compare_with_memory(data, c(400, 0, 1, 333), y ~ x1 + x2)
  expect_identical(fit$source$rows, 1500)
  expect_identical(fit$source$dropped, 2L)
  expect_identical(fit$source$chunks, 7)
  expect_null(fit$fitted.values)
  expect_null(fit$y)
})

test_that("factors, strings, two parts, weights, offset and subset work in chunks", {
  data <- stream_data()
  compare_with_memory(
    data, c(700, 13), y ~ I(x1 / 2) + x2 + group + word | x1, weights = quote(w), offset = quote(exposure / 10),
    subset = quote(exposure > 1.2)
  )
})

test_that("maximum likelihood over chunks is that in memory", {
  data <- stream_data()
  compare_with_memory(data, c(1, 900), y ~ x1 + x2, method = "em", weights = quote(w))
  compare_with_memory(data, 500, y ~ x1 + x2 + group | x1, method = "em", sigma = "equal")
  compare_with_memory(
    data, c(600, 0), count ~ x2 + offset(log(exposure)) | x1, method = "em", family = "poisson"
  )
})

test_that("a binomial response may be a factor or have two columns", {
  data <- stream_data()
  data$lost <- 1 + data$count %% 3
  compare_with_memory(data, 700, cbind(count, lost) ~ x2 | x1, method = "em", family = "binomial")
  # The first chunk has one of the levels only.
  data$won <- factor(ifelse(data$y > 0, "yes", "no"), levels = c("no", "yes", "never"))
  data <- droplevels(data[order(data$won == "no"), ])
  fit <- function(rows) {
    fit_quietly(rows, won ~ x1, stream_control(), method = "em", family = "binomial", k = 1, weights = quote(w))
  }
  expect_same_fit(fit(chunks_of(data, 250)), fit(data), data)
  expect_identical(fit(chunks_of(data, 250))$ylevels, c("no", "yes"))
})

test_that("chunks of one row give the same fit", {
  compare_with_memory(stream_data(300, seed = 2), 1, y ~ x1 + x2 | x1)
})

test_that("other routers, optimizers and experts work from a start", {
  data <- stats::na.omit(stream_data(600))
  for (given in list(
    list(router = "perturbed_cosine"), list(router = router_cosine(top_k = 1)),
    list(router = "linear", expert = "tanh", control = stream_control(optimizer = "slsqp")),
    list(
      router = "linear",
      expert = expert_custom(function(x, eta) eta[3] + drop(x %*% eta[1:2]), function(x, eta) cbind(x, 1), 3)
    )
  )) {
    if (is.null(given$control)) given$control <- stream_control(tolerance = 1e-12)
    fit <- function(rows, ...) {
      suppressWarnings(do.call(fit_cosine_moe, utils::modifyList(
        list(y ~ x1 + I(x2 - 10), data = rows, control = stream_control(), ...), given
      )))
    }
    start <- list(beta = cbind(c(2, 0.1), c(-2, 0.2)), b = c(0, 0), experts = cbind(1:3, -(1:3)) / 3)
    expect_equal(
      predict(fit(chunks_of(data, 170), start = start), data), predict(fit(data, start = start), data),
      # Where the last step lies below rounding errors, it is taken or not by chance; NLopt stops by chance as well.
      tolerance = if (identical(given$expert, "tanh")) 1e-6 else 1e-8
    )
  }
})

test_that("a search on a sample ends at the solution on all rows", {
  data <- stream_data(4000)
  memory <- fit_quietly(data, y ~ x1 + x2, stream_control())
  streamed_fit <- function(...) {
    with_sample_rows(900L, fit_quietly(chunks_of(data, 700), y ~ x1 + x2, stream_control(), ...))
  }
  fit <- function(seed, ...) ref_with_seed(seed, streamed_fit(...))
  for (seed in 1:3) {
    streamed <- fit(seed)
    expect_equal(streamed$sse, memory$sse, tolerance = 1e-9)
    expect_equal(predict(streamed, data), predict(memory, data), tolerance = 1e-5)
    expect_identical(streamed$starts$kind, "sample")
  }
  expect_identical(without_origin(fit(3)), without_origin(streamed))
  em <- fit_quietly(data, y ~ x1 + x2, stream_control(), method = "em")
  expect_equal(fit(1, method = "em")$loglik, em$loglik, tolerance = 1e-9)
})

test_that("the core's fit from sums is its fit from rows, bit for bit", {
  data <- stats::na.omit(stream_data(800))
  for (method in c("ls", "em")) {
    fit <- fit_quietly(data, y ~ x1 + x2, stream_control(), method = method)
    info <- cosmoe:::information(fit, environment())
    start <- info$par
    start$eta <- start$eta + 0.2
    y <- info$rows$y
    totals <- list(dx = 2, dz = 2, used = 800 - 3, weight = 797, squares = sum(y^2), deviation = sum((y - mean(y))^2))
    sums <- function(par, order, judge) {
      model <- info$model
      if (!judge && method == "em") model$information <- "complete"
      cosmoe:::core_objective(model, info$rows, par, order, 1L)
    }
    for (optimizer in c("newton", "slsqp")) {
      control <- unclass(stream_control(optimizer = optimizer, max_passes = 60))
      from_sums <- cosmoe:::core_fit_sums(info$model, sums, totals, start, control)
      from_rows <- cosmoe:::core_fit(info$model, info$rows, start, control)
      if (optimizer == "newton") expect_identical(from_sums, from_rows)
      expect_equal(from_sums$objective, from_rows$objective, tolerance = 1e-8)
    }
  }
})

test_that("means and scales over chunks are those of all rows", {
  for (seed in 1:20) {
    ref_with_seed(seed, {
      n <- sample(5:200, 1)
      x <- cbind(1e6 + stats::rnorm(n), 1e-8 * stats::runif(n), stats::rexp(n))
      w <- sample(c(0, 1, 3.5), n, TRUE)
      w[1] <- 1
      cut <- sort(sample.int(n, 4))
      part <- findInterval(seq_len(n), cut)
    })
    found <- Reduce(cosmoe:::merge_moments, lapply(split(seq_len(n), part), function(rows) {
      cosmoe:::moments(x[rows, , drop = FALSE], w[rows])
    }))
    expect_equal(cosmoe:::scales_of(found), cosmoe:::column_scales(x, w), tolerance = 1e-9)
    expect_equal(cosmoe:::mean_of(found)[1], 1e6 + sum(w * (x[, 1] - 1e6)) / sum(w), tolerance = 1e-15)
    mean <- colSums(w * x) / sum(w)
    expect_equal(found$cross, crossprod(sqrt(w) * (x - rep(mean, each = n))), tolerance = 1e-9)
    expect_equal(found$span, apply(x[w > 0, , drop = FALSE], 2, range))
  }
})

# By hand: of 1, 2, 3 and 7, 8 the mean is 21 / 5, the sum of squares about it 2 + 0.5 + (7.5 - 2)^2 * 6 / 5.
test_that("two parts are merged as computed by hand", {
  found <- cosmoe:::merge_moments(cosmoe:::moments(cbind(1:3)), cosmoe:::moments(cbind(7:8)))
  expect_equal(cosmoe:::mean_of(found), 21 / 5)
  expect_equal(found$cross, cbind(2 + 0.5 + 5.5^2 * 6 / 5))
})

# Products of numbers of rows do not fit into R's integers.
test_that("many rows are merged as well", {
  rows <- function(first) cosmoe:::moments(cbind(first + seq_len(1e5)))
  found <- cosmoe:::merge_moments(rows(0), rows(1e5))
  expect_equal(found$cross[1], (2e5^3 - 2e5) / 12)
})

test_that("levels come from all chunks", {
  rows <- function(g) data.frame(x = seq_along(g) / 7, g = g, y = seq_along(g)^2 %% 5)
  levels_of <- function(...) {
    parts <- list(...)
    data <- do.call(rbind, lapply(parts, function(g) rows(rep(as.character(g), length.out = 12))))
    shards <- source_shards(lapply(parts, function(g) rows(rep(g, length.out = 12))))
    suppressWarnings(fit_cosine_moe(y ~ x + g | x, shards, k = 1, control = stream_control()))$xlevels$g
  }
  expect_identical(levels_of(c("b", "a"), c("c", "a")), c("a", "b", "c"))
  declared <- function(v) factor(v, levels = c("c", "b", "a", "d"))
  expect_identical(levels_of(declared(c("a", "b")), declared(c("b", "c"))), c("c", "b", "a"))
  # Other levels in other chunks: sorted, numbers as numbers.
  expect_identical(levels_of(factor(c("b", "z")), factor(c("a", "b"))), c("a", "b", "z"))
  expect_identical(levels_of(factor(c(10, 9)), factor(c(2, 10))), c("2", "9", "10"))
})

test_that("columns of nothing but NA, and whole numbers, take the type of the first chunk", {
  data <- stats::na.omit(stream_data(600))
  data$x2 <- round(data$x2)
  first <- data[1:300, ]
  second <- data[301:594, ]
  second$x2 <- as.integer(second$x2)
  third <- data[595:597, ]
  third$x2 <- NA
  shards <- source_shards(list(first, second, third))
  start <- list(beta = rbind(c(3, -3), 0), b = c(0, 0), experts = rbind(c(1, 0), 0, 0))
  streamed <- fit_cosine_moe(y ~ x1 + x2, shards, router = "linear", start = start)
  memory <- fit_cosine_moe(y ~ x1 + x2, data[1:594, ], router = "linear", start = start)
  expect_equal(predict(streamed, data), predict(memory, data), tolerance = 1e-10)
  expect_identical(streamed$source$dropped, 3L)
})

test_that("the printed fit says that it was streamed", {
  data <- stream_data(600)
  fit <- ref_with_seed(1, fit_quietly(chunks_of(data, 200), y ~ x1 + x2, stream_control()))
  expect_output(print(fit), "Data streamed: 600 rows in 3 chunks")
  expect_output(print(summary(fit)), "Data streamed: 600 rows in 3 chunks")
  expect_output(print(summary(fit)), "2 rows with\\s+missing values left out")
  expect_output(print(source_function(chunks_of(data, 200))), "Source of rows: a function")
})

scores_of <- function(fit) cosmoe:::estfun.cosine_moe(fit)

test_that("what needs rows says so", {
  data <- stream_data(600)
  fit <- fit_quietly(chunks_of(data, 200), y ~ x1 + x2, stream_control())
  em <- fit_quietly(chunks_of(data, 200), y ~ x1 + x2, stream_control(), method = "em")
  needs <- list(
    residuals, fitted, weights, predict, simulate, model.frame, model.matrix, scores_of, plot,
    function(fit) vcov(fit, "sandwich"), function(fit) confint(fit, 1, method = "profile"),
    function(fit) bootstrap_moe(fit, R = 2), function(fit) predict(fit, interval = "confidence")
  )
  for (f in needs) expect_error(f(fit), class = "cosmoe_error_input", regexp = "a fit from a source does not keep")
  for (f in list(posterior, clusters, function(fit) residuals(fit, "quantile"))) {
    expect_error(f(em), class = "cosmoe_error_input", regexp = "a fit from a source does not keep")
  }
  expect_error(plot(fit), "Every panel but \"starts\" needs", class = "cosmoe_error_input")
  # Irregular fits are no exception.
  fit$source$irregular <- "the fit is flat in 1 direction"
  for (f in list(function() vcov(fit, "sandwich"), function() confint(fit, type = "sandwich"))) {
    expect_error(f(), "The sandwich needs the rows", class = "cosmoe_error_input")
  }
  fit$source$irregular <- NULL
  # With rows given, these work.
  expect_identical(dim(posterior(em, data[1:2, ], y = c(0, 1))), c(2L, 2L))
  expect_length(ICL(em), 1L)
  expect_s3_class(as_mixing_measure(fit), "mixing_measure")
  expect_silent(grDevices::pdf(NULL))
  on.exit(grDevices::dev.off())
  expect_silent(plot(fit, which = "starts"))
})

test_that("streamed fits can be compared with each other, not with fits in memory", {
  data <- stream_data(800)
  small <- fit_quietly(chunks_of(data, 300), y ~ x1 + x2 | x1, stream_control())
  large <- fit_quietly(chunks_of(data, 300), y ~ x1 + x2 + exposure | x1, stream_control())
  table <- anova(small, large)
  memory <- anova(
    fit_quietly(data, y ~ x1 + x2 | x1, stream_control()),
    fit_quietly(data, y ~ x1 + x2 + exposure | x1, stream_control())
  )
  expect_equal(table$F, memory$F, tolerance = 1e-6)
  other <- fit_quietly(chunks_of(data[-1, ], 300), y ~ x1 + x2 | x1, stream_control())
  expect_error(anova(other, large), class = "cosmoe_error_input")
})
