"""What pooling a prompt saves: all ways are timed, the cache is counted, and the table divides the right way."""

import prompt_speed
import pytest
import torch
from prompt_speed import POOLED, RIVALS, WHOLE

TINY = {"num_hidden_layers": 4, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 50}  # fmt: skip


@pytest.fixture(scope="module")
def models():
    return prompt_speed.models(8, TINY, torch.device("cpu"))


@pytest.mark.parametrize("way", [WHOLE, POOLED, *RIVALS])
def test_every_way_is_timed_and_its_cache_above_is_k_of_n_vectors(models, way):
    found = prompt_speed.measure(models[way], tokens=64, following=3)
    assert min(found["first_token_seconds"], found["token_seconds"]) > 0
    vector = 2 * 8 * 4  # a key and a value of one head of 8 float32
    assert found["bytes_below"] == 64 * vector
    assert found["bytes_above"] == 3 * (64 if way == WHOLE else 8) * vector


def test_the_table_divides_medians_by_ours():
    def run(way, turn, first, token, above):
        sizes = {"tokens": 2048, "k": 128, "way": way, "turn": turn, "bytes_below": 2**20, "bytes_above": above}
        return sizes | {"first_token_seconds": first, "token_seconds": token}

    runs = [run(POOLED, turn, first, 0.02, 2**20) for turn, first in enumerate((1.0, 1.5, 9.0))]
    runs += [run(WHOLE, turn, 6.0, 0.03, 2**24) for turn in range(3)]
    record = {"runs": runs, "shape": TINY, "command": "python x.py", "device": "a CPU", "torch": "2"}
    lines = prompt_speed.table(record).splitlines()
    assert lines[2] == "| 2,048 | 128 | successive halving | 1.50 | 4.00 | 20.0 | 1.50 | 1.0 | 1.0 | 1/16 |"
    assert lines[3] == "| 2,048 | all | not pooled | 6.00 | 1.00 | 30.0 | 1.00 | 1.0 | 16.0 | 1/1 |"
    assert "before layer 1 of 4" in lines[-1] and "over 3 turns" in lines[-1]
