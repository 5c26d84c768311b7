// Images deformed by a field: for every voxel of the deformed image its place in the undeformed one, and its grey level.
//
// Places come from the nearest deformed points, or from the tetrahedron that a voxel lies in. Everything is in double
// precision, and no result depends on the blocks that voxels are worked on in.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "deform_places.hpp"
#include "point_tree.hpp"

namespace deform {

using Index = std::int64_t;

// Barycentric coordinates from which on a voxel lies in a tetrahedron: none is lost between two of them.
constexpr double LEAST_COORDINATE = -1e-9;

struct Points {
    const double *deformed;  // (n, 3)
    const double *phi;       // (n, 16): inverse motions about these
    Index n;
    bool displacements_only;
};

// Points whose distance from a block's centre allows them to be among the nearest of one of its voxels.
class Candidates {
  public:
    Candidates(const point_tree::Tree &tree, const Points &points, Index nearest)
        : tree_(tree), points_(points), nearest_(nearest) {}

    // `half`: greatest distance of a voxel from the centre.
    void find(const double *centre, double half) {
        double radius = 1.0 + 2.0 * half;
        if (reach_ >= 0) radius = reach_ + distance(centre, last_) + 2.0 * half;
        for (;;) {
            index.clear();
            // rounding must not lose a point at the rim
            tree_.within(centre, radius * radius * (1.0 + 1e-9), points_.n, index);
            if (Index(index.size()) < nearest_) {
                radius *= 2.0;
                continue;
            }
            apart_.resize(index.size());
            for (std::size_t k = 0; k < index.size(); ++k) apart_[k] = distance(centre, at(index[k]));
            sorted_ = apart_;
            std::nth_element(sorted_.begin(), sorted_.begin() + (nearest_ - 1), sorted_.end());
            reach_ = sorted_[nearest_ - 1];
            const double needed = (reach_ + 2.0 * half) * (1.0 + 1e-9);
            if (needed > radius) {
                radius = needed;
                continue;
            }
            std::size_t kept = 0;
            for (std::size_t k = 0; k < index.size(); ++k)
                if (apart_[k] <= needed) {
                    apart_[kept] = apart_[k];
                    index[kept++] = index[k];
                }
            index.resize(kept);
            break;
        }
        for (int a = 0; a < 3; ++a) {
            last_[a] = centre[a];
            position[a].resize(index.size());
            for (std::size_t k = 0; k < index.size(); ++k) position[a][k] = at(index[k])[a];
        }
        // those near the centre first: most of the others are refused at once
        first.resize(index.size());
        std::iota(first.begin(), first.end(), Index(0));
        std::sort(first.begin(), first.end(), [this](Index a, Index b) { return apart_[a] < apart_[b]; });
        room_.resize(MPIDVC_PLACES_ROOM(index.size(), nearest_));
    }

    // Scratch of the kernel.
    double *room() {
        const std::size_t past = reinterpret_cast<std::uintptr_t>(room_.data()) % 64;
        return room_.data() + (past ? (64 - past) / sizeof(double) : 0);
    }

    std::vector<Index> index;         // ascending
    std::vector<Index> first;         // candidates by their distance from the centre
    std::vector<double> position[3];  // of the candidates

  private:
    const point_tree::Tree &tree_;
    const Points &points_;
    Index nearest_;
    double reach_ = -1.0, last_[3] = {0, 0, 0};
    std::vector<double> apart_, sorted_, room_;

    const double *at(Index point) const { return points_.deformed + 3 * point; }

    static double distance(const double *a, const double *b) {
        return std::sqrt(point_tree::square(a[0] - b[0], a[1] - b[1], a[2] - b[2]));
    }
};

// Whether no voxel of a block is wanted.
inline bool none(const mpidvc_places &job) {
    for (Index z = 0; z < job.size[0]; ++z)
        for (Index y = 0; y < job.size[1]; ++y) {
            const std::uint8_t *row = job.wanted + z * job.pitch_z + y * job.pitch_y;
            if (std::any_of(row, row + job.size[2], [](std::uint8_t value) { return value != 0; })) return false;
        }
    return true;
}

inline void fill_with_nan(const mpidvc_places &job) {
    for (double *out : job.out)
        for (Index z = 0; z < job.size[0]; ++z)
            for (Index y = 0; y < job.size[1]; ++y)
                std::fill_n(out + z * job.pitch_z + y * job.pitch_y, job.size[2],
                            std::numeric_limits<double>::quiet_NaN());
}

// Places of the voxels [low, low + n) in the undeformed image, (3, n); nan for voxels that are not wanted (`wanted` may
// be null). Blocks of `edge` voxels share a search.
inline void places(const mpidvc_places_kernels *kernels, const point_tree::Tree &tree, const Points &points,
                   Index nearest, const Index *low, const Index *n, const Index *edge, const std::uint8_t *wanted,
                   double *out) {
    Candidates near(tree, points, nearest);
    const Index voxels = n[0] * n[1] * n[2];
    mpidvc_places job = {};
    job.nearest = nearest;
    job.phi = points.phi, job.displacements_only = points.displacements_only;
    job.pitch_y = n[2], job.pitch_z = n[1] * n[2];
    for (Index z = 0; z < n[0]; z += edge[0])
        for (Index y = 0; y < n[1]; y += edge[1])
            for (Index x = 0; x < n[2]; x += edge[2]) {
                const Index begin[3] = {z, y, x}, start = (z * n[1] + y) * n[2] + x;
                double centre[3], square = 0;
                for (int a = 0; a < 3; ++a) {
                    job.low[a] = low[a] + begin[a];
                    job.size[a] = std::min(edge[a], n[a] - begin[a]);
                    const double half = 0.5 * double(job.size[a] - 1);
                    centre[a] = double(job.low[a]) + half;
                    square += half * half;
                    job.out[a] = out + a * voxels + start;
                }
                job.wanted = wanted ? wanted + start : nullptr;
                if (wanted && none(job)) {
                    fill_with_nan(job);
                    continue;
                }
                near.find(centre, std::sqrt(square));
                job.count = Index(near.index.size());
                for (int a = 0; a < 3; ++a) job.position[a] = near.position[a].data();
                job.first = near.first.data(), job.index = near.index.data(), job.room = near.room();
                kernels->places(&job);
            }
}

// Tetrahedra, each with its first vertex in both configurations.
struct Mesh {
    const double *deformed;   // (m, 3)
    const double *reference;  // (m, 3)
    const double *inverse;    // (m, 9): from the deformed configuration to barycentric coordinates 1 to 3
    const double *edges;      // (m, 9): from these to the reference
    const Index *low;         // (m, 3): box of voxels about it, without its end
    const Index *high;        // (m, 3)
    const double *factor;     // (m,)
    Index n;
};

// Places (3, n) of the voxels [low, low + n), and the factors of their tetrahedra; voxels whose place is not nan are left.
inline void mesh_places(const Mesh &mesh, const Index *low, const Index *n, double *out, double *factor) {
    const Index voxels = n[0] * n[1] * n[2];
    for (Index t = 0; t < mesh.n; ++t) {
        Index begin[3], end[3];
        for (int a = 0; a < 3; ++a) {
            begin[a] = std::max(mesh.low[3 * t + a], low[a]);
            end[a] = std::min(mesh.high[3 * t + a], low[a] + n[a]);
        }
        const double *d = mesh.deformed + 3 * t, *r = mesh.reference + 3 * t;
        const double *b = mesh.inverse + 9 * t, *e = mesh.edges + 9 * t;
        for (Index z = begin[0]; z < end[0]; ++z)
            for (Index y = begin[1]; y < end[1]; ++y)
                for (Index x = begin[2]; x < end[2]; ++x) {
                    const Index number = ((z - low[0]) * n[1] + (y - low[1])) * n[2] + (x - low[2]);
                    double *place = out + number;
                    if (place[0] == place[0]) continue;
                    const double dz = double(z) - d[0], dy = double(y) - d[1], dx = double(x) - d[2];
                    const double l1 = b[0] * dz + b[1] * dy + b[2] * dx, l2 = b[3] * dz + b[4] * dy + b[5] * dx,
                                 l3 = b[6] * dz + b[7] * dy + b[8] * dx;
                    if (l1 < LEAST_COORDINATE || l2 < LEAST_COORDINATE || l3 < LEAST_COORDINATE ||
                        1.0 - l1 - l2 - l3 < LEAST_COORDINATE)
                        continue;
                    for (int a = 0; a < 3; ++a)
                        place[a * voxels] = r[a] + (e[3 * a] * l1 + e[3 * a + 1] * l2 + e[3 * a + 2] * l3);
                    factor[number] = mesh.factor[t];
                }
    }
}

inline Index root_of(std::vector<Index> &parent, Index one) {
    while (parent[one] != one) one = parent[one] = parent[parent[one]];
    return one;
}

// Least value up to which tetrahedra make one component, joined by faces, that holds all points; infinite if none does.
//
// `order`: tetrahedra by ascending value, `neighbours` (m, 4): -1 outside, `vertices` (m, 4).
inline double least_value(const Index *order, const double *value, const std::int32_t *neighbours,
                          const std::int32_t *vertices, Index m, Index points) {
    std::vector<Index> parent(m, -1);
    std::vector<std::uint8_t> held(points, 0);
    Index components = 0, left = points;
    for (Index k = 0; k < m; ++k) {
        const Index t = order[k];
        parent[t] = t;
        ++components;
        for (int side = 0; side < 4; ++side) {
            const Index point = vertices[4 * t + side], other = neighbours[4 * t + side];
            if (!held[point]) held[point] = 1, --left;
            if (other < 0 || parent[other] < 0) continue;
            const Index a = root_of(parent, t), b = root_of(parent, other);
            if (a != b) parent[a] = b, --components;
        }
        const bool last = k + 1 == m || value[order[k + 1]] > value[t];
        if (last && left == 0 && components == 1) return value[t];
    }
    return std::numeric_limits<double>::infinity();
}

// A box of an image, or of its spline coefficients.
struct Box {
    const float *data;
    Index pitch_y, pitch_z;
    Index size[3];
    double origin[3];  // first voxel
    double last[3];    // last voxel of the image
};

template <int O> inline Index weights(double at, double *w) {
    // truncated, and put right below 0: no call of a function
    const Index cut = Index(at), whole = cut - (at < double(cut));
    const double f = at - double(whole);
    if (O == 1) {
        w[0] = 1.0 - f, w[1] = f;
        return whole;
    }
    const double g = 1.0 - f;
    w[0] = g * g * g / 6.0;
    w[1] = (4.0 - 6.0 * f * f + 3.0 * f * f * f) / 6.0;
    w[2] = (4.0 - 6.0 * g * g + 3.0 * g * g * g) / 6.0;
    w[3] = f * f * f / 6.0;
    return whole - 1;
}

// Number of places (3, n) that are inside of an image of `last` + 1 voxels, and the extent of these. D of the axes count.
template <int D> inline Index extent(const double *places, Index n, const double *last, double *low, double *high) {
    Index inside = 0;
    for (int a = 0; a < 3; ++a) low[a] = high[a] = 0;
    for (int a = 3 - D; a < 3; ++a) {
        low[a] = std::numeric_limits<double>::infinity();
        high[a] = -low[a];
    }
    for (Index k = 0; k < n; ++k) {
        bool in = true;
        for (int a = 3 - D; a < 3; ++a) in &= (places[a * n + k] >= 0.0) & (places[a * n + k] <= last[a]);
        if (!in) continue;
        ++inside;
        for (int a = 3 - D; a < 3; ++a) {
            low[a] = std::min(low[a], places[a * n + k]);
            high[a] = std::max(high[a], places[a * n + k]);
        }
    }
    return inside;
}

// Grey levels at `places` (3, n); nan outside the image. Returns false if the box does not hold the taps of a place.
template <int O, int D> inline bool sample(const Box &box, const double *places, Index n, double *out) {
    constexpr int T = O + 1;
    for (Index k = 0; k < n; ++k) {
        const double p[3] = {places[k], places[n + k], places[2 * n + k]};
        bool inside = true;
        for (int a = 3 - D; a < 3; ++a) inside = inside & (p[a] >= 0.0) & (p[a] <= box.last[a]);
        if (!inside) {
            out[k] = std::numeric_limits<double>::quiet_NaN();
            continue;
        }
        double wz[4] = {1.0, 0, 0, 0}, wy[4], wx[4];
        Index at[3] = {0, 0, 0};
        if (D == 3) at[0] = weights<O>(p[0] - box.origin[0], wz);
        at[1] = weights<O>(p[1] - box.origin[1], wy);
        at[2] = weights<O>(p[2] - box.origin[2], wx);
        for (int a = 3 - D; a < 3; ++a)
            if (at[a] < 0 || at[a] + T > box.size[a]) return false;
        const Index first = at[0] * box.pitch_z + at[1] * box.pitch_y + at[2];
        double sum = 0;
        for (int z = 0; z < (D == 3 ? T : 1); ++z) {
            double plane = 0;
            for (int y = 0; y < T; ++y) {
                const float *row = box.data + first + z * box.pitch_z + y * box.pitch_y;
                double line = 0;
                for (int x = 0; x < T; ++x) line += wx[x] * double(row[x]);
                plane += wy[y] * line;
            }
            sum += wz[z] * plane;
        }
        out[k] = sum;
    }
    return true;
}

template <class T> inline T rounded(double value) { return T(std::llrint(value)); }
template <> inline float rounded<float>(double value) { return float(value); }

// Values in the type of an image, between `low` and `high`; 0 where they are not finite. Returns how many are.
template <class T> inline Index settle(const double *values, Index n, double low, double high, T *out) {
    Index there = 0;
    for (Index k = 0; k < n; ++k) {
        const bool finite = std::isfinite(values[k]);
        there += finite;
        out[k] = finite ? rounded<T>(std::min(std::max(values[k], low), high)) : T(0);
    }
    return there;
}

}  // namespace deform
