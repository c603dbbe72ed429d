// Response distributions of a mixture likelihood: the log density of y given an expert's linear predictor (value of the
// expert plus offset) and the logarithm of a dispersion, with derivatives.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

namespace cosmoe {

struct FamilySpec {
    std::string name = "gaussian";  // binomial, poisson, Gamma
    std::string link = "identity";  // log, inverse, sqrt, logit, probit, cloglog
};

// Columns of n values; those of derivatives in phi are zero for families without dispersion.
struct DensityBlock {
    std::size_t n;
    const double *y, *trials;       // a binomial y is a share of trials
    double *log_density, *d1, *d2;  // in the predictor
    double *dphi, *d2phi, *dcross;  // in phi, twice in phi, in both
};

class Family {
  public:
    virtual ~Family() = default;
    virtual bool has_dispersion() const = 0;
    // phi is log(sigma) for the Gaussian and log(shape) for the Gamma distribution. An impossible y, or a mean outside
    // the family's range, has log density -infinity. `w` marks the rows that count (w > 0).
    virtual void evaluate(const DensityBlock& block, const double* w, const double* eta, double phi) const = 0;
    // The mean response at a predictor.
    virtual double mean(double eta) const = 0;
};

std::unique_ptr<const Family> make_family(const FamilySpec& spec);

}  // namespace cosmoe
