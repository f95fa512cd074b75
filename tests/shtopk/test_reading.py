"""Texts with a prefix or a second text become tokens, and windows begin as they should."""

import pytest
import torch
from tiny import tiny_tokenizer
from transformers import BertConfig

from shtopk.integrations.reading import Reading, read_texts
from shtopk.models import TopKPoolingConfig, TopKPoolingForSequenceClassification
from shtopk.models.windows import Windows, reading_of

LONG = " ".join("abcdefghijkl" * 3)
CLS, SEP, A = 2, 3, 4  # the numbers of [CLS], [SEP] and "a"


def windows_of(row, window):
    """The tokens of each window that a model cuts a row into."""
    ids = torch.tensor([row])
    cut = Windows.cut({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, window)
    real = cut.inputs["attention_mask"].bool()
    return [ids[there].tolist() for ids, there in zip(cut.inputs["input_ids"], real, strict=True)]


@pytest.mark.parametrize("window", range(10, 40))
@pytest.mark.parametrize("words", [1, 2, 7, 36])
def test_the_first_text_of_a_pair_stands_in_front_of_every_window(window, words):
    tokenizer = tiny_tokenizer()
    text = " ".join(LONG.split()[:words])
    read = read_texts(tokenizer, ["a b"], [text], reading=Reading("", window, True))
    parts = windows_of(read["input_ids"][0], window)
    assert all(part[:4] == [CLS, A, A + 1, SEP] and part[-1] == SEP for part in parts)
    inside = [token for part in parts for token in part[4:-1]]
    assert inside == tokenizer(text, add_special_tokens=False)["input_ids"]
    assert read["length"] == [5 + words] and (len(parts) == 1) == (5 + words <= window)
    assert read["token_type_ids"][0] == [one for part in parts for one in [0] * 4 + [1] * (len(part) - 4)]


@pytest.mark.parametrize("window", range(7, 40))
def test_a_prefix_stands_in_front_of_every_window(window):
    tokenizer = tiny_tokenizer()
    read = read_texts(tokenizer, [LONG], reading=Reading("a ", window), spans=True)
    parts = windows_of(read["input_ids"][0], window)
    assert len(parts) > (window < 39) and all(part[:2] == [CLS, A] and part[-1] == SEP for part in parts)
    inside = [token for part in parts for token in part[2:-1]]
    assert inside == tokenizer(LONG, add_special_tokens=False)["input_ids"]
    assert "".join(LONG[start:end] for start, end in read["spans"][0]) == LONG.replace(" ", "")


def test_without_a_window_a_prefix_is_part_of_the_text():
    tokenizer = tiny_tokenizer()
    assert read_texts(tokenizer, ["b c"], reading=Reading("a "))["input_ids"] == tokenizer(["a b c"])["input_ids"]


def test_a_first_text_of_more_than_half_a_window_is_read_once():
    tokenizer = tiny_tokenizer()
    (row,) = read_texts(tokenizer, [LONG], [LONG], reading=Reading("", 32))["input_ids"]
    assert row == tokenizer(LONG, LONG)["input_ids"]


def test_of_a_pair_that_is_too_long_the_longer_text_is_cut():
    (row,) = read_texts(tiny_tokenizer(), ["a b c"], [LONG], max_tokens=12)["input_ids"]
    assert row == [CLS, A, A + 1, A + 2, SEP, *range(A, A + 6), SEP]
    read = read_texts(tiny_tokenizer(), ["a b"], ["c d e"], max_tokens=7, spans=True)
    assert read["cut"] == [True] and len(read["input_ids"][0]) == 7
    assert read["spans"] == [[(0, 0), (0, 1), (2, 3), (0, 0), (4, 5), (6, 7), (0, 0)]]


@pytest.mark.parametrize(("given", "message"), [
    ({"reading": Reading(f"{LONG} ", 32)}, "a prefix that takes at most half of a window of 32 tokens, got 38"),
    ({"reading": Reading("a b "), "max_tokens": 4}, "max_tokens > 4, the special tokens and the prefix, got 4"),
    ({"max_tokens": 2}, "max_tokens > 2, the special tokens, got 2"),
])  # fmt: skip
def test_what_leaves_no_room_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        read_texts(tiny_tokenizer(), [LONG], **given)


def test_a_model_says_how_it_reads():
    bert = BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)
    for window, found in ((None, 512), (64, 64)):
        config = TopKPoolingConfig(backbone=bert, window=window, source_prefix="sum: ")
        assert reading_of(TopKPoolingForSequenceClassification(config)) == Reading("sum: ", found, True)
