# One aligned Voronoi loss near the truth, d = 32 and 9 fitted against 8 true experts, the call of the core alone: a rate
# study makes a hundred thousand of them. `theirs` is the millisecond that was promised.
task_voronoi <- function(d = 32, k = 9, true_k = 8, times = 201) {
  measure <- function(near = NULL, router = near$router) {
    b <- rep(0, true_k)
    beta <- matrix(0.3 * stats::rnorm(d * true_k), d)
    eta <- matrix(stats::rnorm((d + 1) * true_k), d + 1)
    if (is.null(near)) return(mixing_measure(b, beta, eta, router, "tanh"))
    from <- rep_len(seq_len(true_k), k)
    shake <- function(x) x[, from] + 0.01 * stats::rnorm(nrow(x) * k)
    mixing_measure(near$beta0[from], shake(near$beta1), shake(near$eta), router, "tanh")
  }
  cases <- expand.grid(router = c("linear", "cosine", "perturbed_cosine"), bounded = c(FALSE, TRUE))
  rows <- lapply(seq_len(nrow(cases)), function(i) {
    set.seed(i)
    router <- as.character(cases$router[i])
    bounded <- cases$bounded[i]
    truth <- measure(router = router)
    fit <- measure(truth)
    settings <- list(power = 1, squares = TRUE, bounded = bounded, counted = 0L, align = TRUE)
    ours <- function() cosmoe:::core_voronoi_loss(fit, truth, truth$router, settings)
    ms <- 1000 * stats::median(time_in_turn(list(ours = ours), times))
    figure <- sprintf("%s router, space %s, ms, against one", router, if (bounded) "u" else "beta")
    bench_row("voronoi", figure, ms, 1, "below 1", met = ms < 1)
  })
  do.call(rbind, rows)
}
