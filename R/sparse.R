# Sparse gates (top-K): the sum of squares jumps where the choice of experts changes, and for K = 1 it does not change
# with the gates otherwise. Derivatives do not see the jumps, so the gates are also searched at random.

is_sparse <- function(model) model$router$top_k > 0L && model$router$top_k < model$k

# Improves the best `count` runs: random search over the gates, with the values of the experts fixed, in turn with short
# runs of the core.
search_gates <- function(search, sample, runs, count = ceiling(search$control$n_long / 2), rounds = 6L) {
  if (!is_sparse(search$model)) return(runs)
  objective <- vapply(runs, function(run) run$objective, 0)
  for (i in distinct_best(runs, objective, count)) {
    idle <- 0L
    for (round in seq_len(rounds)) {
      if (idle == 2L || isTRUE(search$state$interrupted) || !is.finite(runs[[i]]$objective)) break
      start <- runs[[i]]
      start[c("u", "b")] <- random_search(start, sample, search$model)
      tried <- run_starts(search, list(start), search$control$short_passes)[[1L]]
      better <- tried$objective < runs[[i]]$objective
      idle <- if (better) 0L else idle + 1L
      if (better) runs[[i]] <- tried
    }
  }
  runs
}

# The best gates found by `proposals` random changes of one or all gates, of sizes over several orders.
random_search <- function(par, sample, model, proposals = 300L) {
  value <- core_call(core_predict(model, list(x = sample$x, z = sample$z), par[c("u", "b", "eta")], 1L))$expert
  u <- par$u
  loss <- sparse_loss(u, par$b, value, sample, model)
  for (i in seq_len(proposals)) {
    change <- matrix(stats::rnorm(length(u)), nrow(u)) * sample$gate_length * 10^stats::runif(1L, -2.5, 0.3)
    if (stats::runif(1L) < 0.7) change[, -sample.int(model$k, 1L)] <- 0
    proposed <- into_constraint(u + change, model)
    now <- sparse_loss(proposed, par$b, value, sample, model)
    if (is.finite(now) && now < loss) {
      u <- proposed
      loss <- now
    }
  }
  list(u = u, b = par$b)
}

into_constraint <- function(u, model) {
  if (model$router$name == "linear") return(u)
  norm <- sqrt(colSums(u^2))
  limit <- model$router$scale
  factor <- if (model$router$name == "cosine") limit / pmax(norm, 1e-300) else pmin(1, limit / pmax(norm, 1e-300))
  sweep(u, 2L, factor, "*")
}

# Sum of squares on the sample with the experts' values given (an n x k matrix). The scores without bias choose, and of
# equal ones the first.
sparse_loss <- function(u, b, value, sample, model) {
  score <- sample$zeta %*% u
  logit <- sweep(score, 2L, b, "+")
  chosen <- matrix(FALSE, nrow(score), ncol(score))
  left <- score
  for (j in seq_len(model$router$top_k)) {
    pick <- cbind(seq_len(nrow(score)), max.col(left, ties.method = "first"))
    chosen[pick] <- TRUE
    left[pick] <- -Inf
  }
  logit[!chosen] <- -Inf
  p <- exp(logit - logit[cbind(seq_len(nrow(logit)), max.col(logit, ties.method = "first"))])
  sum(sample$w * (sample$y - rowSums(p * value) / rowSums(p))^2)
}
