"""Pooling between the layers of Hugging Face encoders."""

import copy
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from encoders import CONFIGS, LAYERS, SHARP, VIT, build, lively, with_holes
from replicas import replica_of
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from transformers import AutoModel, ViTModel

from shtopk.integrations.encoder import pool_encoder, unpool_encoder
from shtopk.integrations.layers.state import STATE
from shtopk.pooling import poolings

FAMILIES = pytest.mark.parametrize("name", CONFIGS)
ATTENTION = pytest.mark.parametrize("attention", ["sdpa", "eager"])


def vectors(model, document):
    with torch.no_grad():
        return model(**document)


@ATTENTION
@FAMILIES
@pytest.mark.parametrize("k_by_layer", [{1: 33}, {2: 35, 3: 31}], ids=["one stage", "two stages"])
def test_what_is_kept_computes_as_if_nothing_had_been_left_out(name, attention, k_by_layer):
    """Where no two tokens had to share a slot, the vectors kept are those of the real tokens."""
    model, document = build(name, attention), with_holes(40, 31, 17, 1)
    expected = vectors(model, document)
    pooled = vectors(pool_encoder(model, k_by_layer), document)
    for row, (real, kept) in enumerate(zip(document["attention_mask"], pooled.pooled_attention_mask, strict=True)):
        assert pooled.assignment.positions[row, kept].equal(real.nonzero().squeeze(-1))
        found, wanted = pooled.last_hidden_state[row, kept], expected.last_hidden_state[row, real.bool()]
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@ATTENTION
@FAMILIES
def test_a_padded_document_is_pooled_as_it_is_alone(name, attention):
    model, document = pool_encoder(build(name, attention), {1: 9, 3: 5}, temperature=0.5), with_holes(30, 30, 30)
    alone = {key: x[:1, :23] for key, x in document.items()}
    document["attention_mask"][0, 23:] = 0
    together, alone = vectors(model, document), vectors(model, alone)
    torch.testing.assert_close(together.last_hidden_state[:1], alone.last_hidden_state, atol=1e-5, rtol=1e-5)
    assert together.assignment.positions[:1].equal(alone.assignment.positions)
    torch.testing.assert_close(together.assignment.weights[:1, :23], alone.assignment.weights)


@FAMILIES
@pytest.mark.parametrize(("real", "change"), [
    (30, lambda document: {"input_ids": document["input_ids"]}),
    (5, lambda document: document | {"attention_mask": document["attention_mask"].float()}),
], ids=["no mask", "float mask"])  # fmt: skip
def test_no_mask_means_that_all_tokens_are_real_and_a_float_mask_gives_the_same(name, real, change):
    model, document = pool_encoder(build(name, "sdpa"), {1: 9}, **SHARP), with_holes(30, 30, real)
    expected, found = vectors(model, document), vectors(model, change(document))
    assert found.pooled_attention_mask.equal(expected.pooled_attention_mask)
    torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5)


@FAMILIES
def test_hidden_states_shrink_where_they_are_pooled(name):
    model = pool_encoder(build(name), {2: 9})
    states = model(**with_holes(30, 30, 12), output_hidden_states=True).hidden_states
    assert [x.shape[1] for x in states] == [30, 30, 30, *[9] * (LAYERS - 2)]


@pytest.mark.parametrize(("name", "operator"), [*((name, "successive_halving") for name in CONFIGS),
                                                ("bert", "iterative"), ("bert", "hard_gated")])  # fmt: skip
def test_gradients_reach_scorer_and_embeddings_and_checkpointing_changes_nothing(name, operator):
    model = pool_encoder(build(name), {1: 9, 3: 5}, operator=operator).train()
    document = with_holes(30, 30, 12)

    def gradients():
        model.zero_grad()
        model(**document).last_hidden_state.square().sum().backward()
        given = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return {name.replace("_checkpoint_wrapped_module.", ""): gradient for name, gradient in given.items()}

    expected = gradients()
    scorers = [key for key in expected if "scorer.weight" in key]
    assert len(scorers) == 2 and all(expected[key].abs().sum() > 0 for key in scorers)
    assert expected[next(iter(expected))].abs().sum() > 0  # the embeddings
    if model.supports_gradient_checkpointing:
        model.activation_checkpointing_enable()
        torch.testing.assert_close(gradients(), expected)
        model.activation_checkpointing_disable()
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    layers = next(modules for modules in lists if len(modules) == LAYERS)
    plain = list(layers)
    apply_activation_checkpointing(model, check_fn=lambda module: module in plain)  # as FSDP does
    assert layers[1] is not plain[1]
    torch.testing.assert_close(gradients(), expected)
    layers[1] = plain[1]
    torch.testing.assert_close(gradients(), expected)


@FAMILIES
def test_unpooled_again_the_model_is_what_it_was(name):
    model, document = build(name), with_holes(30, 30, 12)
    expected, names, shown = vectors(model, document).last_hidden_state, list(model.state_dict()), repr(model)
    pool_encoder(model, {2: 9}, scorer="mlp")
    assert "TopKPooling(" in repr(model) and "k=9" in repr(model)
    assert any("pooling.2.scorer" in key for key in model.state_dict())
    unpool_encoder(model)
    assert list(model.state_dict()) == names and repr(model) == shown
    assert vectors(model, document).last_hidden_state.equal(expected)
    assert not hasattr(model.config, "encoder_pooling")


def test_a_vision_transformer_computes_on_with_the_patches_that_were_kept():
    torch.manual_seed(0)
    model, images = lively(ViTModel(VIT, add_pooling_layer=False)), torch.randn(2, 3, 24, 24)
    hidden = model.embeddings(images)
    for index, layer in enumerate(model.layers):
        if index == 2:
            kept = torch.tensor([[0, 3, 4, 30], [0, 1, 20, 36]])
            hidden = hidden.gather(1, kept.unsqueeze(-1).expand(-1, -1, 32))
        hidden = layer(hidden)
    pool_encoder(model, {2: 4}, **SHARP)
    wanted = torch.zeros(2, 37).scatter(1, kept, 1.0)
    model.pooling["2"]._scores = lambda hidden_states, mask, k: wanted
    out = vectors(model, {"pixel_values": images})
    torch.testing.assert_close(out.last_hidden_state, model.layernorm(hidden), atol=1e-5, rtol=1e-5)
    assert out.assignment.positions.equal(kept)


def test_two_stages_give_the_tokens_of_their_slots():
    model, document = pool_encoder(build("t5"), {1: 9, 3: 5}, temperature=1.0), with_holes(30, 30, 12)
    choices = []
    for pooling in model.encoder.pooling.values():
        pooling.register_forward_hook(lambda module, given, output: choices.append(output.assignment))
    out = vectors(model, document)
    first, second = choices
    dense = second.dense() @ first.dense()
    torch.testing.assert_close(first.then(second).dense(), dense)
    torch.testing.assert_close(out.assignment.weights, dense.sum(1))
    assert out.assignment.positions.equal(dense.argmax(-1))


def test_a_dropped_layer_does_not_drop_the_pooling():
    model, document = pool_encoder(build("bart"), {1: 9}), with_holes(30, 30)
    model.layerdrop = 0.9
    model.train()
    torch.manual_seed(0)
    lengths = {model(**document).last_hidden_state.shape[1] for _ in range(30)}
    assert lengths == {9, 30}  # 30 where every layer from 1 on was dropped


def test_copies_and_threads_do_not_meet():
    model = pool_encoder(build("modernbert"), {1: 9}, **SHARP)
    twin, documents = copy.deepcopy(model), [with_holes(n, n, n - 5) for n in (20, 25, 30, 35)]
    expected = [vectors(model, document).last_hidden_state for document in documents]
    unpool_encoder(twin)
    assert vectors(twin, documents[0]).last_hidden_state.shape[1] == 20
    with ThreadPoolExecutor(4) as threads:
        found = threads.map(lambda it: [vectors(model, it).last_hidden_state for _ in range(5)], documents)
    for each, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(each, [wanted] * 5, atol=1e-6, rtol=1e-6)


def interrupt(module, call):
    """Ctrl-C where a module is to run, for which torch calls no hook that ends a pass."""

    def stop(*_):
        raise KeyboardInterrupt

    hook = module.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        call()
    hook.remove()


def test_what_was_interrupted_does_not_change_what_is_said_next():
    model, other, document = (
        pool_encoder(build("bert"), {1: 9}),
        pool_encoder(build("mpnet"), {2: 7}),
        with_holes(30, 30, 12),
    )
    expected = vectors(model, document)
    for module in (model.encoder.layer[2], model.pooler):  # before the pass ends, and after
        interrupt(module, lambda: vectors(model, document))
        assert vectors(other, document).pooled_attention_mask.shape == (2, 7)
        out = vectors(model, document)
        assert out.last_hidden_state.equal(expected.last_hidden_state)
        assert out.assignment.positions.equal(expected.assignment.positions)
        assert STATE.of_thread.running is None and STATE.of_thread.called is None and STATE.of_thread.finished is None


def test_a_decoder_alone_sees_no_slots_of_a_pass_that_was_interrupted():
    models = [lively(AutoModel.from_config(CONFIGS["bart"])) for _ in range(2)]
    document = with_holes(30, 30, 12) | {"decoder_input_ids": torch.full((2, 3), 5)}
    given = {"input_ids": torch.full((2, 3), 5), "encoder_hidden_states": torch.randn(2, 9, 32)}
    given |= {"encoder_attention_mask": (torch.arange(9) < 4).long().expand(2, 9)}
    expected = [vectors(model.get_decoder(), given).last_hidden_state for model in models]
    for model in models:
        pool_encoder(model, {1: 9})
    interrupt(models[0].encoder.layers[2], lambda: vectors(models[0], document))
    for model in (models[1], models[0]):
        vectors(model, document)
        found = [vectors(each.get_decoder(), given).last_hidden_state for each in models]
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    model = pool_encoder(build("modernbert").to(dtype), {1: 9})
    out = vectors(model, with_holes(30, 30, 12))
    assert out.last_hidden_state.dtype == dtype and out.last_hidden_state.isfinite().all()


BAD = {
    "another layer": ("bert", {7: 4}, {}, r"expected k_by_layer to name layers in 0\.\.3 for this BertEncoder, got 7"),
    "nothing": ("bert", {}, {}, r"such as \{2: 64\}, got \{\}"),
    "more later": ("bert", {1: 4, 2: 8}, {}, "expected fewer vectors at later layers"),
    "position bias": ("t5", {0: 4}, {}, r"to name layers in 1\.\.3 .*got 0 \(layer 0 makes the position bias"),
    "convolution": ("deberta-v2", {0: 4}, {}, "a convolution reads"),
    "disorder": ("bert", {1: 4}, {"keep_order": False}, "expected keep_order to be true"),
    "no layer": ("bert", {"a": 4}, {}, r"such as \{2: 64\}, got \{'a': 4\}"),
    "twice": ("bert", {2: 4, "2": 3}, {}, "expected different layers"),
    "no mapping": ("bert", [2, 4], {}, r"got \[2, 4\]"),
    "unknown": ("bert", {2: 4}, {"keeporder": True}, "expected options of TopKPooling .*, got keeporder"),
    "no k": ("bert", {1: 0}, {}, "expected k to be a whole number >= 1"),
}


@pytest.mark.parametrize(("name", "k_by_layer", "options", "message"), BAD.values(), ids=BAD)
def test_impossible_options_are_refused_in_one_line(name, k_by_layer, options, message):
    model = build(name)
    with pytest.raises(ValueError, match=message):
        pool_encoder(model, k_by_layer, **options)
    assert vectors(model, with_holes(12, 12)).last_hidden_state.shape[1] == 12
    assert not hasattr(model.config, "encoder_pooling")


def test_a_whole_number_of_numpy_is_described_as_any_other():
    model = pool_encoder(build("bert"), {np.int64(1): np.int64(6)})
    assert repr(model.config.encoder_pooling["k_by_layer"]) == "{'1': 6}"


def test_one_token_that_is_protected_stays_as_it_is():
    model, document = build("bert"), {"input_ids": torch.tensor([[5]])}
    expected = vectors(model, document)
    pooled = vectors(pool_encoder(model, {1: 9}), document)
    torch.testing.assert_close(pooled.last_hidden_state, expected.last_hidden_state)
    assert pooled.assignment.positions.tolist() == [[0]] and pooled.assignment.weights.tolist() == [[1.0]]


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_scorer_gets_a_gradient_though_a_document_is_all_protected(n):
    """Processes that train together wait for each other's gradients: one may have such documents alone."""
    model = pool_encoder(build("bert"), {1: 9, 2: 4}).train()
    model(torch.full((2, n), 5)).last_hidden_state.sum().backward()
    learnt = [parameter.grad for pooling in model.encoder.pooling.values() for parameter in pooling.parameters()]
    assert all(gradient is not None for gradient in learnt)
    assert n > 2 or not any(gradient.any() for gradient in learnt)


def test_a_scorer_that_learns_nothing_from_the_hard_operator_gets_a_gradient_of_0():
    """So it stops no `DistributedDataParallel`, which waits for all."""
    model = pool_encoder(build("bert"), {1: 9, 2: 4}, operator="hard").train()
    model(**with_holes(30, 30, 12)).last_hidden_state.sum().backward()
    learnt = [parameter.grad for pooling in poolings(model) for parameter in pooling.parameters()]
    assert len(learnt) == 4 and all(gradient is not None and not gradient.any() for gradient in learnt)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_replica_of_data_parallel_pools_in_its_own_thread_and_teaches_the_model(name):
    model, document = pool_encoder(build(name), {1: 9, 2: 4}), with_holes(30, 30, 12)
    expected = model(**document).last_hidden_state
    expected.sum().backward()
    learnt = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad()
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(lambda: replica_of(model)(**document).last_hidden_state).result()
    assert found.shape == expected.shape and found.shape[1] == 4
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    torch.testing.assert_close([one.grad for one in model.parameters() if one.grad is not None], learnt)


@pytest.mark.parametrize("name", ["bert", "modernbert", "eurobert"])
def test_position_ids_may_be_given(name):
    model, document = pool_encoder(build(name), {1: 9}), with_holes(30, 30, 12)
    expected = vectors(model, document).last_hidden_state
    found = vectors(model, document | {"position_ids": torch.arange(30).unsqueeze(0)}).last_hidden_state
    torch.testing.assert_close(found, expected)
