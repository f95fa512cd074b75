"""Anneal the poolings of a model that transformers' Trainer trains, and draw their k."""

from __future__ import annotations

from transformers import TrainerCallback

from shtopk.budget import draw_k
from shtopk.pooling import anneal, poolings


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
