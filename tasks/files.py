"""Documents from local files, or from a data set on the hub, with the columns that the user names."""

from pathlib import Path

from datasets import ClassLabel, DatasetDict, load_dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from tasks.arguments import DataArguments
from tasks.metrics import classification_metrics
from tasks.splits import TEST, VALIDATION, as_dataset, stratified_split
from tasks.task import Task

FORMATS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}


def given_files(arguments: DataArguments) -> dict[str, Path]:
    named = {"train": arguments.train_file, "validation": arguments.validation_file, "test": arguments.test_file}
    return {split: Path(name) for split, name in named.items() if name}


def check_files(arguments: DataArguments) -> None:
    files = given_files(arguments)
    if "train" not in files:
        raise ValueError("task files needs --train_file")
    for split, path in files.items():
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"expected {split}_file to end in {', '.join(FORMATS)}; got {path}")
        if not path.is_file():
            raise ValueError(f"{split}_file {path} does not exist")
        if path.stat().st_size == 0:
            raise ValueError(f"{split}_file {path} is empty")


def check_hub(arguments: DataArguments) -> None:
    if not arguments.dataset_name:
        raise ValueError("task hub needs --dataset_name")


def load_files(arguments: DataArguments) -> DatasetDict:
    return _prepare({split: _read(path) for split, path in given_files(arguments).items()}, arguments)


def load_hub(arguments: DataArguments) -> DatasetDict:
    name = arguments.dataset_name
    try:
        found = load_dataset(name, arguments.dataset_config)
    except (DatasetNotFoundError, DatasetGenerationError, ValueError, OSError) as error:
        raise ValueError(f"cannot load the data set {name}: {_cause(error)}") from error
    if "train" not in found:
        raise ValueError(f"expected a split named train in the data set {name}, found {', '.join(found)}")
    splits = {split: found[split] for split in ("train", "validation", "test") if split in found}
    return _prepare({split: (f"{name} ({split})", rows) for split, rows in splits.items()}, arguments)


def _read(path: Path):
    """(name, rows) of one file."""
    kind = FORMATS[path.suffix.lower()]
    if kind != "parquet":
        try:
            with path.open(encoding="utf-8") as file:
                for _ in file:
                    pass
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not valid UTF-8 (near byte {error.start}); convert it first") from error
    try:
        rows = load_dataset(kind, data_files=str(path), split="train", keep_in_memory=True)
    except Exception as error:  # each reader has errors of its own
        raise ValueError(f"cannot read {path} as {kind}: {_cause(error)}") from error
    return str(path), rows


def _prepare(splits: dict, arguments: DataArguments) -> DatasetDict:
    """Check the columns, number the classes by the training split, and fill in the splits that are missing."""
    text, label = arguments.text_column, arguments.label_column
    columns = {}
    for split, (name, rows) in splits.items():
        for column, option in ((text, "text_column"), (label, "label_column")):
            if column not in rows.column_names:
                raise ValueError(
                    f"expected a column {column!r} in {name}, found {', '.join(rows.column_names)}; name it by --{option}"
                )
        labels = rows[label]
        if isinstance(rows.features[label], ClassLabel):
            labels = [rows.features[label].int2str(value) if value is not None else None for value in labels]
        texts = rows[text]
        pairs = list(zip(texts, labels, strict=True))
        for number, (document, class_) in enumerate(pairs, start=1):
            if not isinstance(document, str) or class_ is None or isinstance(class_, (float, list, dict)):
                raise ValueError(
                    f"expected text and a class (text or a whole number) in row {number} of {name}, "
                    f"got {type(document).__name__} and {type(class_).__name__}"
                )
        if not pairs:
            raise ValueError(f"expected documents in {name}, found none")
        columns[split] = [(document, str(class_)) for document, class_ in pairs]

    missing = [split for split in ("validation", "test") if split not in columns]
    if missing:
        shares = {split: {"test": TEST, "validation": VALIDATION}[split] for split in missing}
        shares["train"] = 1 - sum(shares.values())
        rows = list(dict.fromkeys(columns["train"]))  # an equal row must not end up on both sides
        parts = stratified_split([t for t, _ in rows], [c for _, c in rows], shares)
        columns |= {split: [rows[index] for index in indices] for split, indices in parts.items()}
    for split, rows in columns.items():
        if not rows:
            raise ValueError(f"too few documents to take a {split} split from; name a file for it by --{split}_file")
    names = sorted({class_ for _, class_ in columns["train"]})
    if len(names) < 2:
        raise ValueError(f"expected at least two classes in the training split, found {', '.join(names)}")
    for split in ("validation", "test"):
        unknown = sorted({class_ for _, class_ in columns[split]} - set(names))
        if unknown:
            raise ValueError(
                f"the {split} split has classes that the training split lacks: {', '.join(unknown[:5])}; "
                f"training has {', '.join(names[:20])}"
            )
    return as_dataset(
        {
            split: {
                "text": [document for document, _ in columns[split]],
                "label": [names.index(class_) for _, class_ in columns[split]],
            }
            for split in ("train", "validation", "test")
        },
        names,
    )


def _cause(error: BaseException) -> str:
    """The innermost message, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300]


FILES = Task(
    name="files",
    description="documents from local files",
    licence="not stated",
    check=check_files,
    load=load_files,
    compute_metrics=classification_metrics,
)
HUB = Task(
    name="hub",
    description="a data set from the hub",
    licence="see the data set's card",
    check=check_hub,
    load=load_hub,
    compute_metrics=classification_metrics,
)
