# `make demo`: house prices in Boston. Fits mixtures of two and three experts, compares them with a linear model on
# rows held out of the fit, prints the better mixture and draws it to demo.png.
library(cosmoe)
data("Boston", package = "MASS")
set.seed(1)

model <- medv ~ . | lstat + rm + ptratio
fit_moe <- function(k) function(data) fit_cosine_moe(model, data = data, k = k, router = "perturbed_cosine")
methods <- list(
  `linear model` = function(data) lm(medv ~ ., data),
  `2 experts` = fit_moe(2),
  `3 experts` = fit_moe(3)
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

mixtures <- table[-1, "RMSE, held out"]
best <- fits[[names(which.min(mixtures))]]
cat("\n")
print(summary(best))

png("demo.png", width = 1800, height = 1400, res = 180)
plot(best)
invisible(dev.off())
cat("\nThe picture is in demo.png.\n")
