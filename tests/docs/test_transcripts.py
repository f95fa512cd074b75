"""What follows the pages notices where a page is wrong."""

import sys

import pytest
from code_blocks import blocks, fenced, run
from shell_lines import check_lines
from transcripts import transcript


@pytest.fixture
def written(here):
    """A page of one block."""

    def write(code, language="console"):
        path = here / "page.md"
        path.write_text(f"# Page\n\n```{language}\n{code}\n```\n")
        return path

    return write


@pytest.mark.parametrize("code", [
    "$ shtopk --version\nshtopk ...",
    "$ shtopk configs bbc > bbc.yaml\n$ head -n 2 bbc.yaml | tail -n 1\noutput_dir: runs/bbc",
    "$ shtopk configs bbc \\\n    bbc.yaml   # copies it\nbbc.yaml: shtopk train --config bbc.yaml",
    "$ shtopk train --k 0\nshtopk train: expected k ...",
    "$ python -c 'print(1)'\n1",
])  # fmt: skip
def test_a_transcript_that_is_right_is_followed(code, written, here):
    transcript(written(code), here)


@pytest.mark.parametrize("code", [
    "$ shtopk --version\n0.0",
    "$ shtopk --version",  # prints something
    "$ shtopk configs bcb\n...",  # fails, and the page does not say so
    "$ cat nothing.txt\n...",
    "$ python -c 'print(1)'\n2",
])  # fmt: skip
def test_a_transcript_that_is_wrong_is_found(code, written, here):
    with pytest.raises(AssertionError):
        transcript(written(code), here)


def test_standard_input_comes_through_a_pipe(written, here, monkeypatch):
    monkeypatch.setattr("shtopk.commands.env.main", lambda words: print(sys.stdin.readline()))
    transcript(written("$ head -n 1 page.md | shtopk env\n# Page"), here)


def test_python_and_commands_take_turns(here):
    (here / "page.md").write_text(
        "```python\nopen('a.txt', 'w').write('one')\nx = 1\n```\n```console\n$ cat a.txt\none\n```\n"
        "```python\n>>> x + y\n3\n\n```\n```sh\nrm everything\n```\n"
    )
    assert transcript(here / "page.md", here, y=2)["x"] == 1
    assert [block.language for block in fenced(here / "page.md")] == ["python", "console", "python", "sh"]


def test_lines_typed_at_the_prompt_have_to_print_what_stands_there(written):
    with pytest.raises(AssertionError):
        run(blocks(written(">>> 1 + 1\n3\n", "python")))


@pytest.mark.parametrize("line", [
    "shtopk train --train_file my.jsonl --k 64    # a comment",
    "shtopk train --config configs/bbc.yaml --resume latest",
    "python train.py --config configs/rfc-small.yaml --num_train_epochs 2",
    "shtopk evaluate runs/latest --test_file new.csv",
    "shtopk sweep runs/latest --k 4,0.1",
    "shtopk compare --train_file my.csv --text_column body --label_column topic --operators first --k 2 --seeds 0",
    "cat texts.txt | shtopk predict runs/latest - --keep id",
    "shtopk show runs/latest article.txt --output page.html",
    "shtopk configs bbc mine.yaml && shtopk train --config mine.yaml",
    "accelerate launch --num_processes 2 -m shtopk train --k 8",
    "A=1 torchrun --nproc_per_node 2 train.py --k 8",
    "pip install 'shtopk[train]' --quiet",
    "make rfcs",
])  # fmt: skip
def test_commands_that_can_be_are_accepted(line, here):
    assert check_lines(line, here)


@pytest.mark.parametrize("line", [
    "shtopk train --train_fiel my.jsonl",
    "shtopk train --k 0",
    "shtopk train --config configs/bcb.yaml",
    "shtopk trian",
    "python train.py --epochs none",
    "python benchmarks/none.py",
    "shtopk evaluate runs/latest --splits test",
    "shtopk sweep runs/latest --k none",
    "shtopk compare --operators last",
    "shtopk predict runs/latest a.docx",
    "shtopk show runs/latest",
    "shtopk configs bcb",
    "accelerate launch --num_process 2 train.py",
    "accelerate launch --config_file configs/accelerate/none.yaml train.py",
    "accelerate launch -m shtopk train --k none",
    "torchrun --nproc 2 train.py --nothing",
    "pip install 'shtopk[none]'",
    "make nothing",
    "curl https://example.org",
])  # fmt: skip
def test_commands_that_cannot_be_are_found(line, here):
    with pytest.raises((AssertionError, SystemExit)):
        check_lines(line, here)
