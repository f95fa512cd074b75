"""What holds for every page of docs/ and for the README: blocks that a test runs or checks, links, pictures."""

import re
from pathlib import Path

import pytest
from code_blocks import DOCS, ROOT, fenced
from shell_lines import check_lines

HERE = Path(__file__).resolve().parent
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
RUN = {"python", "pycon", "console"}  # by the test of the page
CHECKED = {"sh"}  # here
SHOWN = {"text", "json", "yaml", "bibtex"}  # not code
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())


def without_blocks(path: Path) -> str:
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.sub(r"`([^`\n]*)`", lambda code: re.sub(r"[\[\]()]", "", code[1]), text)


def anchors(path: Path) -> set[str]:
    """The headings of a page, as links have them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.S | re.M), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"[\s-]+", "-", heading) for heading in plain}


@every_page
def test_every_block_of_code_names_its_language(path):
    text = path.read_text(encoding="utf-8")
    found = fenced(path)
    assert {block.language for block in found} <= RUN | CHECKED | SHOWN
    assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(found), "a block that is not closed, or indented"


@every_page
def test_the_blocks_of_a_page_are_run_by_a_test(path):
    if not RUN & {block.language for block in fenced(path)}:
        return
    name = f'page("{path.relative_to(DOCS).with_suffix("").as_posix()}")' if path.is_relative_to(DOCS) else "README"
    tests = [test.read_text(encoding="utf-8") for test in HERE.glob("test_*.py") if test.name != Path(__file__).name]
    assert any(name in test for test in tests), f"no test in tests/docs/ takes {name}"


@pytest.mark.parametrize(
    ("path", "number"),
    [(path, number) for path in PAGES for number, block in enumerate(fenced(path)) if block.language in CHECKED],
    ids=lambda value: value.stem if isinstance(value, Path) else str(value),
)
def test_commands_that_are_not_run_would_be_accepted(path, number, tmp_path):
    assert check_lines(fenced(path)[number].code, tmp_path)


@every_page
def test_links_and_pictures_lead_somewhere(path):
    for picture, words, link in re.findall(r"(!?)\[([^\]]*)\]\(([^)\s]+)[^)]*\)", without_blocks(path)):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        there = path if not target else (path.parent / target).resolve()
        assert there.exists(), f"nothing at {link}"
        assert path.is_relative_to(DOCS) <= there.is_relative_to(DOCS), f"{link} leaves docs/, so the site lacks it"
        assert not anchor or anchor in anchors(there), f"no heading for {link}"
        assert not picture or len(words.split()) >= 3, f"{link} needs a text for those who do not see it"
        assert words, f"{link} has no words"


@every_page
def test_generated_parts_are_marked_as_the_script_expects(path):
    text = path.read_text(encoding="utf-8")
    tables = re.findall(r"^<!-- table: [\w-]+ -->\n\n(?:(?!<!--).)+\n\n<!-- end -->$", text, re.DOTALL | re.MULTILINE)
    assert 2 * len(tables) == len(re.findall(r"<!-- (?:table|end)", text))
    figures = re.findall(r"<!--= [\w.-]+ -->[^<\n]+<!--/-->", text)
    assert len(figures) == text.count("<!--=") == text.count("<!--/-->")
    assert "\n<!--=" not in text, "Markdown takes a line that begins so for a part of its own"


@every_page
def test_what_is_installed_in_a_clone_runs_there(path):
    # Without -e, Python in the clone finds the clone's folder shtopk, which lacks models, tasks and training
    installed = re.findall(r"pip install ([^\n`#]*\.(?:\[|\s|`|$)[^\n`#]*)", path.read_text(encoding="utf-8"))
    assert [words for words in installed if not words.startswith(("-e ", "--editable "))] == []
