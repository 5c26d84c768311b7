// Small algebra in double precision: rotation of a 3 x 3 matrix, the linear system of a step, the normalised residual.
//
// Needs: the sums of a pass, in the order of gauss_newton.hpp.
#pragma once
#include <math.h>
#include <string.h>

#include "../gauss_newton.hpp"

namespace {

double determinant(const double F[9]) {
    return F[0] * (F[4] * F[8] - F[5] * F[7]) - F[1] * (F[3] * F[8] - F[5] * F[6]) + F[2] * (F[3] * F[7] - F[4] * F[6]);
}

// Rotation of the polar decomposition F = R U (Higham's Newton iteration, doi 10.1137/0907079); false if there is none.
bool rotation_of(const double F[9], double R[9]) {
    memcpy(R, F, 9 * sizeof(double));
    for (int k = 0; k < 50; k++) {
        const double det = determinant(R);
        if (!(fabs(det) > 1e-300)) return false;
        const double T[9] = {  // inverse transposed
            (R[4] * R[8] - R[5] * R[7]) / det, (R[5] * R[6] - R[3] * R[8]) / det, (R[3] * R[7] - R[4] * R[6]) / det,
            (R[2] * R[7] - R[1] * R[8]) / det, (R[0] * R[8] - R[2] * R[6]) / det, (R[1] * R[6] - R[0] * R[7]) / det,
            (R[1] * R[5] - R[2] * R[4]) / det, (R[2] * R[3] - R[0] * R[5]) / det, (R[0] * R[4] - R[1] * R[3]) / det};
        double change = 0;
        for (int i = 0; i < 9; i++) {
            const double v = 0.5 * (R[i] + T[i]);
            change += fabs(v - R[i]);
            R[i] = v;
        }
        if (change < 1e-15) break;
    }
    return determinant(R) > 0;
}

// Position in the list 1 z y x zz zy zx yy yx xx of the product of coordinates a and b (0 1 2 = z y x, 3 = one).
const int MONOMIAL[4][4] = {{4, 5, 6, 1}, {5, 7, 8, 2}, {6, 8, 9, 3}, {1, 2, 3, 0}};
const int PAIR[3][3] = {{0, 1, 2}, {1, 3, 4}, {2, 4, 5}};

// The matrix M of a step in triangular form, by Cholesky's method with M scaled to unit diagonal; m unknowns.
struct System {
    int m, unknown[12];
    double triangle[144], scale[12];
};

// M from the 60 products. False where it is singular.
bool factorise(const double *products, int two_d, System &s) {
    double *const M = s.triangle;
    s.m = 0;
    for (int u = 0; u < 12; u++)
        if (!two_d || (u >= 4 && u % 4 != 0)) s.unknown[s.m++] = u;
    const int m = s.m;
    for (int i = 0; i < m; i++) {
        for (int j = 0; j <= i; j++) {
            const int u = s.unknown[i], v = s.unknown[j];
            M[i * m + j] = products[10 * PAIR[u / 4][v / 4] + MONOMIAL[u % 4][v % 4]];
        }
        const double d = M[i * m + i];
        if (!(d > 0) || d > 1e300) return false;
        s.scale[i] = 1.0 / sqrt(d);
        for (int j = 0; j <= i; j++) M[i * m + j] *= s.scale[i] * s.scale[j];
    }
    for (int j = 0; j < m; j++) {
        for (int k = 0; k < j; k++)
            for (int i = j; i < m; i++) M[i * m + j] -= M[i * m + k] * M[j * m + k];
        if (!(M[j * m + j] > MPIDVC_LEAST_PIVOT)) return false;
        const double d = 1.0 / sqrt(M[j * m + j]);
        for (int i = j; i < m; i++) M[i * m + j] *= d;
    }
    return true;
}

// delta (3 x 4: rows i, columns z y x 1) = M^-1 A. False where delta is not finite.
bool increment(const System &s, const double A[12], double delta[12]) {
    const double *const M = s.triangle;
    const int m = s.m;
    double b[12];
    for (int i = 0; i < m; i++) b[i] = A[s.unknown[i]] * s.scale[i];
    for (int i = 0; i < m; i++) {
        for (int k = 0; k < i; k++) b[i] -= M[i * m + k] * b[k];
        b[i] /= M[i * m + i];
    }
    for (int i = m - 1; i >= 0; i--) {
        for (int k = i + 1; k < m; k++) b[i] -= M[k * m + i] * b[k];
        b[i] /= M[i * m + i];
    }
    for (int i = 0; i < 12; i++) delta[i] = 0;
    for (int i = 0; i < m; i++) {
        delta[s.unknown[i]] = b[i] * s.scale[i];
        if (!(fabs(delta[s.unknown[i]]) < 1e100)) return false;
    }
    return true;
}

// znssd: sums of the residual r' = f0 - (alpha g0 + beta), with alpha and beta such that f0 and alpha g0 + beta have
// the same mean and standard deviation.
struct Normalised {
    double alpha, beta, rr, zncc, A[12];
    bool flat;   // f or g is constant: nothing else is set
    bool rough;  // g0 was so far from f0 that the sums have lost digits, or all of them
};

// alpha and 1 / alpha, and beta in deviations of f0, from which on a map is rough.
const double ROUGH = 8;

Normalised normalise(const double *s) {
    Normalised q = {};
    const double n = s[MPIDVC_N], f = s[MPIDVC_F], ff = s[MPIDVC_FF], r = s[MPIDVC_R], rr = s[MPIDVC_RR],
                 fr = s[MPIDVC_FR];
    const double mean_f = f / n, mean_g = (f - r) / n;
    const double var_f = ff / n - mean_f * mean_f, var_g = (ff - 2 * fr + rr) / n - mean_g * mean_g;
    q.flat = q.rough = !(var_f > 0 && var_g > 0);
    if (q.flat) return q;
    q.alpha = sqrt(var_f / var_g);
    q.beta = mean_f - q.alpha * mean_g;
    q.rough = !(q.alpha < ROUGH && q.alpha * ROUGH > 1 && fabs(q.beta) < ROUGH * sqrt(var_f));
    q.zncc = ((ff - fr) / n - mean_f * mean_g) / sqrt(var_f * var_g);
    const double a = 1 - q.alpha;
    q.rr = a * a * ff + q.alpha * q.alpha * rr + n * q.beta * q.beta + 2 * a * q.alpha * fr - 2 * a * q.beta * f -
           2 * q.alpha * q.beta * r;
    for (int i = 0; i < 12; i++)
        q.A[i] = a * s[MPIDVC_C + i] + q.alpha * s[MPIDVC_A + i] - q.beta * s[MPIDVC_D + i];
    return q;
}

}  // namespace
