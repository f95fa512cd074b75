"""Load a model that pools, and its tokenizer, from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from shtopk.models import TopKPoolingForConditionalGeneration, TopKPoolingForSequenceClassification

MODELS = {
    model_class.config_class.model_type: model_class
    for model_class in (TopKPoolingForSequenceClassification, TopKPoolingForConditionalGeneration)
}


def load_checkpoint(checkpoint: str | Path):
    """(model in eval mode, tokenizer) of a checkpoint that `train.py` wrote.

    Only safetensors are read, and the model's code is that of `shtopk.models`: the code that a checkpoint carries for
    other programs is not run.

    Args:
        checkpoint: a folder.

    Raises:
        ValueError: no checkpoint, a damaged or incomplete one, or one of another model.
    """
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a checkpoint with a config.json in {folder}, found none")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            if config.model_type not in MODELS:
                raise ValueError(f"expected a model of type {' or '.join(MODELS)}, got {config.model_type}")
            model, report = MODELS[config.model_type].from_pretrained(
                folder, config=config, use_safetensors=True, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        if report["missing_keys"]:
            raise ValueError(f"the weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
        words, vectors = len(tokenizer), model.get_input_embeddings().weight.shape[0]
        if not tokenizer.is_fast or words > vectors:
            raise ValueError(f"expected a fast tokenizer of at most {vectors} words, got one of {words}")
    except Exception as error:  # a damaged file can fail in any layer below
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "the model needs code that lies in the checkpoint, which is never run"
        elif "ignore_mismatched_sizes" in reason:
            reason = "the weights have other shapes than config.json says"
        raise ValueError(f"cannot load the checkpoint {folder}: {reason[:300]}") from error
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers; errors are still raised."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
