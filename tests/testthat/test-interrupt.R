# Ctrl-C during a fit. The fit runs in a process of its own, which gets the signal SIGINT.

# Starts a long fit in a child, sends the signal `delay` seconds after it has begun, and returns what the child has
# made of it: the result, and how long that took. NULL when there is no answer within ten seconds.
interrupted_fit <- function(arguments, delay, n = 1e5) {
  folder <- tempfile("interrupt")
  dir.create(folder)
  place <- function(name) file.path(folder, name)
  # Files appear whole: written under another name first.
  write_file <- function(name, call) {
    part <- deparse(place("part"))
    sprintf("%s; invisible(file.rename(%s, %s))", sprintf(call, part), part, deparse(place(name)))
  }
  child <- run_r(c(
    "loadNamespace('cosmoe')", "set.seed(1)", sprintf("n <- %d", as.integer(n)),
    "x <- matrix(stats::runif(8 * n, -1, 1), n)",
    "y <- tanh(2 * x[, 1] - x[, 2]) * (x[, 3] > 0) + x[, 4]^2 + 0.5 * stats::rnorm(n)",
    "start <- list(",
    "  beta = matrix(stats::rnorm(40), 8), b = stats::rnorm(5), experts = matrix(stats::rnorm(45), 9)",
    ")",
    "notes <- character()",
    write_file("pid", "writeLines(as.character(Sys.getpid()), %s)"),
    "fit <- withCallingHandlers(",
    sprintf("  tryCatch(cosmoe::fit_cosine_moe(x, y, k = 5, expert = 'tanh', %s),", arguments),
    "    error = function(e) e, interrupt = function(e) e),",
    "  warning = function(w) { notes <<- class(w); invokeRestart('muffleWarning') }",
    ")",
    "result <- list(time = as.numeric(Sys.time()), class = class(fit), notes = notes)",
    "if (inherits(fit, 'cosine_moe')) result <- c(result, list(",
    "  convergence = fit$convergence, sse = fit$sse, total = sum((y - mean(y))^2), starts = nrow(fit$starts),",
    "  printed = utils::capture.output(print(summary(fit)))",
    "))",
    write_file("result", "saveRDS(result, %s)")
  ), wait = FALSE)
  if (!wait_for(function() file.exists(place("pid")), 60)) return(NULL)
  pid <- as.integer(readLines(place("pid")))
  on.exit(tools::pskill(pid, tools::SIGKILL))
  Sys.sleep(delay)
  sent <- as.numeric(Sys.time())
  tools::pskill(pid, tools::SIGINT)
  if (!wait_for(function() file.exists(place("result")), 10)) return(NULL)
  result <- readRDS(place("result"))
  result$seconds <- result$time - sent
  result
}

skip_without_signals <- function() {
  testthat::skip_on_cran()
  testthat::skip_on_os("windows")
}

expect_unfinished <- function(result, label) {
  testthat::expect_identical(result$class, "cosine_moe", label = label)
  if (!identical(result$class, "cosine_moe")) return(invisible())
  # Sent during the fit, not after it.
  testthat::expect_gt(result$seconds, 0, label = label)
  testthat::expect_lt(result$seconds, 1, label = label)
  testthat::expect_identical(result$convergence$status, "interrupted", label = label)
  testthat::expect_false(result$convergence$converged, label = label)
  testthat::expect_match(result$notes, "cosmoe_warning_convergence", all = FALSE, label = label)
  testthat::expect_match(result$printed, "UNFINISHED: interrupted", all = FALSE, label = label)
  testthat::expect_true(is.finite(result$sse), label = label)
}

test_that("a fit by maximum likelihood hands back the best so far, whatever it was at", {
  skip_without_signals()
  for (delay in c(0.05, 0.4, 1.5, 4)) {
    result <- interrupted_fit(
      "method = 'em', router = 'linear', control = list(on_interrupt = 'return', n_starts = 8)", delay, 2e4
    )
    # Before there was anything; at first even before the search has begun.
    if (any(c("cosmoe_error_interrupt", if (delay < 0.1) "interrupt") %in% result$class)) next
    expect_unfinished(result, paste("delay", delay))
  }
})

test_that("an interrupt stops a fit within a second with an error of its own class", {
  skip_without_signals()
  result <- interrupted_fit("start = start, control = list(tolerance = 1e-12, max_passes = 1e5)", delay = 0.7)
  expect_true("cosmoe_error_interrupt" %in% result$class)
  expect_gt(result$seconds, 0)
  expect_lt(result$seconds, 1)
})

test_that("on request the best fit so far comes back within a second, marked unfinished", {
  skip_without_signals()
  result <- interrupted_fit(
    "start = start, control = list(on_interrupt = 'return', tolerance = 1e-12, max_passes = 1e5)",
    delay = 0.7
  )
  expect_unfinished(result, "one start")
  expect_identical(result$starts, 1L)
})

test_that("the same holds wherever the search over many starts is", {
  skip_without_signals()
  for (delay in c(1, 2.5)) {
    result <- interrupted_fit("control = list(on_interrupt = 'return')", delay)
    expect_unfinished(result, paste("after", delay, "seconds"))
    # It is a fit, not a start.
    expect_true(isTRUE(result$sse < result$total))
  }
  result <- interrupted_fit("control = list(on_interrupt = 'stop')", 1)
  expect_true("cosmoe_error_interrupt" %in% result$class)
  expect_true(isTRUE(result$seconds < 1))
})

test_that("NLopt's runs and stochastic gradient descent can be interrupted", {
  skip_without_signals()
  for (optimizer in c("slsqp", "sgd")) {
    control <- sprintf("list(optimizer = '%s', on_interrupt = 'return', max_passes = 1e5, epochs = 150)", optimizer)
    result <- interrupted_fit(paste("start = start, control =", control), delay = 0.7)
    expect_unfinished(result, optimizer)
  }
})

test_that("an interrupt stops a bootstrap with the same error", {
  skip_without_signals()
  folder <- tempfile("interrupt")
  dir.create(folder)
  place <- function(name) file.path(folder, name)
  run_r(c(
    "data <- data.frame(x = seq(-1, 1, length.out = 500))",
    "set.seed(1)",
    "data$y <- sign(data$x) + data$x + 0.3 * stats::rnorm(500)",
    "fit <- cosmoe::fit_cosine_moe(y ~ x, data, router = 'linear', control = list(n_starts = 3))",
    sprintf("writeLines(as.character(Sys.getpid()), %s)", deparse(place("part"))),
    sprintf("invisible(file.rename(%s, %s))", deparse(place("part")), deparse(place("pid"))),
    "end <- tryCatch(cosmoe::bootstrap_moe(fit, 1e6), error = function(e) e, interrupt = function(e) e)",
    sprintf("writeLines(class(end), %s)", deparse(place("part"))),
    sprintf("invisible(file.rename(%s, %s))", deparse(place("part")), deparse(place("class")))
  ), wait = FALSE)
  expect_true(wait_for(function() file.exists(place("pid")), 60))
  pid <- as.integer(readLines(place("pid")))
  on.exit(tools::pskill(pid, tools::SIGKILL))
  Sys.sleep(1)
  tools::pskill(pid, tools::SIGINT)
  expect_true(wait_for(function() file.exists(place("class")), 10))
  expect_true("cosmoe_error_interrupt" %in% readLines(place("class")))
})
