"""Anneal the poolings of a model that transformers' Trainer trains."""

from __future__ import annotations

from transformers import TrainerCallback

from shtopk.pooling import anneal


class AnnealTemperature(TrainerCallback):
    """Move every `TopKPooling` of the model from soft to sharp over a run of `Trainer`, and log the temperature.

    Before each update the progress is `updates done / (end * max_steps)`, at most 1. It is a function of the number
    of updates alone, so a run that is resumed from a checkpoint goes on at the temperature where it stopped.

    Each log with a loss gets `"temperature"`, that of the update just made (of the model's last pooling), so it stands
    beside the loss in `trainer.state.log_history`. A tracker logs it only if the tracker comes after this callback:
    `Trainer(..., callbacks=[AnnealTemperature(), TensorBoardCallback()])` with `report_to="none"`, as trackers that
    `report_to` names come first.

    Args:
        end: share of the training, in (0, 1], after which the choice stays sharp. Below 1 the layers above get time
            to adapt to the sharp choice; 1: the choice becomes sharp with the last update.

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
