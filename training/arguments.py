"""How to train, as fields of a command line; and all fields of a training together."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from shtopk.tasks.arguments import DataArguments, option
from shtopk.training.class_weights import BALANCED, read_weights
from shtopk.training.model_arguments import MOST_KEPT, ModelArguments

# Those of Accelerate. Each needs the package of its name.
TRACKERS = ("aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb")


@dataclass
class TrainArguments:
    """How a model is trained, evaluated and saved."""

    _argument_group_name: ClassVar[str] = "training"
    output_dir: str = option("runs/latest", "folder to write the run to")
    overwrite: bool = option(False, "replace what an earlier run left in output_dir")
    dry_run: bool = option(False, "say what would be read and trained, and neither train nor write anything")
    epochs: float = option(3.0, "passes over the training split")
    max_steps: int | None = option(None, "updates to train for, in place of epochs")
    batch_size: int = option(16, "documents per process and micro-batch")
    eval_batch_size: int = option(16, "documents per process when evaluating")
    accumulation: int = option(1, "micro-batches per update")
    learning_rate: float = option(5e-5, "learning rate of the encoder, or of a language model")
    decoder_learning_rate: float | None = option(
        None, "learning rate of a pretrained decoder; by default that of the encoder"
    )
    head_learning_rate: float = option(
        1e-3, "learning rate of what is new: the classifier, a copy head, new cross-attention"
    )
    scorer_learning_rate: float = option(1e-2, "learning rate of the scorer")
    lora_learning_rate: float = option(1e-3, "learning rate of LoRA's matrices (lora_r)")
    weight_decay: float = option(0.01, "weight decay of AdamW; the scorer has none")
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = option(
        "linear", "how the learning rates change over training"
    )
    warmup: float = option(0.1, "share of the updates in which the learning rates rise, in [0, 1]")
    max_norm: float = option(1.0, "> 0, clip the gradient norm of everything but the scorer to it")
    scorer_max_norm: float = option(1.0, "> 0, clip that of the scorer to it; its gradients are far larger")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option("auto", "auto: bf16 where the device can")
    gradient_checkpointing: bool = option(
        False, "keep no activations inside the backbone's layers and compute them again: less memory, more time"
    )
    torch_compile: bool = option(False, "compile the encoder for training, once for all lengths of documents")
    workers: int = option(0, "processes per process that make batches ahead, up to 256; 0: the training itself does")
    group_by_length: bool = option(False, "put documents of like length into an update: less padding, another order")
    eval_every: int | None = option(None, "updates between evaluations; by default one per epoch")
    probe_documents: int = option(
        64, "validation documents to look at between evaluations, if a run has fewer than five of these; 0: none"
    )
    patience: int | None = option(None, "stop after so many evaluations without a better metric; by default never")
    metric: str | None = option(
        None,
        "metric on validation that picks the best checkpoint; by default accuracy, of several labels f1_micro, of "
        "numbers mse, of summaries rougeL, of completions the loss",
    )
    class_weights: str | None = option(
        None,
        "how much the documents of each class count in the loss: balanced, so that all classes together count the "
        "same, or weights such as spam:5,ham:1 (in YAML also a mapping); by default each document counts the same",
    )
    label_smoothing: float = option(
        0.0, "share of each target that is spread evenly over all classes, labels or tokens, in [0, 1)"
    )
    tune_thresholds: bool = option(
        False,
        "choose for each of several labels the probability from which on it holds, on the validation split, at the "
        "end of training; by default 0.5",
    )
    save_every: int | None = option(None, "updates between checkpoints; evaluations and interruptions leave one too")
    total_limit: int = option(2, "how many of the newest checkpoints to keep, >= 1; the best is kept besides")
    resume: str | None = option(
        None, "go on from the run's latest checkpoint ('latest', from the start if there is none) or from a folder"
    )
    tracker: str = option(
        "none",
        "also log the measures to aim, clearml, comet_ml, dvclive, mlflow, swanlab, tensorboard, trackio or wandb; "
        "several with commas between",
    )
    project: str = option("shtopk", "the project's name in the tracker")
    run_name: str | None = option(None, "the run's name in the tracker; by default the tracker invents one")
    push_to_hub: str | None = option(None, "repository on the hub to upload the best model to, such as me/topics")
    private: bool = option(False, "make that repository a private one, if it is new")
    profile: int = option(0, "updates to write a trace of, into trace.json")
    show: int = option(0, "test documents to write HTML pages for")
    k_range: str | None = option(
        None,
        "draw k for each update from a range such as 4:128, in YAML in quotes; evaluation uses k; by default k alone",
    )
    ddp_timeout: int = option(
        7200, "seconds that processes wait for each other, > 0, as while the first one prepares the data"
    )
    seed: int = option(0, "seed of the weights drawn, the dropout and the order of the documents")

    @property
    def range_of_k(self) -> tuple[int, int] | None:
        """k_range as (low, high); None for none. Raises ValueError if it cannot be read."""
        if self.k_range in (None, "none"):
            return None
        found = re.fullmatch(r"\s*([0-9]{1,9}):([0-9]{1,9})\s*", self.k_range)
        if found is None or int(found[2]) > MOST_KEPT:
            raise ValueError(
                f"expected k_range to be like 4:128, whole numbers of at most {MOST_KEPT:,} (in YAML in quotes), or "
                f"none; got {self.k_range!r}"
            )
        return int(found[1]), int(found[2])

    @property
    def weights_of_classes(self) -> str | dict[str, float] | None:
        """class_weights as "balanced" or {class: weight}; None for none. Raises ValueError if it cannot be read."""
        if self.class_weights in (None, "none", BALANCED):
            return None if self.class_weights == "none" else self.class_weights
        return read_weights(str(self.class_weights))

    @property
    def trackers(self) -> list[str]:
        """The names in `tracker`, as a list; empty for none."""
        return [] if self.tracker == "none" else [name.strip() for name in self.tracker.split(",")]


@dataclass
class EvaluationArguments:
    """How a checkpoint is evaluated. Commands with further fields build on it."""

    _argument_group_name: ClassVar[str] = "evaluation"
    split: str = option("test", "train, validation or test, or another one that a data set on the hub has")
    output_dir: str = option("runs/evaluation", "folder to write the figures to")
    overwrite: bool = option(False, "replace what lies in output_dir")
    eval_batch_size: int = option(16, "documents per process")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = option("auto", "auto: bf16 where the device can")

    @property
    def training(self) -> TrainArguments:
        """The fields that training has, too, as a `TrainArguments`."""
        return TrainArguments(
            output_dir=self.output_dir, eval_batch_size=self.eval_batch_size, mixed_precision=self.mixed_precision
        )


@dataclass(frozen=True)
class Arguments:
    """All fields of a training, in three groups.

    Attributes:
        data: what to read.
        model: which model to train.
        training: how to train it.
    """

    data: DataArguments = field(default_factory=DataArguments)
    model: ModelArguments = field(default_factory=ModelArguments)
    training: TrainArguments = field(default_factory=TrainArguments)

    def fields(self) -> dict[str, Any]:
        """Every field of the three groups by its name."""
        return asdict(self.data) | asdict(self.model) | asdict(self.training)
