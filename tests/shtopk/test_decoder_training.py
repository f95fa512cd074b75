"""A language model that pools its prompts, trained by transformers' Trainer and by TRL's SFTTrainer."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from datasets import Dataset
from replicas import replica_of
from run_files import rows_of
from tiny import tiny_writer
from transformers import AutoModelForCausalLM, DataCollatorForSeq2Seq, Trainer, TrainingArguments

from shtopk.integrations.decoder import load_pooled, pool_decoder, unpooled
from shtopk.integrations.trainer import AnnealTemperature, DrawK
from shtopk.pooling import poolings

ARGUMENTS = {"max_steps": 40, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 1,
             "save_strategy": "no", "report_to": [], "use_cpu": True, "disable_tqdm": True, "bf16": False}  # fmt: skip
FALLING = {"temperature": 0.5, "initial_temperature": 2.0}


@pytest.fixture
def pooled(language_model):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(language_model)
    return pool_decoder(model, {1: 4}, **FALLING)


@pytest.fixture
def seen(pooled):
    """(tokens to pool, k) of every call of the pooling."""
    found = []
    (pooling,) = poolings(pooled)
    pooling.register_forward_hook(lambda pooling, given, out: found.append((given[0].shape[1], out.mask.shape[1])))
    return found


def losses_of(trainer):
    return [log["loss"] for log in trainer.state.log_history if "loss" in log]


def encoded(path):
    tokenizer, rows = tiny_writer(), []
    for row in rows_of(path):
        prompt = tokenizer(row["prompt"])["input_ids"]
        completion = [*tokenizer(row["completion"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        rows.append({"input_ids": prompt + completion, "attention_mask": [1] * (len(prompt) + 2),
                     "labels": [-100] * len(prompt) + completion})  # fmt: skip
    return rows


def test_trainer_teaches_a_language_model_and_its_scorer(pooled, prompts, seen, tmp_path):
    tokenizer, rows = tiny_writer(), encoded(prompts)
    tokenizer.pad_token = tokenizer.eos_token
    before = poolings(pooled)[0].scorer.weight.detach().clone()
    trainer = Trainer(pooled, TrainingArguments(str(tmp_path), **ARGUMENTS), train_dataset=rows, eval_dataset=rows[:8],
                      data_collator=DataCollatorForSeq2Seq(tokenizer), callbacks=[AnnealTemperature(), DrawK((3, 9))]
                      )  # fmt: skip
    trainer.train()
    losses = losses_of(trainer)
    assert losses[-1] < losses[0] / 2
    assert {tokens for tokens, _ in seen} == {31}  # of 32 in a prompt, the last of which is kept
    assert {k for _, k in seen} > {3, 4, 5}
    assert not poolings(pooled)[0].scorer.weight.equal(before)
    temperatures = [log["temperature"] for log in trainer.state.log_history if "loss" in log]
    assert temperatures == pytest.approx([2.0 ** (1 - 2 * update / 40) for update in range(40)])
    loss = trainer.evaluate()["eval_loss"]
    trainer.save_model(str(tmp_path / "saved"))
    again = load_pooled(AutoModelForCausalLM, str(tmp_path / "saved")).eval()
    trainer.model = trainer.model_wrapped = again
    assert trainer.evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-6)


def test_a_replica_of_data_parallel_pools_in_its_own_thread_as_the_callers_context_says(pooled):
    ids = torch.randint(2, 8, (2, 20), generator=torch.Generator().manual_seed(0))
    labels = torch.where(torch.arange(20) < 16, -100, ids)

    def learnt(model):
        pooled.zero_grad()
        model(ids, labels=labels).loss.backward()
        return {name: one.grad for name, one in pooled.named_parameters() if one.grad is not None}

    def of_replica():
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(lambda: learnt(replica_of(pooled))).result()

    pooled.train()
    torch.testing.assert_close(of_replica(), learnt(pooled))
    with unpooled(pooled):
        torch.testing.assert_close(of_replica(), learnt(pooled))


def test_a_scorer_that_had_nothing_to_do_gets_a_gradient_of_0(pooled, language_model):
    """Processes that train together wait for each other's gradients: one may have short prompts alone."""
    ids = torch.tensor([[2, 5, 6, 7]])
    labels = torch.tensor([[-100, -100, -100, 7]])
    out = pooled.train()(ids, labels=labels)
    out.loss.backward()
    assert all((parameter.grad == 0).all() for parameter in poolings(pooled)[0].parameters())
    assert out.logits.equal(AutoModelForCausalLM.from_pretrained(language_model)(ids).logits)


def sft(model, prompts, folder, **arguments):
    trl = pytest.importorskip("trl")
    tokenizer = tiny_writer()
    tokenizer.pad_token = tokenizer.eos_token
    config = trl.SFTConfig(
        str(folder), **ARGUMENTS | {"max_length": None, "gradient_checkpointing": False} | arguments
    )
    data = Dataset.from_list(rows_of(prompts))
    return trl.SFTTrainer(
        model, config, train_dataset=data, processing_class=tokenizer, callbacks=[AnnealTemperature()]
    )


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "computed again"])
def test_trl_teaches_completions_and_its_labels_tell_where_the_prompt_ends(
    pooled, prompts, seen, tmp_path, checkpointing
):
    trainer = sft(pooled, prompts, tmp_path, gradient_checkpointing=checkpointing, max_steps=40 - 36 * checkpointing)
    assert trainer.train_dataset[0]["labels"].count(-100) == 32
    trainer.train()
    losses = losses_of(trainer)
    assert {tokens for tokens, _ in seen} == {31}
    assert losses[-1] < losses[0] * (1 if checkpointing else 0.5)
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(8)])
    pooled.eval()
    with torch.no_grad():
        plain = pooled(**batch)
        fused = trainer.compute_loss(pooled, batch)
    assert fused.item() == pytest.approx(plain.loss.item(), abs=1e-5)


@pytest.mark.parametrize("packed", [{"packing": True, "max_length": 64}, {"padding_free": True}], ids=str)
def test_trl_packs_no_texts_for_a_pooled_model(pooled, prompts, tmp_path, packed):
    trainer = sft(pooled, prompts, tmp_path, **packed)
    with pytest.raises(ValueError, match=r"one text in each row.*without packing"):
        trainer.train()


def test_smoothing_that_takes_the_labels_away_is_refused(pooled, prompts, tmp_path):
    with pytest.warns(FutureWarning, match="label_smoothing_factor"):
        trainer = sft(pooled, prompts, tmp_path, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match="expected labels or a compress_mask in training"):
        trainer.train()


def test_labels_on_the_prompt_are_refused(pooled, prompts, tmp_path):
    trainer = sft(pooled, prompts, tmp_path, completion_only_loss=False)
    with pytest.raises(ValueError, match="labels of -100 for the tokens of the prompt"):
        trainer.train()
