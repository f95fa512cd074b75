"""What all kernels share: what a pair of candidates becomes, scores as integers, and a row's record."""

import triton
import triton.language as tl

BYE: tl.constexpr = tl.constexpr(-1.7014117331926443e38)  # tournament.bye_score of float32
NO_KEY: tl.constexpr = tl.constexpr(-(2**63))  # behind every candidate, byes too


@triton.jit
def rising(score):
    """An int32 that rises with the float32."""
    bits = score.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def score_of(rising_bits):
    """The inverse of `rising`."""
    return tl.where(rising_bits < 0, rising_bits ^ 0x7FFFFFFF, rising_bits).to(tl.float32, bitcast=True)


@triton.jit
def key_of(score, number):
    """The int64 that a ranking sorts by: the score, then the lower number."""
    return (rising(score).to(tl.int64) << 32) | (0x7FFFFFFF - number).to(tl.int64)


@triton.jit
def key_score(key):
    return score_of((key >> 32).to(tl.int32))


@triton.jit
def key_number(key):
    return 0x7FFFFFFF - (key & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def power(score, log_base):
    return tl.exp(tl.minimum(log_base * score, 44.361419555836))  # log(finfo.max) / 2


@triton.jit
def steepness(score, log_base):
    """The derivative of a power; 0 where it rises no further."""
    return tl.where(log_base * score < 44.361419555836, log_base * power(score, log_base), 0.0)


@triton.jit
def margin(winner, loser, log_base, POWER: tl.constexpr):
    """How far the winner is ahead. A bye is behind by a huge number."""
    if POWER:
        return tl.where(loser <= BYE, -BYE, power(winner, log_base) - power(loser, log_base))
    else:
        return winner - loser


@triton.jit
def share(winner, loser, divisor, log_base, POWER: tl.constexpr):
    """The winner's share in the pair."""
    return 1 / (1 + tl.exp(-(margin(winner, loser, log_base, POWER) / divisor)))


@triton.jit
def mixture(winner, loser, divisor, log_base, POWER: tl.constexpr):
    """The score that a pair goes on with."""
    win = share(winner, loser, divisor, log_base, POWER)
    mixed = tl.where(win < 0.5, loser + win * (winner - loser), winner - (1 - win) * (winner - loser))
    return tl.where(mixed == 0, 0.0, mixed)  # no -0


@triton.jit
def rounds_of(count, k):
    """How many rounds lead from so many players to k."""
    rounds = 0
    while (k << rounds) < count:
        rounds += 1
    return rounds


@triton.jit
def level_start(level, k):
    """Where a level of k * 2^level places begins in a row's ranking. Level 0 is that of the slots."""
    return k * ((1 << level) - 1)


HEAD: tl.constexpr = tl.constexpr(4)  # words in front of the ranking


@triton.jit
def head_of(records, row, stride):
    """How many play in a row, its divisor, and its ranking: scores, the first part behind the record's head."""
    record = records + row * stride
    divisor = tl.load(record + 1).to(tl.float32, bitcast=True)
    return tl.load(record), divisor, (record + HEAD).to(tl.pointer_type(tl.float32), bitcast=True)


@triton.jit
def origins_of(ranked, total, SMALL: tl.constexpr):
    """Where the candidates of a ranking come from: the second part behind the record's head."""
    if SMALL:
        return (ranked + total).to(tl.pointer_type(tl.int16), bitcast=True)
    else:
        return (ranked + total).to(tl.pointer_type(tl.int32), bitcast=True)


@triton.jit
def carriers_of(ranked, total, SMALL: tl.constexpr):
    """Which of the row's tokens carry weight: the third part behind the record's head, a byte each."""
    words = total + ((total + 1) // 2 if SMALL else total)
    return (ranked + words).to(tl.pointer_type(tl.int8), bitcast=True)
