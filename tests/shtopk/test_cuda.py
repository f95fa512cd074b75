"""On a GPU the operators give what they give on the CPU, values and gradients, and never wait for the host."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from operator_cases import OPERATORS, SHAPES, gradients, power_halving, sample, softmax_halving

from shtopk import TopKPooling, anneal, backends, hard_topk, successive_halving_topk

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
CUDA = torch.device("cuda", 0)


def assert_same_on_cuda(operator, n, k, dtype):
    values, scores, mask = sample(n, d=8, dtype=dtype)
    inputs = [x.detach().cuda().requires_grad_() for x in (values, scores)]
    out, on_gpu = operator(values, scores, k, mask=mask), operator(*inputs, k, mask=mask.cuda())
    assert on_gpu.positions.tolist() == out.positions.tolist()
    torch.testing.assert_close((on_gpu.values.cpu(), on_gpu.scores.cpu()), (out.values, out.scores))
    torch.testing.assert_close(on_gpu.dense_weights().cpu(), out.dense_weights())
    for on_cpu, gradient in zip(gradients(values, scores, out.values, out.scores),
                                gradients(*inputs, on_gpu.values, on_gpu.scores), strict=True):  # fmt: skip
        # A gradient is a sum of terms as large as the largest one, and where they cancel their rounding errors stay.
        atol = 1e-6 * max(10.0, float(on_cpu.abs().max()))
        torch.testing.assert_close(gradient.cpu(), on_cpu, rtol=1e-4, atol=atol)


@pytest.mark.parametrize(("n", "k"), [*SHAPES, (1000, 32)])
@pytest.mark.parametrize("operator", [*OPERATORS, power_halving])
def test_cuda_equals_cpu(operator, n, k):
    assert_same_on_cuda(operator, n, k, torch.float64)


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (4, 9), (63, 8), (1000, 32)])
@pytest.mark.parametrize("operator", [*OPERATORS, power_halving])
def test_cuda_equals_cpu_in_float32(operator, n, k):
    assert_same_on_cuda(operator, n, k, torch.float32)


@pytest.mark.parametrize("operator", [*OPERATORS, power_halving])
def test_a_temperature_on_the_gpu_goes_with_scores_on_the_cpu(operator):
    values, scores, mask = sample(20)
    learnt = torch.tensor([0.5], device=CUDA, requires_grad=True)
    out = operator(values, scores, 4, mask=mask, temperature=learnt)
    torch.testing.assert_close(out.values, operator(values, scores, 4, mask=mask, temperature=0.5).values)


def test_the_kernels_are_used():
    values, scores = torch.randn(2, 100, 8, device=CUDA), torch.randn(2, 100, device=CUDA)
    assert backends.pick(values, scores) is backends.BACKENDS["gpu"]
    assert backends.pick(values.double(), scores.double()) is backends.BACKENDS["tensors"]


@pytest.mark.parametrize("temperature", [1 / 16, 4.0])
@pytest.mark.parametrize(("n", "k"), [(16384, 128), (4096, 512), (40_000, 64)])
def test_soft_choices_of_long_inputs_agree_in_scores_weights_and_loss(n, k, temperature):
    """After soft rounds scores lie within rounding of each other, so that equal slots cannot be asked for."""
    values = torch.randn(2, n, 16, generator=torch.Generator().manual_seed(0))
    scores = torch.randn(2, n, generator=torch.Generator().manual_seed(1))
    out = successive_halving_topk(values, scores, k, temperature=temperature)
    on_gpu = successive_halving_topk(values.cuda(), scores.cuda(), k, temperature=temperature)
    torch.testing.assert_close(on_gpu.scores.cpu(), out.scores, rtol=1e-5, atol=1e-5)
    of_slots = [torch.zeros(2, k).scatter_add_(1, one.slots.cpu().clamp(min=0), one.weights.cpu())
                for one in (on_gpu, out)]  # fmt: skip
    torch.testing.assert_close(*of_slots, rtol=1e-4, atol=1e-4)
    losses = [one.values.square().mean().cpu() for one in (on_gpu, out)]
    torch.testing.assert_close(*losses, rtol=0.05, atol=0)  # of some thousand numbers, where a few slots differ


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_autocast_trains_the_scorer(dtype):
    pooling = TopKPooling(16, 4, initial_temperature=4.0).cuda()
    with torch.autocast("cuda", dtype=dtype):
        pooled = pooling(torch.randn(2, 100, 16, device="cuda"))
        pooled.hidden_states.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in [pooling.scorer.weight])


def step(pooling, hidden_states, mask):
    """The pooled vectors and both gradients."""
    pooled = pooling(hidden_states, mask).hidden_states
    return pooled, *torch.autograd.grad(pooled.square().sum(), [hidden_states, pooling.scorer.weight])


def pooling_and_inputs(**options):
    torch.manual_seed(0)
    pooling = TopKPooling(32, 8, **options).cuda().train()
    hidden_states = torch.randn(4, 300, 32, device=CUDA, requires_grad=True)
    return pooling, hidden_states, torch.rand(4, 300, device=CUDA) < 0.8


@pytest.mark.parametrize("operator", ["successive_halving", "successive_halving_relative", "hard_gated"])
def test_a_step_is_captured_in_a_cuda_graph(operator):
    pooling, hidden_states, mask = pooling_and_inputs(operator=operator, protected=(0,))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step(pooling, hidden_states, mask)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(pooling, hidden_states, mask)
    with torch.no_grad():
        hidden_states.copy_(torch.randn_like(hidden_states))
    mask.copy_(torch.rand(mask.shape, device=CUDA) < 0.3)
    graph.replay()
    for found, expected in zip(captured, step(pooling, hidden_states, mask), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("operator", ["successive_halving", "hard_gated"])
def test_a_step_compiles_in_one_graph_that_is_replayed(operator):
    torch._dynamo.reset()
    pooling, hidden_states, mask = pooling_and_inputs(operator=operator)
    compiled = torch.compile(pooling, fullgraph=True, mode="reduce-overhead")
    for progress in (0.0, 0.5, 1.0):
        anneal(pooling, progress)
        expected = step(pooling, hidden_states, mask)
        torch.compiler.cudagraph_mark_step_begin()
        pooled = compiled(hidden_states, mask).hidden_states
        found = (pooled, *torch.autograd.grad(pooled.square().sum(), [hidden_states, pooling.scorer.weight]))
        torch.testing.assert_close([x.clone() for x in found], list(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("operator", ["successive_halving", "successive_halving_relative", "hard_gated", "iterative"])
def test_a_step_never_waits_for_the_host(operator):
    pooling, hidden_states, mask = pooling_and_inputs(operator=operator, protected=(0, -1))
    step(pooling, hidden_states, mask)
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(pooling, hidden_states, mask)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("padded", [False, True])
def test_a_training_step_of_the_classifier_with_pooling_between_layers_never_waits(padded, monkeypatch):
    from tiny import BERT
    from transformers import BertConfig, masking_utils

    from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification

    # Transformers asks whether there is padding at all, which waits, whatever the attention: its own code, not ours.
    monkeypatch.setattr(masking_utils, "_ignore_bidirectional_mask_sdpa", lambda *_: False)
    config = TopKPoolingConfig(backbone=BertConfig(**BERT), k=4, k_by_layer={1: 12}, num_labels=3)
    model = TopKPoolingForSequenceClassification(config).cuda().train()
    optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
    ids, labels = torch.randint(4, 30, (4, 40), device=CUDA), torch.tensor([0, 1, 2, 0], device=CUDA)
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 20:] = 0

    def update():
        model(input_ids=ids, attention_mask=mask, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("topk", [softmax_halving, hard_topk])
def test_runs_are_equal_bit_by_bit(topk):
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        values, scores = (torch.randn(3, 5000, *d, device=CUDA, requires_grad=True) for d in ((64,), ()))
        out = topk(values, scores, 50)
        runs.append([out.values, out.weights, *torch.autograd.grad(out.values.square().sum() + out.scores.sum(),
                                                                  [values, scores])])  # fmt: skip
    assert all(torch.equal(x, y) for x, y in zip(*runs, strict=True))


def test_a_temperature_is_learnt_on_the_gpu_as_on_the_cpu():
    gradients_of = []
    for device in ("cpu", "cuda"):
        values, scores, mask = (x.detach().to(device) for x in sample(60, d=8, dtype=torch.float32))
        temperature = torch.tensor(0.5, device=device, requires_grad=True)
        successive_halving_topk(values, scores, 7, mask=mask, temperature=temperature).values.square().sum().backward()
        gradients_of.append(temperature.grad.cpu())
    torch.testing.assert_close(*gradients_of, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_a_second_gpu_need_not_be_the_current_one():
    values, scores = torch.randn(2, 300, 8, device="cuda:1"), torch.randn(2, 300, device="cuda:1")
    found = successive_halving_topk(values, scores, 7)
    assert found.values.device.index == 1
    torch.testing.assert_close(found.values.cpu(), successive_halving_topk(values.cpu(), scores.cpu(), 7).values)


@pytest.mark.parametrize("temperature", [1 / 16, 4.0])
def test_little_is_kept_for_backward(temperature):
    values = torch.randn(4, 4096, 256, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    scores = torch.randn(4, 4096, device=CUDA, dtype=torch.bfloat16, requires_grad=True)
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = successive_halving_topk(values, scores, 128, temperature=temperature)
    assert out.values.requires_grad
    of_values = values.untyped_storage()
    assert kept.pop(of_values.data_ptr()) == of_values.nbytes()
    assert sum(kept.values()) <= 0.03 * of_values.nbytes()


SANITIZED = """
import torch
from shtopk import successive_halving_topk
for n, k in ((64, 8), (300, 7), (3000, 20)):
    values = torch.randn(2, n, 40, device="cuda", requires_grad=True)
    scores = torch.randn(2, n, device="cuda", requires_grad=True)
    out = successive_halving_topk(values, scores, k, temperature=1.0)
    (out.values.square().sum() + out.scores.sum() + out.pool(values).sum()).backward()
    torch.cuda.synchronize()
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("compute-sanitizer") is None, reason="needs compute-sanitizer")
@pytest.mark.parametrize(("tool", "nothing"), [("memcheck", r"\b0 errors"), ("racecheck", r"\b0 hazards")])
def test_the_sanitizer_finds_nothing(tool, nothing):
    """racecheck sees shared memory alone; barriers between writes and reads of global memory it does not judge."""
    kernels = ("field", "play", "sort_chunks", "merge_chunks", "pool", "carriers", "sort_few")
    regex = [word for name in kernels for word in ("--kernel-regex", f"kns={name}")]
    run = subprocess.run(
        ["compute-sanitizer", "--tool", tool, "--error-exitcode", "1", *regex, sys.executable, "-c", SANITIZED],
        capture_output=True, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    assert re.search(nothing, run.stdout), run.stdout[-2000:]
