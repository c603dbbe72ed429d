// Included once for each instruction set by kernels.cpp, inside a namespace of its own. COSMOE_LANES is the number of
// doubles in a vector register. No include guard on purpose.

// Before a loop of few rounds: the sums of a tile stay in registers only if it is unrolled early.
#ifndef COSMOE_UNROLL
#define COSMOE_UNROLL _Pragma("GCC unroll 8")
#endif

typedef double Vec __attribute__((vector_size(8 * COSMOE_LANES), aligned(8), may_alias));

static inline Vec load(const double* p) { return *reinterpret_cast<const Vec*>(p); }
static inline void store(double* p, Vec v) { *reinterpret_cast<Vec*>(p) = v; }

static inline double lane_sum(Vec v) {
    double s = 0;
    for (int l = 0; l < COSMOE_LANES; ++l) s += v[l];
    return s;
}

// Columns at equal distances, or wherever they lie.
struct Strided {
    const double* first;
    std::size_t ld;
    const double* operator[](std::size_t c) const { return first + c * ld; }
    Strided from(std::size_t c) const { return {first + c * ld, ld}; }
};
struct Listed {
    const double* const* list;
    const double* operator[](std::size_t c) const { return list[c]; }
    Listed from(std::size_t c) const { return {list + c}; }
};

// V registers of rows by C columns: enough sums to hide the latency of a product. They start with `start`, if any.
template <int V, int C, class Columns>
static inline void combine_tile(const double* a, std::size_t lda, std::size_t na, const double* start, Columns coef,
                                double* out, std::size_t ldo) {
    Vec acc[V][C];
    COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i) acc[i][c] =
        start ? load(start + i * COSMOE_LANES) : Vec{};
    for (std::size_t j = 0; j < na; ++j) {
        Vec v[V];
        COSMOE_UNROLL for (int i = 0; i < V; ++i) v[i] = load(a + j * lda + i * COSMOE_LANES);
        COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i) acc[i][c] +=
            v[i] * coef[c][j];
    }
    COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i)
        store(out + c * ldo + i * COSMOE_LANES, acc[i][c]);
}

template <int V, int C, class Columns>
static inline void combine_columns(const double* a, std::size_t lda, std::size_t na, const double* start, Columns coef,
                                   std::size_t n, double* out, std::size_t ldo) {
    const auto at = [start](std::size_t r) { return start ? start + r : nullptr; };
    std::size_t r = 0;
    for (; r + V * COSMOE_LANES <= n; r += V * COSMOE_LANES)
        combine_tile<V, C>(a + r, lda, na, at(r), coef, out + r, ldo);
    for (; r < n; r += COSMOE_LANES) combine_tile<1, C>(a + r, lda, na, at(r), coef, out + r, ldo);
}

// As many columns as the registers hold sums of.
constexpr std::size_t widest_tile = COSMOE_LANES == 8 ? 8 : 4;
constexpr int tile_sums = COSMOE_LANES == 8 ? 16 : 8;

template <class Columns>
static inline void combine_all(const double* a, std::size_t lda, std::size_t na, const double* start, Columns coef,
                               std::size_t nc, std::size_t n, double* out, std::size_t ldo) {
    std::size_t c = 0;
    for (; c + widest_tile <= nc; c += widest_tile)
        combine_columns<2, widest_tile>(a, lda, na, start, coef.from(c), n, out + c * ldo, ldo);
    for (; c + 4 <= nc; c += 4)
        combine_columns<tile_sums / 4, 4>(a, lda, na, start, coef.from(c), n, out + c * ldo, ldo);
    for (; c + 2 <= nc; c += 2)
        combine_columns<tile_sums / 2, 2>(a, lda, na, start, coef.from(c), n, out + c * ldo, ldo);
    for (; c < nc; ++c) combine_columns<8, 1>(a, lda, na, start, coef.from(c), n, out + c * ldo, ldo);
}

void combine(const double* a, std::size_t lda, std::size_t na, const double* coef, std::size_t ldc, std::size_t nc,
             std::size_t n, double* out, std::size_t ldo) {
    combine_all(a, lda, na, nullptr, Strided{coef, ldc}, nc, n, out, ldo);
}

void combine_listed(const double* a, std::size_t lda, std::size_t na, const double* start, const double* const* coef,
                    std::size_t nc, std::size_t n, double* out, std::size_t ldo) {
    combine_all(a, lda, na, start, Listed{coef}, nc, n, out, ldo);
}

template <int V, int C>
static inline void outer_tile(const double* a, std::size_t lda, std::size_t na, const double* const* b, std::size_t j,
                              double* out, std::size_t ldo) {
    Vec acc[V][C];
    COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i) acc[i][c] =
        load(out + c * ldo + i * COSMOE_LANES);
    for (std::size_t r = 0; r < na; ++r) {
        Vec v[V];
        COSMOE_UNROLL for (int i = 0; i < V; ++i) v[i] = load(a + r * lda + i * COSMOE_LANES);
        COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i) acc[i][c] +=
            v[i] * b[r][j + c];
    }
    COSMOE_UNROLL for (int c = 0; c < C; ++c) COSMOE_UNROLL for (int i = 0; i < V; ++i)
        store(out + c * ldo + i * COSMOE_LANES, acc[i][c]);
}

template <int C>
static inline void outer_columns(const double* a, std::size_t lda, std::size_t na, const double* const* b,
                                 std::size_t j, std::size_t n, double* out, std::size_t ldo) {
    std::size_t i = 0;
    for (; i + 2 * COSMOE_LANES <= n; i += 2 * COSMOE_LANES) outer_tile<2, C>(a + i, lda, na, b, j, out + i, ldo);
    for (; i < n; i += COSMOE_LANES) outer_tile<1, C>(a + i, lda, na, b, j, out + i, ldo);
}

void outer_product(const double* a, std::size_t lda, std::size_t na, const double* const* b, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    std::size_t j = 0;
    for (; j + widest_tile <= nb; j += widest_tile) outer_columns<widest_tile>(a, lda, na, b, j, n, out + j * ldo, ldo);
    for (; j + 2 <= nb; j += 2) outer_columns<2>(a, lda, na, b, j, n, out + j * ldo, ldo);
    for (; j < nb; ++j) outer_columns<1>(a, lda, na, b, j, n, out + j * ldo, ldo);
}

// Sums over the lanes of as many vectors as there are lanes, in one vector. Each step adds two halves of the lanes of two
// vectors into one.
static inline Vec lane_sums(const Vec* v) {
#if COSMOE_LANES == 2
    // The only one that compilers without GCC's shuffles see.
    return Vec{v[0][0], v[1][0]} + Vec{v[0][1], v[1][1]};
#else
    typedef long long Mask __attribute__((vector_size(8 * COSMOE_LANES)));
#if COSMOE_LANES == 4
    const Mask even = {0, 4, 2, 6}, odd = {1, 5, 3, 7}, low = {0, 1, 4, 5}, high = {2, 3, 6, 7};
    const Vec a = __builtin_shuffle(v[0], v[1], even) + __builtin_shuffle(v[0], v[1], odd);
    const Vec b = __builtin_shuffle(v[2], v[3], even) + __builtin_shuffle(v[2], v[3], odd);
#else
    const Mask even = {0, 8, 2, 10, 4, 12, 6, 14}, odd = {1, 9, 3, 11, 5, 13, 7, 15};
    const Mask first = {0, 1, 8, 9, 4, 5, 12, 13}, second = {2, 3, 10, 11, 6, 7, 14, 15};
    const Mask low = {0, 1, 2, 3, 8, 9, 10, 11}, high = {4, 5, 6, 7, 12, 13, 14, 15};
    Vec two[4];
    for (int i = 0; i < 4; ++i)
        two[i] = __builtin_shuffle(v[2 * i], v[2 * i + 1], even) + __builtin_shuffle(v[2 * i], v[2 * i + 1], odd);
    const Vec a = __builtin_shuffle(two[0], two[1], first) + __builtin_shuffle(two[0], two[1], second);
    const Vec b = __builtin_shuffle(two[2], two[3], first) + __builtin_shuffle(two[2], two[3], second);
#endif
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
#endif
}

void transpose(const double* a, std::size_t lda, std::size_t na, std::size_t n, double* out, std::size_t ldo) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        for (std::size_t c = 0; c < na; ++c) {
            const Vec v = load(a + c * lda + r);
            COSMOE_UNROLL for (int l = 0; l < COSMOE_LANES; ++l) out[(r + l) * ldo + c] = v[l];
        }
}

void dot_listed(const double* a, std::size_t lda, std::size_t rows, const double* const* b, std::size_t n,
                double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        Vec acc[COSMOE_LANES];
        COSMOE_UNROLL for (int l = 0; l < COSMOE_LANES; ++l) acc[l] = Vec{};
        for (std::size_t j = 0; j < rows; j += COSMOE_LANES)
            COSMOE_UNROLL for (int l = 0; l < COSMOE_LANES; ++l) acc[l] +=
                load(a + (r + l) * lda + j) * load(b[r + l] + j);
        store(out + r, lane_sums(acc));
    }
}

void add_listed(const double* a, std::size_t lda, std::size_t rows, const double* c, std::size_t n, double* const* b) {
    for (std::size_t r = 0; r < n; ++r)
        for (std::size_t j = 0; j < rows; j += COSMOE_LANES)
            store(b[r] + j, load(b[r] + j) + load(a + r * lda + j) * c[r]);
}

template <int I, int J>
static inline void cross_tile(const double* a, std::size_t lda, const double* b, std::size_t ldb, std::size_t n,
                              double* out, std::size_t ldo) {
    Vec acc[I][J];
    COSMOE_UNROLL for (int i = 0; i < I; ++i) COSMOE_UNROLL for (int j = 0; j < J; ++j) acc[i][j] = Vec{};
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        Vec vb[J];
        COSMOE_UNROLL for (int j = 0; j < J; ++j) vb[j] = load(b + j * ldb + r);
        COSMOE_UNROLL for (int i = 0; i < I; ++i) {
            const Vec va = load(a + i * lda + r);
            COSMOE_UNROLL for (int j = 0; j < J; ++j) acc[i][j] += va * vb[j];
        }
    }
    COSMOE_UNROLL for (int j = 0; j < J; ++j) COSMOE_UNROLL for (int from = 0; from < I; from += COSMOE_LANES) {
        Vec some[COSMOE_LANES];
        COSMOE_UNROLL for (int i = 0; i < COSMOE_LANES; ++i) some[i] = from + i < I ? acc[from + i][j] : Vec{};
        const Vec sums = lane_sums(some);
        for (int i = 0; i < COSMOE_LANES && from + i < I; ++i) out[from + i + j * ldo] += sums[i];
    }
}

// The largest tile whose sums and factors fit the registers: 24 of 32, or 12 of 16.
constexpr int cross_rows = COSMOE_LANES == 8 ? 6 : 4, cross_columns = COSMOE_LANES == 8 ? 4 : 3;

// Rows of tiles down to the last one, which may be lower.
template <int J, int Last>
static inline void cross_last(std::size_t rows, const double* a, std::size_t lda, const double* b, std::size_t ldb,
                              std::size_t n, double* out, std::size_t ldo) {
    if (rows == Last) cross_tile<Last, J>(a, lda, b, ldb, n, out, ldo);
    else if constexpr (Last > 1) cross_last<J, Last - 1>(rows, a, lda, b, ldb, n, out, ldo);
}

template <int J>
static inline void cross_strip(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb,
                               std::size_t n, double* out, std::size_t ldo) {
    std::size_t i = 0;
    for (; i + cross_rows <= na; i += cross_rows) cross_tile<cross_rows, J>(a + i * lda, lda, b, ldb, n, out + i, ldo);
    cross_last<J, cross_rows - 1>(na - i, a + i * lda, lda, b, ldb, n, out + i, ldo);
}

template <int Last>
static inline void cross_last_strip(std::size_t columns, const double* a, std::size_t lda, std::size_t na,
                                    const double* b, std::size_t ldb, std::size_t n, double* out, std::size_t ldo) {
    if (columns == Last) cross_strip<Last>(a, lda, na, b, ldb, n, out, ldo);
    else if constexpr (Last > 1) cross_last_strip<Last - 1>(columns, a, lda, na, b, ldb, n, out, ldo);
}

void cross_product(const double* a, std::size_t lda, std::size_t na, const double* b, std::size_t ldb, std::size_t nb,
                   std::size_t n, double* out, std::size_t ldo) {
    std::size_t j = 0;
    for (; j + cross_columns <= nb; j += cross_columns)
        cross_strip<cross_columns>(a, lda, na, b + j * ldb, ldb, n, out + j * ldo, ldo);
    cross_last_strip<cross_columns - 1>(nb - j, a, lda, na, b + j * ldb, ldb, n, out + j * ldo, ldo);
}

// Square roots of positive normal numbers: 1 / sqrt by Newton's method, which doubles the correct digits of a first
// guess from the halved exponent, and a last correction. The compilers do not put sqrt() on lanes, because of errno.
static inline Vec root(Vec v) {
    typedef unsigned long long Bits __attribute__((vector_size(8 * COSMOE_LANES), may_alias));
    Vec inverse = (Vec)(0x5fe6eb50c7b537a9ULL - ((Bits)v >> 1));
    for (int i = 0; i < 4; ++i) inverse *= 1.5 - 0.5 * v * inverse * inverse;
    const Vec value = v * inverse;
    return value + 0.5 * inverse * (v - value * value);
}

template <int V>
static inline void norm_tile(const double* a, std::size_t lda, std::size_t na, double offset, Vec& least, Vec& largest,
                             double* out) {
    Vec acc[V] = {};
    for (std::size_t j = 0; j < na; ++j)
        for (int i = 0; i < V; ++i) {
            const Vec v = load(a + j * lda + i * COSMOE_LANES);
            acc[i] += v * v;
        }
    for (int i = 0; i < V; ++i) {
        least = acc[i] < least ? acc[i] : least;
        largest = acc[i] > largest ? acc[i] : largest;
        store(out + i * COSMOE_LANES, 1.0 / (root(acc[i]) + offset));
    }
}

bool inverse_norms(const double* a, std::size_t lda, std::size_t na, std::size_t n, double offset, double* out) {
    Vec least = Vec{} + 1e280, largest = Vec{} + 1e-280;
    std::size_t row = 0;
    for (; row + 4 * COSMOE_LANES <= n; row += 4 * COSMOE_LANES)
        norm_tile<4>(a + row, lda, na, offset, least, largest, out + row);
    for (; row < n; row += COSMOE_LANES) norm_tile<1>(a + row, lda, na, offset, least, largest, out + row);
    bool plain = true;
    for (int l = 0; l < COSMOE_LANES; ++l) plain = plain && least[l] > 1e-280 && largest[l] < 1e280;
    return plain;
}

void multiply(const double* a, const double* b, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(a + r) * load(b + r));
}

void multiply3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(a + r) * load(b + r) * load(c + r));
}

void add(const double* a, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(out + r) + load(a + r));
}

void add_product3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        store(out + r, load(out + r) + load(a + r) * load(b + r) * load(c + r));
}

void subtract_product(const double* a, const double* b, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(out + r) - load(a + r) * load(b + r));
}

void subtract_product3(const double* a, const double* b, const double* c, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        store(out + r, load(out + r) - load(a + r) * load(b + r) * load(c + r));
}

// value where `share` is positive, else 0: without multiplying, so that nothing but finite numbers comes of it.
static inline Vec where_positive(Vec share, Vec value) { return share > 0.0 ? value : Vec{}; }

void multiply_difference(const double* share, const double* a, const double* b, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        const Vec s = load(share + r);
        store(out + r, where_positive(s, s * (load(a + r) - load(b + r))));
    }
}

void subtract(const double* a, const double* b, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(a + r) - load(b + r));
}

void multiply_negative(const double* share, const double* a, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        const Vec s = load(share + r);
        store(out + r, where_positive(s, -s * load(a + r)));
    }
}

void covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(w + r) * load(p + r) * (same - load(q + r)));
}

void subtract_covariance(const double* w, const double* p, const double* q, double same, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        store(out + r, load(out + r) - load(w + r) * load(p + r) * (same - load(q + r)));
}

void mix(const double* p, std::size_t ldp, const double* h, std::size_t ldh, std::size_t k, std::size_t n,
         double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        Vec sum = {};
        for (std::size_t c = 0; c < k; ++c) {
            const Vec weight = load(p + c * ldp + r);
            sum += weight == 0.0 ? Vec{} : weight * load(h + c * ldh + r);
        }
        store(out + r, sum);
    }
}

bool all_positive(const double* p, std::size_t n) {
    Vec least = load(p);
    for (std::size_t r = COSMOE_LANES; r < n; r += COSMOE_LANES) {
        const Vec v = load(p + r);
        least = v > least ? least : v;
    }
    bool all = true;
    for (int l = 0; l < COSMOE_LANES; ++l) all = all && least[l] > 0;
    return all;
}

void clear_where_zero(const double* p, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, where_positive(load(p + r), load(out + r)));
}

double residuals(const double* w, const double* y, const double* f, std::size_t n, double* minus_wr) {
    Vec value = {};
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        const Vec weight = load(w + r), residual = where_positive(weight, load(y + r) - load(f + r));
        store(minus_wr + r, -weight * residual);
        value += 0.5 * weight * residual * residual;
    }
    return lane_sum(value);
}

void add_finite_part(const double* p, const double* a, std::size_t n, double* out) {
    const double lowest = -std::numeric_limits<double>::infinity();
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        store(out + r, load(p + r) > 0.0 ? load(out + r) + load(a + r) : Vec{} + lowest);
}

void divide(const double* a, const double* b, std::size_t n, double* out) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) store(out + r, load(a + r) / load(b + r));
}

double weighted_sum(const double* w, const double* a, const double* b, const double* c, std::size_t n) {
    Vec value = {};
    for (std::size_t r = 0; r < n; r += COSMOE_LANES) {
        const Vec weight = load(w + r);
        value += where_positive(weight, weight * (load(a + r) - load(b + r) + load(c + r)));
    }
    return lane_sum(value);
}

// Each number goes down a list, largest first, and changes places with all that are not larger. From the last column to
// the first: of equal numbers that of the first column comes to lie above. NaN counts as the smallest number.
template <int Top>
static inline void largest_few(const double* score, std::size_t ld, std::size_t k, double* value, double* number,
                               std::size_t ldo) {
    const Vec lowest = Vec{} - std::numeric_limits<double>::infinity();
    Vec best[Top], names[Top];
    COSMOE_UNROLL for (int j = 0; j < Top; ++j) best[j] = lowest, names[j] = Vec{};
    for (std::size_t c = k; c-- > 0;) {
        Vec own = load(score + c * ld), name = Vec{} + static_cast<double>(c);
        own = own == own ? own : lowest;
        COSMOE_UNROLL for (int j = 0; j < Top; ++j) {
            const Vec other = best[j], other_name = names[j];
            best[j] = own < other ? other : own, names[j] = own < other ? other_name : name;
            name = own < other ? name : other_name, own = own < other ? own : other;
        }
    }
    COSMOE_UNROLL for (int j = 0; j < Top; ++j) store(value + j * ldo, best[j]), store(number + j * ldo, names[j]);
}

// The same with the list in memory.
static inline void largest_many(const double* score, std::size_t ld, std::size_t k, std::size_t top, double* value,
                                double* number, std::size_t ldo) {
    const Vec lowest = Vec{} - std::numeric_limits<double>::infinity();
    for (std::size_t j = 0; j < top; ++j) store(value + j * ldo, lowest), store(number + j * ldo, Vec{});
    for (std::size_t c = k; c-- > 0;) {
        Vec own = load(score + c * ld), name = Vec{} + static_cast<double>(c);
        own = own == own ? own : lowest;
        for (std::size_t j = 0; j < top; ++j) {
            const Vec other = load(value + j * ldo), other_name = load(number + j * ldo);
            store(value + j * ldo, own < other ? other : own), store(number + j * ldo, own < other ? other_name : name);
            name = own < other ? name : other_name, own = own < other ? own : other;
        }
    }
}

void largest(const double* score, std::size_t ld, std::size_t k, std::size_t n, std::size_t top, double* value,
             double* number, std::size_t ldo) {
    for (std::size_t r = 0; r < n; r += COSMOE_LANES)
        if (top == 1) largest_few<1>(score + r, ld, k, value + r, number + r, ldo);
        else if (top == 2) largest_few<2>(score + r, ld, k, value + r, number + r, ldo);
        else largest_many(score + r, ld, k, top, value + r, number + r, ldo);
}

// The next block of the column is asked for ahead of time: no processor looks beyond a page by itself.
void standardize(const double* column, double center, double factor, std::size_t n, double* out) {
    std::size_t r = 0;
    for (; r + COSMOE_LANES <= n; r += COSMOE_LANES) {
        __builtin_prefetch(column + n + r, 0, 2);
        store(out + r, (load(column + r) - center) * factor);
    }
    for (; r < n; ++r) out[r] = (column[r] - center) * factor;
}

// exp(x) - 1 as 2^m (1 + q) - 1, with m = round(x / log 2) read off the bits of a shifted sum and q the Taylor
// polynomial of expm1 on |r| <= log(2)/2 (degree 13: remainder below 5e-18). *power receives 2^m and *q its q.
static inline void split_exp(double x, double* power, double* q) {
    const double shift = 6755399441055744.0;  // 1.5 * 2^52: the sum's low bits hold the rounded integer
    x = x < -708.0 ? -708.0 : x;
    x = x > 709.0 ? 709.0 : x;
    const double t = x * 1.4426950408889634 + shift;
    std::uint64_t bits, shift_bits;
    std::memcpy(&bits, &t, sizeof t);
    std::memcpy(&shift_bits, &shift, sizeof shift);
    const double m = t - shift;
    const double r = (x - m * 0.693147180369123816490) - m * 1.90821492927058770002e-10;
    double e = 1.0 / 6227020800.0;
    e = e * r + 1.0 / 479001600.0;
    e = e * r + 1.0 / 39916800.0;
    e = e * r + 1.0 / 3628800.0;
    e = e * r + 1.0 / 362880.0;
    e = e * r + 1.0 / 40320.0;
    e = e * r + 1.0 / 5040.0;
    e = e * r + 1.0 / 720.0;
    e = e * r + 1.0 / 120.0;
    e = e * r + 1.0 / 24.0;
    e = e * r + 1.0 / 6.0;
    e = e * r + 0.5;
    *q = r + r * r * e;
    const std::uint64_t exponent = (bits - shift_bits + 1023) << 52;  // unsigned: wraps for NaN instead of overflowing
    std::memcpy(power, &exponent, sizeof exponent);
}

static inline double fast_exp(double x) {
    double power, q;
    split_exp(x, &power, &q);
    const double value = power + power * q;
    return x < -708.0 ? 0.0 : value;
}

static inline double fast_expm1(double x) {
    double power, q;
    split_exp(x, &power, &q);
    return (power - 1.0) + power * q;
}

// log(x) = e log 2 + log(m), m in [sqrt(1/2), sqrt(2)): with t = (m - 1) / (m + 1), log(m) = 2 artanh(t), whose Taylor
// series to t^21 leaves less than 1e-18 of it (t^2 < 0.0295). The leading terms are kept apart for accuracy near 1.
static inline double fast_log(double x) {
    std::uint64_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    // The mantissa's leading bits decide whether the exponent is rounded up.
    const std::uint64_t shifted = bits + (0x3ff0000000000000ULL - 0x3fe6a09e667f3bcdULL);
    const std::uint64_t exponent = shifted >> 52;
    const std::uint64_t mantissa = (shifted & 0x000fffffffffffffULL) + 0x3fe6a09e667f3bcdULL;
    double m;
    std::memcpy(&m, &mantissa, sizeof m);
    // 2^52 + exponent as a double's bits: the conversion without an instruction for 64-bit integers.
    const std::uint64_t whole = exponent | 0x4330000000000000ULL;
    double e;
    std::memcpy(&e, &whole, sizeof e);
    e -= 4503599627370496.0 + 1023.0;
    const double f = m - 1.0, t = f / (2.0 + f), s = t * t;
    double series = 2.0 / 21.0;
    series = series * s + 2.0 / 19.0;
    series = series * s + 2.0 / 17.0;
    series = series * s + 2.0 / 15.0;
    series = series * s + 2.0 / 13.0;
    series = series * s + 2.0 / 11.0;
    series = series * s + 2.0 / 9.0;
    series = series * s + 2.0 / 7.0;
    series = series * s + 2.0 / 5.0;
    series = series * s + 2.0 / 3.0;
    series *= s;
    const double half = 0.5 * f * f;
    // log(m) = f - half + t (half + series), as in Sun's fdlibm.
    const double value =
        e * 6.93147180369123816490e-01 - ((half - (t * (half + series) + e * 1.90821492927058770002e-10)) - f);
    return x > 0 ? value : x == 0 ? -std::numeric_limits<double>::infinity() : x - x;
}

// One column of the softmax, in a function of its own so that the loop is seen to have no aliases and runs on vector
// lanes.
static inline void softmax_column(const double* __restrict v, const double* __restrict top, std::size_t n,
                                  const double* __restrict mask, double* __restrict out, double* __restrict sum) {
    if (mask)
        for (std::size_t l = 0; l < n; ++l) {
            const double e = fast_exp(v[l] - top[l]);
            out[l] = mask[l] == 0 ? 0.0 : e;
            sum[l] += out[l];
        }
    else
        for (std::size_t l = 0; l < n; ++l) {
            const double e = fast_exp(v[l] - top[l]);
            out[l] = e;
            sum[l] += e;
        }
}

void softmax(const double* logit, std::size_t ld, std::size_t k, std::size_t n, const double* mask, double* p,
             double* all_top, double* all_sum) {
    constexpr std::size_t strip = 64;
    double own_top[strip], own_sum[strip], factor[strip];
    const double lowest = -std::numeric_limits<double>::infinity();
    for (std::size_t r = 0; r < n; r += strip) {
        const std::size_t m = n - r < strip ? n - r : strip;
        double *top = all_top ? all_top + r : own_top, *sum = all_sum ? all_sum + r : own_sum;
        for (std::size_t l = 0; l < m; ++l) top[l] = lowest, sum[l] = 0;
        for (std::size_t c = 0; c < k; ++c) {
            const double* v = logit + c * ld + r;
            if (mask)
                for (std::size_t l = 0; l < m; ++l) {
                    const double candidate = mask[c * ld + r + l] == 0 ? lowest : v[l];
                    top[l] = candidate > top[l] ? candidate : top[l];
                }
            else
                for (std::size_t l = 0; l < m; ++l) top[l] = v[l] > top[l] ? v[l] : top[l];
        }
        for (std::size_t l = 0; l < m; ++l) top[l] = top[l] == lowest ? 0.0 : top[l];
        for (std::size_t c = 0; c < k; ++c)
            softmax_column(logit + c * ld + r, top, m, mask ? mask + c * ld + r : nullptr, p + c * ld + r, sum);
        for (std::size_t l = 0; l < m; ++l) factor[l] = sum[l] > 0 ? 1.0 / sum[l] : sum[l];
        for (std::size_t c = 0; c < k; ++c) {
            double* out = p + c * ld + r;
            for (std::size_t l = 0; l < m; ++l) out[l] *= factor[l];
        }
    }
}

// Standard normal distribution function and density by W. J. Cody's rational approximations (Math. Comp. 23, 1969).
// Numerators and denominators of all three ranges are computed and selected, so that the loop stays free of branches
// and has one division; the polynomials in 1 / x^2 of the tail are written in x^2. Beyond 40 all is as at 40.
static inline void normal_cdf(double x, double* cdf, double* density) {
    double y = x < 0 ? -x : x;
    y = y < 40.0 ? y : 40.0;
    const double ysq = y * y;
    const double gauss = fast_exp(-0.5 * ysq);

    double num = 0.065682337918207449113 * ysq, den = ysq;
    num = (num + 2.2352520354606839287) * ysq, den = (den + 47.20258190468824187) * ysq;
    num = (num + 161.02823106855587881) * ysq, den = (den + 976.09855173777669322) * ysq;
    num = (num + 1067.6894854603709582) * ysq, den = (den + 10260.932208618978205) * ysq;
    const double num_centre = x * (num + 18154.981253343561249), den_centre = den + 45507.789335026729956;

    num = 1.0765576773720192317e-8 * y, den = y;
    num = (num + 0.39894151208813466764) * y, den = (den + 22.266688044328115691) * y;
    num = (num + 8.8831497943883759412) * y, den = (den + 235.38790178262499861) * y;
    num = (num + 93.506656132177855979) * y, den = (den + 1519.377599407554805) * y;
    num = (num + 597.27027639480026226) * y, den = (den + 6485.558298266760755) * y;
    num = (num + 2494.5375852903726711) * y, den = (den + 18615.571640885098091) * y;
    num = (num + 6848.1904505362823326) * y, den = (den + 34900.952721145977266) * y;
    num = (num + 11602.651437647350124) * y, den = (den + 38912.003286093271411) * y;
    const double num_shoulder = num + 9842.7148383839780218, den_shoulder = den + 19685.429676859990727;

    num = 2.9112874951168792e-5 * ysq, den = 7.29751555083966205e-5 * ysq;
    num = (num + 0.001421619193227893466) * ysq, den = (den + 0.00378239633202758244) * ysq;
    num = (num + 0.022235277870649807) * ysq, den = (den + 0.0659881378689285515) * ysq;
    num = (num + 0.1274011611602473639) * ysq, den = (den + 0.468238212480865118) * ysq;
    num = (num + 0.21589853405795699) * ysq, den = (den + 1.28426009614491121) * ysq;
    const double series = num + 0.02307344176494017303, below = ysq * (den + 1.0);
    const double num_tail = 0.398942280401432677939946 * below - series, den_tail = below * y;

    const bool centre = y <= 0.67448975, shoulder = y <= 5.656854249492380;
    const double ratio = (centre     ? num_centre
                          : shoulder ? num_shoulder
                                     : num_tail) /
                         (centre     ? den_centre
                          : shoulder ? den_shoulder
                                     : den_tail);
    const double upper = gauss * ratio, outer = x > 0 ? 1.0 - upper : upper;
    *cdf = centre ? 0.5 + ratio : outer;
    *density = 0.398942280401432677939946 * gauss;
}

template <class Phi>
static inline void activate_with(Phi phi, const double* __restrict s, std::size_t n, double* __restrict value,
                                 double* __restrict first, double* __restrict second) {
    double v, f, g;
    if (!first) {
        for (std::size_t i = 0; i < n; ++i) phi(s[i], v, f, g), value[i] = v;
    } else if (!second) {
        for (std::size_t i = 0; i < n; ++i) phi(s[i], v, f, g), value[i] = v, first[i] = f;
    } else {
        for (std::size_t i = 0; i < n; ++i) phi(s[i], v, f, g), value[i] = v, first[i] = f, second[i] = g;
    }
}

static inline double fast_tanh(double x) {
    const double e = fast_expm1(x < 0 ? 2.0 * x : -2.0 * x);  // in (-1, 0]
    const double t = e / (e + 2.0);
    return x < 0 ? t : -t;
}

void activate(Activation phi, const double* s, std::size_t n, double* value, double* first, double* second) {
    switch (phi) {
        case Activation::identity:
            activate_with([](double x, double& v, double& f, double& g) { v = x, f = 1.0, g = 0.0; }, s, n, value,
                          first, second);
            break;
        case Activation::relu:
            activate_with(
                [](double x, double& v, double& f, double& g) { v = x > 0 ? x : 0.0, f = x > 0 ? 1.0 : 0.0, g = 0.0; },
                s, n, value, first, second);
            break;
        case Activation::gelu:
            activate_with(
                [](double x, double& v, double& f, double& g) {
                    double cdf, density;
                    normal_cdf(x, &cdf, &density);
                    v = x * cdf, f = cdf + x * density;
                    // The density is 0 long before x^2 overflows; clamping keeps 0 * Inf out.
                    const double c = x > 40 ? 40 : (x < -40 ? -40 : x);
                    g = density * (2.0 - c * c);
                },
                s, n, value, first, second);
            break;
        case Activation::tanh:
            activate_with(
                [](double x, double& v, double& f, double& g) { v = fast_tanh(x), f = 1.0 - v * v, g = -2.0 * v * f; },
                s, n, value, first, second);
            break;
        case Activation::sigmoid:
            activate_with(
                [](double x, double& v, double& f, double& g) {
                    v = 0.5 + 0.5 * fast_tanh(0.5 * x), f = v * (1.0 - v), g = f * (1.0 - 2.0 * v);
                },
                s, n, value, first, second);
            break;
        case Activation::softplus:
            activate_with(
                [](double x, double& v, double& f, double& g) {
                    const double e = fast_exp(x > 0 ? -x : x), u = 1.0 + e;
                    // log1p(e), with what the sum has lost.
                    v = (x > 0 ? x : 0.0) + (fast_log(u) + (e - (u - 1.0)) / u);
                    f = 0.5 + 0.5 * fast_tanh(0.5 * x), g = f * (1.0 - f);
                },
                s, n, value, first, second);
            break;
        case Activation::cubic:
            activate_with(
                [](double x, double& v, double& f, double& g) { v = x * x * x, f = 3.0 * x * x, g = 6.0 * x; }, s, n,
                value, first, second);
            break;
        case Activation::celu:
            activate_with(
                [](double x, double& v, double& f, double& g) {
                    const double below = fast_expm1(x > 0 ? 0.0 : x);
                    v = x > 0 ? x : below, f = x > 0 ? 1.0 : 1.0 + below, g = x > 0 ? 0.0 : 1.0 + below;
                },
                s, n, value, first, second);
            break;
    }
}

void logarithm(const double* x, std::size_t n, double* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = fast_log(x[i]);
}

void exponential(const double* x, std::size_t n, double* out) {
    for (std::size_t i = 0; i < n; ++i) out[i] = fast_exp(x[i]);
}

static inline void gaussian_columns(const double* __restrict y, const double* __restrict mean, double phi,
                                    double precision, std::size_t n, double* __restrict log_density,
                                    double* __restrict d1, double* __restrict d2, double* __restrict dphi,
                                    double* __restrict d2phi, double* __restrict dcross) {
    const double constant = -0.5 * 1.8378770664093454836 - phi;
    for (std::size_t i = 0; i < n; ++i) {
        const double e = y[i] - mean[i], slope = e * precision, square = e * slope;
        log_density[i] = constant - 0.5 * square;
        d1[i] = slope, d2[i] = -precision, dphi[i] = square - 1.0, d2phi[i] = -2.0 * square, dcross[i] = -2.0 * slope;
    }
}

void gaussian(const double* y, const double* mean, double phi, std::size_t n, const kernel::GaussianColumns& out) {
    gaussian_columns(y, mean, phi, std::exp(-2.0 * phi), n, out.log_density, out.d1, out.d2, out.dphi, out.d2phi,
                     out.dcross);
}

static inline void weigh_columns(const double* __restrict w, const double* __restrict r, double square, std::size_t n,
                                 double* __restrict d1, double* __restrict d2, double* __restrict dphi,
                                 double* __restrict d2phi, double* __restrict dcross, double* __restrict kept,
                                 double* __restrict kept_phi) {
    for (std::size_t i = 0; i < n; ++i) {
        const bool counts = r[i] > 0;
        const double wr = w[i] * r[i], one = d1[i], two = d2[i], phi1 = dphi[i], phi2 = d2phi[i], cross = dcross[i];
        d1[i] = counts ? wr * one : 0.0;
        d2[i] = counts ? wr * (two + square * (one * one)) : 0.0;
        d2phi[i] = counts ? wr * (phi2 + square * (phi1 * phi1)) : 0.0;
        dcross[i] = counts ? wr * (cross + square * (one * phi1)) : 0.0;
        kept[i] = counts && two < 0 ? -wr * two : 0.0;
        kept_phi[i] = counts && phi2 < 0 ? -wr * phi2 : 0.0;
    }
}

void weigh_density(const double* w, const double* r, double square, std::size_t n, const kernel::DensityColumns& c) {
    weigh_columns(w, r, square, n, c.d1, c.d2, c.dphi, c.d2phi, c.dcross, c.kept, c.kept_phi);
}
