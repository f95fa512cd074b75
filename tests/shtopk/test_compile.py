"""Compilers take TopKPooling as it is: one graph, for any n, forward and backward."""

import pytest
import torch
from compilers import INDUCTOR
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend

from shtopk import TopKPooling, anneal, compiled
from shtopk.operators import OPERATORS
from shtopk.rule import Rule

BACKENDS = ["aot_eager", pytest.param("inductor", marks=INDUCTOR)]
TEACHING = [name for name, operator in OPERATORS.items() if operator.teaches]


def pooled_and_gradients(function, pooling, n):
    generator = torch.Generator().manual_seed(n)
    hidden_states = torch.randn(3, n, 8, generator=generator).requires_grad_()
    mask = torch.rand(3, n, generator=generator) < 0.8
    pooling.zero_grad()
    pooled = function(hidden_states, mask)
    pooled.hidden_states.square().sum().backward()
    return pooled.hidden_states, pooled.positions, hidden_states.grad, pooling.scorer.weight.grad.clone()


def assert_same(compiled, pooling, n):
    torch.testing.assert_close(pooled_and_gradients(compiled, pooling, n), pooled_and_gradients(pooling, pooling, n))


@pytest.fixture(autouse=True)
def nothing_compiled():
    torch._dynamo.reset()
    torch.manual_seed(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_graph_serves_every_length(backend):
    pooling = TopKPooling(8, 4, protected=(0,), initial_temperature=4.0).train()
    anneal(pooling, 0.5)
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(pooling, fullgraph=True, dynamic=True, backend=counter)
    graphs = set()
    for n in (40, 57, 128, 1000):
        assert_same(compiled, pooling, n)
        graphs.add(counter.frame_count)
    assert len(graphs) == 1  # none after the first length


def test_annealing_compiles_nothing_anew():
    pooling = TopKPooling(8, 4, initial_temperature=4.0).train()
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(pooling, fullgraph=True, dynamic=True, backend=counter)
    for update in range(20):
        anneal(pooling, update / 19)
        assert_same(compiled, pooling, 40)
    assert counter.frame_count <= 2


@pytest.mark.parametrize("operator", TEACHING)
def test_every_operator_compiles_in_one_graph(operator):
    pooling = TopKPooling(8, 4, operator=operator)
    assert_same(torch.compile(pooling, fullgraph=True, backend="aot_eager"), pooling, 40)


@pytest.mark.parametrize("backend", BACKENDS)
def test_select_and_merge_compiles_in_eval_mode_with_its_gradients(backend):
    pooling = TopKPooling(8, 4, protected=(0,)).eval()
    assert pooling.eval_operator == "select_and_merge"
    compiled = torch.compile(pooling, fullgraph=True, dynamic=True, backend=backend)
    for n in (40, 57):
        assert_same(compiled, pooling, n)


@pytest.mark.parametrize("operator", TEACHING)
def test_a_compiled_step_computes_nothing_beside_its_device(operator):
    graphs = []

    def take(graph, _):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    pooling = TopKPooling(8, 4, operator=operator).to("meta").train()
    function = torch.compile(pooling, fullgraph=True, backend=aot_autograd(fw_compiler=take, bw_compiler=take))
    function(torch.empty(3, 40, 8, device="meta", requires_grad=True)).hidden_states.sum().backward()
    assert len(graphs) == 2
    computed = [node for graph in graphs for node in graph.graph.nodes if node.op == "call_function"]
    tensors = {node: node.meta["val"] for node in computed if isinstance(node.meta.get("val"), torch.Tensor)}
    elsewhere = {node.target for node, x in tensors.items() if x.device.type != "meta"}
    assert elsewhere <= {torch.ops.aten.view.default}  # of the temperature, which is on the CPU


@pytest.mark.parametrize(("n", "k"), [(1, 1), (7, 3), (16, 4), (5, 9)])
@pytest.mark.parametrize("boost", ["relative", "softmax", "power"])
@pytest.mark.usefixtures("backend")
def test_the_registered_operators_keep_the_rules_of_torch(boost, n, k):
    scores = torch.rand(2, n, dtype=torch.float64).requires_grad_()
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, n, 3, dtype=torch.float64).requires_grad_()
    mask = torch.rand(2, n) < 0.8
    torch.library.opcheck(compiled.successive_halving, (values, scores, mask, temperature, k, *Rule.of(boost, 20.0)))
    turned = torch.randn(1, 3, n, dtype=torch.float64).transpose(1, 2).requires_grad_()  # as of a convolution
    torch.library.opcheck(
        compiled.successive_halving, (turned, scores[:1], None, temperature, k, *Rule.of(boost, 20.0))
    )
    torch.library.opcheck(compiled.pool_by_slot, (turned, scores[:1], torch.randint(0, k, (1, n)), k))
    logits = (scores.detach() / 0.5).requires_grad_()
    torch.library.opcheck(compiled.select_and_merge, (values, scores, logits, k))
    weights = torch.rand(2, n, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(compiled.pool_by_slot, (values, weights, torch.randint(0, k, (2, n)), k))
