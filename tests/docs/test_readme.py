"""What the README says of itself, and the examples in docstrings."""

import doctest
import importlib.util
import pkgutil
import re
import tomllib
from importlib import import_module
from pathlib import Path

import torch

PACKAGES = ("shtopk", "shtopk.models", "shtopk.tasks", "shtopk.training")

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_it_is_read_in_two_minutes():
    assert len(README.splitlines()) <= 150


def test_its_badges_are_true():
    extras = PROJECT["optional-dependencies"]
    least = dict(re.findall(r"([\w-]+)>=([\d.]+)", " ".join([*PROJECT["dependencies"], *extras["train"]])))
    said = dict(re.findall(r"shields.io/badge/(\w+)-([\w.]+)-", README))
    assert said.pop("licence") == PROJECT["license"]
    assert said.pop("python") == f"{PROJECT['requires-python'].removeprefix('>=')}_or_newer"
    assert said == {name: f"{least[name]}_or_newer" for name in ("torch", "transformers")}


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
