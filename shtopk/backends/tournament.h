/* The body of tournament.c, once for each type: REAL is the type of the scores, KEY the unsigned whole number and INDEX
   the signed one of its size, NAME(x) the name of x for it. What is meant by a field, a bye, a slot and the order of the
   nodes: tournament.py.

   The functions that are exported work on rows begin..end-1 of a batch of B, so that threads can share it, and return
   0, or -1 if there is not enough memory. */

typedef struct {
    REAL score;
    INDEX index;
} NAME(Item);

/* Rises as the score falls. What is not a number comes first, as in torch's sort. Without branches and comparisons of
   reals, so that compilers make several at once. */
static inline KEY NAME(key)(REAL score)
{
    const int last = 8 * sizeof(KEY) - 1;
    const KEY sign = (KEY)1 << last, infinite = sign - ((KEY)1 << (REAL_DIGITS - 1));
    KEY bits;
    score += 0; /* -0 becomes 0 */
    memcpy(&bits, &score, sizeof bits);
    const KEY negative = 0 - (bits >> last), number = 0 - (KEY)((bits & ~sign) <= infinite);
    return (bits ^ (~negative & ~sign)) & number;
}

/* A score as it takes part: no token is behind a bye. */
static inline REAL NAME(candidate)(REAL score)
{
    return score < NAME(BYE) ? NAME(BYE) : score;
}

/* Sort m items by falling score, equals in the order in which they stand, with m more to work in. */
static void NAME(sort)(NAME(Item) *items, NAME(Item) *spare, int64_t m)
{
    int64_t i = 1;
    while (i < m && NAME(key)(items[i - 1].score) <= NAME(key)(items[i].score))
        i++;
    if (i >= m)
        return;
    if (m <= 48) { /* by insertion; the first i are sorted */
        for (; i < m; i++) {
            NAME(Item) item = items[i];
            KEY key = NAME(key)(item.score);
            int64_t j = i;
            for (; j > 0 && NAME(key)(items[j - 1].score) > key; j--)
                items[j] = items[j - 1];
            items[j] = item;
        }
        return;
    }
    INDEX counts[sizeof(KEY)][256] = {{0}}; /* by radix: a byte of the keys at a time, from the lowest */
    for (i = 0; i < m; i++) {
        KEY key = NAME(key)(items[i].score);
        for (size_t byte = 0; byte < sizeof(KEY); byte++)
            counts[byte][key >> (8 * byte) & 255]++;
    }
    NAME(Item) *from = items, *to = spare;
    for (size_t byte = 0; byte < sizeof(KEY); byte++) {
        INDEX *place = counts[byte], before = 0;
        if (place[NAME(key)(from[0].score) >> (8 * byte) & 255] == m)
            continue; /* all have the same */
        for (int digit = 0; digit < 256; digit++) {
            INDEX count = place[digit];
            place[digit] = before;
            before += count;
        }
        for (i = 0; i < m; i++)
            to[place[NAME(key)(from[i].score) >> (8 * byte) & 255]++] = from[i];
        NAME(Item) *swap = from;
        from = to;
        to = swap;
    }
    if (from != items)
        memcpy(items, from, m * sizeof *items);
}

/* Append the tokens of a row whose keys lie in first..last; returns how many items there are then. */
static int64_t NAME(collect)(const REAL *scores, const KEY *keys, int64_t n, KEY first, KEY last, NAME(Item) *items,
                             int64_t count)
{
    enum { BLOCK = 16 };
    const KEY width = last - first;
    for (int64_t start = 0; start < n; start += BLOCK) {
        const int64_t end = start + BLOCK < n ? start + BLOCK : n;
        int any = end < start + BLOCK; /* mostly there is none, which is quick to see */
        if (!any)
            for (int64_t i = start; i < start + BLOCK; i++)
                any |= keys[i] - first <= width;
        if (!any)
            continue;
        for (int64_t i = start; i < end; i++)
            if (keys[i] - first <= width) {
                items[count].score = NAME(candidate)(scores[i]);
                items[count++].index = (INDEX)i;
            }
    }
    return count;
}

/* The last key of the `wanted` best of a row, rounded up to a bucket of keys. */
static KEY NAME(bound)(const KEY *keys, int64_t n, int64_t wanted)
{
    enum { BITS = 11 };
    const int shift = 8 * sizeof(KEY) - BITS;
    INDEX counts[1 << BITS] = {0};
    for (int64_t i = 0; i < n; i++)
        counts[keys[i] >> shift]++;
    KEY bucket = 0;
    for (int64_t count = counts[0]; count < wanted; count += counts[bucket])
        bucket++;
    return ((bucket + 1) << shift) - 1; /* all ones for the last bucket: the shift leaves 0, and 0 - 1 wraps around */
}

/* Of count items, falling: by how much the first k exceed the others, on average. */
static REAL NAME(spread)(const NAME(Item) *items, int64_t count, int64_t k)
{
    double means[2] = {0, 0}, largest = 0;
    while (count && items[count - 1].score <= NAME(BYE))
        count--;
    const int64_t counts[2] = {count < k ? count : k, count < k ? 0 : count - k};
    for (int64_t i = 0; i < count; i++) {
        means[i >= k] += (double)items[i].score / counts[i >= k]; /* a sum of large scores would overflow */
        if (fabs(items[i].score) > largest)
            largest = fabs(items[i].score);
    }
    double resolution = 8 * REAL_EPSILON * largest;
    return (REAL)fmax(fmax(means[0] - means[1], resolution), SMALLEST_SPREAD);
}

/* The tokens that can have a weight, best first.

   scores [B, n], -inf where there is no token; reach: by how many divisors a token may lie below the k-th best and
   still play, negative where all are to. Out: divisors [B], counts [B] and, in each row of field [B, n], so many. */
EXPORT int NAME(field)(int64_t begin, int64_t end, const REAL *scores, int64_t n, int64_t k, int relative,
                       double temperature, double reach, REAL *divisors, int64_t *counts, NAME(Item) *field)
{
    clean_registers();
    enum { SHORT = 256 }; /* so many are sorted sooner than sifted */
    const KEY all = ~(KEY)0, bye = NAME(key)(NAME(BYE));
    const int64_t kept = k < n ? k : n, wanted = !relative ? kept : 2 * k < n ? 2 * k : n;
    NAME(Item) *spare = malloc(n * sizeof *spare);
    KEY *keys = malloc(n * sizeof *keys);
    if (!spare || !keys) {
        free(spare), free(keys);
        return -1;
    }
    for (int64_t row = begin; row < end; row++) {
        const REAL *row_scores = scores + row * n;
        NAME(Item) *items = field + row * n;
        for (int64_t i = 0; i < n; i++) {
            const KEY key = NAME(key)(row_scores[i]);
            keys[i] = key < bye ? key : bye; /* no token is behind a bye */
        }
        KEY last = reach < 0 || n <= SHORT || 2 * wanted >= n ? all : NAME(bound)(keys, n, wanted);
        int64_t count = NAME(collect)(row_scores, keys, n, 0, last, items, 0);
        NAME(sort)(items, spare, count);

        REAL divisor = (REAL)temperature * (relative ? NAME(spread)(items, wanted, k) : 1);
        divisor = divisor < REAL_MIN ? REAL_MIN : divisor > REAL_MAX / 1024 ? REAL_MAX / 1024 : divisor;
        divisors[row] = divisor;
        if (reach >= 0) {
            REAL lowest = items[kept - 1].score - (REAL)reach * divisor;
            if (!(lowest > NAME(BYE) / 2))
                lowest = NAME(BYE) / 2;
            if (last != all && NAME(key)(lowest) > last) {
                int64_t more = NAME(collect)(row_scores, keys, n, last + 1, NAME(key)(lowest), items, count);
                NAME(sort)(items + count, spare, more - count);
                count = more;
            }
            while (count && NAME(key)(items[count - 1].score) > NAME(key)(lowest))
                count--;
        }
        counts[row] = count;
    }
    free(spare), free(keys);
    return 0;
}

/* Play the rounds between what `field` found; in a row there are N = k * (2^rounds - 1) inner nodes.

   log_base: 0 if scores are compared as they are. Out: pairs [B, N, 2], shares [B, N, 2], weights [B, N], slot_scores [B, k],
   of the k * 2^rounds leaves their tokens and weights, and how many of these weigh at least `negligible`: carriers [B]. */
EXPORT int NAME(play)(int64_t begin, int64_t end, const NAME(Item) *field, const int64_t *counts, const REAL *divisors,
                      int64_t n, int64_t k, int64_t rounds, double log_base, double negligible, REAL *pairs,
                      REAL *shares, REAL *weights, REAL *slot_scores, int64_t *tokens, REAL *leaf_weights, int64_t *carriers)
{
    clean_registers();
    const int64_t places = k << rounds, nodes = places - k;
    NAME(Item) *levels = malloc(3 * places * sizeof *levels); /* the ranking of each round; then one to sort in */
    REAL *wins = malloc(places * sizeof *wins);               /* of each round's pairs */
    INDEX *at = malloc(places * sizeof *at);
    if (!levels || !wins || !at) {
        free(levels), free(wins), free(at);
        return -1;
    }
    for (int64_t row = begin; row < end; row++) {
        memcpy(levels, field + row * n, counts[row] * sizeof *levels);
        for (int64_t i = counts[row]; i < places; i++)
            levels[i].score = NAME(BYE), levels[i].index = 0;
        NAME(Item) *level = levels;
        REAL *win = wins;
        for (int64_t m = places / 2; m >= k; m /= 2) { /* m pairs: the best meets the worst */
            NAME(Item) *next = level + 2 * m;
            for (int64_t i = 0; i < m; i++) {
                REAL winner = level[i].score, loser = level[2 * m - 1 - i].score;
                win[i] = 1 / (1 + EXP(-NAME(margin)(winner, loser, (REAL)log_base) / divisors[row]));
                next[i].score = win[i] < (REAL)0.5 ? loser + win[i] * (winner - loser)
                                                   : winner - (1 - win[i]) * (winner - loser);
                next[i].index = (INDEX)i;
            }
            NAME(sort)(next, levels + 2 * places, m);
            level = next;
            win += m;
        }

        /* Back from the slots, level by level: who met in each node, and with what weight? A node stands at `at` in the
           ranking that its round led to. */
        REAL *pair = pairs + row * nodes * 2, *share = shares + row * nodes * 2, *weight = weights + row * nodes;
        REAL *leaves = leaf_weights + row * places;
        for (int64_t c = 0; c < k; c++) {
            at[c] = (INDEX)c;
            slot_scores[row * k + c] = level[c].score;
            (rounds ? weight : leaves)[c] = level[c].score > NAME(BYE);
        }
        for (int64_t m = k; m < places; m *= 2) { /* m nodes, of a round between 2 m */
            NAME(Item) *before = level - 2 * m;
            REAL *below = 2 * m < places ? weight + m : leaves;
            win -= m;
            for (int64_t c = m - 1; c >= 0; c--) { /* from the last one on, as `at` grows where it is */
                INDEX winner = level[at[c]].index, loser = (INDEX)(2 * m - 1 - winner);
                at[2 * c] = winner, at[2 * c + 1] = loser;
                pair[2 * c] = before[winner].score, pair[2 * c + 1] = before[loser].score;
                share[2 * c] = win[winner], share[2 * c + 1] = 1 - win[winner];
                below[2 * c] = weight[c] * share[2 * c], below[2 * c + 1] = weight[c] * share[2 * c + 1];
            }
            level = before, pair += 2 * m, share += 2 * m, weight += m;
        }
        carriers[row] = 0;
        for (int64_t c = 0; c < places; c++) {
            tokens[row * places + c] = level[at[c]].index;
            carriers[row] += leaves[c] >= (REAL)negligible;
        }
    }
    free(levels), free(wins), free(at);
    return 0;
}

/* List the carriers, row by row: which leaves they are, in 0..B*places-1, their tokens in 0..B*n-1, weights, and slots in
   0..B*k-1. And the position [B, k] of each slot's heaviest token, of equals the first. */
EXPORT int NAME(list)(int64_t begin, int64_t end, const int64_t *tokens, const REAL *leaf_weights, const REAL *slot_scores,
                      const int64_t *carriers, int64_t n, int64_t k, int64_t rounds, double negligible, int64_t *leaf,
                      int64_t *token, REAL *weight, int64_t *slot, int64_t *positions)
{
    clean_registers();
    int64_t next = 0;
    for (int64_t row = 0; row < begin; row++)
        next += carriers[row];
    for (int64_t s = begin * k; s < end * k; s++) {
        int64_t position = 0;
        REAL heaviest = -1;
        for (int64_t c = s << rounds; c < (s + 1) << rounds; c++) {
            if (leaf_weights[c] > heaviest || (leaf_weights[c] == heaviest && tokens[c] < position))
                heaviest = leaf_weights[c], position = tokens[c];
            if (leaf_weights[c] >= (REAL)negligible) {
                leaf[next] = c, weight[next] = leaf_weights[c], slot[next] = s;
                token[next++] = tokens[c] + s / k * n;
            }
        }
        positions[s] = slot_scores[s] > NAME(BYE) ? position : 0;
    }
    return 0;
}

/* From the gradients of the carriers' weights and of the slots' scores [B, k] to those of the scores: writes the
   carriers' into grad_scores [B, n], and into of_temperature [B] each row's part of that of the temperature's logarithm.
   leaf and token: of all carriers, whose number is `length`. */
EXPORT int NAME(score_gradients)(int64_t begin, int64_t end, const REAL *pairs, const REAL *shares,
                                 const REAL *weights, const REAL *divisors, const int64_t *leaf, const int64_t *token,
                                 int64_t length, int64_t k, int64_t rounds, double log_base, const REAL *grad_weights,
                                 const REAL *grad_slot_scores, REAL *grad_scores, REAL *of_temperature)
{
    clean_registers();
    const int64_t places = k << rounds, nodes = places - k;
    REAL *worth = malloc((nodes + places) * sizeof *worth); /* of nodes, then of leaves, as all of these */
    REAL *grad = malloc((nodes + places) * sizeof *grad);
    REAL *advantage = malloc((nodes + 1) * sizeof *advantage);
    if (!worth || !grad || !advantage) {
        free(worth), free(grad), free(advantage);
        return -1;
    }
    int64_t next = 0;
    for (int64_t after = length; next < after;) { /* the first carrier of these rows */
        int64_t middle = (next + after) / 2;
        if (leaf[middle] < begin * places)
            next = middle + 1;
        else
            after = middle;
    }
    for (int64_t row = begin; row < end; row++) {
        const REAL *pair = pairs + row * nodes * 2, *share = shares + row * nodes * 2, *weight = weights + row * nodes;
        const int64_t first = next, first_leaf = row * places;
        memset(worth + nodes, 0, places * sizeof *worth);
        for (; next < length && leaf[next] < first_leaf + places; next++)
            worth[nodes + leaf[next] - first_leaf] = grad_weights[next];

        /* Up: what a weight of 1 is worth in each node, and by how much more in its winner than in its loser. Those who
           met in node i, of a level that starts at m - k, are 2 i + k and the one after it. */
        for (int64_t i = nodes - 1; i >= 0; i--) {
            advantage[i] = worth[2 * i + k] - worth[2 * i + k + 1];
            worth[i] = worth[2 * i + k + 1] + advantage[i] * share[2 * i];
        }
        /* Down: a node hands on its gradient by its shares, and moves its margin by its weight and its gradient. */
        double of_temperature_here = 0;
        memcpy(grad, grad_slot_scores + row * k, k * sizeof *grad);
        for (int64_t i = 0; i < nodes; i++) {
            REAL winner = pair[2 * i], loser = pair[2 * i + 1];
            REAL slope = share[2 * i] * share[2 * i + 1] / divisors[row];
            REAL of_margin = slope * weight[i] * advantage[i] + slope * (winner - loser) * grad[i];
            of_temperature_here -= (double)of_margin * NAME(margin)(winner, loser, (REAL)log_base);
            REAL of_winner = of_margin, of_loser = -of_margin;
            if (log_base != 0) {
                of_winner *= NAME(steepness)(winner, (REAL)log_base);
                of_loser *= NAME(steepness)(loser, (REAL)log_base);
            }
            grad[2 * i + k] = share[2 * i] * grad[i] + of_winner;
            grad[2 * i + k + 1] = share[2 * i + 1] * grad[i] + of_loser;
        }
        of_temperature[row] = (REAL)of_temperature_here;
        for (int64_t i = first; i < next; i++)
            grad_scores[token[i]] = grad[nodes + leaf[i] - first_leaf];
    }
    free(worth), free(grad), free(advantage);
    return 0;
}
