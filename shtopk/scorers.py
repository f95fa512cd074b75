"""What scores a token: modules from token vectors [B, n, d] to scores [B, n, 1] or [B, n]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScorerLinear(nn.Linear):
    """A linear layer that starts with scores that differ: equal ones have no spread for a relative temperature.

    A class of its own, so that a model with an initialisation for `nn.Linear` can tell it apart and leave it alone.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        nn.init.zeros_(self.bias)


def mlp(hidden_size: int) -> nn.Module:
    """One hidden layer of d / 4."""
    inner = max(1, hidden_size // 4)
    return nn.Sequential(ScorerLinear(hidden_size, inner), nn.GELU(), ScorerLinear(inner, 1))


class ByPlace(nn.Module):
    """A control: scores where a token stands, whatever its vector, and learns nothing."""

    def forward(self, mask: Tensor, k: int) -> Tensor:
        """[B, n] from mask [B, n], True for a real token, and the number of slots."""
        raise NotImplementedError


class FirstTokens(ByPlace):
    """Wants the first tokens."""

    def forward(self, mask: Tensor, k: int) -> Tensor:
        return -torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32).expand(mask.shape)


class Strided(ByPlace):
    """Wants every (n / k)-th real token."""

    def forward(self, mask: Tensor, k: int) -> Tensor:
        rank, count = mask.cumsum(-1) - 1, mask.sum(-1, keepdim=True).clamp(min=1)
        before, here = ((place * k).div(count, rounding_mode="floor") for place in (rank, rank + 1))
        return (here > before).float()


SCORERS = {  # name -> module for vectors of a size
    "linear": lambda hidden_size: ScorerLinear(hidden_size, 1),
    "mlp": mlp,
    "first": lambda hidden_size: FirstTokens(),
    "strided": lambda hidden_size: Strided(),
}
