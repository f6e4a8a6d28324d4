/* y = x W^T + b in bf16 for one or two rows of x, where the processor multiplies pairs of bf16: a
   decoding step of few requests, which is as fast as W can be read.

   Compiled at first use by native.py. W [outputs, inputs] is read once, as it lies.  */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define LANES 32 /* bf16 in a vector */

typedef uint16_t bf16;

static inline bf16 rounded(float real) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &real, 4);
    return (bf16)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static inline float widened(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float real;
    memcpy(&real, &bits, 4);
    return real;
}

static inline __m512bh load(const bf16 *at) { return (__m512bh)_mm512_loadu_si512(at); }

/* x [rows, inputs], w [outputs, inputs], bias [outputs] or none, y [rows, outputs], each without
   gaps; rows 1 or 2, inputs a multiple of LANES.  */
void linear(const bf16 *x, const bf16 *w, const bf16 *bias, bf16 *y, int rows, int inputs,
            int outputs, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int o = 0; o < outputs; o++) {
        const bf16 *weights = w + (int64_t)o * inputs, *second = x + (int64_t)(rows - 1) * inputs;
        __m512 first_sum = _mm512_setzero_ps(), second_sum = _mm512_setzero_ps();
        for (int i = 0; i < inputs; i += LANES) {
            first_sum = _mm512_dpbf16_ps(first_sum, load(x + i), load(weights + i));
            second_sum = _mm512_dpbf16_ps(second_sum, load(second + i), load(weights + i));
        }
        float added = bias ? widened(bias[o]) : 0;
        y[o] = rounded(_mm512_reduce_add_ps(first_sum) + added);
        if (rows > 1) y[outputs + o] = rounded(_mm512_reduce_add_ps(second_sum) + added);
    }
}
