"""The languages of tokenizers and models that know many, such as mBART, M2M and NLLB."""

from __future__ import annotations

import difflib
from typing import Any


def set_languages(tokenizer: Any, source: str | None, target: str | None) -> None:
    """Tell a tokenizer the languages of documents and of summaries or translations. It saves them with its files.

    Args:
        tokenizer: of mBART, M2M, NLLB or another model of many languages.
        source: the code of the documents' language, as the tokenizer writes it ("en_XX", "en", "eng_Latn"); None: as
            the tokenizer has it.
        target: likewise, of what is written; None: that of the documents.

    Raises:
        ValueError: the tokenizer knows no languages, or not this one.

    Example:
        >>> set_languages(tokenizer, "en_XX", "ro_RO")  # doctest: +SKIP
    """
    for name, attribute, code in (("source_lang", "src_lang", source), ("target_lang", "tgt_lang", target)):
        if code is not None:
            language_token(tokenizer, code, name)
            setattr(tokenizer, attribute, code)
    if source is not None and target is None:
        tokenizer.tgt_lang = source


def language_token(tokenizer: Any, code: str, name: str = "language") -> int:
    """The number of a language's token.

    Args:
        name: what a message calls the code.

    Raises:
        ValueError: the tokenizer knows no languages, or not this one.
    """
    if not hasattr(tokenizer, "src_lang"):
        raise ValueError(f"expected a tokenizer of many languages, as of mBART, M2M or NLLB, for {name} {code}; got "
                         f"{type(tokenizer).__name__}; leave it out")  # fmt: skip
    tokens = getattr(tokenizer, "lang_code_to_token", None)  # of M2M
    if tokens is None:
        codes = getattr(tokenizer, "lang_code_to_id", None) or tokenizer.get_added_vocab()
        tokens = {one: one for one in codes if one not in tokenizer.SPECIAL_TOKENS_ATTRIBUTES}
    if code not in tokens:
        close = difflib.get_close_matches(code, tokens, 3, 0.4)
        meant = f"; did you mean {' or '.join(close)}?" if close else ""
        raise ValueError(f"expected {name} to be a language of the tokenizer, got {code!r}{meant}")
    return tokenizer.convert_tokens_to_ids(tokens[code])


def begin_in(model: Any, tokenizer: Any, target: str) -> None:
    """Let a model generate in the tokenizer's target language. The setting is saved with the model.

    Where targets begin with the language's token (mBART-50, M2M, NLLB), it is forced to be the first one that is
    generated; where they end with it (mBART), the decoder starts from it.

    Args:
        model: with a `generation_config`.
        tokenizer: see `set_languages`.
        target: the language's code.
    """
    token = language_token(tokenizer, target, "target_lang")
    if tokenizer(text_target="")["input_ids"][0] == token:
        model.generation_config.forced_bos_token_id = token
    else:
        model.generation_config.decoder_start_token_id = token
