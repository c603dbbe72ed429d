// Random numbers by position instead of by order: draw number i of a stream depends on (seed, stream, step, i) alone,
// so that any thread can make its own and a run that is taken up again goes on as if it had never stopped. The
// finaliser of SplitMix64 (Steele, Lea and Flood, 2014) over a Weyl sequence with random access.
#pragma once

#include <cmath>
#include <cstdint>

namespace cosmoe {

enum class Stream : std::uint64_t { training = 1, prediction = 2, batches = 3 };

class Counter {
  public:
    Counter(std::uint64_t seed, Stream stream, std::uint64_t step)
        : key_(mix(mix(mix(seed) + static_cast<std::uint64_t>(stream)) + step)) {}

    std::uint64_t bits(std::uint64_t i) const { return mix(key_ + (i + 1) * 0x9e3779b97f4a7c15ULL); }

    // In [0, 1).
    double uniform(std::uint64_t i) const { return static_cast<double>(bits(i) >> 11) * 0x1p-53; }

    // Standard normal, by Box and Muller's method.
    double normal(std::uint64_t i) const {
        const double radius = std::sqrt(-2 * std::log(1 - uniform(2 * i)));
        return radius * std::cos(6.283185307179586477 * uniform(2 * i + 1));
    }

  private:
    static std::uint64_t mix(std::uint64_t z) {
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
        return z ^ (z >> 31);
    }
    std::uint64_t key_;
};

}  // namespace cosmoe
