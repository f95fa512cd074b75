"""RFCs: splits that share nothing, and every unusable file counted."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
from made_up_rfcs import prose, published, words, wrapped, write

from shtopk.tasks.rfc import check, read

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty RFCs, every seventh zipped, half of them in a sub-folder; some replace or resemble each other."""
    folder = tmp_path_factory.mktemp("rfc")
    for i in range(1, 41):
        write(folder / ("old" if i % 2 else "new"), i, zipped=i % 7 == 0)
    write(folder, 101, facts={"obsoletes": ["RFC1", " RFC0002"]})
    write(folder, 102, facts={"obsoletes": ["RFC555", "NIC4"]})  # a text that is not there links these two
    write(folder, 103, facts={"obsoleted_by": ["RFC555"]})
    write(folder, 104, abstract=prose(3, 40))
    write(folder, 105, abstract=prose(4, 40) + " And a little more.")
    return folder


def test_no_summary_is_in_two_splits(folder):
    data = read(folder)
    assert {name: len(split) for name, split in data.items()} == {"train": 37, "validation": 4, "test": 4}
    rows = [(name, set(words(row["summary"]).split())) for name, split in data.items() for row in split]
    for name, summary in rows:
        for other, others in rows:
            assert name == other or len(summary & others) < 0.6 * len(summary | others)
    for split in data.values():
        assert all(words(row["summary"]) not in words(row["text"]) for row in split)


def test_rfcs_that_replace_each_other_are_in_one_split(tmp_path):
    # Of every ten numbers 0, 1 and 2 are usable. 1 replaces 8, which is not there. 2 replaces 1, and 9, which has no
    # abstract, says that 0 replaced it and that 2 did too.
    for chain in range(1000, 1300, 10):
        write(tmp_path, chain)
        write(tmp_path, chain + 1, facts={"obsoletes": [f"RFC{chain + 8}"]})
        write(tmp_path, chain + 2, facts={"obsoletes": [f"RFC{chain + 1}"]})
        write(tmp_path, chain + 9, abstract="", facts={"obsoleted_by": [f"RFC{chain}", f"RFC{chain + 2}"]})
    split_of = {row["summary"][:20]: name for name, split in read(tmp_path).items() for row in split}
    assert len(set(split_of.values())) == 3
    for chain in range(1000, 1300, 10):
        assert len({split_of[prose(chain + i, 40)[:20]] for i in range(3)}) == 1


def test_the_splits_depend_on_the_files_alone(folder, tmp_path):
    for path in sorted(folder.rglob("rfc*"), reverse=True):
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    one, other = read(folder), read(tmp_path)
    assert {name: split.to_dict() for name, split in one.items()} == {name: s.to_dict() for name, s in other.items()}


def test_what_cannot_be_used_is_skipped_and_counted(tmp_path, capsys):
    for i in range(1, 12):
        write(tmp_path, i, zipped=i == 1)
    for i in (21, 22, 24):
        write(tmp_path, i)
    (tmp_path / "rfc24.txt").unlink()
    strange = {
        "rfc20.txt": "no JSON",
        "rfc21.json": '{"abstract": "cut of',
        "rfc22.json": "[1]",
        "rfc-index.txt": "no RFC",
    }
    for name, content in strange.items():
        (tmp_path / name).write_text(content)
    write(tmp_path, 23, facts={"abstract": None})
    write(tmp_path, 25, abstract="Too short.")
    write(tmp_path, 26, text="Too short.", facts={"obsoletes": None, "obsoleted_by": 7})
    write(tmp_path, 27, zipped=True)
    (tmp_path / "rfc27.txt.gz").write_bytes((tmp_path / "rfc27.txt.gz").read_bytes()[:-99])
    write(tmp_path, 28, text=random.Random(0).randbytes(10_000))
    write(tmp_path, 29, facts={"title": "Request for Comments Summary"})
    write(tmp_path, 30, facts={"abstract": "\ud800"})
    data = read(tmp_path)
    assert sum(len(split) for split in data.values()) == 11
    assert capsys.readouterr().err.splitlines()[-1] == (
        "rfc: 11 of 22 documents used; 3 with broken JSON, 1 without JSON, 1 without an abstract, 1 without text, "
        "1 with an abstract of under 20 or over 400 words, 1 of under 300 words, 1 with unreadable text, "
        "1 with binary text, 1 that list the abstracts of others"
    )


def test_bytes_that_are_no_utf8_are_read_as_windows_1252(tmp_path):
    for i in range(1, 11):
        text = published("Café", prose(i, 40), wrapped("The “naïve” café. " + prose(-i, 400)))
        write(tmp_path, i, text=text.encode("cp1252") + b"\0" * 99)
    texts = [row["text"] for split in read(tmp_path).values() for row in split]
    assert len(texts) == 10 and all("The “naïve” café." in text and "\0" not in text for text in texts)


UNPAIRED = [  # the files of a folder, None where it is not there, and what the message says
    (None, "expected a folder of rfcN.json and rfcN.txt, found none at {folder}; `make rfcs` fetches one"),
    ([], "expected rfcN.json beside rfcN.txt or rfcN.txt.gz in {folder}, got no such file; try `make rfcs`"),
    (["rfc1.pdf", "a.txt"], "expected rfcN.json beside rfcN.txt or rfcN.txt.gz in {folder}, got no such file"),
    (["rfc1.json", "rfc2.txt", "rfc0003.txt.gz"], "{folder}, got 3 such files, none of which belong together"),
]


@pytest.mark.parametrize(("files", "expected"), UNPAIRED)
@pytest.mark.parametrize("refuse", [check, read])
def test_a_folder_without_pairs_is_refused_in_one_line(files, expected, refuse, tmp_path):
    folder = tmp_path / "rfc"
    if files is not None:
        folder.mkdir()
    for name in files or []:
        (folder / name).write_text("{}")
    with pytest.raises(ValueError) as caught:
        refuse(folder)
    assert expected.format(folder=folder) in str(caught.value) and "\n" not in str(caught.value)


def test_too_few_rfcs_to_split_are_refused(tmp_path):
    write(tmp_path, 1)
    check(tmp_path)
    with pytest.raises(ValueError, match=r"at least 10 usable RFCs in .*, got 1;"):
        read(tmp_path)


def test_fetching_leaves_a_folder_with_files_alone(tmp_path):
    (tmp_path / "mine").write_text("mine")
    script = ROOT / "tasks" / "fetch_rfcs.sh"
    done = subprocess.run(["sh", script, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and f"expected {tmp_path} to be empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
