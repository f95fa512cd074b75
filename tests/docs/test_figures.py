"""Every measured figure that a page shows is the one in benchmarks/results/."""

import itertools
import re

import between
import big_data
import budgets
import compare
import figures
import fill_pages
import finetune_gpu
import gpu
import growth
import merging
import paper
import peers_table
import planted
import predict
import prompt_recall_table
import prompt_speed
import pytest
import retrieval_table
import scaling
import speed
import speed_gpu
import teachers_table
import tune
from paired import best_rows
from record import RESULTS

PAGES = fill_pages.pages()
NAMES = [page.name for page in PAGES]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_page_shows_the_figures_that_were_measured(page):
    text = page.read_text(encoding="utf-8")
    assert fill_pages.filled(text) == text, "make pages puts them there"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_figure_does_not_begin_a_line(page):
    """There a comment would end the paragraph."""
    assert not re.search(r"^\s*<!--=", page.read_text(encoding="utf-8"), re.MULTILINE)


def test_new_figures_change_the_page(monkeypatch):
    page = "<!-- table: compare-needle -->\n\nstale\n\n<!-- end --> and <!--= needle.mean -->1 %<!--/--> of them"
    measured = fill_pages.filled(page)
    assert "stale" not in measured
    assert fill_pages.filled(measured) == measured
    runs = [run | {"accuracy": 0.5} for run in figures.record("compare-needle")["runs"]]
    monkeypatch.setattr(figures, "record", lambda name: {"command": "", "device": "", "torch": "", "runs": runs})
    assert fill_pages.filled(page).endswith("<!-- end --> and <!--= needle.mean -->50 %<!--/--> of them")
    assert "0.500 ± 0.000" in fill_pages.filled(page)


def test_a_figure_that_nobody_measured_is_refused():
    with pytest.raises(ValueError, match=r"expected a figure of benchmarks/figures\.py, got 'speed\.of\.light'"):
        fill_pages.filled("<!--= speed.of.light -->1<!--/-->")


def test_every_figure_that_is_made_is_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {name for name in figures.FIGURES if f"<!--= {name} -->" not in text} == set()
    assert {name for name in figures.TABLES if f"<!-- table: {name} -->" not in text} == set()


GENERATED = re.compile(r"<!-- table: .*?<!-- end -->|<!--= .*?<!--/-->|^```.*?^```|`[^`]*`", re.DOTALL | re.MULTILINE)
MEASURED = re.compile(r"(?<![\w./-])\d+\.\d+(?![\w./-])|\b\d+ %|\b\d+ times\b|\d ?(?:ms|MiB|MB|GB)\b")
VERSION = re.compile(r"(?:torch|transformers|Python|sentence-transformers|shtopk) \d+\.\d+|of 0\.1\.0")
ARITHMETIC = re.compile(r"^### On 8 GPUs$.*?(?=^#|\Z)", re.DOTALL | re.MULTILINE)  # an estimate, and called so
SETTINGS = ("10 to 200 times", "95 %", "such as 0.1")


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_measured_figure_in_prose_is_taken_from_the_results(page):
    prose = page.read_text(encoding="utf-8")
    for left_out in (GENERATED, VERSION, ARITHMETIC):
        prose = left_out.sub("", prose)
    lines = [line for line in prose.splitlines() if MEASURED.search(line)]
    assert [line for line in lines if not any(setting in line for setting in SETTINGS)] == []


def of_paper(record):
    return paper.table(record | {"runs": paper.complete(record["runs"])})


PAGES_OF_RESULTS = {
    **{f"compare-{task}": compare.table for task in ("needle", "bbc", "docstrings")},
    **{f"planted-{size}": planted.table for size in ("small", "large")},
    **{f"retrieval{name}": retrieval_table.table for name in ("", "-summaries", "-tuning", "-trained")},
    **dict.fromkeys(("paper-full", "gpu/paper-full"), of_paper),
    **{
        "speed": speed.table,
        "between": between.table,
        "between-speed": between.table,
        "growth": growth.table,
        "scaling": scaling.table,
    },
    **{"merging": merging.table, "predict": predict.table, "big-data": big_data.table, "tune-needle": tune.table},
    **{"budgets-needle": budgets.table, "prompt-speed": prompt_speed.table},
    **{"prompt-recall": prompt_recall_table.table, "peers": peers_table.table, "teachers": teachers_table.table},
    **{"gpu/speed-gpu": speed_gpu.table, "gpu/gpu": gpu.table, "gpu/finetune-gpu": finetune_gpu.table},
}


@pytest.mark.parametrize("page", [path for path in RESULTS.rglob("*.md") if path.with_suffix(".json").exists()])
def test_the_page_of_a_result_is_that_of_its_figures(page):
    name = page.relative_to(RESULTS).with_suffix("").as_posix()
    assert name in PAGES_OF_RESULTS, "its table goes there"
    assert page.read_text() == PAGES_OF_RESULTS[name](figures.record(name))


def test_no_teacher_is_level_with_the_best_everywhere_and_ours_where_needles_are():
    record = figures.record("teachers")
    level = {
        (task, k): best_rows(
            teachers_table.answers(record, task, k, "select_and_merge"), teachers_table.owners(record, task)
        )
        for task in teachers_table.tasks(record)
        for k in (8, 32)
    }
    assert len(level) == 8
    assert set.intersection(*level.values()) == set()
    assert sum(figures.OURS in best for best in level.values()) == 6  # docs/benchmarks.md says it
    assert all(figures.OURS in best for (task, _), best in level.items() if task.endswith("needle"))


def test_no_way_to_search_is_level_with_the_best_throughout():
    level = []
    for name in figures.SEARCHES:
        record = figures.record(name)
        for task, k in itertools.product(record["tasks"], (8, 32)):
            of_k = record | {"runs": [run for run in record["runs"] if run["k"] == k]}
            level.append(retrieval_table.best(of_k, task, k, "recall@1"))
    assert len(level) == 8
    often = {way: sum(way in best for best in level) for way in set.union(*level)}  # docs/smaller_index.md says it
    assert sorted(often.values())[-3:] == [4, 5, 6]
    assert (often[figures.OURS], often["select and merge in both modes"], often["Ward clusters"]) == (6, 4, 5)
