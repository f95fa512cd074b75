"""A checkpoint's answers to files or standard input: a line of JSON for each document, in their order.

shtopk predict CHECKPOINT mine.jsonl --output out.jsonl --keep id,url
cat texts | shtopk predict CHECKPOINT -

Files are .json, .jsonl, .csv, .parquet, or .txt, where each line is a document, even an empty one. Documents of
similar length go through the model together, and lines are written as soon as there are answers. With --resume true, a
run that was cut off goes on. A line has the columns to keep; "prediction" (the class, the list of labels, the number,
the summary, or what follows a prompt); "probability" of the class; and on request "probabilities" and "kept". Exit
codes: 0 if all went well, 1 if it failed, 2 if the input was refused; 130, 143 and 141 if Ctrl-C, SIGTERM or a closed
pipe stopped it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from shtopk.tasks.arguments import names_in, option
from shtopk.tasks.columns import Columns
from shtopk.tasks.jsonl import JsonLines
from shtopk.tasks.streams import STDIN, Row, check, count, plain
from shtopk.training.aliases import with_our_names
from shtopk.training.command_line import read
from shtopk.training.console import command, refuse, refusing, speaking_as, tell
from shtopk.training.ending import Terminated, handling, terminate
from shtopk.training.exhaustion import is_out_of_memory, out_of_memory
from shtopk.training.settings import texts_of
from shtopk.training.source import FIELDS, Source, fields_of

if TYPE_CHECKING:  # late: it takes long to import
    from tqdm import tqdm

STDOUT = "-"
FIRST_LINE = "line 1 of standard input"
AGAIN = ("--resume", "--overwrite")  # what the command that goes on has otherwise


@dataclass
class PredictArguments:
    _argument_group_name: ClassVar[str] = "answers"
    output: str = option("-", "file of JSON lines to write; - is standard output")
    overwrite: bool = option(False, "replace the output file if it exists")
    resume: bool = option(False, "go on behind the last whole line of the output file; the input has to be the same")
    text_column: str | None = option(
        None, "column with the documents or prompts; by default that of training, or text"
    )
    text_pair_column: str | None = option(
        None, "column with the second text of a pair; by default that of training, or none"
    )
    keep: str | None = option(None, "columns of the input to copy into each line, with commas between: id,url")
    format: Literal["txt", "jsonl"] = option("txt", "what standard input holds: lines of text, or JSON lines")
    on_error: Literal["refuse", "skip"] = option(
        "refuse", "what to do with a row that cannot be read: stop there, or leave it out"
    )
    probabilities: bool = option(False, "give the probability of every class")
    kept: bool = option(False, "give the tokens that were kept, with their characters and weights")
    batch_size: int = option(16, "documents that go through the model together, >= 1")
    max_tokens: int | None = option(
        None, "cut documents to so many tokens, prompts at their beginning; by default as in training, or not at all"
    )
    mixed_precision: Literal["no", "bf16"] = option("no", "bf16: compute in bfloat16 where that does no harm")


def main(argv: list[str]) -> int:
    """Run `shtopk predict`. Returns the exit code."""
    with speaking_as("shtopk predict"):
        others, (options,) = read(argv, (PredictArguments,), __doc__, positional=_positional)
        with refusing(ValueError):
            _check(others.checkpoint, others.files, options)
            columns, max_tokens = _reading(others.checkpoint, options)
            lines = _output(options)
            for file in others.files:
                check(file, columns, skip=options.on_error == "skip")
        source = Source(others.files, columns, done=lines.done, last=lines.last, lines=options.format,
                        skip=options.on_error == "skip")  # fmt: skip
        try:
            with handling(terminate, signal.SIGTERM), closing(lines):
                _answer(others.checkpoint, max_tokens, source, lines, options)
        except BrokenPipeError:  # `| head`: in silence, as other tools
            return 141
        except KeyboardInterrupt as stop:
            return _end("stopped", lines, argv, 143 if isinstance(stop, Terminated) else 130)
        except OSError as error:
            target = "standard output" if options.output == STDOUT else options.output
            return _end(f"cannot write {target}: {error.strerror or error}", lines, argv, 1)
        except (ArithmeticError, LookupError, MemoryError, RuntimeError, ValueError) as error:  # of any layer below
            if is_out_of_memory(error):
                return _end(f"{out_of_memory(error)}; a smaller --batch_size helps, or --max_tokens", lines, argv, 1)
            reason = " ".join((str(error) or type(error).__name__).split())
            return _end(f"the model failed: {reason[:300]}", lines, argv, 1)
        if source.problem:
            refuse(source.problem)
        if source.skipped:
            tell(f"skipped {source.skipped:,} broken rows, answered {lines.done + lines.written:,}")
        return 0


def _answer(checkpoint: str, max_tokens: int | None, source: Source, lines: JsonLines, options: PredictArguments):
    """Write a line for each document of a source."""
    import torch

    from shtopk.models import ANSWER_NOW, load_checkpoint, predict
    from shtopk.models.checkpoint import quiet

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with refusing(ValueError):
        model, tokenizer = load_checkpoint(checkpoint)
        if options.probabilities and (got := _without_probabilities(model)):
            raise ValueError(f"expected a classifier to give the probabilities of, got {got}; leave them out")
        texts = (ANSWER_NOW if text is None else text for text in _texts(source))
        answers = predict(model.to(device), tokenizer, texts, batch_size=options.batch_size, max_tokens=max_tokens,
                          kept=options.kept)  # fmt: skip
    halves = torch.autocast(device.type, torch.bfloat16, enabled=options.mixed_precision == "bf16")
    with quiet(), halves, _bar(source, lines, options) as bar:
        for answer in answers:
            row = source.waiting.popleft()
            record = {name: plain(row.kept.get(name)) for name in source.columns.keep}
            try:
                lines.add(record | fields_of(answer, probabilities=options.probabilities))
            except ValueError:
                raise ArithmeticError(f"its answer to {row.place} is no finite number") from None
            if not source.waiting:  # the end of a block
                lines.flush()
            bar.update()
        lines.flush()


def _without_probabilities(model: Any) -> str | None:
    """What a model is that has no classes, and so no probabilities of them; None for a classifier."""
    from shtopk.models.answers import NUMBERS, problem_type
    from shtopk.models.language_model import completes

    if model.can_generate():
        return "a language model" if completes(model) else "a summarizer"
    return "a model of regression" if problem_type(model.config) == NUMBERS else None


def _texts(source: Source) -> Iterator[str | tuple[str, str] | None]:
    """The texts of a source. Says so if standard input is read as lines of text, and its first is a JSON object."""
    for text in source.texts():
        if text is not None and source.lines == "txt" and _begins_with_json(source.waiting[-1]):
            tell(f"{FIRST_LINE} is a JSON object, and is answered as text; for JSON lines give --format jsonl")
        yield text


def _begins_with_json(row: Row) -> bool:
    """Whether a row is the first line of standard input, and a JSON object."""
    try:
        return row.place == FIRST_LINE and isinstance(json.loads(row.text), dict)
    except (RecursionError, ValueError):
        return False


def _check(checkpoint: str, files: Sequence[str], options: PredictArguments) -> None:
    """Raise ValueError for arguments that cannot work, as far as that shows without reading a file."""
    if not Path(checkpoint).is_dir():
        found = "a file" if Path(checkpoint).exists() else "none"
        raise ValueError(f"expected a folder with a checkpoint, found {found}: {checkpoint}")
    for name in ("batch_size", "max_tokens"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise ValueError(f"expected {name} >= 1, got {value}")
    if files.count(STDIN) > 1:
        raise ValueError("expected standard input, -, once; got it several times")
    if options.overwrite and options.resume:
        raise ValueError("expected overwrite or resume, got both; leave one of them out")
    if options.resume and options.output == STDOUT:
        raise ValueError("expected an output file to resume, got none; give it with --output")
    output = Path(options.output)
    if same := [file for file in files if output.exists() and Path(file).exists() and output.samefile(file)]:
        raise ValueError(f"expected an output other than the input, got {same[0]} for both")


def _output(options: PredictArguments) -> JsonLines:
    if options.output != STDOUT:
        return JsonLines(options.output, overwrite=options.overwrite, resume=options.resume)
    if sys.stdout is None:
        raise ValueError("expected somewhere to write to, but standard output is closed; give --output")
    return JsonLines(1)


def _reading(checkpoint: str, options: PredictArguments) -> tuple[Columns, int | None]:
    """What to read of a row, and how many tokens of its text: as in the checkpoint's training, if nothing else is
    given.
    """
    columns, most = texts_of(checkpoint)
    keep = tuple(dict.fromkeys(names_in(options.keep or "")))
    if taken := [name for name in keep if name in FIELDS]:
        raise ValueError(f"expected columns to keep other than {', '.join(FIELDS)}, got {taken[0]}; rename it")
    text = names_in(options.text_column) if options.text_column else columns.text
    pair = options.text_pair_column or columns.pair
    return replace(columns, text=text, pair=pair, keep=keep), options.max_tokens or most


def _bar(source: Source, lines: JsonLines, options: PredictArguments) -> tqdm:
    """A progress bar, if somebody looks at stderr and the answers do not go to the same screen."""
    from tqdm import tqdm

    hidden = not sys.stderr.isatty() or (options.output == STDOUT and os.isatty(1))
    counts = [] if hidden else [count(file) for file in source.files]
    total = None if None in counts else sum(filter(None, counts))
    return tqdm(total=total, initial=lines.done, desc="predict", unit=" documents", disable=hidden)


def _positional(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="folder of a classifier, a summarizer or a language model")
    parser.add_argument("files", nargs="+", metavar="FILE", help="documents; - is standard input")


def _end(why: str, lines: JsonLines, argv: Sequence[str], code: int) -> int:
    """Say why it ended, how much is written, and the command that goes on."""
    line = f"{why}; answers written: {lines.done + lines.written:,}"
    if not isinstance(lines.target, int):
        words = with_our_names(list(argv))
        again = [word for word, before in zip(words, ["", *words], strict=False)
                 if not word.startswith(AGAIN) and (before not in AGAIN or word.startswith("-"))]  # fmt: skip
        line += f"; go on with: {command([*again, '--resume', 'true'])}"
    tell(line)
    return code
