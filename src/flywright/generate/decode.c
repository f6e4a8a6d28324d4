/* A step in bf16, where the processor multiplies pairs of bf16: products of packed weights, and a
   whole Nemotron in one call.

   Compiled at first use by native.py. Numbers are rounded to bf16 where torch's operations, the
   slow twin, hand them on. W [outputs, inputs] is packed as [outputs / PANEL][inputs / 2][PANEL][2],
   with zeros behind its last output, and in int8 with 4 in the place of 2: a panel is read once, from
   one end to the other, for each ROWS rows of x. Each number is one sum in one order: it does not
   depend on what other rows there are. */

#define BF16
#include "attention.c"

#define PANEL 32
#define ROWS 12 /* whose sums stay in registers */

/* What becomes of an output on its way into y: it is put there, added, squared above zero; or put
   into y as a float, not rounded. */
enum After { PUT, ADDED, SQUARED, WIDE };

/* A packed matrix in bf16; or, with a scale of each output, in int8: then `start` is -128 times the
   sum of each output's weights, for x is read as x + 128. */
typedef struct {
    const void *w;
    const float *scale;
    const int32_t *start;
} Matrix;

/* y [rows, outputs] = x W^T + b, x [rows, inputs], bias or none. `eight`: x in 8 bits, each row times
   its `by`. */
typedef struct {
    const T *x, *bias;
    void *y;
    Matrix m;
    int rows, inputs, outputs;
    enum After after;
    const uint8_t *eight;
    const float *by;
} Product;

static inline vec real(__m256i bf16) {
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16);
}

static inline __m256i half(vec real) { return (__m256i)_mm512_cvtneps_pbh((__m512)real); }

/* A row's outputs from `first` on, PAGE of them or as many as there are. */
static inline void finish(const Product *p, int row, int first, vec sum) {
    int left = p->outputs - first;
    int64_t at = (int64_t)row * p->outputs + first;
    if (left <= 0) return;
    __mmask16 here = left < PAGE ? (1 << left) - 1 : 0xFFFF;
    if (p->bias) sum += real(_mm256_maskz_loadu_epi16(here, p->bias + first));
    if (p->after == WIDE) {
        _mm512_mask_storeu_ps((float *)p->y + at, here, (__m512)sum);
        return;
    }
    T *y = (T *)p->y + at;
    __m256i said = half(sum);
    if (p->after == ADDED) said = half(real(said) + real(_mm256_maskz_loadu_epi16(here, y)));
    if (p->after == SQUARED) {
        vec above = (vec)_mm512_max_ps((__m512)real(said), _mm512_setzero_ps());
        said = half(above * above);
    }
    _mm256_mask_storeu_epi16(y, here, said);
}

/* A panel's outputs for `rows` rows of x, a constant where it is called. */
static inline __attribute__((always_inline)) void tile(int rows, const Product *p, int row,
                                                       int first) {
    vec low[ROWS], high[ROWS];
    const T *x = p->x + (int64_t)row * p->inputs;
    const T *w = (const T *)p->m.w + (int64_t)first * p->inputs;
    for (int r = 0; r < rows; r++) low[r] = high[r] = all(0);
    for (int i = 0; i < p->inputs; i += PAIR, w += PAIR * PANEL) {
        pack left = packed(w), right = packed(w + PANEL);
        for (int r = 0; r < rows; r++) {
            two each = couple(x + (int64_t)r * p->inputs + i);
            low[r] = meet(low[r], left, each);
            high[r] = meet(high[r], right, each);
        }
    }
    for (int r = 0; r < rows; r++) {
        finish(p, row + r, first, low[r]);
        finish(p, row + r, first + PAGE, high[r]);
    }
}

/* The same of a matrix in int8; the sums are exact. */
static inline __attribute__((always_inline)) void tile8(int rows, const Product *p, int row,
                                                        int first) {
    __m512i low[ROWS], high[ROWS];
    const uint8_t *x = p->eight + (int64_t)row * p->inputs;
    const int8_t *w = (const int8_t *)p->m.w + (int64_t)first * p->inputs;
    for (int r = 0; r < rows; r++) {
        low[r] = _mm512_loadu_si512(p->m.start + first);
        high[r] = _mm512_loadu_si512(p->m.start + first + PAGE);
    }
    for (int i = 0; i < p->inputs; i += 4, w += 4 * PANEL) {
        __m512i left = _mm512_loadu_si512(w), right = _mm512_loadu_si512(w + 4 * PAGE);
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + (int64_t)r * p->inputs + i, sizeof four);
            __m512i each = _mm512_set1_epi32(four);
            low[r] = _mm512_dpbusd_epi32(low[r], each, left);
            high[r] = _mm512_dpbusd_epi32(high[r], each, right);
        }
    }
    vec left = (vec)_mm512_loadu_ps(p->m.scale + first);
    vec right = (vec)_mm512_loadu_ps(p->m.scale + first + PAGE);
    for (int r = 0; r < rows; r++) {
        float by = p->by[row + r];
        finish(p, row + r, first, (vec)_mm512_cvtepi32_ps(low[r]) * (left * by));
        finish(p, row + r, first + PAGE, (vec)_mm512_cvtepi32_ps(high[r]) * (right * by));
    }
}

/* Rows of x [rows, size] to 8 bits, by all threads; size a multiple of PAGE. */
static void rounded8(const T *x, int rows, int size, uint8_t *to, float *by) {
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        const T *from = x + (int64_t)r * size;
        vec most = all(1e-12f * 127);
        for (int i = 0; i < size; i += PAGE)
            most = (vec)_mm512_max_ps((__m512)most, _mm512_abs_ps((__m512)load(from + i)));
        by[r] = largest(most) / 127;
        for (int i = 0; i < size; i += PAGE) {
            __m512i whole = _mm512_cvtps_epi32((__m512)(load(from + i) / by[r]));
            whole = _mm512_add_epi32(whole, _mm512_set1_epi32(128));
            _mm_storeu_si128((__m128i *)(to + (int64_t)r * size + i), _mm512_cvtepi32_epi8(whole));
        }
    }
}

/* By all threads that come here. `room`, for a matrix in int8: for rows * (inputs + 4) bytes. */
static void product(const T *x, Matrix m, const T *bias, void *y, int rows, int inputs,
                    int outputs, enum After after, void *room) {
    float *by = room;
    uint8_t *eight = (uint8_t *)(by + rows);
    Product p = {x, bias, y, m, rows, inputs, outputs, after, eight, by};
    int parts = (rows + ROWS - 1) / ROWS;
    if (m.scale) rounded8(x, rows, inputs, eight, by);
#pragma omp for schedule(static)
    for (int first = 0; first < outputs; first += PANEL)
        for (int part = 0; part < parts; part++) {
            int from = (int64_t)rows * part / parts, end = (int64_t)rows * (part + 1) / parts;
#define OF(n) case n: tile(n, &p, from, first); break;
#define OF8(n) case n: tile8(n, &p, from, first); break;
            if (m.scale)
                switch (end - from) {
                    OF8(1) OF8(2) OF8(3) OF8(4) OF8(5) OF8(6)
                    OF8(7) OF8(8) OF8(9) OF8(10) OF8(11) OF8(12)
                }
            else
                switch (end - from) {
                    OF(1) OF(2) OF(3) OF(4) OF(5) OF(6)
                    OF(7) OF(8) OF(9) OF(10) OF(11) OF(12)
                }
        }
}

/* y = x W^T + b, each without gaps; y in bf16, or in floats; room as `product` has it. */
void linear(const T *x, const Matrix *m, const T *bias, void *y, int rows, int inputs, int outputs,
            int wide, void *room, int threads) {
#pragma omp parallel num_threads(threads)
    product(x, *m, bias, y, rows, inputs, outputs, wide ? WIDE : PUT, room);
}

/* Layer norm of rows of x [.., size] into y [rows, size], by all threads that come here: of its
   first rows, or of those that `which` names. size is a multiple of PAGE. */
static void normed(const T *x, const int32_t *which, const T *weight, const T *bias, float eps,
                   int rows, int size, T *y) {
#pragma omp for schedule(static)
    for (int r = 0; r < rows; r++) {
        const T *from = x + (int64_t)(which ? which[r] : r) * size;
        T *to = y + (int64_t)r * size;
        vec total = all(0), square = all(0);
        for (int i = 0; i < size; i += PAGE) total += load(from + i);
        float mean = sum(total) / size;
        for (int i = 0; i < size; i += PAGE) {
            vec off = load(from + i) - mean;
            square += off * off;
        }
        float by = 1.0f / sqrtf(sum(square) / size + eps);
        for (int i = 0; i < size; i += PAGE) {
            vec z = (load(from + i) - mean) * by * load(weight + i) + load(bias + i);
            _mm256_storeu_si256((__m256i *)(to + i), half(z));
        }
    }
}

/* One layer's weights, the matrices packed: qkv [(heads + 2 groups) channels, size], o [size, heads
   channels], up [inner, size], down [size, inner]; and its pages. */
typedef struct {
    const T *norm, *norm_bias, *mlp_norm, *mlp_norm_bias;
    Matrix qkv, o, up, down;
    T *k_pages, *v_pages;
} Weights;

/* A model: embedding [ids, size]; cosine, sine [places, turned]; the final norm; the head, packed,
   or none. size and inner are multiples of PAGE. */
typedef struct {
    const T *embedding;
    const float *cosine, *sine;
    const Weights *layers;
    const T *norm, *norm_bias;
    Matrix head;
    const T *head_bias;
    int count, size, inner, outputs;
    float eps;
} Model;

/* The tokens of a step through a model: y [places, size] the hidden states of `wanted` places of
   it, and with a head its outputs of them, [places, outputs]. `step` is the step as `attend` takes
   it, but for what changes from layer to layer; its cosine, sine [rows, turned] are written. `room`
   is for rows * (2 size + (2 heads + 2 groups) channels + inner) numbers, and what the widest product
   takes. */
void decode(const Model *model, const int32_t *ids, int rows, const int32_t *wanted, int places,
            const Layer *step, T *room, T *y, float *outputs, int threads) {
    const Model m = *model;
    int channels = step->channels, own = step->heads * channels, size = m.size;
    int wide = own + 2 * step->groups * channels, turned = step->turned;
    T *x = room, *in = x + (int64_t)rows * size, *qkv = in + (int64_t)rows * size;
    T *said = qkv + (int64_t)rows * wide, *up = said + (int64_t)rows * own;
    T *left = up + (int64_t)rows * m.inner;
    const int64_t strides[] = {wide, channels, wide, channels, wide, channels};
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (int r = 0; r < rows; r++) {
            int64_t place = (int64_t)step->position[r] * turned, here = (int64_t)r * turned;
            memcpy(x + (int64_t)r * size, m.embedding + (int64_t)ids[r] * size, size * sizeof(T));
            memcpy((float *)step->cosine + here, m.cosine + place, turned * sizeof(float));
            memcpy((float *)step->sine + here, m.sine + place, turned * sizeof(float));
        }
        for (const Weights *w = m.layers; w < m.layers + m.count; w++) {
            Layer at = *step;
            at.q = qkv, at.k = qkv + own, at.v = at.k + step->groups * channels;
            at.strides = strides, at.k_pages = w->k_pages, at.v_pages = w->v_pages, at.out = said;
            normed(x, 0, w->norm, w->norm_bias, m.eps, rows, size, in);
            product(in, w->qkv, 0, qkv, rows, size, wide, PUT, left);
            layer(&at, rows);
            product(said, w->o, 0, x, rows, own, size, ADDED, left);
            normed(x, 0, w->mlp_norm, w->mlp_norm_bias, m.eps, rows, size, in);
            product(in, w->up, 0, up, rows, size, m.inner, SQUARED, left);
            product(up, w->down, 0, x, rows, m.inner, size, ADDED, left);
        }
        normed(x, wanted, m.norm, m.norm_bias, m.eps, places, size, y);
        if (m.head.w)
            product(y, m.head, m.head_bias, outputs, places, size, m.outputs, WIDE, left);
    }
}
