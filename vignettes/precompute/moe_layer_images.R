# The runs behind the vignette "moe-layer-images": handwritten digits (USPS, 16 x 16, from the package IMIFA) and next
# characters (Emma, from the package janeaustenr), both from CRAN. One file a task in `work`; what is there is not made
# again. From the root of the repository:
#   Rscript vignettes/precompute/moe_layer_images.R [work folder]
# The results go to inst/extdata/moe-layer/images.csv, the settings of the first two tasks to image-settings.csv there.

library(cosmoe) # nolint: undesirable_function_linter.
arguments <- c(commandArgs(TRUE), "")
work <- if (nzchar(arguments[1L])) arguments[1L] else ".build/moe-layer-images"
dir.create(work, recursive = TRUE, showWarnings = FALSE)
seeds <- 1:5
gates <- list(
  linear = router_linear(), cosine = router_cosine(scale = 10),
  `perturbed cosine` = router_perturbed_cosine(scale = 10)
)

# ---- digits ----------------------------------------------------------------------------------------------------------

digits <- local({
  place <- new.env()
  utils::data("USPSdigits", package = "IMIFA", envir = place)
  read <- function(part) {
    # Rows of a digit lie one after the other: pixel (column, row) of the transposed matrix.
    list(x = (as.matrix(part[, -1L]) + 1) / 2, y = part[, 1L])
  }
  lapply(place$USPSdigits, read)
})

# All images turned by `angle` degrees about the centre, bilinear, white outside.
rotate <- function(x, angle) {
  grid <- expand.grid(column = 1:16, row = 1:16)
  turn <- angle * pi / 180
  column <- 8.5 + cos(turn) * (grid$column - 8.5) + sin(turn) * (grid$row - 8.5)
  row <- 8.5 - sin(turn) * (grid$column - 8.5) + cos(turn) * (grid$row - 8.5)
  out <- 0 * x
  for (dc in 0:1) for (dr in 0:1) {
    c0 <- floor(column) + dc
    r0 <- floor(row) + dr
    weight <- (1 - abs(column - c0)) * (1 - abs(row - r0))
    inside <- c0 >= 1 & c0 <= 16 & r0 >= 1 & r0 <= 16
    source <- (r0[inside] - 1) * 16 + c0[inside]
    out[, inside] <- out[, inside] + x[, source, drop = FALSE] * rep(weight[inside], each = nrow(x))
  }
  out
}

# A constant beside the pixels gives filters and gate an intercept.
with_constant <- function(x) cbind(unname(x), 1)

learn <- function(train, seed, experts, filters, router = "linear", steps = 400, batch = "full", gate_rate = 3e-4,
                  activation = "gelu", rate = 0.01, balance = 0.1, every = 50, ...) {
  fit_moe_layer(
    train$x, train$y, experts = experts, filters = filters, activation = activation, router = router, steps = steps,
    seed = seed, optimizer = "adam", rates = c(expert = rate, gate = gate_rate), balance = balance, batch = batch,
    init_scale = 1, every = every, ...
  )
}

# A fifth of the samples to judge by, the others to learn from.
split_samples <- function(data, seed) {
  n <- length(data$y)
  set.seed(seed)
  judged <- seq_len(n) %in% sample(n, n %/% 5)
  part <- function(rows) list(x = data$x[rows, , drop = FALSE], y = data$y[rows])
  list(train = part(!judged), valid = part(judged))
}

# The gates live on different scales: each gets the rate with the lowest loss on a fifth of the training samples.
choose_rate <- function(train, router, ...) {
  parts <- split_samples(train, 1)
  rates <- c(3e-4, 3e-3, 3e-2)
  losses <- vapply(rates, function(rate) {
    fit <- learn(parts$train, 1, router = router, gate_rate = rate, valid = parts$valid, patience = 1000, ...)
    min(fit$valid$loss)
  }, 0)
  rates[which.min(losses)]
}
once <- function(name, code) {
  file <- file.path(work, paste0("chosen_", name, ".rds"))
  if (!file.exists(file)) saveRDS(code, file)
  readRDS(file)
}

accuracy <- function(fit, test) 100 * mean(predict(fit, test$x) == test$y)

# Half of the images turned by 30 degrees; the digit is the cluster.
rotated_or_not <- function(part, seed) {
  set.seed(seed)
  turned <- stats::runif(nrow(part$x)) < 0.5
  x <- part$x
  x[turned, ] <- rotate(x[turned, ], 30)
  list(x = with_constant(x), y = ifelse(turned, 1, -1), cluster = part$y)
}
which_digit <- function(part, seed) list(x = with_constant(part$x), y = part$y, cluster = part$y)

# The first two tasks, in several sizes: networks of as many filters as a sample of the mixture sees, mixtures, and for
# the second size a network with all the mixture's filters. With one output a sum of units that are never negative could
# not say no: no GELU in the first task.
classification <- list(
  rotate = list(
    name = "rotated or not", data = rotated_or_not, filters = c(2, 4, 8), activation = c("cubic", "tanh")
  ),
  plain = list(name = "plain", data = which_digit, filters = c(10, 20), activation = c("gelu", "tanh"))
)
models_of <- function(task) {
  single <- c(task$filters, 8 * task$filters[2L])
  data.frame(
    model = c(sprintf("single, %d filters", single), sprintf("MoE, 8 x %d filters", task$filters)),
    experts = rep(c(1, 8), c(length(single), length(task$filters))), filters = c(single, task$filters)
  )
}

# The settings of a model, each by its own: of a grid those with the highest accuracy on a fifth of the training digits,
# mean over three splits, at the pause where it is highest. No test digit is looked at.
choose_settings <- function(task, experts, filters) {
  grid <- expand.grid(
    activation = task$activation, rate = c(0.001, 0.003, 0.01), balance = c(0.1, 0.3), gate_rate = c(0.003, 0.03),
    stringsAsFactors = FALSE
  )
  if (experts == 1) grid <- grid[!duplicated(grid[c("activation", "rate")]), ]
  pauses <- lapply(seq_len(nrow(grid)), function(g) {
    Reduce(`+`, lapply(1:3, function(split) {
      parts <- lapply(split_samples(digits$train, split), task$data, seed = split)
      fit <- do.call(learn, c(
        list(parts$train, split, experts, filters, steps = 3000, batch = 250, every = 100),
        list(valid = parts$valid, patience = 1000), grid[g, ]
      ))
      data.frame(steps = fit$valid$step, valid = fit$valid$accuracy, loss = fit$valid$loss) / 3
    }))
  })
  best <- which.max(vapply(pauses, function(p) max(p$valid), 0))
  at <- pauses[[best]][which.max(pauses[[best]]$valid), ]
  cbind(grid[best, ], steps = round(at$steps), valid = 100 * at$valid, row.names = NULL)
}
chosen <- function(key, row) {
  once(paste(key, row$experts, row$filters, sep = "_"), {
    choose_settings(classification[[key]], row$experts, row$filters)
  })
}

classify <- function(key, seed) {
  task <- classification[[key]]
  train <- task$data(digits$train, seed)
  test <- task$data(digits$test, 100 + seed)
  models <- models_of(task)
  do.call(rbind, lapply(split(models, seq_len(nrow(models))), function(row) {
    settings <- as.list(chosen(key, row))
    settings$valid <- NULL
    fit <- do.call(learn, c(list(train, seed, row$experts, row$filters, batch = 250), settings))
    expert <- predict(fit, test$x, type = "expert")
    data.frame(
      task = task$name, model = row$model, domain = NA, value = accuracy(fit, test),
      entropy = dispatch_entropy(test$cluster, expert)
    )
  }))
}

# Six rotations are six domains; one is left out of the training.
angles <- seq(0, 75, 15)
domains <- local({
  kept <- NULL
  function() {
    if (is.null(kept)) {
      set.seed(1)
      group <- sample(rep_len(seq_along(angles), nrow(digits$train$x)))
      kept <<- lapply(seq_along(angles), function(a) {
        rows <- which(group == a)[1:1000]
        list(x = with_constant(rotate(digits$train$x[rows, ], angles[a])), y = digits$train$y[rows])
      })
    }
    kept
  }
})

stack_samples <- function(parts) {
  list(x = do.call(rbind, lapply(parts, `[[`, "x")), y = unlist(lapply(parts, `[[`, "y")))
}

task_domains <- function(seed) {
  parts <- domains()
  rates <- lapply(names(gates), function(gate) {
    once(paste0("domains_", gate), choose_rate(
      stack_samples(parts[2:5]), gates[[gate]], experts = 8, filters = 20, steps = 250
    ))
  })
  names(rates) <- names(gates)
  do.call(rbind, lapply(seq_along(angles), function(left) {
    train <- stack_samples(parts[-left])
    do.call(rbind, lapply(names(gates), function(gate) {
      fit <- learn(train, seed, 8, 20, router = gates[[gate]], steps = 250, gate_rate = rates[[gate]])
      data.frame(
        task = "domains", model = gate, domain = angles[left], value = accuracy(fit, parts[[left]]), entropy = NA
      )
    }))
  }))
}

# ---- characters ------------------------------------------------------------------------------------------------------

# The six characters before each one, as indicators of 27 symbols; 60,000 characters of Emma to learn from, the next
# 20,000 to judge.
text <- local({
  kept <- NULL
  function() {
    if (is.null(kept)) {
      words <- tolower(paste(janeaustenr::emma, collapse = " "))
      words <- gsub(" +", " ", gsub("[^a-z]+", " ", words))
      code <- match(strsplit(words, "")[[1L]], c(letters, " "))
      windows <- function(at) {
        x <- matrix(0, length(at), 6 * 27)
        for (lag in 1:6) x[cbind(seq_along(at), (lag - 1) * 27 + code[at - lag])] <- 1
        list(x = with_constant(x), y = code[at])
      }
      kept <<- list(train = windows(1000 + seq_len(60000)), test = windows(61000 + seq_len(20000)))
    }
    kept
  }
})

task_text <- function(seed) {
  data <- text()
  models <- c(list(single = router_linear()), gates)
  do.call(rbind, lapply(names(models), function(name) {
    single <- name == "single"
    rate <- if (single) {
      3e-4
    } else {
      once(paste0("text_", name), choose_rate(
        list(x = data$train$x[1:20000, ], y = data$train$y[1:20000]), models[[name]], experts = 8, filters = 54,
        steps = 500, batch = 500, rate = 0.003
      ))
    }
    fit <- learn(
      data$train, seed, if (single) 1 else 8, 54, router = if (single) "linear" else models[[name]], steps = 1500,
      batch = 500, rate = 0.003, gate_rate = rate
    )
    p <- predict(fit, data$test$x, type = "probability")
    p <- p[cbind(seq_along(data$test$y), match(data$test$y, as.integer(colnames(p))))]
    data.frame(task = "characters", model = name, domain = NA, value = -mean(log2(p)), entropy = NA)
  }))
}

# ---- all -------------------------------------------------------------------------------------------------------------

folder <- "inst/extdata/moe-layer"
for (key in names(classification)) for (m in seq_len(nrow(models_of(classification[[key]])))) {
  row <- models_of(classification[[key]])[m, ]
  message(key, ", ", row$model, ": ", paste(format(chosen(key, row)), collapse = " "))
}
settings <- do.call(rbind, lapply(names(classification), function(key) {
  models <- models_of(classification[[key]])
  own <- do.call(rbind, lapply(split(models, seq_len(nrow(models))), function(row) chosen(key, row)))
  own[models$experts == 1, c("balance", "gate_rate")] <- NA
  own$valid <- signif(own$valid, 6L)
  cbind(task = classification[[key]]$name, model = models$model, own)
}))
utils::write.csv(settings, file.path(folder, "image-settings.csv"), row.names = FALSE)

tasks <- list(
  rotate = function(seed) classify("rotate", seed), plain = function(seed) classify("plain", seed),
  domains = task_domains, text = task_text
)
results <- NULL
for (seed in seeds) for (name in names(tasks)) {
  file <- file.path(work, sprintf("%s_%d.rds", name, seed))
  if (!file.exists(file)) {
    began <- proc.time()
    part <- cbind(tasks[[name]](seed), seed = seed)
    saveRDS(part, paste0(file, ".part"))
    file.rename(paste0(file, ".part"), file)
    message(name, " ", seed, ": ", round(sum((proc.time() - began)[1:2])), " CPU s")
  }
  results <- rbind(results, readRDS(file))
  results$value <- signif(results$value, 6L)
  results$entropy <- signif(results$entropy, 4L)
  utils::write.csv(results, file.path(folder, "images.csv"), row.names = FALSE)
}
