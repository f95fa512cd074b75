"""Recall of facts from pooled prompts: the task, and the path from a model to a table."""

import prompt_recall
import pytest
import torch
from prompt_recall_table import best, table
from prompt_recall_task import FACTS, PARTS, Registry


@pytest.fixture(scope="module")
def registry():
    return Registry("test", 0)


def test_every_room_of_a_prompt_is_asked_for_once_with_its_number(registry):
    batch = registry.batch(4, 96)
    for tokens, labels, prompt in zip(*batch, strict=True):
        told, asked = tokens[prompt == 1].tolist(), tokens[prompt == 0].view(FACTS, -1).tolist()
        assert len(told) == 96 and len({room for _, room, *_ in asked}) == FACTS
        for question, room, *number in asked:
            assert question == registry.number["?"]
            at = told.index(room)
            assert told[at + 1 : at + 1 + PARTS] == number
        assert (labels != -100).sum() == FACTS * PARTS
        assert (labels[labels != -100] == tokens[labels != -100]).all()
        assert (labels[prompt == 1] == -100).all()


def test_other_seeds_draw_other_prompts_and_the_same_seed_the_same():
    first, same, other = (Registry("test", seed).batch(1, 96).tokens for seed in (3, 3, 4))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_tiny_model_goes_through_every_way_to_a_table(monkeypatch, tmp_path):
    monkeypatch.setattr(prompt_recall, "CACHE", tmp_path)
    monkeypatch.setattr(prompt_recall, "STAGES", ((96, 8, True, 2, 1),))
    monkeypatch.setattr(prompt_recall, "TEST_PROMPTS", 20)
    monkeypatch.setattr(prompt_recall, "TRAINED_K", (8, 16))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    monkeypatch.setattr(prompt_recall, "SHAPE", prompt_recall.SHAPE | small)
    words = ["prompt_recall.py", "--words", "96", "--k", "8", "--updates", "1", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*words, "--results", str(tmp_path)])
    prompt_recall.main()
    shown = (tmp_path / "prompt-recall.md").read_text()
    for way in prompt_recall.WAYS:
        for name in (way.name, *way.evaluations):
            assert f"| {name} |" in shown


def test_the_table_shows_the_share_recalled_and_marks_what_is_best():
    same = {"seed": 0, "loss": 1.0}
    good, bad = " ".join(["1"] * 60 + ["0"] * 20), " ".join(["0"] * 80)
    record = {"k": [8], "words": 96, "layer": 1, "updates": 1, "command": "c", "device": "d", "torch": "t"}
    record["runs"] = [
        same | {"way": "ours", "k": 8, "trained": "whole", "right": good},
        same | {"way": "theirs", "k": 8, "trained": "nothing", "right": bad},
        same | {"way": "all tokens", "k": 0, "trained": "whole", "right": good},
    ]
    assert best(record, 8) == {"ours"}
    shown = table(record)
    assert "| ours | whole | **0.750** |" in shown and "| theirs | nothing | 0.000 |" in shown
