"""The operators in the form for ONNX, and what onnxruntime answers with exported models."""

from unittest.mock import patch

import pytest
import torch
from operator_cases import OPERATORS, SHAPES, power_halving, sample
from tiny import BART, BERT, WORDS
from torch.utils._pytree import tree_leaves
from transformers import BartConfig, BertConfig, BertModel

from shtopk import TopKPooling, onnx
from shtopk.integrations.encoder import pool_encoder
from shtopk.models import (
    TopKPoolingConfig,
    TopKPoolingForConditionalGeneration,
    TopKPoolingForSequenceClassification,
    TopKPoolingSeq2SeqConfig,
)


@pytest.fixture(autouse=True)
def _same_numbers_every_time():
    torch.manual_seed(0)  # by chance a token weighs what rounding decides


@pytest.mark.parametrize("topk", [*OPERATORS, power_halving], ids=lambda topk: topk.__name__)
def test_the_form_for_onnx_gives_what_the_operator_gives(topk):
    for n, k in SHAPES:
        values, scores, mask = (x.detach() for x in sample(n))
        values[~mask] = torch.nan
        options = {"mask": mask, "temperature": 0.1, "keep_order": True}
        wanted = topk(values, scores, k, **options)
        with patch("torch.onnx.is_in_onnx_export", lambda: True):
            found = topk(values, scores, k, **options)
        torch.testing.assert_close(tree_leaves(found), tree_leaves(wanted))


@pytest.mark.slow
def test_a_classifier_answers_in_onnxruntime_whatever_batch_and_length():
    model = TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=BertConfig(**BERT), k=4))
    free = {name: {0: "batch", 1: "n"} for name in ("input_ids", "attention_mask")}
    session = exported(model, documents(2, 20), dynamic_shapes=free)
    for size in ((2, 20), (1, 3), (5, 64)):
        check(session, model, documents(*size))


@pytest.mark.slow
def test_a_summarizers_encoder_answers_in_onnxruntime():
    config = TopKPoolingSeq2SeqConfig(
        backbone=BartConfig(**BART), k=4, temperature=0.1, eval_operator="successive_halving"
    )
    encoder = TopKPoolingForConditionalGeneration(config).get_encoder()
    check(exported(encoder, documents(2, 20)), encoder, documents(2, 20))


@pytest.mark.slow
def test_an_encoder_that_pools_between_its_layers_answers_in_onnxruntime():
    model = pool_encoder(BertModel(BertConfig(**BERT)), {1: 4}, eval_operator="hard")
    check(exported(model, documents(2, 20)), model, documents(2, 20))


@pytest.mark.slow
@patch.object(onnx, "LONGEST", 64)
def test_a_tournament_in_onnx_has_rounds_for_every_length():
    pooling = TopKPooling(8, 4, eval_operator="successive_halving")
    tokens = {"hidden_states": torch.randn(2, 20, 8), "attention_mask": torch.ones(2, 20)}
    session = exported(pooling, tokens, dynamic_shapes={name: {0: "batch", 1: "n"} for name in tokens})
    for batch, n in ((2, 20), (1, 2), (3, 64)):
        mask = torch.rand(batch, n) < 0.8
        check(session, pooling, {"hidden_states": torch.randn(batch, n, 8), "attention_mask": mask.float()})


@pytest.mark.slow
def test_what_depends_on_data_is_refused():
    with pytest.raises(Exception, match=r"a share as k cannot be traced, each row has its own; pass a whole number"):
        exported(TopKPooling(8, 0.5), {"hidden_states": torch.randn(2, 9, 8), "attention_mask": torch.ones(2, 9)})
    model = TopKPoolingForSequenceClassification(TopKPoolingConfig(backbone=BertConfig(**BERT), k=4, window=16))
    with pytest.raises(
        Exception, match=r"expected documents of at most 16 tokens \(one window\), got 20; ONNX has no"
    ):
        exported(model, documents(2, 20))


def documents(batch, n):
    """Documents, the last of which is half padding."""
    mask = torch.ones(batch, n, dtype=torch.long)
    mask[-1, (n + 1) // 2 :] = 0
    return {"input_ids": torch.randint(4, len(WORDS), (batch, n)), "attention_mask": mask}


def exported(model, given, **options):
    """A session of onnxruntime with a model in eval mode, and what it is called with."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    program = torch.onnx.export(model.eval(), (), kwargs=given, dynamo=True, verbose=False, **options)
    return runtime.InferenceSession(program.model_proto.SerializeToString())


def check(session, model, given):
    """Whether onnxruntime answers as the model does."""
    found = [torch.from_numpy(x) for x in session.run(None, {name: x.numpy() for name, x in given.items()})]
    with torch.no_grad():
        wanted = [x for x in tree_leaves(model(**given)) if x is not given.get("input_ids")]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
