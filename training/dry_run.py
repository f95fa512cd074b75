"""What a run would do, in words: its documents, tokens, updates, parameters and memory. Nothing is trained."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import nn

from shtopk.models.language_model import completes
from shtopk.models.windows import positions_of
from shtopk.tasks.preprocess import lengths_of
from shtopk.training.build import reader_of, trained_parts
from shtopk.training.memory import amount
from shtopk.training.run import Run

SHOWN = 60  # tokens of the first document
# Numbers that a layer of a transformer keeps for each token until its gradients are made, as multiples of its width:
# inputs of the linear layers, queries, keys and values, both sides of the activation function, layer norms, dropout.
KEPT_BY_LAYER = 17
MOMENTS = 2  # of AdamW, beside weight and gradient


def plan(run: Run) -> str:
    """Describe a run that has not begun, for a terminal.

    The memory is a guess: weights, gradients and moments are counted, activations estimated for the longest
    documents of a batch; what Python and torch take is not in it.
    """
    return "\n".join([*_data(run), "", *_updates(run), "", *_parameters(run), "", *_memory(run), "", *_first(run)])


def _data(run: Run) -> Iterator[str]:
    limit, window = run.tokens_read, window_of(run)
    yield f"{'documents':12}{'':>8}{'tokens':>14}{'mean':>9}{'longest':>9}{'cut':>9}{'in windows':>12}"
    for name, split in run.encoded.items():
        n = lengths_of(split, "input_ids").to_numpy()
        cut = 0 if limit is None else int((n >= limit).sum())
        several = 0 if window is None else int((n > window).sum())
        yield (f"{name:12}{len(n):8,}{int(n.sum()):14,}{n.mean():9.0f}{int(n.max()):9,}{cut:9,}{several:12,}")
    cuts = _cuts(limit, run.arguments.data.max_tokens)
    yield cuts if window is None else f"{cuts}; in windows: longer than the {window:,} tokens that are read at once"


def _cuts(limit: int | None, max_tokens: int | None) -> str:
    """What cuts documents to so many tokens. Where it is not max_tokens, it is the positions of a language model."""
    if limit is None:
        return "nothing is cut"
    if limit == max_tokens:
        return f"cut: reaches max_tokens, {limit:,}"
    return f"cut: reaches {limit:,} tokens, which the model's positions leave beside max_completion_tokens"


def _updates(run: Run) -> Iterator[str]:
    training, processes = run.arguments.training, run.accelerator.num_processes
    epochs = run.updates / len(run.batches)
    yield (
        f"{run.updates:,} updates of {run.batches.size} documents ({training.batch_size} x {training.accumulation} "
        f"micro-batches x {processes} processes), {epochs:.3g} epochs of {len(run.batches):,}"
    )
    evaluations = -(-run.updates // run.eval_every)
    yield f"{evaluations:,} evaluations, the best {run.metric.removeprefix('eval_')} is kept"
    yield f"on {run.accelerator.device}, mixed precision {run.accelerator.mixed_precision}"


def _parameters(run: Run) -> Iterator[str]:
    every = sum(parameter.numel() for parameter in run.model.parameters())
    parts = {part: parameters for part, parameters in trained_parts(run.model).items() if parameters}
    trained = sum(parameter.numel() for parameters in parts.values() for parameter in parameters)
    yield f"{trained:,} of {every:,} parameters are trained"
    rates = [group["initial_lr"] for group in run.optimizer.param_groups]  # in the order of the parts
    for (part, parameters), rate in zip(parts.items(), rates, strict=True):
        yield f"  {part:10}{sum(parameter.numel() for parameter in parameters):14,}   learning rate {rate:g}"


def _memory(run: Run) -> Iterator[str]:
    weights, activations = memory_guess(run)
    yield (
        f"memory of a process, a guess: {amount(weights)} for weights, gradients and moments, "
        f"{amount(activations)} for activations of the longest documents"
    )


def memory_guess(run: Run) -> tuple[int, int]:
    """Bytes of (weights, gradients and moments; activations of a micro-batch of the longest documents)."""
    model, training = run.model, run.arguments.training
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    weights += sum(
        parameter.numel() * parameter.element_size() * (1 + MOMENTS)
        for parameter in model.parameters()
        if parameter.requires_grad
    )
    lengths = np.sort(lengths_of(run.encoded["train"], "input_ids").to_numpy())[-training.batch_size :]
    reader = reader_of(run.model)
    config = reader.config
    width, number = config.hidden_size, 4 if run.accelerator.mixed_precision == "no" else 2
    layers = _layers_that_keep(reader)
    by_token = width * number * (layers + KEPT_BY_LAYER if training.gradient_checkpointing else layers * KEPT_BY_LAYER)
    return weights, int(lengths.sum()) * by_token


def _layers_that_keep(encoder: Any) -> int:
    """How many layers keep activations: those from the lowest one that is trained on."""
    count = encoder.config.num_hidden_layers
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        return count
    trained = [any(parameter.requires_grad for parameter in layer.parameters()) for layer in stacks[0]]
    return count - trained.index(True) if True in trained else 0


def window_of(run: Run) -> int | None:
    """How many tokens of a document are read at once; None: all."""
    model = run.model
    return None if completes(model) else model.config.window or positions_of(model.encoder.config)


def _first(run: Run) -> Iterator[str]:
    row, text = run.encoded["train"][0], run.texts["train"][0]
    ids, window = row["input_ids"], window_of(run)
    tokens = " ".join(run.tokenizer.convert_ids_to_tokens(ids[:SHOWN])) + " …" * (len(ids) > SHOWN)
    windows = 1 if window is None else -(-len(ids) // window)
    whole = "in one piece" if windows == 1 else f"in {windows} windows"
    yield f"the first document as the model sees it, {len(ids):,} tokens {whole}:"
    yield f"  {tokens}"
    answer = text[run.task.target]
    yield f"its {run.task.target}: {run.task.in_words(run.texts['train'], [answer])[0]}"
