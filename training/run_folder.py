"""The names of all files that a run writes into its folder, and what becomes of them when another run begins there."""

from __future__ import annotations

from pathlib import Path

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
RESULTS = (CARD, FINISHED, "history.jsonl", "predictions.jsonl", "samples.md", "training.png",
           "trace.json", "document_[0-9]*.html")  # fmt: skip
LOGS = ("logs/**/events.out.tfevents.*", "logs/**/hparams.yml")  # TensorBoard's; other trackers keep many runs in one
ASIDE = ".*.partial"  # what a kill left half-written
# Patterns for `Path.glob`, of all but checkpoints and the lock, which have rules of their own. run.json comes last: a
# removal that was cut off is made up for by the next.
WRITTEN = (*MODEL, *TOKENIZER, *CODE, *RESULTS, *LOGS, ASIDE, ARGUMENTS, ORIGIN)


def clear(folder: Path) -> None:
    """Remove what an earlier run left in a folder, its checkpoints aside.

    Files that no run writes stay. So does everything where there is no run.json, as no run was there.

    Raises:
        OSError: a file cannot be removed.
    """
    if not (folder / ORIGIN).is_file():
        return
    for pattern in WRITTEN:
        for path in [path for path in folder.glob(pattern) if path.is_file()]:
            path.unlink()


def in_the_way(folder: Path) -> str | None:
    """The name of a file, in a folder without a run, that a run would replace; None for none."""
    if holds_a_run(folder):
        return None
    return next((path.name for pattern in WRITTEN for path in folder.glob(pattern) if path.is_file()), None)


def holds_a_run(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / ORIGIN).is_file() or any((folder / CHECKPOINTS).glob("update_*/manifest.json"))


def is_unused(folder: Path) -> bool:
    """Whether a folder that is there holds nothing, or no more than the lock of a run that never began."""
    return all(path.name == LOCK for path in folder.iterdir())
