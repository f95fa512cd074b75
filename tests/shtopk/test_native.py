"""What is done in C is what tensor operations do, on any number of threads."""

import multiprocessing
import re
from functools import partial
from pathlib import Path

import pytest
import torch

from shtopk import TopKPooling, backends, select_and_merge_topk, successive_halving_topk
from shtopk.backends import native, threads, tournament
from shtopk.backends.carriers import Carriers
from shtopk.candidates import bounded
from shtopk.rule import Rule
from shtopk.slots import pool_by_slot

SHAPES = [(1, 1), (4, 9), (16, 2), (40, 13), (300, 1), (1024, 8), (1024, 300), (5000, 7)]
OPTIONS = [("relative", 0.0625), ("relative", 1.0), ("softmax", 0.0625), ("softmax", 4.0), ("softmax", 1e-9),
           ("power", 1.0)]  # fmt: skip

pytestmark = pytest.mark.skipif(
    native.LIBRARY is None, reason="shtopk was installed without a C compiler: nothing is done in C"
)


def scores_of(n, boost, dtype=torch.float64):
    """Row 0 full, the last empty, the one before it with ties and both zeros."""
    generator = torch.Generator().manual_seed(n)
    scores = torch.randn(6, n, generator=generator, dtype=torch.float64)
    scores[4] = scores[4].round() * torch.tensor([1.0, -1.0])[torch.arange(n) % 2]
    mask = torch.rand(6, n, generator=generator) < 0.7
    mask[0], mask[5] = True, False
    return bounded((scores.sigmoid() if boost == "power" else scores).to(dtype), mask)


def choice_and_gradients(name, scores, temperature, k, boost):
    """A backend's choice, as tensors [B, n] or [B, k], and its gradients for random ones of weights and scores."""
    backend, rule = backends.BACKENDS[name], Rule.of(boost, 20.0)
    (batch, n), generator = scores.shape, torch.Generator().manual_seed(0)
    temperature = torch.tensor(temperature, dtype=scores.dtype)
    trees, leaf, carriers, positions = backend.play(scores, temperature, k, rule)
    weights, slots = scores.new_zeros(batch * n), torch.full((batch * n,), -1)
    weights[carriers.token], slots[carriers.token] = carriers.weight, carriers.slot
    of_weights = torch.randn(batch * n, generator=generator, dtype=torch.float64).to(scores.dtype)[carriers.token]
    of_slots = torch.randn(batch, k, generator=generator, dtype=torch.float64).to(scores.dtype)
    gradients = backend.score_gradients(trees, leaf, carriers.token, n, of_weights, of_slots * trees.filled, rule)
    return weights, slots, positions, trees.slot_scores, *gradients


@pytest.mark.parametrize(("boost", "temperature"), OPTIONS)
@pytest.mark.parametrize(("n", "k"), SHAPES)
def test_c_computes_what_tensor_operations_do(n, k, boost, temperature):
    scores = scores_of(n, boost)
    ours, expected = (choice_and_gradients(name, scores, temperature, k, boost) for name in ("native", "tensors"))
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("boost", ["relative", "softmax", "power"])
def test_c_is_as_exact_in_float32(boost):
    scores = scores_of(300, boost, torch.float32)
    ours, exact = (choice_and_gradients("native", x, 0.5, 20, boost) for x in (scores, scores.double()))
    for i in (0, 4, 5):  # weights, and gradients of scores and temperature; double reads lighter tokens too
        torch.testing.assert_close(ours[i].double(), exact[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("k", "temperature"), [(3, 0.0625), (200, 1.0)])  # few carriers, and many
def test_the_number_of_threads_changes_no_bit(k, temperature, monkeypatch):
    def pooled_and_gradients():
        torch.manual_seed(0)
        values, scores = torch.randn(5, 300, 24, requires_grad=True), torch.randn(5, 300, requires_grad=True)
        out = successive_halving_topk(values, scores, k, temperature=temperature)
        out.values.square().sum().backward()
        return out.values.detach(), out.scores.detach(), *map(torch.detach, out.assignment), values.grad, scores.grad

    alone = pooled_and_gradients()
    monkeypatch.setattr(native, "ENOUGH", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    for _ in range(2):
        assert all(map(torch.equal, pooled_and_gradients(), alone))
        monkeypatch.setattr(threads, "_run", None)  # without OpenMP


def pool_with_threads(n):
    return TopKPooling(4, 3).eval()(torch.ones(2, n, 4)).positions.shape


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    monkeypatch.setattr(native, "ENOUGH", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    pool_with_threads(50)
    # torch's own threads, OpenMP's, do not come along; a DataLoader's workers do without them too
    with multiprocessing.get_context("fork").Pool(1, torch.set_num_threads, (1,)) as process:
        assert process.apply_async(pool_with_threads, (50,)).get(timeout=20) == (2, 3)


@pytest.mark.parametrize(("dtype", "in_c"), [(torch.float32, True), (torch.bfloat16, True), (torch.float16, False)])
def test_vectors_that_c_knows_are_its_own(dtype, in_c, monkeypatch):
    monkeypatch.setattr(tournament, "play", None)  # no tensor operations
    monkeypatch.setattr(tournament, "score_gradients", None)
    done = []
    run = native._run
    monkeypatch.setattr(native, "_run", lambda name, *given: done.append(name) or run(name, *given))
    values, scores = torch.randn(2, 64, 4, dtype=dtype, requires_grad=True), torch.randn(2, 64, requires_grad=True)
    successive_halving_topk(values, scores, 5).values.sum().backward()
    assert any(name.startswith("pool") for name in done) == in_c


def test_bfloat16_is_merged_without_a_copy_as_its_numbers_in_float32_are(monkeypatch):
    read, run = {}, native._run

    def noted(name, rows, size, *given, **options):
        read[name] = given[0]
        run(name, rows, size, *given, **options)

    monkeypatch.setattr(native, "_run", noted)
    values, scores = torch.randn(2, 300, 37).bfloat16(), torch.randn(2, 300)
    found = select_and_merge_topk(values, scores, 40)
    assert [read[name].data_ptr() for name in ("lead", "join")] == [values.data_ptr()] * 2
    expected = select_and_merge_topk(values.float(), scores, 40)
    assert torch.equal(found.slots, expected.slots) and torch.equal(found.weights, expected.weights)


@pytest.mark.parametrize("d", [1, 7, 16, 37])
@pytest.mark.parametrize("of", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("carriers", [1, 20, 300])  # one, few and all of the tokens
@pytest.mark.parametrize("dtype", native.OF_VALUES)
def test_gradients_of_values_are_those_of_tensor_operations(dtype, carriers, of, d):
    generator = torch.Generator().manual_seed(d)
    draw = partial(torch.randn, dtype=torch.float64, generator=generator)
    gradient, values, weight = (draw(10, d) * draw(10, d).exp2()).to(dtype), draw(300, d).to(dtype), draw(carriers)
    gradient[0, 0], gradient[1, 0], gradient[2, 0] = torch.nan, torch.inf, 1e-40
    weight = weight.to(torch.promote_types(dtype, torch.float32))
    token = torch.randperm(300, generator=generator)[:carriers]
    found = Carriers(token, weight, torch.randint(0, 10, (carriers,), generator=generator).sort().values)
    ours, expected = (
        backends.BACKENDS[x].carrier_gradients(gradient, values, found, *of) for x in ("native", "tensors")
    )
    torch.testing.assert_close(ours[0], expected[0], rtol=0, atol=0, equal_nan=True)  # each product is rounded once
    torch.testing.assert_close(ours[1], expected[1], rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("d", [512, 520])  # whole lines of a cache, and not
@pytest.mark.parametrize("dtype", native.OF_VALUES)
def test_gradients_past_the_caches_are_those_of_tensor_operations(dtype, d):
    generator = torch.Generator().manual_seed(0)
    gradient, values = (torch.randn(size, d, generator=generator).to(dtype) for size in (10, 9000))
    token = torch.randperm(9000, generator=generator)[:8000]
    weight = torch.randn(8000, generator=generator).to(torch.promote_types(dtype, torch.float32))
    found = Carriers(token, weight, torch.randint(0, 10, (8000,), generator=generator).sort().values)
    assert values.nbytes > 2**23
    ours, expected = (
        backends.BACKENDS[x].carrier_gradients(gradient, values, found, True, False)[0] for x in ("native", "tensors")
    )
    assert torch.equal(ours, expected)


def test_what_is_called_in_c_has_wide_registers_or_begins_by_cleaning_them():
    folder = Path(native.__file__).parent
    begins = re.compile(r"^(CLONES )?EXPORT int NAME\((\w+)\)[^{;]*\{\n *(\S+)", re.MULTILINE)
    found = [one for path in folder.glob("*.h") for one in begins.findall(path.read_text())]
    assert len(found) > 7
    assert [name for clones, name, first in found if not clones and first != "clean_registers();"] == []


def test_every_number_is_rounded_to_bfloat16_as_torch_does():
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)  # all there are
    weights = torch.tensor([1.0, -1.0, 1 + 2**-8, 1 + 2**-7, 0.3, 1e-30, 1e30, 2**-126, 0])
    weights.view(torch.int32)[-1] = 2**31 - 1  # no number, and would be 0 if rounded as one
    found = Carriers(torch.arange(9), weights, torch.zeros(9, dtype=torch.long))
    ours, _ = backends.BACKENDS["native"].carrier_gradients(halves[None], halves.expand(9, -1), found, True, False)
    expected = (halves * weights[:, None]).bfloat16()
    assert torch.equal(ours.isnan(), expected.isnan())
    assert torch.equal(ours.nan_to_num().view(torch.int16), expected.nan_to_num().view(torch.int16))


def test_slots_out_of_range_are_refused():
    values, weights = torch.ones(1, 6, 8, requires_grad=True), torch.ones(1, 6, requires_grad=True)
    pooled = pool_by_slot(values, weights, torch.tensor([[0, 1, 2, 0, 1, 2]]), 2)
    with pytest.raises(IndexError, match=r"expected slots in 0\.\.1, got 0\.\.2"):
        pooled.sum().backward()


def test_a_compiled_backward_of_an_eager_forward_is_right():
    torch._dynamo.reset()
    values, scores = torch.randn(2, 64, 4, requires_grad=True), torch.randn(2, 64, requires_grad=True)

    def gradients(backward):
        values.grad = scores.grad = None
        backward(successive_halving_topk(values, scores, 40, temperature=1.0).values.square().sum())
        return values.grad, scores.grad

    eager = gradients(lambda loss: loss.backward())
    compiled = gradients(torch.compile(lambda loss: loss.backward(), backend="eager"))
    torch.testing.assert_close(compiled, eager)


@pytest.mark.parametrize("factor", [torch.nan, torch.inf])
def test_a_loss_that_is_no_number_gives_such_gradients(factor):
    values, scores = torch.randn(2, 64, 4, requires_grad=True), torch.randn(2, 64, requires_grad=True)
    (successive_halving_topk(values, scores, 5, temperature=1.0).values.sum() * factor).backward()
    assert not values.grad.isfinite().all() and not scores.grad.isfinite().all()


def test_scores_that_are_not_numbers_break_nothing():
    scores = torch.full((3, 600), torch.nan)
    scores[1, ::2], scores[2] = torch.randn(300), torch.tensor(0.0) / 0.0
    scores.requires_grad_()
    out = successive_halving_topk(torch.randn(3, 600, 4), scores, 5)
    assert ((out.positions >= 0) & (out.positions < 600)).all()
    out.values.sum().backward()


def test_gradients_that_are_views_in_name_only_are_read_right():
    values, scores = torch.randn(1, 64, 4, requires_grad=True), torch.randn(1, 64)
    pooled = successive_halving_topk(values, scores, 4).values
    for gradient in (torch._neg_view(torch.ones(1, 4, 4)), torch._efficientzerotensor((1, 4, 4))):
        (found,) = torch.autograd.grad(pooled, values, gradient, retain_graph=True)
        (expected,) = torch.autograd.grad(pooled, values, gradient.clone() + torch.zeros(1, 4, 4), retain_graph=True)
        torch.testing.assert_close(found, expected)


def test_a_library_of_another_version_is_not_used(monkeypatch):
    assert native.open_library() is not None
    monkeypatch.setattr(native, "VERSION", native.VERSION + 1)
    with pytest.warns(UserWarning, match="cannot be used .*install shtopk again"):
        assert native.open_library() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("n", "k", "d"), [(1, 1, 3), (4, 9, 5), (40, 13, 8), (300, 8, 16), (300, 20, 33), (900, 70, 40)]
)
def test_c_leads_and_joins_as_tensor_operations_do(n, k, d, dtype):
    generator = torch.Generator().manual_seed(n)
    values = torch.randn(6, n, d, generator=generator, dtype=torch.float64).to(dtype)
    logits = scores_of(n, "softmax", dtype)
    values[logits == -torch.inf] = torch.nan
    values[3, ::3] = 0  # no direction
    values[2] *= 1e-30  # whose square is 0 in float32
    scores = bounded(logits, None).masked_fill(logits == -torch.inf, -torch.inf) * 2
    ours, expected = (backends.BACKENDS[name].merge(values, scores, logits, k)[0] for name in ("native", "tensors"))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)
    assert (ours.slots[0] >= 0).any() and (ours.slots[5] == -1).all()


def test_the_number_of_threads_changes_no_slot(monkeypatch):
    monkeypatch.setattr(native, "ENOUGH", 100)
    values, logits = torch.randn(5, 300, 24), torch.randn(5, 300)
    found = []
    for count in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        found.append(backends.BACKENDS["native"].merge(values, logits, logits, 20)[0])
    assert all(one.equal(three) for one, three in zip(*found, strict=True))
