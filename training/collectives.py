"""What the processes of a run tell one another, and how FSDP divides a model among them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from shtopk.training.checkpoints import CheckpointError

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do work on the main process. Every process returns its result, or raises its `CheckpointError`."""
    result, problem = None, None
    if accelerator.is_main_process:
        try:
            result = work()
        except CheckpointError as error:
            problem = str(error)
    result, problem = broadcast_object_list([result, problem])
    if problem is not None:
        raise CheckpointError(problem)
    return result


def reduce_sum(accelerator: Accelerator, *numbers: float) -> list[float]:
    """The sum of each number over all processes."""
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    return accelerator.reduce(torch.tensor(numbers, dtype=dtype, device=accelerator.device)).tolist()


def check_launcher() -> None:
    """Refuse what a launcher may ask for and training has not.

    Raises:
        ValueError: DeepSpeed or Megatron-LM.
    """
    for name in ("DeepSpeed", "Megatron_LM"):
        if parse_flag_from_env(f"ACCELERATE_USE_{name.upper()}"):
            raise ValueError(
                f"{name.replace('_', '-')} is not supported; FSDP2 divides a model among processes as well: "
                f"configs/accelerate/fsdp.yaml, which `shtopk configs accelerate/fsdp` prints"
            )


@contextmanager
def sharding(accelerator: Accelerator, model) -> Iterator[None]:
    """Under FSDP, a context in which Accelerate can divide a model among processes; otherwise an empty one.

    Two things about Accelerate are worked around. It wraps BERT's embeddings and then the table inside them once more,
    which fails. And it puts two tied embeddings into one group, where torch needs all of them. In this context the
    embeddings are hidden from Accelerate, so they become part of the group of the whole model.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is None:
        yield
        return
    if plugin.transformer_cls_names_to_wrap is None:
        names = model._no_split_modules or ()
        plugin.transformer_cls_names_to_wrap = sorted(name for name in names if not name.endswith("Embeddings"))
    tied = bool(getattr(model, "all_tied_weights_keys", None))
    if tied:
        model.get_input_embeddings = model.get_output_embeddings = lambda: None
    try:
        yield
    finally:
        if tied:
            del model.get_input_embeddings, model.get_output_embeddings
