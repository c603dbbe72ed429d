#include "regression/family.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "common/errors.h"
#include "common/kernels.h"

namespace cosmoe {
namespace {

constexpr double log_two_pi = 1.8378770664093454836;
constexpr double minus_infinity = -std::numeric_limits<double>::infinity();

// ---- links: mean and its two derivatives in the predictor -----------------------------------------------------------

struct MeanAt {
    double value, first, second;
};

using InverseLink = MeanAt (*)(double);

MeanAt identity(double t) { return {t, 1, 0}; }
MeanAt exponential(double t) {
    const double e = std::exp(t);
    return {e, e, e};
}
MeanAt reciprocal(double t) { return {1 / t, -1 / (t * t), 2 / (t * t * t)}; }
MeanAt square(double t) { return {t * t, 2 * t, 2}; }
MeanAt logistic(double t) {
    const double e = std::exp(-std::abs(t)), q = 1 / (1 + e), p = t >= 0 ? q : e * q, v = e * q * q;
    return {p, v, v * (1 - 2 * p)};
}
MeanAt normal(double t) {
    const double density = std::exp(-0.5 * (t * t + log_two_pi));
    return {0.5 * std::erfc(-t / std::sqrt(2.0)), density, -t * density};
}
MeanAt extreme(double t) {  // 1 - exp(-exp(t))
    const double e = std::exp(t), first = std::exp(t - e);
    return {-std::expm1(-e), first, first * (1 - e)};
}

InverseLink inverse_link(const std::string& link) {
    if (link == "identity") return identity;
    if (link == "log") return exponential;
    if (link == "inverse") return reciprocal;
    if (link == "sqrt") return square;
    if (link == "logit") return logistic;
    if (link == "probit") return normal;
    if (link == "cloglog") return extreme;
    throw InvalidArgument("unknown link '" + link + "'");
}

// ---- densities: value and derivatives in the mean and in phi --------------------------------------------------------

struct DensityAt {
    double value, mean1, mean2, phi1, phi2, cross;
};

// Gaussian, phi = log(sigma).
struct Gaussian {
    static constexpr bool dispersion = true;
    explicit Gaussian(double phi) : phi_(phi), precision_(std::exp(-2 * phi)) {}
    DensityAt at(double y, double, double mean) const {
        const double e = y - mean, square = e * e * precision_;
        return {-0.5 * (log_two_pi + square) - phi_,
                e * precision_,
                -precision_,
                square - 1,
                -2 * square,
                -2 * e * precision_};
    }
    double phi_, precision_;
};

// log(n!), which every evaluation needs again: from a table for small whole numbers.
double log_factorial(double n) {
    static const std::array<double, 256> table = [] {
        std::array<double, 256> values{};
        for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::lgamma(static_cast<double>(i) + 1);
        return values;
    }();
    if (n >= 0 && n < 256 && n == std::floor(n)) return table[static_cast<std::size_t>(n)];
    return std::lgamma(n + 1);
}

double log_choose(double n, double k) { return log_factorial(n) - log_factorial(k) - log_factorial(n - k); }

// From here on the terms of a log density are so much larger than their sum that it loses digits, and the density is
// that at the best mean, from Stirling's series, less half the deviance (Loader, 2000, "Fast and accurate computation of
// binomial probabilities").
constexpr double large_count = 1e5;

// log(y!) - (y log(y) - y), y > 0.
double stirling(double y) {
    if (y < 256) return log_factorial(y) - (y * std::log(y) - y);
    const double r = 1 / (y * y);
    return 0.5 * (log_two_pi + std::log(y)) + (1.0 / 12 - r * (1.0 / 360 - r / 1260)) / y;
}

// exp(t) - 1 - t, to full relative precision.
double excess(double t) {
    if (std::abs(t) > 0.5) return std::expm1(t) - t;
    double sum = 1;
    for (int j = 15; j > 2; --j) sum = 1 + sum * t / j;
    return 0.5 * t * t * sum;
}

// Of a count y > 0 whose mean is y exp(t).
double large_poisson(double y, double t) { return -y * excess(t) - stirling(y); }

// Of `hits` in n trials, neither none nor all. `log_hit`, `log_miss`: logarithms of the mean number over the actual one.
double large_binomial(double n, double hits, double log_hit, double log_miss) {
    const double misses = n - hits;
    return stirling(n) - stirling(hits) - stirling(misses) - hits * excess(log_hit) - misses * excess(log_miss);
}

// log(mean / y), to full relative precision where they are close.
double log_ratio(double mean, double y) {
    const double change = (mean - y) / y;
    return std::abs(change) < 0.5 ? std::log1p(change) : std::log(mean / y);
}

// y log(mean) - mean - log(y!).
struct Poisson {
    static constexpr bool dispersion = false;
    explicit Poisson(double) {}
    DensityAt at(double y, double, double mean) const {
        if (!(mean > 0) && !(mean == 0 && y == 0)) return {minus_infinity, 0, 0, 0, 0, 0};
        const double ratio = y > 0 ? y / mean : 0;
        const double value = y < large_count ? (y > 0 ? y * std::log(mean) - log_factorial(y) : 0) - mean
                                             : large_poisson(y, log_ratio(mean, y));
        return {value, y > 0 ? (y - mean) / mean : -1, y > 0 ? -ratio / mean : 0, 0, 0, 0};
    }
};

// y is the share of successes in n trials.
struct Binomial {
    static constexpr bool dispersion = false;
    explicit Binomial(double) {}
    DensityAt at(double y, double n, double mean) const {
        const double hits = n * y, misses = n - hits, rest = 1 - mean;
        if ((hits > 0 && !(mean > 0)) || (misses > 0 && !(rest > 0))) return {minus_infinity, 0, 0, 0, 0, 0};
        DensityAt out{0, 0, 0, 0, 0, 0};
        if (hits > 0) out.mean1 += hits / mean, out.mean2 -= hits / mean / mean;
        if (misses > 0) out.mean1 -= misses / rest, out.mean2 -= misses / rest / rest;
        if (n < large_count || !(hits > 0 && misses > 0)) {
            out.value = log_choose(n, hits) + (hits > 0 ? hits * std::log(mean) : 0) +
                        (misses > 0 ? misses * std::log1p(-mean) : 0);
        } else {
            out.value = large_binomial(n, hits, log_ratio(n * mean, hits), log_ratio(n * rest, misses));
        }
        return out;
    }
};

// Derivatives of log Gamma(x): recurrence up to 8, then the asymptotic series (Abramowitz and Stegun 6.3.18, 6.4.12).
double digamma(double x) {
    double out = 0;
    for (; x < 8; x += 1) out -= 1 / x;
    const double r = 1 / (x * x);
    return out + std::log(x) - 0.5 / x -
           r * (1.0 / 12 - r * (1.0 / 120 - r * (1.0 / 252 - r * (1.0 / 240 - r * (1.0 / 132 - r * 691.0 / 32760)))));
}

double trigamma(double x) {
    double out = 0;
    for (; x < 8; x += 1) out += 1 / (x * x);
    const double r = 1 / (x * x);
    return out + 1 / x + r / 2 +
           r / x * (1.0 / 6 - r * (1.0 / 30 - r * (1.0 / 42 - r * (1.0 / 30 - r * (5.0 / 66 - r * 691.0 / 2730)))));
}

// Gamma with mean and shape nu = exp(phi).
struct Gamma {
    static constexpr bool dispersion = true;
    explicit Gamma(double phi)
        : phi_(phi),
          nu_(std::exp(phi)),
          log_gamma_(std::lgamma(nu_)),
          digamma_(digamma(nu_)),
          trigamma_(trigamma(nu_)) {}
    DensityAt at(double y, double, double mean) const {
        if (!(mean > 0) || !(y > 0)) return {minus_infinity, 0, 0, 0, 0, 0};
        const double ratio = y / mean, logs = phi_ - std::log(mean) + std::log(y);
        const double slope = nu_ * (1 + logs - digamma_ - ratio);
        return {nu_ * logs - nu_ * ratio - log_gamma_ - std::log(y),
                nu_ * (ratio - 1) / mean,
                nu_ * (1 - 2 * ratio) / (mean * mean),
                slope,
                slope + nu_ * (1 - nu_ * trigamma_),
                nu_ * (ratio - 1) / mean};
    }
    double phi_, nu_, log_gamma_, digamma_, trigamma_;
};

// A density in its mean behind a link.
template <class Density>
class Linked final : public Family {
  public:
    explicit Linked(InverseLink link) : link_(link) {}
    bool has_dispersion() const override { return Density::dispersion; }
    double mean(double eta) const override { return link_(eta).value; }
    void evaluate(const DensityBlock& b, const double* w, const double* eta, double phi) const override {
        const Density density(phi);
        for (std::size_t i = 0; i < b.n; ++i) {
            if (!(w[i] > 0)) {
                b.log_density[i] = b.d1[i] = b.d2[i] = b.dphi[i] = b.d2phi[i] = b.dcross[i] = 0;
                continue;
            }
            const MeanAt mean = link_(eta[i]);
            const DensityAt at = density.at(b.y[i], b.trials[i], mean.value);
            b.log_density[i] = at.value;
            b.d1[i] = at.mean1 * mean.first;
            b.d2[i] = at.mean2 * mean.first * mean.first + at.mean1 * mean.second;
            b.dphi[i] = at.phi1, b.d2phi[i] = at.phi2, b.dcross[i] = at.cross * mean.first;
        }
    }

  private:
    InverseLink link_;
};

class GaussianIdentity final : public Family {
  public:
    bool has_dispersion() const override { return true; }
    double mean(double eta) const override { return eta; }
    void evaluate(const DensityBlock& b, const double*, const double* eta, double phi) const override {
        kernel::gaussian(b.y, eta, phi, b.n, {b.log_density, b.d1, b.d2, b.dphi, b.d2phi, b.dcross});
    }
};

// The canonical links, where the chain through the mean would lose digits.
class PoissonLog final : public Family {
  public:
    bool has_dispersion() const override { return false; }
    double mean(double eta) const override { return std::exp(eta); }
    void evaluate(const DensityBlock& b, const double* w, const double* eta, double) const override {
        kernel::exponential(eta, b.n, b.d2);
        for (std::size_t i = 0; i < b.n; ++i) {
            const bool counts = w[i] > 0;
            const double mean = counts ? b.d2[i] : 0, y = b.y[i];
            b.log_density[i] = counts ? log_density(y, eta[i], mean) : 0;
            b.d1[i] = counts ? y - mean : 0, b.d2[i] = -mean;
            b.dphi[i] = b.d2phi[i] = b.dcross[i] = 0;
        }
    }

  private:
    static double log_density(double y, double eta, double mean) {
        if (y < large_count) return y * eta - mean - log_factorial(y);
        return large_poisson(y, eta - std::log(y));
    }
};

class BinomialLogit final : public Family {
  public:
    bool has_dispersion() const override { return false; }
    double mean(double eta) const override { return logistic(eta).value; }
    void evaluate(const DensityBlock& b, const double* w, const double* eta, double) const override {
        // log(1 + exp(eta)), the mean, and the variance of one trial.
        kernel::activate(Activation::softplus, eta, b.n, b.log_density, b.d1, b.d2);
        for (std::size_t i = 0; i < b.n; ++i) {
            const bool counts = w[i] > 0;
            const double n = b.trials[i], hits = n * b.y[i];
            b.log_density[i] = counts ? log_density(n, hits, eta[i], b.log_density[i]) : 0;
            b.d1[i] = counts ? hits - n * b.d1[i] : 0, b.d2[i] = counts ? -n * b.d2[i] : 0;
            b.dphi[i] = b.d2phi[i] = b.dcross[i] = 0;
        }
    }

  private:
    // `softplus`: log(1 + exp(eta)).
    static double log_density(double n, double hits, double eta, double softplus) {
        if (n < large_count) return hits * eta - n * softplus + log_choose(n, hits);
        const double rest = std::log1p(std::exp(-std::abs(eta))), misses = n - hits;
        const double log_hit = std::min(eta, 0.0) - rest, log_miss = -std::max(eta, 0.0) - rest;
        if (!(hits > 0)) return n * log_miss;
        if (!(misses > 0)) return n * log_hit;
        return large_binomial(n, hits, log_hit - std::log(hits / n), log_miss - std::log(misses / n));
    }
};

}  // namespace

std::unique_ptr<const Family> make_family(const FamilySpec& spec) {
    if (spec.name == "poisson" && spec.link == "log") return std::make_unique<PoissonLog>();
    if (spec.name == "binomial" && spec.link == "logit") return std::make_unique<BinomialLogit>();
    const InverseLink link = inverse_link(spec.link);
    if (spec.name == "gaussian" && spec.link == "identity") return std::make_unique<GaussianIdentity>();
    if (spec.name == "gaussian") return std::make_unique<Linked<Gaussian>>(link);
    if (spec.name == "poisson") return std::make_unique<Linked<Poisson>>(link);
    if (spec.name == "binomial") return std::make_unique<Linked<Binomial>>(link);
    if (spec.name == "Gamma") return std::make_unique<Linked<Gamma>>(link);
    throw InvalidArgument("unknown family '" + spec.name + "'");
}

}  // namespace cosmoe
