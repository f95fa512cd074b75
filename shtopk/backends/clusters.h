/* Part of tournament.c, once for each type, as tournament.h is: the steps of select and merge, which clusters.py
   explains. The functions that are exported work on rows begin..end-1, as those of tournament.h do. */

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

/* Choose the leaders of each row, one after the other, among its `most` best tokens: the one with the highest logit plus
   bonus, which is the logarithm of its distance, 1 - cos, from the nearest leader so far.

   values [B, n, d], logits [B, n]; -inf where there is no token. Out: leaders [B, k], -1 for none, and their directions
   [B, k, d], 0 for none.

   A bonus only falls as leaders are added. So a candidate is compared with those that it does not know yet when it comes
   first, and it leads if it still does. */
CLONES EXPORT int NAME(lead)(int64_t begin, int64_t end, const REAL *values, const REAL *logits, int64_t n, int64_t d,
                             int64_t k, int64_t most, double closest, int64_t *leaders, REAL *directions)
{
    NAME(Item) *items = malloc(2 * n * sizeof *items);
    KEY *keys = malloc(n * sizeof *keys);
    REAL *units = malloc(most * d * sizeof *units), *worth = malloc(most * sizeof *worth);
    REAL *nearest = malloc(most * sizeof *nearest), *cosines = malloc(k * sizeof *cosines);
    int64_t *knows = malloc(most * sizeof *knows); /* so many leaders */
    int failed = !items || !keys || !units || !worth || !nearest || !cosines || !knows;
    for (int64_t row = begin; row < end && !failed; row++) {
        for (int64_t i = 0; i < n; i++)
            keys[i] = NAME(key)(logits[row * n + i]);
        const KEY real = NAME(key)(-REAL_MAX), last = NAME(bound)(keys, n, most);
        int64_t count = NAME(collect)(logits + row * n, keys, n, 0, last < real ? last : real, items, 0);
        NAME(sort)(items, items + n, count);
        count = count < most ? count : most;
        for (int64_t i = 0; i < count; i++) {
            NAME(direction)(values + (row * n + items[i].index) * d, d, units + i * d);
            worth[i] = items[i].score + (REAL)log(2), nearest[i] = -1, knows[i] = 0; /* no bonus is higher */
        }
        for (int64_t j = 0; j < k; j++) {
            REAL *direction = directions + (row * k + j) * d;
            int64_t first;
            for (;;) {
                first = -1;
                for (int64_t i = 0; i < count; i++) /* of equals the one with the higher logit */
                    if (knows[i] >= 0 && (first < 0 || worth[i] > worth[first]))
                        first = i;
                if (first < 0 || knows[first] == j)
                    break;
                const int64_t more = j - knows[first];
                NAME(products)(units + first * d, direction - more * d, more, d, cosines);
                for (int64_t i = 0; i < more; i++)
                    nearest[first] = cosines[i] > nearest[first] ? cosines[i] : nearest[first];
                const REAL gap = 1 - nearest[first];
                worth[first] = items[first].score + (REAL)log(gap > closest ? gap : closest);
                knows[first] = j;
            }
            leaders[row * k + j] = first < 0 ? -1 : items[first].index;
            if (first < 0) {
                memset(direction, 0, d * sizeof *direction);
                continue;
            }
            memcpy(direction, units + first * d, d * sizeof *direction);
            knows[first] = -1; /* it leads */
        }
    }
    free(items), free(keys), free(units), free(worth), free(nearest), free(cosines), free(knows);
    return failed ? -1 : 0;
}

/* Of the tokens in `playing`, see `join`: those of the largest product with one of a panel's centres so far, with LANES *
   `lanes` centres in a panel. */
static ALWAYS_INLINE void NAME(join_panel)(const REAL *values, const int64_t *playing, int64_t count, const REAL *panel,
                                           int64_t start, int64_t wide, int64_t d, const int lanes, REAL *best,
                                           int64_t *slots)
{
    enum { BLOCK = 8, LANES = NAME(LANES) };
    for (int64_t at = 0; at < count; at += BLOCK) {
        const REAL *tokens[BLOCK];
        NAME(Lanes) sums[BLOCK][2] = {{{0}}};
        for (int t = 0; t < BLOCK; t++)
            tokens[t] = values + playing[at + t < count ? at + t : at] * d;
        for (int64_t i = 0; i < d; i++) {
            const REAL *centres = panel + i * lanes * LANES;
            const NAME(Lanes) low = *(const NAME(Lanes) *)centres;
            const NAME(Lanes) high = *(const NAME(Lanes) *)(centres + (lanes - 1) * LANES);
#pragma GCC unroll 8
            for (int t = 0; t < BLOCK; t++) {
                sums[t][0] += tokens[t][i] * low;
                if (lanes > 1)
                    sums[t][1] += tokens[t][i] * high;
            }
        }
        for (int t = 0; t < BLOCK && at + t < count; t++) {
            const REAL *products = (const REAL *)sums[t];
            REAL largest = best[at + t];
            int64_t nearest = -1;
            for (int64_t j = 0; j < wide; j++) { /* no branch, as no guess is good */
                nearest = products[j] > largest ? j : nearest;
                largest = products[j] > largest ? products[j] : largest;
            }
            if (nearest >= 0)
                best[at + t] = largest, slots[playing[at + t]] = start + nearest;
        }
    }
}

/* The slot of each token that plays: that of the centre of the largest product, of equals the first.

   values [B, n, d], logits [B, n], leaders [B, k] as `lead` found them, centres [B, k, d]. A leader stays in its slot. Out:
   slots [B, n], -1 for a token whose weight is below `negligible` wherever it goes. */
CLONES EXPORT int NAME(join)(int64_t begin, int64_t end, const REAL *values, const REAL *logits, const int64_t *leaders,
                             const REAL *centres, int64_t n, int64_t d, int64_t k, double negligible, int64_t *slots)
{
    const int64_t size = (k > NAME(LANES) ? 2 : 1) * NAME(LANES);
    REAL *panel = malloc(d * size * sizeof *panel), *best = malloc(n * sizeof *best);
    int64_t *playing = malloc(n * sizeof *playing);
    int failed = !panel || !best || !playing;
    for (int64_t row = begin; row < end && !failed; row++) {
        const REAL *its_values = values + row * n * d, *its_logits = logits + row * n;
        const int64_t *its_leaders = leaders + row * k;
        int64_t *its_slots = slots + row * n, count = 0, filled = 0;
        REAL lowest = REAL_MAX;
        for (; filled < k && its_leaders[filled] >= 0; filled++)
            if (its_logits[its_leaders[filled]] < lowest)
                lowest = its_logits[its_leaders[filled]];
        lowest += (REAL)log(negligible);
        for (int64_t i = 0; i < n; i++) {
            const int plays = filled && its_logits[i] >= lowest;
            its_slots[i] = plays - 1; /* the first one, if there is no product: a vector that is not a number */
            if (plays)
                best[count] = -REAL_MAX, playing[count++] = i;
        }
        for (int64_t start = 0; start < filled; start += size) {
            const int64_t wide = filled - start < size ? filled - start : size;
            for (int64_t i = 0; i < d; i++)
                for (int64_t j = 0; j < size; j++)
                    panel[i * size + j] = j < wide ? centres[(row * k + start + j) * d + i] : 0;
            if (size > NAME(LANES))
                NAME(join_panel)(its_values, playing, count, panel, start, wide, d, 2, best, its_slots);
            else
                NAME(join_panel)(its_values, playing, count, panel, start, wide, d, 1, best, its_slots);
        }
        for (int64_t j = 0; j < filled; j++)
            its_slots[its_leaders[j]] = j;
    }
    free(panel), free(best), free(playing);
    return failed ? -1 : 0;
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
