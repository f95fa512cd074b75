"""A registry among documentation: rooms and their numbers, which are asked for when the text has been read.

A prompt of n words is documentation of libraries in which some facts stand, such as `the number of 17 40 71 .`.
After it all rooms are asked for, one after the other, in another order: `? 17 40 71`. Nobody can know while reading
which one will be asked for first, and of the documentation nothing ever is. A word is a token. A room is one of 100
codes and its number are two of them, drawn anew for every prompt. Other codes stand in the text as well, such as `see
page 05 33 92 ,`. They are never asked for, but a model in general would be: `anything` draws prompts where every kind
of sentence may be asked about. So what matters is for a use to say, and not to be seen in a model that knows no use.
"""

import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from shtopk.tasks import filler

WORDS, CODES, FACTS, PARTS = 1000, 100, 8, 2
PLACES = {"train": (0.0, 0.8), "test": (0.8, 1.0)}  # of the files of the libraries
STREAM = {"train": 600_000, "test": 60_000}  # words read
FORMS = ("the number of {room} {number} .", "call {room} {number} ;", "entry : {room} {number} .")
OTHERS = ("see page {room} {number} ,", "figure {room} {number} ,")
APART = 24  # words for each of the others
SPECIAL = ("<pad>", "<s>", "?", "<unk>")
_WORD = re.compile(r"[a-z]+|[^\w\s]")


class Batch(NamedTuple):
    """Prompts and what is asked behind them.

    Attributes:
        tokens: [B, n + a] the prompt, then for each fact `?`, its room and its number.
        labels: [B, n + a] the numbers in the answers, -100 elsewhere.
        prompt: [B, n + a] 1 for the prompt.
    """

    tokens: Tensor
    labels: Tensor
    prompt: Tensor

    @property
    def words(self) -> int:
        """n."""
        return int(self.prompt[0].sum())


class Registry:
    """Draws prompts.

    Args:
        split: train or test, which read other files.
        seed: of what is drawn.
    """

    def __init__(self, split: str, seed: int):
        train = _stream("train")
        common = [word for word, _ in Counter(train).most_common(WORDS)]
        needed = {word for form in FORMS + OTHERS for word in form.split() if "{" not in word}
        codes = [f"{i:02}" for i in range(CODES)]
        vocabulary = [*SPECIAL, *sorted({*common} | needed), *codes]
        self.number = {word: i for i, word in enumerate(vocabulary)}
        unknown = self.number["<unk>"]
        text = train if split == "train" else _stream(split)
        self.text = torch.tensor([self.number.get(word, unknown) for word in text])
        self.codes = torch.tensor([self.number[code] for code in codes])
        self.draw = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.number)

    def batch(self, size: int, n: int, facts: int = FACTS, anything: bool = False) -> Batch:
        """Draw prompts of n words with so many facts that are asked for.

        Args:
            size: prompts.
            n: words of each.
            facts: asked for in each.
            anything: whether the sentences of what is asked for, and of what is not, have any of all forms.
        """
        forms = (FORMS + OTHERS, FORMS + OTHERS) if anything else (FORMS, OTHERS)
        rows = [self._row(n, facts, *forms) for _ in range(size)]
        tokens, labels = (torch.stack(part) for part in zip(*rows, strict=True))
        return Batch(tokens, labels, (torch.arange(tokens.shape[1]) < n).long().expand_as(tokens))

    def _row(self, n: int, facts: int, of_asked: tuple[str, ...], of_others: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        codes = self.codes[torch.randperm(CODES, generator=self.draw)]
        asked, rest = codes[: facts * (1 + PARTS)].view(facts, -1), codes[facts * (1 + PARTS) :]
        rooms, numbers = asked[:, 0], asked[:, 1:]
        others = rest[self._below(len(rest), n // APART, 1 + PARTS)]
        told = [self._sentence(of_asked, its) for its in asked] + [self._sentence(of_others, its) for its in others]
        told = [told[i] for i in torch.randperm(len(told), generator=self.draw).tolist()]
        room = n - 1 - sum(map(len, told))
        start = int(self._below(len(self.text) - room))
        cuts = [0, *self._below(room + 1, len(told)).sort().values.tolist(), room]
        filling = self.text[start : start + room]
        parts = [torch.tensor([self.number["<s>"]])]
        for i in range(len(told) + 1):
            parts += [filling[cuts[i] : cuts[i + 1]], *told[i : i + 1]]
        ignored = torch.full((n,), -100)
        labels = [ignored]
        for i in torch.randperm(facts, generator=self.draw).tolist():
            parts += [torch.tensor([self.number["?"], int(rooms[i])]), numbers[i]]
            labels += [ignored[:2], numbers[i]]
        return torch.cat(parts), torch.cat(labels)

    def _sentence(self, forms: tuple[str, ...], codes: Tensor) -> Tensor:
        """One of the forms with a room and its number in it."""
        room, *number = codes.tolist()
        words: list[int] = []
        for word in forms[int(self._below(len(forms)))].split():
            words += {"{room}": [room], "{number}": number}.get(word) or [self.number[word]]
        return torch.tensor(words)

    def _below(self, high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=self.draw)


@cache
def _stream(split: str) -> list[str]:
    return [word for _, word in zip(range(STREAM[split]), _words(split), strict=False)]


def _words(split: str) -> Iterator[str]:
    for paragraphs in filler.passages(*PLACES[split]):
        yield from _WORD.findall(" ".join(paragraphs).lower())
