"""What the tokens of a language are, for tokenizers of each kind."""

import pytest
from transformers import MBart50Tokenizer, MBartTokenizer, NllbTokenizer

from shtopk.models.languages import begin_in, language_token, set_languages


class Model:
    class generation_config:
        forced_bos_token_id = decoder_start_token_id = None


@pytest.mark.parametrize(("kind", "source", "target", "setting"), [
    (MBart50Tokenizer, "en_XX", "ro_RO", "forced_bos_token_id"),
    (NllbTokenizer, "eng_Latn", "ron_Latn", "forced_bos_token_id"),
    (MBartTokenizer, "en_XX", "ro_RO", "decoder_start_token_id"),  # its targets end with the language
])  # fmt: skip
def test_a_model_begins_in_the_target_language_as_its_tokenizer_wants(kind, source, target, setting):
    tokenizer = kind()
    set_languages(tokenizer, source, target)
    begin_in(Model, tokenizer, target)
    token = tokenizer.convert_tokens_to_ids(target)
    names = ("forced_bos_token_id", "decoder_start_token_id")
    found = {name: getattr(Model.generation_config, name) for name in names}
    Model.generation_config.forced_bos_token_id = Model.generation_config.decoder_start_token_id = None
    assert found == dict.fromkeys(found) | {setting: token}
    assert token in tokenizer(text_target="")["input_ids"] and token not in tokenizer("")["input_ids"]


def test_without_a_target_summaries_are_in_the_language_of_the_documents():
    tokenizer = MBart50Tokenizer()
    set_languages(tokenizer, "fr_XX", None)
    assert (tokenizer.src_lang, tokenizer.tgt_lang) == ("fr_XX", "fr_XX")


def test_the_languages_of_m2m_have_tokens_of_other_names():
    class Tokenizer:
        src_lang, lang_code_to_token = "en", {"en": "__en__", "fr": "__fr__"}

        def convert_tokens_to_ids(self, token):
            return {"__en__": 5, "__fr__": 6}[token]

    assert language_token(Tokenizer(), "fr") == 6
    with pytest.raises(ValueError, match="got 'french'; did you mean fr"):
        language_token(Tokenizer(), "french")
    with pytest.raises(ValueError, match="to be a language of the tokenizer, got '__fr__'"):
        language_token(Tokenizer(), "__fr__")
