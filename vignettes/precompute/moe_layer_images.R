# The runs behind the vignette "moe-layer-images": handwritten digits (USPS, 16 x 16, from the package IMIFA) and next
# characters (Emma, from the package janeaustenr), both from CRAN. One file a task in `work`; what is there is not made
# again. From the root of the repository:
#   Rscript vignettes/precompute/moe_layer_images.R [work folder]
# The results go to inst/extdata/moe-layer/images.csv.

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
                  activation = "gelu", rate = 0.01, ...) {
  fit_moe_layer(
    train$x, train$y, experts = experts, filters = filters, activation = activation, router = router, steps = steps,
    seed = seed, optimizer = "adam", rates = c(expert = rate, gate = gate_rate), balance = 0.1, batch = batch,
    init_scale = 1, every = 50, ...
  )
}

# The gates live on different scales: each gets the rate with the lowest loss on a fifth of the training samples.
choose_rate <- function(train, router, ...) {
  n <- length(train$y)
  set.seed(1)
  judged <- seq_len(n) %in% sample(n, n %/% 5)
  part <- function(rows) list(x = train$x[rows, , drop = FALSE], y = train$y[rows])
  rates <- c(3e-4, 3e-3, 3e-2)
  losses <- vapply(rates, function(rate) {
    fit <- learn(part(!judged), 1, router = router, gate_rate = rate, valid = part(judged), patience = 1000, ...)
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

# Half of the images turned by 30 degrees; the digit is the cluster. Cubic experts: with one output a sum of units that
# are never negative could not say no.
rotated_or_not <- function(part, seed) {
  set.seed(seed)
  turned <- stats::runif(nrow(part$x)) < 0.5
  x <- part$x
  x[turned, ] <- rotate(x[turned, ], 30)
  list(x = with_constant(x), y = ifelse(turned, 1, -1), cluster = part$y)
}

task_rotate <- function(seed) {
  train <- rotated_or_not(digits$train, seed)
  test <- rotated_or_not(digits$test, 100 + seed)
  models <- list(
    `single, 4 filters` = c(1, 4), `single, 32 filters` = c(1, 32), `MoE, 8 x 4 filters` = c(8, 4)
  )
  do.call(rbind, lapply(names(models), function(name) {
    fit <- learn(train, seed, models[[name]][1L], models[[name]][2L], activation = "cubic", gate_rate = 1e-4)
    expert <- predict(fit, test$x, type = "expert")
    data.frame(
      task = "rotated or not", model = name, domain = NA, value = accuracy(fit, test),
      entropy = dispatch_entropy(test$cluster, expert)
    )
  }))
}

task_plain <- function(seed) {
  train <- list(x = with_constant(digits$train$x), y = digits$train$y)
  test <- list(x = with_constant(digits$test$x), y = digits$test$y)
  models <- list(
    `single, 20 filters` = c(1, 20), `single, 160 filters` = c(1, 160), `MoE, 8 x 20 filters` = c(8, 20)
  )
  do.call(rbind, lapply(names(models), function(name) {
    fit <- learn(train, seed, models[[name]][1L], models[[name]][2L])
    expert <- predict(fit, test$x, type = "expert")
    data.frame(
      task = "plain", model = name, domain = NA, value = accuracy(fit, test), entropy = dispatch_entropy(test$y, expert)
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

tasks <- list(rotate = task_rotate, plain = task_plain, domains = task_domains, text = task_text)
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
  utils::write.csv(results, "inst/extdata/moe-layer/images.csv", row.names = FALSE)
}
