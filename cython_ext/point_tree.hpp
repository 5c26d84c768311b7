// Neighbours of points in space: within a radius, or the nearest one.
//
// A tree of boxes, halved along their longest axis. Bounds and distances are summed by the same function, and rounding
// is monotonic, so that no point is lost to the last digit: the answers are those of a comparison with every point.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

namespace point_tree {

using Index = std::int64_t;

inline double square(double z, double y, double x) { return z * z + y * y + x * x; }

class Tree {
  public:
    // `points`: n times (z, y, x), kept by the caller.
    void build(const double *points, Index n) {
        points_ = points;
        order_.resize(n);
        std::iota(order_.begin(), order_.end(), Index(0));
        leaf_.assign(n, 0);
        alive_.assign(n, 1);
        nodes_.clear();
        if (n > 0) split(0, n, -1);
    }

    // Points with an index below `before` and a squared distance not above `square_radius`, added to `found` in order.
    void within(const double *centre, double square_radius, Index before, std::vector<Index> &found) const {
        search(centre, square_radius, before, false, found);
    }

    // Ranks: point 0, then for every ranked point in turn its unranked neighbours within the radius, or the nearest.
    void walk(double radius, Index *ranked) {
        const Index n = Index(order_.size());
        Index count = 0;
        std::vector<Index> found;
        if (n > 0) {
            ranked[count++] = 0;
            remove(0);
        }
        for (Index k = 0; count < n; ++k) {
            const double *centre = points_ + 3 * ranked[k];
            found.clear();
            search(centre, radius * radius, n, true, found);
            if (found.empty()) found.push_back(nearest(centre));
            for (Index point : found) {
                ranked[count++] = point;
                remove(point);
            }
        }
    }

  private:
    struct Node {
        double low[3], high[3];
        Index begin, end, left, right, parent, alive, first;
    };

    static constexpr Index LEAF = 8;

    const double *points_ = nullptr;
    std::vector<Index> order_, leaf_;
    std::vector<std::uint8_t> alive_;
    std::vector<Node> nodes_;

    Index split(Index begin, Index end, Index parent) {
        const Index number = Index(nodes_.size());
        Node node;
        node.begin = begin;
        node.end = end;
        node.left = node.right = -1;
        node.parent = parent;
        node.alive = end - begin;
        node.first = *std::min_element(order_.begin() + begin, order_.begin() + end);
        for (int axis = 0; axis < 3; ++axis) {
            node.low[axis] = std::numeric_limits<double>::infinity();
            node.high[axis] = -std::numeric_limits<double>::infinity();
            for (Index k = begin; k < end; ++k) {
                const double value = points_[3 * order_[k] + axis];
                node.low[axis] = std::min(node.low[axis], value);
                node.high[axis] = std::max(node.high[axis], value);
            }
        }
        nodes_.push_back(node);
        if (end - begin <= LEAF) {
            for (Index k = begin; k < end; ++k) leaf_[order_[k]] = number;
            return number;
        }
        int widest = 0;
        for (int axis = 1; axis < 3; ++axis)
            if (node.high[axis] - node.low[axis] > node.high[widest] - node.low[widest]) widest = axis;
        const Index middle = begin + (end - begin) / 2;
        const double *points = points_;
        std::nth_element(order_.begin() + begin, order_.begin() + middle, order_.begin() + end,
                         [points, widest](Index a, Index b) {
                             const double va = points[3 * a + widest], vb = points[3 * b + widest];
                             return va < vb || (va == vb && a < b);
                         });
        const Index left = split(begin, middle, number), right = split(middle, end, number);
        nodes_[number].left = left;
        nodes_[number].right = right;
        return number;
    }

    double distance(const double *centre, Index point) const {
        const double *p = points_ + 3 * point;
        return square(p[0] - centre[0], p[1] - centre[1], p[2] - centre[2]);
    }

    double bound(const double *centre, const Node &node) const {
        double apart[3];
        for (int axis = 0; axis < 3; ++axis)
            apart[axis] = std::min(std::max(centre[axis], node.low[axis]), node.high[axis]) - centre[axis];
        return square(apart[0], apart[1], apart[2]);
    }

    void remove(Index point) {
        alive_[point] = 0;
        for (Index number = leaf_[point]; number >= 0; number = nodes_[number].parent) --nodes_[number].alive;
    }

    void search(const double *centre, double square_radius, Index before, bool only_alive,
                std::vector<Index> &found) const {
        const std::size_t start = found.size();
        // depth of the tree: halves of at most 2**63 points, two children each
        Index stack[128];
        int height = 0;
        if (!nodes_.empty()) stack[height++] = 0;
        while (height > 0) {
            const Node &node = nodes_[stack[--height]];
            if (node.first >= before || (only_alive && node.alive == 0)) continue;
            if (bound(centre, node) > square_radius) continue;
            if (node.left >= 0) {
                stack[height++] = node.left;
                stack[height++] = node.right;
                continue;
            }
            for (Index k = node.begin; k < node.end; ++k) {
                const Index point = order_[k];
                if (point < before && (!only_alive || alive_[point]) && distance(centre, point) <= square_radius)
                    found.push_back(point);
            }
        }
        std::sort(found.begin() + start, found.end());
    }

    // Of the points left the nearest, of equally near ones the first; there has to be one.
    Index nearest(const double *centre) const {
        double best = std::numeric_limits<double>::infinity();
        Index found = std::numeric_limits<Index>::max();
        Index stack[128];
        int height = 0;
        stack[height++] = 0;
        while (height > 0) {
            const Node &node = nodes_[stack[--height]];
            const double least = bound(centre, node);
            if (node.alive == 0 || least > best || (least == best && node.first > found)) continue;
            if (node.left >= 0) {
                Index near = node.left, far = node.right;
                if (bound(centre, nodes_[far]) < bound(centre, nodes_[near])) std::swap(near, far);
                stack[height++] = far;
                stack[height++] = near;
                continue;
            }
            for (Index k = node.begin; k < node.end; ++k) {
                const Index point = order_[k];
                if (!alive_[point]) continue;
                const double apart = distance(centre, point);
                if (apart < best || (apart == best && point < found)) {
                    best = apart;
                    found = point;
                }
            }
        }
        return found;
    }
};

}  // namespace point_tree
