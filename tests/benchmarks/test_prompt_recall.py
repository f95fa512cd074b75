"""Recall of facts from pooled prompts: the task, and the path from a model to a table."""

import prompt_recall
import prompt_recall_base
import pytest
import torch
from prompt_recall_answers import Answers, answers
from prompt_recall_base import SHAPE
from prompt_recall_table import best, table
from prompt_recall_task import FACTS, PARTS, Registry
from rivals.presses import predict
from transformers import LlamaConfig, LlamaForCausalLM


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
    monkeypatch.setattr(prompt_recall_base, "CACHE", tmp_path)
    monkeypatch.setattr(prompt_recall_base, "STAGES", ((2, 96, 8, True),))
    monkeypatch.setattr(prompt_recall_base, "LAST", 1)
    monkeypatch.setattr(prompt_recall, "TEST_PROMPTS", 20)
    monkeypatch.setattr(prompt_recall, "TRAINED_K", (8, 16))
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
    monkeypatch.setattr(prompt_recall_base, "SHAPE", SHAPE | small)
    words = ["prompt_recall.py", "--words", "96", "--k", "8", "--updates", "1", "--seeds", "0"]
    monkeypatch.setattr("sys.argv", [*words, "--results", str(tmp_path)])
    prompt_recall.main()
    shown = (tmp_path / "prompt-recall.md").read_text()
    for way in prompt_recall.WAYS:
        for name in (way.name, *way.evaluations):
            assert f"| {name} |" in shown


def test_the_table_shows_the_share_recalled_and_marks_what_is_best():
    same = {"seed": 0, "loss": 1.234}
    good, bad = " ".join(["1"] * 60 + ["0"] * 20), " ".join(["0"] * 80)
    record = {"k": [8], "words": 96, "layer": 1, "updates": 1, "command": "c", "device": "d", "torch": "t"}
    record["runs"] = [
        same | {"way": "ours", "k": 8, "trained": "whole", "right": good},
        same | {"way": "theirs", "k": 8, "trained": "nothing", "right": bad},
        same | {"way": "all tokens", "k": 0, "trained": "whole", "right": good},
    ]
    assert best(record, 8) == {"ours"}
    shown = table(record)
    assert "| ours | whole | **0.750** | 1.23 |" in shown and "| theirs | nothing | 0.000 | 1.23 |" in shown


def test_a_base_that_never_recalls_enough_is_no_base(monkeypatch, tmp_path):
    monkeypatch.setattr(prompt_recall_base, "CACHE", tmp_path)
    monkeypatch.setattr(prompt_recall_base, "STAGES", ((2, 96, 8, True),) * 2)
    monkeypatch.setattr(prompt_recall_base, "MOST", 2)
    monkeypatch.setattr(prompt_recall_base, "SHAPE", SHAPE | {"hidden_size": 16, "num_hidden_layers": 1})
    with pytest.raises(SystemExit, match="on 96 words, got"):
        prompt_recall_base.base_model()
    assert not list(tmp_path.iterdir())


def test_the_answers_are_those_of_the_whole_forward(registry):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(registry), **SHAPE)).eval()
    batch = registry.batch(2, 96)
    with torch.no_grad():
        out = model(batch.tokens, labels=batch.labels)
        loss, right = answers(model, batch)
    torch.testing.assert_close(loss, out.loss)
    said = out.logits[:, :-1].argmax(-1)
    numbers = (batch.labels[:, 1:] != -100).nonzero()[:, 1].view(2, FACTS, PARTS)
    for row in range(2):
        for fact in range(FACTS):
            at = numbers[row, fact]
            assert right[row, fact] == (said[row, at] == batch.tokens[row, at + 1]).all()


def test_what_follows_a_whole_prompt_is_the_same_one_token_at_a_time(registry):
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(registry), **SHAPE)).eval()
    batch = registry.batch(2, 96)
    logits = predict(model, None, batch.tokens[:, : batch.words], batch.tokens[:, batch.words :])
    found = Answers.of(logits, batch.labels[:, batch.words :])
    with torch.no_grad():
        torch.testing.assert_close(found.loss, answers(model, batch).loss)
