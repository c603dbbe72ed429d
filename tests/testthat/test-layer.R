# The layer as a user sees it: data, training, prediction, resumption, what is reported.

small_patches <- function(n = 400, seed = 1, ...) simulate_patches(1, n = n, seed = seed, ...)

quick_layer <- function(data, ..., experts = 4, steps = 40, seed = 1) {
  fit_moe_layer(data$x, data$y, experts = experts, steps = steps, seed = seed, cluster = data$cluster, ...)
}

same_training <- function(a, b) {
  expect_identical(a$theta, b$theta)
  expect_identical(a$history, b$history)
  expect_identical(a$run$state, b$run$state)
  expect_identical(a$gates, b$gates)
}

# ---- data ------------------------------------------------------------------------------------------------------------

test_that("simulated samples are what the definition says", {
  data <- simulate_patches(2, n = 300, seed = 5)
  expect_identical(dim(data$x), c(300L, 4L, 50L))
  signals <- cbind(data$v, data$c)
  expect_equal(crossprod(signals), diag(8), tolerance = 1e-12)
  place <- matrix(0L, 300, 3)
  for (i in 1:300) {
    inner <- matrix(data$x[i, , ], 4) %*% signals / 10
    own <- data$cluster[i]
    feature <- which(abs(abs(inner[, own]) - sqrt(rowSums(matrix(data$x[i, , ], 4)^2)) / 10) < 1e-9)
    expect_length(feature, 1L)
    size <- inner[feature, own] * data$y[i]
    expect_true(size >= 0.5 && size <= 2)
    centre <- which.max(inner[, 4 + own] * (rowSums(abs(inner) > 1e-9) == 1))
    expect_true(inner[centre, 4 + own] >= 1 && inner[centre, 4 + own] <= 2)
    other <- setdiff(which(rowSums(abs(inner) > 1e-9) == 1), c(feature, centre))
    expect_length(other, 1L)
    expect_true(which.max(abs(inner[other, ])) %in% setdiff(1:4, own))
    expect_true(max(abs(inner[other, ])) >= 0.5 && max(abs(inner[other, ])) <= 3)
    place[i, ] <- c(feature, centre, other)
  }
  # Random order, balanced labels and clusters, noise of the right size.
  expect_gt(min(table(place[, 1L], place[, 2L])[row(diag(4)) != col(diag(4))]), 5)
  expect_gt(min(table(data$y, data$cluster)), 15)
  noise <- vapply(1:300, function(i) sum(data$x[i, -place[i, ], ]^2), 0) / 100
  expect_equal(mean(noise), 4, tolerance = 0.1)
})

test_that("simulation: seeds, shared signals, general form, the routing data", {
  set.seed(3)
  state <- .Random.seed
  a <- small_patches(50, seed = 9)
  expect_identical(.Random.seed, state)
  expect_identical(a, small_patches(50, seed = 9))
  test <- small_patches(50, seed = 10, signals = a)
  expect_identical(test[c("v", "c")], a[c("v", "c")])
  expect_false(identical(test$x, a$x))
  general <- simulate_patches(
    n = 20, clusters = 3, patches = 6, dimension = 9, noise = 0, scale = 1, alpha = c(1, 1), seed = 1
  )
  expect_identical(dim(general$x), c(20L, 6L, 9L))
  expect_equal(apply(apply(general$x, 1:2, function(v) sum(v^2)) == 0, 1, sum), rep(3, 20))
  routing <- simulate_patches("routing", n = 20, seed = 1)
  inner <- apply(routing$x, 1:2, function(v) max(abs(crossprod(cbind(routing$v, routing$c), v))))
  norm <- apply(routing$x, 1:2, function(v) sqrt(sum(v^2)))
  expect_equal(norm[inner < 1e-9], rep(30, 20))
  expect_identical(dim(simulate_patches(1, n = 1, seed = 1, patches = 3)$x), c(1L, 3L, 50L))
})

# ---- entropy ---------------------------------------------------------------------------------------------------------

test_that("the dispatch entropy is that computed by hand", {
  expect_identical(dispatch_entropy(c(1, 1, 2, 2), c(5, 5, 3, 3)), 0)
  expect_equal(dispatch_entropy(c("a", "a", "b", "b"), c(1, 2, 1, 2)), log(2))
  # Expert 1: 3 of a, 1 of b; expert 2: 2 of b; expert 3 of a factor: nothing.
  expected <- -(4 / 6) * (3 / 4 * log(3 / 4) + 1 / 4 * log(1 / 4))
  expert <- factor(c(1, 1, 1, 1, 2, 2), levels = 1:3)
  expect_equal(dispatch_entropy(factor(c("a", "a", "a", "b", "b", "b")), expert), expected)
  expect_equal(dispatch_entropy(rep(1:4, each = 4), rep(1:4, 4)), log(4))
  # Two experts a sample: every entry counts.
  expect_equal(dispatch_entropy(1:2, cbind(c(1, 1), c(2, 3))), 0.5 * log(2))
})

# ---- training --------------------------------------------------------------------------------------------------------

test_that("nonlinear experts specialise and linear ones do not, in the median over seeds", {
  train <- small_patches(2000)
  test <- small_patches(2000, seed = 2, signals = train)
  learn <- function(activation, seed) {
    fit <- quick_layer(train, experts = 8, activation = activation, protocol = "notebook", steps = 300, seed = seed)
    expert <- predict(fit, test$x, type = "expert")
    c(accuracy = mean(predict(fit, test$x) == test$y), entropy = dispatch_entropy(test$cluster, expert))
  }
  cubic <- apply(vapply(1:3, function(seed) learn("cubic", seed), numeric(2)), 1L, stats::median)
  linear <- apply(vapply(1:3, function(seed) learn("linear", seed), numeric(2)), 1L, stats::median)
  expect_gt(cubic[["accuracy"]], 0.97)
  expect_lt(cubic[["entropy"]], 0.3)
  expect_gt(linear[["entropy"]], 1)
  expect_lt(linear[["accuracy"]], cubic[["accuracy"]])
})

test_that("the same seed gives the same fit for any number of threads, and set.seed() decides it otherwise", {
  data <- small_patches(2500)
  same_training(quick_layer(data, steps = 8), quick_layer(data, steps = 8, threads = 2))
  same_training(quick_layer(data, steps = 8, batch = 600), quick_layer(data, steps = 8, batch = 600, threads = 2))
  drawn <- function() {
    set.seed(4)
    fit_moe_layer(data$x, data$y, steps = 2)
  }
  expect_identical(drawn()$theta, drawn()$theta)
  expect_false(identical(quick_layer(data, steps = 3)$theta, quick_layer(data, steps = 3, seed = 2)$theta))
})

test_that("pauses do not matter, and a resumed run equals the uninterrupted one bit for bit", {
  data <- small_patches()
  file <- tempfile(fileext = ".rds")
  for (extra in list(
    list(), list(protocol = "notebook"), list(optimizer = "adam", batch = 150), list(fresh_noise = FALSE),
    list(valid = small_patches(100, seed = 3, signals = data))
  )) {
    unlink(file)
    learn <- function(...) do.call(quick_layer, c(list(data), extra, list(...)))
    whole <- learn()
    half <- learn(steps = 23, checkpoint = file)
    expect_true(file.exists(file))
    expect_identical(half$run$state$step, 23L)
    resumed <- learn(checkpoint = file, resume = TRUE)
    expect_identical(resumed$theta[1:5], whole$theta[1:5])
    if (is.null(extra$valid)) {
      expect_identical(resumed$history, whole$history)
      same_training(learn(every = 7, steps = 40)[c("theta", "history")], whole[c("theta", "history")])
    }
    expect_identical(resumed$run$state, whole$run$state)
    expect_identical(learn(resume = half)$run$state, whole$run$state)
  }
  # A finished run is handed back; without a file the run begins.
  expect_identical(learn(checkpoint = file, resume = TRUE)$history, resumed$history)
  unlink(file)
  expect_identical(learn(checkpoint = file, resume = TRUE)$theta, whole$theta)
  expect_length(grep(basename(file), list.files(dirname(file)), fixed = TRUE), 1L)
})

# As if the user had pressed Ctrl-C in the third pause.
interrupted_layer <- function(...) {
  calls <- 0L
  place <- environment(fit_moe_layer)
  real <- get("advance_run", place)
  replace_binding("advance_run", function(run, task) {
    calls <<- calls + 1L
    if (calls == 3L) stop(structure(class = c("interrupt", "condition"), list(message = "", call = NULL)))
    real(run, task)
  }, place)
  on.exit(replace_binding("advance_run", real, place))
  quick_layer(...)
}

replace_binding <- function(name, value, place) {
  get("unlockBinding", baseenv())(name, place)
  assign(name, value, envir = place)
  lockBinding(name, place)
}

test_that("an interrupt gives back what was reached, and that can be taken up again", {
  data <- small_patches()
  whole <- quick_layer(data)
  expect_warning(
    part <- interrupted_layer(data), "interrupted after 20 of 40 steps", class = "cosmoe_warning_convergence"
  )
  expect_s3_class(part, "moe_layer")
  expect_identical(part$status, "interrupted")
  expect_output(print(part), "UNFINISHED")
  expect_identical(part$history, whole$history[1:20, ])
  expect_identical(quick_layer(data, resume = part)$theta, whole$theta)
})

test_that("progress is signalled at every pause", {
  file <- tempfile()
  bar <- file(file, "w")
  progressr::with_progress(
    quick_layer(small_patches(50), steps = 35), enable = TRUE, interrupts = FALSE,
    handlers = progressr::handler_txtprogressbar(file = bar, enable = TRUE)
  )
  close(bar)
  expect_setequal(unlist(regmatches(readChar(file, 1e5), gregexpr("[0-9]+%", readChar(file, 1e5)))),
                  c("0%", "25%", "50%", "75%", "100%"))
})

test_that("early stopping keeps the parameters of the lowest validation loss", {
  data <- small_patches(60)
  valid <- small_patches(300, seed = 3, signals = data)
  fit <- quick_layer(data, valid = valid, optimizer = "adam", steps = 400, patience = 3, every = 5)
  expect_identical(fit$status, "early")
  best <- fit$valid[which.min(fit$valid$loss), ]
  expect_identical(nrow(fit$valid) - which.min(fit$valid$loss), 3L)
  output <- predict(fit, valid$x, type = "probability")
  loss <- -mean(log(output[cbind(seq_along(valid$y), (valid$y + 3) / 2)]))
  expect_equal(loss, best$loss, tolerance = 1e-10)
  expect_equal(mean(predict(fit, valid$x) == valid$y), best$accuracy)
  expect_match(fit$message, sprintf("lowest at step %d", as.integer(best$step)))
})

test_that("the notebook's rules stop a run", {
  data <- small_patches(200)
  low <- quick_layer(data, protocol = "notebook", stop = c(loss = 0.69, rise = 0))
  expect_identical(low$status, "stop_loss")
  expect_lte(utils::tail(low$history$loss, 1), 0.69)
  expect_true(all(utils::head(low$history$loss, -1) > 0.69))
  rise <- quick_layer(data, rates = c(expert = 1, gate = 10), stop = c(loss = 0, rise = 0.02), activation = "linear")
  expect_identical(rise$status, "stop_rise")
  expect_gt(utils::tail(rise$history$loss, 1), min(rise$history$loss) + 0.02)
  expect_equal(quick_layer(data, protocol = "notebook", steps = 1)$control[c("stop_loss", "stop_rise")],
               list(stop_loss = 0.314, stop_rise = 0.02))
})

test_that("what diverges stops with the last good state and a warning", {
  data <- small_patches(200)
  expect_warning(
    fit <- quick_layer(data, rates = c(expert = 1e5, gate = 0.1)), "DIVERGED", class = "cosmoe_warning_convergence"
  )
  expect_identical(fit$status, "diverged")
  expect_true(all(is.finite(fit$theta)))
  expect_identical(fit$theta, fit$run$state$lowest)
})

# ---- labels and prediction -------------------------------------------------------------------------------------------

test_that("labels come back in the type in which they came", {
  data <- small_patches(90)
  three <- data$cluster %% 3L + 1L
  kinds <- list(
    data$y, three, c("a", "b", "c")[three], data$y > 0,
    factor(c("a", "b", "c")[three], levels = c("c", "a", "b", "unused"))
  )
  for (y in kinds) {
    fit <- fit_moe_layer(data$x, y, experts = 2, filters = 6, steps = 5, seed = 1)
    class <- predict(fit, data$x)
    expect_identical(class(class), class(y))
    expect_true(all(as.character(class) %in% as.character(y)))
    p <- predict(fit, data$x, type = "probability")
    expect_equal(rowSums(p), rep(1, 90))
    expect_identical(colnames(p)[max.col(p, "first")], as.character(class))
    expect_equal(fit$accuracy, mean(as.character(class) == as.character(y)))
  }
})

test_that("predictions: experts, gate, noise, seeds", {
  data <- small_patches(300)
  fit <- quick_layer(data, top_k = 2)
  expert <- predict(fit, data$x, type = "expert")
  gate <- predict(fit, data$x, type = "gate")
  expect_identical(dim(expert), c(300L, 2L))
  expect_identical(expert[, 1L], max.col(gate, "first"))
  expect_equal(rowSums(gate), rep(1, 300))
  notebook <- quick_layer(data, protocol = "notebook", steps = 5)
  at <- function(...) predict(notebook, data$x, type = "expert", ...)
  expect_identical(at(), at(seed = 1))
  expect_false(identical(at(), at(seed = 2)))
  expect_identical(at(noise = "none"), max.col(predict(notebook, data$x, type = "gate"), "first"))
  expect_identical(at(), at(threads = 2))
  # One sample, and a matrix of samples of one patch.
  expect_length(predict(fit, data$x[1, , , drop = FALSE]), 1L)
  flat <- fit_moe_layer(matrix(data$x, 300), data$y, experts = 2, steps = 3, seed = 1)
  expect_identical(flat$size, c(samples = 300L, patches = 1L, dimension = 200L))
  expect_length(predict(flat, matrix(data$x, 300)), 300L)
})

test_that("the network on a vector, single networks and projections work", {
  data <- small_patches(200)
  single <- quick_layer(data, experts = 1, optimizer = "adam", steps = 60)
  expect_gt(single$accuracy, 0.6)
  expect_identical(unname(single$load), 1)
  expect_identical(dim(coef(single)$gate), c(0L, 1L))
  projected <- quick_layer(data, projection = 7, router = router_cosine(scale = 5), steps = 3)
  expect_identical(dim(coef(projected)$gate), c(7L, 4L))
  given <- diag(50)
  expect_equal(quick_layer(data, projection = given, steps = 3)$theta, quick_layer(data, steps = 3)$theta)
})

test_that("the specialisation table counts and judges each expert alone", {
  data <- small_patches(2000)
  fit <- quick_layer(data, experts = 8, steps = 300)
  table <- specialization(fit, data$x, data$y, data$cluster)
  expert <- predict(fit, data$x, type = "expert")
  expect_identical(nrow(table), 32L)
  sent <- table(cluster = data$cluster, expert = factor(expert, 1:8))
  expect_equal(stats::xtabs(sent ~ cluster + expert, table), sent, ignore_attr = TRUE)
  right <- predict(fit, data$x) == data$y
  expect_equal(sum(table$sent * table$accuracy_sent, na.rm = TRUE), sum(right))
  # One expert alone, in plain R.
  w <- coef(fit)$filters[, , 3L]
  f <- vapply(seq_along(data$y), function(i) sum((w %*% t(data$x[i, , ]))^3), 0)
  for (k in 1:4) {
    at <- data$cluster == k
    expect_equal(table$accuracy[table$expert == 3 & table$cluster == k], mean((f[at] > 0) == (data$y[at] > 0)))
  }
})

# ---- what is reported ------------------------------------------------------------------------------------------------

test_that("a router that sends everything to one expert is reported, as are idle experts", {
  data <- small_patches(100)
  fit <- quick_layer(data, noise = "none", steps = 0)
  expect_output(print(fit), "sends every sample to one expert (expert1)", fixed = TRUE)
  fit$load[] <- c(0.5, 0.5, 0, 0)
  expect_output(print(fit), "2 of 4 experts see no sample", fixed = TRUE)
})

test_that("history, printing, summary, pictures", {
  data <- small_patches(400)
  fit <- quick_layer(data, valid = small_patches(100, seed = 2, signals = data))
  expect_identical(fit$history$step, 0:39)
  expect_identical(dim(fit$sent), c(4L, 4L, 40L))
  expect_equal(unname(colSums(fit$sent, dims = 2)), rep(400, 40))
  expect_equal(fit$history$entropy[40], count_entropy(fit$sent[, , 40]))
  expect_identical(fit$gates$step, c(0L, 10L, 20L, 30L, 40L))
  expect_identical(fit$gates$gate[, , 5], coef(fit)$gate)
  expect_true(all(is.na(fit$history$valid_loss) == !(0:39 %in% c(0, 10, 20, 30))))
  expect_output(print(fit), "4 x 16 filters, cubic")
  expect_output(print(summary(fit)), "Samples of each cluster sent to each expert")
  grDevices::pdf(NULL)
  on.exit(grDevices::dev.off())
  expect_silent(plot(fit, centers = data$c))
  expect_silent(plot(fit, "routing", steps = 39))
  single <- quick_layer(data, experts = 1, steps = 3)
  expect_silent(plot(single))
  expect_output(print(summary(single)), "Single network")
  expect_identical(nrow(quick_layer(data, steps = 0)$history), 0L)
  expect_output(print(summary(quick_layer(data, steps = 0))), "all 0 steps done")
})
