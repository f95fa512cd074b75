"""What the wheel brings: every package of the repository under one name, and the configurations."""

import importlib
import shutil
import sysconfig
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from shtopk.backends import native

ROOT = Path(__file__).resolve().parent.parent
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = SETUPTOOLS["package-dir"]  # name -> folder, of those that do not lie in shtopk/


def folders_with_code() -> dict[str, Path]:
    """Every folder of a package in the repository, by the name that the package has once installed."""
    roots = {"shtopk": ROOT / "shtopk"} | {name: ROOT / folder for name, folder in FOLDERS.items()}
    return {
        ".".join([name, *path.parent.relative_to(root).parts]): path.parent
        for name, root in roots.items()
        for path in root.rglob("__init__.py")
    }


def test_the_wheel_holds_every_package_of_the_repository():
    assert sorted(SETUPTOOLS["packages"]) == sorted(folders_with_code())


@pytest.mark.parametrize("name", sorted(folders_with_code()))
def test_a_package_is_found_under_its_installed_name(name):
    assert Path(importlib.import_module(name).__file__).parent == folders_with_code()[name]


def test_the_configurations_come_along():
    installed = {path.name for path in files("shtopk.configs").iterdir() if path.name.endswith(".yaml")}
    assert installed == {path.name for path in (ROOT / "configs").glob("*.yaml")}
    patterns = SETUPTOOLS["package-data"]["shtopk.configs"]
    found = {path for pattern in patterns for path in (ROOT / "configs").glob(pattern)}
    assert found == set((ROOT / "configs").rglob("*.yaml"))


def test_where_there_is_a_compiler_installing_compiles():
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(compiler):
        pytest.skip(f"needs a C compiler, found no {compiler}")
    assert native.LIBRARY is not None
