"""A dry run says what would be done, and does nothing."""

import re

import train
from shtopk.training import Run, parse
from shtopk.training.dry_run import memory_guess, plan


def test_a_dry_run_tells_and_writes_nothing(words, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert train.main([*words, "--dry_run", "true", "--max_tokens", "100", "--freeze_layers", "2"]) == {}
    said = capsys.readouterr().out
    assert sorted(tmp_path.rglob("*")) == before
    (row,) = [line.split() for line in said.splitlines() if line.startswith("train ")]
    documents, tokens, mean, longest, cut, in_windows = (int(cell.replace(",", "")) for cell in row[1:])
    assert (documents, longest) == (42, 100) and cut > 10 and in_windows > 20
    assert mean == round(tokens / 42)
    assert "72 updates of 8 documents (8 x 1 micro-batches x 1 processes), 12 epochs of 6" in said
    assert "12 evaluations, the best accuracy is kept" in said
    assert "99 of " in said  # a classifier of 2 x 32 + 2, a scorer of 32 + 1
    assert re.search(r"new +66 +learning rate 0.001\n +scorer +33 +learning rate 0.01", said)
    assert "[CLS] " in said and re.search(r"its label: (sport|money)", said)


def test_a_dry_run_looks_at_a_run_that_exists_and_leaves_it(words, trained_here, capsys):
    run = trained_here([*words, "--epochs", "1"])
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    train.main([*words, "--epochs", "1", "--overwrite", "true", "--dry_run", "true"])
    train.main([*words, "--dry_run", "true"])
    assert "12 epochs" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_a_dry_run_names_the_positions_of_a_language_model_where_these_cut_its_prompts(prompt_words):
    words = [*prompt_words, "--max_completion_tokens", "40"]  # of 64
    run = Run(parse(words))
    table = plan(run).splitlines()
    assert table[1].split()[4:6] == ["24", "112"] and max(map(len, run.encoded["train"]["input_ids"])) == 24
    assert table[4] == "cut: reaches 24 tokens, which the model's positions leave beside max_completion_tokens"
    assert "cut: reaches max_tokens, 20" in plan(Run(parse([*words, "--max_tokens", "20"])))
    assert "nothing is cut" not in plan(Run(parse([*words, "--max_tokens", "60"])))


def test_the_guess_grows_with_the_batch_and_falls_with_checkpointing(words):
    def guess(*more):
        return memory_guess(Run(parse([*words, *more])))

    weights, activations = guess()
    assert weights == 4 * 4 * 16_941 or weights > 0
    assert guess("--batch_size", "16")[1] > 1.5 * activations
    assert guess("--gradient_checkpointing", "true")[1] < activations
    frozen = guess("--freeze_layers", "2")
    assert frozen[0] < weights and frozen[1] == 0


def test_a_summary_is_shown_as_it_is(summary_words):
    assert plan(Run(parse(summary_words))).splitlines()[-1] in ("its summary: goal", "its summary: bank")
