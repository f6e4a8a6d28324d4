/* Attention of new tokens to keys and values in pages: a step of one layer, on a CPU.

   Compiled at first use by native.py with T = float or bf16. A page holds PAGE tokens of a group:
   keys as [channel][token], so that the scores of its tokens lie side by side; values as
   [token][channel]. A query meets its pages in order, one at a time, with a running maximum: what
   it gets does not depend on which other tokens are in the step, by not one bit.  */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define PAGE 16
#define TILE 16      /* queries that share a load of a page, at most */
#define MOST 512     /* channels of a head */

typedef float vec __attribute__((vector_size(64), aligned(64)));
typedef int32_t ivec __attribute__((vector_size(64), aligned(64)));
typedef uint16_t hvec __attribute__((vector_size(32), aligned(2)));
typedef float uvec __attribute__((vector_size(64), aligned(4)));

#ifdef BF16
typedef uint16_t T;
static inline vec load(const T *at) {
    return (vec)(__builtin_convertvector(*(const hvec *)at, ivec) << 16);
}
static inline float load1(T value) {
    uint32_t bits = (uint32_t)value << 16;
    float real;
    memcpy(&real, &bits, 4);
    return real;
}
static inline T rounded(float real) { /* to nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &real, 4);
    return (T)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
#else
typedef float T;
static inline vec load(const T *at) { return *(const uvec *)at; }
static inline float load1(T value) { return value; }
static inline T rounded(float real) { return real; }
#endif

static inline vec all(float value) { return value - (vec){0}; }

static inline float sum(vec x) {
    float s[PAGE];
    memcpy(s, &x, sizeof s);
    for (int half = PAGE / 2; half; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

static inline float largest(vec x) {
    float s[PAGE];
    memcpy(s, &x, sizeof s);
    for (int half = PAGE / 2; half; half /= 2)
        for (int i = 0; i < half; i++) s[i] = s[i] > s[i + half] ? s[i] : s[i + half];
    return s[0];
}

/* e^x of x <= 0: 2^n by the exponent's bits, the rest by its series; 0 below -87 */
static inline vec exponential(vec x) {
    ivec tiny = x < -87.0f;
    x = (vec)(((ivec)x & ~tiny));
    ivec n = __builtin_convertvector(x * 1.44269504f - 0.5f, ivec);
    vec whole = __builtin_convertvector(n, vec);
    vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec y = all(1.0f / 5040);
    y = y * r + 1.0f / 720;
    y = y * r + 1.0f / 120;
    y = y * r + 1.0f / 24;
    y = y * r + 1.0f / 6;
    y = y * r + 0.5f;
    y = y * r + 1.0f;
    y = y * r + 1.0f;
    y *= (vec)((n + 127) << 23);
    return (vec)((ivec)y & ~tiny);
}

/* A tile of queries against the pages of their row. position[i]: the last key that i sees. */
static void tile(int queries, int channels, const float *q, const int32_t *position, int last,
                 const T *k_pages, const T *v_pages, const int32_t *pages, int64_t page_stride,
                 float *out) {
    vec keys[MOST], values[MOST];
    float most[TILE], total[TILE];
    int lanes = channels / PAGE;
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int i = 0; i < queries; i++) most[i] = -INFINITY, total[i] = 0;
    memset(out, 0, sizeof(float) * queries * channels);
    for (int first = 0; first <= last; first += PAGE) {
        const T *k = k_pages + pages[first / PAGE] * page_stride;
        const T *v = v_pages + pages[first / PAGE] * page_stride;
        for (int c = 0; c < channels; c++) keys[c] = load(k + c * PAGE);
        for (int c = 0; c < channels; c++) values[c] = load(v + c * PAGE);
        for (int base = 0; base < queries; base += 4) {
            vec score[4] = {{0}};
            for (int c = 0; c < channels; c++)
                for (int i = 0; i < 4; i++) score[i] += keys[c] * q[(base + i) * channels + c];
            int here = queries - base < 4 ? queries - base : 4;
            for (int i = 0; i < here; i++) {
                int one = base + i, seen = position[one] - first;
                if (seen < 0) continue; /* all of the page lies behind it */
                ivec hidden = lane > seen;
                vec s = (vec)(((ivec)score[i] & ~hidden) | ((ivec)all(-INFINITY) & hidden));
                float top = largest(s);
                if (most[one] > top) top = most[one];
                vec p = exponential(s - top);
                float kept = exponential(all(most[one] - top))[0];
                total[one] = total[one] * kept + sum(p);
                most[one] = top;
                vec *to = (vec *)(out + one * channels);
                for (int c = 0; c < lanes; c++) {
                    vec said = to[c] * kept;
                    for (int j = 0; j < PAGE; j++) said += values[j * lanes + c] * p[j];
                    to[c] = said;
                }
            }
        }
    }
    for (int i = 0; i < queries; i++)
        for (int c = 0; c < channels; c++) out[i * channels + c] /= total[i];
}

/* x of a head, its first `turned` channels rotated by their position's angles: halves, not pairs. */
static inline void rotated(const T *x, const float *cosine, const float *sine, int turned,
                           int channels, float scale, float *to) {
    int half = turned / 2;
    for (int c = 0; c < half; c++) {
        float a = load1(x[c]), b = load1(x[c + half]);
        to[c] = (a * cosine[c] - b * sine[c]) * scale;
        to[c + half] = (b * cosine[c + half] + a * sine[c + half]) * scale;
    }
    for (int c = turned; c < channels; c++) to[c] = load1(x[c]) * scale;
}

/* Rotates q and k, stores k and v of the new tokens, and attends with q into out [tokens, heads,
   channels]. q [tokens, heads, channels], k and v [tokens, groups, channels]: of each the strides of
   tokens and heads, in elements; channels lie together. cosine, sine [tokens, turned].
   row, position [tokens]; table [rows, width] of page numbers; a page is [groups, channels * PAGE].
   Tokens of a row stand side by side, in order.  */
void attend(const T *q, const T *k, const T *v, const int64_t *strides, const float *cosine,
            const float *sine, int turned, T *k_pages, T *v_pages, const int32_t *table, int width,
            const int32_t *row, const int32_t *position, int tokens, int heads, int groups,
            int channels, T *out, int threads) {
    int64_t size = (int64_t)channels * PAGE, page_stride = groups * size;
    int shared = heads / groups, most = TILE / shared > 0 ? TILE / shared : 1;
    float scale = 1.0f / sqrtf((float)channels);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for collapse(2)
        for (int n = 0; n < tokens; n++)
            for (int g = 0; g < groups; g++) {
                int at = position[n] % PAGE;
                int64_t page = table[(int64_t)row[n] * width + position[n] / PAGE];
                T *to_k = k_pages + page * page_stride + g * size + at;
                T *to_v = v_pages + page * page_stride + g * size + (int64_t)at * channels;
                float key[MOST];
                rotated(k + n * strides[2] + g * strides[3], cosine + (int64_t)n * turned,
                        sine + (int64_t)n * turned, turned, channels, 1.0f, key);
                for (int c = 0; c < channels; c++) to_k[c * PAGE] = rounded(key[c]);
                memcpy(to_v, v + n * strides[4] + g * strides[5], channels * sizeof(T));
            }
#pragma omp for collapse(2) schedule(dynamic)
        for (int g = 0; g < groups; g++)
            for (int start = 0; start < tokens; start += most) {
                float queries[TILE * MOST] __attribute__((aligned(64)));
                float said[TILE * MOST] __attribute__((aligned(64)));
                int32_t seen[TILE];
                for (int n = start, end; n < tokens && n < start + most; n = end) {
                    for (end = n; end < tokens && end < start + most && row[end] == row[n]; end++)
                        for (int h = 0; h < shared; h++) {
                            int i = (end - n) * shared + h;
                            seen[i] = position[end];
                            rotated(q + end * strides[0] + (g * shared + h) * strides[1],
                                    cosine + (int64_t)end * turned, sine + (int64_t)end * turned,
                                    turned, channels, scale, queries + i * channels);
                        }
                    int count = (end - n) * shared;
                    memset(queries + count * channels, 0, sizeof(float) * (-count & 3) * channels);
                    tile(count, channels, queries, seen, position[end - 1], k_pages + g * size,
                         v_pages + g * size, table + (int64_t)row[n] * width, page_stride, said);
                    for (int i = 0; i < count; i++) {
                        int64_t head = (int64_t)(n + i / shared) * heads + g * shared + i % shared;
                        T *to = out + head * channels;
                        for (int c = 0; c < channels; c++) to[c] = rounded(said[i * channels + c]);
                    }
                }
            }
    }
}
