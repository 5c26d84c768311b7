// Interface of the places of a deformed image: plain structs, and one table of functions per instruction set.
#pragma once
#include <stdint.h>

// A block of voxels, and the points that may be among the nearest of one of them.
struct mpidvc_places {
    int64_t count, nearest;            // points, and how many of them are averaged; 1 <= nearest <= count
    const double *position[3];         // (count,) of the deformed points, ascending by index
    const int64_t *first;              // (count,) rows in the order in which they are compared: those near the block first
    const int64_t *index;              // (count,) indices of the points in `phi`
    const double *phi;                 // (n, 16): their inverse motions, about the deformed points
    int displacements_only;            // whether F of `phi` counts for nothing
    int64_t low[3], size[3];           // first voxel, and voxels
    int64_t pitch_y, pitch_z;          // of `out` and `wanted`, voxels
    double *out[3];                    // at the first voxel
    const uint8_t *wanted;             // at the first voxel; places of voxels with 0 become nan; null: all are wanted
    double *room;                      // (MPIDVC_PLACES_ROOM(count, nearest),), aligned to 64 bytes
};

// Doubles of scratch.
#define MPIDVC_PLACES_ROOM(count, nearest) (10 * (count) + 8 * (nearest) + 16)

struct mpidvc_places_kernels {
    const char *name;
    void (*places)(const mpidvc_places *);
};

extern "C" {
const mpidvc_places_kernels *mpidvc_places_kernels_baseline(void);
#ifdef MPIDVC_X86_DISPATCH
const mpidvc_places_kernels *mpidvc_places_kernels_avx2(void);
const mpidvc_places_kernels *mpidvc_places_kernels_avx512(void);
#endif
}
