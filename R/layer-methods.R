# What a layer does with new samples, and what is printed.

# The layer as it predicts: the paper's text draws no noise then, the notebooks do.
prediction_layer <- function(layer, noise = NULL, seed = NULL) {
  if (is.null(noise)) noise <- if (layer$protocol == "paper") "none" else layer$noise
  layer$noise <- check_choice(noise, layer_noises)
  if (!is.null(seed)) layer$seed <- layer_seed(seed)
  layer
}

# Codes from 0 of the class with the largest output; the first among equal ones.
class_codes <- function(output) {
  if (ncol(output) == 1L) return(as.integer(output[, 1L] > 0))
  max.col(output, ties.method = "first") - 1L
}

predict_layer <- function(object, x, noise = NULL, seed = NULL, threads = 1L) {
  layer <- prediction_layer(object$layer, noise, seed)
  data <- layer_data(layer, x, NULL, NULL, object$projection)
  core_call(core_layer_predict(layer, data, object$theta, threads))
}

# The parameters of one expert as those of a layer that has no other.
expert_theta <- function(object, m) {
  parts <- coef.moe_layer(object)
  c(parts$filters[, , m], parts$bias[, m])
}

#' Parameters of a sparse mixture-of-experts layer
#'
#' @param object A fit from [fit_moe_layer()].
#' @param ... Nothing: any further argument is an error.
#' @return A list with `filters` (J x d x M array), `bias` (J x M matrix, 0 rows in the protocol `"paper"`) and `gate`
#'   (q x M matrix, the router's \eqn{\beta_m}; 0 rows for one expert).
#' @seealso [fit_moe_layer()].
#' @examples
#' data <- simulate_patches(1, n = 200, seed = 1)
#' fit <- fit_moe_layer(data$x, data$y, experts = 2, steps = 10, seed = 1)
#' str(coef(fit))
#' @export
coef.moe_layer <- function(object, ...) {
  check_dots_empty(...)
  layer <- object$layer
  sizes <- c(layer$filters * object$size[["dimension"]], if (layer$protocol == "notebook") layer$filters else 0L)
  ends <- cumsum(c(0, sizes * layer$experts, length(object$theta) - sum(sizes) * layer$experts))
  part <- function(i) object$theta[ends[i] + seq_len(ends[i + 1L] - ends[i])]
  list(
    filters = array(part(1L), c(layer$filters, object$size[["dimension"]], layer$experts)),
    bias = matrix(part(2L), sizes[2L], layer$experts),
    gate = matrix(part(3L), ncol = layer$experts)
  )
}

#' Predictions of a sparse mixture-of-experts layer
#'
#' @param object A fit from [fit_moe_layer()].
#' @param newdata Samples: an array or matrix with the patches and the dimension of the fit.
#' @param type `"class"`; `"probability"` of each class; `"expert"`, the chosen ones; or `"gate"`, the softmax of the
#'   scores h, without noise.
#' @param noise `NULL` for the protocol's: `"paper"` predicts without routing noise, `"notebook"` with the noise of
#'   training. Or one of `"uniform"`, `"gaussian"`, `"none"`.
#' @param seed `NULL` for the seed of the fit, or another whole number: predictions with noise are random.
#' @param threads Number of threads.
#' @param ... Nothing: any further argument is an error.
#'
#' @return For `"class"` a vector of the type of the labels (a factor if they were one). For `"probability"` a matrix
#'   with a column for each class: softmax(F), for two classes in the protocol `"paper"` the logistic function of F. For
#'   `"expert"` a vector of whole numbers, or a matrix of `top_k` columns, best first. For `"gate"` a matrix with a
#'   column for each expert. Samples that do not fit the layer stop with a `cosmoe_error_newdata`.
#' @seealso [fit_moe_layer()].
#' @examples
#' data <- simulate_patches(1, n = 300, seed = 1)
#' fit <- fit_moe_layer(data$x, data$y, experts = 4, steps = 50, seed = 1)
#' table(predict(fit, data$x), data$y)
#' head(predict(fit, data$x, type = "gate"))
#' @export
predict.moe_layer <- function(object, newdata, type = c("class", "probability", "expert", "gate"), noise = NULL,
                              seed = NULL, threads = 1, ...) {
  check_dots_empty(...)
  type <- check_choice(type, c("class", "probability", "expert", "gate"))
  if (missing(newdata)) stop_input("newdata", I("missing"), "samples in the form of the fit's `x`")
  x <- tryCatch(
    layer_newdata(object, newdata, "newdata"), cosmoe_error_input = function(e) stop_newdata(conditionMessage(e))
  )
  values <- predict_layer(object, x, noise, seed, check_count(threads))
  if (type == "class") return(object$classes[class_codes(values$output) + 1L])
  if (type == "expert") {
    expert <- values$expert + 1L
    return(if (ncol(expert) == 1L) expert[, 1L] else expert)
  }
  if (type == "gate") {
    colnames(values$gate) <- names(object$load)
    return(values$gate)
  }
  output <- values$output
  p <- if (ncol(output) == 1L) cbind(stats::plogis(-output), stats::plogis(output)) else exp(log_softmax(output))
  colnames(p) <- as.character(object$classes)
  p
}

#' Printing and summarising a sparse mixture-of-experts layer
#'
#' @description
#' `print()` says what was trained and how it ended; `summary()` adds the training in a few rows and where the clusters
#' went.
#'
#' @param object,x A fit from [fit_moe_layer()], or for `print()` its summary.
#' @param digits Number of significant digits.
#' @param ... Nothing: any further argument is an error.
#'
#' @details
#' Loss, accuracy, load and dispatch entropy are those of the training samples in prediction mode, with the noise that
#' the protocol has there. The history is of the batches, with the noise of training.
#'
#' @return `summary()`: an object of class `summary.moe_layer`, a list with `fit`, `history` (some rows of it),
#'   `dispatch` (clusters x experts at the last step, or `NULL`) and `notes`. `print()`: its argument, invisibly.
#' @seealso [plot.moe_layer()].
#' @examples
#' data <- simulate_patches(1, n = 300, seed = 1)
#' fit <- fit_moe_layer(data$x, data$y, experts = 4, steps = 50, seed = 1, cluster = data$cluster)
#' fit
#' summary(fit)
#' @export
print.moe_layer <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  layer <- x$layer
  kind <- if (layer$experts == 1L) "Single network" else "Sparse mixture-of-experts layer"
  cat(kind, ", protocol \"", layer$protocol, "\"\n\n", sep = "")
  print_line(sprintf(
    "Experts: %d x %d filters, %s; %s of dimension %d", layer$experts, layer$filters, layer$activation,
    count_words(x$size[["patches"]], "patch", "patches"), x$size[["dimension"]]
  ))
  if (layer$experts > 1L) {
    print_line(sprintf("Router: %s; %s noise%s", format(x$router), if (layer$noise == "none") "no" else layer$noise,
                       if (layer$balance > 0) sprintf("; balance %s", format(layer$balance)) else ""))
  }
  print_line(sprintf(
    "Training: %s, %s; %s", if (x$control$optimizer == "ngd") "normalised gradient descent" else "Adam",
    if (x$control$batch == 0L) "full batch" else sprintf("batches of %d", x$control$batch), x$message
  ))
  print_line(sprintf(
    "%d samples, %d classes: loss %s, accuracy %s %%", x$size[["samples"]], layer$classes,
    format(x$loss, digits = digits), format(100 * x$accuracy, digits = digits)
  ))
  if (layer$experts > 1L) {
    print_line("Load of the experts: ", paste(format(round(x$load, 3L)), collapse = ", "))
  }
  if (!is.na(x$entropy)) print_line("Dispatch entropy: ", format(round(x$entropy, 4L)))
  print_notes(layer_notes(x))
  invisible(x)
}

layer_notes <- function(fit) {
  if (fit$layer$experts == 1L) return(character())
  unused <- which(fit$load == 0)
  c(
    if (max(fit$load) == 1) {
      sprintf("The router sends every sample to one expert (%s): the layer is a single network.",
              names(fit$load)[which.max(fit$load)])
    } else if (length(unused)) {
      sprintf("%d of %d experts see no sample.", length(unused), fit$layer$experts)
    }
  )
}

#' @rdname print.moe_layer
#' @export
summary.moe_layer <- function(object, ...) {
  check_dots_empty(...)
  rows <- unique(round(seq(1, nrow(object$history), length.out = min(6L, nrow(object$history)))))
  empty <- vapply(object$history, function(column) all(is.na(column)), NA)
  steps <- dim(object$sent)[3L]
  structure(
    list(
      fit = object, history = object$history[rows, !empty, drop = FALSE],
      dispatch = if (!is.null(object$clusters) && steps > 0L) object$sent[, , steps],
      notes = layer_notes(object)
    ),
    class = "summary.moe_layer"
  )
}

#' @rdname print.moe_layer
#' @export
print.summary.moe_layer <- function(x, digits = max(3L, getOption("digits") - 3L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  print(x$fit, digits = digits)
  if (nrow(x$history)) {
    cat("\nTraining:\n")
    print(x$history, digits = digits, row.names = FALSE)
  }
  if (!is.null(x$dispatch) && x$fit$layer$experts > 1L) {
    cat("\nSamples of each cluster sent to each expert, last step:\n")
    print(x$dispatch)
  }
  invisible(x)
}
