"""On a GPU the operators give what they give on the CPU, values and gradients."""

import pytest
import torch
from operator_cases import OPERATORS, SHAPES, gradients, sample

from shtopk import TopKPooling

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.parametrize(("n", "k"), [*SHAPES, (1000, 32)])
@pytest.mark.parametrize("operator", OPERATORS)
def test_cuda_equals_cpu(operator, n, k):
    values, scores, mask = sample(n, d=8)
    inputs = [x.detach().cuda().requires_grad_(x.is_floating_point()) for x in (values, scores)]
    out, on_gpu = operator(values, scores, k, mask=mask), operator(*inputs, k, mask=mask.cuda())
    assert on_gpu.positions.tolist() == out.positions.tolist()
    torch.testing.assert_close((on_gpu.values.cpu(), on_gpu.scores.cpu()), (out.values, out.scores))
    torch.testing.assert_close(on_gpu.dense_weights().cpu(), out.dense_weights())
    for on_cpu, gradient in zip(gradients(values, scores, out.values, out.scores),
                                gradients(*inputs, on_gpu.values, on_gpu.scores), strict=True):  # fmt: skip
        torch.testing.assert_close(gradient.cpu(), on_cpu)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_cuda_autocast_trains_the_scorer(dtype):
    pooling = TopKPooling(16, 4, initial_temperature=4.0).cuda()
    with torch.autocast("cuda", dtype=dtype):
        pooled = pooling(torch.randn(2, 100, 16, device="cuda"))
        pooled.hidden_states.float().square().sum().backward()
    assert all(p.grad.isfinite().all() and (p.grad != 0).any() for p in [pooling.scorer.weight])
