"""The encoder-decoder whose decoder sees k vectors, on the families that people use."""

import pytest
import torch
from seq2seq_families import FAMILIES, GENERATION, V, build, documents, same_weights
from tiny import tiny_tokenizer
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from transformers import (
    AutoModelForSeq2SeqLM,
    BartForConditionalGeneration,
    BartModel,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingSeq2SeqConfig


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", GENERATION)
def test_with_k_of_n_it_generates_what_the_backbone_generates(family, mode):
    model = build(family, k=4, operator="hard")
    options = GENERATION[mode] | {"max_new_tokens": 6, "min_new_tokens": 6}
    torch.manual_seed(1)
    generated = model.generate(**documents(4), **options)
    torch.manual_seed(1)
    assert torch.equal(generated, model.backbone.generate(**documents(4), **options))


@pytest.mark.parametrize(("family", "copy_head", "mode"), [
    *((family, False, mode) for family in FAMILIES for mode in ("greedy", "beams")),
    *(("bart", True, mode) for mode in GENERATION),
])  # fmt: skip
def test_a_padded_row_generates_what_it_generates_alone(family, copy_head, mode):
    model, options = build(family, copy_head=copy_head), GENERATION[mode] | {"max_new_tokens": 6, "min_new_tokens": 6}
    batch = documents(9, 30, 0)
    rows = options.get("num_return_sequences", 1)
    together = model.generate(**batch, **options)
    assert together.shape[0] == 3 * rows
    if mode != "sampling":
        alone = model.generate(batch["input_ids"][:1, :9], attention_mask=batch["attention_mask"][:1, :9], **options)
        assert torch.equal(together[:rows], alone)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lengths", [(9, 30), (3, 70), (90, 32)])
def test_logits_do_not_depend_on_what_a_document_is_batched_with(family, lengths):
    model, batch, target = build(family), documents(*lengths), torch.tensor([[5, 6, 7], [8, 9, 3]])
    together = model(**batch, labels=target).logits[0]
    row = {name: tensor[:1, : lengths[0]] for name, tensor in batch.items()}
    torch.testing.assert_close(together, model(**row, labels=target[:1]).logits[0], rtol=1e-4, atol=1e-5)


def test_t5_reads_a_long_document_in_windows_of_what_it_was_trained_on():
    torch.manual_seed(0)
    t5 = FAMILIES["t5"].to_dict() | {"n_positions": 16}
    model = TopKPoolingForConditionalGeneration(TopKPoolingSeq2SeqConfig(backbone=T5Config(**t5), k=4)).eval()
    batch = documents(40)
    by_default = model.get_encoder()(**batch).last_hidden_state
    model.config.window = 16
    assert torch.equal(model.get_encoder()(**batch).last_hidden_state, by_default)
    model.config.window = 40
    assert not torch.allclose(model.get_encoder()(**batch).last_hidden_state, by_default)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("copy_head", [False, True])
def test_documents_without_a_token_with_one_and_with_very_many_are_summarized(family, copy_head):
    model = build(family, copy_head=copy_head, window=32)
    batch = documents(0, 1, 20_000)
    assert model.generate(**batch, max_new_tokens=3, min_new_tokens=3).shape == (3, 4)
    assert model(**batch, labels=torch.tensor([[5, 6]] * 3)).loss.isfinite()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [2, 40])
def test_every_parameter_gets_a_gradient(family, length):
    model = build(family).train()
    model(**documents(length, length), labels=torch.tensor([[5, 6, 7], [8, 9, -100]])).loss.backward()
    # Pegasus computes its positions under no_grad, so that they get none.
    without = [name for name, p in model.named_parameters() if p.grad is None and "embed_positions" not in name]
    assert without == [], "DDP would need find_unused_parameters"
    assert (model.pooling.scorer.weight.grad != 0).any() == (length == 40)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_backbones(family):
    model = build(family, operator="hard")
    batch = documents(4, 4) | {"labels": torch.tensor([[5, 6, 7], [8, 9, -100]])}
    torch.testing.assert_close(model(**batch).loss, model.backbone(**batch).loss)


@pytest.mark.parametrize(("family", "copy_head"), [*((family, False) for family in FAMILIES), ("bart", True)])
def test_saved_and_loaded_again_it_is_the_same(family, copy_head, tmp_path):
    model = build(family, copy_head=copy_head)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(again) is TopKPoolingForConditionalGeneration and same_weights(model, again)
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    assert again.generation_config.temperature is None, "the pooling's temperature is none of generation's"
    batch, options = documents(9, 30), {"max_new_tokens": 5}
    assert torch.equal(again.generate(**batch, **options), model.generate(**batch, **options))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_checkpoint_loads_and_only_the_pooling_is_new(family, tmp_path):
    torch.manual_seed(1)
    bare = AutoModelForSeq2SeqLM.from_config(FAMILIES[family])
    bare.generation_config.num_beams = 3
    bare.save_pretrained(tmp_path)
    config = TopKPoolingSeq2SeqConfig(backbone=FAMILIES[family], k=4)
    _, report = TopKPoolingForConditionalGeneration.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert set(report["missing_keys"]) == {"pooling.scorer.weight", "pooling.scorer.bias"}
    model = TopKPoolingForConditionalGeneration.from_backbone(tmp_path, k=4)
    weights = bare.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.backbone.state_dict().items())
    assert model.pooling.scorer.weight.std() > 0.05  # drawn, not zero
    assert model.generation_config.num_beams == 3


def test_a_checkpoint_without_its_language_model_head_loads_too(tmp_path):
    bare = BartModel(FAMILIES["bart"])
    bare.save_pretrained(tmp_path)
    model = TopKPoolingForConditionalGeneration.from_backbone(tmp_path, k=4)
    assert torch.equal(model.backbone.model.encoder.layers[0].fc1.weight, bare.encoder.layers[0].fc1.weight)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_decoder_sees_the_kept_vectors_alone():
    model, batch = build(k=4), documents(30)
    encoded = model.get_encoder()(**batch)
    assert encoded.last_hidden_state.shape == (1, 4, 16)
    model.set_attn_implementation("eager")
    out = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([[2, 5]]), output_attentions=True)
    assert out.cross_attentions[0].shape[-1] == 4
    hidden = model(**batch, decoder_input_ids=torch.tensor([[2, 5]])).encoder_last_hidden_state
    torch.testing.assert_close(hidden, encoded.last_hidden_state)


def test_seq2seq_trainer_trains_and_predicts_with_generate(tmp_path):
    model, tokenizer = build().train(), tiny_tokenizer()
    rows = [{"input_ids": [2, *range(4 + i, 24 + i % 8), 3], "labels": [4 + i, 5, 3]} for i in range(8)]
    generating = {"predict_with_generate": True, "generation_max_length": 6}
    arguments = Seq2SeqTrainingArguments(tmp_path, max_steps=3, per_device_train_batch_size=4, report_to=[],
                                         use_cpu=True, **generating)  # fmt: skip
    trainer = Seq2SeqTrainer(model, arguments, DataCollatorForSeq2Seq(tokenizer, model), train_dataset=rows,
                             processing_class=tokenizer)  # fmt: skip
    before = model.pooling.scorer.weight.clone()
    trainer.train()
    assert not torch.equal(model.pooling.scorer.weight, before)
    predicted = trainer.predict(rows)
    assert len(predicted.predictions) == 8 and predicted.predictions[:, :6].any()
    assert not predicted.predictions[:, 6:].any()  # padding
    assert predicted.metrics["test_loss"] > 0


def test_new_tokens_can_be_added():
    model = build()
    model.resize_token_embeddings(V + 3)
    assert model(**documents(9), labels=torch.tensor([[V + 2]])).logits.shape[-1] == V + 3


@pytest.mark.parametrize(("change", "message"), [
    ({"window": 33}, "at most 32 tokens"),
    ({"window_k": 0}, "window_k >= 1, got 0"),
    ({"window_k": 4, "protected": [0]}, "two steps does not go with protected tokens"),
    ({"k": 0}, "whole number >= 1"),
])  # fmt: skip
def test_impossible_configurations_are_refused_in_one_line(change, message, tmp_path):
    BartForConditionalGeneration(FAMILIES["bart"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        TopKPoolingForConditionalGeneration.from_backbone(tmp_path, **change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("family", ["bart", "t5", "encoder-decoder"])
def test_layers_that_are_computed_again_in_the_backward_pass_change_nothing(family):
    layers = {} if family == "t5" else {"k_by_layer": {"0": 8}}
    model, batch = build(family, **layers).train(), documents(30, 9)

    def gradients():
        model.zero_grad()
        model(**batch, labels=batch["input_ids"][:, :5].contiguous()).loss.backward()
        given = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
        return {name.replace("_checkpoint_wrapped_module.", ""): gradient for name, gradient in given.items()}

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    expected = gradients()
    apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, GradientCheckpointingLayer))
    torch.testing.assert_close(gradients(), expected)
