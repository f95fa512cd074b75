"""Who may import whom: train.py -> training -> {models, tasks} -> show -> integrations -> the library -> torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)
FOLDERS = {"shtopk": "shtopk", "models": "shtopk.models", "tasks": "shtopk.tasks", "training": "shtopk.training"}
MODULES = {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(name: str, at_the_top_only: bool = False) -> set[str]:
    """Modules that a module imports, by their full names: of ours the very file, of others the package."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = set()
    for node in tree.body if at_the_top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            source = ".".join([*parts, *filter(None, [node.module])])
            inside = [f"{source}.{alias.name}" for alias in node.names]
            names = [one if one in MODULES else source for one in inside]
        else:
            continue
        found |= {one if one in MODULES else one.split(".")[0] for one in names}
    return found


def of(package: str, names: set[str]) -> set[str]:
    return {name for name in names if name == package or name.startswith(f"{package}.")}


ABOVE = ("shtopk.models", "shtopk.tasks", "shtopk.training")
LIBRARY = [name for name in MODULES if not any(of(part, {name}) for part in ABOVE)]


@pytest.mark.parametrize("name", LIBRARY)
def test_shtopk_needs_torch_alone(name):
    above = set().union(*(of(part, imports(name)) for part in ABOVE))
    allowed = STANDARD | {"torch"}
    if of("shtopk.integrations", {name}) or of("shtopk.show", {name}):
        allowed |= {"transformers", "sentence_transformers"}
    assert {one for one in imports(name) if not one.startswith("shtopk")} <= allowed
    assert not above


@pytest.mark.parametrize("name", sorted(of("shtopk.models", set(MODULES))))
def test_models_know_nothing_of_data_and_training(name):
    outside = {one for one in imports(name) if not one.startswith("shtopk")}
    assert outside <= STANDARD - {"argparse"} | {"torch", "transformers", "huggingface_hub", "safetensors"}
    assert not of("shtopk.tasks", imports(name)) | of("shtopk.training", imports(name))


@pytest.mark.parametrize("name", sorted(of("shtopk.tasks", set(MODULES))))
def test_tasks_know_nothing_of_models_and_training(name):
    assert not imports(name) & {"transformers", "accelerate"}
    assert not of("shtopk.models", imports(name)) | of("shtopk.training", imports(name))


@pytest.mark.parametrize("name", sorted(of("shtopk.training", set(MODULES))))
def test_what_training_is_made_of_does_not_start_it(name):
    assert "train" not in imports(name)


def test_nothing_that_is_imported_in_the_end_imports_what_imported_it():
    """No circles: modules can be put in an order in which each imports earlier ones alone."""
    waiting = {name: imports(name, at_the_top_only=True) & set(MODULES) - {name} for name in MODULES}
    while ready := {name for name, needs in waiting.items() if not needs & set(waiting)}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    assert not waiting, f"these import each other in circles: {', '.join(sorted(waiting))}"


def test_shtopk_imports_where_transformers_is_missing():
    code = (
        "import sys; sys.modules.update(transformers=None, datasets=None, accelerate=None, "
        "sentence_transformers=None); import shtopk, shtopk.show"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_public_names_are_those_of_the_menu():
    import shtopk

    assert all(hasattr(shtopk, name) for name in shtopk.__all__)
    assert shtopk.__all__ == sorted(shtopk.__all__)
