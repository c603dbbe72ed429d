#' Glossary: every number the package prints
#'
#' @description
#' What the numbers and words mean that fits, summaries, mixing measures, losses and checks print, in alphabetical order.
#'
#' @section The model:
#' \describe{
#' \item{atom}{One summand of a [mixing_measure()]: a mass exp(beta_0), a gate vector beta_1 and an expert's parameters
#'   eta.}
#' \item{beta, beta_1}{The gate vector of an expert in the paper's coordinates. For the perturbed cosine router `Inf` means
#'   a gate on the boundary, of which only the direction counts; for the cosine router only the direction counts in any
#'   case. Only differences between experts have a meaning, and these are differences of u.}
#' \item{bias b, beta_0}{The constant part of an expert's logit. One number may be added to all of them; fits are
#'   reported with sum exp(b) = 1, so exp(b) are the weights where the score of all experts is 0.}
#' \item{center, scale (of gate covariates)}{Weighted mean and standard deviation (divisor n) by which the covariates of a
#'   cosine gate were standardized; part of the model.}
#' \item{direction of beta}{beta divided by its norm.}
#' \item{expert}{One of the k regression functions h(x, eta_k). Experts are printed in order of decreasing mean gate
#'   weight.}
#' \item{gate, gate weight}{p_k(z), the share of expert k at covariates z; shares sum to 1 over the experts.}
#' \item{mean gate weight}{The (weighted) average of p_k(z) over the rows of the fit.}
#' \item{norm of beta}{Length of the vector beta. It shows best near tau1.}
#' \item{router}{The rule that turns covariates into scores: see [routers].}
#' \item{score, logit}{Score: the part of the logit that depends on z. Logit: score plus bias.}
#' \item{u}{The gate vector as the softmax sees it: the score is u'zeta(z). See [routers].}
#' }
#'
#' @section The fit:
#' \describe{
#' \item{active constraints}{Gates and experts that lie on a bound of the parameter space and are held there.}
#' \item{boundary}{The surface of the ball that the u of the perturbed cosine router live in: norm(u) = scale, that is
#'   infinite beta.}
#' \item{coincide}{Two experts whose values differ by less than 0.1\% of the fitted values' standard deviation wherever
#'   both have weight.}
#' \item{degrees of freedom}{Rows with positive weight minus identifiable parameters.}
#' \item{flat directions}{Directions in which the sum of squares does not change to second order. Every dense gate has
#'   d + 1 of its own, unless constraints hold them; more of them make the solution non-unique.}
#' \item{has lost all weight}{An expert with a mean gate weight below 0.001.}
#' \item{identifiable parameters}{Parameters minus gauge directions, minus norms on spheres, minus further flat
#'   directions: the degrees of freedom of the model.}
#' \item{little weight and huge values}{An expert on its way to infinity: mean gate weight p below 0.1, and mean square of
#'   its contribution p (h - f) above 100 p^2 variances of the fitted values.}
#' \item{pass}{One evaluation of the objective with its derivatives on all rows.}
#' \item{Pearson residual}{Observed minus fitted times the square root of the weight.}
#' \item{predicted decrease ("another step would lower the sum of squares by ...")}{What one more Newton step promises,
#'   in residual variances. Far below 1, the data cannot tell the solution from the exact minimum.}
#' \item{projected gradient}{Largest entry of the gradient, after the multipliers of active constraints, in each parameter's own
#'   scale and relative to the residuals' norm: a cosine between residuals and a column of the Jacobian.}
#' \item{reached the best}{A start whose sum of squares is at most 0.01 residual variances above the lowest: the data cannot
#'   tell the two.}
#' \item{residual standard deviation (sigma)}{Square root of the (weighted) sum of squares over the degrees of freedom.}
#' \item{R-squared}{1 minus the sum of squares over that around the mean of the response.}
#' \item{smallest curvature}{Smallest eigenvalue of the Hessian in scaled identifiable coordinates. Near 0 some combination
#'   of parameters is hardly determined.}
#' \item{sum of squares}{Sum of w (y - f)^2.}
#' }
#'
#' @name cosmoe-glossary
#' @aliases glossary
#' @seealso [summary.cosine_moe()], [mixing_measure()], [voronoi_loss()], [check_identifiability()].
#' @examples
#' set.seed(1)
#' fit <- fit_cosine_moe(dist ~ speed, data = cars, control = moe_control(n_starts = 5))
#' summary(fit)
NULL
