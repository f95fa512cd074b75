"""Nothing meets on two devices, and a training step does not wait for a GPU: tried without one.

Fake tensors on the device "meta" stand for a GPU's. They hold no numbers, so that two devices in one operation are
refused as a GPU would refuse them, and so is all that asks for a number, for which a host waits: `item`, `if tensor`,
`nonzero`, an index that is a mask. The backends alone may ask, and are answered with made-up ones.
"""

import sys
from contextlib import contextmanager

import pytest
import torch
from encoders import CONFIGS
from encoders import build as build_encoder
from operator_cases import OPERATORS as FUNCTIONS
from operator_cases import power_halving
from seq2seq_families import build as build_seq2seq
from tiny import BERT
from torch._functorch import config
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map
from transformers import BertConfig

import shtopk.pooling
from shtopk import TopKPooling, anneal, compiled, successive_halving_topk
from shtopk.backends import carriers
from shtopk.backends.carriers import Carriers
from shtopk.integrations.decoders.layout import spread
from shtopk.integrations.encoder import pool_encoder
from shtopk.integrations.layers.installation import find
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification
from shtopk.operators import OPERATORS
from shtopk.scorers import SCORERS

GPU = "meta"
N = 50
TEMPERATURES = {
    "number": lambda: 0.5,
    "on the CPU": lambda: torch.tensor(0.5),
    "on the CPU, [1]": lambda: torch.tensor([0.5]),
    "on the GPU": lambda: torch.full((), 0.5, device=GPU),
    "on the GPU, [1, 1]": lambda: torch.full((1, 1), 0.5, device=GPU),
    "learnt on the GPU": lambda: torch.full((), 0.5, device=GPU, requires_grad=True),
    "learnt on the CPU, [1]": lambda: torch.tensor([0.5], requires_grad=True),
}


class Log(TorchDispatchMode):
    """Keeps the operations, and what was copied between devices."""

    def __init__(self):
        super().__init__()
        self.operations, self.copies = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations.append(str(func))
        if str(func) in ("aten._to_copy.default", "aten.copy_.default"):
            source = args[0] if "_to_copy" in str(func) else args[1]
            if source.device != out.device:
                self.copies.append(f"{source.device.type} to {out.device.type}")
        return out


@contextmanager
def gpu(playing=20):
    """The log of a GPU. playing: how many tokens are said to play in the tournament."""

    def in_backend():
        return sys._getframe(2).f_globals["__name__"].startswith("shtopk.backends")

    def nonzero(x, **options):
        return x.new_zeros(7, x.dim(), dtype=torch.long) if in_backend() else real_nonzero(x, **options)

    def tolist(x):
        return [playing] * x.numel() if in_backend() else real_tolist(x)

    real_nonzero, real_tolist = torch.Tensor.nonzero, FakeTensor.tolist
    allowed = config.patch(fake_tensor_allow_meta=True)
    with allowed, pytest.MonkeyPatch.context() as patch, FakeTensorMode(), Log() as log:
        patch.setattr(compiled, "heaviest", compiled.heaviest._init_fn)  # itself, not what compilers are told of it
        patch.setattr(FakeTensor, "nonzero", nonzero, raising=False)
        patch.setattr(FakeTensor, "tolist", tolist)
        yield log


def assert_on_gpu(*tensors):
    assert {x.device.type for x in tensors} == {GPU}


def documents(dtype=torch.float32):
    return (torch.randn(2, N, 8, device=GPU, dtype=dtype, requires_grad=True),
            torch.randn(2, N, device=GPU, dtype=dtype, requires_grad=True))  # fmt: skip


def backward(out):
    """From everything that has a gradient."""
    sum(x.float().sum() for x in (out.values, out.scores, out.weights) if x.requires_grad).backward()


def look_at(out, k):
    """All that an answer of k slots can be asked for."""
    assert_on_gpu(out.values, out.scores, out.attention_mask, *filter(torch.is_tensor, out.assignment))
    assert_on_gpu(out.dense_weights(), out.pool(torch.randn(2, N, 3, device=GPU)), out.in_order().positions)
    assert_on_gpu(out.assignment.entropy(), out.assignment.unpool(torch.randn(2, 5, k, device=GPU)))


def moved_to(device, model):
    """A model with new parameters and buffers there; `Module.to` refuses fake tensors."""
    moved = {}  # a parameter may have two places
    for module in model.modules():
        for places in (module._parameters, module._buffers):
            for name, x in places.items():
                if x is not None and x not in moved:
                    moved[x] = torch.zeros(x.shape, dtype=x.dtype, device=device, requires_grad=x.requires_grad)
                places[name] = moved.get(x)
    return model.train()


def on_gpu(model):
    anneal(moved_to(GPU, model), 0.5)
    return model


@pytest.mark.parametrize("protected", [(), (0, -1)])
@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_pooling_stays_on_the_gpu(operator, scorer, protected):
    for dtype, keep_order, masked in ((torch.bfloat16, True, False), (torch.float32, False, True)):
        options = {"operator": operator, "scorer": scorer, "protected": protected, "keep_order": keep_order}
        pooling = TopKPooling(8, 4, **options).to(dtype)
        with gpu() as log:
            on_gpu(pooling)
            hidden, _ = documents(dtype)
            out = pooling(hidden, torch.ones(2, N, device=GPU, dtype=torch.long) if masked else None)
            backward(out)
            assert_on_gpu(hidden.grad, *(x.grad for x in pooling.parameters()))
            look_at(out, 4)
            assert log.copies == []


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("operator", [*FUNCTIONS, power_halving])
def test_an_operator_takes_a_temperature_from_any_device(operator, temperature):
    for playing, k in ((20, 4), (N, 60)):
        with gpu(playing) as log:
            values, scores = documents()
            given = TEMPERATURES[temperature]()
            out = operator(values, scores, k, temperature=given)
            look_at(out, k)
            first = out.assignment
            second = operator(out.values, out.scores, 3, temperature=given, mask=out.mask).assignment
            assert_on_gpu(*filter(torch.is_tensor, first.then(second)))
            assert log.copies == []
            backward(out)
            assert_on_gpu(values.grad, scores.grad)
            if not temperature.startswith("learnt"):
                assert log.copies == []
            elif given.grad is not None:
                assert given.grad.device == given.device and given.grad.shape == given.shape
                assert log.copies == ([] if given.device.type == GPU else [f"{GPU} to cpu"])


def test_a_temperature_of_one_number_in_a_list_is_that_number():
    torch.manual_seed(0)
    values, scores = torch.randn(2, N, 8), torch.randn(2, N)
    number, listed = torch.tensor(0.5, requires_grad=True), torch.tensor([0.5], requires_grad=True)
    for operator in (*FUNCTIONS, power_halving):
        outs = [operator(values, scores, 4, temperature=temperature) for temperature in (number, listed, 0.5)]
        assert all(torch.equal(out.values, outs[0].values) for out in outs)
        if outs[0].values.requires_grad:
            (expected,) = torch.autograd.grad(outs[0].values.square().sum(), number)
            (found,) = torch.autograd.grad(outs[1].values.square().sum(), listed)
            assert torch.equal(found, expected.view(1))


@pytest.mark.parametrize(("device", "times"), [("cpu", 4), (GPU, 1)])
def test_backward_copies_in_few_parts_on_a_gpu(device, times, monkeypatch):
    monkeypatch.setattr(carriers, "CHUNK", 64)
    index, values = torch.zeros(32, dtype=torch.long, device=device), torch.ones(50, 8, device=device)
    with Log() as log:
        carriers.carrier_gradients(values[:3], values, Carriers(index, values[:32, 0], index), True, False)
    assert log.operations.count("aten.index_select.default") == times


def step(model, *labels, **options):
    """A training step on a GPU, with labels of this shape for each document; what was copied between devices."""
    with gpu() as log:
        model = on_gpu(model)
        ids, labels = (torch.ones(2, *shape, device=GPU, dtype=torch.long) for shape in ((30,), labels))
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels} | options
        loss = model(**batch).loss
        loss.backward()
        assert_on_gpu(loss, *(x.grad for x in model.parameters() if x.grad is not None))
        assert_on_gpu(model.eval()(**batch).logits)
        return log.copies


@pytest.mark.parametrize("more", [{}, {"k_by_layer": {1: 9}}, {"window_k": 5}], ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_classifier_neither_leaves_the_gpu_nor_waits_for_it(operator, more):
    config = TopKPoolingConfig(backbone=BertConfig(**BERT), operator=operator, k=4, num_labels=3, **more)
    assert step(TopKPoolingForSequenceClassification(config)) == []


@pytest.mark.parametrize("copy_head", [False, True])
@pytest.mark.parametrize("family", ["bart", "t5", "encoder-decoder"])
def test_nor_does_a_summarizer(family, copy_head):
    # An empty cache is made of no numbers, which is no fake tensor.
    assert step(build_seq2seq(family, copy_head=copy_head), 5, use_cache=False) == []


@pytest.mark.parametrize("name", CONFIGS)
def test_nor_does_an_encoder_that_pools_between_its_layers(name):
    model = pool_encoder(build_encoder(name, "sdpa"), {1: 12, 3: 6})
    with gpu() as log:
        model, ids = on_gpu(model), torch.ones(2, 30, device=GPU, dtype=torch.long)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        out.last_hidden_state.sum().backward()
        assert_on_gpu(out.last_hidden_state, out.pooled_attention_mask, *out.assignment)
        assert_on_gpu(*(x.grad for x in model.parameters() if x.grad is not None))
        # DeBERTa's buckets of distances are made of a number on the CPU.
        assert log.copies == (["cpu to meta"] if name.startswith("deberta") else [])


def on_another(module, device):
    """A part of a model on a device of its own, to which its `forward` moves what it gets, as accelerate lets it."""

    def forward(*args, **kwargs):
        given = tree_map(lambda x: x.to(device) if torch.is_tensor(x) else x, (args, kwargs))
        return run(*given[0], **given[1])

    run, module.forward = module.forward, forward
    moved_to(device, module)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_encoder_on_two_devices_pools_where_its_layers_are(name, monkeypatch):
    monkeypatch.setattr(shtopk.pooling, "_can_be_read", lambda x: False)  # no fake tensor can
    model = pool_encoder(build_encoder(name, "sdpa"), {2: 12, 3: 6})
    _, stack, family = find(model)
    with gpu():
        on_gpu(model)
        moved_to("cpu", stack.pooling)
        for layer in getattr(stack, family.layers)[2:]:
            on_another(layer, "cpu")
        for after in ("norm", "final_norm", "final_layer_norm", "pooler"):
            for part in (model, stack):
                if isinstance(getattr(part, after, None), torch.nn.Module):
                    on_another(getattr(part, after), GPU)
        ids = torch.ones(2, 30, device=GPU, dtype=torch.long)
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        out.last_hidden_state.sum().backward()
        assert out.last_hidden_state.shape[1] == 6 and {x.device.type for x in out.assignment} == {"cpu"}
        assert all(x.grad is not None for x in stack.pooling.parameters())


def test_what_came_through_a_language_model_is_put_in_place_on_the_device_of_its_last_layer():
    with gpu():
        whole = spread(torch.ones(2, 3, 4), torch.zeros(2, 3, device=GPU, dtype=torch.long), 8)
        assert whole.shape == (2, 8, 4) and whole.device.type == "cpu"


def test_tensors_of_two_devices_are_refused():
    values, scores = torch.randn(2, 9, 4), torch.randn(2, 9)
    for given, got in (((values.to("meta"), scores, None), "meta, cpu"),
                       ((values, scores, torch.ones(2, 9, device="meta")), "cpu, cpu, meta")):  # fmt: skip
        with pytest.raises(ValueError, match=f"^expected values, scores and mask on one device, got {got}$"):
            successive_halving_topk(given[0], given[1], 3, mask=given[2])


@pytest.mark.parametrize("operator", FUNCTIONS)
def test_a_temperature_without_a_number_is_refused(operator):
    with pytest.raises(ValueError, match="expected a temperature that is one number, got a tensor on the device meta"):
        operator(torch.randn(2, 9, 4), torch.randn(2, 9), 3, temperature=torch.ones(1, device="meta"))
