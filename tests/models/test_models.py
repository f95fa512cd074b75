"""The classifier as Hugging Face users meet it: loading, saving, Auto classes, pipelines, Trainer."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from seq2seq_families import documents, same_weights
from tiny import BERT, WORDS, tiny_tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    Trainer,
    TrainingArguments,
    pipeline,
)

from shtopk import anneal
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification, encode_in_windows, load_tokenizer

from_backbone = TopKPoolingForSequenceClassification.from_backbone
ENCODER = BertConfig(**BERT).to_dict()
SMALL = {key: value for key, value in BERT.items() if key != "max_position_embeddings"}
OTHERS = {
    "roberta": (RobertaModel, RobertaConfig(**SMALL, max_position_embeddings=66, pad_token_id=1)),
    "electra": (ElectraModel, ElectraConfig(**BERT, embedding_size=16)),
    "modernbert": (ModernBertModel, ModernBertConfig(**BERT, pad_token_id=0, cls_token_id=2, sep_token_id=3,
                                                     bos_token_id=2, eos_token_id=3)),
    "distilbert": (DistilBertModel, DistilBertConfig(vocab_size=len(WORDS), dim=32, n_layers=2, n_heads=2,
                                                     hidden_dim=37, max_position_embeddings=64)),
}  # fmt: skip


@pytest.fixture
def model(encoder):
    torch.manual_seed(0)
    return from_backbone(encoder, k=4, num_labels=3, initial_temperature=4.0).eval()


def test_a_bare_encoder_loads_and_only_pooling_and_head_are_new(encoder, model):
    bare = load_file(encoder / "model.safetensors")
    assert all(torch.equal(model.state_dict()[f"backbone.{name}"], tensor) for name, tensor in bare.items())
    config = TopKPoolingConfig(backbone=AutoConfig.from_pretrained(encoder), k=4)
    _, report = TopKPoolingForSequenceClassification.from_pretrained(encoder, config=config, output_loading_info=True)
    new = {"pooling.scorer.weight", "pooling.scorer.bias", "classifier.weight", "classifier.bias"}
    assert set(report["missing_keys"]) == new
    assert not report["unexpected_keys"]
    assert model.pooling.scorer.weight.std() > 0.05  # drawn, not zero


@pytest.mark.parametrize("family", OTHERS)
def test_other_encoders_work_too_and_keep_their_weights(family, tmp_path):
    model_class, config = OTHERS[family]
    bare = model_class(config)
    bare.save_pretrained(tmp_path)
    model = from_backbone(tmp_path, k=4, num_labels=2).train()
    assert torch.equal(model.get_input_embeddings().weight, bare.get_input_embeddings().weight)
    batch = documents(132, 20)  # longer than the encoder's 64 positions; 2 * 66 fills whatever counts RoBERTa's wrong
    model(**batch, labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for p in model.parameters()), "DDP would need find_unused_parameters"


@pytest.mark.parametrize("saved_as", [BertForMaskedLM, BertForSequenceClassification])
def test_an_encoder_saved_with_a_head_loads_without_the_head(saved_as, tmp_path):
    torch.manual_seed(1)
    headed = saved_as(BertConfig(**BERT, num_labels=3))
    headed.save_pretrained(tmp_path)
    model = from_backbone(tmp_path, k=4, num_labels=3)
    weights = headed.bert.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.backbone.state_dict().items())
    if saved_as is BertForSequenceClassification:
        assert not torch.equal(model.classifier.weight, headed.classifier.weight)
    model.save_pretrained(tmp_path / "again")
    assert set(load_file(tmp_path / "again" / "model.safetensors")) == set(model.state_dict())
    assert same_weights(model, TopKPoolingForSequenceClassification.from_pretrained(tmp_path / "again"))


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard", "hard_gated"])
@pytest.mark.parametrize("length", [1, 4, 5])
def test_every_parameter_gets_a_gradient_even_where_all_tokens_are_kept(encoder, operator, length):
    model = from_backbone(encoder, k=4, operator=operator).train()
    model(**documents(length, length), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad is not None for p in model.parameters()), "DDP would need find_unused_parameters"


def test_saved_and_loaded_again_it_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(again) is TopKPoolingForSequenceClassification
    assert same_weights(model, again)
    assert again.config.pooling_options == model.config.pooling_options
    assert again.config.id2label == model.config.id2label
    batch = documents(30, 100)
    assert torch.equal(again.eval()(**batch).logits, model(**batch).logits)


@pytest.mark.parametrize("lengths", [(10, 40), (150, 20), (150, 500), (150, 64, 65, 1)])
def test_a_document_does_not_depend_on_what_it_is_batched_with(model, lengths):
    batch = documents(*lengths)
    alone = model(**{name: tensor[:1, : lengths[0]] for name, tensor in batch.items()})
    together = model(**batch)
    torch.testing.assert_close(together.logits[:1], alone.logits)
    assert together.assignment.positions[0].tolist() == alone.assignment.positions[0].tolist()


def test_without_a_mask_all_tokens_are_real(model):
    batch = documents(100)
    assert torch.equal(model(batch["input_ids"]).logits, model(**batch).logits)


def test_empty_slots_do_not_count_in_the_mean(model):
    batch = documents(1)  # one of the four slots is filled
    vector = model.backbone(**batch).last_hidden_state[:, 0]
    torch.testing.assert_close(model(**batch).logits, model.classifier(vector))


def test_a_long_document_does_not_depend_on_the_side_of_its_padding(model):
    batch = documents(150, 200)
    left = {name: tensor[:1].roll(50, -1) for name, tensor in batch.items()}
    torch.testing.assert_close(model(**left).logits, model(**batch).logits[:1])


@torch.no_grad()
def test_nothing_of_a_long_document_is_cut_off(model):
    batch = documents(1500)
    batch["input_ids"].clamp_(max=len(WORDS) - 2)[0, -1] = len(WORDS) - 1  # a word that stands nowhere else
    vectors = encode_in_windows(model.backbone, **batch, window=64)
    model.pooling.scorer.weight.copy_(vectors[:, -1])  # wants the last token more than any other
    assert 1499 in model(**batch).assignment.positions[0].tolist()


def test_a_row_without_tokens_and_a_row_of_one(model):
    for longest in (5, 100):
        out = model(**documents(0, 1, longest=longest), labels=torch.tensor([0, 1]))
        assert out.logits.isfinite().all()
        assert out.pooled_attention_mask.sum(-1).tolist() == [0, 1]
    model.train()(**documents(0, 100), labels=torch.tensor([0, 1])).loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_hidden_states_and_attentions_come_when_asked_for(model):
    out = model(**documents(10), output_hidden_states=True)
    assert [tuple(h.shape) for h in out.hidden_states] == [(1, 10, 32)] * 3
    with pytest.raises(ValueError, match="at most 64 tokens"):
        model(**documents(100), output_hidden_states=True)
    model.config.output_hidden_states = True
    assert len(model(**documents(10)).hidden_states) == 3


def test_a_document_without_a_single_token_is_refused(model):
    with pytest.raises(ValueError, match=r"at least one token, got \[2, 0\]"):
        model(torch.zeros(2, 0, dtype=torch.long))


def test_the_text_classification_pipeline_takes_short_and_long_texts_together(model):
    texts = ["a b c", " ".join("abcdefghij" * 30), ""]
    classify = pipeline("text-classification", model=model, tokenizer=tiny_tokenizer())
    together = classify(texts, batch_size=3)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = classify([text])
        assert alone["label"] == answer["label"]
        assert alone["score"] == pytest.approx(answer["score"], abs=1e-5)


def test_trainer_trains_evaluates_and_predicts(model, tmp_path):
    rows = [{"input_ids": [2, *range(4 + i, 14 + i), 30 + i % 3, 3], "labels": i % 3} for i in range(12)]
    arguments = TrainingArguments(tmp_path, max_steps=4, per_device_train_batch_size=4, report_to=[], use_cpu=True)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows,
                      processing_class=tiny_tokenizer())  # fmt: skip
    before = model.pooling.scorer.weight.clone()
    trainer.train()
    assert not torch.equal(model.pooling.scorer.weight, before)
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer.predict(rows).predictions.shape == (12, 3)


def test_gradient_accumulation_changes_no_loss_of_any_kind(encoder, tmp_path):
    rows = [{"input_ids": [2, *range(4 + i, 14 + i), 3], "labels": float(i)} for i in range(8)]
    biases = []
    for batch_size in (8, 4):
        torch.manual_seed(0)
        model = from_backbone(encoder, k=4, num_labels=1, backbone_dropout=0.0, classifier_dropout=0.0)
        sizes = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": 8 // batch_size}
        arguments = TrainingArguments(tmp_path, max_steps=1, optim="sgd", learning_rate=0.1, max_grad_norm=0,
                                      save_strategy="no", report_to=[], use_cpu=True, **sizes)  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tiny_tokenizer()).train()
        biases.append(model.classifier.bias.detach())
    torch.testing.assert_close(*biases)


@pytest.mark.parametrize(("problem", "labels"), [("regression", 1), ("multi_label_classification", 3)])
def test_other_kinds_of_labels_give_a_loss(encoder, problem, labels):
    model = from_backbone(encoder, k=4, num_labels=labels, problem_type=problem)
    assert model(**documents(8, 8), labels=torch.rand(2, labels).squeeze(-1)).loss > 0


def test_gradient_checkpointing_and_attention_implementations(encoder):
    losses = []
    for attention in ("eager", "sdpa"):
        config = TopKPoolingConfig(backbone=AutoConfig.from_pretrained(encoder), k=4, num_labels=3)
        torch.manual_seed(0)
        options = {"config": config, "attn_implementation": attention}
        model = TopKPoolingForSequenceClassification.from_pretrained(encoder, **options)
        assert model.backbone.config._attn_implementation == attention
        bare = from_backbone(encoder, attn_implementation=attention)
        assert bare.backbone.config._attn_implementation == attention
        model.gradient_checkpointing_enable()
        anneal(model, 0.5)
        loss = model.eval()(**documents(150, 20), labels=torch.tensor([0, 1])).loss
        loss.backward()
        losses.append(loss.detach())
    torch.testing.assert_close(losses[0], losses[1])


@pytest.mark.parametrize(("change", "message"), [
    ({"k": 0}, "whole number >= 1"),
    ({"operator": "magic"}, "operator to be one of"),
    ({"temperature": -1.0}, "temperature > 0"),
    ({"window": 1}, "window >= 2 tokens, got 1"),
    ({"windows_at_once": 0}, "windows_at_once >= 1"),
    ({"temprature": 1.0}, "unknown fields of TopKPoolingConfig: temprature"),
    ({"keep_order": "yes"}, "'keep_order' expected bool, got str"),
    ({"temperature": "warm"}, "'temperature'"),
    ({"window": 65}, "at most 64 tokens"),
    ({"classifier_dropout": 1.0}, "classifier_dropout in"),
    ({"k": "many"}, "k"),
    ({"k_by_layer": {9: 4}}, r"expected k_by_layer to name layers in 0\.\.1"),
    ({"k_by_layer": {1: 0}}, "expected k to be a whole number >= 1"),
    ({"k_by_layer": {1: 9}, "protected": [0]}, "does not go with protected tokens"),
    ({"backbone_sha256": "00"}, "not the expected ones"),
])  # fmt: skip
def test_impossible_configurations_are_refused(encoder, change, message):
    with pytest.raises(ValueError, match=message) as refused:
        from_backbone(encoder, **change)
    assert "\n" not in str(refused.value)


def test_a_configuration_draws_no_random_numbers():
    before = torch.get_rng_state()
    TopKPoolingConfig(k=4, scorer="mlp")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("config", "weights", "message"), [
    (None, None, "cannot load an encoder"),
    ({"model_type": "bart"}, None, "expected an encoder such as BERT .* call pool_encoder on its AutoModelForSeq"),
    ({"model_type": "topk_pooling"}, None, "expected an encoder such as BERT .* shtopk trained; go on .* --resume"),
    ({"model_type": "vit"}, None, "got a model of type vit"),
    (ENCODER, None, "cannot load the weights"),
    (ENCODER, "pytorch_model.bin", "no file named model.safetensors"),  # a pickle
    (ENCODER | {"intermediate_size": 64}, "model.safetensors", r"not fit config.json: expected .* \[64\], got \[37\]"),
    (ENCODER | {"hidden_size": "wide"}, "model.safetensors", "'hidden_size' expected int, got str"),
    (ENCODER | {"num_hidden_layers": 3}, "model.safetensors", "lack 16 tensors of the model"),
])  # fmt: skip
def test_a_folder_without_an_encoder_is_refused_in_one_line(encoder, tmp_path, config, weights, message):
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    if weights is not None:
        write = save_file if weights == "model.safetensors" else torch.save
        write(load_file(encoder / "model.safetensors"), tmp_path / weights)
    with pytest.raises(ValueError, match=message) as refused:
        from_backbone(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_path_that_is_no_folder_is_refused(encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(encoder)
    for path, found in (("config.json", "a file"), (encoder / "config.json", "a file"),
                        (tmp_path / "nowhere", "none"), ("", "none")):  # fmt: skip
        for load in (from_backbone, load_tokenizer):
            with pytest.raises(ValueError, match=f"a folder with a model or a hub name, found {found}"):
                load(path)


def test_an_encoder_without_a_tokenizer_that_pads_is_refused(encoder, tmp_path):
    (tmp_path / "config.json").write_text((encoder / "config.json").read_text())
    with pytest.raises(ValueError, match="expected a tokenizer beside the model"):
        load_tokenizer(tmp_path)
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"a tokenizer with a padding token in .*, got none; set its pad_token"):
        load_tokenizer(tmp_path)
