"""Training a pooled language model: adapters, checkpointing, precision, Trainer."""

import copy

import accelerate
import pytest
import torch
from decoders import CLOSE, build, marks, tokens
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from transformers import Trainer, TrainingArguments

from shtopk.integrations.decoder import pool_decoder
from shtopk.integrations.trainer import AnnealTemperature
from shtopk.pooling import poolings

IDS = tokens()
N = IDS.shape[1]
LABELS = IDS.masked_fill(torch.arange(N) < 16, -100)


def pooled(name="llama", **more):
    return pool_decoder(build(name), {1: 10, 2: 5}, keep_last=2, **more)


def gradients(model, **more):
    model.train().zero_grad()
    model(IDS, labels=LABELS, **more).loss.backward()
    return {name: x.grad.clone() for name, x in model.named_parameters() if x.grad is not None}


def wrapped(model):
    """As FSDP's activation checkpointing does it."""
    kind = type(model.base_model.layers[0]).__name__
    apply_activation_checkpointing(model, check_fn=lambda module: type(module).__name__ == kind)


@pytest.mark.parametrize("checkpointing", [
    lambda model: model.gradient_checkpointing_enable(),
    lambda model: model.gradient_checkpointing_enable({"use_reentrant": True}),
    wrapped,
], ids=["transformers", "reentrant", "wrapped"])  # fmt: skip
@pytest.mark.parametrize("name", ["llama", "gpt_neox"])
def test_gradient_checkpointing_changes_no_gradient(name, checkpointing):
    model = pooled(name)
    expected = gradients(model, use_cache=False)
    checkpointing(model)
    model.enable_input_require_grads()
    got = {key.replace("_checkpoint_wrapped_module.", ""): grad for key, grad in gradients(model).items()}
    assert got.keys() == expected.keys() and any("scorer" in name for name in expected)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_an_adapter_trains_and_saves_the_scorers(name, tmp_path):
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(pooled(name), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    new = [key for key, x in model.named_parameters() if x.requires_grad and ".scorer." in key]
    assert len(new) == 4 and all("modules_to_save" in key for key in new)
    told = {"labels": LABELS, "use_cache": False}
    torch.testing.assert_close(model.eval()(IDS, **told).loss, pooled(name)(IDS, **told).loss)
    optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.5)
    gradients(model, use_cache=False)
    optimizer.step()
    model.eval().save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(pooled(name), tmp_path).eval()
    with torch.no_grad():
        expected = model(IDS).logits
        assert not expected.allclose(pooled(name)(IDS).logits, atol=1e-2)
        torch.testing.assert_close(again(IDS).logits, expected)
        chosen = {"k": 4, "compress_mask": marks(IDS, 9)}
        torch.testing.assert_close(again(IDS, **chosen).logits, model(IDS, **chosen).logits)
    more = {"max_new_tokens": 3, "do_sample": False, "k": 4}
    said = again.generate(input_ids=IDS, **more)
    assert said.equal(model.generate(input_ids=IDS, **more))
    assert said.equal(again.merge_and_unload().generate(IDS, **more))


@pytest.mark.parametrize("layers", [["q_proj", "v_proj"], "all-linear"], ids=["two", "all-linear"])
def test_an_adapter_that_is_added_trains_and_saves_scorers_of_its_own(layers, tmp_path):
    peft = pytest.importorskip("peft")

    def recipe():
        return peft.LoraConfig(task_type="CAUSAL_LM", target_modules=layers)

    model = peft.get_peft_model(pooled(), recipe(), adapter_name="a")
    model.add_adapter("b", recipe())
    for adapter in ("b", "a"):
        model.set_adapter(adapter)
        new = [key for key, x in model.named_parameters() if x.requires_grad and ".scorer." in key]
        assert len(new) == 4 and all(f"modules_to_save.{adapter}." in key for key in new)
        optimizer = torch.optim.SGD([x for x in model.parameters() if x.requires_grad], lr=0.5)
        gradients(model, use_cache=False)
        optimizer.step()
    model.eval().save_pretrained(tmp_path)
    said = []
    for adapter in ("a", "b"):
        model.set_adapter(adapter)
        again = peft.PeftModel.from_pretrained(pooled(), tmp_path / adapter).eval()
        with torch.no_grad():
            said.append(model(IDS).logits)
            torch.testing.assert_close(again(IDS).logits, said[-1])
    again.load_adapter(tmp_path / "a", "other")
    again.set_adapter("other")
    with torch.no_grad():
        torch.testing.assert_close(again(IDS).logits, said[0])


def test_poolings_that_are_offloaded_compute_with_gradients_too(tmp_path):
    model = pooled()
    expected = model(IDS).logits
    places = dict.fromkeys(("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head"), "cpu")
    places |= {"model.prompt_pooling": "disk"}
    model = accelerate.dispatch_model(model, places, main_device="cpu", offload_dir=str(tmp_path))
    torch.testing.assert_close(model(IDS).logits, expected)


def test_trainer_lets_the_temperature_fall_and_the_scorer_learn(tmp_path):
    model = pooled(temperature=0.1, initial_temperature=2.0)
    before = copy.deepcopy(model.model.prompt_pooling.state_dict())
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in zip(IDS, LABELS, strict=True)]
    arguments = TrainingArguments(str(tmp_path), max_steps=3, per_device_train_batch_size=2, report_to="none",
                                  logging_steps=1, save_strategy="no", learning_rate=1e-2, use_cpu=True)  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, callbacks=[AnnealTemperature(end=0.9)])
    trainer.train()
    logged = [log["temperature"] for log in trainer.state.log_history if "loss" in log]
    assert logged[0] == 2.0 and logged == sorted(logged, reverse=True) and poolings(model)[0].progress == 1.0
    assert all(not x.equal(before[key]) for key, x in model.model.prompt_pooling.state_dict().items() if "w" in key)
    trainer.save_model(tmp_path)
    assert (tmp_path / "config.json").read_text().count("decoder_pooling") == 1


def test_in_half_precision_it_says_nearly_the_same_and_generates_alike_in_steps():
    # By scores alone: which of two leaders a random vector is more like hangs on the last bits.
    model = pooled(eval_operator="successive_halving")
    with torch.no_grad():
        expected = model(IDS).logits[:, -1]
        half = model.to(torch.bfloat16)
        whole = half(IDS).logits[:, -1]
    assert whole.dtype == torch.bfloat16 and half.model.prompt_pooling["1"].scorer.weight.dtype == torch.bfloat16
    assert (whole.float() - expected).abs().mean() < 0.1 * expected.abs().mean()
    for each in (half, pooled().to(torch.bfloat16)):
        out = each.generate(IDS, max_new_tokens=2, do_sample=False, return_dict_in_generate=True, output_logits=True)
        assert out.past_key_values.layers[3].keys.dtype == torch.bfloat16
        grads = gradients(each, use_cache=False)
        assert all(grad.isfinite().all() for grad in grads.values())


def test_the_poolings_of_a_model_in_half_precision_are_in_it_too():
    model = build().to(torch.bfloat16)
    assert {x.dtype for x in pool_decoder(model, {2: 4}).parameters()} == {torch.bfloat16}


def test_the_loss_is_that_of_what_follows_and_an_eval_batch_has_the_same():
    model = pooled(operator="hard")
    with torch.no_grad():
        trained = model.train()(IDS, labels=LABELS).loss
        evaluated = model.eval()(IDS, labels=LABELS)
    torch.testing.assert_close(trained, evaluated.loss, **CLOSE)
    expected = torch.nn.functional.cross_entropy(evaluated.logits[:, 15:-1].flatten(0, 1), IDS[:, 16:].flatten())
    torch.testing.assert_close(evaluated.loss, expected)


def test_one_pooled_model_may_run_inside_another_and_nothing_is_left_behind_by_a_failure():
    inner, outer = pooled(), pool_decoder(build("gpt2"), {2: 4})
    with torch.no_grad():
        expected = outer(IDS, k=7).logits
        hook = outer.transformer.h[1].register_forward_hook(lambda *_: inner(IDS[:, :9], k=3) and None)
        assert outer(IDS, k=7).logits.equal(expected)
        hook.remove()
        hook = outer.transformer.h[3].register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            outer(IDS, k=3)
        hook.remove()
        assert outer(IDS, k=7).logits.equal(expected)
        with pytest.raises(ZeroDivisionError):
            outer.generate(IDS, k=2, logits_processor=[lambda *_: 1 / 0], max_new_tokens=1)
        assert outer(IDS).logits.equal(outer(IDS, k=4).logits)
