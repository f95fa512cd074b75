"""distillation_loss, unpooled and DistillationTrainer: a pooled language model learns from itself."""

import pytest
import torch
from recall import batches, right, tiny_llama, trained_llama
from torch import nn
from torch.nn.functional import log_softmax
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from shtopk.integrations.decoder import distillation_loss, pool_decoder, unpooled
from shtopk.integrations.trainer import DistillationTrainer

ROWS = next(batches(4))


def scorer_of(model) -> nn.Module:
    return next(iter(model.model.prompt_pooling.values())).scorer


@pytest.mark.parametrize("prompt", [{}, {"labels": ROWS["labels"]}], ids=["the prompt alone", "with what follows"])
def test_it_is_nothing_where_nothing_is_pooled_and_something_else(prompt):
    model = pool_decoder(tiny_llama().train(), {2: 24})
    assert distillation_loss(model, ROWS["input_ids"], k=26, **prompt) == 0
    assert distillation_loss(model, ROWS["input_ids"], k=4, **prompt) > 0


def test_rows_that_are_divided_among_devices_are_refused():
    several = nn.DataParallel(pool_decoder(tiny_llama(), {2: 6}))
    assert distillation_loss(several, ROWS["input_ids"]) > 0  # there is one device
    several.device_ids = [0, 1]
    with pytest.raises(ValueError, match=r"^expected a process for each device .*DataParallel on 2 of them; start it"):
        distillation_loss(several, ROWS["input_ids"])


def test_it_is_the_divergence_of_what_follows():
    model = pool_decoder(tiny_llama(), {2: 6})
    ids, labels = ROWS["input_ids"], ROWS["labels"].clone()
    labels[0, -4:] = 0  # this row's prompt ends earlier
    with torch.no_grad():
        student = log_softmax(model(ids, labels=labels).logits / 3, -1)
        with unpooled(model):
            teacher = log_softmax(model(ids).logits / 3, -1)
    each = (teacher.exp() * (teacher - student)).sum(-1)
    said = [each[0, -5:-1], each[1:, -2]]
    expected = 9 * torch.cat([part.flatten() for part in said]).mean()
    torch.testing.assert_close(distillation_loss(model, ids, labels=labels, temperature=3.0), expected)


def test_padding_and_marks_tell_what_follows():
    model = pool_decoder(tiny_llama(), {2: 6})
    ids, mask = ROWS["input_ids"][:1], torch.ones(1, 26, dtype=torch.long)
    marks = mask.clone()
    marks[:, -3:] = 0
    alone = distillation_loss(model, ids, mask, compress_mask=marks)
    pads = torch.zeros(1, 5, dtype=torch.long)
    ids, mask, marks = (torch.cat([pads, part], 1) for part in (ids, mask, marks))
    torch.testing.assert_close(distillation_loss(model, ids, mask, compress_mask=marks), alone)


def test_the_teacher_is_the_model_as_it_was_and_all_modes_come_back():
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=40)).train()  # with dropout
    before = model.eval()(ROWS["input_ids"]).logits
    pool_decoder(model.train(), {1: 4})
    model.transformer.h[1].eval()
    modes = [module.training for module in model.modules()]
    said = []
    model.register_forward_hook(lambda model, given, output: said.append(output.logits))
    distillation_loss(model, ROWS["input_ids"]).backward()
    torch.testing.assert_close(said[0], before[:, -1:])
    assert not said[0].requires_grad
    assert said[1].requires_grad
    assert [module.training for module in model.modules()] == modes


def test_a_model_is_pooled_again_after_unpooled_even_if_it_failed():
    model, other = (pool_decoder(tiny_llama(), {2: 4}) for _ in range(2))
    ids = ROWS["input_ids"]
    pooled, plain = model(ids).logits, tiny_llama()(ids).logits
    with unpooled(model), unpooled(other):
        assert torch.equal(model(ids).logits, plain)
        assert torch.equal(other(ids).logits, plain)
    with pytest.raises(ValueError, match="specify exactly one"), unpooled(model):
        model(None)
    with unpooled(other):
        assert torch.equal(model(ids).logits, pooled)


def test_with_lora_the_teacher_has_no_adapter():
    from peft import LoraConfig, get_peft_model

    plain = tiny_llama()(ROWS["input_ids"]).logits
    recipe = LoraConfig(target_modules=["v_proj"], init_lora_weights=False)  # so that it changes what is said
    model = get_peft_model(pool_decoder(tiny_llama(), {2: 4}), recipe)
    said = []
    model.base_model.model.register_forward_hook(lambda model, given, output: said.append(output.logits))
    distillation_loss(model, ROWS["input_ids"]).backward()
    torch.testing.assert_close(said[0], plain[:, -1:])
    learns = [name for name, parameter in model.named_parameters() if parameter.grad is not None]
    assert any("scorer" in name for name in learns)
    assert any("lora_B" in name for name in learns)


def test_nor_has_it_one_that_transformers_put_there():
    from peft import LoraConfig

    plain, model = tiny_llama()(ROWS["input_ids"]).logits, pool_decoder(tiny_llama(), {2: 4})
    model.add_adapter(LoraConfig(target_modules=["v_proj"], init_lora_weights=False))
    said = []
    model.register_forward_hook(lambda model, given, output: said.append(output.logits))
    distillation_loss(model, ROWS["input_ids"]).backward()
    torch.testing.assert_close(said[0], plain[:, -1:])
    assert any("lora_B" in name for name, parameter in model.named_parameters() if parameter.grad is not None)


def test_a_scorer_learns_by_it_alone(tmp_path):
    model = pool_decoder(trained_llama(), {1: 3}).requires_grad_(False)
    scorer_of(model).requires_grad_(True)
    assert right(model) < 0.5 < right(model, k=24)
    rows = next(batches(32 * 40))
    trainer = DistillationTrainer(
        model,
        TrainingArguments(tmp_path, per_device_train_batch_size=32, max_steps=40, learning_rate=3e-2, report_to=[],
                          use_cpu=True, disable_tqdm=True, logging_steps=20, lr_scheduler_type="constant"),
        train_dataset=[{name: part[i] for name, part in rows.items()} for i in range(len(rows["labels"]))],
        eval_dataset=[{name: part[0] for name, part in rows.items()}],
    )  # fmt: skip
    trainer.train()
    assert right(model) > 0.9
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[1] < losses[0] / 4
    assert trainer.evaluate()["eval_loss"] < losses[0] / 4
    assert isinstance(trainer, Trainer)


def test_what_it_cannot_compare_is_refused():
    model = pool_decoder(tiny_llama(), {2: 4})
    with pytest.raises(ValueError, match="a model that pool_decoder was called on"):
        distillation_loss(tiny_llama(), ROWS["input_ids"])
    with pytest.raises(ValueError, match=r"a temperature above 0, got 0\b"):
        distillation_loss(model, ROWS["input_ids"], temperature=0)
    with pytest.raises(ValueError, match="labels other than -100"):
        distillation_loss(model, ROWS["input_ids"], labels=torch.full_like(ROWS["labels"], -100))
