#' Glossary: every number the package prints
#'
#' @description
#' What the numbers and words mean that fits, summaries, mixing measures, losses and checks print.
#'
#' @section The model:
#' \describe{
#' \item{atom}{One summand of a [mixing_measure()]: a mass exp(beta_0), a gate vector beta_1 and an expert's
#'   parameters eta.}
#' \item{beta, beta_1}{The gate vector of an expert in the paper's coordinates. `Inf` (perturbed cosine router): a
#'   gate on the boundary, of which only the direction counts. For the cosine router only the direction counts in any
#'   case. Only contrasts of u have a meaning by themselves.}
#' \item{bias b, beta_0}{The constant part of an expert's logit. One number may be added to all of them; fits are
#'   reported with sum exp(b) = 1.}
#' \item{center, scale (of gate covariates)}{Weighted mean and standard deviation (divisor n) by which the covariates
#'   of a cosine gate were standardized; part of the model.}
#' \item{contrasts}{Differences between experts: what a softmax gate depends on. Printed as each expert's value minus
#'   the mean over all experts.}
#' \item{direction of beta}{beta divided by its norm.}
#' \item{expert}{One of the k regression functions h(x, eta_k). Fits print them in order of decreasing mean gate
#'   weight.}
#' \item{dispersion, sigma, shape (method = "em")}{Of each expert's distribution: the Gaussian standard deviation
#'   (divisor n), or the shape of the Gamma distribution.}
#' \item{gate weight}{p_k(z), the share of expert k at covariates z; shares sum to 1 over the experts. *Mean gate
#'   weight*: its (weighted) average over the rows of the fit.}
#' \item{mass}{exp(beta_0) of an atom.}
#' \item{norm of beta}{Length of the vector beta. The data show it best near tau1.}
#' \item{score, logit}{Score: the part of the logit that depends on z. Logit: score plus bias. The softmax of the
#'   logits gives the gate weights.}
#' \item{u}{The gate vector as the softmax sees it: the score is u'zeta(z). See [routers].}
#' }
#'
#' @section The fit:
#' \describe{
#' \item{active constraints}{Gates and experts that lie on a bound of the parameter space and are held there.}
#' \item{boundary}{The surface of the ball that the u of the perturbed cosine router live in: norm(u) = scale, that
#'   is infinite beta.}
#' \item{coincide}{Said of two experts whose values differ by less than 0.1% of the fitted values' standard deviation
#'   wherever both have weight.}
#' \item{degrees of freedom}{Rows with positive weight minus identifiable parameters.}
#' \item{flat directions}{Directions in which the sum of squares does not change to second order. A dense gate has
#'   some of its own: one for each of its d covariates and one for the bias, fewer on spheres and where constraints
#'   hold them; more of them make the solution non-unique.}
#' \item{has lost all weight}{Said of an expert with a mean gate weight below 0.001.}
#' \item{identifiable parameters}{Parameters without gauge directions, without norms on spheres, and without further
#'   flat directions: the degrees of freedom of the model.}
#' \item{little weight and huge values}{Said of an expert on its way to infinity: mean gate weight p below 0.1, and
#'   mean square of p (h - f) above 100 p^2 variances of the fitted values f.}
#' \item{log-likelihood, deviance (method = "em")}{The maximum found of sum w log sum_k p_k f_k; the deviance is
#'   minus twice that.}
#' \item{means a thousand times beyond all responses (method = "em")}{Said of an expert whose mean, in a row where its
#'   gate weight is at least 0.001, is above 1000 times the largest response in size (for the Gamma family also below a
#'   thousandth of the smallest), or whose gate weight times mean is.}
#' \item{pass}{One evaluation of the objective with its derivatives on all rows.}
#' \item{Pearson residual}{Observed minus fitted, times the square root of the weight.}
#' \item{responsibility}{Probability of an expert given covariates and response: see [posterior()].}
#' \item{predicted decrease}{"Another step would lower the sum of squares by ... residual variances": what one more
#'   Newton step promises. Far below 1, the data cannot tell the solution from the exact minimum.}
#' \item{projected gradient}{Largest entry of the gradient, without the part that active constraints hold, in each
#'   parameter's own scale and relative to the norm of the residuals: a cosine between residuals and a column of the
#'   Jacobian.}
#' \item{reached the best}{Said of a start whose sum of squares is at most 0.01 residual variances above the lowest:
#'   the data cannot tell the two.}
#' \item{residual standard deviation (sigma)}{Square root of the sum of squares over the degrees of freedom.}
#' \item{R-squared}{1 minus the sum of squares over that around the mean of the response (both weighted).}
#' \item{smallest curvature}{Smallest eigenvalue of the Hessian in scaled identifiable coordinates. Near 0 some
#'   combination of parameters is hardly determined.}
#' \item{sum of squares}{Sum of w (y - f)^2.}
#' }
#'
#' @section Inference:
#' \describe{
#' \item{bias (of a bootstrap)}{Mean of the replicates minus the estimate.}
#' \item{cv, cv_se}{Held-out loss and its standard error over the folds: see [select_experts()].}
#' \item{Df, F, Pr(>F)}{In [anova()][anova.cosine_moe]: the difference of identifiable parameters; the mean decrease
#'   of the sum of squares over the residual variance of the largest fit; its p-value, `NA` where the F distribution
#'   does not hold.}
#' \item{DSC, height}{Dendrogram selection criterion, and how far apart two merged experts are: see [merge_experts()].}
#' \item{irregular}{A fit for which asymptotic standard errors would mislead: see [vcov()][vcov.cosine_moe] for the
#'   signs.}
#' \item{ICL}{BIC plus twice the entropy of the responsibilities: see [ICL()].}
#' \item{log-likelihood, AIC, BIC}{After least squares those of independent Gaussian errors, with the identifiable
#'   parameters and sigma as degrees of freedom; after `method = "em"` those of the fitted family: see
#'   [logLik()][logLik.cosine_moe].}
#' \item{LR}{Likelihood ratio of k against k + 1 experts, with a p-value by simulation: see [test_experts()].}
#' \item{standard error}{Square root of the diagonal of `vcov(fit)`, in parentheses behind a coefficient; after
#'   [bootstrap_moe()] the standard deviation of the replicates. Gates have standard errors for contrasts only.}
#' \item{t value, Pr(>|t|), stars}{Estimate over standard error, and its two-sided p-value from Student's t
#'   distribution with `df.residual(fit)` degrees of freedom; from the normal distribution (z value) after `method =
#'   "em"`.}
#' }
#'
#' @section Losses and identifiability:
#' \describe{
#' \item{cell}{The atoms of a measure that are nearest to one atom of the true measure: see [voronoi_loss()].}
#' \item{mass, gate, expert (of a loss)}{The three parts of a Voronoi loss: errors of masses, of gate vectors, of
#'   experts' parameters, the latter two weighted with masses.}
#' \item{shift t, c}{The vector added to all u and the number added to all beta_0 at which an aligned loss is
#'   reached.}
#' \item{rank, size}{Of the functions that [check_identifiability()] looks at: how many are linearly independent, and
#'   how many there are.}
#' \item{singular values}{Of the matrix with the functions' values, columns scaled to length 1, relative to the
#'   largest. A gap separates what is independent from rounding errors.}
#' \item{null direction}{A combination of derivatives that is zero for all x: the parameters cannot be told apart in
#'   that direction.}
#' \item{weak, strong, for rates}{Linear independence of first derivatives, of first and second derivatives, and as
#'   far as rates of convergence need it: see [check_identifiability()].}
#' }
#'
#' @section Rate studies:
#' \describe{
#' \item{slope, se, interval}{Of the line of log mean loss on log n: see [summary.rate_study()].}
#' \item{bootstrap}{Interval of the slope over draws of the replicates.}
#' \item{a n^b}{The curve fitted to the mean losses themselves.}
#' \item{left out}{Fits that failed or whose loss is infinite.}
#' \item{gain}{By how many noise variances the sum of squares of a fit is below that of the truth.}
#' \item{seconds of one replicate}{Data, fit and losses of one arm: see [plan_study()].}
#' }
#'
#' @section Sparse layer for classification:
#' \describe{
#' \item{loss, accuracy}{Mean loss of the protocol, and share of samples whose class is right: in `print()` on the
#'   training samples in prediction mode, in the history on the samples of a step, with the noise of training.}
#' \item{load}{Share of the samples that is sent to each expert.}
#' \item{dispatch entropy}{Entropy of the cluster given the expert: see [dispatch_entropy()].}
#' }
#'
#' @name cosmoe-glossary
#' @aliases glossary
#' @seealso [summary.cosine_moe()], [mixing_measure()], [voronoi_loss()], [check_identifiability()],
#'   [rate_study()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, control = moe_control(n_starts = 5))
#' summary(fit)
NULL
