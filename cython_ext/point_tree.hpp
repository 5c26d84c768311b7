// Neighbours of points in space: within a radius, or the nearest ones.
//
// A tree of boxes, halved along their longest axis. Bounds and distances are summed by the same function, and rounding
// is monotonic, so that no point is lost to the last digit: the answers are those of a comparison with every point.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>
#include <vector>

namespace point_tree {

using Index = std::int64_t;

inline double square(double z, double y, double x) { return z * z + y * y + x * x; }

// A box of points: those at [begin, end) of the order, and its halves; `first` is their lowest index.
struct Node {
    double low[3], high[3];
    Index begin, end, left, right, parent, first;
};

// Points and their squared distances, the farthest on top; of equally far ones that with the highest index.
using Candidate = std::pair<double, Index>;

class Tree {
  public:
    // `points`: n times (z, y, x), kept by the caller.
    void build(const double *points, Index n) {
        points_ = points;
        own_order_.resize(n);
        std::iota(own_order_.begin(), own_order_.end(), Index(0));
        own_nodes_.clear();
        if (n > 0) split(0, n, -1);
        view(points, own_order_.data(), n, own_nodes_.data(), Index(own_nodes_.size()));
    }

    // Use a tree that was built before, in memory kept by the caller.
    void view(const double *points, const Index *order, Index n, const Node *nodes, Index n_nodes) {
        points_ = points;
        order_ = order;
        n_ = n;
        nodes_ = nodes;
        n_nodes_ = n_nodes;
    }

    const Index *order() const { return order_; }
    const Node *nodes() const { return nodes_; }
    Index n_nodes() const { return n_nodes_; }

    // Points with an index below `before` and a squared distance not above `square_radius`, added to `found` in order;
    // only those with a `usable` that is not 0, where it is given.
    void within(const double *centre, double square_radius, Index before, std::vector<Index> &found,
                const std::uint8_t *usable = nullptr) const {
        search(centre, square_radius, before, nullptr, usable, found);
    }

    // The `count` nearest usable points, by distance and then by index; `heap` is scratch, `found` has room for them.
    void nearest(const double *centre, Index count, std::vector<Candidate> &heap, Index *found,
                 const std::uint8_t *usable = nullptr) const {
        heap.clear();
        // nodes with their bounds
        Candidate stack[128];
        int height = 0;
        if (n_nodes_ > 0 && count > 0) stack[height++] = {bound(centre, nodes_[0]), 0};
        while (height > 0) {
            const double least = stack[--height].first;
            const Node &node = nodes_[stack[height].second];
            if (Index(heap.size()) == count && Candidate(least, node.first) > heap.front()) continue;
            if (node.left >= 0) {
                Candidate near(bound(centre, nodes_[node.left]), node.left);
                Candidate far(bound(centre, nodes_[node.right]), node.right);
                if (far.first < near.first) std::swap(near, far);
                stack[height++] = far;
                stack[height++] = near;
                continue;
            }
            for (Index k = node.begin; k < node.end; ++k) {
                if (usable && !usable[order_[k]]) continue;
                const Candidate candidate(distance(centre, order_[k]), order_[k]);
                if (Index(heap.size()) < count) {
                    heap.push_back(candidate);
                    std::push_heap(heap.begin(), heap.end());
                } else if (candidate < heap.front()) {
                    std::pop_heap(heap.begin(), heap.end());
                    heap.back() = candidate;
                    std::push_heap(heap.begin(), heap.end());
                }
            }
        }
        std::sort_heap(heap.begin(), heap.end());
        for (std::size_t k = 0; k < heap.size(); ++k) found[k] = heap[k].second;
    }

    // Ranks: point 0, then for every ranked point in turn its unranked neighbours within the radius, or the nearest.
    void walk(double radius, Index *ranked) const {
        Index count = 0;
        std::vector<Index> found;
        Left left(*this);
        if (n_ > 0) {
            ranked[count++] = 0;
            left.remove(0);
        }
        for (Index k = 0; count < n_; ++k) {
            const double *centre = points_ + 3 * ranked[k];
            found.clear();
            search(centre, radius * radius, n_, &left, nullptr, found);
            if (found.empty()) found.push_back(nearest_left(centre, left));
            for (Index point : found) {
                ranked[count++] = point;
                left.remove(point);
            }
        }
    }

  private:
    static constexpr Index LEAF = 8;

    const double *points_ = nullptr;
    const Index *order_ = nullptr;
    const Node *nodes_ = nullptr;
    Index n_ = 0, n_nodes_ = 0;
    std::vector<Index> own_order_;
    std::vector<Node> own_nodes_;

    // The points that are left during a walk, and their number in each node.
    struct Left {
        const Tree &tree;
        std::vector<Index> leaf, count;
        std::vector<std::uint8_t> alive;

        explicit Left(const Tree &tree) : tree(tree), leaf(tree.n_), count(tree.n_nodes_), alive(tree.n_, 1) {
            for (Index number = 0; number < tree.n_nodes_; ++number) {
                const Node &node = tree.nodes_[number];
                count[number] = node.end - node.begin;
                if (node.left < 0)
                    for (Index k = node.begin; k < node.end; ++k) leaf[tree.order_[k]] = number;
            }
        }

        void remove(Index point) {
            alive[point] = 0;
            for (Index number = leaf[point]; number >= 0; number = tree.nodes_[number].parent) --count[number];
        }
    };

    Index split(Index begin, Index end, Index parent) {
        const Index number = Index(own_nodes_.size());
        Node node;
        node.begin = begin;
        node.end = end;
        node.left = node.right = -1;
        node.parent = parent;
        node.first = *std::min_element(own_order_.begin() + begin, own_order_.begin() + end);
        for (int axis = 0; axis < 3; ++axis) {
            node.low[axis] = std::numeric_limits<double>::infinity();
            node.high[axis] = -std::numeric_limits<double>::infinity();
            for (Index k = begin; k < end; ++k) {
                const double value = points_[3 * own_order_[k] + axis];
                node.low[axis] = std::min(node.low[axis], value);
                node.high[axis] = std::max(node.high[axis], value);
            }
        }
        own_nodes_.push_back(node);
        if (end - begin <= LEAF) return number;
        int widest = 0;
        for (int axis = 1; axis < 3; ++axis)
            if (node.high[axis] - node.low[axis] > node.high[widest] - node.low[widest]) widest = axis;
        const Index middle = begin + (end - begin) / 2;
        const double *points = points_;
        std::nth_element(own_order_.begin() + begin, own_order_.begin() + middle, own_order_.begin() + end,
                         [points, widest](Index a, Index b) {
                             const double va = points[3 * a + widest], vb = points[3 * b + widest];
                             return va < vb || (va == vb && a < b);
                         });
        const Index left = split(begin, middle, number), right = split(middle, end, number);
        own_nodes_[number].left = left;
        own_nodes_[number].right = right;
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

    // Of the square of the distance of a point in the box.
    double upper_bound(const double *centre, const Node &node) const {
        double apart[3];
        for (int axis = 0; axis < 3; ++axis)
            apart[axis] = std::max(centre[axis] - node.low[axis], node.high[axis] - centre[axis]);
        return square(apart[0], apart[1], apart[2]);
    }

    void search(const double *centre, double square_radius, Index before, const Left *left, const std::uint8_t *usable,
                std::vector<Index> &found) const {
        const std::size_t start = found.size();
        // depth of the tree: halves of at most 2**63 points, two children each
        Index stack[128];
        int height = 0;
        if (n_nodes_ > 0) stack[height++] = 0;
        while (height > 0) {
            const Index number = stack[--height];
            const Node &node = nodes_[number];
            if (node.first >= before || (left && left->count[number] == 0)) continue;
            if (bound(centre, node) > square_radius) continue;
            const bool whole = upper_bound(centre, node) <= square_radius;
            if (node.left >= 0 && (!whole || left)) {
                stack[height++] = node.left;
                stack[height++] = node.right;
                continue;
            }
            for (Index k = node.begin; k < node.end; ++k) {
                const Index point = order_[k];
                if (point < before && (!left || left->alive[point]) && (!usable || usable[point]) &&
                    (whole || distance(centre, point) <= square_radius))
                    found.push_back(point);
            }
        }
        std::sort(found.begin() + start, found.end());
    }

    // Of the points left the nearest, of equally near ones the first; there has to be one.
    Index nearest_left(const double *centre, const Left &left) const {
        double best = std::numeric_limits<double>::infinity();
        Index found = std::numeric_limits<Index>::max();
        Index stack[128];
        int height = 0;
        stack[height++] = 0;
        while (height > 0) {
            const Index number = stack[--height];
            const Node &node = nodes_[number];
            const double least = bound(centre, node);
            if (left.count[number] == 0 || least > best || (least == best && node.first > found)) continue;
            if (node.left >= 0) {
                Index near = node.left, far = node.right;
                if (bound(centre, nodes_[far]) < bound(centre, nodes_[near])) std::swap(near, far);
                stack[height++] = far;
                stack[height++] = near;
                continue;
            }
            for (Index k = node.begin; k < node.end; ++k) {
                const Index point = order_[k];
                if (!left.alive[point]) continue;
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
