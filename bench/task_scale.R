# Time of a pass with normal matrix against the number of rows (d = 10, k = 4, linear experts, one thread): the slope of
# the logarithms from n = 1e4 to 1e7 (COSMOE_BENCH_SCALE = "1e4 1e5" for other sizes). `theirs` is the slope 1.
task_scale <- function(d = 10, k = 4) {
  sizes <- Sys.getenv("COSMOE_BENCH_SCALE", "1e4 1e5 1e6 1e7")
  sizes <- sort(as.numeric(strsplit(sizes, " ")[[1]]))
  most <- max(sizes)
  # The rows repeat: a large sample would take longer to draw than to pass.
  small <- sim_moe(1e4, d, k, "linear", "linear")
  par <- ref_unpack(small$theta + 0.1 * sin(seq_along(small$theta)), k, d, d + 1)
  seconds <- vapply(sizes, function(n) {
    use <- rep_len(seq_len(1e4), n)
    rows <- list(x = small$x[use, ], z = NULL, y = small$y[use], w = NULL,
                 x_center = NULL, x_scale = NULL, z_center = NULL, z_scale = NULL)
    rm(use)
    pass <- function() cosmoe:::core_objective(small$model, rows, par, 2L, 1L)
    stats::median(time_in_turn(list(ours = pass), max(5, min(101, round(1e7 / n)))))
  }, numeric(1))
  message(sprintf("scale: n = %g, %.4g s a pass\n", sizes, seconds), appendLF = FALSE)
  slope <- stats::coef(stats::lm(log(seconds) ~ log(sizes)))[[2]]
  bench_row("scale", sprintf("log-log slope of a pass's time in n, %g to %g", min(sizes), most), slope, 1,
    "1.00 +- 0.05", met = abs(slope - 1) <= 0.05
  )
}
