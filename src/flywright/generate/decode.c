/* A step of one or two tokens in bf16, where the processor multiplies pairs of bf16: products that
   read W once, as it lies, and all layers of a Nemotron body in one call.

   Compiled at first use by native.py. Numbers are rounded to bf16 where torch's operations, the
   slow twin, hand them on.  */

#define BF16
#include "attention.c"

#include <immintrin.h>
#include <stdlib.h>

#define LANES 32 /* bf16 in a vector */
#define SIDE 4   /* rows of W that are read side by side */

static inline __m512bh pairs(const T *at) { return (__m512bh)_mm512_loadu_si512(at); }

/* y [rows][SIDE] of `side` rows of W; rows and side are constants where it is called. */
static inline __attribute__((always_inline)) void dot(int rows, int side, int inputs, const T *x,
                                                      const T *w, float *y) {
    __m512 sums[2][SIDE];
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < side; o++) sums[r][o] = _mm512_setzero_ps();
    for (int i = 0; i < inputs; i += LANES)
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < side; o++)
                sums[r][o] = _mm512_dpbf16_ps(sums[r][o], pairs(x + (int64_t)r * inputs + i),
                                              pairs(w + (int64_t)o * inputs + i));
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < side; o++) y[r * SIDE + o] = _mm512_reduce_add_ps(sums[r][o]);
}

/* What becomes of an output on its way into y: it is put there, added, or squared above zero. */
enum After { PUT, ADDED, SQUARED };

/* y [rows, outputs] = x W^T + b, x [rows, inputs], bias or none, by all threads that come here;
   rows 1 or 2. */
static void product(const T *x, const T *w, const T *bias, T *y, int rows, int inputs, int outputs,
                    enum After after) {
#pragma omp for schedule(static)
    for (int first = 0; first < outputs; first += SIDE) {
        const T *here = w + (int64_t)first * inputs;
        int side = outputs - first < SIDE ? outputs - first : SIDE;
        float sums[2 * SIDE];
        if (side < SIDE)
            for (int o = 0; o < side; o++)
                if (rows == 1)
                    dot(1, 1, inputs, x, here + (int64_t)o * inputs, sums + o);
                else
                    dot(2, 1, inputs, x, here + (int64_t)o * inputs, sums + o);
        else if (rows == 1)
            dot(1, SIDE, inputs, x, here, sums);
        else
            dot(2, SIDE, inputs, x, here, sums);
        for (int r = 0; r < rows; r++)
            for (int o = 0; o < side; o++) {
                T *to = y + (int64_t)r * outputs + first + o;
                float sum = load1(rounded(sums[r * SIDE + o] + (bias ? load1(bias[first + o]) : 0)));
                if (after == ADDED) sum += load1(*to);
                if (after == SQUARED) sum = sum > 0 ? sum * sum : 0;
                *to = rounded(sum);
            }
    }
}

/* y = x W^T + b, each without gaps; rows 1 or 2, inputs a multiple of LANES.  */
void linear(const T *x, const T *w, const T *bias, T *y, int rows, int inputs, int outputs,
            int threads) {
#pragma omp parallel num_threads(threads)
    product(x, w, bias, y, rows, inputs, outputs, PUT);
}

/* Layer norm of x [rows, size] into y; size a multiple of LANES. */
static void normed(const T *x, const T *weight, const T *bias, float eps, int rows, int size, T *y) {
    for (int r = 0; r < rows; r++, x += size, y += size) {
        vec total = all(0), square = all(0);
        for (int i = 0; i < size; i += PAGE) total += load(x + i);
        float mean = sum(total) / size;
        for (int i = 0; i < size; i += PAGE) square += (load(x + i) - mean) * (load(x + i) - mean);
        float by = 1.0f / sqrtf(sum(square) / size + eps);
        for (int i = 0; i < size; i += PAGE) {
            vec z = (load(x + i) - mean) * by * load(weight + i) + load(bias + i);
            for (int lane = 0; lane < PAGE; lane++) y[i + lane] = rounded(z[lane]);
        }
    }
}

/* One layer's weights: qkv [(heads + 2 groups) channels, size], o [size, heads channels],
   up [inner, size], down [size, inner]; and its pages. */
typedef struct {
    const T *norm, *norm_bias, *qkv, *o, *mlp_norm, *mlp_norm_bias, *up, *down;
    T *k_pages, *v_pages;
} Weights;

/* The stream x [rows, size] through the layers, in place; rows 1 or 2, all sizes multiples of LANES.
   `step` is the step as `attend` takes it, but for what changes from layer to layer. Returns 0, or
   1 where there is no memory. */
int decode(T *x, const Weights *layers, int count, int rows, int size, int inner, float eps,
           const Layer *step, int threads) {
    int channels = step->channels, own = step->heads * channels, most = at_once(step);
    int wide = own + 2 * step->groups * channels;
    T *qkv = malloc(sizeof(T) * rows * (wide + own + inner));
    if (!qkv) return 1;
    T *said = qkv + rows * wide, *up = said + rows * own;
    const int64_t strides[] = {wide, channels, wide, channels, wide, channels};
#pragma omp parallel num_threads(threads)
    {
        T in[2 * size]; /* each thread norms for itself: cheaper than to wait for another */
        for (const Weights *w = layers; w < layers + count; w++) {
            Layer at = *step;
            at.q = qkv, at.k = qkv + own, at.v = at.k + step->groups * channels;
            at.strides = strides, at.k_pages = w->k_pages, at.v_pages = w->v_pages, at.out = said;
            normed(x, w->norm, w->norm_bias, eps, rows, size, in);
            product(in, w->qkv, 0, qkv, rows, size, wide, PUT);
#pragma omp for schedule(static)
            for (int g = 0; g < step->groups; g++) {
                for (int n = 0; n < rows; n++) store(&at, n, g);
                for (int n = 0; n < rows; n += most)
                    answer(&at, g, n, n + most < rows ? n + most : rows);
            }
            product(said, w->o, 0, x, rows, own, size, ADDED);
            normed(x, w->mlp_norm, w->mlp_norm_bias, eps, rows, size, in);
            product(in, w->up, 0, up, rows, size, inner, SQUARED);
            product(up, w->down, 0, x, rows, inner, size, ADDED);
        }
    }
    free(qkv);
    return 0;
}
