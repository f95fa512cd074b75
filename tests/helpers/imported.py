"""What a file of tests needs that is not installed."""

import ast
from importlib.util import find_spec
from pathlib import Path

HELPERS = Path(__file__).parent


def missing(path: Path) -> set[str]:
    """The packages that a file imports at its top, itself or through helpers, and that are not installed."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        for name in {name.split(".")[0] for name in names}:
            if (helper := HELPERS / f"{name}.py").exists():
                found |= missing(helper)
            elif find_spec(name) is None:
                found.add(name)
    return found
