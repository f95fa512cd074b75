"""What the README shows is what happens."""

import doctest
import importlib.util
import json
import pkgutil
from importlib import import_module
from pathlib import Path

import between
import compare
import finetune_gpu
import gpu
import growth
import planted
import retrieval
import scaling
import speed
import speed_gpu
import torch

PACKAGES = ("shtopk", "shtopk.models", "shtopk.tasks", "shtopk.training")

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"


def test_the_lines_typed_at_the_prompt_print_what_stands_there():
    results = doctest.testfile(str(README), module_relative=False)
    assert results.attempted >= 8
    assert results.failed == 0


def modules(package: str) -> set[str]:
    """The Python modules of a package and the packages in it, by their full names."""
    inside = pkgutil.walk_packages(import_module(package).__path__, f"{package}.")
    names = {package, *(name for _, name, _ in inside if not name.endswith("__main__"))}
    return {name for name in names if importlib.util.find_spec(name).origin.endswith(".py")}


def test_the_examples_in_docstrings_print_what_stands_there():
    found = {name: doctest.testmod(import_module(name), extraglobs={"torch": torch})
             for name in sorted(set().union(*map(modules, PACKAGES)))}  # fmt: skip
    assert not [name for name, results in found.items() if results.failed]
    with_examples = [name for name, results in found.items() if results.attempted]
    assert len(with_examples) >= 15 and any(name.startswith("shtopk.tasks") for name in with_examples)


def results(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text())


def test_the_tables_are_those_of_the_results():
    text = README.read_text()
    summaries = {"compare-needle": compare, "compare-docstrings": compare, "retrieval": retrieval, "speed": speed}
    for name, benchmark in summaries.items():
        assert benchmark.summary(results(name)) in text
    for name, benchmark in {"planted-small": planted, "scaling": scaling, "between": between}.items():
        assert benchmark.table(results(name)) in text
    assert growth.table(results("growth")) in (ROOT / "docs" / "many_processes.md").read_text()


def test_the_pages_of_results_are_those_of_their_figures():
    pages = {f"compare-{task}": compare.table for task in ("needle", "bbc", "docstrings")}
    pages |= {"speed": speed.table, "retrieval": retrieval.table, "between": between.table, "growth": growth.table}
    pages |= {"gpu/speed-gpu": speed_gpu.table, "gpu/gpu": gpu.table, "gpu/finetune-gpu": finetune_gpu.table}
    for name, table in pages.items():
        assert (RESULTS / f"{name}.md").read_text() == table(results(name))
    assert speed_gpu.summary(results("gpu/speed-gpu")) in (ROOT / "benchmarks" / "README.md").read_text()


def test_what_the_readme_says_of_a_gpu_is_in_its_figures():
    rows = [line.split("|") for line in speed_gpu.summary(results("gpu/speed-gpu")).splitlines()[2:8]]
    sharp, _, soft, eager = ([float(row[column]) for row in rows] for column in (5, 6, 7, 8))
    said = (
        f"takes {min(sharp):.1f} to {max(sharp):.1f} times as long as `topk` and `gather`, and at a soft temperature "
    )
    said += f"{min(soft):.1f} to {max(soft):.1f} times."
    text = " ".join(README.read_text().split())
    assert said in text
    assert f"{min(eager):.1f} to {max(eager):.1f} times as long as those two" in text
