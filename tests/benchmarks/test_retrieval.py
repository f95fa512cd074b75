"""The retrieval benchmark on token vectors drawn here: an index pooled to k, searched, and a scorer that learns."""

import pytest
import torch
from retrieval import WAYS, Way, chunks, found, run, ward
from retrieval_tasks import QUERIES, Split, Vectors

D = 16


@pytest.fixture(scope="module")
def splits():
    """Documents of 20 to 40 random tokens, 3 of them marked and near the document's own direction, as its queries."""
    torch.manual_seed(0)

    def split(count):
        lengths = torch.randint(20, 41, (count,))
        own = torch.randn(count, D)
        own[:, 0] = 0
        values = torch.randn(int(lengths.sum()), D)
        values[:, 0] = 0
        for i, start in enumerate(lengths.cumsum(0) - lengths):
            place = int(start + torch.randint(0, int(lengths[i]) - 3, ()))
            values[place : place + 3] = own[i] + 0.1 * torch.randn(3, D)
            values[place : place + 3, 0] = 3
        queries = own.repeat_interleave(QUERIES * 2, 0) + 0.1 * torch.randn(count * QUERIES * 2, D)
        return Split(Vectors(values.half(), lengths), Vectors(queries.half(), torch.full((count * QUERIES,), 2)))

    return {"train": split(480), "test": split(60)}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_way_keeps_as_many_vectors_as_it_says(way, splits):
    k = 5 if way.k is None else way.k
    row = run(way, k, 0, splits, "test")
    assert row["vectors"] == pytest.approx(k or float(splits["test"].documents.lengths.float().mean()))
    assert row["bytes"] == row["vectors"] * D * 2
    assert 0 <= row["recall@1"] <= row["mrr"] <= row["recall@10"] + 0.1 <= 1.1


def test_a_scorer_that_learns_finds_what_is_asked_for(splits):
    learned = run(Way("", learning_rate=3e-2), 3, 0, splits, "test")
    drawn = run(Way("", {"operator": "hard"}), 3, 0, splits, "test")
    assert learned["recall@1"] > 0.9 > 0.5 > drawn["recall@1"]


def test_a_query_is_answered_by_its_own_document_alone(splits):
    queries = splits["test"].queries
    index = [torch.nn.functional.normalize(queries.values[i * QUERIES * 2 :][:1].float()) for i in range(60)]
    assert found(index, queries)["recall@1"] == 1
    assert found(index[1:] + index[:1], queries)["recall@1"] == 0
    assert found([index[0]] * 60, queries)["recall@10"] == 0  # ties are no hits


def test_clusters_and_stretches_are_as_many_as_wanted():
    vectors = torch.randn(29, D)
    for k in (1, 4, 28):
        assert ward(vectors, k).shape == chunks(vectors, k).shape == (k, D)
    torch.testing.assert_close(chunks(vectors, 1)[0], vectors.mean(0))
    assert chunks(vectors, 40).shape == ward(vectors, 40).shape == (29, D)
