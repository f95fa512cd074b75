"""The names of all files that a run writes into its folder, and what becomes of them when another run begins there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from shtopk.training.whole import write_whole

ARGUMENTS, ORIGIN, LOCK = "arguments.yaml", "run.json", ".lock"
CONFIG = "config.json"
MODEL = (CONFIG, "generation_config.json", "model.safetensors", "model-*-of-*.safetensors",
         "model.safetensors.index.json")  # fmt: skip
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
             "added_tokens.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
             "sentencepiece*.model", "*.spm", "bpe.codes", "dict.txt", "emoji.json", "entity_vocab.json")  # fmt: skip
CODE = ("backbone.py", "configuration_topk_pooling.py", "copy_head.py", "inputs.py", "join.py",
        "modeling_topk_pooling.py", "modeling_topk_pooling_seq2seq.py", "outputs.py", "pretrained.py",
        "windows.py")  # fmt: skip
CARD, CHECKPOINTS = "README.md", "checkpoints"
FINISHED = "all_results.json"  # a run that came to its end has it
COURSE, TRACE = ("history.jsonl", "training.png"), "trace.json"  # how training went, from its beginning on
PREDICTIONS, SAMPLES = "predictions.jsonl", "samples.md"
RESULTS = (CARD, FINISHED, PREDICTIONS, SAMPLES, *COURSE, TRACE, "document_[0-9]*.html")
LOGS = ("logs/**/events.out.tfevents.*", "logs/**/hparams.yml")  # TensorBoard's; other trackers keep many runs in one
ASIDE = ".*.partial"  # what a kill left half-written
# Patterns for `Path.glob`, of all but checkpoints and the lock, which have rules of their own. Which of these files a
# run has written stands in its run.json, which comes last: a removal that was cut off is made up for by the next.
WRITTEN = (*MODEL, *TOKENIZER, *CODE, *RESULTS, *LOGS, ASIDE, ARGUMENTS, ORIGIN)


def note(folder: Path, *names: str) -> None:
    """Note in run.json that the run writes files of these names into its folder, before it does. One that cannot be
    read stays as it is.
    """
    record = _record(folder)
    if record is not None:
        record["files"] = sorted({*(_listed(record) or ()), *names})
        write_whole(folder / ORIGIN, json.dumps(record, indent=1) + "\n")


def written(folder: Path) -> list[Path]:
    """The files that a run wrote into its folder and that are there, checkpoints aside; none without a run.json.

    Where run.json has no list of them, as of an older version, files of a model are the run's if a checkpoint has them
    too, or if it came to its end and no checkpoint is left; a card is if it came to its end.
    """
    if not (folder / ORIGIN).is_file():
        return []
    names, there = _listed(_record(folder)), _of_a_run(folder)
    if names is not None:
        logs = {path for pattern in (*LOGS, ASIDE) for path in folder.glob(pattern)}
        return [path for path in there if path in logs or path.name in names]
    models = {path for pattern in (*MODEL, *TOKENIZER, *CODE) for path in folder.glob(pattern)}
    saved = {path.name for path in (folder / CHECKPOINTS).glob("update_*/*")}
    finished = (folder / FINISHED).exists()
    not_its_own = {path for path in models if path.name not in saved and (saved or not finished)}
    return [path for path in there if path not in not_its_own and (finished or path.name != CARD)]


def remove(files: list[Path]) -> None:
    """Remove files, one after the other. Raises OSError for one that cannot be removed."""
    for path in files:
        path.unlink()


def in_the_way(folder: Path) -> str | None:
    """The name of a file that a run would replace, and that no run there wrote; None for none."""
    if holds_a_run(folder) and not (folder / ORIGIN).is_file():
        return None
    own = {*written(folder)}
    return next((path.name for path in _of_a_run(folder) if path not in own), None)


def _record(folder: Path) -> dict[str, Any] | None:
    """The content of run.json; None if it cannot be read."""
    try:
        found = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, RecursionError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _listed(record: dict[str, Any] | None) -> list[str] | None:
    """The names of files that a record lists; None if it has no such list."""
    names = (record or {}).get("files")
    return [str(name) for name in names] if isinstance(names, list) else None


def _of_a_run(folder: Path) -> list[Path]:
    """The files in a folder that have such names as a run's files have, whoever wrote them."""
    found = (path for pattern in WRITTEN for path in sorted(folder.glob(pattern)) if path.is_file())
    return list(dict.fromkeys(found))


def holds_a_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / ORIGIN).is_file() or any((folder / CHECKPOINTS).glob("update_*/manifest.json"))


def is_unused(folder: Path) -> bool:
    """Whether a folder that is there holds nothing, or no more than the lock of a run that never began."""
    return all(path.name == LOCK for path in folder.iterdir())
