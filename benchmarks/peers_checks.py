"""What can be seen of a way to pool by running it: padding, any k, its gradient, the same twice."""

from collections.abc import Callable
from inspect import signature

import torch
from peers_ways import Pool, Way, one_line
from torch import Tensor

BATCH, N, DEPTH, K, TEMPERATURE = 2, 64, 8, 4, 0.5  # n / k a power of two: what every tournament takes
LOW, STEP, NEAR = -1e4, 1e-6, 1e-3  # a score that no token has; of finite differences; relative, in float32
OTHER_N, OTHER_K = 100, 7


def inputs(way: Way, n: int, k: int, batch: int = BATCH, depth: int = DEPTH) -> tuple[Tensor, Tensor]:
    """Values [B, n, d] and scores [B, n], or [B, n, k] where every slot has its own; the same each time."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(batch, n, depth, generator=generator)
    return values, torch.randn(batch, n, *[k] * way.queries, generator=generator)


def check(way: Way, pool: Pool) -> dict[str, str]:
    """A word or a line for each question; "error" alone, where the way does not give k vectors at all."""
    torch.manual_seed(0)
    try:
        problem = malformed(pool(*inputs(way, N, K), K, TEMPERATURE), BATCH, K, DEPTH)
    except Exception as error:  # a stranger's package
        problem = one_line(error)
    if problem:
        return {"error": problem}
    checks: dict[str, Callable[[Way, Pool], str]] = {
        "padding": padding, "any_k": any_k, "gradient": gradient, "twice": twice
    }  # fmt: skip
    found = {}
    for name, answer in checks.items():
        try:
            found[name] = answer(way, pool)
        except Exception as error:
            found[name] = f"fails: {one_line(error)}"
    return found


def malformed(pooled: Tensor, batch: int, k: int, depth: int) -> str:
    """What is wrong with pooled vectors, "" if nothing is."""
    if pooled.shape != (batch, k, depth):
        return f"gives {list(pooled.shape)}, not k vectors, {[batch, k, depth]}"
    if not pooled.isfinite().all():
        return "gives numbers that are not finite"
    return "" if pooled.ne(0).any(-1).all() else "leaves slots empty"


def padding(way: Way, pool: Pool) -> str:
    """Whether padding changes nothing: "mask", as an argument; "by scores" that are low there; "no"."""
    if "mask" in signature(pool).parameters and holds_with_padding(way, pool, by_mask=True):
        return "mask"
    return "by scores" if holds_with_padding(way, pool, by_mask=False) else "no"


def holds_with_padding(way: Way, pool: Pool, by_mask: bool) -> bool:
    """Whether a row gives the same alone, with padding behind it, and with it in front, whatever stands there."""
    values, scores = inputs(way, N, K)
    real = N // 2
    rows = values[:, :real], scores[:, :real]

    def padded(junk: float, behind: bool) -> Tensor:
        filler = torch.full_like(rows[0], junk), torch.full_like(rows[1], junk if by_mask else LOW)
        mask = torch.arange(N).expand(BATCH, N).lt(real) if behind else torch.arange(N).expand(BATCH, N).ge(real)
        both = [torch.cat([row, fill] if behind else [fill, row], 1) for row, fill in zip(rows, filler, strict=True)]
        torch.manual_seed(0)
        return pool(*both, K, TEMPERATURE, **({"mask": mask} if by_mask else {}))

    pairs = [(padded(50.0, behind), padded(-7.0, behind)) for behind in (True, False)]
    if way.estimate != "of samples":  # whose samples depend on n
        alone = pool(*rows, K, TEMPERATURE)
        pairs += [(alone, padded(50.0, behind)) for behind in (True, False)]
    return all(torch.allclose(one, other, rtol=NEAR, atol=NEAR) for one, other in pairs)


def any_k(way: Way, pool: Pool) -> str:
    """ "yes", or what is wrong with 7 vectors of 100."""
    pooled = pool(*inputs(way, OTHER_N, OTHER_K), OTHER_K, TEMPERATURE)
    problem = malformed(pooled, BATCH, OTHER_K, DEPTH)
    return f"no: {problem}" if problem else "yes"


def gradient(way: Way, pool: Pool) -> str:
    """The gradient to the scores beside central differences, in float64: "right", "none", an estimate, or "wrong"."""
    values, scores = (tensor.double() for tensor in inputs(way, N, K))
    weights = torch.randn(BATCH, K, DEPTH, dtype=torch.double, generator=torch.Generator().manual_seed(1))

    def loss(scores: Tensor) -> Tensor:
        torch.manual_seed(0)
        return (pool(values, scores, K, TEMPERATURE) * weights).sum()

    out = loss(scores.requires_grad_())
    found = torch.autograd.grad(out, scores, allow_unused=True)[0] if out.requires_grad else None
    if found is None or not found.any():
        return "none"
    with torch.no_grad():
        differences = torch.zeros_like(scores)
        for place in range(scores.numel()):
            step = torch.zeros_like(scores)
            step.view(-1)[place] = STEP
            differences.view(-1)[place] = (loss(scores + step) - loss(scores - step)) / (2 * STEP)
    if (found - differences).abs().max() <= 1e-5 * found.abs().max():
        return "right"
    return f"an estimate, {way.estimate}" if way.estimate else "wrong"


def twice(way: Way, pool: Pool) -> str:
    """Whether two runs give the same numbers, gradients included."""
    runs = []
    for _ in range(2):
        values, scores = (tensor.requires_grad_() for tensor in inputs(way, N, K))
        pooled = pool(values, scores, K, TEMPERATURE)
        if pooled.requires_grad:
            pooled.square().sum().backward()
        runs.append([pooled, *(part.grad for part in (values, scores) if part.grad is not None)])
    return "yes" if all(torch.equal(one, other) for one, other in zip(*runs, strict=True)) else "no"
