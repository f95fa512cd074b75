"""python -m shtopk.show CHECKPOINT FILE [--output page.html]"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path


def read_text(path: Path) -> str:
    """The text of a file. Bytes that are not UTF-8 become U+FFFD, and a line on stderr says so."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        print(f"{path} is not valid UTF-8 throughout; such bytes are shown as \ufffd", file=sys.stderr)
        return content.decode("utf-8", errors="replace")


def main(
    argv: Sequence[str] | None = None,
    program: str = "python -m shtopk.show",
    description: str = "See which tokens of a text were kept, and what became of them.",
) -> int:
    """Write a page. Returns the exit code, 2 if the input is refused in one line.

    Args:
        argv: the words of the command line.
        program: the command's name in messages and `--help`.
        description: what `--help` shows first.
    """
    parser = argparse.ArgumentParser(
        prog=program, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
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
        if output.exists() and arguments.overwrite != "true":
            raise ValueError(f"{output} exists; name another page with --output, or replace it with --overwrite true")
        text = read_text(arguments.file)
        texts = text if arguments.pair is None else (text, read_text(arguments.pair))
        try:
            from shtopk.models import load_checkpoint
            from shtopk.models.language_model import completes
            from shtopk.show.answer import answer_and_page
        except ImportError as error:
            raise ValueError(f"{error}; run pip install 'shtopk[train]'") from error

        model, tokenizer = load_checkpoint(arguments.checkpoint)
        if completes(model) and isinstance(texts, str):
            texts = re.sub(r"\r?\n\Z", "", texts)  # which ends a line, and no prompt
        answer, page = answer_and_page(model, tokenizer, texts, title=arguments.file.name)
        try:
            output.write_text(page, encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write {output}: {error.strerror}") from error
    except ValueError as error:
        print(f"{program.removeprefix('python -m ')}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{answer}, see {output}")
    return 0
