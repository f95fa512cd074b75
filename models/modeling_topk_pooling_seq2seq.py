"""The encoder-decoder whose decoder sees only the k token vectors that were kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, GenerationConfig, GenerationMixin
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.utils import can_return_tuple

from shtopk import TopKPooling
from shtopk.integrations.encoder import install

from .backbone import Dtype, build_around, instead_of, is_encoder, load_backbone, read_alike, set_dropout
from .configuration_topk_pooling import TopKPoolingSeq2SeqConfig
from .copy_head import CopyHead
from .inputs import argument_names, checked_inputs
from .join import join
from .modeling_topk_pooling import TopKPoolingPreTrainedModel, with_scores
from .outputs import PooledEncoderOutput
from .pretrained import load_config
from .windows import check_window, pool_document, positions_of, window_of

OF_LAYERS = frozenset({"output_hidden_states", "output_attentions"})
UNFIT = {  # the type of an encoder-decoder, and why its decoder cannot see pooled vectors
    "nllb-moe": "whose loss needs what the routers of its encoder said of every token",
    "switch_transformers": "whose loss needs what the routers of its encoder said of every token",
    "fsmt": "whose encoder has no configuration of its own",
    "t5gemma2": "whose encoder reads pictures, too",
}

DECODER_LAYERS = 2  # of a decoder that starts from an encoder's layers, unless another number is asked for


class PooledEncoder(nn.Module):
    """An encoder and a pooling, which together look like one encoder whose output is shorter than its input."""

    main_input_name = "input_ids"

    def __init__(self, encoder: nn.Module, pooling: TopKPooling, config: TopKPoolingSeq2SeqConfig):
        super().__init__()
        self.encoder, self.pooling, self.config = encoder, pooling, config

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
        **kwargs: Tensor | None,
    ) -> PooledEncoderOutput:
        """Encode documents [B, L] of any length and pool them to k.

        Args:
            input_ids: [B, L] the documents.
            attention_mask: [B, L] nonzero for a real token; None: all are real.
            output_hidden_states: give the encoder's, too, if it reads the documents in one window.
            output_attentions: likewise.
            return_dict: of no effect, as labels; `generate` hands both on.
            labels: see return_dict.
            kwargs: further inputs of the encoder, see `TopKPoolingForConditionalGeneration.forward`.
        """
        inputs = checked_inputs(self.encoder, input_ids, attention_mask, kwargs)
        window = window_of(self.encoder, self.config)
        whole = self.config.window_k is None and (window is None or inputs["attention_mask"].shape[1] <= window)
        asked = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions} if whole else {}
        pooled, layers = pool_document(self.encoder, self.pooling, inputs, self.config, **asked)
        # In ONNX an input that is an output would get another name.
        documents = None if torch.onnx.is_in_onnx_export() else input_ids
        return PooledEncoderOutput.of(pooled, scores=pooled.scores, input_ids=documents, **layers)


class BackboneGenerationConfig(GenerationConfig):
    """Generation settings from the backbone's configuration: in ours, `temperature` is the pooling's."""

    @classmethod
    def from_model_config(cls, model_config) -> GenerationConfig:
        backbone = model_config["backbone"] if isinstance(model_config, dict) else model_config.backbone
        return GenerationConfig.from_model_config(backbone)


class TopKPoolingForConditionalGeneration(TopKPoolingPreTrainedModel, GenerationMixin):
    """Any encoder-decoder whose decoder sees, by cross-attention, the k vectors that the encoder's are pooled to.

    A document longer than `config.window` is read in windows and pooled as a whole: nothing is cut off. The decoder's
    cost depends on k, not on the length of the document.

    Args:
        config: the configuration. To start from pretrained weights, call `from_backbone`.

    Example:
        >>> from transformers import BartConfig
        >>> bart = BartConfig(vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1)
        >>> model = TopKPoolingForConditionalGeneration(TopKPoolingSeq2SeqConfig(backbone=bart, k=4))
        >>> model.generate(torch.tensor([[5, 6, 7, 8, 9, 2]]), max_new_tokens=3, min_new_tokens=3).shape
        torch.Size([1, 4])
    """

    config_class = TopKPoolingSeq2SeqConfig
    generation_config_class = BackboneGenerationConfig
    accepts_loss_kwargs = False  # BART and T5 take Trainer's num_items_in_batch and ignore it

    def __init__(self, config: TopKPoolingSeq2SeqConfig):
        super().__init__(config)
        check_family(config.backbone)
        read_alike(config.backbone)
        self.backbone = AutoModelForSeq2SeqLM.from_config(config.backbone, dtype=torch.get_default_dtype())
        encoder = self.backbone.get_encoder()
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # of BERT: nothing would train it, which DDP refuses
        check_window(config.window, encoder.config)
        if config.k_by_layer is not None:
            encoder.layerdrop = 0.0  # of BART: where it dropped all the layers above, nothing would be pooled
            install(encoder, config.k_by_layer, **config.between_options)
        self.pooling = TopKPooling(encoder.config.hidden_size, config.k, config.pooling_options)
        if config.copy_head:
            decoder = config.get_text_config(decoder=True)
            self.copy_head = CopyHead(decoder.hidden_size, encoder.config.hidden_size)
        self.post_init()

    @classmethod
    def from_backbone(
        cls,
        backbone: str | Path | None = None,
        *,
        decoder: str | Path | None = None,
        decoder_layers: int = DECODER_LAYERS,
        backbone_revision: str | None = None,
        backbone_sha256: str | None = None,
        backbone_dropout: float | None = None,
        attn_implementation: str | None = None,
        dtype: Dtype = torch.float32,
        **fields,
    ) -> Self:
        """Build a summarizer around pretrained models. The pooling is new.

        Args:
            backbone: folder or hub name of an encoder-decoder, such as BART, T5 or LED, or of an encoder, which is
                then joined with a decoder as in transformers' `EncoderDecoderModel`. None: all-MiniLM-L6-v2 from its
                pip package, whose hash is checked.
            decoder: for an encoder: folder or hub name of a language model with the encoder's vocabulary, to be the
                decoder. None: a decoder that starts from layers of the encoder. Cross-attention is new in both.
            decoder_layers: layers of a decoder that starts from the encoder's.
            backbone_revision: branch, tag or commit of a backbone on the hub; None: its newest.
            backbone_sha256: expected SHA-256 (hex) of the model.safetensors in a folder.
            backbone_dropout: every dropout inside the backbone, in [0, 1); None: as the checkpoint says.
            attn_implementation: how the backbone computes attention: "sdpa", "eager", ...; None: as transformers
                chooses.
            dtype: of all weights, such as torch.bfloat16; by default float32, whatever the checkpoint has, as half
                precision is too coarse for the small steps of training.
            fields: of `TopKPoolingSeq2SeqConfig`, such as k, window, copy_head.

        Returns:
            The model. `model.new_parameters` lists the names of the parameters that were drawn, not loaded;
            `model.backbone_commit` is the commit of a backbone on the hub.

        Raises:
            ValueError: no such model, one of another kind, damaged or unexpected weights, or impossible fields.
        """
        name, config = load_config(backbone, "a model", backbone_sha256, backbone_revision)
        set_dropout(config, backbone_dropout)
        if type(config) in AutoModelForSeq2SeqLM._model_mapping:
            check_family(config)
            if decoder is not None:
                raise ValueError(f"expected no decoder beside {name}, which has one; got {decoder}")
            if decoder_layers != DECODER_LAYERS:
                raise ValueError(f"expected no decoder_layers beside {name}, whose decoder is whole; "
                                 f"got {decoder_layers}")  # fmt: skip
            loaded = load_backbone(AutoModelForSeq2SeqLM, name, config, dtype)
        elif is_encoder(config):
            loaded = join(name, config, decoder, decoder_layers, backbone_dropout, dtype)
        else:
            raise ValueError(
                f"expected an encoder-decoder such as BART or T5 in {name}, or an encoder such as BERT to join a "
                f"decoder to; got a model of type {config.model_type}{instead_of(config)}"
            )
        return build_around(loaded, cls, fields, attn_implementation, dtype)

    @property
    def encoder(self) -> nn.Module:
        return self.backbone.get_encoder()

    @property
    def generation_start(self) -> int | None:
        """The token that the decoder starts from."""
        return self.generation_config.decoder_start_token_id

    def set_generation(self, *, max_new_tokens: int, **options) -> None:
        """Set how `generate` works by default. The settings are saved with the model.

        Args:
            max_new_tokens: of a summary.
            options: further settings of transformers' `GenerationConfig`; those that are None stay as they are.

        Raises:
            ValueError: more tokens than the decoder has positions for, or an option that transformers refuses.
        """
        decoder = self.config.backbone.get_text_config(decoder=True)
        positions = getattr(decoder, "max_decoder_position_embeddings", None) or positions_of(decoder)
        if positions is not None and max_new_tokens >= positions:
            raise ValueError(f"expected summaries of less than {positions} tokens, as the decoder has positions; "
                             f"got {max_new_tokens}; lower max_summary_tokens")  # fmt: skip
        given = {name: value for name, value in options.items() if value is not None}
        if given.get("num_beams") == 1:  # a checkpoint's options for several beams would be refused
            given |= {"early_stopping": False, "length_penalty": 1.0}
        if (self.generation_config.min_length or 0) >= max_new_tokens:
            given["min_length"] = 0
        if "min_new_tokens" not in given and (self.generation_config.min_new_tokens or 0) > max_new_tokens:
            given["min_new_tokens"] = 0
        self.generation_config.update(max_length=None, max_new_tokens=max_new_tokens, **given)
        try:
            self.generation_config.validate(strict=True)
        except ValueError as error:
            raise ValueError(" ".join(str(error).split())) from error

    def get_encoder(self, modality=None) -> PooledEncoder:
        return PooledEncoder(self.encoder, self.pooling, self.config)

    def get_output_embeddings(self):
        return self.backbone.get_output_embeddings()

    def set_output_embeddings(self, value):
        self.backbone.set_output_embeddings(value)

    def resize_token_embeddings(self, *args, **kwargs) -> nn.Module:
        embeddings = self.backbone.resize_token_embeddings(*args, **kwargs)  # it may have more to resize than these
        self.config.backbone = self.backbone.config
        return embeddings

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """What the decoder is given to predict labels [B, T], as the backbone makes it: shifted to the right."""
        if hasattr(self.backbone, "prepare_decoder_input_ids_from_labels"):
            return self.backbone.prepare_decoder_input_ids_from_labels(labels)
        config: Any = self.config.backbone
        start = torch.full_like(labels[:, :1], config.decoder_start_token_id)
        shifted = torch.cat([start, labels[:, :-1]], dim=1)
        return shifted.masked_fill(shifted == -100, config.pad_token_id)

    def _prepare_cache_for_generation(self, *args, **kwargs):
        """As the backbone does: the cache of T5Gemma's cross-attention has no window, whatever its decoder's has."""
        return self.backbone._prepare_cache_for_generation(*args, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        labels: Tensor | None = None,
        encoder_outputs: PooledEncoderOutput | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        global_attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs,
    ) -> Seq2SeqLMOutput:
        """Read documents of any length and predict their targets.

        All that is told of the tokens reaches the encoder, in every window, in `generate` too. What it does not take
        is refused. Beside encoder_outputs none of it is needed.

        Args:
            input_ids: [B, L] the documents; not needed beside encoder_outputs.
            attention_mask: [B, L] nonzero for a real token; None: all are real.
            decoder_input_ids: [B, T] the targets so far; None: made from the labels.
            labels: [B, T] for a loss, which is the backbone's; -100 for tokens that are not to count.
            encoder_outputs: the answer of `get_encoder()`, to read a document only once.
            token_type_ids: [B, L] the segment of each token. An encoder of one segment takes none but 0.
            position_ids: [B, L] or [1, L], if they are not to be counted from the start of each window.
            global_attention_mask: [B, L] 1 for the tokens that all others attend to, of LED. None: the first token of
                each window.
            inputs_embeds: [B, L, d] the tokens' embeddings, instead of input_ids; not with a copy head.
            kwargs: passed to the backbone's decoder.

        Returns:
            The backbone's output, with encoder_last_hidden_state [B, k, d]. With a copy head, logits are
            log-probabilities; they are None in training mode with labels.

        Raises:
            ValueError: an input that the backbone does not take, or of another shape.
        """
        self._check_kwargs(kwargs)
        if labels is not None:  # a cache serves generation alone, and would be filled twice by a layer that runs again
            kwargs = {"use_cache": False} | kwargs
        if encoder_outputs is None:
            if input_ids is None and inputs_embeds is None:
                raise ValueError("expected input_ids [B, L] or encoder_outputs, got neither")
            encoder_outputs = self.get_encoder()(
                input_ids, attention_mask, token_type_ids=token_type_ids, position_ids=position_ids,
                global_attention_mask=global_attention_mask, inputs_embeds=inputs_embeds,
                **{name: kwargs.get(name, getattr(self.config, name)) for name in OF_LAYERS},
            )  # fmt: skip
        elif not isinstance(encoder_outputs, PooledEncoderOutput):
            raise ValueError("expected encoder_outputs of this model's get_encoder(), which say what was kept; "
                             f"got {type(encoder_outputs).__name__}")  # fmt: skip
        if self.config.copy_head and encoder_outputs.input_ids is None:
            raise ValueError("expected input_ids, from which the copy head copies; got inputs_embeds")
        read: Any = encoder_outputs.last_hidden_state, encoder_outputs.hidden_states, encoder_outputs.attentions
        if self.config.backbone.model_type != "led":  # which takes its own output or a tuple
            read = BaseModelOutput(*read)
        seen = {"encoder_outputs": read, "attention_mask": encoder_outputs.attention_mask}
        if not self.config.copy_head:
            out = self.backbone(**seen, decoder_input_ids=decoder_input_ids, labels=labels, **kwargs)
        else:
            if decoder_input_ids is None and labels is not None and kwargs.get("decoder_inputs_embeds") is None:
                decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
            out = self.backbone(**seen, decoder_input_ids=decoder_input_ids, **kwargs | {"output_hidden_states": True})
            seen_by_head = out.logits, out.decoder_hidden_states[-1], encoder_outputs
            if labels is not None:
                out.loss = self.copy_head.loss(*seen_by_head, labels)
            # A training step needs no logits, and they cost more than the loss.
            out.logits = None if self.training and labels is not None else self.copy_head(*seen_by_head)
            if not kwargs.get("output_hidden_states", self.config.output_hidden_states):
                out.decoder_hidden_states = None
        if out.loss is not None:
            scores: Any = encoder_outputs.scores
            out.loss = with_scores(out.loss, scores)
        return out

    def _check_kwargs(self, kwargs: dict[str, Any]) -> None:
        """Raise ValueError for an argument that the backbone would ignore."""
        names = (argument_names(self.backbone) or frozenset()) | OF_LAYERS | {"use_cache"}  # which generate gives
        if self.config.backbone.model_type == "encoder-decoder":  # it hands these on
            names |= {f"decoder_{name}" for name in argument_names(self.backbone.get_decoder()) or ()}
        unknown = sorted(name for name, value in kwargs.items() if value is not None and name not in names)
        if unknown:
            raise ValueError(f"expected arguments of {type(self.backbone).__name__}, got {', '.join(unknown)}; "
                             "leave it out")  # fmt: skip


def check_family(config: Any) -> None:
    """Raise ValueError for the configuration of a model whose decoder cannot see pooled vectors instead of tokens."""
    why = UNFIT.get(config.model_type) or ("" if config.is_encoder_decoder else "which is no encoder-decoder")
    if why:
        raise ValueError(f"expected an encoder-decoder of text such as BART or T5, got one of type "
                         f"{config.model_type}, {why}; name another")  # fmt: skip
