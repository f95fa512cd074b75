"""The Python in a page, found by the heading that it stands under."""

import re
from pathlib import Path


def blocks(page: Path, heading: str | None = None) -> list[str]:
    """The blocks of Python of a page, in order: all, or those between a heading and the next one."""
    parts = re.split(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    found, last = [], None
    for prose, language, code in zip(parts[0::3], parts[1::3], parts[2::3], strict=False):
        last = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)[-1:] or last
        if language == "python" and heading in (None, *(last or [])):
            found.append(code)
    assert found or heading is None, f"no Python under {heading!r} in {page.name}"
    return found


def run(code: list[str], **names) -> dict:
    """The names that blocks leave behind, all run in one namespace as one module after another."""
    for block in code:
        exec(compile(block, "<block of a page>", "exec"), names)
    return names
