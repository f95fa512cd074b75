/* Part of tournament.c, once for each type of values: VALUE is that type, REAL the one of their weights and of all that is
   computed, LOAD(x) a REAL and STORE(x) a VALUE, POOL_CLONES what stands before functions. The gradients of the weighted
   sums of values within each slot. */

static ALWAYS_INLINE REAL NAME(dot)(const VALUE *a, const VALUE *b, int64_t d)
{
    enum { LANES = 64 / sizeof(VALUE) }; /* sums that a compiler may keep side by side */
    REAL sums[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += LOAD(a[i + lane]) * LOAD(b[i + lane]);
    for (; i < d; i++)
        sum += LOAD(a[i]) * LOAD(b[i]);
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

static ALWAYS_INLINE void NAME(scale)(const VALUE *x, REAL weight, int64_t d, VALUE *out)
{
    for (int64_t i = 0; i < d; i++)
        out[i] = STORE(weight * LOAD(x[i]));
}

/* The same past the caches, 64 bytes at a time: memory is not read first to be written over. x NULL: zeros. */
static ALWAYS_INLINE void NAME(scale_past)(const VALUE *x, REAL weight, int64_t d, VALUE *out)
{
    enum { BLOCK = 64 / sizeof(VALUE) };
    for (int64_t i = 0; i < d; i += BLOCK) {
        VALUE block[BLOCK] = {0};
        if (x)
            for (int lane = 0; lane < BLOCK; lane++)
                block[lane] = STORE(weight * LOAD(x[i + lane]));
        stream(out + i, block);
    }
}

/* Backward of the weighted sums, carrier by carrier (begin..end-1): grad [slots, d], values [tokens, d]. Writes, unless
   they are NULL, grad_weights and the carriers' rows of grad_values [tokens, d]. */
POOL_CLONES
EXPORT int NAME(pool_gradients_by_carrier)(int64_t begin, int64_t end, const VALUE *grad, const VALUE *values,
                                           const int64_t *token, const REAL *weight, const int64_t *slot, int64_t d,
                                           VALUE *grad_values, REAL *grad_weights)
{
    clean_registers();
    enum { AHEAD = 3 };
    for (int64_t i = begin; i < end; i++) {
        if (i + AHEAD < end)
            for (int64_t j = token[i + AHEAD] * d; j < (token[i + AHEAD] + 1) * d; j += 64 / sizeof(VALUE)) {
                if (grad_weights)
                    PREFETCH(values + j); /* a cache line */
                if (grad_values)
                    PREFETCH(grad_values + j);
            }
        if (grad_weights)
            grad_weights[i] = NAME(dot)(grad + slot[i] * d, values + token[i] * d, d);
        if (grad_values)
            NAME(scale)(grad + slot[i] * d, weight[i], d, grad_values + token[i] * d);
    }
    return 0;
}

/* The same, token by token (begin..end-1), where most tokens are carriers: memory is read and written from front to
   back. carrier [tokens] says which one a token is, -1 for none. Writes all of grad_values. */
POOL_CLONES
EXPORT int NAME(pool_gradients_by_token)(int64_t begin, int64_t end, const VALUE *grad, const VALUE *values,
                                         const int64_t *carrier, const REAL *weight, const int64_t *slot, int64_t d,
                                         VALUE *grad_values, REAL *grad_weights)
{
    clean_registers();
    const uint64_t bytes = d * sizeof(VALUE);
    const int past = STREAMS && bytes % 64 == 0 && (uintptr_t)grad_values % 64 == 0 && (end - begin) * bytes >= LARGE;
    for (int64_t token = begin; token < end; token++) {
        const int64_t i = carrier[token];
        if (i >= 0 && grad_weights)
            grad_weights[i] = NAME(dot)(grad + slot[i] * d, values + token * d, d);
        if (!grad_values)
            continue;
        if (past)
            NAME(scale_past)(i < 0 ? NULL : grad + slot[i] * d, i < 0 ? 0 : weight[i], d, grad_values + token * d);
        else if (i >= 0)
            NAME(scale)(grad + slot[i] * d, weight[i], d, grad_values + token * d);
        else
            memset(grad_values + token * d, 0, bytes);
    }
    if (past)
        STREAMED();
    return 0;
}
