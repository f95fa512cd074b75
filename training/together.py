"""What all processes of a run have to agree on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from shtopk.training.checkpoints import CheckpointError

T = TypeVar("T")


def on_main_process(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on every one; if it fails with a `CheckpointError`, all of them do."""
    answer, problem = None, None
    if accelerator.is_main_process:
        try:
            answer = work()
        except CheckpointError as error:
            problem = str(error)
    answer, problem = broadcast_object_list([answer, problem])
    if problem is not None:
        raise CheckpointError(problem)
    return answer


def any_process(accelerator: Accelerator, is_so: bool) -> bool:
    """Whether it is so on any of them."""
    return bool(total(accelerator, float(is_so))[0])


def total(accelerator: Accelerator, *numbers: float) -> list[float]:
    """The sums of these numbers over all processes."""
    dtype = torch.float32 if accelerator.device.type == "mps" else torch.float64
    return accelerator.reduce(torch.tensor(numbers, dtype=dtype, device=accelerator.device)).tolist()


@contextmanager
def sharding(accelerator: Accelerator, model) -> Iterator[None]:
    """Where FSDP is asked for, a context in which Accelerate prepares a model so that it can be shared out.

    It would take for layers all that transformers wants to keep on one device, BERT's embeddings among it, and then
    share out the table inside these once more, which fails. And of tied embeddings it looks at no more than two, while
    torch wants all in one group: left alone they come to be in that of the whole model.
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
