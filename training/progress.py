"""How far a run has come."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """The counters of a training loop.

    Attributes:
        update: optimizer updates done.
        evaluated: number of the update before the last evaluation; 0: none so far.
        best: metrics of the best evaluation so far.
        best_update: number of the update before the best evaluation.
        since_best: evaluations after the best one.
        documents, tokens: read in training so far, by all processes together.
        seconds: spent in training so far.
    """

    update: int = 0
    evaluated: int = 0
    best: dict[str, float] = field(default_factory=dict)
    best_update: int = 0
    since_best: int = 0
    documents: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def judge(self, results: dict[str, float], metric: str) -> None:
        """Record an evaluation after the present update; a higher `metric` is better."""
        self.evaluated = self.update
        if results[metric] > self.best.get(metric, -math.inf):
            self.best, self.best_update, self.since_best = results, self.update, 0
        else:
            self.since_best += 1
