// Labels of voxels: sums of every label over a box in one pass, and the mask of one label, dilated or eroded.
//
// Boxes are (z, y, x) with contiguous rows; pitches are in bytes. Integers only: the results have no rounding.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <vector>

namespace label_passes {

using Index = std::int64_t;

struct Box {
    const char *data;
    // As numpy names them: 'u', 'i' or 'f', and bytes.
    char kind;
    int size;
    Index pitch_z, pitch_y;
    Index shape[3];

    template <class T> const T *row(Index z, Index y) const {
        return reinterpret_cast<const T *>(data + z * pitch_z + y * pitch_y);
    }
};

// Call a function with a null pointer to the box's type of values.
template <class F> auto with_type(const Box &box, F function) {
    if (box.kind == 'f') return box.size == 8 ? function((double *)nullptr) : function((float *)nullptr);
    if (box.kind == 'i') {
        if (box.size == 1) return function((std::int8_t *)nullptr);
        if (box.size == 2) return function((std::int16_t *)nullptr);
        return box.size == 4 ? function((std::int32_t *)nullptr) : function((std::int64_t *)nullptr);
    }
    if (box.size == 1) return function((std::uint8_t *)nullptr);
    if (box.size == 2) return function((std::uint16_t *)nullptr);
    return box.size == 4 ? function((std::uint32_t *)nullptr) : function((std::uint64_t *)nullptr);
}

// Sums and bounding box (inclusive) of a label, in voxels of its box.
struct Row {
    Index label, volume;
    Index moment[3], lowest[3], highest[3];
};

template <int bytes> struct Bits;
template <> struct Bits<1> { using type = std::uint8_t; };
template <> struct Bits<2> { using type = std::uint16_t; };
template <> struct Bits<4> { using type = std::uint32_t; };
template <> struct Bits<8> { using type = std::uint64_t; };

// First voxel at or after `x` that has other bits than `value`, or `n`.
template <class U> inline Index run_end(const U *row, Index x, Index n, U value) {
#if defined(__GNUC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    constexpr Index step = 8 / sizeof(U);
    std::uint64_t pattern = value;
    for (unsigned width = 8 * sizeof(U); width < 64; width *= 2) pattern |= pattern << width;
    for (; x + step <= n; x += step) {
        std::uint64_t word;
        std::memcpy(&word, row + x, 8);
        if (word != pattern) return x + __builtin_ctzll(word ^ pattern) / Index(8 * sizeof(U));
    }
#endif
    while (x < n && row[x] == value) ++x;
    return x;
}

// The label that a voxel's value stands for, -1 if it is none up to `largest`.
template <class T> inline Index label_of(T value, Index largest) {
    if constexpr (std::is_floating_point<T>::value) {
        if (!(value >= 0 && value <= T(largest))) return -1;
        Index label = Index(value);
        return T(label) == value && label <= largest ? label : -1;
    } else {
        Index label = Index(value);
        return label >= 0 && label <= largest ? label : -1;
    }
}

class Tally {
  public:
    std::vector<Row> rows;

    // Add all labels of a box but 0 to `rows`; return the index (in the box) of the first voxel that is no label, or -1.
    Index add(const Box &box, Index largest) {
        return with_type(box, [&](auto *type) { return add_as<std::remove_pointer_t<decltype(type)>>(box, largest); });
    }

    void clear() {
        for (const Row &row : rows) place_[row.label] = 0;
        rows.clear();
    }

  private:
    // For each label, its place in `rows` plus one.
    std::vector<std::uint32_t> place_;

    template <class T> Index add_as(const Box &box, Index largest) {
        using U = typename Bits<sizeof(T)>::type;
        const Index nx = box.shape[2];
        for (Index z = 0; z < box.shape[0]; ++z)
            for (Index y = 0; y < box.shape[1]; ++y) {
                const U *row = box.row<U>(z, y);
                for (Index x = 0; x < nx;) {
                    const U bits = row[x];
                    const Index end = run_end(row, x + 1, nx, bits);
                    if (bits != 0) {
                        T value;
                        std::memcpy(&value, &bits, sizeof(T));
                        const Index label = label_of(value, largest);
                        if (label < 0) return (z * box.shape[1] + y) * nx + x;
                        if (label > 0) add_run(row_of(label), z, y, x, end);
                    }
                    x = end;
                }
            }
        return -1;
    }

    Row &row_of(Index label) {
        if (label >= Index(place_.size())) place_.resize(std::max(label + 1, Index(2 * place_.size())), 0);
        std::uint32_t &place = place_[label];
        if (place == 0) {
            constexpr Index far = INT64_MAX;
            rows.push_back({label, 0, {0, 0, 0}, {far, far, far}, {-1, -1, -1}});
            place = std::uint32_t(rows.size());
        }
        return rows[place - 1];
    }

    static void add_run(Row &row, Index z, Index y, Index x, Index end) {
        const Index n = end - x;
        row.volume += n;
        row.moment[0] += z * n;
        row.moment[1] += y * n;
        row.moment[2] += (x + end - 1) * n / 2;
        row.lowest[0] = std::min(row.lowest[0], z);
        row.lowest[1] = std::min(row.lowest[1], y);
        row.lowest[2] = std::min(row.lowest[2], x);
        row.highest[0] = z;
        row.highest[1] = std::max(row.highest[1], y);
        row.highest[2] = std::max(row.highest[2], end - 1);
    }
};

// to = least of (to, from + square).
inline void lower(std::int16_t *__restrict to, const std::int16_t *__restrict from, std::int16_t square, Index n) {
    for (Index i = 0; i < n; ++i) {
        const std::int16_t sum = std::int16_t(from[i] + square);
        to[i] = sum < to[i] ? sum : to[i];
    }
}

// 1 where voxels of a row have a value, else 0.
template <class T> inline void equal(const T *__restrict row, T value, std::uint8_t *__restrict out, Index n) {
    for (Index x = 0; x < n; ++x) out[x] = row[x] == value;
}

// 0 where voxels of a row have a value (`has`), or where they do not, else `far`.
template <class T>
inline void mark(const T *__restrict row, T value, bool has, std::int16_t far, std::int16_t *__restrict to, Index n) {
    for (Index x = 0; x < n; ++x) to[x] = (row[x] == value) == has ? std::int16_t(0) : far;
}

// 1 where squares are up to a limit and voxels have a label or none at all, else 0.
template <class T>
inline void near_and_free(const std::int16_t *__restrict squares, std::int16_t limit, const T *__restrict row, T label,
                          std::uint8_t *__restrict out, Index n) {
    for (Index x = 0; x < n; ++x) out[x] = (squares[x] <= limit) & ((row[x] == label) | (row[x] == T(0)));
}

// Squared distances are found axis after axis, as least sums of squares; those beyond the reach stay above its square.
// Rows have a frame of voxels that are far from everything, so that whole planes are shifted at once along x.
template <class T> void mask_as(const Box &box, T label, int radius, bool keep_others, std::uint8_t *out) {
    const Index nz = box.shape[0], ny = box.shape[1], nx = box.shape[2];
    if (radius == 0) {
        for (Index z = 0; z < nz; ++z)
            for (Index y = 0; y < ny; ++y, out += nx) equal(box.row<T>(z, y), label, out, nx);
        return;
    }
    const bool grows = radius > 0;
    const Index reach = grows ? radius : -radius, pitch = nx + reach, plane = ny * pitch;
    const std::int16_t limit = std::int16_t(reach * reach), far = std::int16_t((reach + 1) * (reach + 1));
    std::vector<std::int16_t> sources(plane + 2 * reach, far), along_x(plane), squares(nz * plane, far), least(plane);
    for (Index z = 0; z < nz; ++z) {
        for (Index y = 0; y < ny; ++y)
            mark(box.row<T>(z, y), label, grows, far, sources.data() + reach + y * pitch, nx);
        std::fill(along_x.begin(), along_x.end(), far);
        for (Index k = -reach; k <= reach; ++k)
            lower(along_x.data(), sources.data() + reach + k, std::int16_t(k * k), plane);
        for (Index k = std::max(-reach, 1 - ny); k <= std::min(reach, ny - 1); ++k)
            lower(squares.data() + z * plane + std::max(-k, Index(0)) * pitch,
                  along_x.data() + std::max(k, Index(0)) * pitch, std::int16_t(k * k), (ny - std::abs(k)) * pitch);
    }
    for (Index z = 0; z < nz; ++z) {
        std::fill(least.begin(), least.end(), far);
        for (Index k = std::max(-reach, -z); k <= std::min(reach, nz - 1 - z); ++k)
            lower(least.data(), squares.data() + (z + k) * plane, std::int16_t(k * k), plane);
        for (Index y = 0; y < ny; ++y, out += nx) {
            const std::int16_t *from = least.data() + y * pitch;
            if (grows && !keep_others)
                near_and_free(from, limit, box.row<T>(z, y), label, out, nx);
            else
                for (Index x = 0; x < nx; ++x) out[x] = (from[x] <= limit) == grows;
        }
    }
}

// Mask of a label: dilated (radius > 0) or eroded (radius < 0) by the digital ball z² + y² + x² <= radius².
// Nothing lies beyond the box.
inline void mask(const Box &box, Index label, int radius, bool keep_others, std::uint8_t *out) {
    with_type(box, [&](auto *type) {
        using T = std::remove_pointer_t<decltype(type)>;
        mask_as<T>(box, T(label), radius, keep_others, out);
    });
}

} // namespace label_passes
