#' Choice of the number of experts
#'
#' @description
#' Fits the model for every number of experts in `k` and chooses one by an information criterion or by cross-validation.
#'
#' @param formula A formula as for [fit_cosine_moe()] (or the name `x` and a matrix).
#' @param x,y,data As for [fit_cosine_moe()].
#' @param k Numbers of experts to try, distinct whole numbers of at least 1. A number that the data cannot support (more
#'   experts or parameters than rows) is a row of the table with the reason, not an error.
#' @param criterion Which criterion decides; smaller is better in all. `"BIC"`, the default, and `"AIC"`: of
#'   [logLik()][logLik.cosine_moe], `"ICL"`: see [ICL()], for `method = "em"` only. `"cv"`: held-out loss by
#'   cross-validation.
#' @param method As for [fit_cosine_moe()].
#' @param folds,repeats For `"cv"`: number of folds, and how often the rows are cut into folds anew, whole numbers. The
#'   default of 10 folds is the usual compromise between bias and time.
#' @param group For `"cv"`: `NULL` to draw the folds from the rows, or what tells groups of rows that must be left out
#'   together: the name of a column of `data`, or a vector with one element for each row of the data (before `subset`
#'   and `na.action`), without missing values.
#' @param fold_starts For `"cv"`: most starts to draw in each fold (never more than `control$n_starts`), beside the
#'   split solutions of the model with one expert less. The default 20 keeps the folds affordable.
#' @param keep_fits Whether the result keeps all fits or only the chosen one.
#' @param ... For `select_experts()`: further arguments of [fit_cosine_moe()], but not `start`. For `plot()`, graphical
#'   parameters for [graphics::par()]. Otherwise nothing: any further argument is an error.
#' @param digits Number of significant digits.
#' @param row.names,optional As for the generic function; they do nothing.
#'
#' @details
#' *Sweep.* Each k begins from the solution before it, its experts doubled in turn, beside its own starts; where `k` has
#' gaps the models in between are searched too, as by [fit_cosine_moe()]. Afterwards each k is tried with two experts of
#' the next larger solution merged (the cheapest three merges, see [merge_experts()]). The table is monotone: a larger k
#' never has a lower likelihood (a larger sum of squares) than a smaller one, except for sparse gates (`top_k`), where
#' larger models do not contain smaller ones. Solutions with the status `"degenerate"`, whose likelihood grows without
#' limit, take no part in this, and are not chosen while there is another.
#'
#' *Information criteria.* In BIC and ICL n is the number of rows with positive weight, whatever their weights, as for
#' [stats::BIC()]; the log-likelihood has the weights. Where a weight counts equal rows, put the rows in instead.
#' Degrees of freedom are the identifiable parameters of the model (for least squares plus one for sigma, with Gaussian
#' errors). `fit$df`, and with it `BIC(fit)`, may be smaller where a solution has flat
#' directions of its own, such as a gate that cuts between two rows; here that earns nothing. More experts than the
#' truth are not a regular model, so that AIC and BIC are a rule of thumb; AIC chooses too many. If least squares fits
#' the data exactly for some k, the smallest of these is chosen.
#'
#' *Cross-validation.* The loss of held-out rows is, for `"ls"`, the squared error, for `"em"`, minus the logarithm of
#' the predictive density, both as means with the weights. Folds are drawn after `subset` and `na.action`; with groups
#' each goes, in random order, to the fold with fewest rows. In each fold all k are searched anew from the other rows
#' alone, weights and offsets included. Columns of the model matrix are made once from all rows (bases such as splines
#' have their knots from there). A column that is constant without the held-out rows, such as the indicator of a level
#' that occurs only there, is left out of that fold's fits, and held-out rows with another value in it cannot be
#' predicted: they do not count, for any k, and `cv$folds` says how many they are. A k that fails in a fold has no
#' cross-validation. The standard error is the standard deviation of the folds' losses over the square root of `folds`.
#'
#' *Random numbers and workers.* `set.seed()` reproduces everything, whatever the current `future::plan()`, over which
#' starts and folds are spread. An interrupt stops with a `cosmoe_error_interrupt`, or with `moe_control(on_interrupt =
#' "return")` gives what has been fitted so far.
#'
#' @section Which way to trust when:
#' BIC to count experts, ICL to count clusters, cross-validation to predict. See the same section of [merge_experts()]
#' for a comparison on simulated data, and [test_experts()] for a test.
#'
#' @return An object of class `select_experts`, a list: `k`, the chosen number; `criterion`; `table`, a data frame with
#'   a row for each k: `k`, `df`, `logLik`, `sse` (`"ls"`), `AIC`, `BIC`, `ICL` (`"em"`), `cv` and `cv_se` (if asked),
#'   `status` of convergence (`"failed"` where there is no fit), `flags` (diagnostics of the fit that are not empty,
#'   such as `empty`, `runaway` or `spike`) and `reason` (of a failure); `best`, the chosen fit, a `cosine_moe`; `fits`,
#'   all fits by name k (`NULL` for failures), or `NULL` without `keep_fits`; `cv`, a list of `folds` (a data frame:
#'   `repeat`, `fold`, `rows`, `unpredicted`), `loss` (a matrix, folds by k) and `assignment` (fold of each row, a
#'   column for each repeat); `call`. `as.data.frame()` gives the table. Bad arguments stop with a `cosmoe_error_input`;
#'   if all k fail, the first error comes.
#'
#' @references Biernacki, C., Celeux, G. and Govaert, G. (2000). Assessing a mixture model for clustering with the
#'   integrated completed likelihood. IEEE Transactions on Pattern Analysis and Machine Intelligence 22, 719-725.
#' @references Smyth, P. (2000). Model selection for probabilistic clustering using cross-validated likelihood.
#'   Statistics and Computing 10, 63-72.
#' @seealso [merge_experts()], [test_experts()], [fit_cosine_moe()].
#' @examples
#' set.seed(1)
#' chosen <- select_experts(eruptions ~ waiting, faithful,
#'   k = 1:3, method = "em", router = "linear", control = moe_control(n_starts = 5)
#' )
#' chosen
#' plot(chosen)
#' coef(chosen$best, "experts")
#' @export
select_experts <- function(x, ...) UseMethod("select_experts")

#' @rdname select_experts
#' @export
select_experts.formula <- function(formula, data, k = 1:6, criterion = c("BIC", "ICL", "AIC", "cv"),
                                   method = c("ls", "em"), folds = 10, repeats = 1, group = NULL, fold_starts = 20,
                                   keep_fits = TRUE, ...) {
  plan <- sweep_plan(k, criterion, method, folds, repeats, fold_starts, keep_fits)
  env <- parent.frame()
  own <- match.call()
  call <- inner_call(own, fit_cosine_moe.formula, plan$method)
  settings <- sweep_settings(call, env)
  value <- function(name) if (!is.null(call[[name]])) eval(call[[name]], env)
  frame <- if (missing(data)) NULL else data
  prepared <- data_from_formula(formula, frame, call, env, value("contrasts"), settings$likelihood)
  if (!isTRUE(value("model"))) prepared$model <- NULL
  group <- check_given(group)
  group <- group_of_rows(group, formula, frame, call, env, length(prepared$y))
  run_sweep(prepared, settings, plan, group, call, own)
}

#' @rdname select_experts
#' @export
select_experts.default <- function(x, y, k = 1:6, criterion = c("BIC", "ICL", "AIC", "cv"), method = c("ls", "em"),
                                   folds = 10, repeats = 1, group = NULL, fold_starts = 20, keep_fits = TRUE, ...) {
  if (missing(x)) stop_input("x", I("missing"), "the first argument, a formula or a matrix")
  plan <- sweep_plan(k, criterion, method, folds, repeats, fold_starts, keep_fits)
  env <- parent.frame()
  own <- match.call()
  call <- inner_call(own, fit_cosine_moe.default, plan$method)
  settings <- sweep_settings(call, env)
  if (missing(y)) stop_input("y", I("missing"), "a numeric vector")
  value <- function(name) if (!is.null(call[[name]])) eval(call[[name]], env)
  prepared <- data_from_matrix(
    x, y, value("z"), value("weights"), value("offset"), if (is.name(call$y)) as.character(call$y) else "y",
    settings$likelihood
  )
  group <- check_given(group)
  if (!is.null(group)) group <- check_group(group, length(prepared$y))
  run_sweep(prepared, settings, plan, group, call, own)
}

# ---- arguments -------------------------------------------------------------------------------------------------------

sweep_plan <- function(k, criterion, method, folds, repeats, fold_starts, keep_fits) {
  method <- check_choice(method, c("ls", "em"))
  criterion <- check_choice(criterion, c("BIC", "ICL", "AIC", "cv"))
  if (criterion == "ICL" && method == "ls") {
    stop_input("criterion", criterion, "\"BIC\", \"AIC\" or \"cv\" for least squares, which has no responsibilities")
  }
  list(
    k = check_counts_of(k), criterion = criterion, method = method, folds = check_count(folds, lower = 2L),
    repeats = check_count(repeats), fold_starts = check_count(fold_starts), keep_fits = check_flag(keep_fits)
  )
}

# Distinct whole numbers of at least 1, in increasing order.
check_counts_of <- function(k) {
  valid <- is.numeric(k) && !is.object(k) && length(k) > 0L && all(is.finite(k)) && all(k == round(k)) &&
    all(k >= 1) && all(k <= .Machine$integer.max) && !anyDuplicated(k)
  if (!valid) stop_input("k", k, "distinct whole numbers of at least 1")
  sort(as.integer(k))
}

# The call of fit_cosine_moe() for one k (set later) that the arguments in `...` make.
inner_call <- function(own, fun, method) {
  call <- own
  call[c("criterion", "folds", "repeats", "group", "fold_starts", "keep_fits", "k")] <- NULL
  unknown <- setdiff(names(call)[-1L], c(names(formals(fun)), ""))
  if (length(unknown) || any(!nzchar(names(call)[-1L]))) {
    words <- if (length(unknown)) enumerate(unknown) else "one without a name"
    stop_cosmoe("input", sprintf("Unused argument: %s.", words), argument = unknown, expected = "nothing")
  }
  if ("start" %in% names(call)) stop_input("start", I("given"), "left out: each k has starts of its own")
  call[[1L]] <- quote(fit_cosine_moe)
  call$method <- method
  call
}

sweep_settings <- function(call, env) {
  given <- as.list(call)[intersect(names(call), c("router", "expert", "standardize", "control", "family", "sigma"))]
  given <- lapply(given, eval, env)
  defaults <- list(router = "perturbed_cosine", expert = "linear", standardize = TRUE, control = moe_control())
  defaults[names(given)] <- given
  router <- as_router(defaults$router)
  # A sparse gate may have more experts than the smallest k: each k is checked when its turn comes.
  defaults$router <- router
  settings <- do.call(fit_settings, c(list(k = max(1L, router$top_k), method = call$method), defaults))
  settings[setdiff(names(settings), "k")]
}

# An argument that cannot be evaluated, such as the name of a column without quotes.
check_given <- function(group) {
  tryCatch(group, error = function(e) {
    stop_input("group", I(paste0("one that cannot be evaluated (", conditionMessage(e), ")")),
               "the name of a column in quotes, or a vector")
  })
}

# The groups of the rows that the model frame keeps.
group_of_rows <- function(group, formula, data, call, env, n) {
  if (is.null(group)) return(NULL)
  if (is.character(group) && length(group) == 1L) {
    if (!is.list(data) || !group %in% names(data)) stop_input("group", group, "a column of `data`, or a vector")
    group <- data[[group]]
  }
  group <- check_group(group, if (is.data.frame(data)) nrow(data))
  frame <- tryCatch(
    eval_frame(as_formula(formula), as_data(data), call, env, c("subset", "weights", "na.action", "offset"),
               group = group),
    error = function(e) stop_input("group", group, "a vector with one element for each row of the data")
  )
  check_group(frame[["(group)"]], n)
}

check_group <- function(group, n = length(group)) {
  if (is.null(n)) n <- length(group)
  if (!is.atomic(group) || !is.null(dim(group)) || length(group) != n) {
    stop_input("group", group, sprintf("a vector with one element for each of the %d rows", n))
  }
  if (anyNA(group)) stop_input("group", I("one with missing values"), "a vector without missing values")
  match(group, unique(group))
}

# ---- sweep -----------------------------------------------------------------------------------------------------------

run_sweep <- function(data, settings, plan, group, call, own) {
  check_custom_expert(settings$expert, data$x)
  validated <- plan$criterion == "cv"
  assignment <- if (validated) assign_folds(length(data$y), group, plan$folds, plan$repeats)
  fits <- sweep_fits(data, settings, plan$k, call)
  if (!any(vapply(fits, is_fit, NA))) stop(fits[[1L]])
  stopped <- any(vapply(fits, function(fit) is.null(fit) || is_interrupted(fit), NA))
  # Without cross-validation there is nothing to choose by; what is there is not to be lost.
  if (stopped && validated) plan$criterion <- "BIC"
  validated <- validated && !stopped
  cv <- if (validated) cross_validate(data, settings, plan, assignment, call)
  table <- sweep_table(fits, plan, cv)
  exact <- if (!validated) which(vapply(fits, is_exact, NA))
  # Between exact fits rounding errors would decide.
  chosen <- if (length(exact)) exact[1L] else choose_row(table, plan$criterion)
  names(fits) <- plan$k
  structure(
    list(
      k = table$k[chosen], criterion = plan$criterion, method = plan$method, table = table, best = fits[[chosen]],
      fits = if (plan$keep_fits) lapply(fits, function(fit) if (is_fit(fit)) fit), cv = cv, call = own
    ),
    class = "select_experts"
  )
}

sweep_table <- function(fits, plan, cv) {
  value <- function(f) vapply(fits, function(fit) if (is_fit(fit)) as.double(f(fit)) else NA_real_, 0)
  words <- function(f, other) vapply(fits, function(fit) if (is_fit(fit)) f(fit) else other(fit), "")
  em <- plan$method == "em"
  failure <- words(function(fit) "", function(e) if (is.null(e)) "interrupted" else conditionMessage(e))
  criterion <- function(name) value(function(fit) information_criteria(fit)[[name]])
  table <- data.frame(k = plan$k, df = criterion("df"), logLik = criterion("logLik"))
  if (!em) table$sse <- value(stats::deviance)
  for (name in c("AIC", "BIC", if (em) "ICL")) table[[name]] <- criterion(name)
  if (!is.null(cv)) {
    table[c("cv", "cv_se")] <- cv$summary
    failure <- ifelse(nzchar(failure), failure, cv$reason)
  }
  table$status <- words(function(fit) fit$convergence$status, function(e) if (is.null(e)) "interrupted" else "failed")
  table$flags <- words(flag_words, function(e) "")
  table$reason <- failure
  table
}

flag_words <- function(fit) {
  found <- Filter(function(flag) length(flag) > 0L && !identical(flag, FALSE), fit$diagnostics)
  paste(names(found), collapse = ", ")
}

# The row with the least criterion, among sound solutions if there are any.
choose_row <- function(table, criterion) {
  value <- table[[criterion]]
  # An exact fit has minus infinity.
  value[value == Inf] <- NA
  value[table$status %in% c("failed", "interrupted") & is.na(table$logLik)] <- NA
  sound <- !is.na(value) & table$status != "degenerate"
  if (any(sound)) value[!sound] <- NA
  if (all(is.na(value))) {
    reasons <- paste(unique(table$reason), collapse = "; ")
    stop_cosmoe("data", sprintf("No k has a finite %s: %s", criterion, reasons))
  }
  which.min(value)
}

# ---- cross-validation ------------------------------------------------------------------------------------------------

# The fold of each row, a column for each repeat.
assign_folds <- function(n, group, folds, repeats) {
  units <- if (is.null(group)) n else max(group)
  if (folds > units) {
    what <- if (is.null(group)) "rows" else "groups"
    stop_input("folds", folds, sprintf("at most the number of %s (%d)", what, units))
  }
  draw <- function(i) {
    if (is.null(group)) return(rep_len(seq_len(folds), n)[sample.int(n)])
    size <- tabulate(group, units)
    fold <- integer(units)
    held <- integer(folds)
    for (one in sample.int(units)) {
      fold[one] <- which.min(held)
      held[fold[one]] <- held[fold[one]] + size[one]
    }
    fold[group]
  }
  vapply(seq_len(repeats), draw, integer(n))
}

cross_validate <- function(data, settings, plan, assignment, call) {
  settings$control$n_starts <- min(settings$control$n_starts, plan$fold_starts)
  settings$control$on_interrupt <- "stop"
  jobs <- expand.grid(fold = seq_len(plan$folds), `repeat` = seq_len(plan$repeats))[2:1]
  progress <- progressor(steps = nrow(jobs))
  runs <- tryCatch(
    future.apply::future_lapply(
      seq_len(nrow(jobs)),
      function(job) {
        held <- which(assignment[, jobs[["repeat"]][job]] == jobs$fold[job])
        value <- fold_losses(data, held, settings, plan$k, call)
        progress()
        value
      },
      future.seed = TRUE, future.packages = "cosmoe"
    ),
    interrupt = function(e) stop_interrupt("The cross-validation was interrupted.")
  )
  loss <- do.call(rbind, lapply(runs, function(run) run$loss))
  weight <- vapply(runs, function(run) run$weight, 0)
  dimnames(loss) <- list(NULL, plan$k)
  jobs$rows <- vapply(runs, function(run) run$rows, 0L)
  jobs$unpredicted <- vapply(runs, function(run) run$unpredicted, 0L)
  # A fold in which nothing can be fitted or predicted says nothing about k.
  counts <- weight > 0 & rowSums(!is.na(loss)) > 0
  kept <- loss[counts, , drop = FALSE]
  reasons <- do.call(rbind, lapply(runs, function(run) run$reason))[counts, , drop = FALSE]
  list(
    folds = jobs, loss = loss, assignment = assignment,
    summary = data.frame(
      cv = colSums(weight[counts] * kept) / sum(weight[counts]),
      cv_se = apply(kept, 2L, stats::sd) / sqrt(plan$folds)
    ),
    reason = vapply(seq_along(plan$k), function(j) failure_words(reasons[, j]), "")
  )
}

failure_words <- function(reasons) {
  failed <- reasons[nzchar(reasons)]
  if (length(failed) == 0L) return("")
  sprintf("failed in %d of %s: %s", length(failed), count_words(length(reasons), "fold"), failed[1L])
}

# Mean held-out losses of all k (NA for failures) from fits to the other rows.
fold_losses <- function(data, held, settings, k, call) {
  parts <- usable_columns(data_rows(data, -held), data_rows(data, held), settings)
  test <- parts$test
  w <- row_weights(test)
  fits <- sweep_fits(parts$train, settings, k, call)
  list(
    loss = vapply(fits, function(fit) {
      if (!is_fit(fit) || sum(w) == 0) return(NA_real_)
      loss <- row_losses(fit, test)
      sum(ifelse(w > 0, w * loss, 0)) / sum(w)
    }, 0),
    reason = vapply(fits, function(fit) if (is_fit(fit)) "" else conditionMessage(fit), ""),
    weight = sum(w), rows = length(held), unpredicted = length(held) - length(test$y)
  )
}

row_losses <- function(fit, data) {
  values <- evaluate_model(fit, data, fit$control$threads)
  if (is_em(fit)) -log_sum_rows(log_joint(fit, values, data)) else (data$y - values$response)^2
}

# Training and test rows without columns that are constant in training (where a fit would refuse them), and without
# test rows that have another value there.
usable_columns <- function(train, test, settings) {
  rows <- row_weights(train) > 0
  shared <- is.null(train$z)
  known <- rep(TRUE, length(test$y))
  drop_from <- c(
    x = expert_is_linear_form(settings$expert), z = settings$standardize || settings$router$name == "linear"
  )
  for (part in c("x", "z")) {
    asked <- if (shared && part == "x") any(drop_from) else drop_from[[part]]
    m <- train[[part]]
    if (is.null(m) || !asked || settings$expert$name == "custom" || !any(rows)) next
    first <- m[which(rows)[1L], ]
    constant <- colSums(m[rows, , drop = FALSE] != rep(first, each = sum(rows))) == 0
    if (!any(constant)) next
    other <- test[[part]][, constant, drop = FALSE] != rep(first[constant], each = length(known))
    known <- known & rowSums(other) == 0
    train[[part]] <- m[, !constant, drop = FALSE]
    test[[part]] <- test[[part]][, !constant, drop = FALSE]
    train$names[[part]] <- train$names[[part]][!constant]
    if (shared) train$names$z <- train$names$x
  }
  list(train = train, test = data_rows(test, known))
}

# ---- methods ---------------------------------------------------------------------------------------------------------

#' @rdname select_experts
#' @export
print.select_experts <- function(x, digits = max(4L, getOption("digits") - 2L), ...) {
  check_dots_empty(...)
  digits <- check_digits(digits)
  print_line(sprintf("Number of experts chosen by %s: k = %d", x$criterion, x$k))
  cat("\n")
  table <- format_numbers(x$table[setdiff(names(x$table), "reason")], digits)
  if (!any(nzchar(table$flags))) table$flags <- NULL
  table <- cbind(table, ` ` = ifelse(table$k == x$k, "<", ""))
  print(table, row.names = FALSE)
  failed <- nzchar(x$table$reason)
  if (any(failed)) print_notes(sprintf("k = %d: %s", x$table$k[failed], x$table$reason[failed]))
  left_out <- sum(x$cv$folds$unpredicted)
  if (left_out > 0L) {
    print_notes(sprintf("%s could not be predicted without their fold", count_words(left_out, "held-out row")))
  }
  invisible(x)
}

#' @rdname select_experts
#' @export
as.data.frame.select_experts <- function(x, row.names = NULL, optional = FALSE, ...) {
  check_dots_empty(...)
  x$table
}

#' @rdname select_experts
#' @export
plot.select_experts <- function(x, ...) {
  table <- x$table
  panels <- 1L + !is.null(x$cv)
  old <- panel_style(panels, ...)
  on.exit(graphics::par(old))
  names <- intersect(c("AIC", "BIC", "ICL"), names(table))
  draw_criteria(table[names], table$k, x$k, "Information criteria", marked = x$criterion)
  if (!is.null(x$cv)) {
    title <- if (x$method == "ls") "Held-out squared error" else "Held-out minus log density"
    draw_criteria(table["cv"], table$k, x$k, title, error = table$cv_se, marked = "cv")
  }
  invisible(x)
}

# Criteria (columns) against the number of experts, the chosen one marked.
draw_criteria <- function(values, k, chosen, title, error = 0, marked = names(values)[1L]) {
  force(marked)
  values <- as.matrix(values)
  finite <- range(values + error, values - error, finite = TRUE)
  at <- seq_along(k)
  open_panel(title, c(0.7, length(k) + 0.3), finite, "number of experts k", "", x_axis = as.character(k))
  color <- expert_colors(ncol(values))
  for (j in seq_len(ncol(values))) {
    if (any(error > 0, na.rm = TRUE)) {
      graphics::segments(at, values[, j] - error, at, values[, j] + error, col = color[j])
    }
    graphics::lines(at, values[, j], type = "b", pch = j, lwd = 2, col = color[j])
    if (colnames(values)[j] == marked) {
      graphics::points(match(chosen, k), values[match(chosen, k), j], pch = 1L, cex = 2.6, lwd = 2)
    }
  }
  if (ncol(values) > 1L) draw_key(colnames(values), color, pch = seq_len(ncol(values)), lwd = 2)
}
