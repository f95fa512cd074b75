"""Who may import whom: commands -> training -> show -> {models, tasks} -> integrations -> the core -> torch."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
STANDARD = set(sys.stdlib_module_names)
FOLDERS = {"shtopk": "shtopk", "models": "shtopk.models", "tasks": "shtopk.tasks", "training": "shtopk.training"}
MODULES = {"train": ROOT / "train.py"} | {
    ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]).removesuffix(".__init__"): path
    for folder, package in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))
}
FLOORS = {  # from the ground up; a module may import its own package and the floors below
    "shtopk": 0,
    "shtopk.integrations": 1,
    "shtopk.models": 2,
    "shtopk.tasks": 2,
    "shtopk.show": 3,
    "shtopk.training": 4,
    "shtopk.commands": 5,
    "shtopk.__main__": 6,
    "shtopk.show.__main__": 6,
    "train": 6,
}
OUTSIDE = {  # what a package may import of others; training and train.py anything
    "shtopk": STANDARD | {"torch"},
    "shtopk.integrations": STANDARD | {"torch", "transformers", "sentence_transformers", "peft"},
    "shtopk.tasks": STANDARD | {"datasets", "evaluate", "numpy", "pyarrow", "rouge_score", "scipy", "sklearn", "tqdm"},
    "shtopk.models": STANDARD - {"argparse"} | {"torch", "transformers", "huggingface_hub", "safetensors", "peft"},
    "shtopk.show": STANDARD | {"torch", "transformers"},
}


def imports(name: str) -> set[str]:
    """Modules that a module imports, functions included: of ours the very file, of others the package."""
    path = MODULES[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
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


def package_of(name: str) -> str:
    return max((package for package in FLOORS if f"{name}.".startswith(f"{package}.")), key=len)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_its_own_package_and_the_floors_below(name):
    package = package_of(name)
    not_below = {one for one in imports(name) & set(MODULES) if FLOORS[package_of(one)] >= FLOORS[package]}
    assert {one for one in not_below if package_of(one) != package} == set()


@pytest.mark.parametrize("name", [name for name in MODULES if package_of(name) in OUTSIDE])
def test_a_module_imports_no_other_libraries_than_its_package_may(name):
    kernels = {"triton"} if name.startswith("shtopk.backends.gpu.") else set()  # which its __init__ imports late
    assert imports(name) - set(MODULES) <= OUTSIDE[package_of(name)] | kernels


def test_the_library_imports_triton_for_gpus_alone():
    code = """
import sys, torch, shtopk
values = torch.randn(2, 9, 4, requires_grad=True)
shtopk.successive_halving_topk(values, torch.randn(2, 9), 2).values.sum().backward()
print(sorted(name for name in sys.modules if name.split(".")[0] == "triton"))
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_no_modules_import_each_other_in_a_circle():
    """They can be put in an order in which each imports earlier ones alone, whether at the top or in a function."""
    waiting = {name: imports(name) & set(MODULES) - {name} for name in MODULES}
    while ready := {name for name, needs in waiting.items() if not needs & set(waiting)}:
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}
    assert not waiting, f"these import each other in circles: {', '.join(sorted(waiting))}"


def test_a_module_has_one_name():
    """That it has once installed: no module relies on lying beside the folders models, tasks and training."""
    bare = r"^\s*(?:from|import) (?:models|tasks|training|configs)\b"
    pages = [ROOT / path for path in ("shtopk", "models", "tasks", "training", "benchmarks", "tests", "docs")]
    texts = [*(ROOT.glob("*.*")), *(path for page in pages for path in page.rglob("*.*"))]
    assert not [path for path in texts if path.suffix in (".py", ".md") and re.search(bare, path.read_text(), re.M)]


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
