"""One update of the weights, by all processes together."""

import math
from contextlib import nullcontext

import torch
from accelerate.utils import send_to_device
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grad_norm_

from shtopk import anneal, draw_k
from shtopk.pooling import poolings
from shtopk.training.batches import MicroBatch
from shtopk.training.collectives import reduce_sum
from shtopk.training.errors import Diverged
from shtopk.training.meter import Meter
from shtopk.training.run import Run


def train_step(run: Run, parts: list[MicroBatch], meter: Meter) -> dict[str, float]:
    """Do one update, and return its measures.

    Its loss is the mean over all its documents (of summaries: over all target tokens), however these are divided among
    micro-batches and processes.
    """
    accelerator, progress, training = run.accelerator, run.progress, run.arguments.training
    run.wrapped.train()
    temperature = anneal(run.model, progress.update / max(1, run.updates - 1))
    k_range = training.range_of_k
    drawn = {} if k_range is None else {"k": draw_k(run.model, k_range, progress.update, training.seed)}
    (items,) = reduce_sum(accelerator, sum(part.items for part in parts))
    loss_here = torch.zeros((), device=accelerator.device)
    for i, part in enumerate(parts, 1):
        # DDP averages gradients over processes; multiply by their number to get the sum.
        share = part.items * accelerator.num_processes / items
        with nullcontext() if i == len(parts) else accelerator.no_sync(run.wrapped):
            inputs = send_to_device(part.inputs, accelerator.device, non_blocking=run.batches.pinned)
            out = run.wrapped(**run.kind.inputs(inputs))
            loss = run.kind.training_loss(out, inputs["labels"], training.label_smoothing) * share
            accelerator.backward(loss)
        loss_here += loss.detach() / accelerator.num_processes
    documents = sum(part.documents for part in parts)
    tokens = sum(int(part.inputs["attention_mask"].sum()) for part in parts if part.documents)
    loss_sum, *read = reduce_sum(accelerator, loss_here.item(), documents, tokens)
    documents, tokens = map(int, read)
    if not math.isfinite(loss_sum):
        raise Diverged(_diverged(run, "loss", loss_sum))

    accelerator.unscale_gradients(run.optimizer)
    scorers = [parameter for pooling in poolings(run.model) for parameter in pooling.parameters()]
    of_scorers = {id(parameter) for parameter in scorers}
    others = [parameter for parameter in run.model.parameters() if id(parameter) not in of_scorers]
    norm = as_number(clip_grad_norm_(others, training.max_norm))
    scorer_norm = as_number(clip_grad_norm_(scorers, training.scorer_max_norm))
    if accelerator.scaler is None and not math.isfinite(norm + scorer_norm):  # a scaler skips such an update
        raise Diverged(_diverged(run, "gradient's norm", norm + scorer_norm))
    learning_rate = run.optimizer.param_groups[0]["lr"]
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.scheduler.step()
    progress.update += 1
    measured = meter.end(documents, tokens)
    progress.documents += documents
    progress.tokens += tokens
    progress.seconds += measured["seconds"]
    return {
        "loss": loss_sum,
        "gradient_norm": norm,
        "scorer_gradient_norm": scorer_norm,
        "learning_rate": learning_rate,
        "temperature": temperature,
        **drawn,
        **measured,
    }


def as_number(norm: torch.Tensor) -> float:
    """A norm of gradients as a number, also if they are divided among processes."""
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()


def _diverged(run: Run, what: str, value: float) -> str:
    last = run.checkpoints.updates()
    return (
        f"the {what} of update {run.progress.update + 1} is {value}; "
        + (f"the last checkpoint is {run.checkpoints.path(last[-1])}" if last else "there is no checkpoint yet")
        + "; a lower learning rate, a longer warmup or mixed_precision no may help"
    )
