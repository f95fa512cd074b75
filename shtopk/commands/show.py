"""A page that shows which tokens of a document or a prompt were kept, and what became of them.

shtopk show CHECKPOINT document.txt [--output page.html]
"""

from __future__ import annotations

from shtopk.show import command


def main(argv: list[str]) -> int:
    return command.main(argv, "shtopk show", __doc__ or "")
