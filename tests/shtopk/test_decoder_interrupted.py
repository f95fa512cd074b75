"""What a pooled language model says after Ctrl-C, and of two models one inside the other what was asked of each."""

import pytest
import torch
from decoders import build, marks, tokens
from transformers import LogitsProcessor

from shtopk.integrations.decoder import distillation_loss, pool_decoder, record_assignments, unpooled
from shtopk.integrations.decoders.state import CALLED, REQUEST, RUNNING

IDS = tokens()


@pytest.fixture
def model():
    return pool_decoder(build(), {1: 10})


def stop(*_):
    raise KeyboardInterrupt


def interrupted(model, call):
    hook = model.model.layers[3].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        call()
    hook.remove()


INTERRUPTED = pytest.mark.parametrize("call", [
    lambda model: model(IDS, k=4, compress_mask=marks(IDS, 9)),
    lambda model: model.model(IDS, k=4),
    lambda model: model.generate(IDS, k=4, max_new_tokens=3),
    lambda model: distillation_loss(model, IDS),
], ids=["a call", "the layers alone", "generation", "the teacher"])  # fmt: skip


@INTERRUPTED
def test_what_was_interrupted_does_not_change_what_is_said_next(model, call):
    def said():
        with torch.no_grad(), record_assignments() as found:
            logits = [model(IDS).logits, model(IDS, k=3).logits]
            more = {"output_logits": True, "return_dict_in_generate": True}
            logits += model.generate(IDS, k=5, max_new_tokens=2, **more).logits
            with unpooled(model):
                logits.append(model(IDS).logits)
            logits.append(model.model(IDS).last_hidden_state)
        assert len(found) == 4
        return logits

    expected = said()
    interrupted(model, lambda: call(model))
    torch.testing.assert_close(said(), expected)
    model(IDS)
    assert REQUEST.get() is REQUEST.first and CALLED.get() is None and RUNNING.get() is None


def test_training_without_labels_is_refused_after_an_interruption_too(model):
    interrupted(model, lambda: model(IDS, k=4))
    with pytest.raises(ValueError, match="expected labels or a compress_mask in training"):
        model.train()(IDS)


def test_a_layer_alone_listens_to_no_pass_of_another_model_that_was_interrupted(model):
    other = pool_decoder(build(), {1: 10})
    vectors = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(0))
    given = {"position_embeddings": other.model.rotary_emb(vectors, torch.arange(24)[None])}
    expected = other.model.layers[3](vectors, **given)
    interrupted(model, lambda: model(IDS, k=4))
    torch.testing.assert_close(other.model.layers[3](vectors, **given), expected)


class AskAnother(LogitsProcessor):
    def __init__(self, model, ids, **given):
        self.said, self.call = [], lambda: model(ids, **given).logits

    def __call__(self, input_ids, scores):
        self.said.append(self.call())
        return scores


@pytest.mark.parametrize("given", [{}, {"k": 4}, {"compress_mask": marks(IDS, 9)}], ids=["nothing", "k", "marks"])
def test_a_model_inside_anothers_generation_is_asked_for_nothing_of_it(model, given):
    other, ids = pool_decoder(build("qwen3"), {2: 8}), tokens(seed=3)
    right = {"attention_mask": (torch.arange(24) < torch.tensor([[24], [18]])).long()}
    for more in ({}, right):
        with torch.no_grad():
            expected = other(ids, **more).logits
        inside = AskAnother(other, ids, **more)
        model.generate(IDS, max_new_tokens=2, logits_processor=[inside], **given)
        assert all(said.equal(expected) for said in inside.said) and len(inside.said) == 2


def test_a_model_inside_anothers_generation_is_unpooled_and_recorded_as_the_context_says(model):
    other = pool_decoder(build("qwen3"), {2: 8})
    with torch.no_grad(), record_assignments() as found:
        model.generate(IDS, k=4, max_new_tokens=1, logits_processor=[AskAnother(other, IDS)])
        assert [one.positions.shape[1] for one in found] == [5, 9]
        with unpooled(other):
            model.generate(IDS, k=4, max_new_tokens=1, logits_processor=[AskAnother(other, IDS)])
    assert [one.positions.shape[1] for one in found] == [5, 9, 5]
