# flexmix's driver for Gaussian, binomial and Poisson experts with sigma as maximum likelihood has it: flexmix itself
# divides the mean weighted square by (n - p) / n, with p coefficients an expert, and so maximises nothing exactly.
flexmix_ml <- function(family, offset = NULL) {
  model <- flexmix::FLXMRglm(family = family, offset = offset)
  if (family == "gaussian") {
    own <- model@fit
    model@fit <- function(x, y, w, component) {
      found <- own(x, y, w, component)@parameters
      sigma <- found$sigma * sqrt(1 - ncol(x) / nrow(x))
      model@defineComponent(list(coef = found$coef, sigma = sigma, df = ncol(x) + 1))
    }
  }
  model
}
