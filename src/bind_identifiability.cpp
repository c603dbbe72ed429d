#include "bind_convert.h"
#include "measure/identifiability.h"

// [[Rcpp::export]]
Rcpp::List core_identifiability(const Rcpp::List& model, const Rcpp::List& rows, const Rcpp::List& atoms, int order) {
    const cosmoe::Rows data = bind::as_rows(rows);
    const cosmoe::Model built(bind::as_model(model), data.dx, data.dz);
    const cosmoe::Atoms at{Rcpp::as<arma::vec>(atoms["beta0"]), Rcpp::as<arma::mat>(atoms["beta1"]),
                           Rcpp::as<arma::mat>(atoms["eta"])};
    const cosmoe::Hooks hooks = bind::interrupt_hooks();
    const cosmoe::DerivativeFactors factors = cosmoe::derivative_factors(built, data, at, order, hooks);
    return Rcpp::List::create(Rcpp::Named("functions") = factors.functions,
                              Rcpp::Named("regression") = factors.regression,
                              Rcpp::Named("chart") = cosmoe::chart_jacobians(*built.router, at.beta1));
}
