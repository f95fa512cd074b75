"""The text of an RFC: whole paragraphs, no abstract, no boilerplate, and nothing else lost."""

import pytest
from made_up_rfcs import prose, published, words, wrapped

from shtopk.tasks.rfc import plain
from shtopk.tasks.rfc_text import clean


def cleaned(body: str, abstract: str = prose(-1, 30), **layout) -> str:
    """What is left of an RFC with this body."""
    return clean(published("A Title", abstract, body, **layout), "A Title", abstract)


def test_the_abstract_does_not_stand_in_its_own_document():
    abstract, before, after = prose(1, 60), prose(2, 200), prose(3, 200)
    changed = abstract.replace(". ", ", as [RFC1] says. ", 2)
    bodies = {
        "its section alone": [before, after],
        "once more as a paragraph": [before, abstract, after],
        "within a paragraph": [f"{before} {abstract} {after}"],
        "with other words": [before, changed, after],
    }
    pages = {case: "\n\n".join(map(wrapped, paragraphs)) for case, paragraphs in bodies.items()}
    pages["a second section"] = f"{wrapped(before)}\n\nAbstract\n\n{wrapped(abstract)}\n\n2. Details\n"
    for case, page in pages.items():
        text = words(cleaned(page, abstract))
        assert not any(words(sentence) in text for sentence in abstract.split(". ")), case
        assert words(before) in text, case


def test_a_sentence_that_text_and_abstract_share_stays():
    sentence = prose(2, 10)
    assert sentence in cleaned(wrapped(sentence), f"{prose(1, 30)} {sentence}")


@pytest.mark.parametrize("footer", ["[Page {}]", "{}"])
def test_a_page_break_leaves_no_trace_in_a_paragraph(footer):
    body = prose(2, 900).replace(".", "").title() + "."
    assert cleaned(wrapped(body), footer=footer) == f"A Title\n\n1. Introduction\n\n{body}"


def test_a_page_break_leaves_no_trace_in_a_list():
    items = [f"o  {prose(i, 18)}".lower().replace(".", "") for i in range(60)]  # each of two lines, or three
    body = "\n\n".join(wrapped(item).replace("\n   ", "\n      ") for item in items)
    assert cleaned(body).split("\n\n")[2:] == [item.replace("  ", " ") for item in items]


def test_boilerplate_goes_and_title_headings_and_text_stay():
    text = cleaned("   First words.\n\n2. Details\n\n   Last words.")
    assert text == "A Title\n\n1. Introduction\n\nFirst words.\n\n2. Details\n\nLast words."


def test_a_section_ends_where_its_indented_text_does():
    text = f"Request for Comments: 1\n\nAbstract\n\n{wrapped(prose(1, 30))}\n\n{wrapped(prose(2, 60), indent=0)}\n"
    assert clean(text, "", "") == prose(2, 60)


def test_lists_keep_their_items_and_figures_their_lines():
    figure = f"   +{'-' * 60}+\n   |{'to and fro, ' * 5}|\n   |{'fro and to, ' * 5}|\n   +{'-' * 60}+"
    items = wrapped("o  " + "first " * 20) + "\n" + wrapped("o  second")
    text = cleaned(f"{figure}\n\n{items}")
    assert figure.replace("\n   ", "\n").strip() in text
    assert f"o {'first ' * 20}".strip() + "\no second" in text


def test_a_list_of_page_numbers_goes_under_any_heading():
    listed = "\n".join(f"   Figure {i} {'.' * 30} {i}" for i in range(1, 6))
    text = cleaned(f"Figures\n\n{listed}\n\n   See Figure 1.")
    assert text == "A Title\n\n1. Introduction\n\nFigures\n\nSee Figure 1."


def test_a_section_that_never_ends_is_no_boilerplate():
    text = f"Request for Comments: 1\n\nContents\n\n{wrapped(prose(2, 2000))}\n"
    assert words(prose(2, 2000)) in words(clean(text, "", ""))


def test_a_document_of_200_000_words_is_read_in_full():
    body = "\n\n".join(wrapped(prose(i, 200)) for i in range(1000))
    assert len(cleaned(body).split()) == 200_000 + 4  # and title and heading


def test_an_abstract_becomes_plain_text():
    markup = (
        "<p>The &lt;access&gt; tag\r\nof  multi-\r\nhomed hosts.</p><p class='x'>A &amp; B.</p>  [STANDARDS-TRACK]"
    )
    assert plain(markup) == "The <access> tag of multi-homed hosts. A & B."
    assert plain("What it says. This memo provides information for the\nInternet community.") == "What it says."
