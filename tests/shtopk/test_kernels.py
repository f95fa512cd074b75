"""The Triton kernels give what tensor operations give: on a GPU, or in Triton's interpreter.

Triton asks for its interpreter when a kernel's module is imported: test_kernels_without_gpu.py runs this file in a
process of its own. The interpreter cuts numbers off where it makes bfloat16 of float32, which a GPU rounds, and does
not see a missing barrier.
"""

import os

import pytest
import torch

from shtopk.backends.face import Gradients, Wanted
from shtopk.backends.tensors import Tensors
from shtopk.rule import Rule

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not INTERPRETED and not torch.cuda.is_available():
    pytest.skip("needs a CUDA device, or TRITON_INTERPRET=1", allow_module_level=True)
launch = pytest.importorskip("shtopk.backends.gpu.launch")
given_slots = pytest.importorskip("shtopk.backends.gpu.given_slots")
Sizes, SIZES = launch.Sizes, launch.SIZES
trial = pytest.importorskip("shtopk.backends.gpu.trial")

DEVICE = "cpu" if INTERPRETED else "cuda"
ONE_PROGRAM = Sizes(block=1024, found=256, alone=512)
CHUNKS = Sizes(block=128, found=32, alone=32, chunk=32)  # a k-th best bounded by groups, sorting in chunks
BLOCKS = Sizes(block=64, found=16, alone=64, chunk=16)  # more than groups can bound, looked through in blocks
CUTS = {"one": ONE_PROGRAM, "chunks": CHUNKS, "blocks": BLOCKS}

B, D = 3, 20
MANY = 33 if INTERPRETED else 100  # slots, more than CHUNKS finds at once; the interpreter takes seconds for as many
SHAPES = [(64, 8), (100, 7), (257, 5), (33, 33), (5, 9), (1, 1), (17, 1), (300, MANY)]
WAYS = [
    ("softmax", 1e-6),
    ("softmax", 1 / 16),
    ("softmax", 4.0),
    ("relative", 1 / 16),
    ("relative", 1.0),
    ("power", 1.0),
]


def normal(n):
    return torch.randn(B, n)


def ties(n):
    return torch.randint(0, 5, (B, n)).float()


def equal(n):
    return torch.zeros(B, n)


def huge(n):
    return torch.where(torch.rand(B, n) < 0.2, -torch.inf, torch.randn(B, n) * 1e30)


def inputs(n, k, make=normal, masked=True, dtype=torch.float32, seed=0):
    """Values, scores and a mask whose rows have no, about half of and all their tokens; and gradients."""
    torch.manual_seed(seed)
    values, scores = torch.randn(B, n, D).to(dtype), make(n).to(dtype)
    mask = torch.rand(B, n) < torch.linspace(0, 1, B).unsqueeze(-1) if masked else None
    incoming = Gradients(torch.randn(B, k, D).to(dtype), torch.randn(B, k).to(dtype), torch.randn(B, n))
    on = [None if x is None else x.to(DEVICE) for x in (values, scores, mask)]
    return (*on, Gradients(*(x.to(DEVICE) for x in incoming)))


def check(n, k, boost, temperature, cut, of=None, on_device=False, **options):
    """Compare everything with tensor operations; of: the gradients that arrive, by default all."""
    values, scores, mask, incoming = inputs(n, k, **options)
    incoming = Gradients(*(x if of is None or name in of else None for name, x in incoming._asdict().items()))
    rule, temperature = Rule.of(boost, 20.0), torch.tensor(float(temperature), device=DEVICE if on_device else "cpu")
    everything = Wanted(True, True, True)
    oracle = Tensors()
    expected, saved = oracle.forward(values, scores, mask, temperature, k, rule)
    expected_gradients = oracle.backward(saved, incoming, rule, everything)
    found, played = launch.forward(values, scores, mask, temperature, k, rule, cut)
    of_values, of_scores, of_log = launch.backward(values, played, incoming, rule, everything)
    close = {"atol": 2e-5, "rtol": 2e-5} if values.dtype == torch.float32 else {"atol": 2e-2, "rtol": 2e-2}
    wide = {name: 10 * value for name, value in close.items()}

    def same(name, x, y, within, scale=0.0):
        scale = max(1.0, scale, float(y.abs().max()) if y.numel() else 1.0)
        torch.testing.assert_close(
            x.float().cpu() / scale, y.float().cpu() / scale, **within, msg=lambda text: f"{name}: {text}"
        )

    same("scores", found.scores, expected.scores, close)
    if not INTERPRETED and temperature >= 1 and not torch.equal(found.slots, expected.slots):
        # After soft rounds scores lie within rounding of each other, which a GPU does in its own way.
        empty = torch.zeros_like(found.scores, dtype=torch.float32)
        sums = [empty.scatter_add(1, one.slots.clamp(min=0), one.weights) for one in (found, expected)]
        same("weights of the slots", *sums, close)
        return
    for name in ("mask", "positions", "slots"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    for name in ("values", "scores", "weights"):
        assert getattr(found, name).dtype == getattr(expected, name).dtype
        same(name, getattr(found, name), getattr(expected, name), close)
    assert (of_values is None) == (expected_gradients[0] is None)
    if of_values is not None:
        same("gradient of values", of_values, expected_gradients[0], close)
    same("gradient of scores", of_scores, expected_gradients[1], wide)
    # It sums differences of scores, which may cancel: its rounding error is in units of the largest score.
    largest = float(scores.abs().masked_fill(scores.isinf(), 0).max())
    same("gradient of temperature", of_log / temperature, expected_gradients[2], wide, largest)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("boost", "temperature"), WAYS)
def test_kernels_halve_as_tensor_operations_do(boost, temperature, cut):
    here = list(CUTS).index(cut) + WAYS.index((boost, temperature))
    for i, (n, k) in enumerate(SHAPES):
        if (i + here) % (8 if INTERPRETED else 3) == 0:  # each shape and each way: all pairs would take minutes
            check(n, k, boost, temperature, CUTS[cut], masked=i % 2 == 0, seed=i)


@pytest.mark.parametrize(("boost", "cut"), [("softmax", "chunks"), ("relative", "one"), ("relative", "blocks")])
@pytest.mark.parametrize("make", [ties, equal, huge])
def test_kernels_rank_equal_and_huge_scores_as_tensor_operations_do(make, boost, cut):
    check(60, 7, boost, 0.5, CUTS[cut], make=make)


def test_kernels_teach_nothing_where_powers_rise_no_further():
    check(40, 5, "power", 1.0, ONE_PROGRAM, make=lambda n: 20 * torch.rand(B, n), of=("weights",))


def test_kernels_bound_the_kth_score_by_groups_and_give_up_where_too_many_reach_the_bound():
    cut = Sizes(block=256, found=64, alone=128)  # of 300 tokens: fewer than a fourth
    check(300, 7, "relative", 0.1, cut)
    check(300, 7, "softmax", 0.1, cut)
    check(300, 7, "relative", 0.1, cut, make=lambda n: torch.arange(n).remainder(2).float().expand(B, n).clone())
    check(300, 60, "relative", 0.1, cut)  # more are wanted than groups can bound


def test_kernels_take_any_strides_and_mixed_types():
    for dtype, of_scores in ((torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)):
        values, scores, _, incoming = inputs(60, 7)
        values = values.to(dtype).transpose(0, 2).contiguous().transpose(0, 2)  # not contiguous
        scores = scores.to(of_scores).t().contiguous().t()
        rule, temperature, wanted = Rule.of("softmax", 20.0), torch.tensor(0.5), Wanted(True, True, True)
        incoming = Gradients(incoming.values[:1, :1].to(dtype).expand(B, 7, D), None, None)
        expected, saved = Tensors().forward(values, scores, None, temperature, 7, rule)
        found, played = launch.forward(values, scores, None, temperature, 7, rule)
        assert torch.equal(found.slots, expected.slots)
        torch.testing.assert_close(found.values, expected.values, rtol=2e-2, atol=2e-2)
        for x, y in zip(launch.backward(values, played, incoming, rule, wanted)[:2],
                        Tensors().backward(saved, incoming, rule, wanted)[:2], strict=True):  # fmt: skip
            torch.testing.assert_close(x.float(), y.float(), rtol=2e-2, atol=5e-2)


def test_kernels_take_an_empty_batch_and_slots_of_any_whole_numbers():
    values = torch.randn(16, 8, 0, device=DEVICE).permute(2, 1, 0).half()
    rule, wanted = Rule.of("softmax", 20.0), Wanted(True, True, False)
    answer, played = launch.forward(values, values[..., 0], None, torch.tensor(1.0), 3, rule)
    gradients = launch.backward(values, played, Gradients(answer.values, None, None), rule, wanted)
    assert [x.shape for x in gradients[:2]] == [values.shape, values.shape[:2]]
    values, slots = torch.randn(2, 9, 4, device=DEVICE), torch.arange(9, device=DEVICE).expand(2, 9) // 3
    weights = torch.rand(2, 9, device=DEVICE)
    assert torch.equal(given_slots.pool(values, weights, slots.int(), 3),
                       given_slots.pool(values, weights, slots, 3))  # fmt: skip


def test_the_trial_finds_no_difference_whatever_the_defaults_are():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        assert trial.difference(torch.device(DEVICE)) == ""
    finally:
        torch.set_default_dtype(before)


def test_the_trial_finds_a_difference(monkeypatch):
    backward = launch.backward
    monkeypatch.setattr(launch, "backward", lambda *given: (backward(*given)[0], backward(*given)[1] * 1.01, None))
    assert trial.difference(torch.device(DEVICE)).startswith("gradients of scores differ by up to")


def test_kernels_take_a_temperature_that_lies_on_the_device():
    check(100, 7, "softmax", 0.5, ONE_PROGRAM, on_device=True)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_kernels_take_half_precision(dtype):
    check(257, 5, "softmax", 0.25, ONE_PROGRAM, dtype=dtype)


@pytest.mark.parametrize(("cut", "dtype"), [
    ("one", torch.bfloat16), ("chunks", torch.float16), ("blocks", torch.bfloat16),
    *([] if INTERPRETED else [("one", torch.float16), ("chunks", torch.bfloat16), ("blocks", torch.float16)]),
])  # fmt: skip
def test_kernels_find_the_kth_of_many_scores_in_half_precision(cut, dtype):
    """Their low bits, which are all alike, are not looked at."""
    check(140, min(MANY, 40), "relative", 0.25, CUTS[cut], dtype=dtype)
    check(140, min(MANY, 40), "softmax", 0.01, CUTS[cut], dtype=dtype, make=lambda n: torch.randn(B, n) * 5 - 20)


@pytest.mark.parametrize("of", [("values",), ("scores",), ("weights",), ()])
def test_kernels_take_the_gradients_that_arrive(of):
    check(100, 7, "softmax", 0.5, ONE_PROGRAM, of=of)


@pytest.mark.parametrize(
    "wanted", [Wanted(True, False, False), Wanted(False, True, False), Wanted(False, False, True)]
)
def test_kernels_give_the_gradients_that_are_wanted(wanted):
    values, scores, mask, incoming = inputs(100, 7)
    rule, temperature = Rule.of("softmax", 20.0), torch.tensor(0.5)
    _, played = launch.forward(values, scores, mask, temperature, 7, rule)
    every = launch.backward(values, played, incoming, rule, Wanted(True, True, True))
    some = launch.backward(values, played, incoming, rule, wanted)
    assert [x is not None for x in some] == [wanted.values, wanted.scores or wanted.temperature, wanted.temperature]
    assert all(torch.equal(x, y) for x, y in zip(some, every, strict=True) if x is not None)


@pytest.mark.parametrize("chunk", [16, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_kernels_pool_by_given_slots(dtype, chunk):
    for n, k in ((1, 1), (40, 3), (90, 40)):
        values, _, mask, incoming = inputs(n, k, dtype=dtype)
        slots = torch.randint(-1, k, (B, n), device=DEVICE)
        slots = slots.masked_fill(~mask, -1)
        weights = torch.rand(B, n, device=DEVICE).masked_fill(slots < 0, 0)
        values[slots < 0] = torch.nan  # is not read
        oracle = Tensors()
        expected, saved = oracle.pool(values, weights, slots, k)
        sizes = SIZES._replace(chunk=chunk)
        close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 5e-2, "rtol": 2e-2}
        torch.testing.assert_close(given_slots.pool(values, weights, slots, k, sizes), expected, **close)
        found = given_slots.unpool(incoming.values, values, weights, slots, True, True)
        carried = slots >= 0
        for gradient, of_tensors in zip(found, oracle.pool_backward(saved, incoming.values, True, True), strict=True):
            torch.testing.assert_close(gradient[carried], of_tensors[carried].to(gradient.dtype), **close)
            assert (gradient[~carried] == 0).all()


def test_kernels_give_the_same_bits_each_time():
    values, scores, mask, incoming = inputs(257, 5)
    rule, temperature, wanted = Rule.of("softmax", 20.0), torch.tensor(1.0), Wanted(True, True, True)
    runs = []
    for _ in range(2):
        answer, played = launch.forward(values, scores, mask, temperature, 5, rule, CHUNKS)
        runs.append([*answer, *launch.backward(values, played, incoming, rule, wanted)])
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))
