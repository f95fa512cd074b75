"""The classifier on the k token vectors that were kept, and the model without its head."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import can_return_tuple

from shtopk import TopK, TopKPooling
from shtopk.integrations.adapters import TrainsNewModules
from shtopk.integrations.encoder import install
from shtopk.pooling import poolings
from shtopk.scorers import ScorerLinear

from .backbone import (
    Dtype,
    build_around,
    encoder_options,
    instead_of,
    is_encoder,
    load_encoder,
    read_alike,
    set_dropout,
)
from .configuration_topk_pooling import TopKPoolingConfig
from .inputs import checked_inputs
from .outputs import TopKPoolingClassifierOutput, TopKPoolingModelOutput
from .pretrained import load_config
from .windows import Layers, check_window, pool_document


class TopKPoolingPreTrainedModel(TrainsNewModules, PreTrainedModel):
    """What the models here share: weights are drawn and embeddings are found as in the backbone."""

    config_class = TopKPoolingConfig
    base_model_prefix = "backbone"  # so that the checkpoint of a bare encoder loads into `backbone`
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *model_args, **kwargs):
        """As in transformers. A checkpoint of which nothing belongs to the backbone is refused.

        Raises:
            ValueError: it was saved inside a model with a head, or is of another kind.
        """
        with_report = kwargs.pop("output_loading_info", False)
        model, report = super().from_pretrained(
            pretrained_model_name_or_path, *model_args, output_loading_info=True, **kwargs
        )
        needed = {f"backbone.{name}" for name, one in model.backbone.named_parameters() if one.requires_grad}
        if needed and needed <= set(report["missing_keys"]):
            found = min(report["unexpected_keys"], default="none")
            where = pretrained_model_name_or_path or "the state_dict"
            raise ValueError(f"expected weights of a {type(model.backbone).__name__} in {where}, found {found}; "
                             "from_backbone takes one out of a model that it was saved inside")  # fmt: skip
        return (model, report) if with_report else model

    def save_pretrained(self, *args, **kwargs):
        """As in transformers. The configuration says what k the poolings have now."""
        self.config.k = self.pooling.k
        if self.config.k_by_layer is not None:
            layers = sorted(self.config.k_by_layer, key=int)
            between = zip(layers, poolings(self.backbone), strict=True)
            self.config.k_by_layer = {layer: pooling.k for layer, pooling in between}
        super().save_pretrained(*args, **kwargs)

    @property
    def encoder(self) -> nn.Module:
        """The part of the backbone whose token vectors are pooled."""
        return self.backbone

    @property
    def generation_start(self) -> int | None:
        """The token that the decoder starts from; None without a decoder."""
        return None

    def get_input_embeddings(self):
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value):
        self.backbone.set_input_embeddings(value)

    def _pool(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, output_hidden_states: bool | None,
        output_attentions: bool | None, **others: Any,
    ) -> tuple[TopK, Layers]:  # fmt: skip
        """Pool documents to k vectors; None: what the configuration says."""
        asked = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        asked = {name: getattr(self.config, name) if wanted is None else wanted for name, wanted in asked.items()}
        inputs = checked_inputs(self.encoder, input_ids, attention_mask, others)
        return pool_document(self.encoder, self.pooling, inputs, self.config, **asked)

    def _init_weights(self, module):
        if isinstance(module, ScorerLinear):
            module.reset_parameters()
        else:
            super()._init_weights(module)

    def initialize_weights(self):
        super().initialize_weights()
        for scorer in self.backbone.modules():  # the backbone initialized those between its layers
            loaded = [getattr(parameter, "_is_hf_initialized", False) for parameter in scorer.parameters()]
            if isinstance(scorer, ScorerLinear) and not all(loaded):
                scorer.reset_parameters()


class TopKPoolingModel(TopKPoolingPreTrainedModel):
    """Any encoder with its token vectors pooled to k, without a head.

    `AutoModel` and `pipeline("feature-extraction")` make this of a classifier's checkpoint. They make it of an
    encoder's checkpoint, too; then the pooling is new.

    A document longer than `config.window` is read in windows and pooled as a whole: nothing is cut off.

    Args:
        config: the configuration.

    Example:
        >>> model = TopKPoolingModel(TopKPoolingConfig(k=4))
        >>> model(input_ids=torch.arange(100, 120).unsqueeze(0)).last_hidden_state.shape
        torch.Size([1, 4, 768])
    """

    _keys_to_ignore_on_load_unexpected = [r"^classifier\."]

    def __init__(self, config: TopKPoolingConfig):
        super().__init__(config)
        self.backbone, self.pooling = build_pooled_encoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs,
    ) -> TopKPoolingModelOutput:
        """Pool documents of any length. `TopKPoolingForSequenceClassification.forward` explains the arguments."""
        pooled, layers = self._pool(
            input_ids, attention_mask, output_hidden_states, output_attentions, token_type_ids=token_type_ids,
            position_ids=position_ids, global_attention_mask=global_attention_mask, inputs_embeds=inputs_embeds,
            **kwargs,
        )  # fmt: skip
        return TopKPoolingModelOutput.of(pooled, **layers)


class TopKPoolingForSequenceClassification(TopKPoolingPreTrainedModel):
    """Any encoder with its token vectors pooled to k, and a linear classifier over their mean.

    A document longer than `config.window` is read in windows and pooled as a whole: nothing is cut off.

    Args:
        config: the configuration. To start from pretrained weights, call `from_backbone`.

    Example:
        >>> model = TopKPoolingForSequenceClassification(TopKPoolingConfig(k=4, num_labels=2))
        >>> model(input_ids=torch.tensor([[101, 2204, 102]])).logits.shape
        torch.Size([1, 2])
    """

    accepts_loss_kwargs = False  # of the losses only cross-entropy can divide by Trainer's num_items_in_batch

    def __init__(self, config: TopKPoolingConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.backbone, self.pooling = build_pooled_encoder(config)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.classifier = nn.Linear(self.pooling.hidden_size, config.num_labels)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str | Path | None = None,
        *,
        backbone_revision: str | None = None,
        backbone_sha256: str | None = None,
        backbone_dropout: float | None = None,
        attn_implementation: str | None = None,
        dtype: Dtype = torch.float32,
        **fields,
    ) -> Self:
        """Build a classifier around a pretrained encoder. The pooling and the classifier are new.

        Args:
            backbone: folder or hub name of an encoder; None: all-MiniLM-L6-v2 from its pip package, whose hash is
                checked.
            backbone_revision: branch, tag or commit of a backbone on the hub; None: its newest.
            backbone_sha256: expected SHA-256 (hex) of the model.safetensors in a folder.
            backbone_dropout: every dropout inside the encoder, in [0, 1); None: as the checkpoint says.
            attn_implementation: how the encoder computes attention: "sdpa", "eager", ...; None: as transformers
                chooses.
            dtype: of all weights, such as torch.bfloat16; by default float32, whatever the checkpoint has, as half
                precision is too coarse for the small steps of training.
            fields: of `TopKPoolingConfig`, such as k, num_labels, classifier_dropout.

        Returns:
            The model. `model.new_parameters` lists the names of the parameters that were drawn, not loaded;
            `model.backbone_commit` is the commit of a backbone on the hub.

        Raises:
            ValueError: no such model, one that is no encoder, damaged or unexpected weights, or impossible fields.
        """
        name, config = load_config(backbone, "an encoder", backbone_sha256, backbone_revision)
        if not is_encoder(config):
            raise ValueError(f"expected an encoder such as BERT in {name}, got a model of type {config.model_type}"
                             f"{instead_of(config)}")  # fmt: skip
        set_dropout(config, backbone_dropout)
        return build_around(load_encoder(name, config, dtype), cls, fields, attn_implementation, dtype)

    def save_pretrained(self, *args, **kwargs):
        # The file of this class, which travels along, is that of `TopKPoolingModel` too.
        if self._auto_class is not None:
            name = f"{TopKPoolingModel.__module__.split('.')[-1]}.{TopKPoolingModel.__name__}"
            self.config.auto_map = (getattr(self.config, "auto_map", None) or {}) | {"AutoModel": name}
        super().save_pretrained(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        past_key_values: Any = None,
        **kwargs,
    ) -> TopKPoolingClassifierOutput:
        """Classify documents of any length.

        All that is told of the tokens reaches the encoder, in every window. What it does not take is refused.

        Args:
            input_ids: [B, L] tokens.
            attention_mask: [B, L] nonzero for a real token; None: all are real. Padding may stand anywhere.
            token_type_ids: [B, L] the segment of each token, for documents of two texts. An encoder of one segment
                takes none but 0.
            position_ids: [B, L] or [1, L], if they are not to be counted from the start of each window.
            global_attention_mask: [B, L] 1 for the tokens that all others attend to, of Longformer. None: the first
                token of each window.
            inputs_embeds: [B, L, d] the tokens' embeddings, instead of input_ids.
            labels: for a loss: [B] classes or numbers, or [B, C] shares of labels in [0, 1].
            output_hidden_states: return the encoder's, of documents no longer than its window.
            output_attentions: return the encoder's, likewise.
            num_items_in_batch: what cross-entropy is divided by; None: the number of documents.
            past_key_values: refused. PEFT's prefix tuning goes around a model that has no such argument.

        Raises:
            ValueError: an input that the encoder does not take, or of another shape.
        """
        pooled, layers = self._pool(
            input_ids, attention_mask, output_hidden_states, output_attentions, token_type_ids=token_type_ids,
            position_ids=position_ids, global_attention_mask=global_attention_mask, inputs_embeds=inputs_embeds,
            past_key_values=past_key_values, **kwargs,
        )  # fmt: skip
        kept = pooled.attention_mask.unsqueeze(-1).to(pooled.hidden_states.dtype)  # [B, k, 1]
        document = (pooled.hidden_states * kept).sum(1) / kept.sum(1).clamp(min=1)  # [B, d]
        logits = self.classifier(self.dropout(document))
        if (self.config.target_mean, self.config.target_std) != (0.0, 1.0):  # in float32: bfloat16 has three digits
            logits = logits.float() * self.config.target_std + self.config.target_mean
        loss = None
        if labels is not None:
            counted = {} if num_items_in_batch is None else {"num_items_in_batch": num_items_in_batch}
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config, **counted)
            loss = with_scores(loss, pooled.scores)
        return TopKPoolingClassifierOutput.of(pooled, loss=loss, logits=logits, pooled_scores=pooled.scores, **layers)


def with_scores(loss: Tensor, scores: Tensor) -> Tensor:
    """The loss with a gradient of 0 for the scores added. A batch that fits into k slots gives them none, and DDP
    wants one.
    """
    return loss + (0 * scores).sum()


def build_pooled_encoder(config: TopKPoolingConfig) -> tuple[nn.Module, TopKPooling]:
    """Build an encoder and the pooling of its vectors, whose weights are to be loaded.

    Raises:
        ValueError: the backbone is an encoder-decoder.
    """
    backbone: Any = config.backbone
    if backbone.is_encoder_decoder:
        raise ValueError(f"expected an encoder such as BERT as backbone, got a model of type {backbone.model_type}"
                         f"{instead_of(backbone)}")  # fmt: skip
    check_window(config.window, backbone)
    read_alike(backbone)
    encoder = AutoModel.from_config(backbone, dtype=torch.get_default_dtype(), **encoder_options(backbone))
    if config.k_by_layer is not None:
        install(encoder, config.k_by_layer, **config.between_options)
    return encoder, TopKPooling(backbone.hidden_size, config.k, config.pooling_options)
