"""nCCS, and what the operators reach on the paper's data."""

from functools import partial

import pytest
import torch

from shtopk import hard_topk, iterative_topk, nccs, successive_halving_topk

# nCCS of the authors' released run (successive halving, iterative), their repository's benchmark log.
PUBLISHED = {(1024, 8): (0.844, 0.059), (8192, 512): (0.971, 0.062)}


def quality(operator, n, k, batch=16, **options):
    """nCCS on data as the paper draws it."""
    generator = torch.Generator().manual_seed(0)
    values, scores = torch.rand(batch, n, 32, generator=generator) * 2 - 1, torch.rand(batch, n, generator=generator)
    return nccs(hard_topk(values, scores, k).values, operator(values, scores, k, **options).values).mean().item()


def test_nccs_is_the_mean_of_the_best_cosines():
    true = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    pooled = torch.tensor([[3.0, 3.0], [5.0, 0.0]])
    torch.testing.assert_close(nccs(true, pooled), torch.tensor((1 + 0.5**0.5) / 2))
    assert nccs(true, true.flip(0)) == 1
    assert nccs(true.expand(3, 2, 2), pooled.expand(3, 2, 2)).shape == (3,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_an_empty_slot_is_like_nothing_in_half_precision_too(dtype):
    true, pooled = torch.eye(3, dtype=dtype)[:2], torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=dtype)
    assert nccs(true, pooled) == 0.5


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"expected true_topk \[\*, k, d\]"):
        nccs(torch.ones(2, 3), torch.ones(2, 4))


@pytest.mark.parametrize(("n", "k"), PUBLISHED)
def test_power_and_plain_iterative_are_the_authors_operators(n, k):
    ours, iterative = PUBLISHED[n, k]
    batch = 256 if n == 1024 else 4  # with few vectors a row, many rows: the mean is within 0.005 of the expectation
    assert quality(successive_halving_topk, n, k, batch, boost="power") == pytest.approx(ours, abs=0.02)
    assert quality(iterative_topk, n, k, batch) == pytest.approx(iterative, abs=0.02)


@pytest.mark.parametrize(("n", "k"), [(16, 2), (16, 8), (1024, 8), (16384, 2), (4096, 512)])
def test_relative_stays_sharp_at_every_n_and_k(n, k):
    assert quality(partial(successive_halving_topk, boost="relative", temperature=1 / 16), n, k) > 0.98
