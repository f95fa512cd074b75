"""Import the names of a package when they are first used, so that a command answers at once."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def late(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package, which imports some of its names when they are first used (PEP 562).

    Args:
        package: its name.
        modules: {name: the module inside the package that defines it}.

    Example:
        >>> late("collections", {"Mapping": "abc"})("Mapping").__module__
        'collections.abc'
    """

    def getattr_of_package(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return getattr_of_package
