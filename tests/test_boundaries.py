"""Who may import whom: train.py -> training -> configs -> {models, tasks} -> shtopk -> torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it; relative imports left out."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "shtopk").rglob("*.py")), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_shtopk_needs_torch_alone(path):
    allowed = STANDARD | {"torch", "shtopk"}
    if "integrations" in path.parts:
        allowed |= {"transformers", "sentence_transformers"}
    assert imported(path) <= allowed


@pytest.mark.parametrize("path", sorted((ROOT / "models").glob("*.py")), ids=lambda path: path.name)
def test_models_know_nothing_of_data_and_training(path):
    assert imported(path) <= STANDARD - {"argparse"} | {
        "torch",
        "transformers",
        "huggingface_hub",
        "safetensors",
        "shtopk",
    }


@pytest.mark.parametrize("path", sorted((ROOT / "tasks").glob("*.py")), ids=lambda path: path.name)
def test_tasks_know_nothing_of_models(path):
    assert not imported(path) & {"models", "configs", "training", "train", "transformers", "accelerate"}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.name)
def test_configurations_know_nothing_of_training(path):
    assert not imported(path) & {"training", "train"}


@pytest.mark.parametrize("path", sorted((ROOT / "training").glob("*.py")), ids=lambda path: path.name)
def test_what_training_is_made_of_does_not_start_it(path):
    assert "train" not in imported(path)


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
