"""The retrieval benchmark on token vectors drawn here: an index pooled to k, searched, and a scorer that learns."""

import json
import re
import sys

import pytest
import retrieval
import torch
from ranking import from_text, metrics, to_text
from retrieval import found, planned, run, sizes
from retrieval_table import best, competing, summary, table
from retrieval_tasks import Split, Vectors, counts, draw
from retrieval_ways import WAYS, Way, chunks, ward

from shtopk import TopKPooling

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
        owners = torch.arange(count).repeat_interleave(torch.arange(count) % 3 + 1)  # one, two or three queries
        queries = own[owners].repeat_interleave(2, 0) + 0.1 * torch.randn(len(owners) * 2, D)
        return Split(Vectors(values.half(), lengths), Vectors(queries.half(), torch.full((len(owners),), 2)), owners)

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


def test_a_module_that_pools_is_a_way(splits):
    """What `TopKTokenPooling` does with the same pooling, trained by the same steps."""
    way = Way("", module=lambda size, k: TopKPooling(size, k, temperature=1.0), learning_rate=3e-2)
    assert way.is_drawn and not Way("", module=TopKPooling).is_drawn
    wrapped, ours = (run(one, 3, 0, splits, "test") for one in (way, Way("", {"temperature": 1.0}, 3e-2)))
    assert wrapped["ranks"] == ours["ranks"] and wrapped["vectors"] == 3


def test_a_query_is_answered_by_its_own_document_alone(splits):
    queries, owners = splits["test"].queries, splits["test"].owners
    index = list(torch.nn.functional.normalize(queries.values.float(), dim=-1).view(-1, 2, D))
    index = [index[int(owners.eq(i).nonzero()[0])][:1] for i in range(60)]
    assert found(index, queries, owners)["recall@1"] == 1
    assert found(index[1:] + index[:1], queries, owners)["recall@1"] == 0
    assert found([index[0]] * 60, queries, owners)["recall@10"] == 0  # ties are no hits
    mixed = found(index[:30] + index[31:] + index[30:31], queries, owners)
    assert metrics(from_text(mixed["ranks"])) == {key: mixed[key] for key in metrics([1])}
    assert [rank == 1 for rank in from_text(mixed["ranks"])] == (owners < 30).tolist()


def test_every_query_of_a_document_is_drawn_and_no_other():
    owners = torch.tensor([0, 1, 1, 1, 2, 2])
    rows = torch.tensor([2, 0, 1]).repeat(200)
    torch.manual_seed(0)
    drawn = draw(owners, rows)
    assert torch.equal(owners[drawn], rows)
    assert drawn.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert counts(owners).tolist() == [1, 3, 2]


def test_what_nobody_draws_is_measured_once():
    seeds = {way.name: [seed for one, k, seed in planned([3, 4], [8], WAYS) if one is way] for way in WAYS}
    assert seeds["successive halving"] == seeds["random scorer, frozen"] == [3, 4]
    assert seeds["Ward clusters"] == seeds["first k tokens"] == [3]
    assert [k for way, k, _ in planned([0], [8, 32], WAYS) if way.name == "all tokens"] == [0]


def of_ranks(way, k, seed, ranks):
    rest = {"trained": False, "vectors": k, "bytes": 2 * k, "pool_ms": 1.0, "train_seconds": 0.0}
    return {"task": "bbc", "way": way, "k": k, "seed": seed, **rest, **metrics(ranks), "ranks": to_text(ranks)}


@pytest.fixture
def record():
    """40 documents of two queries: one way finds all but two, one fails as often and more, one never hits."""
    most = [1] * 76 + [9] * 4
    runs = [
        of_ranks("all tokens", 0, 0, [1] * 40 + [9] * 40),
        *(of_ranks("ours", 8, seed, most) for seed in (0, 1)),
        of_ranks("rival", 8, 0, [9] * 4 + [1] * 70 + [9] * 6),
        of_ranks("worst", 8, 0, [5] * 80),
        of_ranks("worst", 32, 0, [5] * 80),
    ]
    facts = {"documents": 40, "queries": 80, "tokens": 300.0, "encode_ms": 50.0, "queries_of_each": to_text([2] * 40)}
    return {"command": "python x.py", "device": "a device", "torch": "2", "split": "test", "tasks": {"bbc": facts},
            "runs": runs}  # fmt: skip


def test_bold_is_what_is_best_or_as_good_among_the_ways_of_a_k(record):
    assert best(record, "bbc", 8, "recall@1") == {"ours"}
    record["runs"][3] = of_ranks("rival", 8, 0, [9] * 4 + [1] * 74 + [9] * 2)  # one document less: no difference
    assert best(record, "bbc", 8, "recall@1") == {"ours", "rival"}
    assert best(record, "bbc", 32, "recall@1") == {"all tokens"}
    lines = table(record).splitlines()
    assert "| ours | 8 | **0.950 ± 0.000** | 1.000 ± 0.000 | **0.956 ± 0.000** | 0.965 ± 0.000 | 8 |" in lines[6]
    assert "| rival | 8 | **0.925** | 1.000 | **0.933** |" in lines[7]
    assert "| all tokens | all | 0.500 | 1.000 | 0.556 |" in lines[4]  # the best of 32 alone
    assert "| all tokens (all vectors) | 0.500 | **0.500** |" in summary(record)
    assert "within one paired standard error" in summary(record)


def test_what_a_way_has_less_stands_with_its_error_and_interval(record):
    row = next(line for line in table(record).splitlines() if line.startswith("| all tokens (all vectors) |"))
    less, mrr, *_, last = (cell.strip() for cell in row.split("|")[2:-1])
    low, high = map(float, re.fullmatch(r"-0\.450 ± 0\.080 \((.*) to (.*)\)", less).groups())
    assert low < -0.45 < high and (high - low) / 4 == pytest.approx(0.08, abs=0.01)
    assert mrr.startswith("-0.400 ± 0.0") and last == "best"


def test_more_seeds_of_a_row_are_named(record):
    assert "over seeds 0, 1 of what" in table(record)
    record["runs"] += [of_ranks("worst", 32, seed, [5] * 80) for seed in (1, 2)]
    record["runs"] += [of_ranks("rival", 8, 1, [5] * 80)]
    assert "over seeds 0, 1 (bbc, k = 32, worst: 0, 1, 2) of what" in table(record)
    record["runs"] += [of_ranks("worst", 8, seed, [5] * 80) for seed in (1, 2)]
    assert "over seeds 0, 1 (worst: 0, 1, 2) of what" in table(record)


def test_a_record_without_ranks_has_a_table_without_bold(record):
    for run_ in record["runs"]:
        del run_["ranks"], run_["ndcg@10"]
    del record["tasks"]["bbc"]["queries_of_each"]
    assert not any(sign in table(record) + summary(record) for sign in ("**0", "nDCG", "less the best", "Bold"))
    assert "| ours | 0.950 ± 0.000 |" in summary(record)


def test_a_way_without_ranks_that_is_better_leaves_the_best_unknown(record):
    del record["runs"][0]["ranks"]
    assert best(record, "bbc", 8, "recall@1") == {"ours"}
    assert best(record, "bbc", 32, "recall@1") == set()
    assert list(competing(record["runs"], 32)) == ["all tokens", "worst"]


def test_the_benchmark_runs_and_its_record_says_whose_queries_are_whose(tmp_path, monkeypatch, splits):
    monkeypatch.setattr(retrieval, "token_vectors", lambda *_: splits)
    monkeypatch.setattr(retrieval, "facts", lambda *_: {"encode_ms": 1.0})
    monkeypatch.setattr(retrieval, "WAYS", [way for way in WAYS if way.pool is not None])
    monkeypatch.setattr(sys, "argv", ["retrieval.py", f"--results={tmp_path}", "--tasks=bbc", "--k", "4"])
    retrieval.main()
    record = json.loads((tmp_path / "retrieval.json").read_text())
    assert record["tasks"]["bbc"] == {"encode_ms": 1.0} | sizes(splits["test"])
    assert record["tasks"]["bbc"]["queries_of_each"].startswith("1 2 3 1 2 3")
    assert "recall@1 less the best, k = 4" in (tmp_path / "retrieval.md").read_text()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--name=other"])
    retrieval.main()
    assert len(json.loads((tmp_path / "other.json").read_text())["runs"]) == len(record["runs"])
    monkeypatch.setattr(retrieval, "run", lambda *_: pytest.fail("measured again"))
    retrieval.main()


def test_a_corpus_that_is_not_there_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("retrieval_tasks.RFC_FOLDER", tmp_path / "none")
    monkeypatch.setattr(sys, "argv", ["retrieval.py", f"--results={tmp_path}", "--tasks=rfc"])
    with pytest.raises(SystemExit, match=r"^rfc: expected a folder of rfcN.json .* `make rfcs` fetches one$"):
        retrieval.main()


def test_clusters_and_stretches_are_as_many_as_wanted():
    vectors = torch.randn(29, D)
    for k in (1, 4, 28):
        assert ward(vectors, k).shape == chunks(vectors, k).shape == (k, D)
    torch.testing.assert_close(chunks(vectors, 1)[0], vectors.mean(0))
    assert chunks(vectors, 40).shape == ward(vectors, 40).shape == (29, D)
