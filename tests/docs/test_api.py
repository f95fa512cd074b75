"""Every public name stands on an API page, and the API pages name nothing else."""

import importlib
import importlib.util
import inspect
import re
from pathlib import Path

import griffe
import pytest

PAGES = Path(__file__).resolve().parents[2] / "docs" / "api"
PACKAGES = ("shtopk", "shtopk.models", "shtopk.show", "shtopk.tasks", "shtopk.training")
MODULES = {  # those that users import from, beside the packages
    "shtopk.integrations.decoder": (
        "distillation_loss",
        "pool_decoder",
        "read_prompt",
        "record_assignments",
        "unpool_decoder",
        "unpooled",
    ),
    "shtopk.integrations.encoder": ("pool_encoder", "load_pooled", "unpool_encoder"),
    "shtopk.integrations.sentence_transformers": ("TopKTokenPooling",),
    "shtopk.integrations.trainer": ("AnnealTemperature", "DistillationTrainer", "DrawK", "with_few_logits"),
    "shtopk.operators": ("OPERATORS", "Operator"),
    "shtopk.show.answer": ("answer_and_page", "show_document"),
}
DESCRIBED = {  # full name -> the members that a page lists of it
    name: tuple(re.findall(r"\w+", members))
    for page in sorted(PAGES.glob("*.md"))
    for name, members in re.findall(
        r"^::: ([\w.]+)$(?:\n +options:\n +members: \[([^\]]*)\])?", page.read_text(encoding="utf-8"), re.MULTILINE
    )
}


def hooks():
    """The code that the site is built with."""
    spec = importlib.util.spec_from_file_location("api_hooks", PAGES.parent / "api.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def found(name: str):
    """What a full name stands for."""
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def public_names() -> set[str]:
    names = {package: importlib.import_module(package).__all__ for package in PACKAGES} | MODULES
    return {f"{module}.{name}" for module, inside in names.items() for name in inside}


def test_every_public_name_stands_on_an_api_page():
    assert public_names() - DESCRIBED.keys() == set()


def test_the_api_pages_name_nothing_that_is_not_public():
    assert DESCRIBED.keys() - public_names() == set()


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_what_an_api_page_names_is_there_and_explained(name):
    described = found(name)
    if callable(described):  # a table is explained where it is made
        assert inspect.getdoc(described)
    for member in DESCRIBED[name]:
        inside = inspect.getattr_static(described, member)
        assert inspect.getdoc(inside.func if hasattr(inside, "func") else inside), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", sorted(DESCRIBED))
def test_the_arguments_that_a_docstring_explains_are_there(name):
    described = found(name)
    section = re.search(r"^Args:\n((?:    .*\n|\n)+)", (inspect.getdoc(described) or "") + "\n", re.MULTILINE)
    explained = set(re.findall(r"^    (\w[\w, ]*):", section[1], re.MULTILINE)) if section else set()
    taken = inspect.signature(described).parameters if explained else ()
    assert explained <= set(taken)


def test_shapes_become_code_and_examples_stay_as_they_are():
    docstring = "Pool [*, n, d] to [B, k], see [CLS].\n\nExample:\n    >>> f([a])\n    [b, c]\n\nSource: [0, 1]."
    expected = "Pool `[*, n, d]` to `[B, k]`, see `[CLS]`.\n\nExamples:\n    >>> f([a])\n    [b, c]\n\nSource: [0, 1]."
    assert hooks().as_markdown(docstring) == expected


def test_a_bound_at_the_start_of_an_explanation_is_no_quotation():
    docstring = "Args:\n    k: >= 1, slots.\n\nExample:\n    >>> k"
    assert hooks().as_markdown(docstring) == "Args:\n    k: \\>= 1, slots.\n\nExamples:\n    >>> k"


def test_the_packages_are_laid_out_as_they_are_installed(tmp_path, monkeypatch):
    site = hooks()
    monkeypatch.setattr(site, "SOURCES", tmp_path / "sources")
    site.lay_out()
    for name in ("shtopk.pooling", "shtopk.models.windows", "shtopk.tasks", "shtopk.training.loop"):
        copy = (tmp_path / "sources" / name.replace(".", "/")).with_suffix(".py")
        origin = Path(importlib.util.find_spec(name).origin)
        assert (copy.parent / copy.stem / "__init__.py" if origin.stem == "__init__" else copy).is_file()


def test_fields_of_a_command_line_are_listed_with_their_help(tmp_path, monkeypatch):
    site = hooks()
    monkeypatch.setattr(site, "SOURCES", tmp_path)
    site.lay_out()
    loader = griffe.GriffeLoader(extensions=griffe.Extensions(site.Docstrings()), search_paths=[tmp_path])
    described = loader.load("shtopk.training.arguments")["TrainArguments"]
    assert "    epochs: passes over the training split" in described.docstring.value
    assert described["epochs"].value == "3.0"


def test_names_in_backticks_become_links():
    linked = hooks().on_page_content("<p><code>TopK.pool(x)</code> <code>k</code></p>", None, None, None)
    assert linked == (
        '<p><autoref optional identifier="shtopk.TopK.pool"><code>TopK.pool(x)</code></autoref> <code>k</code></p>'
    )
