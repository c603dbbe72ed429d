# `make demo`: house prices in Boston. Fits mixtures of two and three experts, compares them with a linear model on
# rows held out of the fit, prints the better mixture and draws it to demo.png.
library(cosmoe)
data("Boston", package = "MASS")
set.seed(1)

model <- medv ~ . | lstat + rm + ptratio
# The paper's router has scale 1; a scale of 10, the usual order in deep learning, lets gates be decided.
fit_moe <- function(k, scale) {
  function(data) {
    fit_cosine_moe(
      model, data = data, k = k, router = router_perturbed_cosine(scale = scale), control = moe_control(n_starts = 40)
    )
  }
}
methods <- list(
  `linear model` = function(data) lm(medv ~ ., data),
  `2 experts, scale 1` = fit_moe(2, 1),
  `3 experts, scale 1` = fit_moe(3, 1),
  `2 experts, scale 10` = fit_moe(2, 10),
  `3 experts, scale 10` = fit_moe(3, 10)
)

cat("Boston: median house value from 13 covariates; the gate uses lstat, rm and ptratio.\n")
fits <- lapply(methods, function(fit) fit(Boston))

# Five-fold cross-validation, the same folds for all methods.
fold <- sample(rep(1:5, length.out = nrow(Boston)))
held_out_errors <- function(fit) {
  errors <- lapply(1:5, function(i) {
    test <- Boston[fold == i, ]
    test$medv - predict(fit(Boston[fold != i, ]), test)
  })
  unlist(errors)
}
rmse <- function(errors) sqrt(mean(errors^2))
held_out <- lapply(methods, held_out_errors)
table <- cbind(
  `RMSE, training` = vapply(fits, function(fit) rmse(residuals(fit)), 0),
  `RMSE, held out` = vapply(held_out, rmse, 0),
  `median |error|, held out` = vapply(held_out, function(errors) median(abs(errors)), 0)
)
cat("\nErrors in 1000 $ (held out: five-fold cross-validation; RMSE: root mean squared error)\n")
print(round(table, 2))

# A few rows far from all others decide the RMSE of any model that bends; the median is what a typical house meets. Shown
# is the best mixture among those with coefficients that mean something.
runs_off <- vapply(fits[-1], function(fit) length(fit$diagnostics$runaway) > 0, NA)
if (any(runs_off)) {
  cat("\nThe least squares solution lies at or near infinity with: ", toString(names(runs_off)[runs_off]), ".\n", sep = "")
}
errors <- table[-1, "median |error|, held out"] + ifelse(runs_off & !all(runs_off), Inf, 0)
best <- names(which.min(errors))
cat("Shown in full, fitted to all rows: ", best, ".\n\n", sep = "")
best <- fits[[best]]
data <- Boston # the name in the call of the fit: summary() and plot() find the rows again
print(summary(best))

png("demo.png", width = 1800, height = 1400, res = 180)
plot(best)
invisible(dev.off())
cat("\nThe picture is in demo.png.\n")
