#include "bind_convert.h"
#include "common/kernels.h"
#include "gate/enclosing_ball.h"

// [[Rcpp::export]]
arma::mat core_direction_to_gate(const Rcpp::List& router, const arma::mat& beta) {
    return cosmoe::make_router(bind::as_router(router))->to_gate(beta);
}

// [[Rcpp::export]]
arma::mat core_gate_to_beta(const Rcpp::List& router, const arma::mat& u) {
    return cosmoe::make_router(bind::as_router(router))->to_beta(u);
}

// [[Rcpp::export]]
Rcpp::List core_enclosing_ball(const arma::mat& u) {
    const cosmoe::EnclosingBall ball = cosmoe::smallest_enclosing_ball(u);
    return Rcpp::List::create(Rcpp::Named("center") = Rcpp::NumericVector(ball.center.begin(), ball.center.end()),
                              Rcpp::Named("radius") = ball.radius);
}

// [[Rcpp::export]]
std::string core_instruction_set() { return cosmoe::kernel::instruction_set(); }
