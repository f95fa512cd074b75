"""The pictures of the documentation show the committed figures, in both colour schemes."""

import shutil
from xml.etree import ElementTree

import pytest
from drawing import COLOUR, SCHEME
from marked_text import COLUMNS, lines_of
from panel import apart
from pictures import DRAWN, PICTURES, RESULTS, draw

SVG = "{http://www.w3.org/2000/svg}"
NAMES = sorted(DRAWN)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    draw(folder)
    return folder


BY_HAND = {"batch"}  # what no figure is in


def test_every_picture_is_committed_and_no_other():
    assert {path.stem for path in PICTURES.glob("*.svg")} == {*NAMES, *BY_HAND}


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_that_of_the_committed_figures(name, drawn):
    assert (drawn / f"{name}.svg").read_bytes() == (PICTURES / f"{name}.svg").read_bytes(), "make pages draws it anew"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_says_what_it_shows_and_follows_the_readers_colours(name):
    text = (PICTURES / f"{name}.svg").read_text()
    root = ElementTree.fromstring(text)  # noqa: S314
    assert root.get("role") == "img"
    assert len(root[0].text) > 40 and root[0].tag == f"{SVG}title"
    style = root[1].text
    light, dark = style.split("@media (prefers-color-scheme:dark)")
    for role, colours in SCHEME.items():
        assert f"--{role}:{colours[0]};" in light and f"--{role}:{colours[1]};" in dark
    assert not any(stand_in in text for stand_in in COLOUR.values())
    drawn = text.replace(style, "")
    assert "var(--ink)" in drawn
    assert "#" not in drawn.replace("#clip", "").replace("url(#", "").replace('href="#', "")  # no colour of its own


def test_other_figures_make_another_picture(tmp_path):
    for path in ("gpu/paper-full.json", *(path.name for path in RESULTS.glob("*.json"))):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(RESULTS / path, tmp_path / path)
    changed = tmp_path / "kept.json"
    changed.write_text(changed.read_text().replace('"class": "sports"', '"class": "politics"'))
    draw(tmp_path / "pictures", tmp_path)
    assert "politics" in (tmp_path / "pictures" / "kept.svg").read_text()


def test_labels_that_would_overlap_are_moved_apart_around_their_lines():
    assert apart([], gap=1.0) == []
    assert apart([0.0, 5.0], gap=3.0) == [0.0, 5.0]
    assert apart([0.0, 0.0, 1.5, 20.0], gap=3.0) == [-2.5, 0.5, 3.5, 20.0]


def test_lines_are_broken_between_words():
    text = "some words " * 40
    lines = lines_of(text)
    assert all(end - start <= COLUMNS for start, end in lines)
    assert [word for start, end in lines for word in text[start:end].split()] == text.split()
