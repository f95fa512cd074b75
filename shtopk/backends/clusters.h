/* Part of tournament.c, once for each type, as tournament.h is: directions, and the weights of select and merge, which
   clusters.py explains. The functions that are exported work on rows begin..end-1, as those of tournament.h do. */

/* As many numbers as the widest registers hold; compilers split them where registers are narrower. */
typedef REAL NAME(Lanes) __attribute__((vector_size(64), aligned(sizeof(REAL))));
enum { NAME(LANES) = 64 / sizeof(REAL) };

/* The products of a vector with `count` others, [count, d]. */
static ALWAYS_INLINE void NAME(products)(const REAL *x, const REAL *others, int64_t count, int64_t d, REAL *out)
{
    enum { BLOCK = 8, LANES = NAME(LANES) };
    const int64_t whole = d - d % LANES;
    for (int64_t start = 0; start < count; start += BLOCK) {
        const REAL *rows[BLOCK];
        NAME(Lanes) sums[BLOCK] = {{0}};
        for (int t = 0; t < BLOCK; t++)
            rows[t] = others + (start + t < count ? start + t : start) * d;
        for (int64_t i = 0; i < whole; i += LANES)
#pragma GCC unroll 8
            for (int t = 0; t < BLOCK; t++)
                sums[t] += *(const NAME(Lanes) *)(x + i) * *(const NAME(Lanes) *)(rows[t] + i);
        for (int t = 0; t < BLOCK && start + t < count; t++) {
            for (int wide = LANES / 2; wide; wide /= 2)
                for (int j = 0; j < wide; j++)
                    sums[t][j] += sums[t][j + wide];
            for (int64_t i = whole; i < d; i++)
                sums[t][0] += x[i] * rows[t][i];
            out[start + t] = sums[t][0];
        }
    }
}

/* The direction of a vector, which has length 1; all 0 if there is none. */
static ALWAYS_INLINE void NAME(direction)(const REAL *x, int64_t d, REAL *out)
{
    REAL square, largest = 1;
    NAME(products)(x, x, 1, d, &square);
    if (!(square >= REAL_MIN && square <= REAL_MAX)) { /* too small or large to be squared */
        largest = 0;
        for (int64_t i = 0; i < d; i++)
            largest = fabs(x[i]) > largest ? (REAL)fabs(x[i]) : largest;
        square = 0;
        for (int64_t i = 0; i < d && largest > 0; i++)
            square += x[i] / largest * (x[i] / largest);
    }
    const REAL length = largest * (REAL)sqrt(square);
    const int good = length > 0 && length <= REAL_MAX;
    for (int64_t i = 0; i < d; i++)
        out[i] = good ? x[i] / length : 0;
}

/* The weights within each slot, a softmax of the logits there, and all that follows from them; in one thread.

   logits and scores [B, n]; slots [B, n], where tokens of less than `negligible` lose theirs. Out: weights [B, n], 0 without
   a slot; per slot, [B, k]: the weighted scores, whether it is filled, and its heaviest token, of equals the first; and the
   carriers, slot by slot: their tokens in 0..B*n-1, weights, slots in 0..B*k-1, and how many they are. */
CLONES EXPORT int NAME(weigh)(int64_t begin, int64_t end, const REAL *logits, const REAL *scores, int64_t n, int64_t k,
                              double negligible, int64_t *slots, REAL *weights, REAL *slot_scores, uint8_t *filled,
                              int64_t *positions, int64_t *token, REAL *weight, int64_t *slot, int64_t *carriers)
{
    REAL *highest = malloc(k * sizeof *highest), *total = malloc(k * sizeof *total);
    int64_t *next = malloc((k + 1) * sizeof *next), found = 0;
    if (!highest || !total || !next) {
        free(highest), free(total), free(next);
        return -1;
    }
    for (int64_t row = begin; row < end; row++) {
        const REAL *its_logits = logits + row * n, *its_scores = scores + row * n;
        int64_t *its_slots = slots + row * n, *its_positions = positions + row * k;
        REAL *its_weights = weights + row * n, *its_slot_scores = slot_scores + row * k;
        for (int64_t j = 0; j < k; j++) {
            highest[j] = -REAL_MAX, total[j] = 0;
            its_slot_scores[j] = 0, its_positions[j] = -1, next[j] = 0;
        }
        for (int64_t i = 0; i < n; i++)
            if (its_slots[i] >= 0 && its_logits[i] > highest[its_slots[i]])
                highest[its_slots[i]] = its_logits[i];
        for (int64_t i = 0; i < n; i++)
            if (its_slots[i] >= 0)
                total[its_slots[i]] += its_weights[i] = EXP(its_logits[i] - highest[its_slots[i]]);
        for (int64_t j = 0; j < k; j++)
            highest[j] = 0; /* of the weights, now */
        next[k] = 0;
        for (int64_t i = 0; i < n; i++) {
            const int64_t j = its_slots[i];
            const REAL share = j < 0 ? 0 : its_weights[i] / total[j];
            if (j < 0 || share < (REAL)negligible) {
                its_slots[i] = -1, its_weights[i] = 0;
                continue;
            }
            its_weights[i] = share, its_slot_scores[j] += share * its_scores[i], next[j + 1]++;
            if (share > highest[j])
                highest[j] = share, its_positions[j] = i;
        }
        for (int64_t j = 0; j < k; j++) {
            filled[row * k + j] = its_positions[j] >= 0;
            its_positions[j] = its_positions[j] < 0 ? 0 : its_positions[j];
            next[j + 1] += next[j];
        }
        for (int64_t i = 0; i < n; i++) {
            const int64_t j = its_slots[i];
            if (j < 0)
                continue;
            const int64_t at = found + next[j]++;
            token[at] = row * n + i, weight[at] = its_weights[i], slot[at] = row * k + j;
        }
        found += next[k - 1]; /* which has moved on to the end of the last slot */
    }
    *carriers = found;
    free(highest), free(total), free(next);
    return 0;
}
