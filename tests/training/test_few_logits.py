"""Logits of a language model in training: made for the tokens that have a label, and no others."""

import pytest
import torch
from decoders import NAMES, build, tokens
from replicas import replica_of
from torch import nn

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.trainer import with_few_logits
from shtopk.training.completions import CompletionCollator
from shtopk.training.kinds import Completer

ROWS = [{"input_ids": tokens(1, n, seed=n)[0].tolist(), "labels": tokens(1, t, seed=t)[0].tolist()}
        for n, t in ((20, 3), (9, 1), (14, 6))]  # fmt: skip


def batch():
    return CompletionCollator(pad_token_id=0)(ROWS)


def loss_and_gradients(model, inputs, smoothing=0.0):
    model.zero_grad()
    out = model(**inputs, use_cache=False)
    loss = Completer().training_loss(out, inputs["labels"], smoothing)
    loss.backward()
    return loss.detach(), {name: x.grad for name, x in model.named_parameters() if x.grad is not None}, out.logits


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_gradients_are_those_with_all_logits(name):
    model = pool_decoder(build(name), {1: 6, 2: 4}).train()
    loss, gradients, logits = loss_and_gradients(model, with_few_logits(batch()))
    expected, all_gradients, all_logits = loss_and_gradients(model, batch())
    assert logits.shape[0] == 10 and all_logits.shape[:2] == (3, 23)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradients, all_gradients, atol=1e-6, rtol=1e-5)  # sums in another order


def test_a_replica_of_data_parallel_has_the_labels_of_its_rows():
    model, inputs = pool_decoder(build(), {1: 6}).train(), with_few_logits(batch())
    labels = inputs["shift_labels"].chunk(3)  # as any tensor is divided among three
    for row, share in enumerate(labels):
        its = {name: x[row : row + 1] for name, x in inputs.items() if x.dim() > 1} | {"shift_labels": share}
        expected = model(**its | {"shift_labels": None, "logits_to_keep": 0}, use_cache=False).loss
        torch.testing.assert_close(replica_of(model)(**its, use_cache=False).loss, expected)


def test_smoothed_labels_count_as_with_all_logits():
    model = pool_decoder(build(), {1: 6}).train()
    loss, _, _ = loss_and_gradients(model, with_few_logits(batch()), 0.2)
    all_logits = model(**batch(), use_cache=False).logits[:, :-1].flatten(0, 1)
    told = batch()["labels"][:, 1:].flatten()
    expected = nn.functional.cross_entropy(all_logits, told, label_smoothing=0.2)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-6)


def test_a_whole_training_makes_no_others(trained, prompt_words, monkeypatch):
    made, forward = [], nn.Linear.forward

    def noted(layer, vectors):
        if layer.out_features == 34:  # the words
            made.append((torch.is_grad_enabled(), vectors.dim()))
        return forward(layer, vectors)

    monkeypatch.setattr(nn.Linear, "forward", noted)
    trained([*prompt_words, "--epochs", "1", "--batch_size", "40", "--seed", "5"])
    assert {dims for learning, dims in made if learning} == {2}
