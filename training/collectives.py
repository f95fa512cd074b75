"""What processes tell one another, and how FSDP shares a model out among them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from shtopk.training.checkpoints import CheckpointError

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do work on the main process, and return its result, or raise its `CheckpointError`, on every process."""
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
    """The sums of these numbers over all processes."""
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    return accelerator.reduce(torch.tensor(numbers, dtype=dtype, device=accelerator.device)).tolist()


@contextmanager
def sharding(accelerator: Accelerator, model) -> Iterator[None]:
    """Under FSDP, a context in which Accelerate can shard a model; otherwise an empty one.

    Accelerate wraps BERT's embeddings and then their table once more, which fails. And it keeps two tied embeddings in
    one group, where torch needs all of them: hidden from Accelerate they fall to the group of the whole model.
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
