// A mixing measure as the core sees it.
#pragma once

#include "common/armadillo.h"

namespace cosmoe {

// The atoms, one column each: masses exp(bias); gates by `u` and in the paper's coordinates by `beta`, infinite where u
// is on the boundary; experts by `eta`.
struct Atoms {
    arma::vec bias;  // k
    arma::mat u;     // dz x k
    arma::mat beta;  // dz x k
    arma::mat eta;   // q x k
};

}  // namespace cosmoe
