// A start nearer to the solution, from a part of the rows: most passes of a fit to many rows only find the way, for which
// some thousand rows do.
#pragma once

#include "regression/likelihood.h"
#include "regression/pass.h"
#include "solver/result.h"

namespace cosmoe {

// Moves `at` to the solution for a part of the rows when that gains more than chance would there and is better over all
// rows too; true if it is then near a maximum. at.value is set, at.passes added to. With few rows, or few passes in the
// settings (those of the fit), nothing is done. `all` is the pass over all rows.
bool approach(const Model& model, const Family& family, const Rows& rows, std::size_t threads, const Hooks& hooks,
              const Settings& settings, const Pass& all, SolverResult& at);

}  // namespace cosmoe
