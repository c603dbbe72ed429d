#include "bind_convert.h"
#include "measure/voronoi.h"

namespace {

cosmoe::Atoms as_atoms(const Rcpp::List& measure) {
    return {Rcpp::as<arma::vec>(measure["beta0"]), Rcpp::as<arma::mat>(measure["u"]),
            Rcpp::as<arma::mat>(measure["beta1"]), Rcpp::as<arma::mat>(measure["eta"])};
}

}  // namespace

// [[Rcpp::export]]
Rcpp::List core_voronoi_loss(const Rcpp::List& fit, const Rcpp::List& truth, const Rcpp::List& router,
                             const Rcpp::List& settings) {
    const cosmoe::Atoms atoms = as_atoms(fit), true_atoms = as_atoms(truth);
    cosmoe::VoronoiSpec spec;
    spec.power = settings["power"];
    spec.squares = settings["squares"];
    spec.bounded = settings["bounded"];
    spec.counted = static_cast<arma::uword>(Rcpp::as<int>(settings["counted"]));
    const bool align = settings["align"];
    const cosmoe::VoronoiLoss loss =
        align ? cosmoe::aligned_voronoi_loss(atoms, true_atoms, spec, bind::as_router(router))
              : cosmoe::voronoi_loss(atoms, true_atoms, spec);
    const auto numbers = [](const arma::vec& v) { return Rcpp::NumericVector(v.begin(), v.end()); };
    const arma::uvec cell = loss.cell + 1;
    return Rcpp::List::create(Rcpp::Named("value") = loss.value,
                              Rcpp::Named("cells") = Rcpp::IntegerVector(cell.begin(), cell.end()),
                              Rcpp::Named("terms") = loss.terms,
                              Rcpp::Named("counted") = Rcpp::LogicalVector(loss.counted.begin(), loss.counted.end()),
                              Rcpp::Named("shift") = numbers(loss.shift), Rcpp::Named("c") = loss.log_factor,
                              Rcpp::Named("norms") = numbers(loss.norms));
}
