"""What no code here may do: run what it reads, as code or in a shell, or unpickle it."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("training", "tasks", "configs", "models", "shtopk")
SOURCES = [ROOT / "train.py", *(path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py")))]
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
FORBIDDEN = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "numpy.load", "np.load",
             "pandas.read_pickle", "pd.read_pickle"}  # fmt: skip
UNSAFE_YAML = {"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all", "Loader",
               "FullLoader", "UnsafeLoader", "CLoader", "CFullLoader", "CUnsafeLoader"}  # fmt: skip


def found(source: str) -> list[str]:
    """What a file does that it may not, with the line of each."""
    tree = ast.parse(source)
    real = {}  # name -> what was imported by it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            real |= {its.asname or its.name.split(".")[0]: its.name if its.asname else its.name.split(".")[0]
                     for its in node.names}  # fmt: skip
        elif isinstance(node, ast.ImportFrom):
            real |= {its.asname or its.name: f"{node.module}.{its.name}" for its in node.names}

    def name(node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            return f"{name(node.value)}.{node.attr}"
        return real.get(node.id, node.id) if isinstance(node, ast.Name) else ""

    def says(call: ast.Call, keyword: str, value: bool) -> bool:
        return any(
            its.arg == keyword and isinstance(its.value, ast.Constant) and its.value.value is value
            for its in call.keywords
        )

    bad = []
    for node in ast.walk(tree):
        what = None
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [its.name for its in node.names]
            what = next((module for module in modules if module.split(".")[0] in UNPICKLING), None)
        elif isinstance(node, ast.Name | ast.Attribute):
            called = name(node)
            module, _, last = called.rpartition(".")
            if called in {"eval", "exec", "builtins.eval", "builtins.exec", *FORBIDDEN} or (
                module == "yaml" and last in UNSAFE_YAML
            ):
                what = called
        elif isinstance(node, ast.Call):
            called = name(node.func)
            if called in ("torch.load", "torch.serialization.load") and not says(node, "weights_only", True):
                what = f"{called} without weights_only=True"
            elif called.startswith("subprocess.") and any(
                its.arg == "shell" and not (isinstance(its.value, ast.Constant) and its.value.value is False)
                for its in node.keywords
            ):
                what = f"{called} in a shell"
        if what:
            bad.append(f"line {node.lineno}: {what}")
    return bad


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_that_is_read_is_run_or_unpickled(path):
    assert found(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("source", [
    "eval('1')",
    "map(exec, texts)",
    "import builtins\nbuiltins.eval('1')",
    "import pickle",
    "def f():\n    from pickle import loads",
    "import torch\ntorch.load(path)",
    "from torch import load as read\nread(path, weights_only=False)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "from yaml import unsafe_load\nunsafe_load(text)",
    "import yaml as y\ny.compose(text, Loader=y.FullLoader)",
    "import subprocess\nsubprocess.run(text, shell=True)",
    "from subprocess import check_output as run\nrun(text, shell=always)",
    "import os\nos.system(text)",
    "import numpy as np\nnp.load(path, allow_pickle=True)",
])  # fmt: skip
def test_what_is_forbidden_is_found(source):
    assert found(source)


@pytest.mark.parametrize("source", [
    "model.eval()",
    "re.compile('a')",
    "import torch\ntorch.load(path, weights_only=True)",
    "import yaml\nyaml.safe_load(text)\nyaml.compose(text, Loader=yaml.SafeLoader)",
    "import subprocess\nsubprocess.run(words, check=True)",
    "import json\njson.load(file)",
])  # fmt: skip
def test_what_is_harmless_is_let_through(source):
    assert not found(source)
