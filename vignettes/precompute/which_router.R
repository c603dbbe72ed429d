# Repeated 10-fold cross-validation of routers and of other regressions on real data; writes
# inst/extdata/which_router.csv, which the vignette "Which router?" reads. From the package's folder, with the package
# installed:
#
#   Rscript vignettes/precompute/which_router.R [repeats [workers [folder]]]
#
# Each result is a file in `folder` (.build/which_router), written when it is there: started again, the script goes on
# where it was. Random numbers go by data set, repeat and fold, whatever the number of workers.
library(cosmoe) # nolint: undesirable_function_linter.

arguments <- commandArgs(trailingOnly = TRUE)
argument <- function(i, default) if (length(arguments) >= i) arguments[i] else default
repeats <- as.integer(argument(1, "3"))
workers <- as.integer(argument(2, "1"))
folder <- argument(3, file.path(".build", "which_router"))
folds <- 10
dir.create(folder, recursive = TRUE, showWarnings = FALSE)

# ---- data ------------------------------------------------------------------------------------------------------------

from <- function(package, name) {
  holder <- new.env()
  utils::data(list = name, package = package, envir = holder)
  holder[[name]]
}

# The response first, then numeric covariates.
data_sets <- list(
  airquality = function() na.omit(airquality[c("Ozone", "Solar.R", "Wind", "Temp")]),
  Boston = function() from("MASS", "Boston")[c(14, 1:13)],
  cpus = function() {
    d <- from("MASS", "cpus")
    data.frame(log_perf = log(d$perf), d[2:7])
  },
  diamonds = function() {
    d <- as.data.frame(from("ggplot2", "diamonds"))
    set.seed(1)
    d <- d[sample(nrow(d), 1000), ]
    data.frame(
      log_price = log(d$price), log_carat = log(d$carat), cut = as.integer(d$cut), color = as.integer(d$color),
      clarity = as.integer(d$clarity), depth = d$depth, table = d$table
    )
  },
  ethanol = function() from("lattice", "ethanol")[c("NOx", "C", "E")],
  mcycle = function() from("MASS", "mcycle")[c("accel", "times")],
  Ozone = function() {
    d <- na.omit(from("mlbench", "Ozone"))[4:13]
    names(d) <- c(
      "ozone", "pressure", "wind", "humidity", "temp_sandburg", "temp_elmonte", "inversion", "gradient",
      "inversion_temp", "visibility"
    )
    d
  },
  quakes = function() quakes[c("stations", "lat", "long", "depth", "mag")],
  swiss = function() swiss
)

# ---- methods ---------------------------------------------------------------------------------------------------------

# Two experts. Ten starts of which two run to the end: a tenth of the default, for hundreds of fits.
moe <- function(router, train) {
  suppressWarnings(fit_cosine_moe(
    formula_of(train), train,
    k = 2, router = router, control = moe_control(n_starts = 10, n_long = 2)
  ))
}
formula_of <- function(train) reformulate(names(train)[-1], names(train)[1])

# Mean by flexmix: the best of ten starts by its likelihood, weights of the gate at new rows.
flexmix_mean <- function(train, test) {
  gate <- flexmix::FLXPmultinom(reformulate(names(train)[-1]))
  fit <- flexmix::initFlexmix(formula_of(train), train, k = 2, nrep = 10, verbose = FALSE, concomitant = gate)
  as.vector(flexmix::predict(fit, test, aggregate = TRUE)[[1]])
}

# Additive, by mgcv's fast method; covariates with few values enter linearly.
gam_mean <- function(train, test) {
  term <- function(name) {
    values <- length(unique(train[[name]]))
    if (values < 8) name else sprintf("s(%s, k = %d)", name, min(10, values, nrow(train) %/% ncol(train) - 1))
  }
  terms <- vapply(names(train)[-1], term, "")
  fit <- mgcv::bam(reformulate(terms, names(train)[1]), data = train, select = TRUE, discrete = TRUE)
  as.vector(predict(fit, test))
}

scales <- c(1, 3, 10)
routers <- c(
  list(linear = router_linear()),
  stats::setNames(lapply(scales, router_cosine), paste("cosine, scale", scales)),
  stats::setNames(
    lapply(scales, function(s) router_perturbed_cosine(scale = s)), paste("perturbed, tau 0.1, scale", scales)
  ),
  list(
    `perturbed, tau 0.01, scale 1` = router_perturbed_cosine(0.01, 0.01),
    `perturbed, tau 1, scale 1` = router_perturbed_cosine(1, 1)
  )
)
methods <- c(
  list(
    lm = function(train, test) predict(lm(formula_of(train), train), test),
    flexmix = flexmix_mean,
    gam = gam_mean,
    ranger = function(train, test) {
      fit <- ranger::ranger(formula_of(train), train, num.threads = 1, seed = sample.int(1e6, 1))
      predict(fit, test, num.threads = 1)$predictions
    }
  ),
  lapply(routers, function(router) function(train, test) predict(moe(router, train), test))
)
# Which of the scales three folds of the training rows prefer; the fit is then that of the router with this scale.
chosen <- list(
  `cosine, scale chosen` = names(routers)[2:4], `perturbed, tau 0.1, scale chosen` = names(routers)[5:7]
)

squared_error <- function(method, train, test) mean((test[[1]] - as.vector(method(train, test)))^2)

choose_router <- function(names, train) {
  inner <- sample(rep_len(1:3, nrow(train)))
  errors <- vapply(names, function(name) {
    mean(vapply(1:3, function(i) squared_error(methods[[name]], train[inner != i, ], train[inner == i, ]), numeric(1)))
  }, numeric(1))
  names[which.min(errors)]
}

# ---- tasks -----------------------------------------------------------------------------------------------------------

tasks <- expand.grid(
  fold = seq_len(folds), method = c(names(methods), names(chosen)), data = names(data_sets), rep = seq_len(repeats),
  stringsAsFactors = FALSE
)
file_of <- function(task) {
  file.path(folder, sprintf("%s-%d-%d-%s.rds", task$data, task$rep, task$fold, gsub("[^a-z0-9.]+", "_", task$method)))
}

# The mean squared error in the fold, or the name of the router that was chosen; a failure is kept with its reason.
run_task <- function(task) {
  file <- file_of(task)
  if (file.exists(file)) return(readRDS(file))
  data <- data_sets[[task$data]]()
  set.seed(1000 * match(task$data, names(data_sets)) + task$rep)
  fold <- sample(rep_len(seq_len(folds), nrow(data)))
  train <- data[fold != task$fold, ]
  test <- data[fold == task$fold, ]
  set.seed(1e5 * task$fold + 1000 * match(task$data, names(data_sets)) + task$rep)
  value <- tryCatch(
    if (task$method %in% names(chosen)) {
      choose_router(chosen[[task$method]], train)
    } else {
      squared_error(methods[[task$method]], train, test)
    },
    error = function(e) structure(NA_real_, reason = conditionMessage(e))
  )
  scratch <- tempfile(tmpdir = folder)
  saveRDS(value, scratch)
  file.rename(scratch, file)
  value
}

if (workers > 1) future::plan("multisession", workers = workers) else future::plan("sequential")
began <- Sys.time()
for (rep in seq_len(repeats)) {
  rows <- which(tasks$rep == rep)
  values <- future.apply::future_lapply(rows, function(i) run_task(tasks[i, ]),
    future.seed = NULL, future.packages = "cosmoe", future.scheduling = 10,
    future.globals = ls(globalenv()) # the methods call functions of this script
  )
  message(sprintf("repeat %d of %d: %.0f s", rep, repeats, as.numeric(Sys.time() - began, units = "secs")))

  # One row for each fold, one column for each method: the mean squared error in the fold.
  done <- cbind(tasks[tasks$rep == rep, ], value = I(values))
  wide <- lapply(split(done, list(done$fold, done$data), drop = TRUE), function(part) {
    value <- stats::setNames(part$value, part$method)
    for (name in names(chosen)) value[name] <- value[value[[name]]]
    size <- dim(data_sets[[part$data[1]]]())
    data.frame(
      data = part$data[1], rows = size[1], covariates = size[2] - 1, rep = rep, fold = part$fold[1],
      lapply(value, signif, 5), check.names = FALSE
    )
  })
  shipped <- rbind(if (rep > 1) shipped, do.call(rbind, wide))
  failed <- vapply(values, function(value) is.na(value[[1]]), NA)
  for (i in which(failed)) message(paste(tasks[rows[i], ], collapse = " "), ": ", attr(values[[i]], "reason"))
  utils::write.csv(shipped, file.path("inst", "extdata", "which_router.csv"), row.names = FALSE)
}
