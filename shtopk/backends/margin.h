/* Part of tournament.c, once for each type, as tournament.h is: by how much the winner of a pair is ahead. */

static const REAL NAME(BYE) = -REAL_MAX / 2; /* the score of a bye */

static REAL NAME(power)(REAL score, REAL log_base)
{
    REAL exponent = log_base * score, limit = (REAL)(log(REAL_MAX) / 2);
    return EXP(exponent < limit ? exponent : limit);
}

/* The derivative of a power; 0 where it rises no further. */
static REAL NAME(steepness)(REAL score, REAL log_base)
{
    return log_base * score < (REAL)(log(REAL_MAX) / 2) ? log_base * NAME(power)(score, log_base) : 0;
}

/* By how much the winner is ahead; log_base 0: in scores, else in powers. */
static inline REAL NAME(margin)(REAL winner, REAL loser, REAL log_base)
{
    if (log_base == 0)
        return winner - loser;
    return loser == NAME(BYE) ? -NAME(BYE) : NAME(power)(winner, log_base) - NAME(power)(loser, log_base);
}
