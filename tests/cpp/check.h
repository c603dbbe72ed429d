// Checks for the tests of the core: no framework, one header.
//
//     int main() {
//         CHECK(1 + 1 == 2);
//         CHECK_NEAR(std::sqrt(2.0), 1.4142, 1e-4);
//         CHECK_THROWS(f(-1), std::invalid_argument);
//         return check::report();
//     }
#pragma once

#include <cmath>
#include <iostream>

namespace check {

inline int passed = 0;
inline int failed = 0;

inline bool verify(bool ok, const char* file, int line, const char* what) {
    if (ok) {
        ++passed;
    } else {
        ++failed;
        std::cerr << file << ':' << line << ": failed: " << what << '\n';
    }
    return ok;
}

// NaN is near nothing; equal infinities are near each other.
inline void near(double a, double b, double tolerance, const char* file, int line, const char* what) {
    if (!verify(a == b || std::abs(a - b) <= tolerance, file, line, what)) {
        const auto digits = std::cerr.precision(17);
        std::cerr << "    " << a << " against " << b << ", tolerance " << tolerance << '\n';
        std::cerr.precision(digits);
    }
}

// The exit code of a test program: a program that checked nothing has failed.
inline int report() {
    std::cout << passed << " checks passed, " << failed << " failed\n";
    return failed == 0 && passed > 0 ? 0 : 1;
}

}  // namespace check

// Variadic, so that a condition may hold commas outside parentheses: CHECK(f<a, b>() == 1).
#define CHECK(...) check::verify(static_cast<bool>(__VA_ARGS__), __FILE__, __LINE__, #__VA_ARGS__)

#define CHECK_NEAR(a, b, tolerance) check::near((a), (b), (tolerance), __FILE__, __LINE__, #a " near " #b)

#define CHECK_THROWS(expression, type)                                            \
    do {                                                                          \
        bool thrown_ = false;                                                     \
        try {                                                                     \
            static_cast<void>(expression);                                        \
        } catch (const type&) {                                                   \
            thrown_ = true;                                                       \
        }                                                                         \
        check::verify(thrown_, __FILE__, __LINE__, #expression " throws " #type); \
    } while (false)
