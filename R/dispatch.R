#' Entropy of the cluster given the expert
#'
#' @description
#' How well a router separates clusters: with \eqn{n_{km}} samples of cluster k sent to expert m, \eqn{n_m} their sum
#' over k and n the number of samples,
#' \deqn{H = -\sum_m \frac{n_m}{n} \sum_k \frac{n_{km}}{n_m} \log\frac{n_{km}}{n_m}}{
#'   H = -sum_m (n_m / n) sum_k (n_km / n_m) log(n_km / n_m)}
#' with natural logarithms; experts without samples count 0. It is 0 when each expert serves one cluster only, and log K
#' for K equally frequent clusters when the routing ignores them (1.386 for 4). It is not the entropy of the experts'
#' load.
#'
#' @param cluster The cluster of each sample: a vector or factor, without missing values.
#' @param expert The expert of each sample, of the same length; for the choice of several experts a matrix with a
#'   row for each sample, of which every entry counts.
#'
#' @return A number. Bad arguments stop with a `cosmoe_error_input`.
#' @references Chen et al. (2022), arXiv:2208.02813, definition of the dispatch entropy in its experiments.
#' @seealso [fit_moe_layer()], [specialization()].
#' @examples
#' dispatch_entropy(cluster = c(1, 1, 2, 2), expert = c(5, 5, 3, 3))
#' dispatch_entropy(cluster = c(1, 1, 2, 2), expert = c(5, 3, 5, 3)) # log(2)
#' @export
dispatch_entropy <- function(cluster, expert) {
  if (!is.atomic(cluster) || length(cluster) == 0L || anyNA(cluster)) {
    stop_input("cluster", cluster, "a vector without missing values")
  }
  if (!is.atomic(expert) || NROW(expert) != length(cluster) || anyNA(expert)) {
    stop_input("expert", expert, sprintf("a vector of length %d without missing values", length(cluster)))
  }
  count_entropy(table(rep(as.vector(cluster), NCOL(expert)), as.vector(expert)))
}

# From the counts, clusters x experts.
count_entropy <- function(counts) {
  share <- counts / rep(pmax(colSums(counts), 1), each = nrow(counts))
  -sum(counts * ifelse(share > 0, log(share), 0)) / sum(counts)
}

#' What each expert of a layer can do
#'
#' @description
#' The accuracy of each expert on each cluster, beside how many samples of the cluster the router sends to it. In a
#' layer that has specialised every expert is right about its own cluster, and about others only by chance.
#'
#' @param object A fit from [fit_moe_layer()].
#' @param x,y,cluster Samples in the form of the fit, their labels, and the cluster of each (a vector or factor).
#' @param seed The seed of routing noise, where the protocol has it on in prediction; see [predict.moe_layer()].
#' @param ... Nothing: any further argument is an error.
#'
#' @return A data frame with a row for each expert and cluster: `expert`, `cluster`, `samples` (of the cluster), `sent`
#'   (those sent to the expert), `accuracy_sent` (of the expert on these; `NA` if there are none) and `accuracy` (of
#'   the expert on all samples of the cluster, whoever they are sent to).
#' @seealso [dispatch_entropy()], [plot.moe_layer()].
#' @examples
#' data <- simulate_patches(1, n = 300, seed = 1)
#' fit <- fit_moe_layer(data$x, data$y, experts = 4, steps = 100, seed = 1)
#' specialization(fit, data$x, data$y, data$cluster)
#' @export
specialization <- function(object, x, y, cluster, seed = NULL, ...) {
  check_dots_empty(...)
  check_layer(object)
  x <- layer_newdata(object, x)
  n <- dim(x)[3L]
  y <- encode_labels(object, y, n)
  cluster <- encode_cluster(cluster, n)
  sent <- predict_layer(object, x, seed = seed)$expert
  one <- object$layer
  one$experts <- 1L
  one$router$top_k <- 1L
  parts <- lapply(seq_len(object$layer$experts), function(m) {
    theta <- expert_theta(object, m)
    output <- core_call(core_layer_predict(one, layer_data(one, x, NULL), theta, 1L))$output
    right <- class_codes(output) == y
    here <- rowSums(sent == m - 1L) > 0
    do.call(rbind, lapply(seq_along(cluster$levels), function(k) {
      member <- cluster$codes == k - 1L
      data.frame(
        expert = m, cluster = cluster$levels[k], samples = sum(member), sent = sum(member & here),
        accuracy_sent = if (any(member & here)) mean(right[member & here]) else NA_real_,
        accuracy = if (any(member)) mean(right[member]) else NA_real_
      )
    }))
  })
  do.call(rbind, parts)
}
