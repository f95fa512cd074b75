"""Around which backbones a model is built, in what precision, which are refused, and what of them can be frozen."""

import re

import pytest
import torch
from seq2seq_families import build as build_summarizer
from seq2seq_families import documents
from tiny import BART, BERT, tiny_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertLMHeadModel,
    BertModel,
    DebertaV2Config,
    EsmConfig,
    GPT2Config,
    T5Config,
    XLMConfig,
)

from shtopk.integrations.encoder import pool_encoder
from shtopk.models import (
    TopKPoolingConfig,
    TopKPoolingForConditionalGeneration,
    TopKPoolingForSequenceClassification,
    TopKPoolingModel,
    encode_in_windows,
    freeze_layers,
)

SIZES = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
         "intermediate_size": 24, "max_position_embeddings": 40, "pad_token_id": 1,
         "initializer_range": 0.3}  # fmt: skip
DEPEND_ON_PADDING = {
    "canine": {"num_hash_buckets": 64, "num_hash_functions": 4},
    "convbert": {"embedding_size": 32, "head_ratio": 2},
    "mobilebert": {"embedding_size": 32},
    "funnel": {"n_head": 2, "d_head": 16, "d_inner": 24, "block_sizes": [1, 1], "architectures": ["FunnelModel"]},
    "nystromformer": {"num_landmarks": 8, "segment_means_seq_len": 8},
    "yoso": {},
}


def saved(model, folder):
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("saved_in", [torch.bfloat16, torch.float16])
def test_a_checkpoint_in_half_precision_is_trained_in_float32_unless_told_otherwise(saved_in, tmp_path):
    bert = BertModel(BertConfig(**BERT)).to(saved_in)
    encoder = saved(bert, tmp_path / "encoder")
    decoder = saved(BertLMHeadModel(BertConfig(**BERT, is_decoder=True)).to(saved_in), tmp_path / "decoder")
    bart = saved(BartForConditionalGeneration(BartConfig(**BART)).to(saved_in), tmp_path / "bart")
    classify = TopKPoolingForSequenceClassification.from_backbone
    summarize = TopKPoolingForConditionalGeneration.from_backbone
    for build in (
        lambda **fields: classify(encoder, k=4, k_by_layer={1: 8}, **fields),
        lambda **fields: summarize(bart, k=4, copy_head=True, **fields),
        lambda **fields: summarize(encoder, k=4, **fields),
        lambda **fields: summarize(encoder, decoder=decoder, k=4, **fields),
    ):
        for given, expected in (({}, torch.float32), ({"dtype": torch.bfloat16}, torch.bfloat16)):
            model = build(**given)
            assert {parameter.dtype for parameter in model.parameters()} == {expected}
            assert model.config.dtype == model.config.backbone.dtype == expected
    words = classify(encoder, k=4).get_input_embeddings().weight
    assert torch.equal(words, bert.get_input_embeddings().weight.float())


@pytest.mark.parametrize(("model_class", "backbone", "labels"), [
    (TopKPoolingForSequenceClassification, BertConfig(**BERT, dtype="bfloat16"), torch.tensor([0, 1])),
    (TopKPoolingForConditionalGeneration, BartConfig(**BART, dtype="bfloat16"), torch.full((2, 5), 4)),
])  # fmt: skip
def test_a_backbone_is_built_in_the_type_of_what_stands_around_it(model_class, backbone, labels):
    model = model_class(model_class.config_class(backbone=backbone, k=4))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(input_ids=torch.full((2, 20), 5), labels=labels).loss.isfinite()


@pytest.mark.parametrize("model_class", [TopKPoolingForSequenceClassification, TopKPoolingModel])
@pytest.mark.parametrize("backbone", [BartConfig(**BART), T5Config(d_model=16)], ids=["bart", "t5"])
def test_an_encoder_decoder_is_refused_where_an_encoder_is_expected(model_class, backbone):
    kind = backbone.model_type
    with pytest.raises(ValueError, match=rf"^expected an encoder such as BERT as backbone, got .* {kind}; .*$"):
        model_class(TopKPoolingConfig(backbone=backbone))


@pytest.mark.parametrize(("bare", "model_class"), [
    (lambda: BertForMaskedLM(BertConfig(**BERT)), TopKPoolingForSequenceClassification),
    (lambda: BertForMaskedLM(BertConfig(**BERT)), TopKPoolingModel),
    (lambda: BartModel(BartConfig(**BART)), TopKPoolingForConditionalGeneration),
])  # fmt: skip
def test_a_checkpoint_of_which_the_backbone_gets_nothing_is_not_loaded_with_drawn_weights(bare, model_class, tmp_path):
    bare().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"^expected weights of a B.* in {tmp_path}, found .*from_backbone") as no:
        model_class.from_pretrained(tmp_path, k=4)
    assert "\n" not in str(no.value)


def test_a_backbone_that_pools_between_its_layers_is_not_stripped_of_its_poolings(tmp_path):
    encoder = saved(pool_encoder(BertModel(BertConfig(**BERT)), {1: 4}), tmp_path / "encoder")
    bart = saved(pool_encoder(BartForConditionalGeneration(BartConfig(**BART)), {0: 4}), tmp_path / "bart")
    for load in (
        lambda: TopKPoolingForSequenceClassification.from_backbone(encoder, k=2),
        lambda: TopKPoolingForSequenceClassification.from_pretrained(encoder, k=2),
        lambda: TopKPoolingForConditionalGeneration.from_backbone(encoder, k=2),
        lambda: TopKPoolingForConditionalGeneration.from_backbone(bart, k=2),
    ):
        with pytest.raises(ValueError, match=r"^expected a backbone that pools nothing, .* load it with load_pooled"):
            load()


@pytest.mark.parametrize("kind", DEPEND_ON_PADDING)
def test_an_encoder_that_reads_padding_in_spite_of_its_mask_is_refused(kind, tmp_path):
    sizes = {name: size for name, size in SIZES.items() if kind != "funnel" or "num_hidden" not in name}
    config = AutoConfig.for_model(kind, **sizes | DEPEND_ON_PADDING[kind])
    torch.manual_seed(0)
    bare = AutoModel.from_config(config).eval()
    batch = documents(9, 20)
    alone = bare(batch["input_ids"][:1, :9], attention_mask=batch["attention_mask"][:1, :9]).last_hidden_state
    assert not torch.allclose(bare(**batch).last_hidden_state[:1, :9], alone, atol=1e-3)

    refused = f"expected an encoder whose vectors do not depend on padding, .* got one of type {kind}; name another$"
    bare.save_pretrained(tmp_path)
    for read in (
        lambda: TopKPoolingForSequenceClassification.from_backbone(tmp_path, k=4),
        lambda: TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=config)),
        lambda: encode_in_windows(bare, **batch, window=30),
    ):
        with pytest.raises(ValueError, match=refused):
            read()


@pytest.mark.parametrize(("kind", "fields"), [
    ("luke", {"entity_vocab_size": 5, "entity_emb_size": 8}), ("markuplm", {}), ("lilt", {"hidden_size": 48}),
    ("layoutlmv3", {"visual_embed": False, "coordinate_size": 6, "shape_size": 4}),
])  # fmt: skip
def test_windows_of_encoders_that_count_positions_as_roberta_does_fit(kind, fields):
    config = AutoConfig.for_model(kind, **SIZES | fields)
    model = TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=config, k=4, num_labels=2)).eval()
    batch = documents(40, 38)
    batch["input_ids"] = (batch["input_ids"] + 4).where(batch["attention_mask"] != 0, config.pad_token_id)
    assert model(**batch).logits.isfinite().all()


def classifier(config):
    return TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=config, k=4))


def deberta(**fields):
    return DebertaV2Config(**BERT, **fields, relative_attention=True, position_buckets=8, norm_rel_ebd="layer_norm")


GPT2 = {"vocab_size": 34, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}


@pytest.mark.parametrize(("build", "above"), [
    (lambda: classifier(BertConfig(**BERT)), r"backbone\.encoder\.layer\.1|pooling|classifier"),
    (lambda: classifier(deberta()), r"backbone\.encoder\.(layer\.1|rel_embeddings|LayerNorm)|pooling|classifier"),
    (lambda: classifier(GPT2Config(**GPT2)), r"backbone\.(h\.1|ln_f)|pooling|classifier"),
    (lambda: classifier(EsmConfig(**BERT, pad_token_id=0)),
     r"backbone\.(encoder\.(layer\.1|emb_layer_norm_after)|contact_head)|pooling|classifier"),
    (lambda: classifier(deberta(conv_kernel_size=3)),
     r"backbone\.encoder\.(layer\.1|rel_embeddings|LayerNorm)|pooling|classifier"),
    (lambda: classifier(XLMConfig(vocab_size=34, emb_dim=32, n_layers=2, n_heads=2)),
     r"backbone\.(attentions|layer_norm1|ffns|layer_norm2)\.1|pooling|classifier"),
    (lambda: build_summarizer("bart"), r"backbone\.model\.decoder|pooling"),
    (lambda: build_summarizer("t5"), r"backbone\.(encoder\.final|decoder|lm_head)|pooling"),
    (lambda: build_summarizer("encoder-decoder"), r"backbone\.(encoder\.encoder\.layer\.1|decoder)|pooling"),
    (lambda: build_summarizer("bart").encoder, "nothing"),
    (lambda: BertModel(BertConfig(**BERT)), r"encoder\.layer\.1|pooler"),
])  # fmt: skip
def test_with_the_lowest_layer_all_that_lies_below_it_is_frozen_and_nothing_above(build, above):
    model = build()
    freeze_layers(model, 1)
    trained = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if re.match(above, name)}


def test_without_a_frozen_layer_nothing_is_frozen():
    model = classifier(BertConfig(**BERT))
    freeze_layers(model, 0)
    assert all(parameter.requires_grad for parameter in model.parameters())
