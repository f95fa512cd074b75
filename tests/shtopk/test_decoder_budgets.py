"""Many k in one language model: drawn in training, chosen in each call."""

import pytest
import torch
from recall import batches, right, tiny_llama, trained_llama
from transformers import Trainer, TrainingArguments

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.trainer import DrawK


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(a model, how many vectors came to its upper layer in each update): k drawn for each, from 2 to 12."""
    model = pool_decoder(trained_llama(), {1: 4})
    kept = []
    model.model.layers[1].self_attn.k_proj.register_forward_hook(
        lambda module, given, output: kept.append(output.shape[1])
    )
    rows = next(batches(32 * 40))
    trainer = Trainer(
        model,
        TrainingArguments(tmp_path_factory.mktemp("run"), per_device_train_batch_size=32, max_steps=40, use_cpu=True,
                          learning_rate=1e-2, report_to=[], disable_tqdm=True, lr_scheduler_type="constant"),
        train_dataset=[{name: part[i] for name, part in rows.items()} for i in range(len(rows["labels"]))],
        callbacks=[DrawK((2, 12))],
    )  # fmt: skip
    trainer.train()
    return model, kept[:40]


def test_each_update_works_with_the_k_drawn_for_it(served):
    _, kept = served
    ks = {m - 2 for m in kept}  # beside the question and the answer
    assert len(ks) > 5
    assert ks <= set(range(2, 13))


@pytest.mark.parametrize("k", [2, 4, 12])
def test_one_training_serves_every_budget(served, k):
    model, _ = served
    assert right(model, k=k) > 0.9


def test_after_the_training_the_poolings_own_k_holds(served):
    model, _ = served
    prompt = next(batches(2))["input_ids"][:, :-1]
    assert model.eval()(prompt, use_cache=True).past_key_values.layers[1].keys.shape[2] == 4 + 1


def test_k_is_chosen_in_each_call():
    model = pool_decoder(tiny_llama(), {1: 8, 2: 5})
    prompt = torch.arange(9, 39).unsqueeze(0)

    def vectors(cache):
        return [layer.keys.shape[2] for layer in cache.layers]

    def generated(**asked):
        settings = {"max_new_tokens": 1, "pad_token_id": 0, "return_dict_in_generate": True}
        return model.generate(prompt, **settings, **asked).past_key_values

    assert vectors(generated(k=6)) == vectors(model(prompt, k=6, use_cache=True).past_key_values) == [30, 7, 7, 7]
    assert vectors(generated(k=64)) == [30] * 4
    assert vectors(generated(k=0.5)) == [30, 16, 9, 9]
    assert vectors(generated()) == [30, 9, 6, 6]


@pytest.mark.parametrize("k", [0, 1, 1.5, "8"])
def test_an_impossible_k_is_refused_in_a_call(k):
    model = pool_decoder(tiny_llama(), {1: 8})
    with pytest.raises(ValueError, match=r"expected (k to be|fewer protected)"):
        model(torch.arange(9, 39).unsqueeze(0), k=k)
    with pytest.raises(ValueError, match=r"expected (k to be|fewer protected)"):
        model.generate(torch.arange(9, 39).unsqueeze(0), k=k, max_new_tokens=1)
