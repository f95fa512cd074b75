"""The rivals against their definitions written out, and what holds for all of them: masks, short rows, gradients."""

import pytest
import torch
import torch.nn.functional as F
from frozen import Classifier, Split, fit, predict
from planted import METHODS, Size, train
from rivals import RIVALS
from rivals.bipartite import bipartite
from rivals.clusters import AttentionGuidedClusters, WardClusters, ward
from rivals.gates import dftopk, lapsum
from rivals.linear_map import LinearMap
from rivals.perturbed import perturbed_topk
from rivals.stretches import Stretches
from sentence_transformers.multi_vector_encoder.modules import HierarchicalTokenPooling
from variants import BBC_ONLY, RIVAL_ROWS

from shtopk import hard_topk

D, K = 6, 3
LENGTHS = (11, 7, 3, 2, 1, 0)
OPTIONS = {"ward, trained through": ("ward", {"learned_map": True}), "agc, one query": ("agc", {"queries": 1})}
EVERY = {name: (name, {}) for name in RIVALS} | OPTIONS
LEARN = [name for name in EVERY if name not in ("ward", "bipartite", "stretches")]
MIXERS = ("attention", "linear_map")  # every slot mixes all tokens


def build(name):
    torch.manual_seed(0)
    kind, options = EVERY[name]
    return RIVALS[kind](D, K, **options)


def rows(lengths=LENGTHS, before=0, after=0):
    """The same rows each time, [B, 11 + padding, D], and their mask; padding is filled with large numbers."""
    generator = torch.Generator().manual_seed(1)
    values = torch.full((len(lengths), before + max(lengths) + after, D), 1e3)
    mask = torch.zeros(values.shape[:2], dtype=torch.bool)
    for row, length in enumerate(lengths):
        values[row, before : before + length] = torch.randn(max(lengths), D, generator=generator)[:length]
        mask[row, before : before + length] = True
    return values, mask


@pytest.fixture
def same_noise(monkeypatch):
    """Noise that a token keeps where there is more padding behind it."""

    noise = torch.randn(len(LENGTHS), 200, 40)

    def drawn(batch, samples, n, device):
        return noise[:batch, :samples, :n]

    monkeypatch.setattr(torch, "randn", drawn)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", EVERY)
def test_padding_never_changes_the_result(name, training, request):
    pooling = build(name).train(training)
    (values, mask), (padded, padded_mask) = rows(), rows(after=9)
    if name == "perturbed":
        request.getfixturevalue("same_noise")
    for first, second in zip(pooling(values, mask)[:2], pooling(padded, padded_mask)[:2], strict=True):
        torch.testing.assert_close(first, second)
    for row, length in enumerate(LENGTHS[:-1]):
        alone = pooling(values[row : row + 1, :length], mask[row : row + 1, :length])
        if name != "perturbed" or not training:  # whose noise is another one there
            torch.testing.assert_close(alone.values[0], pooling(values, mask).values[row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", EVERY)
def test_padding_in_front_is_padding_too(name, training):
    pooling = build(name).train(training and name != "perturbed")  # whose noise would be another one
    first, second = pooling(*rows()), pooling(*rows(before=4))
    torch.testing.assert_close(first.values, second.values)
    torch.testing.assert_close((first.positions + 4) * first.mask, second.positions * first.mask)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("name", EVERY)
def test_a_slot_that_no_token_reached_is_zero_and_masked_out(name, training):
    out = build(name).train(training)(*rows())
    assert out.values.shape == (len(LENGTHS), K, D) and out.scores.shape == out.mask.shape == (len(LENGTHS), K)
    filled = [K * (length > 0) if name in MIXERS else min(K, length) for length in LENGTHS]
    assert out.mask.sum(-1).tolist() == filled
    assert out.values.isfinite().all() and out.scores.isfinite().all()
    assert not out.values[~out.mask].any() and not out.scores[~out.mask].any() and not out.positions[~out.mask].any()


@pytest.mark.parametrize("name", EVERY)
def test_the_values_are_those_of_the_assignment(name):
    pooling = build(name)
    values, mask = rows()
    out = pooling(values, mask)
    given = values.masked_fill(~mask.unsqueeze(-1), 0)
    torch.testing.assert_close(out.values, out.dense_weights() @ given)
    real = mask.gather(1, out.positions)
    assert real[out.mask].all()
    assert out.slots is None or (out.slots[~mask] == -1).all()


@pytest.mark.parametrize("name", LEARN)
def test_the_parameters_learn_from_the_pooled_vectors_of_long_rows_alone(name):
    pooling = build(name).train()
    (pooling(*rows((9, 5, 0))).values ** 2).sum().backward()
    for parameter in pooling.parameters():
        assert parameter.grad.isfinite().all()
    assert any((parameter.grad != 0).any() for parameter in pooling.parameters())


@pytest.mark.parametrize("name", ["dftopk", "lapsum", "perturbed"])
def test_where_the_temperature_is_low_training_is_inference(name):
    kind, _ = EVERY[name]
    torch.manual_seed(0)
    pooling = RIVALS[kind](D, K, temperature=1e-4, initial_temperature=10.0)
    pooling.progress = 1.0
    values, mask = rows()
    torch.testing.assert_close(pooling.train()(values, mask).values, pooling.eval()(values, mask).values)
    pooling.progress = 0.0
    assert not torch.allclose(pooling.train()(values, mask).values, pooling.eval()(values, mask).values, atol=0.1)


def test_dftopk_weighs_each_token_by_its_distance_to_the_middle_of_the_kth_and_the_next_score():
    values, scores = torch.randn(2, 9, D), torch.randn(2, 9)
    ranked = scores.sort(-1, descending=True).values
    expected = torch.sigmoid((scores - (ranked[:, 2:3] + ranked[:, 3:4]) / 2) / 0.5)
    out = dftopk(values, scores, 3, temperature=0.5)
    torch.testing.assert_close(out.weights, expected)
    torch.testing.assert_close(out.values.sum(1), (expected.unsqueeze(-1) * values).sum(1))
    hard = hard_topk(values, scores, 3)
    torch.testing.assert_close(out.positions, hard.positions)
    kept = hard.positions.tolist()
    for row in range(2):  # the others take turns
        others = [token for token in range(9) if token not in kept[row]]
        for slot in range(3):
            tokens = [kept[row][slot], *others[slot::3]]
            torch.testing.assert_close(out.values[row, slot], expected[row, tokens] @ values[row, tokens])


@pytest.mark.parametrize("temperature", [1e-3, 0.0625, 1.0, 30.0])
@pytest.mark.parametrize("k", [1, 3, 8])
def test_the_weights_of_lapsum_sum_to_k_and_are_laplaces_distribution(k, temperature):
    values, mask = rows((11, 9, 11))
    scores = torch.tensor([10.0, 0.1, 0.0]).unsqueeze(-1) * torch.randn(3, 11)  # the last row: all equal
    weights = lapsum(values, scores, k, mask=mask, temperature=temperature).weights
    torch.testing.assert_close(weights.sum(-1), torch.full((3,), float(k)))
    assert (weights[1, 9:] == 0).all()
    # One threshold explains all weights: it is what each inverse gives.
    laplace = torch.distributions.Laplace(0.0, 1.0)
    inner = (weights > 1e-3) & (weights < 1 - 1e-3)
    threshold = scores / temperature - laplace.icdf(weights.clamp(1e-3, 1 - 1e-3))
    for row in range(3):
        found = threshold[row][inner[row]]
        torch.testing.assert_close(found, found[:1].expand_as(found), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operator", [dftopk, lapsum])
def test_the_gradient_through_the_threshold_is_that_of_finite_differences(operator):
    values, scores = torch.randn(2, 7, 2, dtype=torch.double), torch.randn(2, 7, dtype=torch.double)
    run = lambda s: operator(values, s, 3, temperature=0.4).weights
    assert torch.autograd.gradcheck(run, scores.requires_grad_())


def test_perturbed_topk_is_the_mean_of_noisy_choices_in_document_order():
    values, scores = torch.randn(2, 7, D), torch.randn(2, 7)
    mask = torch.ones(2, 7, dtype=torch.bool)
    mask[1, 5:] = False
    noise = torch.randn(2, 50, 7)
    expected = torch.zeros(2, 3, 7)
    for row in range(2):
        for sample in noise[row]:
            noisy = (scores[row] + 0.7 * sample)[mask[row]]
            for slot, token in enumerate(sorted(noisy.topk(3).indices.tolist())):
                expected[row, slot, token] += 1 / 50
    out = perturbed_topk(values, scores, 3, mask=mask, temperature=0.7, noise=noise)
    torch.testing.assert_close(out.weights, expected)
    torch.testing.assert_close(out.values, expected @ values)


def test_the_gradient_of_perturbed_topk_is_that_of_its_expectation():
    torch.manual_seed(0)
    scores, worth = torch.tensor([[0.3, -0.2, 0.1, 0.6]]), torch.randn(1, 2, 4)
    noise = torch.randn(1, 400_000, 4)
    mean = lambda s: (perturbed_topk(torch.eye(4)[None], s, 2, temperature=0.5, noise=noise).weights * worth).sum()
    steps = 0.1 * torch.eye(4).unsqueeze(1)
    differences = torch.stack([(mean(scores + step) - mean(scores - step)) / 0.2 for step in steps])
    mean(scores.requires_grad_()).backward()
    # The samples' standard error is about 0.005, and the differences' error of the step's square as much.
    torch.testing.assert_close(scores.grad[0], differences, atol=0.03, rtol=0)


def test_stretches_are_those_of_tensor_split():
    values, mask = rows()
    out = Stretches(D, K)(values, mask)
    for row, length in enumerate(LENGTHS[:-1]):
        expected = [part.mean(0) for part in values[row, :length].tensor_split(min(K, length))]
        torch.testing.assert_close(out.values[row, : len(expected)], torch.stack(expected))


def test_the_linear_map_weighs_places_and_reads_none_behind_its_last():
    values, mask = rows((11, 4))
    pooling = LinearMap(D, K, tokens=8)
    out = pooling(values, mask)
    torch.testing.assert_close(out.values[0], pooling.map.weight @ values[0, :8])
    torch.testing.assert_close(out.values[1], pooling.map.weight[:, :4] @ values[1, :4])


def test_ward_clusters_are_those_of_sentence_transformers():
    values = F.normalize(torch.randn(1, 40, D), dim=-1)
    ours = WardClusters(D, 5)(values, torch.ones(1, 40, dtype=torch.bool)).values[0]
    theirs = HierarchicalTokenPooling(8.0, num_protected_tokens=0, normalize_embeddings=False).pool_one(values[0])
    order = torch.cdist(ours, theirs).argmin(1)
    assert sorted(order.tolist()) == list(range(5))
    torch.testing.assert_close(ours, theirs[order])
    assert ward(values[0], 5).unique_consecutive()[0] == 0  # numbered by their first member


def test_the_most_similar_pairs_of_even_and_odd_places_merge_first():
    """By hand: 0 is most like 3, 2 like 1, 4 like 5; two pairs are too many for k = 4 of 6, and their mean goes on."""
    angles = torch.tensor([0.0, 2.0, 1.9, 0.01, 4.0, 4.5])
    vectors = torch.stack([angles.cos(), angles.sin()], -1)
    assert bipartite(vectors, 6).tolist() == [0, 1, 2, 3, 4, 5]
    assert bipartite(vectors, 4).tolist() == [1, 0, 0, 1, 2, 3]
    assert bipartite(vectors, 3).tolist() == [1, 0, 0, 1, 2, 2]
    assert bipartite(vectors, 1).tolist() == [0] * 6


def test_the_gradient_through_ward_is_that_of_the_means_of_fixed_clusters():
    values, mask = rows((11,))
    values.requires_grad_()
    out = WardClusters(D, K)(values, mask)
    upstream = torch.randn(1, K, D)
    out.values.backward(upstream)
    slots = out.slots[0].tolist()
    expected = torch.stack([upstream[0, slot] / slots.count(slot) for slot in slots])
    torch.testing.assert_close(values.grad[0], expected)


def test_every_token_joins_the_most_similar_of_the_most_salient_and_counts_by_saliency():
    torch.manual_seed(0)
    pooling = AttentionGuidedClusters(D, K, queries=2)
    values, mask = rows((11,))
    saliency = (values[0] @ pooling.queries.weight.T).softmax(0).mean(-1)
    centroids = saliency.topk(K).indices
    groups = {int(centroid): [int(centroid)] for centroid in centroids}
    for token in set(range(11)) - set(groups):
        similar = F.cosine_similarity(values[0, token], values[0, centroids], dim=-1)
        groups[int(centroids[similar.argmax()])].append(token)
    expected = [(saliency[group] @ values[0, group]) / saliency[group].sum() for group in groups.values()]
    out = pooling(values, mask)
    torch.testing.assert_close(out.values[0], torch.stack(expected))
    torch.testing.assert_close(out.scores[0].exp(), saliency[centroids])


@pytest.fixture(scope="module")
def split():
    torch.manual_seed(0)
    lengths = torch.randint(1, 15, (40,))
    total = int(lengths.sum())
    values, evidence = torch.randn(total, D), torch.zeros(total, dtype=torch.bool)
    return Split(values, evidence, lengths, torch.arange(40) % 2, attention=torch.rand(total))


@pytest.mark.parametrize("variant", RIVAL_ROWS + BBC_ONLY, ids=lambda variant: variant.name)
def test_every_row_of_a_rival_trains(variant, split):
    torch.manual_seed(0)
    classifier = Classifier(D, 2, K, variant)
    before = [parameter.clone() for parameter in classifier.pooling.parameters()]
    fit(classifier, split, seed=0, scorer_learning_rate=variant.scorer_learning_rate, epochs=1)
    changed = [not torch.equal(old, new) for old, new in zip(before, classifier.pooling.parameters(), strict=True)]
    assert any(changed) == bool(before)
    assert predict(classifier, split)[0].shape == (40,)


@pytest.mark.parametrize("name", ["DFTopK", "LapSum", "perturbed top-k"])
def test_soft_rivals_find_planted_tokens(name):
    (method,) = (method for method in METHODS if method.name == f"{name}, annealed")
    size = Size(n=64, k=4, depth=16, updates=150, seeds=(0,))
    found = train(method, 16.0, 0.0625, 0.03, size, 0, "cpu")
    assert found["recall"] > 0.9 > 0.5 > found["loss_hard"]
