// Displacements and Phi at points, judged and restored from those of their neighbours.
//
// Positions are n times (z, y, x). Phi is n times `pitch` numbers, of which the first 12 are its rows z, y, x.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace field {

using Index = std::int64_t;

constexpr double NOT_KNOWN = std::numeric_limits<double>::quiet_NaN();

struct Field {
    const double *positions, *phi;
    Index pitch;

    const double *position(Index point) const { return positions + 3 * point; }
    const double *of(Index point) const { return phi + pitch * point; }
    double displacement(Index point, int axis) const { return phi[pitch * point + 4 * axis + 3]; }
};

// Put the lower numbers of two rows into the first one; there must be no nan.
template <int columns> inline void order(double *low, double *high) {
    int c = 0;
#if defined(__SSE2__)
    for (; c + 2 <= columns; c += 2) {
        const __m128d a = _mm_loadu_pd(low + c), b = _mm_loadu_pd(high + c);
        _mm_storeu_pd(low + c, _mm_min_pd(a, b));
        _mm_storeu_pd(high + c, _mm_max_pd(a, b));
    }
#endif
    for (; c < columns; ++c) {
        const double a = low[c], b = high[c];
        low[c] = b < a ? b : a;
        high[c] = b < a ? a : b;
    }
}

// Sort the columns of a table of n rows by merge exchange (Batcher; Knuth 5.2.2 M): the comparisons do not depend on
// the numbers, so that all columns are sorted at once.
template <int columns> void sort_columns(double *rows, Index n) {
    Index top = 1;
    while (2 * top < n) top *= 2;
    for (Index p = n > 1 ? top : 0; p > 0; p /= 2)
        for (Index q = top, r = 0, apart = p;; apart = q - p, q /= 2, r = p) {
            for (Index first = r; first + apart < n; first += 2 * p)
                for (Index i = first; i < std::min(first + p, n - apart); ++i)
                    order<columns>(rows + columns * i, rows + columns * (i + apart));
            if (q == p) break;
        }
}

// Median of the first n > 0 numbers of a sorted column.
template <int columns> double middle_of(const double *rows, Index n, int column) {
    return 0.5 * (rows[columns * ((n - 1) / 2) + column] + rows[columns * (n / 2) + column]);
}

// The number with the index k in ascending order; the numbers are moved about, lower ones before it. Without branches on
// the numbers: no guess of the processor is right about them.
inline double selected(double *values, Index n, Index k) {
    Index low = 0, high = n;
    const auto to_front = [&](auto belongs) {
        Index end = low;
        for (Index i = low; i < high; ++i) {
            const double value = values[i];
            values[i] = values[end];
            values[end] = value;
            end += belongs(value);
        }
        return end;
    };
    while (high - low > 1) {
        const double a = values[low], b = values[low + (high - low) / 2], c = values[high - 1];
        const double pivot = std::max(std::min(a, b), std::min(std::max(a, b), c));
        Index end = to_front([pivot](double value) { return value < pivot; });
        if (end == low) {
            // none is lower: set its equals aside
            end = to_front([pivot](double value) { return value <= pivot; });
            if (k < end || end == low) return pivot;  // of nothing, if there is a nan
        }
        (k < end ? high : low) = end;
    }
    return values[k];
}

// Median of n > 0 numbers, which are moved about.
inline double median_of(double *values, Index n) {
    const double middle = selected(values, n, n / 2);
    return n % 2 ? middle : 0.5 * (middle + *std::max_element(values, values + n / 2));
}

// Sums of the products of a column with others; n is a multiple of 4.
template <int count> void dots(const double *a, const double *const *others, Index n, double *sums) {
#if defined(__SSE2__)
    __m128d even[count], odd[count];
    for (int j = 0; j < count; ++j) even[j] = odd[j] = _mm_setzero_pd();
    for (Index k = 0; k < n; k += 4) {
        const __m128d first = _mm_loadu_pd(a + k), second = _mm_loadu_pd(a + k + 2);
        for (int j = 0; j < count; ++j) {
            even[j] = _mm_add_pd(even[j], _mm_mul_pd(first, _mm_loadu_pd(others[j] + k)));
            odd[j] = _mm_add_pd(odd[j], _mm_mul_pd(second, _mm_loadu_pd(others[j] + k + 2)));
        }
    }
    for (int j = 0; j < count; ++j) {
        double lanes[2];
        _mm_storeu_pd(lanes, _mm_add_pd(even[j], odd[j]));
        sums[j] = lanes[0] + lanes[1];
    }
#else
    for (int j = 0; j < count; ++j) {
        double lanes[4] = {};
        for (Index k = 0; k < n; ++k) lanes[k % 4] += a[k] * others[j][k];
        sums[j] = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
    }
#endif
}

// The terms of a quadratic polynomial are z, y, x, zy, zx, yx, z², y², x², 1, the constant last. A triangular
// factorisation in this order tells whether the others could stand for the constant, that is, whether the points
// determine the value at the origin; and it gives this value without the other coefficients.
constexpr int TERMS = 10, TERMS_2D = 6, LINEAR = 3;

// A polynomial through displacements at points, by weighted least squares.
class LocalFit {
  public:
    // Take the displacements of neighbours, and the weights of Masullo & Theunissen (2016).
    void take(const Field &field, const double *at, const Index *found, Index n) {
        n_ = n;
        if (const Index room = (n + 3) / 4 * 4; room != room_) {
            room_ = room;
            terms_.assign(TERMS * room, 0.0);
            from_median_.assign(3 * room, 0.0);
            weights_.assign(room, 0.0);
            scratch_.resize(room);
        }
        double *z = &terms_[0], *y = z + room_, *x = y + room_, *u[3];
        for (int axis = 0; axis < 3; ++axis) u[axis] = &from_median_[room_ * axis];
        double reach = 0;
        for (Index k = 0; k < n; ++k) {
            const double *position = field.position(found[k]);
            z[k] = position[0] - at[0], y[k] = position[1] - at[1], x[k] = position[2] - at[2];
            reach = std::max({reach, std::abs(z[k]), std::abs(y[k]), std::abs(x[k])});
            for (int axis = 0; axis < 3; ++axis) u[axis][k] = field.displacement(found[k], axis);
        }
        if (reach == 0) reach = 1;
        for (double *column : {z, y, x})
            for (Index k = 0; k < n; ++k) column[k] /= reach;
        product(z, y, 3), product(z, x, 4), product(y, x, 5), product(z, z, 6), product(y, y, 7), product(x, x, 8);
        std::fill_n(&terms_[9 * room_], n, 1.0);
        for (int axis = 0; axis < 3; ++axis) {
            std::copy_n(u[axis], n, scratch_.begin());
            median_[axis] = median_of(scratch_.data(), n);
            for (Index k = 0; k < n; ++k) u[axis][k] -= median_[axis];
        }
        for (Index k = 0; k < n; ++k) weights_[k] = u[0][k] * u[0][k] + u[1][k] * u[1][k] + u[2][k] * u[2][k];
        double mean = 0;
        for (Index k = 0; k < n; ++k) mean += std::sqrt(weights_[k]);
        const double factor = -0.5 / std::sqrt(mean / double(n) + EPSILON);
        for (Index k = 0; k < n; ++k) weights_[k] = std::exp(weights_[k] * factor);
        std::fill(weights_.begin() + n, weights_.end(), 0.0);
    }

    // Value of the polynomial at the point: with the weights if they leave enough points, otherwise without.
    bool quadratic(double *value) {
        bool flat = true;
        for (Index k = 0; k < n_; ++k) flat = flat && terms_[k] == 0;
        if (n_ < (flat ? TERMS_2D : TERMS)) return false;
        return solve<false>(value) || (flatten(), solve<false>(value));
    }

    // The same of a polynomial of first order, without weights.
    bool linear(double *value) {
        flatten();
        return solve<true>(value);
    }

    // Square of the distance of a displacement from a value, over that of the median length of the displacements of the
    // neighbours `found`, as they were taken; a third.
    double coherency(const Field &field, const double *value, Index point, const Index *found) {
        for (Index k = 0; k < n_; ++k) {
            double u[3];
            for (int axis = 0; axis < 3; ++axis) u[axis] = field.displacement(found[k], axis);
            scratch_[k] = std::sqrt(u[0] * u[0] + u[1] * u[1] + u[2] * u[2]);
        }
        const double length = median_of(scratch_.data(), n_) + EPSILON;
        double square = 0;
        for (int axis = 0; axis < 3; ++axis) {
            const double apart = value[axis] - field.displacement(point, axis);
            square += apart * apart;
        }
        return square / (3 * length * length);
    }

  private:
    static constexpr double EPSILON = 0.1;
    // A term is left out if so little of it is not in those before; the constant has to keep more, as the noise of the
    // value is that of the displacements over its root.
    static constexpr double OWN_PART = 1e-10, OWN_PART_OF_CONSTANT = 1e-4;

    void flatten() { std::fill_n(weights_.begin(), n_, 1.0); }

    void product(const double *a, const double *b, int term) {
        double *target = &terms_[room_ * term];
        for (Index k = 0; k < n_; ++k) target[k] = a[k] * b[k];
    }

    template <bool first_order> bool solve(double *value) {
        constexpr int n_terms = first_order ? LINEAR + 1 : TERMS, last = n_terms - 1, width = n_terms + 3;
        // normal equations: rows of the lower triangle, then the right-hand sides
        double matrix[width][n_terms];
        const double *rows[width];
        for (int i = 0; i < n_terms; ++i) rows[i] = &terms_[room_ * (i == last ? TERMS - 1 : i)];
        for (int axis = 0; axis < 3; ++axis) rows[n_terms + axis] = &from_median_[room_ * axis];
        weighted_.resize(room_);
        for (int i = 0; i < width; ++i) {
            for (Index k = 0; k < room_; ++k) weighted_[k] = weights_[k] * rows[i][k];
            const int wanted = std::min(i + 1, n_terms);
            int j = 0;
            for (; j + 4 <= wanted; j += 4) dots<4>(weighted_.data(), rows + j, room_, &matrix[i][j]);
            for (; j < wanted; ++j) dots<1>(weighted_.data(), rows + j, room_, &matrix[i][j]);
        }
        for (int j = 0; j < n_terms; ++j) {
            const double whole = matrix[j][j];
            double own = whole;
            for (int k = 0; k < j; ++k) own -= matrix[j][k] * matrix[j][k];
            const bool kept = own > whole * (j == last ? OWN_PART_OF_CONSTANT : OWN_PART);
            if (j == last && !kept) return false;
            const double inverse = kept ? 1 / std::sqrt(own) : 0;
            matrix[j][j] = own * inverse;
            for (int i = j + 1; i < width; ++i) {
                double sum = matrix[i][j];
                for (int k = 0; k < j; ++k) sum -= matrix[i][k] * matrix[j][k];
                matrix[i][j] = sum * inverse;
            }
        }
        for (int axis = 0; axis < 3; ++axis)
            value[axis] = median_[axis] + matrix[n_terms + axis][last] / matrix[last][last];
        return true;
    }

    // Neighbours, and the room for them: a multiple of 4, filled up with 0. Terms and displacements are columns.
    Index n_ = 0, room_ = 0;
    std::vector<double> terms_, from_median_, weights_, weighted_, scratch_;
    // Of the components of the displacements.
    double median_[3];
};

// Local quadratic coherency of points, which are among their neighbours; nan where these determine no fit.
inline void coherencies(const Field &field, const Index *points, Index n, const Index *start, const Index *found,
                        double *out) {
    LocalFit fit;
    for (Index i = 0; i < n; ++i) {
        double value[3];
        out[i] = NOT_KNOWN;
        if (start[i + 1] == start[i]) continue;
        const Index *near = found + start[i];
        fit.take(field, field.position(points[i]), near, start[i + 1] - start[i]);
        if (fit.quadratic(value)) out[i] = fit.coherency(field, value, points[i], near);
    }
}

// Displacements at places, and the order of the polynomial that gives them; 0 and nan where there is none.
inline void fits(const Field &field, const double *at, Index n, const Index *start, const Index *found, double *out,
                 std::int8_t *order) {
    LocalFit fit;
    for (Index i = 0; i < n; ++i) {
        order[i] = 0;
        if (start[i + 1] > start[i]) {
            fit.take(field, at + 3 * i, found + start[i], start[i + 1] - start[i]);
            order[i] = fit.quadratic(out + 3 * i) ? 2 : fit.linear(out + 3 * i) ? 1 : 0;
        }
        if (order[i] == 0) std::fill(out + 3 * i, out + 3 * i + 3, NOT_KNOWN);
    }
}

// Normalised residuals of displacements against those that the usable neighbours predict; nan with fewer than `fewest`.
// A neighbour predicts by the mean of its own gradient and of the median one of all neighbours, which stands for that
// of the point itself: a prediction by its own gradient alone is wrong by half the second derivative.
inline void residuals(const Field &field, const Index *points, Index n, const Index *start, const Index *found,
                      const std::uint8_t *usable, double epsilon, Index fewest, double *out) {
    std::vector<Index> near;
    std::vector<double> gradients, values, sorted;
    for (Index i = 0; i < n; ++i) {
        const Index point = points[i];
        near.clear();
        for (Index k = start[i]; k < start[i + 1]; ++k)
            if (usable[found[k]] && found[k] != point) near.push_back(found[k]);
        const Index count = Index(near.size());
        out[i] = count < fewest ? NOT_KNOWN : 0;
        if (count < fewest) continue;
        gradients.resize(9 * count);
        values.resize(3 * count);
        for (Index k = 0; k < count; ++k)
            for (int c = 0; c < 9; ++c) gradients[9 * k + c] = field.of(near[k])[c / 3 * 4 + c % 3];
        sort_columns<9>(gradients.data(), count);
        // of the point and of a neighbour, less the identity of both
        double gradient[9];
        for (int c = 0; c < 9; ++c) gradient[c] = middle_of<9>(gradients.data(), count, c) - (c % 4 == 0 ? 2 : 0);
        const double *at = field.position(point);
        for (Index k = 0; k < count; ++k) {
            const double *from = field.position(near[k]), *phi = field.of(near[k]);
            const double apart[] = {at[0] - from[0], at[1] - from[1], at[2] - from[2]};
            for (int axis = 0; axis < 3; ++axis) {
                double twice = 0;
                for (int along = 0; along < 3; ++along)
                    twice += (phi[4 * axis + along] + gradient[3 * axis + along]) * apart[along];
                values[3 * k + axis] = phi[4 * axis + 3] + 0.5 * twice;
            }
        }
        sorted = values;
        sort_columns<3>(sorted.data(), count);
        double middle[3];
        for (int axis = 0; axis < 3; ++axis) middle[axis] = middle_of<3>(sorted.data(), count, axis);
        for (Index k = 0; k < 3 * count; ++k) values[k] = std::abs(values[k] - middle[k % 3]);
        sort_columns<3>(values.data(), count);
        for (int axis = 0; axis < 3; ++axis) {
            const double spread = middle_of<3>(values.data(), count, axis) + epsilon;
            out[i] = std::max(out[i], std::abs(field.displacement(point, axis) - middle[axis]) / spread);
        }
    }
}

struct Grid {
    Index nodes[3];
};

// The nodes of the block around each of these nodes, which is cut off at the border; `found` has room for whole blocks.
inline Index around(const Grid &grid, const Index *reach, const Index *points, Index n, Index *start, Index *found) {
    const Index *nodes = grid.nodes;
    Index count = start[0] = 0;
    for (Index i = 0; i < n; ++i) {
        Index at[] = {points[i] / (nodes[1] * nodes[2]), points[i] / nodes[2] % nodes[1], points[i] % nodes[2]};
        Index low[3], high[3];
        for (int axis = 0; axis < 3; ++axis) {
            low[axis] = std::max<Index>(at[axis] - reach[axis], 0);
            high[axis] = std::min(at[axis] + reach[axis], nodes[axis] - 1);
        }
        for (Index z = low[0]; z <= high[0]; ++z)
            for (Index y = low[1]; y <= high[1]; ++y)
                for (Index x = low[2]; x <= high[2]; ++x) {
                    const Index node = (z * nodes[1] + y) * nodes[2] + x;
                    if (node != points[i]) found[count++] = node;
                }
        start[i + 1] = count;
    }
    return count;
}

// Index of a node beyond the border, reflected about the border's outer edge, as often as necessary.
inline Index reflected(Index index, Index n) {
    index %= 2 * n;
    if (index < 0) index += 2 * n;
    return index < n ? index : 2 * n - 1 - index;
}

// Medians of components of Phi over cubes of usable nodes: 12 components, or 3 if these are the displacements alone.
// Those that are not finite count as missing; nan where all are.
template <int components>
void medians(const Field &field, const Grid &grid, const std::uint8_t *usable, Index radius, const Index *points,
             Index n, double *out) {
    const Index *nodes = grid.nodes, deep = nodes[0] > 1 ? radius : 0;
    std::vector<double> rows;
    for (Index i = 0; i < n; ++i, out += components) {
        const Index z = points[i] / (nodes[1] * nodes[2]), y = points[i] / nodes[2] % nodes[1];
        const Index x = points[i] % nodes[2];
        Index finite[components] = {}, count = 0;
        rows.resize(components * (2 * deep + 1) * (2 * radius + 1) * (2 * radius + 1));
        for (Index dz = -deep; dz <= deep; ++dz)
            for (Index dy = -radius; dy <= radius; ++dy)
                for (Index dx = -radius; dx <= radius; ++dx) {
                    const Index plane = reflected(z + dz, nodes[0]), line = reflected(y + dy, nodes[1]);
                    const Index node = (plane * nodes[1] + line) * nodes[2] + reflected(x + dx, nodes[2]);
                    if (!usable[node]) continue;
                    const double *phi = field.of(node);
                    double *row = &rows[components * count++];
                    for (int c = 0; c < components; ++c) {
                        const double value = phi[components == 12 ? c : 4 * c + 3];
                        const bool known = std::isfinite(value);
                        finite[c] += known;
                        row[c] = known ? value : std::numeric_limits<double>::infinity();
                    }
                }
        sort_columns<components>(rows.data(), count);
        for (int c = 0; c < components; ++c)
            out[c] = finite[c] > 0 ? middle_of<components>(rows.data(), finite[c], c) : NOT_KNOWN;
    }
}

} // namespace field
