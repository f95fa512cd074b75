"""The folders and versions of installed packages, found without importing them."""

import importlib.util
from importlib import metadata
from pathlib import Path

DISTRIBUTIONS = {"sklearn": "scikit-learn"}  # where the name differs


def package_folder(name: str, extra: str) -> Path:
    """The folder of a package. Raises ValueError, which names the extra to install, if it is missing."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(f"expected the package {name} to be installed, found none; pip install 'shtopk[{extra}]'")
    return Path(spec.submodule_search_locations[0])


def version_of(name: str) -> str:
    """The version of an installed package."""
    return metadata.version(DISTRIBUTIONS.get(name, name))
