"""A page that shows which tokens of a document or a prompt were kept, and what became of them.

shtopk show CHECKPOINT document.txt [--output page.html]

The text is read as `shtopk predict` reads one: cut as in the checkpoint's training, without a byte order mark and the
end of its last line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

PROGRAM = "shtopk show"


class Training(NamedTuple):
    """How the training of a model read its texts.

    Attributes:
        max_tokens: to how many tokens they were cut; None: not at all, or nobody knows.
        pairs: whether they were pairs; None: nobody knows.
    """

    max_tokens: int | None = None
    pairs: bool | None = None

    def check(self, pair: bool) -> None:
        """Raise ValueError if two texts are given where the model was trained on single ones, or the other way."""
        if self.pairs and not pair:
            raise ValueError("expected a pair, as in the model's training, got one text; give the second with --pair")
        if pair and self.pairs is False:
            raise ValueError("expected one text, as in the model's training, got a pair; leave out --pair")


def training_of(checkpoint: str) -> Training:
    """How a checkpoint's training read its texts.

    Raises:
        ValueError: its arguments.yaml is not what `train.py` wrote.
    """
    from shtopk.training.settings import settings_of, texts_of

    columns, most = texts_of(checkpoint)
    return Training(most, columns.pair is not None if settings_of(checkpoint) else None)


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark and the end of its last line.

    Bytes that are not UTF-8 become U+FFFD, and a line on stderr says so.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        print(f"{path} is not valid UTF-8 throughout; such bytes are shown as \ufffd", file=sys.stderr)
        text = content.decode("utf-8-sig", errors="replace")
    return text.removesuffix("\n").removesuffix("\r")


def check_page(output: Path, overwrite: bool, *texts: Path) -> None:
    """Raise ValueError, before a model is loaded, if a page cannot be written or would replace a text it shows."""
    if not output.parent.is_dir():
        raise ValueError(f"cannot write {output}: {output.parent} is no folder")
    if not output.exists():
        return
    if any(text.exists() and output.samefile(text) for text in texts):
        raise ValueError(f"{output} is the text itself; name another page with --output")
    if not overwrite:
        raise ValueError(f"{output} exists; name another page with --output, or replace it with --overwrite true")


def main(argv: Sequence[str] | None = None) -> int:
    """Write a page. Returns the exit code, 2 if the input is refused in one line."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", help="folder of a classifier, a summarizer or a language model")
    parser.add_argument("file", type=Path, help="the document or the prompt, a text file")
    parser.add_argument("--pair", type=Path, help="the second text, for a model of pairs: a text file")
    parser.add_argument(
        "--output", type=Path, help="page to write; by default the name of FILE with .html, in this folder"
    )
    parser.add_argument(
        "--overwrite",
        nargs="?",
        const="true",
        default="false",
        choices=("true", "false"),
        help="replace a page that exists",
    )
    arguments = parser.parse_args(argv)
    output = arguments.output or Path(arguments.file.stem + ".html")
    try:
        check_page(output, arguments.overwrite == "true", *(path for path in (arguments.file, arguments.pair) if path))
        training = training_of(arguments.checkpoint)
        training.check(arguments.pair is not None)
        text = read_text(arguments.file)
        texts = text if arguments.pair is None else (text, read_text(arguments.pair))
        try:
            from shtopk.models import load_checkpoint
            from shtopk.show.answer import answer_and_page
            from shtopk.training.console import speaking_as
            from shtopk.training.ending import one_line_at_the_end
        except ImportError as error:
            raise ValueError(f"{error}; run pip install 'shtopk[train]'") from error

        with speaking_as(PROGRAM), one_line_at_the_end([], trains=False):
            model, tokenizer = load_checkpoint(arguments.checkpoint)
            answer, page = answer_and_page(
                model, tokenizer, texts, title=arguments.file.name, max_tokens=training.max_tokens
            )
        try:
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write {output}: {error.strerror}") from error
    except ValueError as error:
        print(f"{PROGRAM}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{answer}, see {output}")
    return 0
