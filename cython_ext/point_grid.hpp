// Neighbours within a radius among the nodes of a grid, counted out along its axes: faster than a tree, and without one.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "point_tree.hpp"

namespace point_grid {

using point_tree::Index;

class Grid {
  public:
    // Whether n points, each (z, y, x), are the nodes of `dims`, rows along x first, and the axes ascend; used if so.
    bool hold(const double *points, Index n, const Index *dims) {
        axes_[0].clear();
        if (n == 0 || dims[0] * dims[1] * dims[2] != n) return false;
        const Index steps[3] = {dims[1] * dims[2], dims[2], 1};
        std::vector<double> axes[3];
        for (int axis = 0; axis < 3; ++axis) {
            for (Index k = 0; k < dims[axis]; ++k) axes[axis].push_back(points[3 * k * steps[axis] + axis]);
            for (Index k = 1; k < dims[axis]; ++k)
                if (!(axes[axis][k - 1] < axes[axis][k])) return false;
        }
        for (Index z = 0; z < dims[0]; ++z)
            for (Index y = 0; y < dims[1]; ++y)
                for (Index x = 0; x < dims[2]; ++x, points += 3)
                    if (points[0] != axes[0][z] || points[1] != axes[1][y] || points[2] != axes[2][x]) return false;
        for (int axis = 0; axis < 3; ++axis) axes_[axis].swap(axes[axis]);
        return true;
    }

    bool held() const { return !axes_[0].empty(); }

    // As Tree::within, but `found` has room at its end: its first `count` are used, and those added. The same points, for
    // sums of squares are not below any of their terms.
    void within(const double *centre, double square_radius, std::vector<Index> &found, std::size_t &count,
                const std::uint8_t *usable) const {
        Index low[3], high[3];
        for (int axis = 0; axis < 3; ++axis) {
            const std::vector<double> &nodes = axes_[axis];
            const double c = centre[axis];
            const auto far = [c, square_radius](double node) { return (node - c) * (node - c) > square_radius; };
            const auto middle = std::lower_bound(nodes.begin(), nodes.end(), c);
            low[axis] = std::partition_point(nodes.begin(), middle, far) - nodes.begin();
            high[axis] =
                std::partition_point(middle, nodes.end(), [&far](double node) { return !far(node); }) - nodes.begin();
        }
        const Index ny = axes_[1].size(), nx = axes_[2].size();
        for (Index z = low[0]; z < high[0]; ++z) {
            const double dz = axes_[0][z] - centre[0];
            for (Index y = low[1]; y < high[1]; ++y) {
                const double dy = axes_[1][y] - centre[1];
                if (point_tree::square(dz, dy, 0) > square_radius) continue;
                const Index row = (z * ny + y) * nx;
                // every node of the row is written, and kept if the next one does not take its place
                const std::size_t most = count + std::size_t(std::max(high[2] - low[2], Index(0)));
                if (found.size() < most) found.resize(2 * most);
                Index *out = found.data() + count, *const begin = out;
                for (Index x = low[2]; x < high[2]; ++x) {
                    const double dx = axes_[2][x] - centre[2];
                    *out = row + x;
                    out += (point_tree::square(dz, dy, dx) <= square_radius) & (usable ? usable[row + x] : 1);
                }
                count += std::size_t(out - begin);
            }
        }
    }

  private:
    std::vector<double> axes_[3];
};

}  // namespace point_grid
