// Columns of the data: summaries and medians; the penalised regressions of starts.
#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "regression/columns.h"
#include "regression/ridge.h"

namespace {

using namespace cosmoe;

void check_medians() {
    std::mt19937 generator(1);
    std::normal_distribution<double> draw;
    for (const std::size_t n : {1, 2, 3, 10, 4095, 4096, 20011}) {
        std::vector<double> v(n);
        for (double& value : v) value = draw(generator);
        std::vector<double> misled = v;
        for (std::size_t i = 0; i < n; i += std::max<std::size_t>(1, n / 1024)) misled[i] = 1e6;
        for (std::vector<double> column : {v, misled}) {
            const double median = lower_median(column.data(), n);
            std::sort(column.begin(), column.end());
            CHECK(median == column[(n - 1) / 2]);
        }
    }
    const std::vector<double> infinite(5000, -std::numeric_limits<double>::infinity());
    CHECK(lower_median(infinite.data(), infinite.size()) == infinite[0]);
}

void check_summaries() {
    const double column[] = {3, 1, 5, 1, 5}, w[] = {1, 2, 0, 2, 3};
    const ColumnSummary plain = summarise_column(column, nullptr, 5), weighted = summarise_column(column, w, 5);
    CHECK_NEAR(plain.center, 3, 1e-15);
    CHECK_NEAR(plain.spread, std::sqrt(16.0 / 5), 1e-15);
    CHECK(plain.least == 1 && plain.least_row == 1 && plain.largest == 5 && plain.largest_row == 2);
    CHECK_NEAR(weighted.center, 22.0 / 8, 1e-15);
    CHECK_NEAR(weighted.spread, std::sqrt((4 * 1.75 * 1.75 + 0.0625 + 3 * 2.25 * 2.25) / 8), 1e-15);
}

// Without a penalty the line through its points; without weight nothing.
void check_ridge() {
    const arma::mat x = {{1, 1}, {2, 1}, {4, 1}};
    const arma::vec y = {3, 5, 9}, ones(3, arma::fill::ones);
    const arma::vec line = ridge(x, y, ones, 0);
    CHECK_NEAR(line[0], 2, 1e-12);
    CHECK_NEAR(line[1], 1, 1e-12);
    CHECK(arma::all(ridge(x, y, 0 * ones, 1e-3) == 0));
}

}  // namespace

int main() {
    check_medians();
    check_summaries();
    check_ridge();
    return check::report();
}
