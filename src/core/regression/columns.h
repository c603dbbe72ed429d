// What a fit wants to know of a column of the data before it begins, without a copy of it.
#pragma once

#include <cstddef>

namespace cosmoe {

struct ColumnSummary {
    double center = 0, spread = 0;  // weighted mean, and root of the weighted mean square about it
    double least = 0, largest = 0;
    std::size_t least_row = 0, largest_row = 0;  // the first ones
};

// n > 0 finite values; w null: all ones. Rows of weight zero count for the extremes alone.
ColumnSummary summarise_column(const double* column, const double* w, std::size_t n);

// The lower median of n > 0 values, none of them NaN: the smallest that half of them do not exceed.
double lower_median(const double* column, std::size_t n);

}  // namespace cosmoe
