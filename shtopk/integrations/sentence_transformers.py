"""Token pooling that learns, as a module of a sentence-transformers model: k vectors for a document instead of n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import dropwhile
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.multi_vector_encoder.modules import BaseTokenPooling
from sentence_transformers.util.tensor import repad_flattened_features
from torch import Tensor

from shtopk.budget import checked_range, log_uniform
from shtopk.integrations.layers.between import with_gradients_of_scores
from shtopk.options import NAMES, as_saved
from shtopk.pooling import TopKPooling


class TopKTokenPooling(BaseTokenPooling):
    r"""Pool the token embeddings of each input to k with `shtopk.TopKPooling`, and learn which from the model's loss.

    Put it behind the Transformer and everything that makes token embeddings or their mask (`Dense`,
    `MultiVectorMask`). Put it before what uses them: `Pooling` in a `SentenceTransformer`, `Normalize` in a
    `MultiVectorEncoder` (pooled vectors are mixtures and have no unit length). It returns a new dict with

    - `token_embeddings` [B, k, d] and `attention_mask` [B, k], which says what slots hold a token. An input of fewer
      than k tokens keeps as many vectors as it has tokens;
    - every other whole-number tensor [B, n], such as `input_ids`, as [B, k]. Each slot has the entry of its leading
      token, an empty slot 0.

    A row's result does not depend on its batch. `save` writes a config.json and safetensors, and loading reads no
    other files. sentence-transformers asks for `trust_remote_code=True` for any saved model with modules of other
    packages.

    - *Two modes*: a tournament teaches the scorer; the model's `encode` pools by select and merge. Options say
      otherwise. If one is an `initial_temperature`, give the trainer the callback
      `shtopk.integrations.trainer.AnnealTemperature()`.
    - *The scorer is different*: give it a learning rate of its own, for example
      `learning_rate_mapping={r"pooling\.scorer": 1e-2}` among the trainer's arguments.
    - *Any k from one training*: with a `k_range` every forward pass in training mode draws a k, log-uniformly, for all
      its inputs. A cached loss, which embeds them twice, restores torch's generator, and so draws the same again. But
      passes differ: where a loss divides a batch into mini-batches, or on several processes, give the trainer the
      callback `shtopk.integrations.trainer.DrawK((4, 128))` as well. Then all passes of an update have one k.
    - *Prompts*: before a `Pooling` with `include_prompt=False` it pools the tokens behind the prompt.
    - *Alone*, as `pool(embeddings)` or `encode(..., token_pooling=...)`, it pools as in eval mode, without gradient.
      Normalize the result yourself.
    - *Hard operators learn nothing before `Normalize`*: `"hard_gated"` and `"hard_straight_through"` give scores a
      gradient only along the kept vectors, and `Normalize` removes their length.

    Args:
        hidden_size: d, the size of the token embeddings.
        k: vectors to keep of each input, protected ones included: a whole number >= 1, or a share in (0, 1] of its own
            tokens, so that long documents keep more.
        k_range: (low, high), whole numbers >= 1: draw k from there in training mode. None: k throughout.
        tasks: the tasks whose inputs are pooled; others pass unchanged. An input for no task counts as "document".
            None: documents alone in a `MultiVectorEncoder`; documents and queries in other models, whose losses do not
            tell them apart.
        options: those of `shtopk.PoolingOptions`, by name.

    Raises:
        ValueError: an impossible k, temperature or name.

    Example:
        >>> pooling = TopKTokenPooling(hidden_size=8, k=2).eval()
        >>> out = pooling({"token_embeddings": torch.randn(3, 10, 8), "attention_mask": torch.ones(3, 10)})
        >>> out["token_embeddings"].shape, out["attention_mask"].shape
        (torch.Size([3, 2, 8]), torch.Size([3, 2]))
    """

    config_keys = ["hidden_size", "k", "k_range", *NAMES, "tasks"]

    def __init__(
        self,
        hidden_size: int,
        k: int | float,
        *,
        k_range: Sequence[int] | None = None,
        tasks: str | list[str] | None = None,
        **options: Any,
    ):
        super().__init__(tasks=tasks)
        self.pooling = TopKPooling(hidden_size, k, **options)
        self.k_range = None if k_range is None else checked_range(k_range, self.pooling.options)
        self._tasks_are_given, self._has_a_model = tasks is not None, False
        self._behind: tuple[Any, ...] = ()

    def get_config_dict(self) -> dict[str, Any]:
        sizes = {"hidden_size": self.pooling.hidden_size, "k": self.pooling.k, "k_range": self.k_range}
        return sizes | self.pooling.options.to_dict() | {"tasks": self.tasks}

    def on_model_ready(self, model: Any) -> None:
        """Adapt to the model that this is a module of, which calls it."""
        self._has_a_model = True
        if not self._tasks_are_given and not isinstance(model, MultiVectorEncoder):
            self.tasks = ["query", "document"]
        from_here = (dropwhile(lambda part: self not in part.modules(), whole.children()) for whole in model.modules())
        # In a tuple they are no parts of this module. What they say of the prompt may change.
        self._behind = tuple(part for parts in from_here for part in parts if hasattr(part, "include_prompt"))

    def forward(self, features: dict[str, Any], task: str | None = None) -> dict[str, Any]:
        """Pool the features of a batch.

        Args:
            features: with `token_embeddings` [B, n, d] and `attention_mask` [B, n].
            task: what the inputs are for; features for a task that is not pooled come back unchanged.

        Raises:
            ValueError: no token embeddings with a mask among the features.
        """
        if not self.applies_to(task):
            return features
        features = dict(features)  # losses that embed twice need theirs again
        prompt = features.pop("prompt_length", None)  # whoever is behind would take slots for its tokens
        if "cu_seq_lens_q" in features:  # rows in one long sequence, for flash attention
            features = repad_flattened_features(features)
        values, mask = self._tokens(features)
        if 0 in mask.shape:
            return features
        if prompt is not None and not all(pooling.include_prompt for pooling in self._behind):
            mask = _without_prompt(mask, prompt)
        alone = torch.is_inference_mode_enabled() and not self._has_a_model  # as encode(token_pooling=...) calls it
        with self._evaluating() if alone else nullcontext():
            pooled = self.pooling(values, mask, k=None if alone else self._k_of_pass())
        vectors, empty = with_gradients_of_scores(pooled), pooled.attention_mask == 0
        for name, value in features.items():
            if isinstance(value, Tensor) and value.shape == mask.shape and not value.is_floating_point():
                features[name] = value.gather(1, pooled.positions).masked_fill(empty, 0)
        return features | {"token_embeddings": vectors, "attention_mask": pooled.attention_mask}

    def _k_of_pass(self) -> int | None:
        """A k drawn for one forward pass; None where k, or what `draw_k` has drawn for the update, is to be used."""
        if not self.training or self.k_range is None or self.pooling.training_k is not None:
            return None
        return log_uniform(self.k_range, torch.rand((), dtype=torch.float64, device="cpu").item())

    def _tokens(self, features: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """(token embeddings [B, n, d], mask [B, n]) of the features, checked."""
        values, mask = (features.get(name) for name in ("token_embeddings", "attention_mask"))
        if values is None or mask is None:
            raise ValueError(
                "expected features with token_embeddings and attention_mask, "
                f"got {', '.join(features) or 'none'}; put TopKTokenPooling behind a Transformer"
            )
        d = self.pooling.hidden_size
        if values.dim() != 3 or values.shape[-1] != d or mask.shape != values.shape[:2]:
            raise ValueError(
                f"expected token_embeddings [B, n, {d}] and attention_mask [B, n], "
                f"got {list(values.shape)} and {list(mask.shape)}; set hidden_size to their last dimension"
            )
        return values, mask

    @torch.no_grad()  # the model's `encode` hands over tensors that allow none
    def pool_one(self, embedding: Tensor, **kwargs: Any) -> Tensor:
        """Pool the embeddings [n, d] of one input to its own k vectors, as in eval mode."""
        if not len(embedding):
            return embedding
        like = next(self.pooling.parameters(), embedding)
        with self._evaluating():
            pooled = self.pooling(embedding.unsqueeze(0).to(like.device, like.dtype))
        return pooled.hidden_states[0][pooled.attention_mask[0]].to(embedding.device, embedding.dtype)

    @contextmanager
    def _evaluating(self) -> Iterator[None]:
        """A context in which the pooling is in eval mode."""
        training = self.pooling.training
        self.pooling.eval()
        try:
            yield
        finally:
            self.pooling.train(training)

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write config.json and model.safetensors, whatever safe_serialization says."""
        self.save_config(output_path)
        self.save_torch_weights(output_path, safe_serialization=True)

    @classmethod
    def load(cls, model_name_or_path: str, init_defaults: dict[str, Any] | None = None, **kwargs: Any):
        """Read what `save` wrote. The base class explains the arguments.

        Raises:
            ValueError: files that are missing or damaged, or weights that do not fit the configuration.
        """
        names = ("subfolder", "token", "cache_folder", "revision", "local_files_only")
        where = {name: kwargs[name] for name in names if name in kwargs}
        try:
            if cls.load_file_path(model_name_or_path, "model.safetensors", **where) is None:
                raise ValueError("expected a model.safetensors, found none")
            module = cls(**((init_defaults or {}) | as_saved(cls.load_config(model_name_or_path, **where))))
            return cls.load_torch_weights(model_name_or_path, model=module, **where)
        except Exception as error:  # a damaged file can fail in any layer below
            reason = " ".join(str(error).split())[:300]
            place = "/".join(filter(None, (str(model_name_or_path), where.get("subfolder"))))
            raise ValueError(f"cannot load a {cls.__name__} from {place}: {reason}") from error


def _without_prompt(mask: Tensor, length: int | Tensor) -> Tensor:
    """A mask [B, n] with the first tokens hidden, as many as length says, a number or a tensor of equal ones."""
    first = (mask != 0).int().argmax(1, keepdim=True)  # behind padding on the left
    places = torch.arange(mask.shape[1], device=mask.device)
    return mask.masked_fill(places < first + torch.as_tensor(length, device=mask.device).flatten()[:1], 0)
