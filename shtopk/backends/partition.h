/* Part of tournament.c, once for each type of values, as pool.h is: OF_REAL(x) is the name of what tournament.h and
   clusters.h made for REAL. Select and merge: who leads, and whom the others join. */

enum { NAME(BLOCK) = 8 }; /* vectors that are compared at once */

/* The d numbers of a vector: in `room`, unless they are REALs where they are. */
static ALWAYS_INLINE const REAL *NAME(reals)(const VALUE *x, int64_t d, REAL *room)
{
    if (sizeof *x == sizeof *room)
        return (const REAL *)x;
    for (int64_t i = 0; i < d; i++)
        room[i] = LOAD(x[i]);
    return room;
}

/* Choose the leaders of each row, one after the other, among its `most` best tokens: the one with the highest logit plus
   bonus, which is the logarithm of its distance, 1 - cos, from the nearest leader so far.

   values [B, n, d], logits [B, n]; -inf where there is no token. Out: leaders [B, k], -1 for none, and their directions
   [B, k, d], 0 for none.

   A bonus only falls as leaders are added. So a candidate is compared with those that it does not know yet when it comes
   first, and it leads if it still does. */
CLONES EXPORT int NAME(lead)(int64_t begin, int64_t end, const VALUE *values, const REAL *logits, int64_t n, int64_t d,
                             int64_t k, int64_t most, double closest, int64_t *leaders, REAL *directions)
{
    OF_REAL(Item) *items = malloc(2 * n * sizeof *items);
    KEY *keys = malloc(n * sizeof *keys);
    REAL *units = malloc(most * d * sizeof *units), *worth = malloc(most * sizeof *worth);
    REAL *nearest = malloc(most * sizeof *nearest), *cosines = malloc(k * sizeof *cosines);
    int64_t *knows = malloc(most * sizeof *knows); /* so many leaders */
    int failed = !items || !keys || !units || !worth || !nearest || !cosines || !knows;
    for (int64_t row = begin; row < end && !failed; row++) {
        for (int64_t i = 0; i < n; i++)
            keys[i] = OF_REAL(key)(logits[row * n + i]);
        const KEY real = OF_REAL(key)(-REAL_MAX), last = OF_REAL(bound)(keys, n, most);
        int64_t count = OF_REAL(collect)(logits + row * n, keys, n, 0, last < real ? last : real, items, 0);
        OF_REAL(sort)(items, items + n, count);
        count = count < most ? count : most;
        for (int64_t i = 0; i < count; i++) {
            REAL *unit = units + i * d;
            OF_REAL(direction)(NAME(reals)(values + (row * n + items[i].index) * d, d, unit), d, unit);
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
                OF_REAL(products)(units + first * d, direction - more * d, more, d, cosines);
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
   `lanes` centres in a panel. `room` for BLOCK vectors. */
static ALWAYS_INLINE void NAME(join_panel)(const VALUE *values, const int64_t *playing, int64_t count, const REAL *panel,
                                           int64_t start, int64_t wide, int64_t d, const int lanes, REAL *room,
                                           REAL *best, int64_t *slots)
{
    enum { BLOCK = NAME(BLOCK), LANES = OF_REAL(LANES) };
    for (int64_t at = 0; at < count; at += BLOCK) {
        const REAL *tokens[BLOCK];
        OF_REAL(Lanes) sums[BLOCK][2] = {{{0}}};
        for (int t = 0; t < BLOCK; t++)
            tokens[t] = NAME(reals)(values + playing[at + t < count ? at + t : at] * d, d, room + t * d);
        for (int64_t i = 0; i < d; i++) {
            const REAL *centres = panel + i * lanes * LANES;
            const OF_REAL(Lanes) low = *(const OF_REAL(Lanes) *)centres;
            const OF_REAL(Lanes) high = *(const OF_REAL(Lanes) *)(centres + (lanes - 1) * LANES);
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
CLONES EXPORT int NAME(join)(int64_t begin, int64_t end, const VALUE *values, const REAL *logits, const int64_t *leaders,
                             const REAL *centres, int64_t n, int64_t d, int64_t k, double negligible, int64_t *slots)
{
    const int64_t size = (k > OF_REAL(LANES) ? 2 : 1) * OF_REAL(LANES);
    REAL *panel = malloc(d * size * sizeof *panel), *best = malloc(n * sizeof *best);
    REAL *room = malloc(NAME(BLOCK) * d * sizeof *room);
    int64_t *playing = malloc(n * sizeof *playing);
    int failed = !panel || !best || !room || !playing;
    for (int64_t row = begin; row < end && !failed; row++) {
        const VALUE *its_values = values + row * n * d;
        const REAL *its_logits = logits + row * n;
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
            if (size > OF_REAL(LANES))
                NAME(join_panel)(its_values, playing, count, panel, start, wide, d, 2, room, best, its_slots);
            else
                NAME(join_panel)(its_values, playing, count, panel, start, wide, d, 1, room, best, its_slots);
        }
        for (int64_t j = 0; j < filled; j++)
            its_slots[its_leaders[j]] = j;
    }
    free(panel), free(best), free(room), free(playing);
    return failed ? -1 : 0;
}
