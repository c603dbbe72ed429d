# The folder of a rate study: study.rds with the settings, and one file for each finished cell (a size and a replicate).
# Files appear by renaming, so they are there as a whole or not at all; compression brings a checksum.

stop_study <- function(...) stop_cosmoe("study", paste0(...))

# Settings by which a folder is recognised: everything but n and reps, in which a study may grow.
store_key <- function(study) {
  key <- unclass(study)[c("truth", "arms", "x", "sigma", "loss", "seed", "sample")]
  names(key)[names(key) == "arms"] <- "fits"
  key$cosmoe <- as.character(utils::packageVersion("cosmoe"))
  lapply(key, comparable)
}

open_store <- function(path, study) {
  if (!is.character(path) || length(path) != 1L || is.na(path) || !nzchar(path)) {
    stop_input("path", path, "the name of a folder")
  }
  if (file.exists(path) && !dir.exists(path)) stop_input("path", I("that of a file"), "the name of a folder")
  dir.create(path, recursive = TRUE, showWarnings = FALSE)
  if (file.access(path, 2L) != 0L) stop_input("path", I("one that cannot be written to"), "the name of a folder")
  path <- normalizePath(path)
  key <- store_key(study)
  file <- file.path(path, "study.rds")
  if (!file.exists(file)) {
    if (length(list.files(path, cell_pattern))) {
      stop_study("`", path, "` has replicates of a study, but not its settings (study.rds): use another folder.")
    }
    write_whole(key, file)
    return(path)
  }
  kept <- read_whole(file)
  if (!is.list(kept) || !setequal(names(kept), names(key))) {
    stop_study("The settings of the study in `", path, "` (study.rds) are damaged: use another folder.")
  }
  changed <- names(key)[!mapply(identical, key, kept[names(key)])]
  if (length(changed)) {
    stop_cosmoe(
      "study", sprintf(
        "`%s` holds a study with other settings: %s changed. Use another folder, or the old settings.", path,
        enumerate(changed, max = Inf)
      ),
      changed = changed
    )
  }
  path
}

cell_pattern <- "^n[0-9]+-rep[0-9]+[.]rds$"

cell_file <- function(store, n, rep) file.path(store, sprintf("n%d-rep%d.rds", n, rep))

write_cell <- function(store, cell, rows) {
  if (!is.null(store)) write_whole(list(n = cell$n, rep = cell$rep, rows = rows), cell_file(store, cell$n, cell$rep))
}

# Rows of each cell, NULL where there are none yet. Damaged files count as missing.
read_cells <- function(store, cells, study) {
  found <- vector("list", nrow(cells))
  if (is.null(store)) return(found)
  files <- cell_file(store, cells$n, cells$rep)
  there <- which(file.exists(files))
  for (i in there) {
    cell <- read_whole(files[i])
    if (is_cell(cell, cells[i, ], study)) found[[i]] <- cell$rows
  }
  damaged <- there[vapply(found[there], is.null, NA)]
  if (length(damaged)) {
    message(
      "Damaged in `", store, "`, computed again: ", enumerate(basename(files[damaged])), "."
    )
  }
  found
}

is_cell <- function(cell, wanted, study) {
  is.list(cell) && identical(cell$n, wanted$n) && identical(cell$rep, wanted$rep) && is.data.frame(cell$rows) &&
    identical(cell$rows$arm, names(study$arms)) && all(names(study$loss) %in% names(cell$rows))
}

write_whole <- function(object, file) {
  hidden <- tempfile(".writing-", dirname(file))
  saveRDS(object, hidden)
  if (!file.rename(hidden, file)) stop_study("Cannot write `", file, "`.")
}

read_whole <- function(file) tryCatch(readRDS(file), error = function(e) NULL, warning = function(w) NULL)
