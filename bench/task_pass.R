# One evaluation of objective and gradient on one thread, against the reference's vectorised R and PyTorch's autograd.
# All three work in (u, b, eta); the opponents get the router's features computed once, outside the clock.
task_pass <- function(n = 1e5, d = 10, k = 4, times = 21) {
  rows <- lapply(c("linear", "gelu"), function(expert) {
    data <- sim_moe(n, d, k, "perturbed_cosine", expert)
    model <- data$model
    theta <- data$theta + 0.1 * sin(seq_along(data$theta))
    par <- ref_unpack(theta, k, d, d + 1)
    design <- ref_design(model, data$x)
    input <- list(
      x = data$x, z = NULL, y = data$y, w = NULL,
      x_center = NULL, x_scale = NULL, z_center = NULL, z_scale = NULL
    )
    ours <- function() cosmoe:::core_objective(model, input, par, 1L, 1L)
    reference <- function() ref_pass(theta, model, design, data$y)

    seconds <- time_in_turn(list(ours = ours, R = reference), times)
    torch <- if (nzchar(find_torch())) {
      run_torch("pass_torch.py",
        list(zeta = design$zeta1[, seq_len(d)], x = data$x, y = data$y, u = par$u, b = par$b, eta = par$eta),
        list(n, k, expert, times)
      )
    }
    seconds <- rbind(seconds, time_in_turn(list(ours = ours, R = reference), times))

    same <- function(value, gradient) {
      own <- ours()
      stopifnot(all.equal(own$value, value, tolerance = 1e-11), all.equal(own$gradient, gradient, tolerance = 1e-9))
    }
    same(reference()$value, reference()$gradient)
    milliseconds <- 1000 * apply(seconds, 2, stats::median)
    against <- function(opponent, theirs, goal) {
      figure <- sprintf("%s experts, n = %g, d = %d, k = %d, ms, against %s", expert, n, d, k, opponent)
      bench_row("pass", figure, milliseconds[["ours"]], theirs, paste("at most 1 /", goal),
        met = milliseconds[["ours"]] * goal <= theirs
      )
    }
    out <- against("vectorised R", milliseconds[["R"]], 5)
    if (!is.null(torch)) {
      same(torch$value, torch$gradient)
      out <- rbind(out, against("PyTorch", 1000 * stats::median(torch$seconds), 3))
    }
    out
  })
  do.call(rbind, rows)
}
