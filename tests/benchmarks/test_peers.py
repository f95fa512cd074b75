"""Peers: what is not there is named, the checks find wrong operators, and what was measured is not measured again."""

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import peers
import peers_checks
import peers_table
import peers_ways
import pytest
import torch
from peers_checks import check
from peers_ways import BASELINE, WAYS, Way, loaded, nothing_known
from planted import Size

NAMED = {way.name: way for way in WAYS}
PLAIN = Way("a way", nothing_known("nothing"), "somewhere")


def soft(values, scores, k, temperature, mask=None):
    """k copies of the softmax mean: right in everything that is checked."""
    logits = scores / temperature
    if mask is not None:
        logits = logits.masked_fill(~mask, -torch.inf)
    return (logits.softmax(-1).unsqueeze(1) @ values).expand(-1, k, -1)


def test_a_right_operator_passes_every_check():
    assert check(PLAIN, soft) == {"padding": "mask", "any_k": "yes", "gradient": "right", "twice": "yes"}


def test_a_mask_that_is_taken_and_not_used_is_seen():
    deaf = lambda values, scores, k, temperature, mask=None: soft(values, scores, k, temperature)
    assert check(PLAIN, deaf)["padding"] == "by scores"
    mean = lambda values, scores, k, temperature, mask=None: values.mean(1, keepdim=True).expand(-1, k, -1)
    assert check(PLAIN, mean)["padding"] == "no"


def test_a_mask_that_holds_for_padding_behind_alone_is_seen():
    def behind(values, scores, k, temperature, mask=None):
        lengths = values.shape[1] if mask is None else int(mask[0].sum())
        return soft(values[:, :lengths], scores[:, :lengths], k, temperature)

    assert check(PLAIN, behind)["padding"] == "by scores"


def test_a_gradient_that_is_not_the_results_is_wrong_unless_it_is_meant_as_an_estimate():
    def twice_as_steep(values, scores, k, temperature):
        return soft(values, 2 * scores - scores.detach(), k, temperature)

    assert check(PLAIN, twice_as_steep)["gradient"] == "wrong"
    meant = replace(PLAIN, estimate="straight-through")
    assert check(meant, twice_as_steep)["gradient"] == "an estimate, straight-through"
    flat = lambda values, scores, k, temperature: soft(values, scores.detach(), k, temperature)
    assert check(PLAIN, flat)["gradient"] == "none"


def test_a_k_that_does_not_divide_n_and_chance_are_seen():
    def halves(values, scores, k, temperature):
        while values.shape[1] >= 2 * k:
            values = values[:, ::2]
        return values

    assert check(PLAIN, halves)["any_k"] == "no: gives [2, 13, 8], not k vectors, [2, 7, 8]"
    drawn = lambda values, scores, k, temperature: soft(values, scores + torch.rand_like(scores), k, temperature)
    assert check(PLAIN, drawn)["twice"] == "no"


def test_what_gives_no_vectors_or_fails_is_told_in_a_line():
    assert check(PLAIN, lambda values, scores, k, temperature: scores.sum(-1)) == {
        "error": "gives [2], not k vectors, [2, 4, 8]"
    }
    assert "empty" in check(PLAIN, lambda values, scores, k, temperature: 0 * values[:, :k])["error"]
    assert "finite" in check(PLAIN, lambda values, scores, k, temperature: values[:, :k] / 0)["error"]

    def fails(values, scores, k, temperature):
        raise AssertionError("first line\nand | another " + "x" * 200)

    error = check(PLAIN, fails)["error"]
    assert error.startswith("AssertionError, first line and / another") and len(error) < 140 and "\n" not in error


@pytest.mark.parametrize("name", ["tournament", "select and merge", "LapSum", "DFTopK", "bipartite merging (ToMe)"])
def test_our_own_take_masks_and_any_k(name):
    found = check(NAMED[name], NAMED[name].load({}))
    expected = "none" if "merging" in name else "right"
    assert found == {"padding": "mask", "any_k": "yes", "gradient": expected, "twice": "yes"}


def test_the_transcription_takes_no_mask_and_not_any_k():
    way = NAMED["Algorithm 2, transcribed"]
    found = check(way, way.load({}))
    assert found["padding"] == "by scores" and found["any_k"].startswith("fails") and found["gradient"] == "right"


def test_samples_are_an_estimate_and_differ():
    way = NAMED["perturbed top-k, 200 samples"]
    found = check(way, way.load({}))
    assert found == {"padding": "mask", "any_k": "yes", "gradient": "an estimate, of samples", "twice": "no"}


def test_a_peer_that_is_not_here_is_named_with_the_reason(monkeypatch, tmp_path):
    monkeypatch.setattr(peers_ways, "WAYS", [NAMED["the authors' operator"], Way("x", nothing_known("no_x"), "no-x")])
    here, absent = loaded({})
    assert not here
    assert absent == {"the authors' operator": "no folder was named (--authors FOLDER)", "x": "no module no_x here"}
    assert "no models/successive_halving_topk.py in" in loaded({"authors": tmp_path})[1]["the authors' operator"]


def test_code_from_a_folder_that_is_named_is_run(tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "successive_halving_topk.py").write_text(
        "class TopKConfig:\n    def __init__(self, **given): self.k = given['pooled_len']\n"
        "class TopKOperator:\n    def set_config(self, config): self.k = config.k\n"
        "    def __call__(self, values, scores): return values[:, :self.k] * scores[:, :self.k], scores\n"
    )
    pool = NAMED["the authors' operator"].load({"authors": tmp_path})
    values, scores = torch.randn(2, 8, 3), torch.randn(2, 8)
    expected = values[:, :4] * scores[:, :4].sigmoid().unsqueeze(-1)
    torch.testing.assert_close(pool(values, scores, 4, 1.0), expected)


def test_of_a_strangers_weights_and_gates_the_right_vectors_are_made(monkeypatch):
    values, scores = torch.randn(2, 8, 3), torch.randn(2, 8)
    best = scores.topk(3)
    topk = lambda scores, k, eps, mask: SimpleNamespace(indices=best.indices, gates=torch.full((2, 3), 0.5))
    uniform = lambda scores, n_iters, k, eps, mask: torch.full_like(scores, k / scores.shape[1])
    monkeypatch.setitem(sys.modules, "colt5_attention", SimpleNamespace(topk=topk, coor_descent=uniform))
    monkeypatch.setitem(sys.modules, "entmax", SimpleNamespace(entmax15=lambda x, dim: x.softmax(dim)))
    kept = NAMED["CoLT5's topk"].load({})(values, scores, 3, 1.0)
    for row in range(2):
        torch.testing.assert_close(kept[row], values[row, best.indices[row]] / 2)
    folded = NAMED["coordinate descent, 50 steps"].load({})(values, scores, 3, 1.0)
    torch.testing.assert_close(folded.mean(1), values.mean(1))
    queries = torch.randn(2, 8, 3)
    attended = NAMED["entmax attention, k queries"].load({})(values, queries, 3, 1.0)
    torch.testing.assert_close(attended, NAMED["softmax attention, k queries"].load({})(values, queries, 3, 1.0))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A run of two ways and of one that fails, at tiny sizes."""
    ways = [NAMED[BASELINE], replace(NAMED["DFTopK"], temperatures=((1.0, 0.1),)),
            Way("no vectors", lambda folders: lambda values, scores, k, temperature: scores, "some-package"),
            Way("missing", nothing_known("no_such_module"), "no-such")]  # fmt: skip
    for module in (peers, peers_ways, peers_table):
        monkeypatch.setattr(module, "WAYS", ways)
    settings = {"SHAPES": [(32, 4), (64, 4)], "TURNS": 2, "CALLS": 0, "BATCH": 2, "DEPTH": 8, "SEEDS": (0, 1),
                "THREADS": torch.get_num_threads(), "keep_freed_memory": lambda: None}  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setattr(peers, name, value)
    monkeypatch.setitem(peers.planted.SIZES, "small", Size(16, 4, 8, 3, (0,)))
    monkeypatch.setattr(sys, "argv", ["peers.py", "--results", str(tmp_path)])
    return tmp_path


def test_what_was_measured_is_not_measured_again_and_the_tables_say_all(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--parts", "checks"])
    peers.main()
    first = json.loads((small / "peers.json").read_text())["runs"]
    assert [run["part"] for run in first] == ["checks"] * 3
    monkeypatch.setattr(sys, "argv", sys.argv[:3])
    peers.main()
    record = json.loads((small / "peers.json").read_text())
    parts = [run["part"] for run in record["runs"]]
    assert record["runs"][:3] == first
    assert [parts.count(part) for part in peers.PARTS] == [3, 2, 2, 8]
    assert all(run["ratio"] == 1 for run in record["runs"] if run["part"] == "time" and run["way"] == BASELINE)
    shown = (small / "peers.md").read_text()
    assert f"| {BASELINE} | 1 / 1 | 1 / 1 |" in shown
    assert "- missing (no-such): no module no_such_module here" in shown
    assert "- no vectors (some-package): gives [2, 64], not k vectors, [2, 4, 8]" in shown
    peers.main()
    again = json.loads((small / "peers.json").read_text())
    assert again == record


def test_a_folder_that_is_none_is_refused(small, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--authors", str(small / "nowhere")])
    with pytest.raises(SystemExit):
        peers.main()
    assert "expected --authors to be a folder, got" in capsys.readouterr().err


def test_the_tables_divide_the_right_figures_and_take_the_others_by_name():
    found = {"padding": "mask", "any_k": "yes", "gradient": "right", "twice": "yes"}
    times = [{"part": "time", "way": "LapSum", "n": 512, "k": 32, "what": what, "ratio": ratio}
             for what, ratio in (("forward", 1.234), ("forward and backward", 45.6))]  # fmt: skip
    runs = [{"part": "checks", "way": "LapSum", "version": "", **found}, *times,
            {"part": "memory", "way": "LapSum", "n": 512, "k": 32, "peak_mib": 12.3},
            *({"part": "quality", "way": "LapSum", "recall": found, "loss": 0.1} for found in (0.8, 0.9))]  # fmt: skip
    record = {"runs": runs, "absent": {}, "command": "python x.py", "device": "a CPU", "torch": "2",
              "sizes": {"batch": 8, "depth": 256, "shapes": [[512, 32]]}}  # fmt: skip
    assert peers_table.cost(record).splitlines()[2] == "| LapSum | 1.2 / 46 | 12 |"
    assert peers_table.checks(record).splitlines()[2] == "| LapSum | rivals/ | mask | yes | right | yes |"
    needle = [run["accuracy"] for run in peers_table.stored("compare-needle")["runs"]
              if (run["variant"], run["k"]) == ("LapSum", "8")]  # fmt: skip
    row = peers_table.quality(record).splitlines()[2]
    assert row.startswith(f"| LapSum | 0.85 ± 0.07 | 0.10 ± 0.00 | {sum(needle) / len(needle):.3f} |")
    assert peers_table.absent(record) == "- nothing"


def test_the_rows_that_other_tables_are_asked_for_are_there():
    for name, field, names in (
        ("planted-small", "method", [way.planted for way in WAYS]),
        ("compare-needle", "variant", [way.needle for way in WAYS]),
        ("retrieval", "way", [way.retrieval for way in WAYS]),
    ):
        rows = {run[field] for run in peers_table.stored(name)["runs"]}
        assert {name for name in names if name} <= rows


def test_every_check_is_a_column_and_every_peer_is_asked_what_it_needs():
    assert set(peers_table.CHECKS) == set(check(PLAIN, soft))
    assert peers_checks.inputs(NAMED["entmax attention, k queries"], 10, 3)[1].shape == (2, 10, 3)
