"""The module of a sentence-transformers model: saved and loaded with it, pooled to k, trained by its losses."""

import json

import pytest
import torch
from datasets import Dataset
from sentence_transformers import (
    MultiVectorEncoder,
    MultiVectorEncoderTrainer,
    MultiVectorEncoderTrainingArguments,
    SentenceTransformer,
)
from sentence_transformers.base.modules import Normalize, Router, Transformer
from sentence_transformers.multi_vector_encoder.losses import (
    CachedMultiVectorMultipleNegativesRankingLoss,
    MultiVectorMultipleNegativesRankingLoss,
)
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling

from shtopk import anneal
from shtopk.integrations.sentence_transformers import TopKTokenPooling
from shtopk.integrations.trainer import AnnealTemperature, DrawK

SHORT, LONG, OTHER = "goal", "a b c d e f g goal h i j match", "bank shares x y z a b"
K = 4


def multi_vector(encoder, k=K, **options):
    """Transformer, mask, pooling to k, unit length."""
    torch.manual_seed(0)
    pooling = TopKTokenPooling(32, k, **options)
    modules = [Transformer(str(encoder)), MultiVectorMask(), pooling, Normalize("token_embeddings")]
    return MultiVectorEncoder(modules=modules, device="cpu")


def single_vector(encoder, **options):
    """Transformer, pooling to 4, their mean."""
    torch.manual_seed(0)
    modules = [Transformer(str(encoder)), TopKTokenPooling(32, K, **options), Pooling(32, "mean")]
    return SentenceTransformer(modules=modules, device="cpu")


def features(*lengths, n=9):
    torch.manual_seed(1)
    mask = (torch.arange(n) < torch.tensor(lengths).unsqueeze(1)).long()
    ids = torch.arange(1, n + 1).expand(mask.shape) * mask
    return {"token_embeddings": torch.randn(len(lengths), n, 8), "attention_mask": mask, "input_ids": ids}


def test_a_document_has_k_unit_vectors_a_query_has_all(encoder):
    model = multi_vector(encoder)
    long, short = model.encode_document([LONG, SHORT])
    assert (long.shape, short.shape) == ((K, 32), (3, 32))  # [CLS] goal [SEP]
    torch.testing.assert_close(long.norm(dim=-1), torch.ones(K))
    assert model.encode_query(LONG).shape == (14, 32)


def test_with_a_share_a_longer_document_has_more_vectors_whatever_stands_beside_it(encoder, tmp_path):
    model = multi_vector(encoder, k=0.25)
    long, short, other = together = model.encode_document([LONG, SHORT, OTHER])  # 14, 3 and 9 tokens
    assert [len(long), len(short), len(other)] == [4, 1, 3]
    model.save(str(tmp_path))
    loaded = MultiVectorEncoder(str(tmp_path), device="cpu", trust_remote_code=True)
    for vectors, text in zip(together, [LONG, SHORT, OTHER], strict=True):
        torch.testing.assert_close(loaded.encode_document(text), vectors, atol=1e-5, rtol=1e-5)
    bare = MultiVectorEncoder(modules=[model[0], model[1]], device="cpu")
    assert [len(x) for x in bare.encode_document([LONG, SHORT, OTHER], token_pooling=model[2])] == [4, 1, 3]


def test_the_mean_behind_it_is_that_of_the_k_vectors(encoder):
    model = single_vector(encoder)
    vectors = model.encode(LONG, output_value="token_embeddings")
    assert vectors.shape == (K, 32)
    torch.testing.assert_close(torch.as_tensor(model.encode(LONG)), vectors.mean(0))
    unpooled = SentenceTransformer(modules=[model[0], model[2]], device="cpu")
    assert (model.encode(LONG) != unpooled.encode(LONG)).any()


@pytest.mark.parametrize("build", [multi_vector, single_vector])
def test_a_row_in_a_batch_equals_it_alone(build, encoder):
    model = build(encoder)
    for alone, together in zip([model.encode(SHORT), model.encode(LONG)], model.encode([SHORT, LONG]), strict=True):
        torch.testing.assert_close(torch.as_tensor(together), torch.as_tensor(alone), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [multi_vector, single_vector])
def test_saved_and_loaded_it_encodes_bit_for_bit_the_same(build, encoder, tmp_path):
    model = build(encoder, scorer="mlp", protected=[0], temperature=0.5, keep_order=False)
    model.save(str(tmp_path))
    (listed,) = [m for m in json.loads((tmp_path / "modules.json").read_text()) if "TopK" in m["path"]]
    assert listed["type"] == "shtopk.integrations.sentence_transformers.TopKTokenPooling"
    assert {file.name for file in (tmp_path / listed["path"]).iterdir()} == {"config.json", "model.safetensors"}
    torch.manual_seed(1)
    loaded = type(model)(str(tmp_path), device="cpu", trust_remote_code=True)
    for one, other in zip(model.encode([SHORT, LONG, OTHER]), loaded.encode([SHORT, LONG, OTHER]), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))
    saved, read = (next(part for part in it if isinstance(part, TopKTokenPooling)) for it in (model, loaded))
    assert saved.get_config_dict() == read.get_config_dict()


def test_no_pickle_is_written_or_read(tmp_path):
    pooling = TopKTokenPooling(8, 2)
    pooling.save(str(tmp_path), safe_serialization=False)
    assert not list(tmp_path.glob("*.bin"))
    (tmp_path / "model.safetensors").unlink()
    torch.save(pooling.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"cannot load a TopKTokenPooling from .*: expected a model.safetensors"):
        TopKTokenPooling.load(str(tmp_path))


def test_what_does_not_load_is_refused_in_one_line(tmp_path):
    TopKTokenPooling(8, 2).save(str(tmp_path))
    config = json.loads((tmp_path / "config.json").read_text())
    for change, reason in (
        ({"scorer": "mlp"}, "Missing key"),
        ({"hidden_size": 7}, "size mismatch"),
        ({"k": 0}, "expected k"),
        ({"unknown": 1}, "expected options of TopKPooling .*, got unknown"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=reason) as caught:
            TopKTokenPooling.load(str(tmp_path))
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="cannot load a TopKTokenPooling from"):
        TopKTokenPooling.load(str(tmp_path))


def test_what_later_modules_need_is_as_short_as_the_vectors():
    pooling = TopKTokenPooling(8, K).eval()
    given = features(9, 2)
    out = pooling(given)
    positions = pooling.pooling(given["token_embeddings"], given["attention_mask"]).positions
    assert out["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert torch.equal(out["input_ids"], (positions + 1) * out["attention_mask"])
    assert given["attention_mask"].shape == (2, 9)  # a loss may embed it once more


def test_a_skiplist_behind_it_drops_slots_led_by_such_tokens(encoder):
    pooling = TopKTokenPooling(32, 14)  # all tokens
    modules = [Transformer(str(encoder)), pooling, MultiVectorMask(["goal", "match"])]
    model = MultiVectorEncoder(modules=modules, device="cpu")
    assert model.encode_document(LONG).shape == (12, 32)


@pytest.mark.parametrize(
    ("build", "loss"),
    [(multi_vector, MultiVectorMultipleNegativesRankingLoss), (single_vector, MultipleNegativesRankingLoss)],
)
def test_the_losses_gradient_reaches_the_scorer(build, loss, encoder):
    model = build(encoder).train()
    anneal(model, 0.0)
    columns = [model.preprocess(texts) for texts in ([SHORT, "bank"], [LONG, OTHER])]
    loss(model)(columns, None).backward()
    (pooling,) = [part for part in model if isinstance(part, TopKTokenPooling)]
    assert (pooling.pooling.scorer.weight.grad != 0).any()
    assert all((p.grad != 0).any() for name, p in model[0].named_parameters() if name.endswith("value.weight"))


def test_a_trainer_trains_it_from_soft_to_sharp(encoder, tmp_path):
    model = multi_vector(encoder, temperature=1 / 16, initial_temperature=4.0)
    temperatures = []
    pooling = model[2].pooling
    pooling.register_forward_hook(lambda module, given, out: temperatures.append(module.current_temperature))
    before = pooling.scorer.weight.clone()
    arguments = MultiVectorEncoderTrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=2, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no", learning_rate_mapping={r"pooling\.scorer": 1e-2},
    )  # fmt: skip
    pairs = Dataset.from_dict({"query": [SHORT, "bank"], "document": [LONG, OTHER]})
    MultiVectorEncoderTrainer(model, arguments, pairs, callbacks=[AnnealTemperature()]).train()
    assert temperatures == pytest.approx([4, 1, 1 / 4])  # 4 to 1/16 in thirds
    assert (pooling.scorer.weight - before).abs().max() > 5e-3


def slots_of(pooling):
    """Filled in by each pass of documents: how many slots it gave them."""
    seen = []
    pooling.pooling.register_forward_hook(lambda module, given, out: seen.append(out.mask.shape[1]))
    return seen


def test_with_a_range_each_pass_in_training_draws_a_k_and_encode_has_its_own(encoder, tmp_path):
    model = multi_vector(encoder, k_range=(2, 30)).train()
    seen = slots_of(model[2])
    for _ in range(40):
        model(model.preprocess([LONG, OTHER]), task="document")
        model(model.preprocess([LONG, OTHER]), task="query")
    assert len(seen) == 40 and len(set(seen)) > 8 and 2 <= min(seen) < 5 and 15 < max(seen) <= 30
    assert len(model.encode_document(LONG)) == K
    model.save(str(tmp_path))
    assert MultiVectorEncoder(str(tmp_path), device="cpu", trust_remote_code=True)[2].k_range == (2, 30)


def test_a_cached_loss_embeds_a_batch_twice_with_the_same_k(encoder):
    model = multi_vector(encoder, k_range=(2, 30)).train()
    seen = slots_of(model[2])
    columns = [model.preprocess(texts) for texts in ([SHORT, "bank", "a", "b"], [LONG, OTHER, LONG, SHORT])]
    CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=1)(columns).backward()
    assert len(seen) == 8 and seen[:4] == seen[4:] and len(set(seen)) > 1
    assert (model[2].pooling.scorer.weight.grad != 0).any()


@pytest.mark.parametrize("k_range", [None, (2, 30)])
def test_with_the_callback_all_passes_of_an_update_have_one_k(encoder, tmp_path, k_range):
    model = multi_vector(encoder, k_range=k_range)
    seen = slots_of(model[2])
    arguments = MultiVectorEncoderTrainingArguments(
        str(tmp_path), max_steps=3, per_device_train_batch_size=4, report_to=[], use_cpu=True, disable_tqdm=True,
        save_strategy="no",
    )  # fmt: skip
    pairs = Dataset.from_dict({"query": [SHORT, "bank", "a", "b"], "document": [LONG, OTHER, LONG, SHORT]})
    loss = CachedMultiVectorMultipleNegativesRankingLoss(model, mini_batch_size=2)
    MultiVectorEncoderTrainer(model, arguments, pairs, loss=loss, callbacks=[DrawK((5, 50))]).train()
    updates = [set(seen[i : i + 4]) for i in (0, 4, 8)]
    assert len(seen) == 12 and [len(update) for update in updates] == [1, 1, 1] and len(set(seen)) > 1


def test_queries_of_a_single_vector_model_are_pooled_as_in_training(encoder):
    model = single_vector(encoder)
    assert torch.equal(*(torch.as_tensor(f(LONG)) for f in (model.encode, model.encode_query)))
    documents_alone = single_vector(encoder, tasks="document")
    assert (documents_alone.encode(LONG) != documents_alone.encode_query(LONG)).any()


def test_by_call_it_pools_what_is_encoded(encoder):
    model = multi_vector(encoder)
    unpooled = MultiVectorEncoder(modules=[model[0], model[1]], device="cpu")
    vectors = unpooled.encode_document([LONG, SHORT], token_pooling=model[2].train())  # sharp all the same
    assert model[2].pooling.training
    for pooled, expected in zip(vectors, model.encode_document([LONG, SHORT]), strict=True):
        torch.testing.assert_close(torch.nn.functional.normalize(pooled, dim=-1), expected)
    assert model[2].pool([torch.zeros(0, 32)])[0].shape == (0, 32)


def test_vectors_in_half_precision_are_pooled_by_call():
    pooling, vectors = TopKTokenPooling(32, K), torch.randn(9, 32)
    (pooled,), (expected,) = pooling.pool([vectors.bfloat16()]), pooling.pool([vectors.bfloat16().float()])
    assert pooled.dtype == torch.bfloat16 and pooled.equal(expected.bfloat16())


@pytest.mark.parametrize("options", [{}, {"k_range": (1, 9)}], ids=str)
def test_by_call_it_pools_as_in_eval_mode_whatever_is_asked_for(encoder, options):
    model, pooling = multi_vector(encoder), TopKTokenPooling(32, K, **options)
    unpooled = MultiVectorEncoder(modules=[model[0], model[1]], device="cpu")
    vectors = unpooled.encode_document([LONG], token_pooling=pooling)[0]
    whole = unpooled.encode_document([LONG], token_pooling=pooling, output_value=None)[0]
    torch.testing.assert_close(torch.as_tensor(whole["token_embeddings"])[:K], torch.as_tensor(vectors))
    assert pooling.pooling.training


def test_in_the_route_of_a_router_it_pools_documents(encoder):
    tokens = [Transformer(str(encoder)), MultiVectorMask()]
    routes = {"query_modules": [*tokens, Normalize("token_embeddings")],
              "document_modules": [*tokens, TopKTokenPooling(32, K), Normalize("token_embeddings")]}  # fmt: skip
    model = MultiVectorEncoder(modules=[Router.for_query_document(**routes)], device="cpu")
    assert len(model.encode_document([LONG])[0]) == K < len(model.encode_query([LONG])[0])


def test_rows_in_one_long_sequence_are_told_apart():
    pooling = TopKTokenPooling(8, K).eval()
    padded = features(9, 5)
    mask = padded["attention_mask"].bool()
    flat = {
        "token_embeddings": padded["token_embeddings"][mask].unsqueeze(0),
        "input_ids": padded["input_ids"][mask].unsqueeze(0),
        "cu_seq_lens_q": torch.tensor([0, 9, 14]),
    }
    torch.testing.assert_close(pooling(flat)["token_embeddings"], pooling(padded)["token_embeddings"])


def test_an_empty_batch_stays_empty():
    given = {"token_embeddings": torch.zeros(0, 5, 8), "attention_mask": torch.zeros(0, 5)}
    assert TopKTokenPooling(8, 2)(given)["token_embeddings"].shape == (0, 5, 8)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: TopKTokenPooling(8, 1.5), r"expected k to be a whole number >= 1 or a share in \(0, 1\], got 1.5"),
    (lambda: TopKTokenPooling(8, 4, k_range=[8, 4]), "expected k_range to be two whole numbers, 1 <= low <= high"),
    (lambda: TopKTokenPooling(8, 0), "expected k to be a whole number"),
    (lambda: TopKTokenPooling(8, 2)({"sentence_embedding": 1}), "got sentence_embedding; put .* behind a Transformer"),
    (lambda: TopKTokenPooling(7, 2)(features(9, 2)), r"expected token_embeddings \[B, n, 7\].*set hidden_size"),
])  # fmt: skip
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_mean_without_the_prompt_is_that_of_slots_without_it(encoder, tmp_path):
    model, prompt = single_vector(encoder), "bank shares x y "
    with_prompt = model.encode(LONG, prompt=prompt)
    model.set_pooling_include_prompt(False)
    tokens = model[0](model.preprocess([LONG], prompt=prompt))
    own = tokens["token_embeddings"][:, tokens["prompt_length"] :]
    expected = model[1].pooling(own).hidden_states[0].mean(0)
    long, short = torch.as_tensor(model.encode([LONG, SHORT], prompt=prompt))
    torch.testing.assert_close(long, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(short, torch.as_tensor(model.encode(SHORT, prompt=prompt)), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(long, torch.as_tensor(with_prompt), atol=1e-3)
    model.save(str(tmp_path))
    loaded = SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert torch.equal(torch.as_tensor(loaded.encode([LONG, SHORT], prompt=prompt)), torch.stack([long, short]))


@pytest.mark.parametrize("length", [3, torch.tensor([3]), torch.tensor([3, 3])], ids=str)
@pytest.mark.parametrize("moved", [0, 4], ids=["padding on the right", "on the left"])
def test_a_prompt_is_the_first_tokens_of_each_row(moved, length):
    pooling, mean = TopKTokenPooling(8, K).eval(), Pooling(8, "mean", include_prompt=False)
    given = features(9, 5)
    expected = mean(pooling({name: x[:, 3:] for name, x in given.items()}))
    given = {name: torch.stack([x[0], x[1].roll(moved, 0)]) for name, x in given.items()}
    for parts in ([pooling, mean], [torch.nn.Sequential(pooling), mean]):  # one inside a route of a Router
        pooling.on_model_ready(torch.nn.Sequential(*parts))
        out = mean(pooling(given | {"prompt_length": length}))
        torch.testing.assert_close(out["sentence_embedding"], expected["sentence_embedding"])


@pytest.mark.parametrize("operator", ["hard_gated", "hard_straight_through"])
def test_behind_hard_operators_unit_length_leaves_the_scorer_no_gradient(operator):
    # What the docstring warns of; one day that it fails, the docstring goes.
    pooling = TopKTokenPooling(8, K, operator=operator).double()
    given = features(9, 9)
    out = pooling(given | {"token_embeddings": given["token_embeddings"].double()})
    torch.nn.functional.normalize(out["token_embeddings"], dim=-1)[..., 0].sum().backward()
    assert pooling.pooling.scorer.weight.grad.abs().max() < 1e-12


def test_a_scorer_that_learns_nothing_from_the_hard_operator_gets_a_gradient_of_0():
    pooling, given = TopKTokenPooling(8, K, operator="hard"), features(9, 9)
    given["token_embeddings"].requires_grad_()
    pooling(given)["token_embeddings"].sum().backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in pooling.parameters())
