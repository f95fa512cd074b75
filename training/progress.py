"""How far a run has come."""

import math
from dataclasses import dataclass, field


@dataclass
class Progress:
    """What a loop has to know to go on.

    Attributes:
        update: optimizer updates done.
        evaluated: the update after which the model was evaluated last; 0: never.
        best: metrics of the best evaluation so far.
        best_update: the update after which it was.
        since_best: evaluations that came after it.
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
        """Take in the metrics of an evaluation after the present update; more of `metric` is better."""
        self.evaluated = self.update
        if results[metric] > self.best.get(metric, -math.inf):
            self.best, self.best_update, self.since_best = results, self.update, 0
        else:
            self.since_best += 1
