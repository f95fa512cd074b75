"""AnnealTemperature: what the poolings work at while transformers' Trainer trains, and what it logs."""

import pytest
import torch
from tiny import tiny_tokenizer
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from shtopk import TopKPooling, draw_k
from shtopk.integrations.trainer import AnnealTemperature, DrawK
from shtopk.models import TopKPoolingForSequenceClassification

SOFT, SHARP = 4.0, 0.0625
ROWS = [{"input_ids": [2, *range(4 + i % 9, 14 + i % 9), 3], "labels": i % 2} for i in range(24)]


def at(progress: float) -> float:
    return SOFT ** (1 - progress) * SHARP**progress


def trainer_of(model, folder, callbacks, **arguments) -> Trainer:
    arguments = {"max_steps": 6, "per_device_train_batch_size": 4, "logging_steps": 1, "save_strategy": "no",
                 "report_to": [], "use_cpu": True, "disable_tqdm": True} | arguments  # fmt: skip
    return Trainer(model, TrainingArguments(folder, **arguments), train_dataset=ROWS, eval_dataset=ROWS[:4],
                   processing_class=tiny_tokenizer(), callbacks=callbacks)  # fmt: skip


def temperatures_of(trainer: Trainer) -> dict[int, float]:
    """{updates done: the temperature logged beside the loss}"""
    return {log["step"]: log["temperature"] for log in trainer.state.log_history if "loss" in log}


def built_around(encoder) -> TopKPoolingForSequenceClassification:
    falling = {"temperature": SHARP, "initial_temperature": SOFT}
    return TopKPoolingForSequenceClassification.from_backbone(encoder, k=4, num_labels=2, **falling)


@pytest.fixture
def model(encoder):
    torch.manual_seed(0)
    return built_around(encoder)


def test_from_soft_to_sharp_and_logged_beside_the_loss(model, tmp_path):
    worked_at = []
    model.pooling.register_forward_hook(lambda pooling, given, output: worked_at.append(pooling.current_temperature))
    trainer = trainer_of(model, tmp_path, [AnnealTemperature()])
    trainer.train()
    assert worked_at == pytest.approx([at(update / 6) for update in range(6)])
    assert temperatures_of(trainer) == pytest.approx({1 + update: at(update / 6) for update in range(6)})
    assert model.pooling.progress == 1  # when all is done


@pytest.mark.parametrize(("end", "arguments", "progress"), [
    (0.5, {}, [0, 1 / 3, 2 / 3, 1, 1, 1]),
    (1.0, {"max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 2}, [i / 6 for i in range(6)]),
], ids=["sharp after its share of training", "updates of two batches in whole epochs"])  # fmt: skip
def test_progress_counts_updates(model, tmp_path, end, arguments, progress):
    trainer = trainer_of(model, tmp_path, [AnnealTemperature(end)], **arguments)
    trainer.train()  # 24 rows in batches of 4
    assert list(temperatures_of(trainer).values()) == pytest.approx([at(p) for p in progress])


def test_a_run_that_is_resumed_goes_on_where_it_stopped(model, encoder, tmp_path):
    trainer_of(model, tmp_path, [AnnealTemperature()], save_strategy="steps", save_steps=4).train()
    again = built_around(encoder)
    began_at = []

    class Began(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            began_at.append(model.pooling.progress)

    resumed = trainer_of(again, tmp_path, [AnnealTemperature(), Began()])
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert began_at == pytest.approx([4 / 6])
    history = temperatures_of(resumed)  # the checkpoint's, and what followed
    assert history == pytest.approx({1 + update: at(update / 6) for update in range(6)})


def test_evaluation_between_updates_neither_changes_the_temperature_nor_logs_one(model, tmp_path):
    trainer = trainer_of(model, tmp_path, [AnnealTemperature()], eval_strategy="steps", eval_steps=1, logging_steps=2)
    trainer.train()
    assert temperatures_of(trainer) == pytest.approx({2: at(1 / 6), 4: at(3 / 6), 6: at(5 / 6)})
    others = [log for log in trainer.state.log_history if "loss" not in log]
    assert len(others) == 7  # six evaluations, and the end
    assert not any("temperature" in log for log in others)


def test_a_tracker_that_comes_after_it_is_shown_the_temperature(model, tmp_path):
    shown = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            shown.append(logs.get("temperature"))

    trainer_of(model, tmp_path, [AnnealTemperature(), Tracker()], max_steps=2).train()
    assert shown == [pytest.approx(at(0)), pytest.approx(at(0.5)), None]


class Wrapped(nn.Module):
    """Two poolings, the model of another inside."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.other = TopKPooling(32, 2, temperature=1.0, initial_temperature=9.0)

    def forward(self, input_ids, attention_mask, labels):
        out = self.model(input_ids, attention_mask, labels=labels)
        return {"loss": out.loss + 0 * self.other(out.pooled_hidden_states).hidden_states.sum()}


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")],
                         ids=["DataParallel", "compile"])  # fmt: skip
def test_every_pooling_is_annealed_inside_whatever_wraps_the_model(model, wrap, tmp_path):
    callback = AnnealTemperature()
    trainer = trainer_of(Wrapped(model), tmp_path, [callback], max_steps=4)
    trainer.state.global_step, trainer.state.max_steps = 2, 4
    callback.on_step_begin(trainer.args, trainer.state, trainer.control, model=wrap(trainer.model))
    assert (model.pooling.progress, trainer.model.other.progress) == (0.5, 0.5)
    trainer.train()
    assert temperatures_of(trainer)[3] == pytest.approx(3.0)  # of the last, as `anneal` returns it


def test_a_model_without_a_pooling_is_refused_before_training(tmp_path):
    bare = BertForSequenceClassification(BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    trainer = trainer_of(bare, tmp_path, [AnnealTemperature()])
    with pytest.raises(ValueError, match="a model with a TopKPooling inside, found none in BertForSequenceClass"):
        trainer.train()
    assert trainer.state.global_step == 0


@pytest.mark.parametrize("end", [0, -0.5, 1.5])
def test_an_impossible_end_is_refused(end):
    with pytest.raises(ValueError, match=r"a share of the training in \(0, 1\]"):
        AnnealTemperature(end)


def slots_of(model) -> list[tuple[bool, int]]:
    """Filled in by each pass: (in training mode, slots)."""
    seen = []
    model.pooling.register_forward_hook(lambda pooling, given, out: seen.append((pooling.training, out.mask.shape[1])))
    return seen


def test_each_update_has_a_k_of_its_own_for_all_its_batches_and_evaluation_the_models(model, tmp_path):
    seen = slots_of(model)
    trainer = trainer_of(model, tmp_path, [DrawK((5, 50))], gradient_accumulation_steps=2, eval_strategy="steps",
                         eval_steps=1)  # fmt: skip
    trainer.train()
    expected = [draw_k(TopKPooling(8, 4), (5, 50), update, trainer.args.seed) for update in range(6)]
    assert [k for training, k in seen if training] == [k for k in expected for _ in range(2)]
    assert {k for training, k in seen if not training} == {4}
    assert model.train().pooling.current_k == 4  # when all is done


def test_a_run_that_is_resumed_draws_what_it_would_have_drawn(model, encoder, tmp_path):
    seen = slots_of(model)
    trainer_of(model, tmp_path, [DrawK((5, 50))], save_strategy="steps", save_steps=4).train()
    again = TopKPoolingForSequenceClassification.from_backbone(encoder, k=4, num_labels=2)
    resumed = slots_of(again)
    trainer_of(again, tmp_path, [DrawK((5, 50))]).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert resumed == seen[4:] and len(set(seen)) > 3


def test_an_impossible_range_is_refused_before_training(model, tmp_path):
    trainer = trainer_of(model, tmp_path, [DrawK((5, 3))])
    with pytest.raises(ValueError, match="1 <= low <= high"):
        trainer.train()
    assert trainer.state.global_step == 0
