"""Any data set that `datasets.load_dataset` knows by name, or a folder laid out like one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shtopk.tasks.arguments import HUB_FIELDS, DataArguments
from shtopk.tasks.columns import assemble, clean, pick
from shtopk.tasks.task import of_any_rows

if TYPE_CHECKING:  # late: it takes long to import
    from datasets import Dataset, DatasetDict

NAMES = {"train": ("train",), "validation": ("validation", "valid", "dev", "val"), "test": ("test",)}


def check(arguments: DataArguments) -> None:
    """Raise ValueError if there is no dataset_name. Whether the hub has it shows when it is loaded."""
    if not arguments.dataset_name:
        raise ValueError("expected a dataset_name for the task hub, got none; give one with --dataset_name")


def read(arguments: DataArguments) -> DatasetDict:
    """The splits of the data set. A split that is missing or has no answers is drawn, see `assemble`."""
    name, found = arguments.dataset_name, _load(arguments)
    splits, sources = {}, {}
    order: tuple[str, ...] = ()
    for split, names in NAMES.items():
        key = next((other for other in names if other in found), None)
        sources[split] = f"{name} ({key or 'train'})"
        if key is None:
            continue
        part = found[key]
        target = pick(part.column_names, arguments, sources[split])
        answers, order = _answers(part, target)
        if split == "train" or any(answer is not None for answer in answers):
            splits[split] = clean(part[arguments.text_column][:], answers, arguments.answer, sources[split])
    if "train" not in splits:
        raise ValueError(f"expected a train split in the data set {name}, got {', '.join(found)}")
    return assemble(splits, arguments.answer, sources=sources, order=order, seed=arguments.data_seed)


def read_alone(arguments: DataArguments, split: str) -> tuple[list[str], list[str]] | None:
    """The texts and answers of a split that the data set has, under whatever name; None if it has none."""
    found = _load(arguments)
    key = next((name for name in (split, *NAMES.get(split, ())) if name in found), None)
    if key is None and split not in NAMES:
        names = ", ".join(found)
        raise ValueError(f"expected a split of the data set {arguments.dataset_name} ({names}), got {split!r}")
    if key is None:
        return None
    part, source = found[key], f"{arguments.dataset_name} ({key})"
    answers, _ = _answers(part, pick(part.column_names, arguments, source))
    if all(answer is None for answer in answers) and split in NAMES:
        return None  # training drew one instead
    return clean(part[arguments.text_column][:], answers, arguments.answer, source)


def _load(arguments: DataArguments) -> DatasetDict:
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    check(arguments)
    name = arguments.dataset_name
    try:
        return load_dataset(name, arguments.dataset_config)
    except Exception as error:  # of the network, the file system or a parser: of many classes
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        lines = str(cause).strip().splitlines() or [type(cause).__name__]
        raise ValueError(f"cannot load the data set {name}: {lines[0]}") from None


def _answers(part: Dataset, column: str) -> tuple[list, tuple[str, ...]]:
    """Summaries or names of classes (None: missing), and the classes in the order of their
    numbers if that is known.
    """
    from datasets import ClassLabel

    answers, feature = part[column][:], part.features[column]
    if not isinstance(feature, ClassLabel):
        return answers, ()
    # -1 stands for a label that is not published.
    named = [feature.names[i] if i is not None and i >= 0 else None for i in answers]
    return named, tuple(feature.names)


HUB = of_any_rows(
    "a data set on the hub",
    name="hub",
    licence="See the data set's card",
    read=read,
    read_alone=read_alone,
    check_source=check,
    fields=HUB_FIELDS,
)
