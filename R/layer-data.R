# Samples and labels of the MoE layer: checked, and in the core's layout.

# An n x P x d array (or an n x d matrix, one patch) as a double array of d x P x n.
as_patches <- function(x, argument = "x") {
  expected <- "a finite numeric array of samples x patches x dimension, or a matrix of samples x dimension"
  if (is.data.frame(x)) x <- as.matrix(x)
  if (!is.numeric(x) || !length(dim(x)) %in% 2:3) stop_input(argument, x, expected)
  if (length(dim(x)) == 2L) dim(x) <- c(nrow(x), 1L, ncol(x))
  for (part in 1:3) {
    if (dim(x)[part] > 0L) next
    stop_input(argument, I(paste("one without", c("samples", "patches", "columns")[part])), expected)
  }
  # The sum shows missing and infinite entries without a copy; it may also overflow by itself.
  if (!is.finite(sum(x)) && !all(is.finite(x))) {
    stop_input(argument, I("one with missing or infinite entries"), expected)
  }
  x <- aperm(x, 3:1)
  storage.mode(x) <- "double"
  attributes(x) <- list(dim = dim(x))
  x
}

# Labels as the values that they stand for, and codes from 0.
as_labels <- function(y, n) {
  expected <- sprintf("%d labels without missing values: -1 and 1, a factor, or a vector of classes", n)
  if (!is.atomic(y) || !is.null(dim(y)) && length(dim(y)) > 1L) stop_input("y", y, expected)
  if (length(y) != n) stop_input("y", y, expected)
  if (anyNA(y)) stop_input("y", I("one with missing values"), expected)
  values <- if (is.factor(y)) factor(levels(y), levels(y)) else sort(unique(as.vector(y)))
  if (is.numeric(values) && any(values != round(values))) stop_input("y", I("one with fractions"), expected)
  present <- tabulate(match(y, values), length(values)) > 0L
  if (sum(present) < 2L) stop_input("y", I("labels of one class"), "labels of at least two classes")
  values <- values[present]
  if (is.factor(values)) values <- factor(values, values)
  list(values = values, codes = match(y, values) - 1L)
}

# Labels of new samples in the classes of the fit.
encode_labels <- function(object, y, n) {
  codes <- if (is.atomic(y)) match(as.vector(y), as.vector(object$classes)) - 1L
  if (length(codes) != n || anyNA(codes)) {
    stop_input("y", y, sprintf("%d labels among the classes of the fit (%s)", n, enumerate(object$classes, quote = "")))
  }
  codes
}

encode_cluster <- function(cluster, n) {
  if (is.null(cluster)) return(list(codes = NULL, levels = NULL))
  if (!is.atomic(cluster) || length(cluster) != n || anyNA(cluster)) {
    stop_input("cluster", cluster, sprintf("a vector of length %d without missing values", n))
  }
  cluster <- factor(cluster)
  list(codes = as.integer(cluster) - 1L, levels = levels(cluster))
}

# What the core calls data; features of the gate only where there is a choice.
layer_data <- function(layer, x, y, cluster = NULL, projection = NULL) {
  data <- list(
    x = x, y = y, cluster = cluster$codes, clusters = max(1L, length(cluster$levels)), zeta = NULL
  )
  if (layer$experts > 1L) {
    if (is.null(projection)) projection <- matrix(0, 0L, 0L)
    data$zeta <- core_call(core_layer_features(layer, data, projection))
  }
  data
}

layer_newdata <- function(object, x, argument = "x") {
  x <- as_patches(x, argument)
  if (dim(x)[1L] != object$size[["dimension"]] || dim(x)[2L] != object$size[["patches"]]) {
    stop_newdata(sprintf(
      "`%s` must have %d patches of dimension %d as in the fit, not %d of dimension %d.", argument,
      object$size[["patches"]], object$size[["dimension"]], dim(x)[2L], dim(x)[1L]
    ))
  }
  x
}

check_layer <- function(object, argument = "object") {
  if (!inherits(object, "moe_layer")) stop_input(argument, object, "a fit from fit_moe_layer()")
}
