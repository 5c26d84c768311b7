// Sums of the products of gradients over shells of voxels around a point: all windows about it are sums of shells.
#pragma once
#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

enum {
    // G_i G_k for ik = zz zy zx yy yx xx, G_i K_k row by row, voxels, those whose K is known, and the moments
    // 1 z y x zz zy zx yy yx xx of G.G about the point
    WINDOW_SUMS = 27,
    WINDOW_PLAIN = 17,  // of these the ones that are sums of a number of each voxel
    WINDOW_LANES = 23,  // those, and 1 z y zz zy yy of G.G
    WINDOW_ROWS = 9,    // G, K, the weights of a voxel and of its K, G.G
    WINDOW_FRAME = 3,   // voxels that K reaches
    WINDOW_ALL = 8      // in 3D shells that are farther away are summed over every second row, which counts twice
};

struct window_box {
    const float *f, *g;            // image 1, and what the derivative K is taken of
    const uint8_t *usable, *whole; // voxels that count; those whose K touches data only, else K is G; null = all
    int64_t pitch_y, pitch_z;
    bool two_d;
};

// What is known of n voxels of a row: WINDOW_ROWS rows of `width` floats.
static void window_gradients(const window_box &box, int64_t start, int64_t n, int64_t width, float *rows) {
    const int64_t steps[3] = {box.pitch_z, box.pitch_y, 1};
    float *__restrict usable = rows + 6 * width, *__restrict whole = rows + 7 * width;
    for (int64_t i = 0; i < n; i++) {
        usable[i] = box.usable ? box.usable[start + i] : 1.0f;
        whole[i] = box.whole ? usable[i] * box.whole[start + i] : usable[i];
    }
    for (int a = 0; a < 3; a++) {
        float *__restrict G = rows + a * width, *__restrict K = rows + (3 + a) * width;
        if (a == 0 && box.two_d) {
            for (int64_t i = 0; i < n; i++) G[i] = K[i] = 0;
            continue;
        }
        const int64_t s = steps[a];
        const float *f = box.f + start, *g = box.g + start;
        for (int64_t i = 0; i < n; i++) {
            const float slope = 0.5f * (f[i + s] - f[i - s]) * usable[i];
            const float steep = 0.75f * (g[i + s] - g[i - s]) - 0.15f * (g[i + 2 * s] - g[i - 2 * s]) +
                                (1.0f / 60) * (g[i + 3 * s] - g[i - 3 * s]);
            G[i] = slope;
            K[i] = slope + whole[i] * (steep - slope);
        }
    }
    float *__restrict square = rows + 8 * width;
    const float *Gz = rows, *Gy = rows + width, *Gx = rows + 2 * width;
    for (int64_t i = 0; i < n; i++) square[i] = Gz[i] * Gz[i] + Gy[i] * Gy[i] + Gx[i] * Gx[i];
}

// Adds the products of the voxels [from, to) of a row to lanes of `width` floats each.
static void window_products(const float *rows, int64_t from, int64_t to, int64_t width, float z, float y,
                            float *lanes) {
    if (from >= to) return;
    int k = 0;
    for (int i = 0; i < 3; i++)
        for (int j = i; j < 3; j++) {
            const float *a = rows + i * width, *b = rows + j * width;
            float *__restrict lane = lanes + k++ * width;
            for (int64_t x = from; x < to; x++) lane[x] += a[x] * b[x];
        }
    for (int i = 0; i < 3; i++)
        for (int j = 3; j < 6; j++) {
            const float *a = rows + i * width, *b = rows + j * width;
            float *__restrict lane = lanes + k++ * width;
            for (int64_t x = from; x < to; x++) lane[x] += a[x] * b[x];
        }
    for (int j = 6; j < 8; j++) {
        const float *a = rows + j * width;
        float *__restrict lane = lanes + k++ * width;
        for (int64_t x = from; x < to; x++) lane[x] += a[x];
    }
    const float *square = rows + 8 * width;
    for (const float weight : {1.0f, z, y, z * z, z * y, y * y}) {
        float *__restrict lane = lanes + k++ * width;
        for (int64_t x = from; x < to; x++) lane[x] += weight * square[x];
    }
}

// Sums over the shells at the distances first ... last (the largest along an axis) from each of the centres (indices in
// the box): out (count, last - first + 1, WINDOW_SUMS). Whether there was memory.
static bool window_shells(const window_box &box, const int64_t *centres, int64_t count, int64_t first, int64_t last,
                          double *out) {
    const int64_t width = 2 * last + 1, shells = last - first + 1, size = WINDOW_LANES * width;
    std::vector<float> rows, lanes;
    try {
        rows.resize(WINDOW_ROWS * width);
        lanes.resize((shells + 1) * size);
    } catch (const std::bad_alloc &) {
        return false;
    }
    // what lies farther along x than along z and y
    float *beside = lanes.data() + shells * size;
    for (int64_t p = 0; p < count; p++) {
        std::fill(lanes.begin(), lanes.end(), 0.0f);
        const int64_t middle = centres[3 * p] * box.pitch_z + centres[3 * p + 1] * box.pitch_y + centres[3 * p + 2];
        const int64_t deep = box.two_d ? 0 : last;
        for (int64_t z = -deep; z <= deep; z++)
            for (int64_t y = -last; y <= last; y++) {
                const int64_t d = std::max(z < 0 ? -z : z, y < 0 ? -y : y);
                const int64_t row = middle + z * box.pitch_z + y * box.pitch_y;
                const int64_t far = !box.two_d && ((z + y) & 1) ? std::min<int64_t>(last, WINDOW_ALL) : last;
                if (far < std::max(d, first)) continue;
                if (d >= first) {
                    window_gradients(box, row - far, 2 * far + 1, width, rows.data() + last - far);
                    window_products(rows.data(), last - d, last + d + 1, width, z, y, lanes.data() + (d - first) * size);
                    window_products(rows.data(), last - far, last - d, width, z, y, beside);
                    window_products(rows.data(), last + d + 1, last + far + 1, width, z, y, beside);
                    continue;
                }
                const int64_t n = far - first + 1;
                for (int64_t from : {last - far, last + first}) {
                    window_gradients(box, row - last + from, n, width, rows.data() + from);
                    window_products(rows.data(), from, from + n, width, z, y, beside);
                }
            }
        for (int64_t k = 0; k < shells; k++) {
            const int64_t d = first + k;
            // the sum of a lane, weighted with a power of x
            const auto total = [&](int q, int power) {
                const float *lane = lanes.data() + k * size + q * width, *side = beside + q * width;
                const auto weight = [&](int64_t x) { return power == 0 ? 1.0 : power == 1 ? double(x) : double(x * x); };
                double found = d ? weight(-d) * side[last - d] + weight(d) * side[last + d] : 0.0;
                for (int64_t x = -d; x <= d; x++) found += weight(x) * lane[last + x];
                return !box.two_d && d > WINDOW_ALL ? 2 * found : found;
            };
            double *sums = out + (p * shells + k) * WINDOW_SUMS;
            for (int q = 0; q < WINDOW_PLAIN; q++) sums[q] = total(q, 0);
            enum { ONE = WINDOW_PLAIN, Z, Y, ZZ, ZY, YY };
            const struct { int lane, power; } moments[] = {{ONE, 0}, {Z, 0},  {Y, 0},  {ONE, 1}, {ZZ, 0},
                                                           {ZY, 0},  {Z, 1}, {YY, 0}, {Y, 1},   {ONE, 2}};
            for (int q = 0; q < 10; q++) sums[WINDOW_PLAIN + q] = total(moments[q].lane, moments[q].power);
        }
    }
    return true;
}
