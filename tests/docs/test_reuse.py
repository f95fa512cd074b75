"""The page on reusing the models with the tools around transformers."""

import pytest
import torch
from code_blocks import blocks, page, run

REUSE = page("reuse")
TEXTS = ["goal match " + "a b c d " * 12, "bank shares " + "b c d e " * 11] * 6  # more than k words


@pytest.mark.slow
def test_what_reuses_the_pooling_works(hub_in_a_folder):
    for needed in ("peft", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed)
    names = run(blocks(REUSE), texts=TEXTS, labels=[0, 1] * 6)

    assert len([log for log in names["trainer"].state.log_history if "loss" in log]) == 6  # updates
    check_that_the_adapter_holds_the_pooling(names)
    assert [set(answer) for answer in names["answers"]] == [{"label", "score"}] * 2
    check_that_features_are_the_vectors_kept(names)
    assert all(parameter.grad is not None for parameter in names["model"].pooling.parameters())
    assert names["logits"].dtype == torch.bfloat16
    assert names["logits"].isfinite().all()
    torch.testing.assert_close(
        names["exported"], names["pooling"](names["hidden_states"], names["mask"]).hidden_states
    )
    answered, expected = torch.from_numpy(names["answered"]), names["few"].cpu()(**names["given"]).logits.detach()
    torch.testing.assert_close(answered, expected, rtol=1e-4, atol=1e-4)
    for name, k, temperature, operator in (
        ("narrow", 8, 1, "successive_halving"),
        ("sharper", 8, 0.5, "successive_halving"),
        ("hard", 32, 1, "hard"),
    ):
        options = names[name].pooling.options
        assert (names[name].pooling.k, options.temperature, options.operator) == (k, temperature, operator)


def check_that_the_adapter_holds_the_pooling(names):
    adapted, again = names["adapted"].cpu(), names["again"].cpu()
    for part in (adapted.base_model.model.pooling.scorer, adapted.base_model.model.classifier):
        for name, after in part.modules_to_save["default"].named_parameters():
            assert not torch.equal(part.original_module.get_parameter(name), after), f"{name} is not trained"
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or ".modules_to_save." in name for name in trained)
    batch = names["tokenizer"].pad(names["rows"][:2], return_tensors="pt")
    torch.testing.assert_close(again.eval()(**batch).logits, adapted.eval()(**batch).logits)
    torch.testing.assert_close(again.merge_and_unload().eval()(**batch).logits, adapted(**batch).logits)


@torch.no_grad()
def check_that_features_are_the_vectors_kept(names):
    model, tokenizer = names["trainer"].model.cpu().eval(), names["tokenizer"]
    kept = model(**tokenizer("goal match bank shares " * 10, return_tensors="pt")).pooled_hidden_states
    torch.testing.assert_close(names["vectors"].cpu(), kept, rtol=1e-4, atol=1e-4)
    assert kept.shape == (1, 32, 32)
    assert names["fewer"].shape == (1, 8, 32)
