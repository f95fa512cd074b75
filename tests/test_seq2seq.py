"""The encoder-decoder whose decoder sees k vectors, on the families that people use."""

import copy

import pytest
import torch
from conftest import BART, BERT, SPECIAL, WORDS, tiny_tokenizer
from torch.nn import functional
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertLMHeadModel,
    DataCollatorForSeq2Seq,
    EncoderDecoderConfig,
    LEDConfig,
    MBartConfig,
    MPNetConfig,
    MPNetModel,
    PegasusConfig,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    ViTConfig,
    ViTModel,
)

from models import (
    TopKPoolingForConditionalGeneration,
    TopKPoolingSeq2SeqConfig,
    load_pretrained_seq2seq,
    pool_in_windows,
)
from shtopk import TopKPooling

V = len(WORDS)
FAMILIES = {
    "bart": BartConfig(**BART, max_position_embeddings=32),
    "mbart": MBartConfig(**BART, max_position_embeddings=32),
    "pegasus": PegasusConfig(**BART, max_position_embeddings=32),
    "led": LEDConfig(**BART, max_encoder_position_embeddings=32, max_decoder_position_embeddings=32,
                     attention_window=8),
    "t5": T5Config(vocab_size=V, d_model=16, d_kv=8, d_ff=17, num_layers=1, num_heads=2, dropout_rate=0.0,
                   **SPECIAL),
    "encoder-decoder": EncoderDecoderConfig(
        encoder=BertConfig(**BERT).to_dict(),
        decoder=BertConfig(**BERT, is_decoder=True, add_cross_attention=True).to_dict(), **SPECIAL),
}  # fmt: skip


def build(family="bart", **fields):
    torch.manual_seed(0)
    backbone = copy.deepcopy(FAMILIES[family])  # a model changes its configuration when it gets new tokens
    config = TopKPoolingSeq2SeqConfig(backbone=backbone, **({"k": 4} | fields))
    return TopKPoolingForConditionalGeneration(config).eval()


def documents(*lengths, longest=None):
    torch.manual_seed(sum(lengths))
    mask = torch.arange(longest or max(lengths)) < torch.tensor(lengths).unsqueeze(1)
    return {"input_ids": torch.randint(4, V, mask.shape) * mask, "attention_mask": mask.long()}


def without_pooling(model, **options):
    return model.backbone.generate(**documents(4), **options)


GENERATION = {
    "greedy": {},
    "beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampling": {"do_sample": True, "num_return_sequences": 3},
    "static cache": {"cache_implementation": "static"},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", GENERATION)
def test_with_k_of_n_it_generates_what_the_backbone_generates(family, mode):
    model = build(family, k=4, operator="hard")
    options = GENERATION[mode] | {"max_new_tokens": 6, "min_new_tokens": 6}
    torch.manual_seed(1)
    generated = model.generate(**documents(4), **options)
    torch.manual_seed(1)
    assert torch.equal(generated, without_pooling(model, **options))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["greedy", "beams"])
def test_a_padded_row_generates_what_it_generates_alone(family, mode):
    model, options = build(family), GENERATION[mode] | {"max_new_tokens": 6, "min_new_tokens": 6}
    batch = documents(9, 30)
    rows = options.get("num_return_sequences", 1)
    alone = model.generate(batch["input_ids"][:1, :9], attention_mask=batch["attention_mask"][:1, :9], **options)
    assert torch.equal(model.generate(**batch, **options)[:rows], alone)


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
    out = model.generate(**batch, max_new_tokens=3, min_new_tokens=3)
    assert out.shape == (3, 4)
    loss = model(**batch, labels=torch.tensor([[5, 6]] * 3)).loss
    assert loss.isfinite()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("length", [2, 40])
def test_every_parameter_gets_a_gradient(family, length):
    model = build(family).train()
    model(**documents(length, length), labels=torch.tensor([[5, 6, 7], [8, 9, -100]])).loss.backward()
    # Pegasus computes its positions under no_grad: its own, and DDP's, affair.
    without = [name for name, p in model.named_parameters() if p.grad is None and "embed_positions" not in name]
    assert without == [], "DDP would need find_unused_parameters"
    assert (model.pooling.scorer.weight.grad != 0).any() == (length == 40)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_is_the_backbones(family):
    model, labels = build(family, operator="hard"), torch.tensor([[5, 6, 7], [8, 9, -100]])
    torch.testing.assert_close(
        model(**documents(4, 4), labels=labels).loss, model.backbone(**documents(4, 4), labels=labels).loss
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_again_it_is_the_same(family, tmp_path):
    model = build(family)
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert type(again) is TopKPoolingForConditionalGeneration
    one, other = model.state_dict(), again.state_dict()
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
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
    model = load_pretrained_seq2seq(tmp_path, k=4)
    weights = bare.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.backbone.state_dict().items())
    assert model.pooling.scorer.weight.std() > 0.05  # drawn, not zero
    assert model.generation_config.num_beams == 3


def test_a_checkpoint_without_its_language_model_head_loads_too(tmp_path):
    bare = BartModel(FAMILIES["bart"])
    bare.save_pretrained(tmp_path)
    model = load_pretrained_seq2seq(tmp_path, k=4)
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
    arguments = Seq2SeqTrainingArguments(
        tmp_path, max_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True, predict_with_generate=True,
        generation_max_length=6,
    )  # fmt: skip
    collator = DataCollatorForSeq2Seq(tokenizer, model)
    trainer = Seq2SeqTrainer(
        model=model, args=arguments, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer,
        data_collator=collator,
    )  # fmt: skip
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
    ({"window_k": 4, "operator": "iterative"}, "two steps does not go with iterative"),
    ({"window_k": 4, "protected": [0]}, "two steps does not go with protected tokens"),
    ({"k": 0}, "whole number >= 1"),
])  # fmt: skip
def test_impossible_configurations_are_refused_in_one_line(change, message, tmp_path):
    BartForConditionalGeneration(FAMILIES["bart"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=message) as refused:
        load_pretrained_seq2seq(tmp_path, **change)
    assert "\n" not in str(refused.value)


# An encoder and a decoder, joined


def test_an_encoder_alone_gets_a_decoder_that_starts_from_its_first_and_last_layer(encoder, tmp_path):
    model = load_pretrained_seq2seq(encoder, k=4, copy_head=True)
    given = AutoModel.from_pretrained(encoder, add_pooling_layer=False).state_dict()
    decoder = model.backbone.decoder
    for layer, source in enumerate((0, 1)):
        weight = decoder.bert.encoder.layer[layer].attention.self.query.weight
        assert torch.equal(weight, given[f"encoder.layer.{source}.attention.self.query.weight"])
    assert torch.equal(model.encoder.embeddings.word_embeddings.weight, given["embeddings.word_embeddings.weight"])
    assert decoder.get_output_embeddings().weight is decoder.get_input_embeddings().weight
    assert all(("crossattention" in name or "cls.predictions" in name) or not name.startswith("backbone")
               for name in model.fresh)  # fmt: skip
    assert {"copy_head.query.weight", "pooling.scorer.weight"} < model.fresh
    torch.manual_seed(1)
    target = model.generate(**documents(9, 30), max_new_tokens=5)
    assert (target[:, 0] == 2).all()  # [CLS]
    model.save_pretrained(tmp_path)
    again = AutoModelForSeq2SeqLM.from_pretrained(tmp_path)
    assert torch.equal(again.generate(**documents(9, 30), max_new_tokens=5), target)


def test_a_given_decoder_keeps_its_weights(encoder, tmp_path):
    torch.manual_seed(1)
    bare = BertLMHeadModel(BertConfig(**BERT | {"hidden_size": 16, "num_hidden_layers": 1, "is_decoder": True}))
    bare.save_pretrained(tmp_path)
    model = load_pretrained_seq2seq(encoder, decoder=tmp_path, k=4)
    key = "bert.encoder.layer.0.attention.self.query.weight"
    assert torch.equal(model.backbone.decoder.state_dict()[key], bare.state_dict()[key])
    assert {name.split(".")[-4] for name in model.fresh if "crossatt" in name} <= {"crossattention", "0"}
    assert f"backbone.decoder.{key}" not in model.fresh
    assert model.generate(**documents(9), max_new_tokens=3).shape[0] == 1


@pytest.mark.parametrize(("options", "message"), [
    ({"decoder_layers": 3}, r"decoder_layers in 1\.\.2, got 3"),
    ({"decoder": "other"}, "of one vocabulary, got 34 and 40 words"),
])  # fmt: skip
def test_what_cannot_be_joined_is_refused_in_one_line(encoder, tmp_path, monkeypatch, options, message):
    BertLMHeadModel(BertConfig(**BERT | {"vocab_size": 40, "is_decoder": True})).save_pretrained(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        load_pretrained_seq2seq(encoder, **options)


def test_what_has_no_decoder_is_refused(tmp_path):
    MPNetModel(MPNetConfig(**BERT)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="of type mpnet cannot decode what an encoder kept; BERT"):
        load_pretrained_seq2seq(tmp_path)


def test_a_checkpoints_beams_and_least_length_give_way_to_what_is_asked_for():
    model = build()
    model.generation_config.update(num_beams=4, early_stopping=True, length_penalty=2.0, min_length=56)
    model.set_generation(max_new_tokens=20, num_beams=1, no_repeat_ngram_size=None)
    kept = model.generation_config
    assert (kept.num_beams, kept.max_new_tokens, kept.min_length) == (1, 20, 0)
    model.set_generation(max_new_tokens=20, num_beams=2)
    assert kept.num_beams == 2


def test_what_is_no_text_model_is_refused(tmp_path):
    ViTModel(ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"an encoder-decoder such as BART or T5 .* got a model of type vit"):
        load_pretrained_seq2seq(tmp_path)


# The copy head


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
    assert all(
        (p.grad != 0).any()
        for p in (*model.copy_head.parameters(), *model.pooling.scorer.parameters())
        if p is not model.pooling.scorer.bias
    )  # a shift of all scores changes nothing


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
    weights = model.get_encoder()(**batch).weights
    assert weights[weights > 0].min() < 0.9
    torch.testing.assert_close(logits.exp().sum(-1), torch.ones(2, 2))


def test_a_closed_gate_says_what_the_backbone_says_and_an_open_one_copies_what_was_kept():
    model, batch = build(copy_head=True), documents(30)
    start = torch.tensor([[2]])
    with torch.no_grad():
        model.copy_head.gate.bias.fill_(50)
        encoded = model.get_encoder()(**batch)
        said = model(encoder_outputs=encoded, decoder_input_ids=start).logits
        plain = model.backbone(encoder_outputs=(encoded.last_hidden_state,), attention_mask=encoded.attention_mask,
                               decoder_input_ids=start).logits  # fmt: skip
        torch.testing.assert_close(said, plain.log_softmax(-1))
        model.copy_head.gate.bias.fill_(-50)
        copied = model(encoder_outputs=encoded, decoder_input_ids=start).logits.exp()[0, 0]
    kept = batch["input_ids"][0][encoded.weights[0] > 1e-3]
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
    return encoded.weights[0] * (encoded.slots[0] == slot)


@pytest.mark.parametrize("mode", GENERATION)
def test_a_padded_row_with_a_copy_head_generates_what_it_generates_alone(mode):
    model, options = build(copy_head=True), GENERATION[mode] | {"max_new_tokens": 6, "min_new_tokens": 6}
    batch = documents(9, 30, 0)
    rows = options.get("num_return_sequences", 1)
    torch.manual_seed(1)
    together = model.generate(**batch, **options)
    assert together.shape[0] == 3 * rows
    if mode != "sampling":
        alone = model.generate(batch["input_ids"][:1, :9], attention_mask=batch["attention_mask"][:1, :9], **options)
        assert torch.equal(together[:rows], alone)


def test_a_copy_head_is_saved_and_loaded(tmp_path):
    model = build(copy_head=True)
    model.save_pretrained(tmp_path)
    again = TopKPoolingForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(again.copy_head.query.weight, model.copy_head.query.weight)
    BartForConditionalGeneration(FAMILIES["bart"]).save_pretrained(tmp_path / "bare")
    fresh = load_pretrained_seq2seq(tmp_path / "bare", k=4, copy_head=True)
    assert fresh.copy_head.query.weight.std() > 0.01


# Pooling in two steps, in windows


class Embedding(torch.nn.Module):
    """An encoder that looks at one token at a time, so that windows make no difference to its vectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(V, 8)

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"last_hidden_state": self.table(input_ids)})


def pooled_in_windows(batch, k=5, window=16, window_k=6, **options):
    encoder, pooling = Embedding(), TopKPooling(8, k, **options).eval()
    return encoder, pooling, pool_in_windows(encoder, pooling, **batch, window=window, window_k=window_k)


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_the_weights_of_both_steps_together_make_the_vectors(temperature):
    batch = documents(70, 9, 33)
    encoder, _, pooled = pooled_in_windows(batch, temperature=temperature)
    choice = pooled.choice
    torch.testing.assert_close(choice.pool(encoder.table(batch["input_ids"])), pooled.hidden_states)
    torch.testing.assert_close(choice.dense_weights().sum(-1), pooled.attention_mask.float())
    assert torch.equal(choice.dense_weights().argmax(-1), pooled.positions)
    assert (choice.slots[batch["attention_mask"] == 0] == -1).all()


def test_in_two_steps_the_vectors_stand_in_document_order_however_soft_the_choice():
    for seed in range(20):
        torch.manual_seed(seed)
        batch = documents(70 + seed)
        _, _, pooled = pooled_in_windows(batch, temperature=2.0)
        positions = pooled.positions[pooled.attention_mask != 0]
        assert torch.equal(positions, positions.sort().values)


def test_a_share_is_one_of_the_tokens_in_one_step_and_in_two():
    batch = documents(64)
    _, pooling, pooled = pooled_in_windows(batch, k=0.5, window=16, window_k=16)
    assert pooled.hidden_states.shape[1] == 32
    _, _, pooled = pooled_in_windows(batch, k=0.5, window=16, window_k=4)
    assert pooled.hidden_states.shape[1] == 32 and pooled.attention_mask.sum() == 16


def test_sharp_and_with_room_in_each_window_two_steps_choose_what_one_chooses():
    batch = {"input_ids": torch.stack([torch.randperm(V - 4)[:30] + 4]), "attention_mask": torch.ones(1, 30).long()}
    encoder, pooling, pooled = pooled_in_windows(batch, k=4, window=8, window_k=4, temperature=1e-4)
    at_once = pooling(encoder.table(batch["input_ids"]))
    torch.testing.assert_close(pooled.hidden_states, at_once.hidden_states)
    assert torch.equal(pooled.positions, at_once.positions)


def test_in_two_steps_a_document_does_not_depend_on_what_it_is_batched_with():
    batch = documents(9, 70, 0)
    _, pooling, together = pooled_in_windows(batch, temperature=1.0)
    for row, length in ((0, 9), (1, 70)):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
        vectors = pool_in_windows(Embedding(), pooling, **alone, window=16, window_k=6).hidden_states
        torch.testing.assert_close(together.hidden_states[row : row + 1], vectors)
    assert not together.attention_mask[2].any()


def test_the_model_pools_in_two_steps_when_asked_to():
    model = build(k=4, window=16, window_k=3)
    batch = documents(100, 9)
    encoded = model.get_encoder()(**batch)
    filled = (encoded.slots[0] >= 0).sum()
    assert encoded.last_hidden_state.shape == (2, 4, 16)
    assert filled > 0
    assert model.generate(**batch, max_new_tokens=3).shape[0] == 2
