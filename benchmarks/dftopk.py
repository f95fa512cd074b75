"""The sigmoid gate of DFTopK (Zhu et al. 2025, "Differentiable Fast Top-K Selection"), after its description."""

from torch import Tensor


def dftopk(values: Tensor, scores: Tensor, k: int, temperature: float = 0.0625) -> Tensor:
    """values [B, n, d], scores [B, n] -> [B, k, d], k < n: the vectors of the k highest scores, each times its gate.

    A gate is sigmoid((score - threshold) / temperature), where the threshold lies halfway between the k-th and the
    (k + 1)-th score; the gradient flows into both.
    """
    best, order = scores.topk(k + 1, dim=-1)
    threshold = best[:, k - 1 :].mean(-1, keepdim=True)
    gates = ((best[:, :k] - threshold) / temperature).sigmoid()
    kept = values.gather(1, order[:, :k].unsqueeze(-1).expand(-1, -1, values.shape[-1]))
    return gates.unsqueeze(-1) * kept
