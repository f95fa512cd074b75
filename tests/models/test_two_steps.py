"""Pooling in two steps, in windows."""

import pytest
import torch
from seq2seq_families import V, build, documents

from shtopk import TopKPooling
from shtopk.models import pool_in_windows


class Embedding(torch.nn.Module):
    """An encoder that looks at one token at a time, so that windows make no difference to its vectors."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(V, 8)

    def forward(self, input_ids, attention_mask):
        return type("Output", (), {"last_hidden_state": self.table(input_ids)})


def pooled_in_windows(batch, k=5, window=16, window_k=6, **options):
    encoder, pooling = Embedding(), TopKPooling(8, k, **options).eval()
    return encoder, pooling, pool_in_windows(encoder, pooling, **batch, window=window, window_k=window_k)


@pytest.mark.parametrize("operator", ["successive_halving", "iterative", "hard"])
@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_the_weights_of_both_steps_together_make_the_vectors(temperature, operator):
    batch = documents(70, 9, 33)
    encoder, _, pooled = pooled_in_windows(batch, temperature=temperature, operator=operator)
    dense = pooled.dense_weights()
    torch.testing.assert_close(pooled.pool(encoder.table(batch["input_ids"])), pooled.hidden_states)
    torch.testing.assert_close(dense.sum(-1), pooled.attention_mask.float())
    assert torch.equal(dense.argmax(-1), pooled.positions)
    assert not dense.sum(1)[batch["attention_mask"] == 0].any()


def test_in_two_steps_the_vectors_stand_in_document_order_however_soft_the_choice():
    for seed in range(20):
        torch.manual_seed(seed)
        batch = documents(70 + seed)
        _, _, pooled = pooled_in_windows(batch, temperature=2.0)
        positions = pooled.positions[pooled.attention_mask != 0]
        assert torch.equal(positions, positions.sort().values)


def test_a_share_is_one_of_the_tokens_in_one_step_and_in_two():
    batch = documents(64)
    _, pooling, pooled = pooled_in_windows(batch, k=0.5, window=16, window_k=16)
    assert pooled.hidden_states.shape[1] == 32
    _, _, pooled = pooled_in_windows(batch, k=0.5, window=16, window_k=4)
    assert pooled.hidden_states.shape[1] == 32 and pooled.attention_mask.sum() == 16


def test_sharp_and_with_room_in_each_window_two_steps_choose_what_one_chooses():
    batch = {"input_ids": torch.stack([torch.randperm(V - 4)[:30] + 4]), "attention_mask": torch.ones(1, 30).long()}
    encoder, pooling, pooled = pooled_in_windows(batch, k=4, window=8, window_k=4, temperature=1e-4)
    at_once = pooling(encoder.table(batch["input_ids"]))
    torch.testing.assert_close(pooled.hidden_states, at_once.hidden_states)
    assert torch.equal(pooled.positions, at_once.positions)


def test_in_two_steps_a_document_does_not_depend_on_what_it_is_batched_with():
    batch = documents(9, 70, 0)
    _, pooling, together = pooled_in_windows(batch, temperature=1.0)
    for row, length in ((0, 9), (1, 70)):
        alone = {name: tensor[row : row + 1, :length] for name, tensor in batch.items()}
        vectors = pool_in_windows(Embedding(), pooling, **alone, window=16, window_k=6).hidden_states
        torch.testing.assert_close(together.hidden_states[row : row + 1], vectors)
    assert not together.attention_mask[2].any()


def test_the_model_pools_in_two_steps_when_asked_to():
    model = build(k=4, window=16, window_k=3)
    batch = documents(100, 9)
    encoded = model.get_encoder()(**batch)
    assert encoded.last_hidden_state.shape == (2, 4, 16)
    assert (encoded.assignment.slots[0] >= 0).any()
    assert model.generate(**batch, max_new_tokens=3).shape[0] == 2
