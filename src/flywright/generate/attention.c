/* Attention of new tokens to keys and values in pages: a step of one layer, on a CPU.

   Compiled at first use by native.py with T = float or bf16. A page holds PAGE tokens of a group:
   keys as [channel / PAIR][token][PAIR], so that the scores of its tokens lie side by side; values
   as [token / PAIR][channel][PAIR]. A query meets its keys in order, CHUNK at a time, with a running
   maximum: what it gets does not depend on which other tokens are in the step, by not one bit.  */

#include <math.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define PAGE 16
#define TILE 16      /* queries that share a load of a page, at most */
#define MOST 512     /* channels of a head */
#define CHUNK 256    /* keys whose scores are held at once */

typedef float vec __attribute__((vector_size(64), aligned(64)));
typedef int32_t ivec __attribute__((vector_size(64), aligned(64)));
typedef uint16_t hvec __attribute__((vector_size(32), aligned(2)));

#ifdef BF16
typedef uint16_t T;
#define PAIR 2 /* numbers that are multiplied and added at once */
typedef ivec pack;
typedef int32_t two;
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
static inline void put(vec real, T *to) { /* PAGE of them, rounded */
    ivec bits = (ivec)real;
    *(hvec *)to = __builtin_convertvector((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16, hvec);
}
static inline vec meet(vec sum, pack many, two few) { /* sum + many . few, of each lane */
#ifdef __AVX512BF16__
    return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(few), (__m512bh)many);
#else
    two high = few & ~0xFFFF, low = few << 16;
    float first, second;
    memcpy(&first, &low, 4);
    memcpy(&second, &high, 4);
    return sum + (vec)(many << 16) * first + (vec)(many & ~0xFFFF) * second;
#endif
}
static inline pack firsts(pack many) { return many & 0xFFFF; }
#else
typedef float T;
#define PAIR 1
typedef vec pack;
typedef float two;
static inline float load1(T value) { return value; }
static inline T rounded(float real) { return real; }
static inline void put(vec real, T *to) { memcpy(to, &real, sizeof real); }
static inline vec meet(vec sum, pack many, two few) { return sum + many * few; }
static inline pack firsts(pack many) { return many; }
#endif

static inline pack packed(const T *at) { /* PAGE * PAIR numbers */
    pack many;
    memcpy(&many, at, sizeof many);
    return many;
}
static inline two couple(const T *at) {
    two few;
    memcpy(&few, at, sizeof few);
    return few;
}

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

/* Scores of n queries and the keys of u pages: to [n][CHUNK]. n and u are constants where it is
   called, so that the sums stay in registers. */
static inline __attribute__((always_inline)) void scores(
    int n, int u, int channels, const T *q, const T *const *k, const T *const *v, float *to) {
    vec sums[4][2];
    for (int i = 0; i < n; i++)
        for (int page = 0; page < u; page++) sums[i][page] = all(0);
    for (int c = 0; c < channels; c += PAIR) {
        pack keys[2];
        for (int page = 0; page < u; page++) {
            keys[page] = packed(k[page] + c * PAGE);
            __builtin_prefetch(k[page + 2] + c * PAGE);
            __builtin_prefetch(v[page] + c * PAGE, 0, 2);
        }
        for (int i = 0; i < n; i++)
            for (int page = 0; page < u; page++)
                sums[i][page] = meet(sums[i][page], keys[page], couple(q + i * channels + c));
    }
    for (int i = 0; i < n; i++)
        for (int page = 0; page < u; page++) *(vec *)(to + i * CHUNK + page * PAGE) = sums[i][page];
}

/* Weighted sums of n queries over pages' values, added to out [n][channels]: l lanes of it. The pages
   of `soon` are fetched meanwhile. */
static inline __attribute__((always_inline)) void weighted(
    int n, int l, int channels, int keys, const T *weights, const T *const *v,
    const T *const *soon, int from, float *out) {
    vec sums[4][4];
    for (int i = 0; i < n; i++)
        for (int c = 0; c < l; c++) sums[i][c] = *(vec *)(out + i * channels + from + c * PAGE);
    for (int key = 0; key < keys; key += PAIR) {
        const T *value = v[key / PAGE] + key % PAGE * channels + from * PAIR;
        pack values[4];
        for (int c = 0; c < l; c++) {
            values[c] = packed(value + c * PAGE * PAIR);
            __builtin_prefetch(soon[key / PAGE] + (value - v[key / PAGE]) + c * PAGE * PAIR, 0, 2);
        }
        if (key + PAIR > keys) /* what lies behind the last key is anybody's */
            for (int c = 0; c < l; c++) values[c] = firsts(values[c]);
        for (int i = 0; i < n; i++)
            for (int c = 0; c < l; c++)
                sums[i][c] = meet(sums[i][c], values[c], couple(weights + i * CHUNK + key));
    }
    for (int i = 0; i < n; i++)
        for (int c = 0; c < l; c++) *(vec *)(out + i * channels + from + c * PAGE) = sums[i][c];
}

#define EACH(n, of) case n: of(n); break;
#define WITH_QUERIES(n, of) switch (n) { EACH(1, of) EACH(2, of) EACH(3, of) EACH(4, of) }

/* Weights of a query's keys first .. first + keys - 1 from their scores; the sums until here are
   brought down to the new maximum. seen: how many of the keys it sees, at least one. */
static void soften(float *score, int keys, int seen, int channels, float *most, float *total,
                   float *out, T *weights) {
    ivec lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    vec top = all(-INFINITY), sums = all(0);
    for (int at = 0; at < keys; at += PAGE) {
        vec s = *(vec *)(score + at);
        ivec hidden = lane + at >= seen;
        s = (vec)(((ivec)s & ~hidden) | ((ivec)all(-INFINITY) & hidden));
        ivec larger = s > top;
        top = (vec)(((ivec)s & larger) | ((ivec)top & ~larger));
        *(vec *)(score + at) = s;
    }
    float peak = largest(top);
    if (*most > peak) peak = *most;
    for (int at = 0; at < keys; at += PAGE) {
        vec p = exponential(*(vec *)(score + at) - peak);
        sums += p;
        put(p, weights + at);
    }
    float kept = exponential(all(*most - peak))[0];
    *total = *total * kept + sum(sums);
    *most = peak;
    if (kept != 1.0f)
        for (int c = 0; c < channels; c++) out[c] *= kept;
}

/* The keys and values of a group that a row's queries meet: pages [last / PAGE + 1] of each, `stride`
   apart. */
typedef struct {
    const T *keys, *values;
    const int32_t *pages;
    int64_t stride;
    int last;
} Met;

/* `count` of the pages at `of` from token `first` on, or the last one where there are no more. */
static inline void listed(const Met *met, const T *of, int first, int count, const T **to) {
    int end = met->last / PAGE;
    for (int page = 0; page < count; page++) {
        int at = first / PAGE + page;
        to[page] = of + met->pages[at < end ? at : end] * met->stride;
    }
}

/* A tile of queries against the keys of their row. position[i]: the last key that i sees; `next` is
   what this thread may meet next. */
static void meeting(int queries, int channels, const T *q, const int32_t *position,
                    const Met *met, const Met *next, float *out) {
    float score[TILE * CHUNK] __attribute__((aligned(64)));
    T weights[TILE * CHUNK] __attribute__((aligned(64)));
    float most[TILE], total[TILE];
    const T *k[CHUNK / PAGE + 2], *v[CHUNK / PAGE], *soon[CHUNK / PAGE];
    int last = met->last;
    for (int i = 0; i < queries; i++) most[i] = -INFINITY, total[i] = 0;
    memset(out, 0, sizeof(float) * queries * channels);
    for (int first = 0; first <= last; first += CHUNK) {
        int keys = last + 1 - first < CHUNK ? last + 1 - first : CHUNK;
        int full = (keys + PAGE - 1) / PAGE;
        listed(met, met->keys, first, full + 2, k);
        listed(met, met->values, first, full, v);
        if (first + CHUNK <= last)
            listed(met, met->keys, first + CHUNK, full, soon);
        else
            listed(next, next->keys, 0, full, soon);
        for (int base = 0; base < queries; base += 4) {
            int n = queries - base < 4 ? queries - base : 4, page = 0;
            const T *of = q + base * channels;
            float *to = score + base * CHUNK;
#define TWO_PAGES(n) scores(n, 2, channels, of, k + page, v + page, to + page * PAGE)
#define ONE_PAGE(n) scores(n, 1, channels, of, k + page, v + page, to + page * PAGE)
            for (; page + 2 <= full; page += 2) WITH_QUERIES(n, TWO_PAGES)
            if (page < full) WITH_QUERIES(n, ONE_PAGE)
        }
        for (int i = 0; i < queries; i++) {
            int seen = position[i] + 1 - first;
            if (seen > 0)
                soften(score + i * CHUNK, full * PAGE, seen, channels, most + i, total + i,
                       out + i * channels, weights + i * CHUNK);
            else /* all of the chunk lies behind it */
                memset(weights + i * CHUNK, 0, sizeof(T) * CHUNK);
        }
        for (int base = 0; base < queries; base += 4) {
            int n = queries - base < 4 ? queries - base : 4;
            const T *by = weights + base * CHUNK;
            float *to = out + base * channels;
            for (int c = 0; c < channels;) {
#define FOUR(n) weighted(n, 4, channels, keys, by, v, soon, c, to)
#define LANE(n) weighted(n, 1, channels, keys, by, v, soon, c, to)
                if (channels - c >= 4 * PAGE) {
                    WITH_QUERIES(n, FOUR)
                    c += 4 * PAGE;
                } else {
                    WITH_QUERIES(n, LANE)
                    c += PAGE;
                }
            }
        }
    }
    for (int i = 0; i < queries; i++)
        for (int c = 0; c < channels; c++) out[i * channels + c] /= total[i];
}

/* x of a head, its first `turned` channels rotated by their position's angles: halves, not pairs. */
static inline void rotated(const T *x, const float *cosine, const float *sine, int turned,
                           int channels, float scale, T *to) {
    int half = turned / 2;
    for (int c = 0; c < half; c++) {
        float a = load1(x[c]), b = load1(x[c + half]);
        to[c] = rounded((a * cosine[c] - b * sine[c]) * scale);
        to[c + half] = rounded((b * cosine[c + half] + a * sine[c + half]) * scale);
    }
    for (int c = turned; c < channels; c++) to[c] = rounded(load1(x[c]) * scale);
}

/* The new tokens of a step in one layer. q [tokens, heads, channels], k and v [tokens, groups,
   channels]: of each the strides of tokens and heads, in elements; channels lie together. cosine,
   sine [tokens, turned]. row, position [tokens]; table [rows, width] of page numbers; a page is
   [groups, channels * PAGE]; out [tokens, heads, channels]. Tokens of a row stand side by side, in
   order.  */
typedef struct {
    const T *q, *k, *v;
    const int64_t *strides;
    const float *cosine, *sine;
    T *k_pages, *v_pages;
    const int32_t *table, *row, *position;
    int turned, width, heads, groups, channels;
    T *out;
} Layer;

/* Rotates token n's key of group g, and puts it and the value into the token's page. */
static void store(const Layer *at, int n, int g) {
    int channels = at->channels, place = at->position[n] % PAGE;
    int64_t size = (int64_t)channels * PAGE, turn = (int64_t)n * at->turned;
    int64_t page = at->table[(int64_t)at->row[n] * at->width + at->position[n] / PAGE];
    int64_t start = (page * at->groups + g) * size;
    T *to_k = at->k_pages + start, *to_v = at->v_pages + start, key[MOST];
    const T *value = at->v + n * at->strides[4] + g * at->strides[5];
    rotated(at->k + n * at->strides[2] + g * at->strides[3], at->cosine + turn, at->sine + turn,
            at->turned, channels, 1.0f, key);
    for (int c = 0; c < channels; c++) {
        to_k[(c / PAIR * PAGE + place) * PAIR + c % PAIR] = key[c];
        to_v[(place / PAIR * channels + c) * PAIR + place % PAIR] = value[c];
    }
}

/* How many tokens `answer` takes, at most. */
static int at_once(const Layer *at) {
    int tokens = TILE / (at->heads / at->groups);
    return tokens > 0 ? tokens : 1;
}

/* What token n meets in group g. */
static inline Met met_by(const Layer *at, int n, int g) {
    int64_t size = (int64_t)at->channels * PAGE, from = g * size;
    const int32_t *pages = at->table + (int64_t)at->row[n] * at->width;
    return (Met){at->k_pages + from, at->v_pages + from, pages, at->groups * size, at->position[n]};
}

/* What the queries of tokens start .. end - 1 in group g get, whose keys are all stored. */
static void answer(const Layer *at, int tokens, int g, int start, int end) {
    T queries[TILE * MOST];
    float said[TILE * MOST] __attribute__((aligned(64)));
    int32_t seen[TILE];
    int channels = at->channels, shared = at->heads / at->groups;
    float scale = 1.0f / sqrtf((float)channels);
    for (int n = start, after; n < end; n = after) {
        for (after = n; after < end && at->row[after] == at->row[n]; after++)
            for (int h = 0; h < shared; h++) {
                int i = (after - n) * shared + h;
                int64_t turn = (int64_t)after * at->turned;
                seen[i] = at->position[after];
                rotated(at->q + after * at->strides[0] + (g * shared + h) * at->strides[1],
                        at->cosine + turn, at->sine + turn, at->turned, channels, scale,
                        queries + i * channels);
            }
        int count = (after - n) * shared;
        Met met = met_by(at, after - 1, g), next = met;
        if (after < end)
            next = met_by(at, after, g);
        else if (g + 1 < at->groups)
            next = met_by(at, start, g + 1);
        else if (end < tokens)
            next = met_by(at, end, 0);
        meeting(count, channels, queries, seen, &met, &next, said);
        for (int i = 0; i < count; i++) {
            int64_t head = (int64_t)(n + i / shared) * at->heads + g * shared + i % shared;
            T *to = at->out + head * channels;
            for (int c = 0; c < channels; c += PAGE) put(*(vec *)(said + i * channels + c), to + c);
        }
    }
}

/* By all threads that come here. */
static void layer(const Layer *at, int tokens) {
    int most = at_once(at), tasks = (tokens + most - 1) / most * at->groups;
    /* a row's groups lie side by side: to one thread, where there is work for all */
    int together = tasks >= 4 * at->groups * omp_get_num_threads() ? at->groups : 1;
#pragma omp for collapse(2)
    for (int n = 0; n < tokens; n++)
        for (int g = 0; g < at->groups; g++) store(at, n, g);
#pragma omp for collapse(2) schedule(dynamic, together)
    for (int start = 0; start < tokens; start += most)
        for (int g = 0; g < at->groups; g++)
            answer(at, tokens, g, start, start + most < tokens ? start + most : tokens);
}

/* Rotates q and k, stores k and v of the new tokens, and attends with q into out. */
void attend(const Layer *at, int tokens, int threads) {
#pragma omp parallel num_threads(threads)
    layer(at, tokens);
}
