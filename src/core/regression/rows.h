// The data as the core sees it: columns it does not own, centred and scaled block by block while they are loaded.
#pragma once

#include <cstddef>

#include "common/armadillo.h"
#include "common/buffer.h"
#include "gate/router.h"

namespace cosmoe {

struct Rows {
    std::size_t n = 0;
    const double* x = nullptr;  // n x dx, column major: expert covariates
    std::size_t dx = 0;
    const double* z = nullptr;  // n x dz: gate covariates
    std::size_t dz = 0;
    const double* y = nullptr;                       // null when only predicting
    const double* w = nullptr;                       // null: all ones
    const double* offset = nullptr;                  // of a likelihood's linear predictors; null: zeros
    const double* trials = nullptr;                  // of a binomial response, which is a share; null: ones
    arma::vec x_center, x_scale, z_center, z_scale;  // empty: 0 and 1

    bool shared() const;  // whether gate and experts see the same columns
};

// Loads rows first, first + 1, ... (or those `index` names) into `x` (covariates, then ones) and `zeta` (the router's
// feature map, then ones); padding rows are all zero.
void load_experts(const Rows& rows, std::size_t first, std::size_t count, std::size_t padded, const std::size_t* index,
                  Buffer& x);
void load_gates(const Rows& rows, const Router& router, std::size_t first, std::size_t count, std::size_t padded,
                const std::size_t* index, Buffer& zeta);
void load_block(const Rows& rows, const Router& router, std::size_t first, std::size_t count, std::size_t padded,
                const std::size_t* index, Buffer& x, Buffer& zeta);

}  // namespace cosmoe
