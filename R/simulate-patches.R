#' Data of the mixture of classification problems
#'
#' @description
#' Draws the synthetic data of Chen et al. (2022): samples of P patches in d dimensions, from K clusters. Cluster k has
#' a feature signal \eqn{v_k}, whose sign in a sample is the label, and a centre signal \eqn{c_k}, which says the
#' cluster. All 2K signals are orthonormal. A sample of cluster k has the patches, in random order,
#'
#' * \eqn{y \alpha v_k}, the feature,
#' * \eqn{\beta c_k}, the centre,
#' * \eqn{\epsilon \gamma v_{k'}}, the feature of another cluster k', with a random sign: no help, but the same look,
#' * P - 3 patches of Gaussian noise, \eqn{N(0, \sigma^2 / d)} in each of the d coordinates,
#'
#' with \eqn{\alpha, \beta, \gamma} uniform on the given ranges; k, k', y and \eqn{\epsilon} are uniform. In the end
#' everything is multiplied by `scale`.
#'
#' @param setting 1, 2, 3 or 4, the settings of the paper's table; `"bound"`, the data of its check of the bound on
#'   single networks; or `"routing"`, the easier data of its picture of the routing, where the noise is orthogonal to
#'   all signals and has norm 3. A setting gives the ranges and the noise; any of them can be replaced.
#' @param n Number of samples, at least 1.
#' @param seed `NULL` to go on with the random number generator as it is, or a seed for [set.seed()]; the state is put
#'   back afterwards.
#' @param clusters,patches,dimension K (at least 2), P (at least 3) and d (at least 2K).
#' @param alpha,beta,gamma Ranges, two numbers each, the smaller first: of the feature, the centre, the other feature.
#' @param noise The standard deviation \eqn{\sigma}, a number of at least 0.
#' @param scale A positive number.
#' @param signals `NULL` to draw new signals, by orthogonalizing Gaussian vectors; or a list with `v` and `c`, such
#'   as data made before: test data must share the signals of the training data.
#'
#' @details
#' The settings, all with K = 4, P = 4, d = 50, scale 10:
#'
#' | setting | alpha | beta | gamma | noise |
#' |---|---|---|---|---|
#' | 1 | 0.5 to 2 | 1 to 2 | 0.5 to 3 | 1 |
#' | 2 | 0.5 to 2 | 1 to 2 | 0.5 to 3 | 2 |
#' | 3 | 0.5 to 2 | 1 to 2 | 0.5 to 2 | 1 |
#' | 4 | 0.5 to 2 | 1 to 2 | 0.5 to 2 | 2 |
#' | `"bound"` | 1 to 2 | 1 to 2 | 1 to 2 | 1 |
#' | `"routing"` | 1 | 1.2 to 2 | 1 to 2 | 3, of fixed norm |
#'
#' When alpha and gamma have the same law, as in settings 3, 4 and `"bound"`, any classifier that is a sum over patches
#' of one function, so any single two-layer network of any width and activation, errs on at least 1/8 of the samples.
#'
#' @return A list with `x` (an n x P x d array), `y` (-1 or 1), `cluster` (1 to K), and `v` and `c` (d x K matrices,
#'   before scaling). Bad arguments stop with a `cosmoe_error_input`.
#'
#' @references Chen, Z., Deng, Y., Wu, Y., Gu, Q. and Li, Y. (2022). Towards understanding the mixture-of-experts layer
#' in deep learning. NeurIPS 2022, arXiv:2208.02813. Definition of the data distribution and its experiments.
#'
#' @seealso [fit_moe_layer()], [dispatch_entropy()].
#' @examples
#' train <- simulate_patches(1, n = 200, seed = 1)
#' test <- simulate_patches(1, n = 100, seed = 2, signals = train)
#' dim(train$x)
#' table(train$cluster, train$y)
#' @export
simulate_patches <- function(setting = 1, n = 16000, seed = NULL, clusters = 4, patches = 4, dimension = 50,
                             alpha = NULL, beta = NULL, gamma = NULL, noise = NULL, scale = 10, signals = NULL) {
  ranges <- patch_setting(setting)
  n <- check_count(n)
  clusters <- check_count(clusters, lower = 2L)
  patches <- check_count(patches, lower = 3L)
  dimension <- check_count(dimension, lower = 2L * clusters)
  alpha <- check_range(if (is.null(alpha)) ranges$alpha else alpha, "alpha")
  beta <- check_range(if (is.null(beta)) ranges$beta else beta, "beta")
  gamma <- check_range(if (is.null(gamma)) ranges$gamma else gamma, "gamma")
  noise <- check_number(if (is.null(noise)) ranges$noise else noise, lower = 0, argument = "noise")
  scale <- check_number(scale, lower = 0, strict = TRUE)
  with_seed(seed, {
    signals <- patch_signals(signals, clusters, dimension)
    cluster <- sample.int(clusters, n, replace = TRUE)
    other <- (cluster + sample.int(clusters - 1L, n, replace = TRUE) - 1L) %% clusters + 1L
    y <- sample(c(-1, 1), n, replace = TRUE)
    draw <- function(range) stats::runif(n, range[1L], range[2L])
    # The patches in order, d x P x n; then shuffled within each sample.
    x <- array(0, c(dimension, patches, n))
    x[, 1L, ] <- signals$v[, cluster] * rep(scale * y * draw(alpha), each = dimension)
    x[, 2L, ] <- signals$c[, cluster] * rep(scale * draw(beta), each = dimension)
    x[, 3L, ] <- signals$v[, other] * rep(scale * sample(c(-1, 1), n, replace = TRUE) * draw(gamma), each = dimension)
    x[, seq_len(patches - 3L) + 3L, ] <- scale * noise_patches(n * (patches - 3L), noise, signals, ranges$orthogonal)
    order <- rep(seq_len(n) - 1L, each = patches) * patches + c(replicate(n, sample.int(patches)))
    dim(x) <- c(dimension, patches * n)
    x <- x[, order, drop = FALSE]
    dim(x) <- c(dimension, patches, n)
    list(x = aperm(x, 3:1), y = y, cluster = cluster, v = signals$v, c = signals$c)
  })
}

patch_setting <- function(setting) {
  ranges <- function(alpha, beta, gamma, noise, orthogonal = FALSE) {
    list(alpha = alpha, beta = beta, gamma = gamma, noise = noise, orthogonal = orthogonal)
  }
  settings <- list(
    `1` = ranges(c(0.5, 2), c(1, 2), c(0.5, 3), 1), `2` = ranges(c(0.5, 2), c(1, 2), c(0.5, 3), 2),
    `3` = ranges(c(0.5, 2), c(1, 2), c(0.5, 2), 1), `4` = ranges(c(0.5, 2), c(1, 2), c(0.5, 2), 2),
    bound = ranges(c(1, 2), c(1, 2), c(1, 2), 1), routing = ranges(c(1, 1), c(1.2, 2), c(1, 2), 3, TRUE)
  )
  name <- if (length(setting) == 1L && (is.numeric(setting) || is.character(setting))) as.character(setting)
  if (is.null(name) || !name %in% names(settings)) {
    stop_input("setting", setting, "1, 2, 3, 4, \"bound\" or \"routing\"")
  }
  settings[[name]]
}

check_range <- function(x, argument) {
  x <- check_vector(x, 2L, argument)
  if (x[1L] > x[2L]) stop_input(argument, I("one with the larger number first"), "a range, the smaller number first")
  x
}

# Gram-Schmidt on Gaussian draws.
patch_signals <- function(signals, clusters, dimension) {
  if (!is.null(signals)) {
    if (!is.list(signals)) stop_input("signals", signals, "a list with `v` and `c`, or NULL")
    return(list(
      v = check_matrix(signals$v, dimension, clusters, "signals$v"),
      c = check_matrix(signals$c, dimension, clusters, "signals$c")
    ))
  }
  basis <- qr.Q(qr(matrix(stats::rnorm(2L * clusters * dimension), dimension)))
  list(v = basis[, seq_len(clusters)], c = basis[, clusters + seq_len(clusters)])
}

# Gaussian, or of norm `noise` and orthogonal to all signals.
noise_patches <- function(count, noise, signals, orthogonal) {
  dimension <- nrow(signals$v)
  draws <- matrix(stats::rnorm(dimension * count), dimension)
  if (!orthogonal) return(noise / sqrt(dimension) * draws)
  basis <- cbind(signals$v, signals$c)
  draws <- draws - basis %*% crossprod(basis, draws)
  noise * draws / rep(sqrt(colSums(draws^2)), each = dimension)
}
