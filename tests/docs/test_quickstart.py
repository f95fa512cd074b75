"""The first things that a newcomer does, with the real encoder and data: README and quickstart print what they say."""

import csv

import pytest
from code_blocks import ROOT, fenced, page, run
from transcripts import transcript

from shtopk.tasks import DataArguments, get_task

README = ROOT / "README.md"


def write_news(path, split, count):
    """Beginnings of articles, as the quickstart writes them."""
    task = DataArguments(task="bbc")
    articles = get_task(task).load(task)[split]
    names = articles.features["label"].names
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for row in articles.shuffle(seed=0).select(range(count)):
            rows.writerow([" ".join(row["text"].split()[:60]), names[row["label"]]])


def check_what_was_printed(printed, names):
    accuracy, topic = (line for line in printed.splitlines() if line.startswith("accuracy") or line == "sports")
    assert float(accuracy.split()[1]) == pytest.approx(0.97, abs=0.03)  # another processor may round otherwise
    assert names["out"].assignment.positions.shape[0] == 1


@pytest.mark.slow
def test_what_the_readme_shows_is_what_happens(here, capsys):
    write_news("mine.csv", "train", 200)
    write_news("new.csv", "test", 100)
    (here / "text.txt").write_text("The keeper saved two penalties and lifted the cup.")
    names = transcript(README, here)
    check_what_was_printed(capsys.readouterr().out, names)
    assert (here / "text.html").is_file()


@pytest.mark.slow
def test_the_quickstart_works_from_top_to_bottom(here, capsys):
    names = transcript(page("quickstart"), here)
    check_what_was_printed(capsys.readouterr().out, names)
    assert names["model"].bert.encoder.pooling  # as load_pooled brought it back
    assert (here / "runs" / "sweep" / "sweep.png").is_file()


@pytest.mark.parametrize("path", [README, page("quickstart"), page("operators")], ids=lambda path: path.name)
def test_the_lines_typed_at_the_prompt_print_what_stands_there(path):
    assert run([block.code for block in fenced(path) if block.language == "pycon"])
