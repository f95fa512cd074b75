"""A trial of how texts are generated, made before anything is trained or measured."""

import torch
from accelerate.utils import send_to_device

from shtopk.training.compiling import uncompiled
from shtopk.training.exhaustion import is_out_of_memory
from shtopk.training.experiment import Experiment


def check_generation(experiment: Experiment, split: str) -> None:
    """Let a model that generates write two tokens for the two shortest documents of a split, and drop them.

    Much that a GenerationConfig may ask for is refused no earlier than while texts are generated.

    Args:
        experiment: its model is on the device, and is in eval mode afterwards.
        split: its name.

    Raises:
        ValueError: in one line: it cannot generate as its options ask for.
    """
    model, accelerator = experiment.model, experiment.accelerator
    if not model.can_generate():
        return
    rows = experiment.by_length[split][-min(2, experiment.arguments.training.eval_batch_size) :]
    batch = experiment.collate([experiment.encoded[split][row] for row in rows])
    try:
        # Not in inference mode: what FSDP allocates in it could not be trained with.
        with uncompiled(), torch.no_grad(), accelerator.autocast():
            experiment.kind.answer(model.eval(), send_to_device(batch, accelerator.device), new_tokens=2)
    except Exception as error:  # of any kind: an option of a wrong type fails wherever it is used
        if is_out_of_memory(error):
            raise
        raise ValueError("it cannot generate as it is, with the options of generation that it has (--generation, "
                         f"generation_config.json): {type(error).__name__}: {error}") from error  # fmt: skip
