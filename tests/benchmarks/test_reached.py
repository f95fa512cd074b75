"""What a benchmark's figures depend on: what its script reaches, and nothing that changes no figure."""

import origin
import pytest
from parts import PARTS
from reached import Reach
from sources import Code

SCRIPT = '''"""A benchmark."""
import sys
from helpers import inner as other
from shtopk import wanted
from shtopk.tasks.registry import get_task

PROGRAM = """
import told
told.tell()
"""


def main(size: int = 3) -> None:
    parser.add_argument("--size", help="of it")
    other.work(wanted(size), get_task, PROGRAM, "bbc.yaml")
    table(size)


def table(size):
    return "| |"


def unused():
    return wanted


if __name__ == "__main__":
    main()
'''
FILES = {
    "benchmarks/script.py": SCRIPT,
    "benchmarks/told.py": "def tell():\n    pass\n",
    "benchmarks/helpers/inner.py": "ONE = 1\n\n\ndef work(*all):\n    return ONE\n\n\ndef idle():\n    raise ONE\n",
    "shtopk/__init__.py": "from shtopk.core import unwanted, wanted\n",
    "shtopk/core.py": "import numpy\nfrom shtopk import backends\n\n\ndef wanted(x):\n    return backends.pick(x)\n\n"
    "\ndef unwanted():\n    return numpy\n",
    "shtopk/backends/__init__.py": "from shtopk.backends import native\nfrom shtopk.backends.gpu import kernels\n\n\n"
    "def pick(x):\n    return native.run, kernels\n",
    "shtopk/backends/native.py": "import torch\n\n\ndef run():\n    return torch\n",
    "shtopk/backends/gpu.py": "def kernels():\n    pass\n",
    "shtopk/backends/tournament.c": "int main;",
    "tasks/registry.py": "from shtopk.tasks.bbc import BBC\nfrom shtopk.tasks.rfc import RFC\n\nTASKS = [BBC, RFC]\n"
    "\n\ndef get_task():\n    return TASKS\n",
    "tasks/bbc.py": "BBC = 1\n",
    "tasks/rfc.py": "RFC = 2\n",
    "configs/bbc.yaml": "# measured\nk: 8\n",
    "configs/rfc.yaml": "k: 9\n",
}


def reach(changes=None, **options):
    files = FILES | (changes or {})
    return Reach(Code({path: text.encode() for path, text in files.items()}), "script", **options)


def test_what_a_script_uses_is_reached_through_packages_strings_and_attributes():
    assert set(reach().hashes()) == {
        *("benchmarks/script.py", "benchmarks/told.py", "benchmarks/helpers/inner.py"),
        *("shtopk/core.py", "shtopk/backends/__init__.py", "shtopk/backends/native.py", "shtopk/backends/gpu.py"),
        *("shtopk/backends/tournament.c", "tasks/registry.py", "tasks/bbc.py", "tasks/rfc.py", "configs/bbc.yaml"),
    }
    assert reach().outside == {"torch"}  # what is not used is not reached, nor what it needs


def test_what_a_part_leaves_out_is_not_reached():
    left = set(reach(without=["shtopk.backends.gpu"], tasks=["bbc"]).hashes())
    assert not left & {"shtopk/backends/gpu.py", "tasks/rfc.py"} and "tasks/bbc.py" in left
    assert "shtopk/backends/tournament.c" not in reach(without=["shtopk.backends.native"]).hashes()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("benchmarks/script.py", '"""A benchmark."""', '"""Another text."""'),
        ("benchmarks/script.py", "    other.work", "    # a comment\n\n    other.work"),
        ("benchmarks/script.py", "of it", "of them"),
        ("benchmarks/script.py", "size: int = 3) -> None", "size=3)"),
        ("benchmarks/script.py", '"| |"', '"| | |"'),
        ("benchmarks/helpers/inner.py", "raise ONE", "raise TWO"),
        ("shtopk/core.py", "return numpy", "return None"),
        ("configs/bbc.yaml", "# measured", "# measured anew"),
    ],
)
def test_what_changes_no_figure_does_not_count(path, old, new):
    assert old in FILES[path]
    assert reach({path: FILES[path].replace(old, new)}).hashes() == reach().hashes()


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("benchmarks/script.py", "size: int = 3", "size: int = 4"),
        ("benchmarks/helpers/inner.py", "ONE = 1", "ONE = 2"),
        ("shtopk/core.py", "backends.pick(x)", "backends.pick(x, x)"),
        ("shtopk/backends/tournament.c", "int", "long"),
        ("configs/bbc.yaml", "8", "9"),
        ("tasks/rfc.py", "2", "3"),
    ],
)
def test_what_changes_a_figure_is_named(path, old, new):
    before, after = reach().hashes(), reach({path: FILES[path].replace(old, new)}).hashes()
    assert {one for one in before if before[one] != after[one]} == {path}


def test_times_of_operators_do_not_depend_on_decoders_tasks_or_kernels():
    reached = set(origin.reach("speed", "speed", True).hashes())
    assert {"benchmarks/speed.py", "shtopk/backends/native.py", "shtopk/backends/tournament.c"} < reached
    assert not [path for path in reached if path.startswith(("tasks", "models", "shtopk/integrations"))]
    assert "shtopk/backends/gpu/launch.py" not in reached
    on_gpu = set(origin.reach("speed_gpu", "speed-gpu", False).hashes())
    assert "shtopk/backends/gpu/launch.py" in on_gpu and "shtopk/backends/native.py" not in on_gpu


def test_a_training_depends_on_the_trainer_its_task_and_its_configuration():
    reached = set(origin.reach("between", "between", True).hashes())
    assert {"training/loop.py", "training/step.py", "tasks/bbc.py", "configs/bbc-between.yaml", "shtopk/pooling.py",
            "shtopk/integrations/layers/between.py", "models/windows.py"} < reached  # fmt: skip
    assert not reached & {"tasks/rfc.py", "configs/bbc.yaml", "shtopk/commands/sweep.py"}
    child = set(origin.reach("big_data", "big-data", True).hashes())  # by a program in a string
    assert {"training/run.py", "training/step.py"} < child
    answers = set(origin.reach("predict", "predict", True).hashes())  # by the name of a command
    assert "shtopk/commands/predict.py" in answers and "shtopk/commands/sweep.py" not in answers


@pytest.mark.parametrize("name", sorted({one for part in PARTS for one in part.without}))
def test_what_a_part_leaves_out_exists(name):
    module, _, inner = name.rpartition(".")
    code = origin.code()
    assert name in code.paths or inner in code.module(module).definitions
