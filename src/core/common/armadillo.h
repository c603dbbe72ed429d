// The one place that includes Armadillo. A host may supply its own copy of the header.
#pragma once

#ifndef ARMA_WARN_LEVEL
#define ARMA_WARN_LEVEL 0  // the core reads return values and does not print
#endif

#ifndef COSMOE_ARMADILLO_HEADER
#ifndef ARMA_32BIT_WORD
#define ARMA_32BIT_WORD  // the word size of RcppArmadillo, so that both builds are the same code
#endif
#define COSMOE_ARMADILLO_HEADER <armadillo>
#endif
#include COSMOE_ARMADILLO_HEADER
