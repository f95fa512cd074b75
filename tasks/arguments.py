"""Which data to train on, as fields of a command line."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

FILE_FIELDS = ("train_file", "validation_file", "test_file")
HUB_FIELDS = ("dataset_name", "dataset_config", "dataset_revision")
OWNERS = (  # field -> the task that it belongs to
    dict.fromkeys(FILE_FIELDS, "files") | dict.fromkeys(HUB_FIELDS, "hub") | {"rfc_folder": "rfc"}
)


COLUMNS = {  # problem_type, in transformers' words -> the column that a task's splits have
    "single_label_classification": "label",
    "multi_label_classification": "labels",
    "regression": "value",
}


PROMPT, COMPLETION = "prompt", "completion"  # the usual names of these columns


def option(default, help: str):
    """A field with its default and the help that `--help` shows."""
    return field(default=default, metadata={"help": help})


@dataclass
class DataArguments:
    """The data of a run.

    `task` is filled in from the other fields if it is left out.
    """

    _argument_group_name: ClassVar[str] = "data"
    task: str | None = option(
        None,
        "bbc, needle, pairs, docstrings, rfc, recall, files or hub; by default files with a train_file, hub with a "
        "dataset_name, rfc with an rfc_folder, else bbc",
    )
    dataset_name: str | None = option(None, "data set on the hub, or a folder laid out like one")
    dataset_config: str | None = option(None, "configuration of that data set, where it has several")
    dataset_revision: str | None = option(
        None, "branch, tag or commit of that data set; by default its newest, and run.json says which it was"
    )
    train_file: str | None = option(None, "path of a .json, .jsonl, .csv or .parquet file")
    validation_file: str | None = option(None, "the same for validation; by default a tenth of the training file")
    test_file: str | None = option(None, "the same for the test; by default a fifth of the training file")
    text_column: str = option(
        "text", "column with the documents, or several, title,body, whose texts are joined (files and hub)"
    )
    text_separator: str = option(" ", "what stands between the texts of several columns")
    text_pair_column: str | None = option(
        None,
        "column with a second text for each: the hypothesis to a premise, the document to a question (files and hub)",
    )
    label_column: str = option("label", "column with their classes, labels or numbers (files and hub)")
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] | None = option(
        None,
        "what the label_column holds: a class, any number of labels, or a number for each document; by default labels "
        "where it holds lists, a number where it holds numbers with a fraction (in JSON and Parquet), else a class",
    )
    label_separator: str | None = option(
        None, "what stands between the labels of a document where they are one text, such as | or ,"
    )
    drop_unknown_labels: bool = option(
        False,
        "leave out documents of validation and test with a label that training lacks; by default they are refused",
    )
    summary_column: str | None = option(
        None, "column with their summaries instead of classes; the model is then an encoder-decoder (files and hub)"
    )
    prompt_column: str | None = option(
        None,
        "column with prompts instead of documents; the model is then a causal language model; by default prompt where "
        "there is a completion_column (files and hub)",
    )
    completion_column: str | None = option(
        None,
        "column with what is to follow the prompts; by default completion where there is a prompt_column (files and "
        "hub); a train_file with the columns prompt and completion and without a text_column needs neither",
    )
    rfc_folder: str | None = option(
        None, "folder of the RFC Editor's files, rfcN.json and rfcN.txt; `make rfcs` fetches one"
    )
    max_tokens: int | None = option(
        None,
        "cut documents to so many tokens, >= 1; by default they are read in full; of prompts the end is kept, which "
        "says what is asked",
    )
    max_summary_tokens: int = option(128, "cut summaries to so many tokens, >= 1, and generate no longer ones")
    max_completion_tokens: int = option(128, "cut completions to so many tokens, >= 1, and generate no longer ones")
    max_train_samples: int | None = option(None, "documents to train on at most, >= 1; by default all")
    max_eval_samples: int | None = option(None, "documents of validation and test each at most, >= 1; by default all")
    num_proc: int | None = option(None, "processes that tokenise, >= 1; by default one, with a thread for each core")
    needle_tokens: int = option(2000, "length of a needle document, >= 200 wordpieces")
    data_seed: int = option(
        0,
        "seed of what is drawn: splits that files and hub lack, needle documents, max_*_samples; others are fixed",
    )

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns of the documents, or the one of the prompts."""
        return (self.prompt_column,) if self.prompt_column else names_in(self.text_column)

    @property
    def answer(self) -> str | None:
        """What files and hub are answered with: "label", "labels", "value", "summary" or "completion"; None if the
        data decides.
        """
        if self.completion_column:
            return "completion"
        if self.summary_column:
            return "summary"
        if self.problem_type is None and self.label_separator is not None:
            return "labels"
        if self.problem_type is None:
            return None if self.task in ("files", "hub") else "label"
        return COLUMNS[self.problem_type]

    @property
    def answer_field(self) -> str:
        """The name of the field that names the column of answers."""
        named = (name for name in ("completion_column", "summary_column") if getattr(self, name))
        return next(named, "label_column")

    def __post_init__(self):
        if self.prompt_column or self.completion_column:
            self.prompt_column = self.prompt_column or PROMPT
            self.completion_column = self.completion_column or COMPLETION
        if self.task is None:
            owners = {owner for name, owner in OWNERS.items() if getattr(self, name)}
            self.task = next((task for task in ("files", "hub", "rfc") if task in owners), "bbc")


def names_in(text: str) -> tuple[str, ...]:
    """The names in a list with commas between.

    Example:
        >>> names_in("title, body")
        ('title', 'body')
    """
    return tuple(name.strip() for name in text.split(",") if name.strip())
