#' Sparse mixture-of-experts layer for classification
#'
#' @description
#' Trains the layer of Chen et al. (2022). A sample is a set of P patches \eqn{x_1, ..., x_P} in d dimensions. Each
#' expert is a two-layer network over the patches with J filters and a second layer fixed at one; a router sends every
#' sample to one expert (or `top_k`), and only this expert is computed:
#' \deqn{f_m(x) = \sum_{j=1}^{J} \sum_{p=1}^{P} \phi(w_{mj}'x_p), \qquad h_m(x) = \sum_p \theta_m'x_p,
#'   \qquad F(x) = g_m(x) f_m(x), \quad m = \arg\max_l (h_l(x) + r_l).}{
#'   f_m(x) = sum_j sum_p phi(w_mj'x_p),   h_m(x) = sum_p theta_m'x_p,
#'   F(x) = g_m(x) f_m(x),   m = argmax_l (h_l(x) + r_l).}
#' r is routing noise, drawn afresh for each expert, sample and step. What g is, and the loss, depends on the protocol.
#'
#' @param x The samples: an n x P x d array, or an n x d matrix for samples of one patch (a plain two-layer network).
#' @param y Their labels: -1 and 1, a factor, or a vector of classes (numbers without fractions, strings, logicals). At
#'   least two classes.
#' @param experts Number of experts M, at most n. 1 is a single network, without a router.
#' @param filters Number of filters J of each expert. Where every class has filters of its own (more than two classes,
#'   or the notebook protocol) it must be a multiple of the number of classes.
#' @param activation \eqn{\phi}: `"cubic"` (\eqn{z^3}, the paper's nonlinear expert), `"linear"`, `"relu"`, `"gelu"`,
#'   `"celu"` (with parameter 1) or `"tanh"`.
#' @param router The gate: `"linear"`, as in the paper, `"cosine"`, `"perturbed_cosine"`, or the result of
#'   [router_linear()], [router_cosine()], [router_perturbed_cosine()]. It acts on the sum of the patches; the scores
#'   \eqn{h_m} are those of the router with \eqn{\beta_m = \theta_m}.
#' @param top_k Number of experts that see a sample; the choice is by h + r, and F is the sum of their \eqn{g_m f_m}.
#'   The default is that of the router, or 1, as in the paper.
#' @param noise Routing noise: `"uniform"` on \[0, 1), `"gaussian"` (standard normal) or `"none"`.
#' @param protocol `"paper"` or `"notebook"`; see Details.
#' @param optimizer `"ngd"`: normalised gradient descent for each expert (a step of length `rate` in the direction of
#'   its gradient) and plain gradient descent for the gate; `"adam"`: Adam (moments 0.9 and 0.999) for all.
#' @param rates `NULL`, or `c(expert = , gate = )`, two positive numbers. The defaults are those of the authors: 0.001
#'   and 0.1 for normalised gradient descent; for Adam 0.01 (cubic) or 0.003.
#' @param steps Number of steps in all, at least 0. The authors take 501.
#' @param batch `"full"`, or the number of samples of a step; then an epoch visits the samples in random order.
#' @param balance Weight of the balance loss of the Switch transformer, M times the sum over experts of (share of
#'   samples sent to m) x (mean of softmax(h)_m), which is smallest for equal load. 0: none.
#' @param valid `NULL`, or `list(x = , y = )`: samples on which the loss is followed. Training then stops when that loss
#'   has not fallen for `patience` evaluations, and the fit has the parameters where it was lowest.
#' @param seed `NULL`, or a whole number. It decides start, noise and batches; with `NULL` it is drawn from R's
#'   generator, so that [set.seed()] reproduces a fit. The noise of a step depends on seed, step, sample and expert
#'   alone: results are the same, bit for bit, for any number of threads, and after a resumption.
#' @param cluster `NULL`, or the cluster of each sample: the history then has the dispatch entropy.
#' @param init_scale Filters (and biases) start uniform on \eqn{\pm 1/\sqrt{d}} times this. Small, as the theory wants:
#'   with 1 the experts do not specialise reliably. The gate starts at 0 (that of the cosine router, which has no value
#'   there, in a random direction).
#' @param weight_decay This times the parameters is added to the gradient.
#' @param stop `NULL` for the protocol's rules, or `c(loss = , rise = )`: stop where the loss reaches `loss`, or exceeds
#'   its minimum so far by `rise`; 0 means never.
#' @param fresh_noise `FALSE` keeps the noise of the first step in all steps, as the authors do for their curve of the
#'   entropy over training.
#' @param projection `NULL`, or a matrix of q x d (or a number q: a Gaussian one with variance 1/d is drawn) that is
#'   applied to the summed patches before the router.
#' @param every Training pauses every so many steps to evaluate `valid`, keep the gate, write the checkpoint and show
#'   progress. It has no influence on the result unless there is `valid`.
#' @param patience Number of evaluations without improvement; see `valid`.
#' @param checkpoint `NULL`, or the name of a file that always holds the last pause. It is replaced in one move, never
#'   half written.
#' @param resume `FALSE`; `TRUE` to go on from `checkpoint` if that file is there; or an earlier fit to the same data
#'   and settings (for example, an interrupted one), to go on from it. A resumed run equals the uninterrupted one bit
#'   for bit.
#' @param threads Number of threads.
#'
#' @details
#' *The two protocols.* The text of the paper and the code that made its table differ. Both are here, exactly:
#'
#' | | `"paper"` | `"notebook"` |
#' |---|---|---|
#' | weight g of an expert | softmax of h over all experts, without noise | the noisy logit h + r itself |
#' | output for two classes | one number F, class by its sign | two, each the sum over half of the filters |
#' | loss | log(1 + exp(-yF)) | cross-entropy of softmax(softmax(F)), in \[0.3133, 1.3133\] |
#' | biases of filters | none | one each; the norm of a gradient is norm(filters) + norm(biases) |
#' | stops | after all steps | also at a loss of 0.314, or 0.02 above the minimum |
#' | routing noise in prediction | off | on |
#'
#' With C > 2 classes both have C outputs, each the sum over J / C filters, and `"paper"` the cross-entropy of
#' softmax(F); the notebook's stop at 0.314 becomes the same distance from the smallest possible loss. In setting 1 the
#' recipe as the text states it gives accuracies near 100 and 98.6 % (nonlinear, linear), not those of the table: the
#' doubled softmax keeps the published numbers lower. With `experts = 1` the weight g is 1 in both.
#'
#' *Theory* (Chen et al., 2022). (i) When the features of all clusters have the same law, any single patch-additive
#' classifier, thus a single two-layer network of any width and activation, errs with probability at least 1/8:
#' accuracy at most 87.5 %. (ii) With M of the order K log K log log d cubic experts the procedure above (small start,
#' noise, normalised gradient descent) reaches zero training error and a test error that vanishes; the experts split
#' into groups, one for each cluster, and the router, which learns the centre signals, sends each cluster to its group.
#' (iii) There is no theorem that linear experts fail: that is an observation.
#'
#' *Computation.* Only the experts that were chosen are computed, so a step costs that of one expert, whatever M is.
#' Memory is the data once more, in another order, and their sums over patches. Four to six of eight experts alive at
#' the end is normal. An expert that no sample is sent to has no gradient and does not move.
#'
#' *Failures.* If the first step overflows (the cube of large x), there is a `cosmoe_error_data` that says so. If the
#' loss becomes infinite later, or grows beyond 1000 times the first one, training stops with the parameters of the
#' lowest loss and a `cosmoe_warning_convergence`. After an interrupt (Ctrl-C) the fit has what was reached, with the
#' same warning. A router that sends everything to one expert is named among the notes of `print()`.
#'
#' @return An object of class `moe_layer`, plain R data: a list with
#' * `classes`, `size` (samples, patches, dimension), `layer` (the settings of the model), `router`, `control`, `seed`;
#' * `theta`: all parameters; [coef()][coef.moe_layer] has them as filters (J x d x M), biases and gate;
#' * `history`: a data frame with a row for each step: `step`, `loss`, `accuracy` (of the batch, with noise, before the
#'   step), `entropy` (with `cluster`), `valid_loss` and `valid_accuracy` (at pauses);
#' * `sent`: clusters x experts x steps, the samples sent; `load`: their shares by expert at the end of training;
#' * `gates`: `step` and `gate`, an array of q x M x pauses;
#' * `accuracy` and `entropy` of the training samples in prediction mode; `status`, `message`;
#' * `run`: what a resumption needs.
#'
#' @references Chen, Z., Deng, Y., Wu, Y., Gu, Q. and Li, Y. (2022). Towards understanding the mixture-of-experts layer
#' in deep learning. NeurIPS 2022, arXiv:2208.02813. Model, loss and algorithm are those of its section on the problem
#' setting; the notebook protocol is that of the authors' published code.
#'
#' @seealso [predict.moe_layer()], [plot.moe_layer()], [simulate_patches()], [dispatch_entropy()], [specialization()].
#' @examples
#' train <- simulate_patches(1, n = 500, seed = 1)
#' test <- simulate_patches(1, n = 500, seed = 2, signals = train)
#' fit <- fit_moe_layer(train$x, train$y, experts = 4, steps = 150, seed = 1, cluster = train$cluster)
#' fit
#' mean(predict(fit, test$x) == test$y)
#' dispatch_entropy(test$cluster, predict(fit, test$x, type = "expert"))
#' @export
fit_moe_layer <- function(x, y, experts = 8, filters = 16,
                          activation = c("cubic", "linear", "relu", "gelu", "celu", "tanh"), router = "linear",
                          top_k = NULL, noise = c("uniform", "gaussian", "none"), protocol = c("paper", "notebook"),
                          optimizer = c("ngd", "adam"), rates = NULL, steps = 501, batch = "full", balance = 0,
                          valid = NULL, seed = NULL, cluster = NULL, init_scale = 0.001, weight_decay = 0, stop = NULL,
                          fresh_noise = TRUE, projection = NULL, every = 10, patience = 10, checkpoint = NULL,
                          resume = FALSE, threads = 1) {
  call <- match.call()
  x <- as_patches(x)
  n <- dim(x)[3L]
  labels <- as_labels(y, n)
  cluster <- encode_cluster(cluster, n)
  experts <- check_count(experts)
  if (experts > n) stop_input("experts", experts, sprintf("at most the number of samples, %d", n))
  router <- as_router(router)
  router$top_k <- layer_top_k(top_k, router, experts)
  layer <- list(
    router = unclass(router), activation = check_choice(activation, layer_activations), experts = experts,
    filters = check_count(filters), classes = length(labels$values),
    protocol = check_choice(protocol, c("paper", "notebook")), noise = check_choice(noise, layer_noises),
    fresh_noise = check_flag(fresh_noise), balance = check_number(balance, lower = 0), seed = layer_seed(seed)
  )
  if (layer$filters %% layer_outputs(layer) != 0L) {
    stop_input("filters", layer$filters, sprintf("a multiple of the number of classes, %d", layer$classes))
  }
  control <- layer_control(layer, optimizer, rates, batch, stop, weight_decay, init_scale, every, patience, threads)
  steps <- check_count(steps, lower = 0L)
  projection <- layer_projection(projection, dim(x)[1L], layer$seed)
  data <- layer_data(layer, x, labels$codes, cluster, projection)
  task <- list(
    layer = layer, control = control, data = data, steps = steps, checkpoint = check_checkpoint(checkpoint),
    valid = layer_valid(valid, layer, labels, dim(x), projection)
  )
  task$identity <- layer_identity(task, projection)
  run <- train_loop(resumed_run(resume, task, start_run(task)), task)
  if (run$status == "overflow") stop_overflow(x, layer)
  fit <- structure(
    list(
      call = call, classes = labels$values, clusters = cluster$levels,
      size = c(samples = n, patches = dim(x)[2L], dimension = dim(x)[1L]), layer = layer, router = router,
      control = control, steps = steps, projection = projection, seed = layer$seed, run = run,
      identity = task$identity,
      theta = if (is.null(run$best)) run$state$theta else run$best$theta
    ),
    class = "moe_layer"
  )
  finish_layer(fit, data)
}

layer_top_k <- function(top_k, router, experts) {
  if (is.null(top_k)) top_k <- if (is.null(router$top_k)) 1L else router$top_k
  if (!is.null(router$top_k) && !identical(as.double(top_k), as.double(router$top_k))) {
    stop_input("top_k", top_k, sprintf("absent, or %d as in the router", router$top_k))
  }
  check_count(top_k, upper = experts)
}

layer_activations <- c("cubic", "linear", "relu", "gelu", "celu", "tanh")
layer_noises <- c("uniform", "gaussian", "none")

# One number decides between two classes under the logistic loss.
layer_outputs <- function(layer) if (layer$protocol == "paper" && layer$classes == 2L) 1L else layer$classes

layer_seed <- function(seed) {
  if (is.null(seed)) return(sample.int(.Machine$integer.max, 1L))
  check_count(seed, lower = 0L)
}

layer_control <- function(layer, optimizer, rates, batch, stop, weight_decay, init_scale, every, patience, threads) {
  optimizer <- check_choice(optimizer, c("ngd", "adam"))
  if (is.null(rates)) {
    adam <- if (layer$activation == "cubic") 0.01 else 0.003
    rates <- if (optimizer == "adam") c(expert = adam, gate = adam) else c(expert = 0.001, gate = 0.1)
  }
  rates <- check_pair(rates, c("expert", "gate"), strict = TRUE)
  full <- identical(batch, "full")
  if (!full && !is.numeric(batch)) stop_input("batch", batch, "\"full\" or a number of samples")
  if (is.null(stop)) stop <- protocol_stop(layer, full)
  stop <- check_pair(stop, c("loss", "rise"))
  list(
    optimizer = optimizer, expert_rate = rates[["expert"]], gate_rate = rates[["gate"]],
    batch = if (full) 0L else check_count(batch),
    stop_loss = stop[["loss"]], stop_rise = stop[["rise"]], weight_decay = check_number(weight_decay, lower = 0),
    init_scale = check_number(init_scale, lower = 0, strict = TRUE), every = check_count(every),
    patience = check_count(patience), threads = check_count(threads)
  )
}

check_pair <- function(x, names, strict = FALSE, argument = deparse1(substitute(x))) {
  words <- if (strict) "positive" else "non-negative"
  valid <- is.numeric(x) && length(x) == 2L && setequal(names(x), names) && all(is.finite(x)) &&
    all(if (strict) x > 0 else x >= 0)
  if (!valid) stop_input(argument, x, sprintf("c(%s = , %s = ) with two %s numbers", names[1L], names[2L], words))
  x[names]
}

# The notebooks stop at 0.314 for two classes, 0.00074 above the smallest value of their loss. A rise of the loss of a
# small batch says nothing.
protocol_stop <- function(layer, full) {
  if (layer$protocol == "paper") return(c(loss = 0, rise = 0))
  smallest <- function(classes) log1p((classes - 1) * exp(-1))
  c(loss = 0.314 - smallest(2) + smallest(layer$classes), rise = if (full) 0.02 else 0)
}

layer_projection <- function(projection, dimension, seed) {
  if (is.null(projection) || is.matrix(projection)) {
    return(if (!is.null(projection)) check_matrix(projection, nrow(projection), dimension, "projection"))
  }
  rows <- check_count(projection)
  with_seed(seed, matrix(stats::rnorm(rows * dimension) / sqrt(dimension), rows))
}

layer_valid <- function(valid, layer, labels, size, projection) {
  if (is.null(valid)) return(NULL)
  if (!is.list(valid) || !all(c("x", "y") %in% names(valid))) stop_input("valid", valid, "list(x = , y = ), or NULL")
  reference <- list(size = c(patches = size[2L], dimension = size[1L]), classes = labels$values)
  x <- layer_newdata(reference, valid$x, "valid$x")
  list(data = layer_data(layer, x, NULL, NULL, projection), y = encode_labels(reference, valid$y, dim(x)[3L]))
}

check_checkpoint <- function(checkpoint) {
  if (is.null(checkpoint)) return(NULL)
  if (!is.character(checkpoint) || length(checkpoint) != 1L || is.na(checkpoint) || !dir.exists(dirname(checkpoint))) {
    stop_input("checkpoint", checkpoint, "the name of a file in a directory that exists, or NULL")
  }
  checkpoint
}

stop_overflow <- function(x, layer) {
  cube <- if (layer$activation == "cubic") "; the cubic activation takes the cube of filters times `x`" else ""
  stop_data(sprintf(
    "The first step overflows: `x` is too large (largest entry %.3g)%s. Scale `x` down.", max(abs(x)), cube
  ))
}

# ---- training --------------------------------------------------------------------------------------------------------

# A run is everything that a later step depends on, and what has been recorded. It is a plain list that is replaced as a
# whole, so that an interrupt finds it in one piece.
start_run <- function(task) {
  layer <- task$layer
  dimension <- dim(task$data$x)[1L]
  gate_size <- if (layer$experts > 1L) nrow(task$data$zeta) else 0L
  theta <- with_seed(layer$seed, {
    size <- layer$experts * layer$filters * (dimension + (layer$protocol == "notebook"))
    expert <- task$control$init_scale / sqrt(dimension) * stats::runif(size, -1, 1)
    gate <- if (layer$router$name == "cosine") stats::rnorm(gate_size * layer$experts)
    c(expert, if (is.null(gate)) numeric(gate_size * layer$experts) else gate)
  })
  state <- list(
    theta = theta, first = numeric(), second = numeric(), step = 0L, first_loss = 0, lowest_loss = 0,
    lowest = numeric()
  )
  run <- list(state = state, status = "steps", history = list(), gates = list(), valid = list(), best = NULL)
  run$gates <- list(list(step = 0L, gate = gate_of(state$theta, layer, gate_size)))
  if (!is.null(task$valid)) run <- validate_run(run, task)
  run
}

gate_of <- function(theta, layer, gate_size) {
  matrix(utils::tail(theta, gate_size * layer$experts), gate_size, layer$experts)
}

train_loop <- function(run, task) {
  left <- task$steps - run$state$step
  progress <- progressor(steps = max(1L, ceiling(left / task$control$every)))
  tryCatch(
    while (run$status == "steps" && run$state$step < task$steps) {
      run <- advance_run(run, task)
      if (!is.null(task$checkpoint)) write_checkpoint(run, task)
      progress()
    },
    interrupt = function(e) run$status <<- "interrupted"
  )
  run
}

# To the next multiple of `every`.
advance_run <- function(run, task) {
  every <- task$control$every
  control <- task$control
  control$steps <- min(every - run$state$step %% every, task$steps - run$state$step)
  out <- core_call(core_layer_train(task$layer, task$data, run$state, control))
  run[c("state", "status")] <- out[c("state", "status")]
  run$history <- c(run$history, list(out$history))
  if (run$status == "overflow") return(run)
  gate_size <- if (task$layer$experts > 1L) nrow(task$data$zeta) else 0L
  run$gates <- c(run$gates, list(list(step = run$state$step, gate = gate_of(run$state$theta, task$layer, gate_size))))
  if (!is.null(task$valid) && run$status != "interrupted") run <- validate_run(run, task)
  run
}

# The loss on the validation samples; parameters where it was lowest are kept.
validate_run <- function(run, task) {
  layer <- prediction_layer(task$layer)
  output <- core_call(core_layer_predict(layer, task$valid$data, run$state$theta, task$control$threads))$output
  loss <- output_loss(output, task$valid$y, layer)
  accuracy <- mean(class_codes(output) == task$valid$y)
  run$valid <- c(run$valid, list(c(step = run$state$step, loss = loss, accuracy = accuracy)))
  if (is.null(run$best) || isTRUE(loss < run$best$loss)) {
    run$best <- list(loss = loss, step = run$state$step, theta = run$state$theta, waited = 0L)
  } else {
    run$best$waited <- run$best$waited + 1L
    if (run$status == "steps" && run$best$waited >= task$control$patience) run$status <- "early"
  }
  run
}

log_softmax <- function(v) {
  v <- v - apply(v, 1L, max)
  v - log(rowSums(exp(v)))
}

# Mean loss of outputs F, classes coded from 0.
output_loss <- function(output, y, layer) {
  if (ncol(output) == 1L) {
    margin <- (2 * y - 1) * output[, 1L]
    return(mean(pmax(-margin, 0) + log1p(exp(-abs(margin)))))
  }
  v <- log_softmax(output)
  if (layer$protocol == "notebook") v <- log_softmax(exp(v))
  -mean(v[cbind(seq_along(y), y + 1L)])
}

# ---- checkpoints -----------------------------------------------------------------------------------------------------

# What a run depends on, beside its state: it must be the same when the run is taken up again. The number of steps may
# grow, and threads and pauses do not matter; with validation samples pauses do.
layer_identity <- function(task, projection) {
  free <- c("threads", if (is.null(task$valid)) c("every", "patience"))
  list(
    layer = task$layer, control = task$control[setdiff(names(task$control), free)], size = dim(task$data$x),
    sums = c(sum(task$data$x), sum(as.numeric(task$data$y) * seq_along(task$data$y))), projection = projection,
    clusters = task$data$clusters
  )
}

write_checkpoint <- function(run, task) {
  part <- tempfile(basename(task$checkpoint), dirname(task$checkpoint))
  on.exit(unlink(part))
  saveRDS(list(identity = task$identity, run = run), part, compress = FALSE)
  if (!file.rename(part, task$checkpoint)) {
    stop_cosmoe("checkpoint", sprintf("The checkpoint \"%s\" cannot be written.", task$checkpoint))
  }
}

resumed_run <- function(resume, task, fresh) {
  if (inherits(resume, "moe_layer")) {
    saved <- list(identity = resume$identity, run = resume$run)
  } else {
    if (!check_flag(resume)) return(fresh)
    if (is.null(task$checkpoint)) {
      stop_input("resume", resume, "FALSE, or an earlier fit, when there is no `checkpoint`")
    }
    if (!file.exists(task$checkpoint)) return(fresh)
    saved <- tryCatch(readRDS(task$checkpoint), error = function(e) NULL, warning = function(w) NULL)
    if (!all(c("identity", "run") %in% names(saved))) {
      stop_input("checkpoint", I("a file that is none"), "a checkpoint of this package")
    }
  }
  different <- names(saved$identity)[!mapply(identical, saved$identity, task$identity[names(saved$identity)])]
  if (length(different)) {
    got <- sprintf("a run that differs in %s", enumerate(different))
    stop_input("resume", I(got), "a run with the same data and settings")
  }
  run <- saved$run
  if (run$status == "interrupted") run$status <- "steps"
  run
}

# ---- the object ------------------------------------------------------------------------------------------------------

finish_layer <- function(fit, data) {
  run <- fit$run
  layer <- fit$layer
  clusters <- data$clusters
  column <- function(name) unlist(lapply(run$history, `[[`, name))
  steps <- as.integer(column("step"))
  sent <- array(as.numeric(column("sent")), c(clusters, layer$experts, length(steps)))
  known <- !is.null(fit$clusters)
  fit$history <- data.frame(
    step = steps, loss = as.numeric(column("loss")), accuracy = as.numeric(column("accuracy")),
    entropy = if (known) vapply(seq_along(steps), function(s) {
      count_entropy(matrix(sent[, , s], clusters))
    }, 0) else rep(NA_real_, length(steps)),
    valid_loss = rep(NA_real_, length(steps)), valid_accuracy = rep(NA_real_, length(steps))
  )
  if (length(run$valid)) fit$valid <- as.data.frame(do.call(rbind, run$valid))
  at <- match(fit$valid$step, steps)
  fit$history[at[!is.na(at)], c("valid_loss", "valid_accuracy")] <- fit$valid[!is.na(at), c("loss", "accuracy")]
  dimnames(sent) <- list(fit$clusters, paste0("expert", seq_len(layer$experts)), steps)
  fit$sent <- sent
  fit$gates <- list(
    step = vapply(run$gates, function(g) as.integer(g$step), 0L),
    gate = array(unlist(lapply(run$gates, `[[`, "gate")), c(dim(run$gates[[1L]]$gate), length(run$gates)))
  )
  final <- core_call(core_layer_predict(prediction_layer(layer), data, fit$theta, fit$control$threads))
  fit$accuracy <- mean(class_codes(final$output) == data$y)
  fit$loss <- output_loss(final$output, data$y, layer)
  fit$entropy <- if (known) dispatch_entropy(data$cluster, final$expert) else NA_real_
  fit$load <- stats::setNames(
    tabulate(final$expert + 1L, layer$experts) / length(final$expert), dimnames(sent)[[2L]]
  )
  fit$status <- run$status
  fit$message <- layer_message(fit)
  if (run$status %in% c("diverged", "interrupted")) warn_convergence(fit$message)
  fit
}

layer_message <- function(fit) {
  step <- fit$run$state$step
  switch(fit$run$status,
    steps = sprintf("all %d steps done", step),
    stop_loss = sprintf("stopped at step %d: the loss reached %s", step, format(fit$control$stop_loss, digits = 4L)),
    stop_rise = sprintf(
      "stopped at step %d: the loss rose by %s above its minimum", step, format(fit$control$stop_rise)
    ),
    early = sprintf(
      "stopped at step %d: the validation loss was lowest at step %d", step, as.integer(fit$run$best$step)
    ),
    diverged = sprintf(
      "DIVERGED at step %d; the parameters are those of the lowest loss. Try smaller rates", step
    ),
    interrupted = sprintf("UNFINISHED: interrupted after %d of %d steps", step, fit$steps)
  )
}
