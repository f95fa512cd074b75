"""The docstring corpus: what counts as a pair, what is left out, and splits that share nothing."""

import gc
import random
import textwrap
from pathlib import Path

import pytest

from shtopk.tasks.docstrings import PACKAGES, Pair, divide, pairs, read, source_files, split, words
from shtopk.tasks.duplicates import Similar, trigrams

SIZES = {"test": 30, "validation": 20}
SUMMARY = "Take the mean of the rows of a table."
BODY = """The mean is taken over the rows that are not masked, and the answer has the dtype of the input. Where every
row is masked the result is zero, since there is nothing that could be divided by.

Args:
    rows: the numbers, one vector a row.
"""


def function(body: str = BODY, head: str = "def average(rows):", summary: str = SUMMARY) -> str:
    """Source of a function with this docstring."""
    docstring = textwrap.indent(f"{summary}\n\n{body}", "    ")
    return f'{head}\n    """{docstring.strip()}\n    """\n'


def found(source: str | bytes) -> list[Pair]:
    return list(pairs(source.encode() if isinstance(source, str) else source))


# Pairs of a file


def test_a_pair_is_the_signature_the_body_and_the_summary():
    assert found(function()) == [Pair("def average(rows):", BODY.strip(), SUMMARY)]


def test_functions_and_classes_at_any_depth_are_read_in_the_order_of_their_lines():
    heads = ["class Table:", "def method(self):", "async def inner():", "def a():", "def b():", "def c():"]
    parts = [function(head=head, summary=f"Take the mean of the rows of {i} tables.") for i, head in enumerate(heads)]
    source = parts[0]
    source += textwrap.indent(parts[1] + textwrap.indent(parts[2], " " * 4), " " * 4)
    source += "if True:\n" + textwrap.indent(parts[3], " " * 4)
    source += "try:\n    pass\nexcept ImportError:\n" + textwrap.indent(parts[4], " " * 4) + parts[5]
    assert [pair.signature for pair in found(source)] == heads


SIGNATURES = {  # with types, defaults and decorators -> with names alone
    "def f(a: int, /, b: str = 'x', *x, c=lambda z: z, d: float, **y) -> None:": "def f(a, /, b, *x, c, d, **y):",
    "async def f(\n    a,  # why\n    *,\n    b=1,\n):": "async def f(a, *, b):",
    "@decorator(1)\nclass A(Base, other.Base, metaclass=Meta):": "class A(Base, other.Base):",
    "class A:": "class A:",
}


@pytest.mark.parametrize("head", SIGNATURES)
def test_a_signature_has_names_alone(head):
    assert [pair.signature for pair in found(function(head=head))] == [SIGNATURES[head]]


def test_a_raw_docstring_is_read_and_its_neighbours_that_have_none_are_not():
    source = function().replace('"""', 'r"""', 1).replace("are not masked", r"are not \masked")
    source += "def g():\n    pass\n\nx = '''" + BODY + "'''\n"
    (pair,) = found(source)
    assert r"are not \masked" in pair.body


NO_PYTHON = {
    "empty": b"",
    "mark": b"\xef\xbb\xbf",
    "syntax": b"def f(:\n" + function().encode(),
    "latin1": function().replace("mean", "m\xe9an").encode("latin1"),
    "null": function().encode() + b"\0",
}


@pytest.mark.parametrize("name", NO_PYTHON)
def test_what_is_no_python_in_utf8_has_no_pairs(name):
    assert found(NO_PYTHON[name]) == []


def test_umlauts_marks_and_lone_surrogates_do_no_harm():
    source = function().replace("The mean", "Über \\ud800 the mean")
    (pair,) = found(b"\xef\xbb\xbf" + source.encode())
    assert pair.body.startswith("Über  the mean")


# Summary and body


DOCSTRINGS = {  # -> body and summary
    "Sort the rows.\n\nIn place.": ("In place.", "Sort the rows."),
    "Sort the\nrows.": ("", "Sort the rows."),
    "Sort the rows. Ties keep\ntheir order.": ("Ties keep their order.", "Sort the rows."),
    "Sort the rows, e.g. Of a table.": ("", "Sort the rows, e.g. Of a table."),
    "Sort the rows.\nArgs:\n    rows: many.": ("Args:\n    rows: many.", "Sort the rows."),
    "Sort the rows.\n:param rows: many.": ("rows: many.", "Sort the rows."),
    "Sort the rows.\n- fast": ("- fast", "Sort the rows."),
    "Sort :class:`~a.Rows`, ``x`` and [`Y`].": ("", "Sort a.Rows, x and Y."),
}


@pytest.mark.parametrize("docstring", DOCSTRINGS)
def test_the_summary_is_the_first_sentence_and_the_body_the_rest(docstring):
    assert divide(docstring) == DOCSTRINGS[docstring]


def test_examples_references_code_and_markup_are_left_out():
    body, _ = divide(
        textwrap.dedent("""\
            Sort the rows.

            .. versionadded:: 1.0
               Or later.

            .. note::
               Ties keep their order [1]_.

            > [!TIP]
            > See the [guide](https://example.org).

            ```python
            sort()

            sort()
            ```

            Parameters
            ----------
            rows : array
                What to sort.

            >>> sort()
            3

            See Also
            --------
            argsort : indices

            Returns
            =======
            The sorted rows.

            Examples
            --------
            Two rows:

            >>> sort([2, 1])

            References
            ----------
            .. [1] Knuth.
            """)
    )
    lines = [line.strip() for line in body.splitlines() if line.strip()]
    assert lines[:2] == ["Ties keep their order.", "See the guide."]
    assert lines[2:] == ["Parameters:", "rows : array", "What to sort.", "Returns:", "The sorted rows."]


def test_a_long_body_ends_with_the_last_paragraph_that_fits():
    body, _ = divide("Sort the rows.\n\n" + "\n\n".join(f"word{i} " * 100 for i in range(4)))
    assert len(body.split()) == 300 and "word3" not in body


NO_SUMMARIES = [
    "Means.",
    "Take the mean " + "of the rows " * 10 + "of it.",
    "take the mean of the rows of a table.",
    "Take the mean of the rows of a table",
    "Deprecated: take the mean of the rows of a table.",
    "See the other mean of rows.",
    "Mean(rows) is the mean of rows.",
    "Take the mean of the rows, x = y.",
    "Take the mean of the rows \\\\alpha times.",
    "Take the mean of the rows \\a few times.",
    "Take the mean of the rows of thé table.",
    "Parse dates without zones quickly.",
    "The mean is taken over the rows that are not masked.",
    "THE MEAN is taken,  over the rows!",
]


@pytest.mark.parametrize("summary", NO_SUMMARIES)
def test_what_is_no_summary_or_stands_in_the_body_makes_no_pair(summary):
    assert found(function()) and not found(function(summary=summary))


@pytest.mark.parametrize("body", ["Short.", "This is deprecated. " + BODY, "Examples:\n" + BODY])
def test_a_body_without_content_makes_no_pair(body):
    assert not found(function(body))


# Files


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that must not be imported, with tests and others' code."""
    monkeypatch.syspath_prepend(tmp_path)
    for name in ["__init__", "a", "b", "sub/c", "tests/d", "test_e", "sub/f_test", "conftest", "_vendor/g", "latest"]:
        path = tmp_path / "unimportable" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"raise RuntimeError\n{function(summary=f'Take the mean of the rows of {name}.')}")
    return "unimportable"


def test_tests_and_vendored_code_are_not_read_and_nothing_is_run(package):
    found = {path for path, _ in source_files([package])}
    assert found == {f"{package}/{name}.py" for name in ("__init__", "a", "b", "sub/c", "latest")}
    # Their bodies are the same, so one pair is left, and nothing is near it.
    assert sum(len(part) for part in read(packages=[package]).values()) == 1


def test_the_order_of_files_is_not_that_of_the_disk(package, monkeypatch):
    first = source_files([package])
    find = Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(find(self, pattern), reverse=True))
    assert source_files([package]) == first
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: sorted(find(self, pattern)))
    assert source_files([package]) == first != sorted(first)


# Splits


def pair(body: str, summary: str) -> Pair:
    return Pair("def f():", body, summary)


def test_only_pairs_without_a_near_duplicate_are_held_out():
    alone = pair("a b c d e f", "Find the one.")
    files = [
        [pair("g h i j k l", "Sort all rows."), pair("m n o p q r", "Count all of the words."), alone],
        [pair("s t u v w x", "Count all of the words quickly.")],  # a near summary
        [pair("0 g h i j k l 1", "Another thing.")],  # a near body
        [pair("2 3 4 5 6", "Unlike the rest.")],
    ]
    splits = split(files, {"test": 1, "validation": 0})
    assert splits["test"] == [alone] and not splits["validation"]
    assert splits["train"] == [pair for file in files[1:] for pair in file]


def test_a_summary_and_a_body_count_once():
    files = [[pair("a b c", "One."), pair("A, b c!", "Two.")], [pair("d e f", "one"), pair("g h i", "Three.")]]
    assert split(files, {})["train"] == [pair("a b c", "One."), pair("g h i", "Three.")]


def test_no_file_gives_more_than_its_share_of_a_held_out_split():
    files = [[pair(f"a{f}{i} b{f}{i} c{f}{i}", f"x{f}{i}") for i in range(30)] for f in range(4)]
    splits = split(files, {"test": 15, "validation": 3})
    assert splits["test"] == files[0][:10] + files[1][:5]
    assert splits["validation"] == files[2][:3] and splits["train"] == files[3]


@pytest.mark.parametrize("least", [0.25, 0.3, 0.6, 1.0])
def test_every_similar_set_is_found(least):
    draw = random.Random(0)
    sets = [{int(12 * draw.random() ** 2) for _ in range(draw.randint(0, 8))} for _ in range(150)]
    similar = Similar(sets, least)
    for i, one in enumerate(sets):
        near = {j for j, other in enumerate(sets) if one and len(one & other) >= least * len(one | other)}
        assert similar.to(i) == near - {i}


def test_trigrams_of_few_words_are_the_words():
    assert trigrams([]) == set()
    assert trigrams(["a"]) == {("a",)} and trigrams(["a", "b"]) == {("a", "b")}
    assert trigrams(list("abcd")) == {("a", "b", "c"), ("b", "c", "d")}


# The real corpus, without the largest libraries


@pytest.fixture(scope="module")
def data():
    large = {"pandas", "scipy", "sympy", "torch", "transformers"}
    return read(packages=[name for name in PACKAGES if name not in large], sizes=SIZES)


@pytest.mark.slow
def test_the_corpus_has_the_splits_and_columns_that_were_promised(data):
    assert list(data) == ["train", "validation", "test"]
    assert {name: len(part) for name, part in data.items() if name != "train"} == SIZES
    assert len(data["train"]) > 2000
    for part in data.values():
        assert part.column_names == ["text", "summary"]
        for row in part:
            head, _, body = row["text"].partition("\n")
            assert head.startswith(("def ", "async def ", "class ")) and head.endswith(":")
            assert 30 <= len(body.split()) <= 300
            assert 3 <= len(row["summary"].split()) <= 30 and row["summary"][-1] in ".!?"
            assert ">>" not in row["text"]


@pytest.mark.slow
def test_no_summary_stands_in_its_own_text_or_in_another_place(data):
    rows = [row for part in data.values() for row in part]
    summaries = [" ".join(words(row["summary"])) for row in rows]
    for row, summary in zip(rows, summaries, strict=True):
        assert summary not in " ".join(words(row["text"])), row
    assert len(set(summaries)) == len(summaries)


@pytest.mark.slow
def test_no_held_out_pair_has_a_near_duplicate_in_another_split(data):
    """By comparing all with all, without the index."""
    parts = [(name, *row["text"].partition("\n"), row["summary"]) for name, part in data.items() for row in part]
    rows = [(name, trigrams(words(body)), set(words(summary))) for name, _, _, body, summary in parts]
    for name, body, summary in rows:
        if name != "train":
            for other, other_body, other_summary in rows:
                if other != name:
                    assert len(body & other_body) < 0.25 * len(body | other_body)
                    assert len(summary & other_summary) < 0.6 * len(summary | other_summary)


@pytest.mark.slow
def test_reading_again_gives_the_same_and_leaves_the_garbage_collector_on(data):
    small = ["joblib", "fsspec"]
    first, again = read(packages=small, sizes=SIZES), read(packages=small[::-1], sizes=SIZES)
    assert all(first[name].to_dict() == again[name].to_dict() for name in first)
    assert gc.isenabled()
