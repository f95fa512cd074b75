"""The copy head: log-probabilities, what it copies, in every mode of generation."""

import pytest
import torch
from seq2seq_families import FAMILIES, V, build, documents
from torch.nn import functional
from transformers import BartForConditionalGeneration

from shtopk.models import TopKPoolingForConditionalGeneration


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("operator", ["successive_halving", "iterative"])
def test_with_a_copy_head_the_logits_are_log_probabilities_and_any_part_learns(family, operator):
    model = build(family, copy_head=True, operator=operator).train()
    batch, labels = documents(40, 9), torch.tensor([[5, 6, 7], [8, 9, -100]])
    out = model(**batch, labels=labels)
    assert out.logits is None
    out.loss.backward()
    out = model.eval()(**batch, labels=labels)
    torch.testing.assert_close(out.logits.exp().sum(-1), torch.ones(2, 3))
    torch.testing.assert_close(out.loss, functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten()))
    assert out.decoder_hidden_states is None
    learning = [*model.copy_head.parameters(), model.pooling.scorer.weight]  # a shift of all scores changes nothing
    assert all((p.grad != 0).any() for p in learning)


@pytest.mark.parametrize("operator", ["successive_halving", "iterative"])
@pytest.mark.parametrize("family", ["bart", "t5", "encoder-decoder"])
def test_a_copy_head_trains_and_generates_in_bf16(family, operator):
    model, batch = build(family, copy_head=True, operator=operator), documents(40, 9)
    labels = torch.tensor([[5, 6, 7], [8, 9, -100]])
    expected = model(**batch, labels=labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(**batch, labels=labels)
        model.train()(**batch, labels=labels).loss.backward()
        model.eval().generate(**batch, max_new_tokens=3)
    torch.testing.assert_close(out.loss, expected.loss, rtol=0.02, atol=0)  # bf16 has 8 bits
    torch.testing.assert_close(out.logits.exp(), expected.logits.exp(), rtol=0.1, atol=0.01)


def test_a_gated_slot_is_copied_from_as_whole():
    model, batch = build(copy_head=True, operator="hard_gated", temperature=1.0), documents(40, 9)
    logits = model(**batch, decoder_input_ids=torch.tensor([[2, 5], [2, 6]])).logits
    weights = model.get_encoder()(**batch).assignment.weights
    assert weights[weights > 0].min() < 0.9
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 2))


def test_a_closed_gate_leaves_the_backbones_probabilities_and_an_open_one_copies_kept_tokens():
    model, batch = build(copy_head=True), documents(30)
    start = torch.tensor([[2]])
    with torch.no_grad():
        model.copy_head.gate.bias.fill_(50)
        encoded = model.get_encoder()(**batch)
        logits = model(encoder_outputs=encoded, decoder_input_ids=start).logits
        expected = model.backbone(encoder_outputs=(encoded.last_hidden_state,), attention_mask=encoded.attention_mask,
                                  decoder_input_ids=start).logits  # fmt: skip
        torch.testing.assert_close(logits, expected.log_softmax(-1))
        model.copy_head.gate.bias.fill_(-50)
        copied = model(encoder_outputs=encoded, decoder_input_ids=start).logits.exp()[0, 0]
    kept = batch["input_ids"][0][encoded.assignment.weights[0] > 1e-3]
    assert copied[kept].sum() > 0.99
    attended = torch.einsum("k,kn->n", _attention(model, encoded, start), _dense(encoded))
    expected = torch.zeros(V).scatter_add(0, batch["input_ids"][0], attended)
    torch.testing.assert_close(copied, expected, rtol=1e-4, atol=1e-5)


def _attention(model, encoded, start):
    """[k], written out."""
    seen = {"encoder_outputs": (encoded.last_hidden_state,), "attention_mask": encoded.attention_mask}
    out = model.backbone(**seen, decoder_input_ids=start, output_hidden_states=True)
    state = out.decoder_hidden_states[-1][0, 0]
    vectors = encoded.last_hidden_state[0]
    return (vectors @ model.copy_head.query.weight @ state / vectors.shape[-1] ** 0.5).softmax(0)


def _dense(encoded):
    """[k, L]"""
    slot = torch.arange(encoded.attention_mask.shape[1]).unsqueeze(-1)
    return encoded.assignment.weights[0] * (encoded.assignment.slots[0] == slot)


def test_a_copy_head_around_a_bare_model_is_drawn(tmp_path):
    BartForConditionalGeneration(FAMILIES["bart"]).save_pretrained(tmp_path)
    model = TopKPoolingForConditionalGeneration.from_backbone(tmp_path, k=4, copy_head=True)
    assert model.copy_head.query.weight.std() > 0.01


def test_a_copy_head_learns_where_the_decoder_is_given_embeddings():
    model, batch = build("bart", copy_head=True), documents(9, 20)
    labels = torch.tensor([[5, 6, 7], [8, 9, -100]])
    embeds = model.get_input_embeddings()(model.prepare_decoder_input_ids_from_labels(labels))
    loss = model(**batch, decoder_inputs_embeds=embeds, labels=labels).loss
    torch.testing.assert_close(loss, model(**batch, labels=labels).loss)
