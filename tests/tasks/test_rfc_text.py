"""The text of an RFC: whole paragraphs, no abstract, no boilerplate, and nothing else lost."""

import pytest
from made_up_rfcs import prose, published, words, wrapped

from shtopk.tasks.rfc import plain
from shtopk.tasks.rfc_text import clean


def test_the_abstract_does_not_stand_in_its_own_document():
    abstract = prose(1, 60)
    changed = abstract.replace(". ", ", as [RFC1] says. ", 2)
    bodies = {
        "its section alone": wrapped(prose(2, 400)),
        "once more as a paragraph": wrapped(prose(2, 200))
        + "\n\n"
        + wrapped(abstract)
        + "\n\n"
        + wrapped(prose(3, 200)),
        "within a paragraph": wrapped(f"{prose(2, 200)} {abstract} {prose(3, 200)}"),
        "with other words": wrapped(prose(2, 200)) + "\n\n" + wrapped(changed) + "\n\n" + wrapped(prose(3, 200)),
        "a second section": wrapped(prose(2, 400)) + "\n\nAbstract\n\n" + wrapped(abstract) + "\n\n2. Details\n",
    }
    for case, body in bodies.items():
        text = clean(published("A Title", abstract, body), "A Title", abstract)
        for sentence in abstract.split(". "):
            assert words(sentence) not in words(text), case
        assert words(prose(2, 200)) in words(text), case


def test_a_sentence_that_text_and_abstract_share_stays():
    sentence = prose(2, 10)
    text = clean(
        published("A Title", f"{prose(1, 30)} {sentence}", wrapped(sentence)), "A Title", prose(1, 30) + sentence
    )
    assert sentence in text


@pytest.mark.parametrize("footer", ["[Page {}]", "{}"])
def test_a_page_break_leaves_no_trace_in_a_paragraph(footer):
    body = prose(2, 900).replace(".", "").title() + "."
    text = clean(published("A Title", prose(1, 30), wrapped(body), footer=footer), "A Title", prose(1, 30))
    assert text == f"A Title\n\n1. Introduction\n\n{body}"


def test_a_page_break_leaves_no_trace_in_a_list():
    items = [f"o  {prose(i, 18)}".lower().replace(".", "") for i in range(60)]  # each of two lines, or three
    body = "\n\n".join(wrapped(item).replace("\n   ", "\n      ") for item in items)
    text = clean(published("A Title", prose(-1, 30), body), "A Title", prose(-1, 30))
    assert text.split("\n\n")[2:] == [item.replace("  ", " ") for item in items]


def test_boilerplate_goes_and_title_headings_and_text_stay():
    body = wrapped("First words.") + "\n\n2. Details\n\n" + wrapped("Last words.")
    text = clean(published("A Title", prose(1, 30), body), "A Title", prose(1, 30))
    assert text == "A Title\n\n1. Introduction\n\nFirst words.\n\n2. Details\n\nLast words."


def test_a_section_ends_where_its_indented_text_does():
    text = f"Request for Comments: 1\n\nAbstract\n\n{wrapped(prose(1, 30))}\n\n{wrapped(prose(2, 60), indent=0)}\n"
    assert clean(text, "", "") == prose(2, 60)


def test_lists_keep_their_items_and_figures_their_lines():
    figure = f"   +{'-' * 60}+\n   |{'to and fro, ' * 5}|\n   |{'fro and to, ' * 5}|\n   +{'-' * 60}+"
    items = wrapped("o  " + "first " * 20) + "\n" + wrapped("o  second")
    text = clean(published("A Title", prose(1, 30), f"{figure}\n\n{items}"), "", "")
    assert figure.replace("\n   ", "\n").strip() in text
    assert f"o {'first ' * 20}".strip() + "\no second" in text


def test_a_list_of_page_numbers_goes_under_any_heading():
    listed = "\n".join(f"   Figure {i} {'.' * 30} {i}" for i in range(1, 6))
    text = clean(
        published("A Title", prose(1, 30), f"Figures\n\n{listed}\n\n   See Figure 1."), "A Title", prose(1, 30)
    )
    assert text == "A Title\n\n1. Introduction\n\nFigures\n\nSee Figure 1."


def test_a_section_that_never_ends_is_no_boilerplate():
    text = f"Request for Comments: 1\n\nContents\n\n{wrapped(prose(2, 2000))}\n"
    assert words(prose(2, 2000)) in words(clean(text, "", ""))


def test_a_document_of_200_000_words_is_read_in_full():
    body = "\n\n".join(wrapped(prose(i, 200)) for i in range(1000))
    text = clean(published("A Title", prose(-1, 30), body), "A Title", prose(-1, 30))
    assert len(text.split()) == 200_000 + 4  # and title and heading


def test_an_abstract_becomes_plain_text():
    markup = (
        "<p>The &lt;access&gt; tag\r\nof  multi-\r\nhomed hosts.</p><p class='x'>A &amp; B.</p>  [STANDARDS-TRACK]"
    )
    assert plain(markup) == "The <access> tag of multi-homed hosts. A & B."
    assert plain("What it says. This memo provides information for the\nInternet community.") == "What it says."
