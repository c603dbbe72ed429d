#include "regression/thinned.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "common/errors.h"
#include "regression/columns.h"
#include "regression/model_objective.h"
#include "solver/trust_region.h"

namespace cosmoe {
namespace {

constexpr std::size_t enough_rows = 2000;
constexpr std::size_t rows_a_parameter = 40;
// With less than this many times the rows of the part, all rows are as quick.
constexpr double worth_it = 2.5;

// Rows of one's own.
struct Part {
    Rows rows;
    std::vector<double> x, z, y, w, offset, trials;
};

std::vector<std::size_t> rows_with_weight(const Rows& rows) {
    std::vector<std::size_t> index;
    for (std::size_t i = 0; i < rows.n; ++i)
        if (!rows.w || rows.w[i] > 0) index.push_back(i);
    return index;
}

// One of each n / m rows in turn, at a place that has no period.
std::vector<std::size_t> spread_rows(const std::vector<std::size_t>& from, std::size_t m) {
    constexpr double golden = 0.6180339887498949;
    const double width = static_cast<double>(from.size()) / static_cast<double>(m);
    std::vector<std::size_t> index(m);
    for (std::size_t i = 0; i < m; ++i) {
        const double jitter = std::fmod(static_cast<double>(i) * golden, 1.0);
        const auto place = static_cast<std::size_t>((static_cast<double>(i) + jitter) * width);
        index[i] = from[std::min(place, from.size() - 1)];
    }
    return index;
}

const double* gather(const double* column, std::size_t n, std::size_t columns, const std::vector<std::size_t>& index,
                     std::vector<double>& out) {
    if (!column) return nullptr;
    out.reserve(index.size() * columns);
    for (std::size_t j = 0; j < columns; ++j)
        for (const std::size_t i : index) out.push_back(column[j * n + i]);
    return out.data();
}

void take_part(const Rows& rows, const std::vector<std::size_t>& index, Part& part) {
    part.rows = rows;
    part.rows.n = index.size();
    part.rows.x = gather(rows.x, rows.n, rows.dx, index, part.x);
    part.rows.z = rows.z == rows.x ? part.rows.x : gather(rows.z, rows.n, rows.dz, index, part.z);
    part.rows.y = gather(rows.y, rows.n, 1, index, part.y);
    part.rows.w = gather(rows.w, rows.n, 1, index, part.w);
    part.rows.offset = gather(rows.offset, rows.n, 1, index, part.offset);
    part.rows.trials = gather(rows.trials, rows.n, 1, index, part.trials);
}

// Whether every column varies in the part as it does among all rows: what a rare level does cannot be seen in a part
// without it, and its coefficients would have any value there.
bool represents(const double* part, const double* all, std::size_t m, std::size_t n, std::size_t columns,
                const arma::vec& scale) {
    for (std::size_t j = 0; j < columns; ++j) {
        const double spread = scale.is_empty() ? summarise_column(all + j * n, nullptr, n).spread : scale[j];
        const double ratio = std::pow(summarise_column(part + j * m, nullptr, m).spread / spread, 2);
        if (!(ratio > 0.5 && ratio < 2)) return false;
    }
    return true;
}

}  // namespace

bool approach(const Model& model, const Family& family, const Rows& rows, std::size_t threads, const Hooks& hooks,
              const Settings& settings, const Pass& all, SolverResult& at) {
    const std::size_t most = std::max(enough_rows, rows_a_parameter * model.layout.size());
    const int passes = settings.max_passes / 2;
    const bool in_memory = rows.y && (rows.x || rows.dx == 0) && (rows.z || rows.dz == 0);
    if (!in_memory || passes < 1 || static_cast<double>(rows.n) < worth_it * static_cast<double>(most)) return false;
    const std::vector<std::size_t> counted = rows_with_weight(rows);
    if (static_cast<double>(counted.size()) < worth_it * static_cast<double>(most)) return false;
    at.value = all.evaluate(at.theta, Order::value).value;
    at.trace.push_back(at.value);
    if (!std::isfinite(at.value)) return false;
    Part part;
    take_part(rows, spread_rows(counted, most), part);
    if (!represents(part.rows.x, rows.x, most, rows.n, rows.dx, rows.x_scale) ||
        !represents(part.rows.z, rows.z, most, rows.n, rows.dz, rows.z_scale))
        return false;

    const LikelihoodCriterion criterion(family, Information::complete);
    const Pass pass(model, part.rows, threads, hooks, criterion);
    const Evaluator sums = evaluator_of(pass);
    ModelObjective objective(model, sums);
    Settings coarse = settings;
    coarse.max_passes = passes;
    coarse.tolerance = 1;  // the maximum of the part is no better known
    coarse.weight = static_cast<double>(most);
    if (part.rows.w) coarse.weight = std::accumulate(part.w.begin(), part.w.end(), 0.0);
    coarse.total = std::max(coarse.weight, 1e-300);
    const SolverResult found = minimise_trust_region(objective, model.constraints, at.theta, coarse, hooks);
    if (found.status == Status::interrupted) throw Interrupted();
    at.passes += found.passes;
    at.probes += found.probes;
    // At the maximum over all rows a part promises about half a unit for each parameter.
    const double chance = static_cast<double>(model.layout.size());
    if (found.trace.empty() || !(found.trace.front() - found.value > chance)) return false;
    const double there = all.evaluate(found.theta, Order::value).value;
    if (!(there < at.value)) return false;
    at.theta = found.theta;
    at.value = there;
    at.trace.push_back(there);
    return found.status == Status::converged;
}

}  // namespace cosmoe
