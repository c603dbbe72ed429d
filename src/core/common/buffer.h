// A cache-line aligned block of doubles, column major, zeroed on allocation.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>

namespace cosmoe {

class Buffer {
  public:
    Buffer() = default;
    Buffer(std::size_t rows, std::size_t cols) : rows_(rows), cols_(cols) {
        const std::size_t size = std::max<std::size_t>(1, rows * cols);
        data_.reset(static_cast<double*>(::operator new(size * sizeof(double), alignment)));
        std::fill_n(data_.get(), size, 0.0);
    }
    double* col(std::size_t j) { return data_.get() + j * rows_; }
    const double* col(std::size_t j) const { return data_.get() + j * rows_; }
    std::size_t rows() const { return rows_; }
    std::size_t cols() const { return cols_; }

  private:
    static constexpr std::align_val_t alignment{64};
    struct Free {
        void operator()(double* p) const { ::operator delete(p, alignment); }
    };
    std::size_t rows_ = 0, cols_ = 0;
    std::unique_ptr<double, Free> data_;
};

}  // namespace cosmoe
