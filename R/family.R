# Response distributions of maximum likelihood fits: f(y | mean, dispersion), the dispersion being the Gaussian's sigma
# or the Gamma distribution's shape. A family is plain data, list(name, link). A binomial y is a share of `trials`.

# The links of each family, its default first.
links_of_families <- list(
  gaussian = c("identity", "log", "inverse"), binomial = c("logit", "probit", "cloglog"),
  poisson = c("log", "identity", "sqrt"), Gamma = c("inverse", "log", "identity")
)

# From what glm() takes: a family, a function that makes one, or its name.
as_family <- function(family, argument = "family") {
  expected <- "gaussian(), binomial(), poisson() or Gamma(), with one of the links in ?fit_cosine_moe"
  given <- family
  if (is.character(family) && length(family) == 1L && family %in% names(links_of_families)) {
    return(list(name = family, link = links_of_families[[family]][1L]))
  }
  if (is.function(family)) family <- tryCatch(family(), error = function(e) NULL)
  if (!inherits(family, "family")) stop_input(argument, given, expected)
  links <- links_of_families[[family$family]]
  if (!family$link %in% links) stop_input(argument, I(sprintf("%s(%s)", family$family, family$link)), expected)
  list(name = family$family, link = family$link)
}

# What a fit maximises: a family, and how its dispersions are shared ("free", "equal", "none"); NULL for least squares.
as_likelihood <- function(method, family, sigma) {
  choices <- c("free", "equal")
  given <- !identical(sigma, choices)
  sigma <- check_choice(sigma, choices)
  family <- as_family(family)
  if (method == "ls") {
    if (!identical(family, as_family("gaussian"))) {
      stop_input("family", I(sprintf("%s(%s)", family$name, family$link)), "left out unless `method = \"em\"`")
    }
    if (given) stop_input("sigma", sigma, "left out unless `method = \"em\"`")
    return(NULL)
  }
  dispersed <- family$name %in% c("gaussian", "Gamma")
  if (sigma == "equal" && !dispersed) {
    stop_input("sigma", sigma, "\"free\" or left out: only the Gaussian and Gamma families have dispersions")
  }
  list(family = family, dispersions = if (dispersed) sigma else "none")
}

# The same of a fit, or of what the bootstrap keeps of one.
likelihood_of <- function(fit) if (is_em(fit)) unclass(fit)[c("family", "dispersions")]

dispersion_count <- function(likelihood, k) {
  if (is.null(likelihood)) return(0L)
  switch(likelihood$dispersions, none = 0L, equal = 1L, free = as.integer(k))
}

# Whether means lie where the family has no density.
is_outside <- function(family, mean) {
  is.na(mean) | switch(family$name, gaussian = FALSE, binomial = mean < 0 | mean > 1, mean <= 0)
}

# The least and the largest size of a mean that responses with the range `span` support, with room to spare.
supported_means <- function(family, span) {
  largest <- max(abs(span))
  switch(family$name,
    binomial = c(0, Inf), poisson = c(0, 1e3 * max(largest, 1)), gaussian = c(0, 1e3 * largest),
    Gamma = c(1e-3 * span[1L], 1e3 * largest)
  )
}

# Links whose inverse keeps to the means that the family allows.
has_safe_link <- function(family) {
  family$name == "gaussian" || family$link %in% switch(family$name,
    binomial = c("logit", "probit", "cloglog"), poisson = c("log", "sqrt"), "log"
  )
}

dispersion_name <- function(family) if (family$name == "gaussian") "sigma" else "shape"

# Whether offsets may be taken from the response, as in least squares.
has_plain_offset <- function(likelihood) {
  is.null(likelihood) || (likelihood$family$name == "gaussian" && likelihood$family$link == "identity")
}

# The unit of linear predictors when the response is measured in units of `y_scale`: an identity link's predictors are
# means, an inverse link's their reciprocals. NULL where the unit of the response must stay: counts have none other, and
# a log link needs none.
predictor_unit <- function(likelihood, y_scale) {
  if (is.null(likelihood)) return(y_scale)
  if (!likelihood$family$name %in% c("gaussian", "Gamma")) return(NULL)
  switch(likelihood$family$link, identity = y_scale, inverse = 1 / y_scale)
}

# A function of stats::make.link(), some of which refuse empty vectors: "linkfun", "linkinv", "mu.eta". Its exponential
# ends at 2e-16, which a response may be far below.
link_function <- function(link, part, value) {
  if (length(value) == 0L) return(value)
  if (link == "log" && part != "linkfun") exp(value) else stats::make.link(link)[[part]](value)
}

mean_of_link <- function(family, eta) {
  if (family$link == "identity") return(eta)
  mean <- link_function(family$link, "linkinv", eta)
  if (is.null(dim(eta))) mean else array(mean, dim(eta), dimnames(eta))
}

# The derivative of the mean in the linear predictor.
link_slope <- function(family, eta) link_function(family$link, "mu.eta", eta)

# Link of the response moved away from where it is infinite, as glm() begins, and working weights up to a factor.
linearised_response <- function(family, y, trials) {
  size <- max(mean(abs(y)), 1e-300)
  mean <- switch(family$name,
    binomial = (trials * y + 0.5) / (trials + 1),
    poisson = y + 0.1,
    gaussian = switch(family$link,
      identity = y,
      log = pmax(y, 0.01 * size),
      inverse = ifelse(y < 0, -1, 1) * pmax(abs(y), 0.1 * size)
    ),
    # The logarithm of a response of small shape, and the weight of an identity link's, have no bounds.
    Gamma = pmax(y, size * if (family$link == "log") 1e-6 else 0.1)
  )
  eta <- link_function(family$link, "linkfun", mean)
  # Only ratios of weights matter; their squares could overflow.
  slope <- abs(link_slope(family, eta)) / sqrt(response_variance(family, mean, 1))
  list(eta = eta, weight = trials * (slope / max(slope))^2)
}

# Of one trial for the binomial family, dispersion sigma or shape.
response_variance <- function(family, mean, dispersion) {
  switch(family$name,
    gaussian = dispersion^2 + 0 * mean, poisson = mean, binomial = mean * (1 - mean), Gamma = mean^2 / dispersion
  )
}

# ---- distributions: `mean` is an n x k matrix, `dispersion` NULL or of length k -------------------------------------

per_row <- function(dispersion, mean) if (is.null(dispersion)) NULL else rep(dispersion, each = nrow(mean))

log_density <- function(family, y, trials, mean, dispersion) {
  spread <- per_row(dispersion, mean)
  value <- suppressWarnings(switch(family$name,
    gaussian = stats::dnorm(y, mean, spread, log = TRUE),
    poisson = stats::dpois(y, mean, log = TRUE),
    binomial = stats::dbinom(round(y * trials), trials, mean, log = TRUE),
    Gamma = stats::dgamma(y, spread, scale = mean / spread, log = TRUE)
  ))
  if (anyNA(value)) value[is.nan(value)] <- -Inf
  attributes(value) <- NULL
  dim(value) <- dim(mean)
  value
}

distribution <- function(family, y, trials, mean, dispersion) {
  spread <- per_row(dispersion, mean)
  missing_outside(switch(family$name,
    gaussian = stats::pnorm(y, mean, spread),
    poisson = stats::ppois(y, mean),
    binomial = stats::pbinom(round(y * trials), trials, mean),
    Gamma = stats::pgamma(y, spread, scale = mean / spread)
  ), mean)
}

# Quantiles of each expert; of the number of successes for the binomial family.
expert_quantiles <- function(family, p, trials, mean, dispersion) {
  spread <- per_row(dispersion, mean)
  missing_outside(switch(family$name,
    gaussian = stats::qnorm(p, mean, spread),
    poisson = stats::qpois(p, mean),
    binomial = stats::qbinom(p, trials, mean),
    Gamma = stats::qgamma(p, spread, scale = mean / spread)
  ), mean)
}

# In the shape of `mean`; NA, without R's warning, where no distribution of the family has that mean.
missing_outside <- function(value, mean) {
  value <- suppressWarnings(value)
  if (anyNA(value)) value[is.nan(value)] <- NA
  array(value, dim(mean))
}

# One response for each mean; the number of successes for the binomial family.
draw_responses <- function(family, trials, mean, dispersion) {
  n <- length(mean)
  switch(family$name,
    gaussian = stats::rnorm(n, mean, dispersion),
    poisson = stats::rpois(n, mean),
    binomial = stats::rbinom(n, trials, mean),
    Gamma = stats::rgamma(n, dispersion, scale = mean / dispersion)
  )
}

# ---- responses -------------------------------------------------------------------------------------------------------

# list(y, trials) from a response as glm() takes it; trials are NULL where all are one.
read_response <- function(value, n, what, likelihood = NULL) {
  if (is.null(likelihood) || likelihood$family$name != "binomial") return(list(y = as_row_values(value, n, what)))
  if (is.factor(value) && nlevels(value) != 2L) {
    stop_data(what, " must be a factor of two levels, not ", nlevels(value), ".")
  }
  levels <- levels(value)
  if (is.factor(value)) value <- value != levels(value)[1L]
  if (is.logical(value)) value <- as.double(value)
  if (!is.matrix(value) || ncol(value) != 2L) return(list(y = as_row_values(value, n, what), levels = levels))
  successes <- as_row_values(value[, 1L], n, what)
  trials <- successes + as_row_values(value[, 2L], n, what)
  check_finite_values(trials, what)
  check_whole(value, what)
  list(y = as_shares(successes, trials), trials = trials)
}

as_shares <- function(successes, trials) if (is.null(trials)) successes else ifelse(trials > 0, successes / trials, 0)

# Whether the family can have such responses.
check_family_response <- function(data, likelihood) {
  what <- response_words(data$names$y)
  y <- data$y
  switch(likelihood$family$name,
    poisson = check_whole(y, what),
    Gamma = if (any(y <= 0)) stop_data(what, " must be positive for the Gamma family: ", row_words(y <= 0), "."),
    binomial = if (is.null(data$trials) && !all(y %in% 0:1)) {
      stop_data(
        what, " must be 0 or 1, logical, a factor of two levels, or cbind(successes, failures) for the binomial ",
        "family: ", row_words(!y %in% 0:1), "."
      )
    }
  )
}

# A double has 16 digits, and a count's standard deviation is its root: far above this no mean is near enough.
largest_count <- 1e20

check_whole <- function(value, what) {
  refuse <- function(bad, ...) if (any(bad)) stop_data(what, ..., row_words(rowSums(as.matrix(bad)) > 0), ".")
  refuse(
    value < 0 | abs(value - round(value)) > 1e-8 * pmax(1, abs(value)),
    " must hold counts, whole numbers of at least 0: "
  )
  refuse(value > largest_count, " has counts above ", largest_count, ", too large for a likelihood of counts: ")
}
