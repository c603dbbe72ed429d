# Runs the tasks and writes results.csv and results.md beside this file. `Rscript bench/run.R pass fit` runs these tasks
# only and prints them without writing; with `record` before them their rows replace the recorded ones. Needs the package installed; COSMOE_BENCH_ORACLE=1 recomputes oracle.csv (an
# hour).
arguments <- commandArgs(trailingOnly = FALSE)
bench_folder <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", arguments, value = TRUE)[1])))
chosen <- commandArgs(trailingOnly = TRUE)
record <- !length(chosen) || chosen[1] == "record"
chosen <- setdiff(chosen, "record")

library(cosmoe)
for (file in c("helper-reference.R", "helper-flexmix.R")) {
  source(file.path(bench_folder, "..", "tests", "testthat", file))
}
for (file in c("common.R", "datasets.R", "em_plain.R", list.files(bench_folder, "^task_.*[.]R$"))) {
  source(file.path(bench_folder, file))
}

tasks <- list(
  pass = task_pass, fit = task_fit, memory = task_memory, starts = task_starts, voronoi = task_voronoi, em = task_em,
  peers = task_peers, layer = task_layer, study = task_study, micro = task_micro, scale = task_scale,
  startup = task_startup
)
unknown <- setdiff(chosen, names(tasks))
if (length(unknown)) stop("unknown task: ", paste(unknown, collapse = ", "), call. = FALSE)

results <- NULL
for (name in if (length(chosen)) chosen else names(tasks)) {
  message("task ", name)
  results <- rbind(results, tasks[[name]]())
}
if (is.null(results)) quit(status = 0)
slower <- worse_than_recorded(results, bench_folder)
if (nrow(slower)) {
  message("Worse than the recorded figures by more than a fifth:")
  print(slower, row.names = FALSE, digits = 3)
}
print(results, row.names = FALSE, digits = 3)
if (record) write_results(results, describe_machine(), bench_folder, names(tasks))
promised <- results$met[!is.na(results$met)]
message(sprintf("%d of %d goals met", sum(promised), length(promised)))
