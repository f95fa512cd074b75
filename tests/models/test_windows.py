"""encode_in_windows: which tokens meet which, whatever the padding."""

from types import SimpleNamespace

import pytest
import torch

from shtopk.models import encode_in_windows


class Recorder:
    """An encoder whose vector of a token is (its id, the sum of the ids it can see)."""

    def __init__(self):
        self.calls = []

    def __call__(self, input_ids, attention_mask):
        self.calls.append((input_ids, attention_mask))
        total = (input_ids * attention_mask).sum(-1, keepdim=True).expand_as(input_ids)
        return SimpleNamespace(last_hidden_state=torch.stack([input_ids, total], -1).float())


def run(rows, length, window, side="right", at_once=8):
    ids, mask = torch.zeros(2, len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(0, len(row)) if side == "right" else slice(length - len(row), length)
        ids[i, place], mask[i, place] = torch.tensor(row), 1
    encoder = Recorder()
    vectors = encode_in_windows(encoder, ids, mask, window, at_once)
    return [v[m.bool()].tolist() for v, m in zip(vectors, mask, strict=True)], encoder


def expected(row, window):
    count = -(-len(row) // window)
    size = -(-len(row) // count)
    parts = [row[i : i + size] for i in range(0, len(row), size)]
    return [[float(token), float(sum(part))] for part in parts for token in part]


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_are_cut_into_even_windows_wherever_the_padding_stands(side):
    rows = [list(range(1, 22)), list(range(50, 58)), [7]]
    vectors, _ = run(rows, 25, 8, side)
    assert vectors == [expected(row, 8) for row in rows]


def test_holes_in_the_mask_are_no_tokens():
    ids, mask = torch.arange(1, 21).unsqueeze(0), torch.ones(1, 20, dtype=torch.long)
    mask[0, [3, 4, 11]] = 0
    vectors = encode_in_windows(Recorder(), ids, mask, 8)
    assert vectors[mask.bool()].tolist() == expected(ids[mask.bool()].tolist(), 8)
    assert (vectors[~mask.bool()] == 0).all()


def test_no_call_sees_more_than_the_window_or_more_windows_than_allowed():
    _, encoder = run([list(range(1, 60)), [1, 2, 3]], 60, 7, at_once=4)
    assert all(ids.shape[0] <= 4 and ids.shape[1] <= 7 for ids, _ in encoder.calls)
    assert sum(int(mask.sum()) for _, mask in encoder.calls) == 62


def test_what_fits_is_encoded_in_one_call():
    _, encoder = run([[1, 2, 3], [4]], 8, 8)
    assert [tuple(ids.shape) for ids, _ in encoder.calls] == [(2, 8)]


def test_a_batch_of_nothing_but_padding_is_zero():
    vectors, encoder = run([[], []], 12, 5)
    assert vectors == [[], []]
    assert all(ids.shape[0] > 0 for ids, _ in encoder.calls)


@pytest.mark.parametrize(("window", "at_once"), [(0, 8), (5, 0)])
def test_impossible_windows_are_refused(window, at_once):
    with pytest.raises(ValueError, match=">= 1, got 0"):
        run([[1, 2, 3]], 12, window, at_once=at_once)


def test_an_empty_row_gets_no_window():
    vectors, encoder = run([[], list(range(1, 11))], 12, 5)
    assert vectors[0] == []
    assert all((mask.sum(-1) > 0).all() for _, mask in encoder.calls)
