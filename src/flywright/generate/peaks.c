/* Where the logits of a row are largest, and the logarithm of their exponentials' sum.

   Compiled at first use by native.py; torch's argmax and logsumexp are the slow twin. */

#include "attention.c"

/* logits [rows, width] with `stride` between rows; best, total [rows]. Of equals the first. */
void peaks(const float *logits, int rows, int64_t stride, int width, int64_t *best, float *total,
           int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int r = 0; r < rows; r++) {
        const float *row = logits + r * stride;
        vec top = all(-INFINITY), sums = all(0);
        ivec where = {0}; /* of each lane's largest */
        int whole = width / PAGE * PAGE, at = width - 1;
        for (int i = 0; i < whole; i += PAGE) {
            vec x = packed(row + i);
            ivec larger = x > top;
            top = (vec)(((ivec)x & larger) | ((ivec)top & ~larger));
            where = (i & larger) | (where & ~larger);
        }
        float peak = largest(top), rest = 0;
        for (int i = whole; i < width; i++) peak = row[i] > peak ? row[i] : peak;
        for (int i = width - 1; i >= whole; i--) at = row[i] == peak ? i : at;
        for (int lane = 0; lane < PAGE && whole; lane++)
            if (top[lane] == peak && where[lane] + lane < at) at = where[lane] + lane;
        for (int i = 0; i < whole; i += PAGE) sums += exponential(packed(row + i) - peak);
        for (int i = whole; i < width; i++) rest += expf(row[i] - peak);
        best[r] = at, total[r] = peak + logf(sum(sums) + rest);
    }
}
