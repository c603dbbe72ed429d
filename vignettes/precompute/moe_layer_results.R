# From the files of single runs to the small tables that the package ships, and the outcomes that must hold.

collect_results <- function(work, folder) {
  files <- list.files(work, "[.]rds$", full.names = TRUE)
  outputs <- lapply(files, readRDS)
  dir.create(folder, recursive = TRUE, showWarnings = FALSE)
  save_table <- function(table, name) {
    numbers <- vapply(table, is.double, NA)
    table[numbers] <- lapply(table[numbers], signif, 6L)
    utils::write.csv(table, file.path(folder, paste0(name, ".csv")), row.names = FALSE)
  }
  runs <- do.call(rbind, lapply(outputs, `[[`, "result"))
  keys <- c("kind", "protocol", "setting", "experts", "filters", "activation", "noise", "router", "balance", "start")
  runs <- runs[do.call(order, runs[keys]), ]
  save_table(runs, "runs")
  curves <- Filter(function(output) output$result$kind == "curve", outputs)
  if (length(curves)) {
    save_table(do.call(rbind, lapply(curves, function(output) {
      kept <- output$history[output$history$step %% 5L == 0L, c("step", "entropy", "accuracy")]
      data.frame(output$result[c("activation", "start")], kept, row.names = NULL)
    })), "curves")
  }
  for (name in c("products", "picture")) {
    tables <- Filter(Negate(is.null), lapply(outputs, `[[`, name))
    if (length(tables)) save_table(tables[[1L]], name)
  }
  outcomes <- check_outcomes(runs, utils::read.csv(file.path(folder, "published.csv")))
  save_table(outcomes, "outcomes")
  print(outcomes, row.names = FALSE)
  invisible(outcomes)
}

# What the reproduction must show, one row each.
check_outcomes <- function(runs, published) {
  outcome <- function(what, value, holds) data.frame(outcome = what, value = as.character(value), holds = holds)
  part <- function(kind, protocol, setting, activation) {
    runs[runs$kind == kind & runs$protocol == protocol & runs$setting == setting & runs$activation == activation, ]
  }
  rows <- list()
  for (setting in 1:4) {
    at <- published[published$setting == setting, ]
    cubic <- part("table", "notebook", setting, "cubic")
    linear <- part("table", "notebook", setting, "linear")
    if (nrow(cubic)) {
      within <- sprintf(
        "setting %d: nonlinear mean within two published SDs (%.2f +- %.2f)", setting, at$nonlinear, at$nonlinear_sd
      )
      median <- stats::median(cubic$accuracy)
      rows <- c(rows, list(
        outcome(
          within, sprintf("%.2f", mean(cubic$accuracy)),
          abs(mean(cubic$accuracy) - at$nonlinear) <= 2 * at$nonlinear_sd
        ),
        outcome(sprintf("setting %d: nonlinear median above 98 %%", setting), sprintf("%.2f", median), median > 98),
        outcome(sprintf("setting %d: nonlinear entropy below 0.3", setting), sprintf("%.3f", mean(cubic$entropy)),
                mean(cubic$entropy) < 0.3)
      ))
    }
    if (nrow(linear)) {
      rows <- c(rows, list(outcome(
        sprintf("setting %d: linear entropy above 1", setting), sprintf("%.3f", mean(linear$entropy)),
        mean(linear$entropy) > 1
      )))
    }
  }
  bound <- runs[runs$kind == "bound", ]
  if (nrow(bound)) {
    rows <- c(rows, list(outcome(
      sprintf("bound: single networks with %d activations at most 87.5 %%", nrow(bound)),
      sprintf("%.2f at most", max(bound$accuracy)), all(bound$accuracy <= 87.5)
    )))
  }
  do.call(rbind, rows)
}
