"""What all processes of a run have to agree on."""

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from training.checkpoints import CheckpointError

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
