"""Load a model that pools from a checkpoint, and show what it keeps of a document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from shtopk.integrations.describe import describe, describe_summary
from shtopk.show import page, summary_page

AUTO_CLASSES = {
    "topk_pooling": AutoModelForSequenceClassification,
    "topk_pooling_seq2seq": AutoModelForSeq2SeqLM,
}


def load_checkpoint(checkpoint: str | Path, *, trust_remote_code: bool = False):
    """(model in eval mode, tokenizer) of a checkpoint that `train.py` wrote. Reads safetensors alone.

    Args:
        checkpoint: a folder.
        trust_remote_code: allow the model code that lies in the checkpoint to run. Not needed where the class is
            registered already (`import shtopk.models`).

    Raises:
        ValueError: no checkpoint, a damaged or incomplete one, one of another model, or one whose code was not
            allowed to run.
    """
    folder = Path(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"expected a checkpoint with a config.json in {folder}, found none")
    try:
        with quiet():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
            if config.model_type not in AUTO_CLASSES:
                raise ValueError(f"expected a model of type {' or '.join(AUTO_CLASSES)}, got {config.model_type}")
            model, report = AUTO_CLASSES[config.model_type].from_pretrained(
                folder,
                config=config,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        if report["missing_keys"]:
            raise ValueError(f"its weights lack {', '.join(sorted(report['missing_keys'])[:3])}")
        words, vectors = len(tokenizer), model.get_input_embeddings().weight.shape[0]
        if not tokenizer.is_fast or words > vectors:
            raise ValueError(f"expected a fast tokenizer of at most {vectors} words, got one of {words}")
    except Exception as error:  # a damaged file can fail in any layer below
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = "it carries its own model code; add --trust-remote-code if you trust where it comes from"
        elif "ignore_mismatched_sizes" in reason:
            reason = "its weights have other shapes than its config.json says"
        raise ValueError(f"cannot load the checkpoint {folder}: {reason[:300]}") from error
    return model.eval(), tokenizer


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and reports of transformers; what matters in them is said as an error."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def show_document(model, tokenizer, text: str, **options) -> str:
    """An HTML page with the document, the tokens kept and what the model makes of them; see `answer_and_page`."""
    return answer_and_page(model, tokenizer, text, **options)[1]


def answer_and_page(
    model,
    tokenizer,
    text: str,
    *,
    label: str | None = None,
    reference: str | None = None,
    title: str | None = None,
    max_tokens: int | None = None,
) -> tuple[str, str]:
    """(what the model answers, in one line; an HTML page that shows what it kept of the document for that).

    Args:
        model: a classifier with a `TopKPooling` named `pooling` (see `shtopk.show.page`), or a summarizer whose
            encoder pools (see `shtopk.show.summary_page`); it is put into eval mode.
        tokenizer: its fast tokenizer.
        text: the document, of any length, empty too.
        label: its true class, if known and the model a classifier.
        reference: a summary to compare with, if known and the model a summarizer.
        title: headline; by default the first line of the text.
        max_tokens: as many of the document the model reads; None: all.
    """
    first_line = text.strip().split("\n")[0]
    if len(first_line) > 70:
        first_line = first_line[:70].rsplit(" ", 1)[0] + " …"
    title = title or first_line or "An empty document"
    if model.can_generate():
        parts = describe_summary(model, tokenizer, text, max_tokens)
        answer = " ".join("".join(token.text for token in parts["tokens"]).split())
        return answer or "no summary", summary_page(**parts, reference=reference, title=title)
    parts = describe(model, tokenizer, text, max_tokens)
    name, probability = max(parts["probabilities"], key=lambda pair: pair[1])
    return f"{name} ({100 * probability:.1f} %)", page(**parts, label=label, title=title)
