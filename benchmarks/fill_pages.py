"""Put the figures of benchmarks/results/ into README.md and docs/, and draw their pictures.

python benchmarks/fill_pages.py            # after a measurement: whatever it changed is changed in every page
python benchmarks/fill_pages.py --check    # says which pages do not show the figures that were measured, and fails

A table stands in a page between `<!-- table: NAME -->` and `<!-- end -->`, a figure between `<!--= NAME -->` and
`<!--/-->`; figures.py knows the names. Comments do not show where a page is read.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pictures
from figures import FIGURES, TABLES
from record import ROOT

TABLE = re.compile(r"(?<=<!-- table: )(?P<name>\S+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
FIGURE = re.compile(r"(?<=<!--= )(?P<name>\S+)( -->).*?(?=<!--/-->)", re.DOTALL)


def pages() -> list[Path]:
    """The pages that show figures."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def filled(text: str) -> str:
    """A page's text with the figures as they were measured.

    Raises:
        ValueError: a name that figures.py does not know.
    """
    text = TABLE.sub(lambda found: f"{found[1]}{found[2]}\n{_known(TABLES, found['name'])}\n\n", text)
    return FIGURE.sub(lambda found: f"{found[1]}{found[2]}{_known(FIGURES, found['name'])}", text)


def _known(makers: Mapping, name: str) -> str:
    if name not in makers:
        raise ValueError(f"expected a figure of benchmarks/figures.py, got {name!r}; it has {', '.join(makers)}")
    return makers[name]().strip("\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args().check
    differ = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        try:
            new = filled(text)
        except ValueError as error:
            sys.exit(f"{page.relative_to(ROOT)}: {error}")
        if new != text:
            differ.append(str(page.relative_to(ROOT)))
            if not check:
                page.write_text(new, encoding="utf-8")
    if check and differ:
        sys.exit(f"figures differ from benchmarks/results/ in {', '.join(differ)}; run make pages")
    if not check:
        pictures.draw()
    print("\n".join(differ) or "every page shows the figures that were measured")


if __name__ == "__main__":
    main()
