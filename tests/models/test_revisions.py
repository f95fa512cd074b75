"""A backbone of the hub may be pinned to a revision, and its weights are those of the same commit."""

from unittest.mock import Mock

from transformers import AutoConfig, AutoModel, AutoTokenizer

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingForSequenceClassification


def test_a_backbone_is_pinned_and_its_commit_known(encoder, monkeypatch):
    config = AutoConfig.from_pretrained(encoder)
    config._commit_hash = "abc"
    loads = {"config": Mock(return_value=config), "weights": Mock(side_effect=AutoModel.from_pretrained)}
    monkeypatch.setattr("shtopk.models.pretrained.AutoConfig.from_pretrained", loads["config"])
    monkeypatch.setattr("shtopk.models.backbone.AutoModel.from_pretrained", loads["weights"])
    model = TopKPoolingForSequenceClassification.from_backbone(encoder, backbone_revision="v1", k=4)
    assert [load.call_args.kwargs["revision"] for load in loads.values()] == ["v1", "abc"]
    assert model.backbone_commit == "abc"


def test_a_decoder_is_joined_with_the_tokenizer_of_the_same_commit(encoder, monkeypatch):
    config = AutoConfig.from_pretrained(encoder)
    config._commit_hash = "abc"
    tokenizer = Mock(side_effect=AutoTokenizer.from_pretrained)
    monkeypatch.setattr("shtopk.models.pretrained.AutoConfig.from_pretrained", Mock(return_value=config))
    monkeypatch.setattr("shtopk.models.pretrained.AutoTokenizer.from_pretrained", tokenizer)
    TopKPoolingForConditionalGeneration.from_backbone(encoder, backbone_revision="v1", decoder_layers=1, k=4)
    assert tokenizer.call_args.kwargs["revision"] == "abc"
