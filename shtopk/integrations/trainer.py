"""Anneal the poolings of a model that transformers' Trainer trains, draw their k, and let it learn from itself."""

from __future__ import annotations

from typing import Any

from transformers import Trainer, TrainerCallback

from shtopk.budget import draw_k
from shtopk.integrations.decoders.distillation import distillation_loss
from shtopk.integrations.decoders.few_logits import with_few_logits
from shtopk.pooling import anneal, poolings

__all__ = ["AnnealTemperature", "DistillationTrainer", "DrawK", "with_few_logits"]


class AnnealTemperature(TrainerCallback):
    """Move every `TopKPooling` of a model from soft to sharp while `Trainer` trains it, and log the temperature.

    Before each update the progress is `updates done / (end * max_steps)`, at most 1. It depends on the number of
    updates alone, so a run that is resumed from a checkpoint goes on at the temperature where it stopped.

    Each log with a loss gets a `"temperature"`: that of the update just made, of the model's last pooling. So it
    stands beside the loss in `trainer.state.log_history`. A tracker logs it only if it comes after this callback.
    Trackers that `report_to` names come before, so pass `report_to="none"` and `callbacks=[AnnealTemperature(),
    TensorBoardCallback()]`.

    Args:
        end: share of the training, in (0, 1], after which the choice stays sharp. Below 1 the layers above have time
            to adapt to the sharp choice. With 1 the choice becomes sharp at the last update.

    Raises:
        ValueError: end outside (0, 1]; when training begins, a model without a `TopKPooling`.

    Example:
        >>> callback = AnnealTemperature(end=0.9)
        >>> trainer = Trainer(model=model, train_dataset=rows, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, end: float = 1.0):
        if not 0 < end <= 1:
            raise ValueError(f"expected end to be a share of the training in (0, 1], got {end!r}")
        self.end = end
        self.temperature: float | None = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._anneal(model, state)

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.temperature = self._anneal(model, state)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        self._anneal(model, state)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.temperature is not None and logs is not None and "loss" in logs:
            logs["temperature"] = self.temperature
            # Trainer stores a copy of the log there before it calls the callbacks.
            state.log_history[-1]["temperature"] = self.temperature

    def _anneal(self, model, state) -> float:
        return anneal(model, min(1.0, state.global_step / (self.end * max(1, state.max_steps))))


class DrawK(TrainerCallback):
    """Draw a k for each update while `Trainer` trains a model, so that it serves every k of a range afterwards.

    `shtopk.draw_k` says how, and for which pooling. Draws depend on the seed in the `TrainingArguments` and the number
    of updates alone: they are the same on every process, for all micro-batches of an update, and in a run that is
    resumed. Evaluation uses the pooling's own k, and so does everything after the training.

    Args:
        k_range: (low, high), whole numbers >= 1; both are drawn, too.

    Raises:
        ValueError: when training begins, an impossible range, or a model without a `TopKPooling`.

    Example:
        >>> callback = DrawK((4, 128))
        >>> trainer = Trainer(model=model, train_dataset=rows, callbacks=[callback])  # doctest: +SKIP
    """

    def __init__(self, k_range: tuple[int, int]):
        self.k_range = k_range

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        draw_k(model, self.k_range, state.global_step, args.seed)

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        draw_k(model, self.k_range, state.global_step, args.seed)

    def on_train_end(self, args, state, control, model=None, **kwargs):
        poolings(model)[-1].training_k = None


class DistillationTrainer(Trainer):
    """A `Trainer` whose loss is `distillation_loss`: a pooled language model learns to say what it says unpooled.

    Rows need labels for their place alone: -100 for the tokens of the prompt. `evaluate` reports the same loss.

    Args:
        given: all that `Trainer` takes.
        temperature: of `distillation_loss`.
        by_name: the same by name.

    Example:
        >>> trainer = DistillationTrainer(model=model, train_dataset=rows, temperature=2.0)  # doctest: +SKIP
    """

    loss_is_scaled_for_ga = False  # a mean over a batch, which Trainer divides by the batches of an update

    def __init__(self, *given: Any, temperature: float = 1.0, **by_name: Any):
        super().__init__(*given, **by_name)
        self.temperature = temperature

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = distillation_loss(model, **inputs, temperature=self.temperature)
        return (loss, {"loss": loss}) if return_outputs else loss
