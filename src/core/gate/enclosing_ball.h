// The smallest ball that holds a set of points: the gauge that canonical gates are reported in.
#pragma once

#include "common/armadillo.h"

namespace cosmoe {

struct EnclosingBall {
    arma::vec center;
    double radius = 0;
};

// The columns of `points`. The centre walks towards the circumcentre of its supporting points until a new point stops
// it or it arrives; supporting points with a negative weight are dropped (Fischer, Gaertner and Kutz, 2003).
EnclosingBall smallest_enclosing_ball(const arma::mat& points);

}  // namespace cosmoe
