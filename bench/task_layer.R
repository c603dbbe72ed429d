# The sparse layer: 501 full-batch steps of setting 1, notebook protocol, on one thread, against the same steps in
# PyTorch with all experts computed, as the authors' code does, and with the routed expert only; ours is in double
# precision, PyTorch in both, the authors in single. CPU seconds; PyTorch's are those of some steps times their share.
# Then the memory of such a fit, in a process of its own.
task_layer <- function(n = 16000, steps = 501) {
  data <- simulate_patches(1, n, seed = 1)
  cpu <- function(code) sum(system.time(code)[1:2])
  stop_never <- c(loss = 0, rise = 0)
  ours <- stats::median(replicate(3, cpu(
    fit_moe_layer(data$x, data$y, protocol = "notebook", steps = steps, stop = stop_never, seed = 1)
  )))
  rows <- NULL
  if (nzchar(find_torch())) {
    start <- fit_moe_layer(data$x, data$y, protocol = "notebook", steps = 0, seed = 1)
    parameters <- coef(start)
    inputs <- list(
      x = aperm(data$x, 3:1), y = data$y > 0, weight = aperm(parameters$filters, c(2, 1, 3)), bias = parameters$bias
    )
    # The same learning problem: the loss of the first steps agrees up to the noise.
    own <- fit_moe_layer(data$x, data$y, protocol = "notebook", steps = 6, seed = 1)$history$loss
    figure <- sprintf("setting 1, %d steps of %d samples, CPU s, against PyTorch with", steps, n)
    for (precision in c("float64", "float32")) for (mode in c("all", "routed")) {
      share <- if (mode == "all") 10 else 50
      torch <- run_torch("layer_torch.py", inputs, list(n, 4, 50, 8, 16, mode, share, precision))
      stopifnot(abs(torch$loss[5] - own[6]) < 1e-4)
      theirs <- torch$seconds * steps / share
      goal <- if (mode == "all") 30 else 2
      experts <- if (mode == "all") "all experts" else "the routed expert only"
      rows <- rbind(rows, bench_row(
        "layer", sprintf("%s %s, %s", figure, experts, precision), ours, theirs,
        goal = paste("at most 1 /", goal), met = ours * goal <= theirs
      ))
    }
  }
  rbind(rows, layer_memory(n))
}

layer_memory <- function(n) {
  if (!file.exists("/proc/self/status")) return(NULL)
  output <- system2(file.path(R.home("bin"), "Rscript"),
    c(shQuote(file.path(bench_folder, "layer_memory_child.R")), n), stdout = TRUE
  )
  number <- function(name) {
    as.numeric(sub(paste0(name, " "), "", grep(paste0("^", name, " "), output, value = TRUE)))
  }
  figure <- sprintf("peak of a fit with %d samples, data included, MB, against the data", n)
  bench_row("layer", figure, number("peak_mb"), number("data_mb"), "below 3 x data",
    met = number("peak_mb") < 3 * number("data_mb")
  )
}
