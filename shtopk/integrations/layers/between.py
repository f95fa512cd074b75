"""What every model asks for that pools between its layers, an encoder or a language model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from shtopk.candidates import whole
from shtopk.options import PoolingOptions
from shtopk.pooling import TopKPooling
from shtopk.topk import TopK


def checked_layers(
    k_by_layer: Mapping[Any, int | float], first: int, layers: int, name: str, why: str
) -> dict[int, int | float]:
    """{layer: k}, checked, lowest layer first.

    Args:
        k_by_layer: as a caller gave it.
        first: the lowest layer whose input can be pooled.
        layers: how many there are.
        name: of what runs them.
        why: the reason why no lower one can.

    Raises:
        ValueError: no mapping of layers to k, a layer that is not there, or more vectors at a later layer.
    """
    good = isinstance(k_by_layer, Mapping) and all(re.fullmatch(r"\d+", str(layer)) for layer in k_by_layer)
    by_layer = {int(layer): whole(k_by_layer[layer]) for layer in sorted(k_by_layer, key=int)} if good else {}
    if not by_layer or len(by_layer) < len(k_by_layer):
        raise ValueError(f"expected different layers and their k, such as {{2: 64}}, got {k_by_layer}")
    for layer in by_layer:
        if not first <= layer < layers:
            reason = f" ({why})" if layer < first else ""
            there = f"{first}..{layers - 1} for this {name}"
            raise ValueError(f"expected k_by_layer to name layers in {there}, got {layer}{reason}")
    counts = [k for k in by_layer.values() if isinstance(k, int)]
    if any(after >= before for before, after in pairwise(counts)):
        raise ValueError(f"expected fewer vectors at later layers of k_by_layer, got {by_layer}")
    return by_layer


def record_of(
    options: PoolingOptions | None, by_name: Mapping[str, Any], defaults: Mapping[str, Any]
) -> PoolingOptions:
    """The options of all poolings, given as one record or by name; defaults are for what is not given by name.

    Raises:
        ValueError: both given, or options that are impossible.
    """
    if options is None:
        given = {name: value for name, value in by_name.items() if value is not None or name not in defaults}
        return PoolingOptions.of({**defaults, **given})
    if by_name:
        raise ValueError(f"expected options as one record or by name, got both: {', '.join(by_name)}")
    return options


def new_poolings(
    by_layer: Mapping[int, int | float],
    record: PoolingOptions,
    layers: Sequence[Any],
    hidden_size: int,
    training: bool,
) -> dict[str, TopKPooling]:
    """The poolings of these layers by number, each on the device and in the dtype of its layer.

    Raises:
        ValueError: options that cannot be saved, slots that would not stand in document order, an impossible k, or a
            layer that is offloaded.
    """
    record.to_dict()  # which a scorer of one's own has no place in: nothing could load it
    if not record.keep_order:
        raise ValueError("expected keep_order to be true between layers, got false; leave it out")
    poolings = {}
    for index, k in by_layer.items():
        check_at(index, k, record)
        like = next(x for x in layers[index].parameters() if x.is_floating_point())  # packed weights are none
        if like.is_meta and any(hasattr(part, "_hf_hook") for part in layers[index].modules()):
            raise ValueError(f"expected layers in memory, got layer {index} offloaded; pool first, then dispatch")
        poolings[str(index)] = TopKPooling(hidden_size, k, record).to(like.device, like.dtype).train(training)
    return poolings


class LayerPoolings(nn.ModuleDict):
    """The poolings of a model, by the number of the layer whose input they pool.

    Attributes:
        field: of a configuration that describes them.
        handles: of the hooks.
    """

    field: str

    def __init__(self, poolings: Mapping[str, TopKPooling]):
        super().__init__(poolings)
        self.handles: list[Any] = []

    def description(self) -> dict[str, Any]:
        """What is saved of them: k and options, as they are now."""
        poolings: Any = dict(self.items())
        options = [pooling.options.to_dict() for pooling in poolings.values()]
        if any(its != options[0] for its in options):
            raise ValueError("expected poolings of the same options to be saved, got several")
        return {"k_by_layer": {layer: pooling.k for layer, pooling in poolings.items()}} | options[0]


def with_gradients_of(poolings: Iterable[nn.Module], vectors: Tensor) -> Tensor:
    """The same vectors, with a gradient of 0 for the poolings' parameters that learn, those that are offloaded aside.

    Where a scorer had nothing to do, as in short documents, processes that train together would wait for each other's
    gradients of it.
    """
    if not torch.is_grad_enabled():
        return vectors
    every = [parameter for pooling in poolings for parameter in pooling.parameters()]
    learning = [x for x in every if x.requires_grad and (vectors.is_meta or not x.is_meta)]
    return vectors + sum(0 * parameter.sum().to(vectors.device) for parameter in learning)


def with_gradients_of_scores(pooled: TopK) -> Tensor:
    """The vectors [B, k, d] that were pooled, with a gradient of 0 for the scores: the hard operator gives them none,
    and processes that train together would wait for it.
    """
    if not pooled.scores.requires_grad:
        return pooled.values
    return pooled.values + (0 * pooled.scores).sum(-1)[:, None, None].to(pooled.values.dtype)


def device_of(pooling: nn.Module, vectors: Tensor) -> torch.device:
    """The device to pool on: that of the pooling, or of the vectors where it has no parameters in memory. In a model
    that is spread over several devices vectors come from the layer below.
    """
    return next((x.device for x in pooling.parameters() if not x.is_meta), vectors.device)


def check_at(layer: int, k: int | float, record: PoolingOptions) -> None:
    """Raise ValueError, with the layer's number, if a k does not fit the options."""
    try:
        record.check(k)
    except ValueError as error:
        raise ValueError(f"k_by_layer, at layer {layer}: {error}") from None


class LayerHook:
    """A hook on a layer, or on what stands in its place.

    Args:
        layer: that it runs before.
    """

    def __init__(self, layer: nn.Module):
        self.layer, self.hooked = layer, layer
        self.handle = self.register(layer)

    def register(self, standing: nn.Module) -> Any:
        """Hook a module; returns the handle."""
        hook: Any = self
        return standing.register_forward_pre_hook(hook, with_kwargs=True)

    def remove(self) -> None:
        """Remove the hook."""
        self.handle.remove()

    def move_to(self, standing: nn.Module) -> None:
        """Run at what stands in the layer's place now: a wrapper, such as that of activation checkpointing, which
        runs what is inside a second time in the backward pass; or the layer again. A copy of the layer is neither.
        """
        if standing is not self.hooked and any(module is self.layer for module in standing.modules()):
            self.handle.remove()
            self.hooked, self.handle = standing, self.register(standing)
