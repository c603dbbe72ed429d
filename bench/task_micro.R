# The pieces of a fit beside the machine's limit: the time that as many multiply-adds and exponentials as the formulas
# need would take at the peaks measured in the same run (bench/micro/micro.cpp). Then threads, and sparse gates.
task_micro <- function(repetitions = 9) {
  times <- run_micro(repetitions)
  if (is.null(times)) return(NULL)
  seconds <- function(name) stats::median(times$seconds[times$name == name])
  work <- function(name, what) times[[what]][match(name, times$name)]
  add_time <- seconds("multiply_adds") / work("multiply_adds", "multiply_adds")
  exp_time <- seconds("exponentials") / work("exponentials", "exponentials")
  label <- times$label[times$name == "multiply_adds"][1]
  message(sprintf(
    "micro: %s, %.1f multiply-adds and %.2f exponentials a nanosecond", label, 1e-9 / add_time, 1e-9 / exp_time
  ))
  of_limit <- function(name, what, goal = NA) {
    limit <- work(name, "multiply_adds") * add_time + work(name, "exponentials") * exp_time
    figure <- sprintf("%s, n = %g, ms, against the limit (%s)", what, work(name, "rows"), label)
    bench_row("micro", figure, 1000 * seconds(name), 1000 * limit,
      goal = if (is.na(goal)) "" else sprintf("at least %g %% of the limit", 100 * goal),
      met = if (is.na(goal)) NA else limit >= goal * seconds(name)
    )
  }
  cases <- expand.grid(expert = c("linear", "gelu", "cosine"), size = c("d10_k4", "d32_k8"),
                       order = c("gradient", "normal"), stringsAsFactors = FALSE)
  passes <- lapply(seq_len(nrow(cases)), function(i) {
    case <- cases[i, ]
    size <- sub("d(.*)_k(.*)", "d = \\1, k = \\2", case$size)
    what <- switch(case$expert,
      linear = "linear router", gelu = "linear router, GELU experts", cosine = "perturbed cosine router"
    )
    of_limit(sprintf("pass/%s_%s_%s", case$order, case$size, case$expert),
      sprintf("pass with %s, %s, %s", if (case$order == "normal") "normal matrix" else case$order, what, size),
      if (case$order == "normal") 0.5 else 0.35
    )
  })
  against <- function(ours, theirs, figure, goal = NA) {
    ratio <- seconds(ours) / seconds(theirs)
    bench_row("micro", figure, 1000 * seconds(ours), 1000 * seconds(theirs),
      goal = if (is.na(goal)) "" else sprintf("at most 1 / %g", goal), met = ratio * goal <= 1
    )
  }
  do.call(rbind, c(passes, list(
    of_limit("pass/hessian_d10_k4_linear", "pass with exact Hessian, linear router, d = 10, k = 4"),
    of_limit("em_step/d5_k3", "step of EM, Gaussian, d = 5, k = 3"),
    of_limit("em_step/d10_k4", "step of EM, Gaussian, d = 10, k = 4"),
    of_limit("prediction/d10_k4_linear", "prediction, linear experts, d = 10, k = 4"),
    of_limit("prediction/d10_k4_gelu", "prediction, GELU experts, d = 10, k = 4"),
    against("pass/threads2_d10_k4/real_time", "pass/threads1_d10_k4/real_time",
      "pass with normal matrix on two threads, n = 1e+05, d = 10, k = 4, ms, against one thread", 1.8
    ),
    against("pass/top2_normal_d32_k32", "pass/dense_normal_d32_k32",
      "pass with normal matrix, top 2 of 32 experts, d = 32, ms, against the dense gate", 8
    ),
    # No goal of 8: the choice needs the scores of all experts, a quarter of the dense pass. The limits of the two
    # passes, as counted in micro.cpp, show how much cheaper a sparse gate could be.
    of_limit("pass/dense_d32_k32", "pass with gradient, dense gate, d = 32, k = 32"),
    of_limit("pass/top2_d32_k32", "pass with gradient, top 2 of 32 experts, d = 32"),
    against("pass/top2_d32_k32", "pass/dense_d32_k32",
      "pass with gradient, top 2 of 32 experts, d = 32, ms, against the dense gate"
    )
  )))
}

# Builds the program (with the flags of R's own builds) and runs it: one row a benchmark and repetition, with its
# seconds an iteration and the work counted in it. NULL without Google Benchmark or CMake.
run_micro <- function(repetitions) {
  build <- file.path(tempfile("micro"), "build")
  dir.create(build, recursive = TRUE)
  on.exit(unlink(dirname(build), recursive = TRUE))
  root <- normalizePath(file.path(bench_folder, ".."))
  cmake <- function(...) system2("cmake", c(...), stdout = FALSE, stderr = FALSE) == 0
  built <- nzchar(Sys.which("cmake")) &&
    cmake("-S", shQuote(root), "-B", shQuote(build), "-DCMAKE_BUILD_TYPE=Release",
          shQuote("-DCMAKE_CXX_FLAGS_RELEASE=-O2 -DNDEBUG")) &&
    cmake("--build", shQuote(build), "--target", "micro", "--parallel", "2")
  if (!built) {
    message("micro: needs CMake, Armadillo, NLopt and Google Benchmark, left out")
    return(NULL)
  }
  lines <- system2(file.path(build, "micro"), c(
    "--benchmark_format=csv", paste0("--benchmark_repetitions=", repetitions), "--benchmark_min_time=0.05",
    "--benchmark_enable_random_interleaving=true", "--benchmark_report_aggregates_only=false"
  ), stdout = TRUE, stderr = FALSE)
  table <- utils::read.csv(text = lines[seq(grep("^name,", lines)[1], length(lines))])
  table <- table[!grepl("_(mean|median|stddev|cv)$", table$name), ]
  real <- grepl("real_time", table$name)
  table$seconds <- ifelse(real, table$real_time, table$cpu_time) / 1e9
  table
}
