"""What does pooling a prompt between the layers save: time to the first token, time per token, bytes of the cache?

python benchmarks/prompt_speed.py [--sizes 2048:128 8192:512] [--turns 5] [--device cuda]

An untrained Llama of 12 layers reads a prompt of random tokens and one more, then generates 32, greedily. With
`pool_decoder` the layers above the third read, and remember, k vectors of the prompt and the token that follows it;
without, they read all. Other ways to choose the k vectors stand in the same place. All have the same weights and take
turns in one process, so the machine should have nothing else to do. Writes benchmarks/results/prompt-speed.json after
every turn, and the table beside it as .md.
"""

import copy
import statistics
import time
from typing import Any

import torch
from record import CommandLine, publish, resume, save
from rivals.prompts import put_rival
from torch import Tensor
from tqdm.auto import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, StoppingCriteria

from shtopk.integrations.decoder import pool_decoder

SHAPE = {
    "num_hidden_layers": 12,
    "hidden_size": 512,
    "intermediate_size": 1408,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "vocab_size": 16000,
}
SIZES = ["2048:128", "8192:512"]  # tokens:k
POOLED, WHOLE = "successive halving", "not pooled"
RIVALS = ("iterative top-k", "hard top-k, gated", "means of stretches", "SnapKV", "expected attention")
FOLLOWING = 32  # generated tokens
GOALS = {"first_token_seconds": 2.0, "token_seconds": 1.5}  # times as fast, at 8,192 tokens


class Clock(StoppingCriteria):
    """Takes the time at each token, and stops nothing."""

    def __init__(self, device: torch.device):
        self.device, self.times = device, [now(device)]

    def __call__(self, input_ids: Tensor, scores: Any, **given: Any) -> Tensor:
        self.times.append(now(self.device))
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def models(k: int, shape: dict[str, int], device: torch.device) -> dict[str, LlamaForCausalLM]:
    """All ways, with the same weights."""
    torch.manual_seed(0)
    whole = LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=2**17)).eval().to(device)
    layer = shape["num_hidden_layers"] // 4
    found = {WHOLE: whole} | {way: pool_decoder(copy.deepcopy(whole), {layer: k}) for way in (POOLED, *RIVALS)}
    for way in RIVALS:
        put_rival(found[way], layer, way, k)
    return found


def measure(model: LlamaForCausalLM, tokens: int, following: int = FOLLOWING) -> dict[str, float]:
    """Seconds to the first token, the median of the seconds for each further one, and bytes of the cache.

    The bytes are those of the prompt alone, below and above the layer where it is pooled, if it is.
    """
    device, layers = model.device, model.config.num_hidden_layers
    prompt = torch.randint(3, model.config.vocab_size, (1, tokens + 1), generator=torch.Generator().manual_seed(1))
    clock = Clock(device)
    out = model.generate(
        prompt.to(device),
        attention_mask=torch.ones_like(prompt).to(device),
        do_sample=False,
        max_new_tokens=following,
        min_new_tokens=following,
        pad_token_id=0,
        stopping_criteria=[clock],
        return_dict_in_generate=True,
    )
    steps = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    held = [_bytes_of_prompt(layer, following) for layer in out.past_key_values.layers]
    return {
        "first_token_seconds": steps[0],
        "token_seconds": statistics.median(steps[1:]),
        "bytes_below": sum(held[: layers // 4]),
        "bytes_above": sum(held[layers // 4 :]),
    }


def _bytes_of_prompt(layer: Any, following: int) -> int:
    """Of keys and values, without those of what was read later: a token, and all that were generated but the last."""
    each = [part.nbytes // part.shape[2] for part in (layer.keys, layer.values)]
    return sum(each) * (layer.keys.shape[2] - following)


def table(record: dict) -> str:
    """Markdown: a row for each size and way, and how many times as fast it is as without pooling."""
    lines = [
        "| tokens | k | pooled by | first token, s | times as fast | each further token, ms | times as fast | "
        "cache below, MiB | cache above, MiB | share |",
        "|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    runs = record["runs"]
    for tokens, k in sorted({(run["tokens"], run["k"]) for run in runs}):
        whole = medians(record, tokens, WHOLE)
        for way in dict.fromkeys(run["way"] for run in runs if run["tokens"] == tokens):
            its = medians(record, tokens, way)
            cells = [f"{tokens:,}", "all" if way == WHOLE else f"{k}", way]
            for key, scale, digits in (("first_token_seconds", 1, 2), ("token_seconds", 1000, 1)):
                cells += [f"{scale * its[key]:.{digits}f}", f"{whole[key] / its[key]:.2f}"]
            cells += [f"{its[key] / 2**20:.1f}" for key in ("bytes_below", "bytes_above")]
            cells += [f"1/{whole['bytes_above'] / its['bytes_above']:g}"]
            lines.append(f"| {' | '.join(cells)} |")
    shape, turns = record["shape"], len({run["turn"] for run in runs})
    return "\n".join(lines) + (
        f"\n\nPooled before layer {shape['num_hidden_layers'] // 4} of {shape['num_hidden_layers']}; an "
        f"untrained Llama of {shape['hidden_size']} dimensions, with {shape['num_key_value_heads']} heads of keys for "
        f"{shape['num_attention_heads']} of queries, float32, one prompt; medians over {turns} turns. The cache is "
        f"that of the prompt; what follows adds as much to all. Goals at 8,192 tokens: at least "
        f"{GOALS['first_token_seconds']:g} and {GOALS['token_seconds']:g} times as fast. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def medians(record: dict, tokens: int, way: str) -> dict[str, float]:
    """Each figure of a way at a size: its median over the turns."""
    runs = [run for run in record["runs"] if (run["tokens"], run["way"]) == (tokens, way)]
    keys = ("first_token_seconds", "token_seconds", "bytes_below", "bytes_above")
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--sizes", nargs="+", default=SIZES, help="tokens:k of the prompts")
    parser.add_argument("--turns", type=int, default=5, help="prompts that each way reads")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    path = arguments.results / "prompt-speed.json"
    record = resume(path, arguments.device, shape=SHAPE)
    done = {(run["tokens"], run["turn"]) for run in record["runs"]}
    for tokens, k in [tuple(map(int, size.split(":"))) for size in arguments.sizes]:
        ways = models(k, SHAPE, device)
        for model in ways.values():
            measure(model, tokens=2 * k)  # warm-up
        for turn in tqdm([turn for turn in range(arguments.turns) if (tokens, turn) not in done], desc=f"{tokens}"):
            runs = [{"tokens": tokens, "k": k, "way": way, "turn": turn} | measure(ways[way], tokens) for way in ways]
            record["runs"] += runs
            save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
