"""The readable backend: tensor operations, on any device and for any dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from shtopk.backends import carriers, clusters, tournament
from shtopk.backends.carriers import Carriers, pool_carriers
from shtopk.backends.face import Answer, Gradients, Saved, Wanted
from shtopk.backends.tournament import Trees
from shtopk.candidates import bounded
from shtopk.rule import Rule


class Tensors:
    """A tournament on scores, then one read of the tokens that carry weight.

    The slow steps are methods of their own, so that a faster backend can replace them: `play`, `score_gradients`,
    `carrier_gradients`, and of select and merge `partition` and `merge`. The functions of these names in
    tournament.py, carriers.py and clusters.py explain them.
    """

    def serves(self, values: Tensor, scores: Tensor) -> bool:
        return True

    def forward(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> tuple[Answer, Saved]:
        trees, leaf, found, positions = self.play(bounded(scores, mask), temperature, k, rule)
        weights = found.weight.new_zeros(scores.numel()).index_copy_(0, found.token, found.weight)
        slots = torch.full((scores.numel(),), -1, device=scores.device).index_copy_(0, found.token, found.slot % k)
        answer = Answer(
            values=pool_carriers(values, found, k),
            scores=trees.slot_scores.masked_fill(~trees.filled, 0).to(scores.dtype),
            mask=trees.filled,
            positions=positions,
            weights=weights.view(scores.shape),
            slots=slots.view(scores.shape),
        )
        return answer, (values, temperature, *trees, leaf, *found)

    def save(
        self, values: Tensor, scores: Tensor, mask: Tensor | None, temperature: Tensor, k: int, rule: Rule
    ) -> Saved:
        trees, leaf, found, _ = self.play(bounded(scores, mask), temperature, k, rule)
        return values, temperature, *trees, leaf, *found

    def backward(
        self, saved: Saved, gradients: Gradients, rule: Rule, wanted: Wanted
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        values, temperature = saved[:2]
        trees, leaf, found = Trees(*saved[2:7]), saved[7], Carriers(*saved[8:])
        of_choice = wanted.scores or wanted.temperature
        grad_values, grad_weight = None, None
        if gradients.values is not None:
            grad_values, grad_weight = self._carriers_backward(
                gradients.values, values, found, wanted.values, of_choice
            )
        if not of_choice:
            return grad_values, None, None
        if grad_weight is None:
            grad_weight = torch.zeros_like(found.weight)
        if gradients.weights is not None:
            grad_weight = grad_weight + gradients.weights.flatten()[found.token]
        if gradients.scores is None:
            grad_slot_scores = torch.zeros_like(trees.slot_scores)
        else:
            grad_slot_scores = gradients.scores.masked_fill(~trees.filled, 0)
        grad_scores, of_log = self.score_gradients(
            trees, leaf, found.token, values.shape[1], grad_weight, grad_slot_scores.to(grad_weight.dtype), rule
        )
        grad_temperature = of_log.to(temperature.device) / temperature if wanted.temperature else None
        return grad_values, grad_scores.view(values.shape[:2]), grad_temperature

    def merge(self, values: Tensor, scores: Tensor, logits: Tensor, k: int) -> tuple[Answer, Saved]:
        return clusters.merge(self, values, scores, logits, k)

    def partition(self, values: Tensor, logits: Tensor, k: int) -> Tensor:
        return clusters.partition(values, logits, k)

    def pool(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> tuple[Tensor, Saved]:
        found = Carriers.of(weights, slots, k)
        return pool_carriers(values, found, k), (values, *found)

    def pool_save(self, values: Tensor, weights: Tensor, slots: Tensor, k: int) -> Saved:
        return values, *Carriers.of(weights, slots, k)

    def pool_backward(
        self, saved: Saved, gradient: Tensor, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        values, found = saved[0], Carriers(*saved[1:])
        grad_values, grad_weight = self._carriers_backward(gradient, values, found, of_values, of_weights)
        if grad_weight is None:
            return grad_values, None
        grad_weights = grad_weight.new_zeros(values.shape[:2].numel()).index_copy_(0, found.token, grad_weight)
        return grad_values, grad_weights.view(values.shape[:2])

    def _carriers_backward(
        self, gradient: Tensor, values: Tensor, found: Carriers, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        d = values.shape[-1]
        grad_values, grad_weight = self.carrier_gradients(
            gradient.reshape(-1, d), values.reshape(-1, d), found, of_values, of_weights
        )
        return None if grad_values is None else grad_values.view(values.shape), grad_weight

    def play(self, scores: Tensor, temperature: Tensor, k: int, rule: Rule) -> tuple[Trees, Tensor, Carriers, Tensor]:
        return tournament.play(scores, temperature, k, rule)

    def score_gradients(
        self, trees: Trees, leaf: Tensor, token: Tensor, n: int, grad_weight: Tensor, grad_slot_scores: Tensor,
        rule: Rule,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return tournament.score_gradients(trees, leaf, token, n, grad_weight, grad_slot_scores, rule)

    def carrier_gradients(
        self, gradient: Tensor, values: Tensor, found: Carriers, of_values: bool, of_weights: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        return carriers.carrier_gradients(gradient, values, found, of_values, of_weights)
