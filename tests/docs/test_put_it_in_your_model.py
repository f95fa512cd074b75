"""The page on models of one's own: they learn, and do what the page says of them."""

import functools

import pytest
import torch
from code_blocks import blocks, page, run
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from shtopk import TopKPooling

MODELS = page("put_it_in_your_model")


@functools.cache
def defined(name: str) -> type:
    """A class of the page, from the page's imports, which stand in its first block, and the block that defines it."""
    imports, *others = blocks(MODELS)
    (block,) = [block for block in others if f"class {name}(" in block]
    return run([imports, block])[name]


def answers(pooling: TopKPooling) -> list:
    """What a pooling answers from now on."""
    found: list = []
    pooling.register_forward_hook(lambda module, given, output: found.append(output))
    return found


@pytest.mark.slow
def test_the_models_that_the_pooling_is_put_into_learn(hub_in_a_folder):
    names = run(blocks(MODELS))
    check_the_simplest(names)
    assert names["accuracy"] > 0.9  # a guess: 0.25
    assert names["vit_accuracy"] > 0.9  # a guess: 0.25
    assert names["repeated"] > 0.8  # a guess: 0.125
    assert names["losses"][-1] < 0.5 * names["losses"][0]
    check_that_they_keep_what_is_marked(names)


def check_the_simplest(names):
    assert (names["simple"].pooling.scorer.weight.grad != 0).any()
    assert names["pooled"].positions.shape == (2, 32)
    assert (names["pooled"].positions[:, 0] == 0).all()  # [CLS]
    assert names["lengths"].shape == (2, 32, 1)


@torch.no_grad()
def check_that_they_keep_what_is_marked(names):
    """Far more often than by chance, though not always where a layer below lets other tokens know."""

    def share_kept(marked, model, run):
        pooled = answers(model.pooling)
        answer = run()
        kept = torch.zeros_like(marked).scatter(1, pooled[0].positions, pooled[0].attention_mask != 0)
        return ((marked & kept).sum() / marked.sum()).item(), answer

    model = names["classifier"]
    tokens, mask, _ = next(names["documents"](size=500))
    share, _ = share_kept((tokens < 4) & mask, model, lambda: model(tokens, mask))
    assert share > 0.4  # by chance: 0.25

    model, pixels = names["vit"], names["pixels"]
    energy = pixels.view(-1, 8, 4, 8, 4).square().sum((2, 4)).flatten(1)  # [B, 64]
    bar = nn.functional.one_hot(1 + energy.argmax(-1), 65).bool()
    share, _ = share_kept(bar, model, lambda: model(pixels))
    assert share > 0.4  # by chance: 0.125

    model, prompt = names["compressed"], names["prompt"]
    share, memory = share_kept(prompt < 8, model, lambda: model.read(prompt, names["mask"]))
    assert share > 0.8  # by chance: 0.19; nothing else lets the answer know
    assert [layer.keys.shape[2] for layer in memory.cache.layers] == [6, 6]


def test_an_encoder_of_torchs_layers_does_not_see_padding():
    torch.manual_seed(0)
    model = defined("Classifier")(words=50, classes=4).eval()
    tokens, mask = torch.randint(50, (2, 64)), torch.arange(64) < torch.tensor([[5], [64]])  # 5: three slots are empty
    together = model(tokens, mask)
    assert together.isfinite().all()
    model.pooling.k = 5  # no slot is empty
    torch.testing.assert_close(model(tokens[:1, :5], mask[:1, :5]), together[:1])


def test_a_vision_transformer_keeps_its_class_token():
    model = defined("VisionTransformer")(classes=4).eval()
    pooled = answers(model.pooling)
    model(torch.randn(3, 1, 32, 32))
    assert (pooled[0].positions[:, 0] == 0).all()
    assert pooled[0].hidden_states.shape == (3, 9, 32)


SIZES = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 37, "num_hidden_layers": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0, "eos_token_id": None}  # fmt: skip
LANGUAGE_MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=8)),
}
PADDED = torch.tensor([[0, 0, 0, *[1] * 9], [1] * 12, [*[1] * 7, *[0] * 5]])  # on the left, not, on the right


def compressed_prompt(family="llama", k=4):
    """A model that compresses prompts, three of them (padded as in PADDED), and what follows each."""
    torch.manual_seed(0)
    model = defined("CompressedPrompt")(LANGUAGE_MODELS[family](), k=k, layers_below=2).eval()
    ids = torch.randint(1, 40, (3, 17), generator=torch.Generator().manual_seed(1))
    return model, ids[:, :12] * PADDED, ids[:, 12:]


@torch.no_grad()
@pytest.mark.parametrize("k", [12, 20])
@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_with_room_for_the_whole_prompt_compression_changes_nothing(family, k):
    model, prompt, rest = compressed_prompt(family, k)
    for mode in (model.eval, model.train):  # soft or sharp, there is nothing to choose
        mode()
        logits, _ = model(model.read(prompt, PADDED), rest)
        for row, mask in enumerate(PADDED):
            alone = torch.cat([prompt[row, mask == 1], rest[row]])  # without its padding
            expected = model.lm(alone.unsqueeze(0)).logits[0, -rest.shape[1] :]
            torch.testing.assert_close(logits[row], expected, rtol=1e-4, atol=1e-5)
    said = model.eval().generate(prompt[1:2], PADDED[1:2], rest[1:2, :1], count=6)
    whole = torch.cat([prompt[1:2], rest[1:2, :1]], 1)
    assert torch.equal(said, model.lm.generate(whole, do_sample=False, max_new_tokens=6)[:, -6:])


@torch.no_grad()
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_what_follows_a_compressed_prompt_does_not_depend_on_later_tokens(mode):
    model, prompt, rest = compressed_prompt()
    getattr(model, mode)()
    logits, _ = model(model.read(prompt, PADDED), rest)
    other = rest.clone()
    other[:, 3:] = (other[:, 3:] + 7) % 40
    changed, _ = model(model.read(prompt, PADDED), other)
    torch.testing.assert_close(changed[:, :3], logits[:, :3])
    assert not torch.allclose(changed[:, 3:], logits[:, 3:])
    memory, one_by_one = model.read(prompt, PADDED), []
    assert [layer.keys.shape[2] for layer in memory.cache.layers] == [12, 12, 4, 4]
    for token in rest.split(1, dim=1):
        step, memory = model(memory, token)
        one_by_one.append(step)
    torch.testing.assert_close(torch.cat(one_by_one, 1), logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_compressed_prompt_does_not_depend_on_its_padding():
    model, prompt, rest = compressed_prompt()
    logits, _ = model(model.read(prompt, PADDED), rest)
    for row, mask in enumerate(PADDED):
        alone = prompt[row : row + 1, mask == 1]
        expected, _ = model(model.read(alone, torch.ones_like(alone)), rest[row : row + 1])
        torch.testing.assert_close(logits[row : row + 1], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rotary_positions_follow_the_tokens_that_are_kept():
    """Sharp, a slot is a token: what follows sees the tokens kept, where they stood, and no other."""
    model, prompt, rest = compressed_prompt()
    model.pooling = TopKPooling(32, 4, temperature=1e-6).eval()
    prompt, rest = prompt[1:2], rest[1:2]
    pooled = answers(model.pooling)
    logits, _ = model(model.read(prompt, torch.ones_like(prompt)), rest)

    decoder = model.lm.model
    both = torch.cat([prompt, rest], 1)
    positions = torch.arange(both.shape[1]).unsqueeze(0)
    vectors = decoder.embed_tokens(both)
    for number, layer in enumerate(decoder.layers):
        if number == 2:  # hide all that was not kept, and leave the rest at its place
            hide = torch.ones(both.shape[1], dtype=torch.bool)
            hide[pooled[0].positions[0]] = hide[12:] = False
        hidden = torch.ones(17, 17, dtype=torch.bool).triu(1) | (hide if number >= 2 else False)
        bias = torch.zeros(1, 1, 17, 17).masked_fill(hidden, torch.finfo().min)
        vectors = layer(vectors, attention_mask=bias, position_embeddings=decoder.rotary_emb(vectors, positions))
    expected = model.lm.lm_head(decoder.norm(vectors))[:, 12:]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
