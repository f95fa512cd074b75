"""Save a run, and go on with it as if it had never stopped.

Tensors are saved as safetensors, everything else as JSON and YAML: nothing that is read can run code. Parameters that
FSDP2 divides among processes are gathered, so any number of processes can go on.
"""

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
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

from shtopk.training.checkpoints import APART, OPTIMIZER, STATE, CheckpointError, reason
from shtopk.training.collectives import on_main_process
from shtopk.training.console import refusing, tell
from shtopk.training.history import HISTORY, bring_along
from shtopk.training.lora import has_lora, merged, trained_apart
from shtopk.training.run import Progress, Run
from shtopk.training.run_folder import FINISHED, remove, written

MODEL = "model.safetensors"
ONE_FILE = 2**60  # bytes, more than any model has: `load_weights` reads one file


def save(run: Run) -> None:
    """Write a checkpoint of the present update, all processes together."""
    snapshot = capture(run)

    def fill(folder: Path) -> None:
        snapshot.write(folder, run.model, run.tokenizer)
        run.provenance.write_arguments(folder)

    def write() -> None:
        run.checkpoints.write(run.progress.update, fill, keep=[run.progress.best_update])

    on_main_process(run.accelerator, write)


def resume(run: Run) -> None:
    """Open a run's folder, and restore the checkpoint that its argument `resume` names, if it names one.

    A checkpoint or a folder that cannot be used is refused in one line.

    Args:
        run: one that has not begun.
    """
    try:
        with refusing(CheckpointError):
            on_main_process(run.accelerator, run.open_folder)
            _go_on(run)
    except BaseException:
        run.lock.release()
        raise


def _go_on(run: Run) -> None:
    wanted, overwrite = run.arguments.training.resume, run.arguments.training.overwrite
    source = on_main_process(run.accelerator, lambda: run.checkpoints.find(wanted, overwrite))
    if source is not None:
        state = read_state(source)
        different = run.provenance.differences(state["identity"])
        if different:
            raise CheckpointError(f"cannot go on from {source}, as {different}")
        restore(run, source, state)

    on_main_process(run.accelerator, lambda: _start(run, source))


def _start(run: Run, source: Path | None) -> None:
    """Make a run's folder ready for it. Where that is refused, all that another run left there stays as it is."""
    training = run.arguments.training
    here = run.checkpoints.holds(source)
    if training.resume and not training.overwrite and not here and (run.output / FINISHED).exists():
        raise CheckpointError(f"{run.output} holds a finished run that this one does not go on from; choose another "
                              f"output_dir, or replace it with --overwrite true")  # fmt: skip
    if training.resume and source is None:
        tell(f"no checkpoint in {run.checkpoints.folder} yet, starting from the beginning")
    try:
        of_another = [] if here else written(run.output)
        run.checkpoints.start(source, training.overwrite or training.resume == "latest")
        remove(of_another)
        run.provenance.write(run.output)
        if source is not None and not here:
            bring_along(source.parent.parent / HISTORY, run.output / HISTORY)
    except OSError as error:
        raise CheckpointError(f"cannot write into {run.output}: {reason(error)}; choose another output_dir") from error


@dataclass
class Snapshot:
    """The whole state of a run, on the main process; the other processes hold nothing of use."""

    weights: dict[str, torch.Tensor]  # of the model, LoRA merged
    apart: dict[str, torch.Tensor]  # of LoRA: what it trains; otherwise nothing
    moments: dict[str, torch.Tensor]  # of the optimizer, by parameter/kind
    state: dict[str, Any]  # everything that is not a tensor

    def write(self, folder: Path, model, tokenizer) -> None:
        """Write the state into a folder, which can also be loaded as a model."""
        # By the names that the parameters have in the model, as `load_weights` reads them.
        model.save_pretrained(folder, state_dict=self.weights, save_original_format=False, max_shard_size=ONE_FILE)
        tokenizer.save_pretrained(folder)
        if self.apart:
            save_file(self.apart, folder / APART)
        save_file(self.moments, folder / OPTIMIZER)
        (folder / STATE).write_text(json.dumps(self.state) + "\n", encoding="utf-8")


def capture(run: Run) -> Snapshot:
    """Take a snapshot of a run, all processes together."""
    model, accelerator = run.model, run.accelerator
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    tied = getattr(model, "all_tied_weights_keys", None) or {}
    weights: dict[str, Any] = {
        name: w for name, w in get_model_state_dict(model, options=options).items() if name not in tied
    }
    optimized: dict[str, Any] = get_optimizer_state_dict(model, unwrapped(run.optimizer), options=options)
    moments = {
        f"{name}/{kind}": value.contiguous()
        for name, of_parameter in optimized.get("state", {}).items()
        for kind, value in of_parameter.items()
    }
    state = {
        "progress": asdict(run.progress),
        "param_groups": optimized.get("param_groups", []),
        "scheduler": run.scheduler.state_dict(),
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
        "random": gather_object([random_state()]),
        "identity": run.provenance.identity,
    }
    apart: dict[str, torch.Tensor] = {}
    if has_lora(model) and weights:  # only the main process has them
        apart = {name: weights[name].contiguous() for name in trained_apart(model)}
        weights = merged(model, weights)
    return Snapshot(weights, apart, moments, state)


def read_state(folder: Path) -> dict:
    """Read the state that a snapshot wrote into a folder."""
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot go on from {folder}: its {STATE} cannot be read ({error})") from None
    if not isinstance(state, dict) or not {"progress", "identity"} <= state.keys():
        raise CheckpointError(f"cannot go on from {folder}: its {STATE} is not of this version of train.py")
    return state


def restore(run: Run, folder: Path, state: dict) -> None:
    """Put back into a run what `capture` took, all processes together. Their number may have changed."""
    accelerator = run.accelerator
    load_weights(run.model, folder)
    check_base(run, folder)
    moments: dict[str, Any] = {}
    try:
        for name, value in load_file(folder / OPTIMIZER).items():
            parameter, kind = name.rsplit("/", 1)
            moments.setdefault(parameter, {})[kind] = value
        set_optimizer_state_dict(
            run.model,
            unwrapped(run.optimizer),
            {"state": moments, "param_groups": state["param_groups"]},
            options=StateDictOptions(full_state_dict=True),
        )
        run.scheduler.load_state_dict(state["scheduler"])
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        if len(state["random"]) == accelerator.num_processes:  # otherwise the seed decides
            set_random_state(state["random"][accelerator.process_index])
        run.progress = Progress(**state["progress"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"cannot go on from {folder}: it is not of this version of train.py ({type(error).__name__}: {error})"
        ) from error


def load_weights(model: nn.Module, folder: Path) -> None:
    """Load a saved model's weights into the same model, whether it is divided among processes or not."""
    lora = has_lora(model)
    weights: dict[str, Any] = load_file(folder / (APART if lora else MODEL))
    keys = set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=False))
    missing = set(keys.missing_keys) - set(getattr(model, "all_tied_weights_keys", None) or {})  # saved once
    if lora:  # all else is as the backbone has it
        missing &= trained_apart(model)
    if missing or keys.unexpected_keys:
        raise CheckpointError(
            f"{folder} belongs to another model: {len(missing)} parameters are missing there, "
            f"{len(keys.unexpected_keys)} are too many"
        )


def check_base(run: Run, folder: Path) -> None:
    """Check that the weights beside LoRA's matrices are still those that they were trained beside: a checkpoint holds
    both merged. All processes together.

    Args:
        run: with the checkpoint's weights.
        folder: of the checkpoint.

    Raises:
        CheckpointError: they are others.
    """
    if not has_lora(run.model):
        return
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights: dict[str, Any] = get_model_state_dict(run.model, options=options)

    def compare() -> None:
        now = merged(run.model, weights)
        for name, weight in load_file(folder / MODEL).items():
            rounding = 4 * torch.finfo(weight.dtype).eps if weight.is_floating_point() else 0
            if name in now and not torch.allclose(weight, now[name], rtol=rounding, atol=1e-6):
                raise CheckpointError(f"cannot go on from {folder}: the backbone has other weights than it had there "
                                      f"({name}), and LoRA's matrices belong to those")  # fmt: skip

    on_main_process(run.accelerator, compare)


def unwrapped(optimizer) -> torch.optim.Optimizer:
    """The optimizer without Accelerate's wrapper."""
    return getattr(optimizer, "optimizer", optimizer)


def random_state() -> dict:
    """The states of the random generators of Python, numpy and torch, as lists of numbers."""
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
