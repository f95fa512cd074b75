"""What a task can be told: plain fields, which train.py puts on its command line."""

from dataclasses import dataclass, field
from typing import ClassVar


def _option(default, help):
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    _argument_group_name: ClassVar[str] = "data"
    task: str = _option("bbc", "bbc, needle, files (local JSON, CSV or parquet) or hub (a data set by name)")
    train_file: str | None = _option(None, "task files: .json, .jsonl, .csv or .parquet with the training documents")
    validation_file: str | None = _option(None, "the same for validation; by default a tenth of the training file")
    test_file: str | None = _option(None, "the same for the test; by default a fifth of the training file")
    dataset_name: str | None = _option(None, "task hub: name of a data set on the hub, or a folder in its format")
    dataset_config: str | None = _option(None, "task hub: configuration of the data set")
    text_column: str = _option("text", "tasks files and hub: column of the documents (text)")
    label_column: str = _option("label", "tasks files and hub: column of the classes (text or whole numbers)")
    max_train_samples: int | None = _option(None, "documents to train on, drawn evenly from the classes; all by default")
    max_eval_samples: int | None = _option(None, "documents of validation and of test to evaluate on, likewise")
    needle_tokens: int = _option(2000, "task needle: about how long a document is (word pieces)")
