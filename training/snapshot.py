"""All that a run needs to go on as if it had never stopped: taken from the processes, written to files, put back.

Tensors are safetensors, everything else is JSON: nothing that is read can run code. Models whose parameters are spread
over processes (FSDP2) are gathered, so that any number of processes can go on.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from shtopk.training.checkpoints import OPTIMIZER, STATE, CheckpointError
from shtopk.training.progress import Progress

MODEL = "model.safetensors"


@dataclass
class Snapshot:
    """On the main process everything; on the others nothing of use.

    Attributes:
        weights: of the model.
        moments: of the optimizer, by the names of parameters and of what it keeps for each.
        state: what is no tensor.
    """

    weights: dict[str, torch.Tensor]
    moments: dict[str, torch.Tensor]
    state: dict[str, Any]

    def write(self, folder: Path, model, tokenizer) -> None:
        """Into a folder that loads as a model, too."""
        model.save_pretrained(folder, state_dict=self.weights)
        tokenizer.save_pretrained(folder)
        save_file(self.moments, folder / OPTIMIZER)
        (folder / STATE).write_text(json.dumps(self.state) + "\n", encoding="utf-8")


def capture(accelerator: Accelerator, model, optimizer, scheduler, progress: Progress, identity: dict) -> Snapshot:
    """Take one; all processes together.

    Args:
        model: unwrapped.
        optimizer, scheduler: of it.
        identity: what a run that goes on from here must share.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    weights = {name: its for name, its in get_model_state_dict(model, options=options).items() if name not in tied}
    optimized = get_optimizer_state_dict(model, plain_optimizer(optimizer), options=options)
    moments = {
        f"{name}/{kind}": value.contiguous()
        for name, its in optimized.get("state", {}).items()
        for kind, value in its.items()
    }
    state = {
        "progress": asdict(progress),
        "param_groups": optimized.get("param_groups", []),
        "scheduler": scheduler.state_dict(),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "random": gather_object([random_state()]),
        "identity": identity,
    }
    return Snapshot(weights, moments, state)


def read_state(folder: Path) -> dict:
    """What is no tensor in a snapshot's folder."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot go on from {folder}: its {STATE} cannot be read ({error})") from None
    if not isinstance(state, dict) or not {"progress", "identity"} <= state.keys():
        raise CheckpointError(f"cannot go on from {folder}: its {STATE} is not of this version of train.py")
    return state


def restore(folder: Path, state: dict, accelerator: Accelerator, model, optimizer, scheduler) -> Progress:
    """Put back what `capture` took; all processes together, of which there may be more or fewer than there were."""
    load_weights(model, folder)
    moments: dict[str, dict[str, torch.Tensor]] = {}
    try:
        for name, value in load_file(folder / OPTIMIZER).items():
            parameter, kind = name.rsplit("/", 1)
            moments.setdefault(parameter, {})[kind] = value
        set_optimizer_state_dict(
            model,
            plain_optimizer(optimizer),
            {"state": moments, "param_groups": state["param_groups"]},
            options=StateDictOptions(full_state_dict=True),
        )
        scheduler.load_state_dict(state["scheduler"])
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == accelerator.num_processes:  # else each goes on with what its seed gave it
            set_random_state(state["random"][accelerator.process_index])
        return Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"cannot go on from {folder}: it is not of this version of train.py ({type(error).__name__}: {error})"
        ) from error


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a saved model's weights into the same model, spread over processes or not."""
    weights = load_file(folder / MODEL)
    keys = set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))
    missing = set(keys.missing_keys) - set(getattr(model, "all_tied_weights_keys", None) or {})  # saved once
    if missing or keys.unexpected_keys:
        raise CheckpointError(
            f"{folder} belongs to another model: {len(missing)} parameters are missing there, "
            f"{len(keys.unexpected_keys)} are too many"
        )


def plain_optimizer(optimizer) -> torch.optim.Optimizer:
    """Without Accelerate's wrapping."""
    return getattr(optimizer, "optimizer", optimizer)


def random_state() -> dict:
    """Of Python, numpy and torch, as lists of numbers."""
    version, internal, gauss = random.getstate()
    generator = numpy.random.get_state(legacy=False)
    return {
        "python": [version, list(internal), gauss],
        "numpy": generator | {"state": {"key": generator["state"]["key"].tolist(), "pos": generator["state"]["pos"]}},
        "torch": torch.get_rng_state().tolist(),
        "cuda": torch.cuda.get_rng_state().tolist() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict) -> None:
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    generator = state["numpy"]
    key = numpy.array(generator["state"]["key"], dtype=numpy.uint32)
    numpy.random.set_state(generator | {"state": generator["state"] | {"key": key}})
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(torch.tensor(state["cuda"], dtype=torch.uint8))
