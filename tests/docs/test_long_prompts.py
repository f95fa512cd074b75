"""The page on long prompts does what it says, with a tiny Llama in place of the one on the hub."""

import torch
from code_blocks import page
from tiny import LLAMA, tiny_writer
from transcripts import transcript
from transformers import LlamaConfig, LlamaForCausalLM


def test_a_prompt_is_pooled_learnt_and_read_in_pieces(here):
    torch.manual_seed(0)
    name = "HuggingFaceTB/SmolLM2-135M"
    LlamaForCausalLM(LlamaConfig(**LLAMA | {"num_hidden_layers": 4})).save_pretrained(here / name)
    tiny_writer().save_pretrained(here / name)
    names = transcript(page("long_prompts"), here)
    prompt = names["prompt"].input_ids
    assert names["answer"].shape[1] <= prompt.shape[1] + 8
    assert names["trainer"].state.global_step == 4
    scorer = names["model"].model.prompt_pooling["2"].scorer
    assert names["loss"] > 0 and any(parameter.grad.any() for parameter in scorer.parameters())
    kept = [layer.keys.shape[2] for layer in names["cache"].layers]
    assert kept[2] < kept[0]
