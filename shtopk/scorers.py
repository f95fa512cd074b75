"""Scorers: modules that give token vectors [B, n, d] their scores, [B, n, 1] or [B, n]."""

from __future__ import annotations

from torch import Tensor, nn


class ScorerLinear(nn.Linear):
    """A linear scorer, drawn so that its first scores differ: equal scores have no spread for a relative temperature.

    It has a class of its own so that a model that draws every `nn.Linear` anew can leave it alone.
    """

    def reset_parameters(self) -> None:
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        nn.init.zeros_(self.bias)


def mlp(hidden_size: int) -> nn.Module:
    """A scorer with one hidden layer of d / 4."""
    inner = max(1, hidden_size // 4)
    return nn.Sequential(ScorerLinear(hidden_size, inner), nn.GELU(), ScorerLinear(inner, 1))


class ByPlace(nn.Module):
    """A control that learns nothing: it scores a token by its place, whatever its vector."""

    def forward(self, mask: Tensor, k: int | Tensor) -> Tensor:
        """Scores [B, n] from mask [B, n], True for a real token, and the number of slots k, or [B, 1] of each row."""
        raise NotImplementedError


class FirstTokens(ByPlace):
    """A control that wants the first tokens."""

    def forward(self, mask: Tensor, k: int | Tensor) -> Tensor:
        return -(mask.cumsum(-1) - 1).float()


class Strided(ByPlace):
    """A control that wants every (n / k)-th real token."""

    def forward(self, mask: Tensor, k: int | Tensor) -> Tensor:
        rank, count = mask.cumsum(-1) - 1, mask.sum(-1, keepdim=True).clamp(min=1)
        before, here = ((place * k).div(count, rounding_mode="floor") for place in (rank, rank + 1))
        return (here > before).float()


SCORERS = {  # name -> module for vectors of a size
    "linear": lambda hidden_size: ScorerLinear(hidden_size, 1),
    "mlp": mlp,
    "first": lambda hidden_size: FirstTokens(),
    "strided": lambda hidden_size: Strided(),
}
