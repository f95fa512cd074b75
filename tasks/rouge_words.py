"""The words that ROUGE counts, in any script."""

import unicodedata

from rouge_score.tokenizers import DefaultTokenizer, Tokenizer

UNSPACED = (  # blocks of scripts without spaces between words
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Burmese
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3040", "\u30ff"),  # Japanese
    ("\u31f0", "\u31ff"),
    ("\u3400", "\u9fff"),  # Chinese
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)


class Words(Tokenizer):
    """Splits a text into words in lower case, those of ASCII letters stemmed (Porter).

    Of a text in ASCII they are those of the package rouge_score. Otherwise a word is a run of letters, of marks on
    them, and of digits; where a script has no spaces between words, each letter is one.

    Example:
        >>> Words().tokenize("Die Größe: 12 Äpfel, kept")
        ['die', 'größe', '12', 'äpfel', 'kept']
        >>> Words().tokenize("東京で")
        ['東', '京', 'で']
    """

    def __init__(self):
        self.of_ascii = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        if text.isascii():
            return self.of_ascii.tokenize(text)
        return [part for word in words(text) for part in (self.of_ascii.tokenize(word) if word.isascii() else [word])]


def words(text: str) -> list[str]:
    """The words of a text in any script, see `Words`, as they stand there but for their case."""
    found: list[str] = []
    inside = grows = False  # whether the last character is part of a word, which a letter after it goes on with
    for one in unicodedata.normalize("NFC", text.lower()):
        kind, alone = unicodedata.category(one), any(first <= one <= last for first, last in UNSPACED)
        letter, mark = kind[0] == "L" or kind == "Nd", inside and kind[0] == "M"
        if mark or (letter and grows and not alone):
            found[-1] += one
        elif letter:
            found.append(one)
        inside = letter or mark
        grows = inside and not alone
    return found
