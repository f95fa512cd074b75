"""What does pooling save as documents grow? A training step and a summary, with the decoder seeing k vectors or all.

python benchmarks/scaling.py [--backbone folder] [--k 64] [--lengths 512 ... 16384] [--device cuda] [--results folder]

With an untrained model (by default MiniLM, read in windows of 512 tokens, and a decoder of two layers): a step of
training on two documents with targets of 64 tokens, forward and backward; and generating 64 tokens for each with four
beams, with the decoder's share of the time. Every cell runs in a new process, so that its peak memory is its own.
Writes benchmarks/results/scaling.json after every cell, then .md; delete the file to measure anew.
"""

import time

import torch
from record import CommandLine, publish, resume, save
from tqdm.auto import tqdm

from shtopk.models import TopKPoolingForConditionalGeneration
from shtopk.training.comparison import in_its_own_process
from shtopk.training.memory import PeakMemory

LENGTHS = [2**i for i in range(9, 15)]
BATCH, TARGET, BEAMS = 2, 64, 4


def measure(backbone: str | None, length: int, k: int | None, device: str) -> dict:
    """Seconds and MiB at one length; k None: the decoder sees all tokens."""
    torch.manual_seed(0)
    pooling = {"k": k} if k else {"k": 1.0, "operator": "hard"}
    model = TopKPoolingForConditionalGeneration.from_backbone(backbone, backbone_dropout=0.0, **pooling).to(device)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids, target = (torch.randint(vocabulary // 2, vocabulary, (BATCH, n), device=device) for n in (length, TARGET))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    def timed(work) -> tuple[float, float]:
        memory = PeakMemory(torch.device(device))
        start = now(device)
        work()
        return now(device) - start, memory.read()

    def encode():
        with torch.inference_mode():
            return model.get_encoder()(**inputs)

    def generate():
        with torch.inference_mode():
            encoded = model.get_encoder()(**inputs)
            model.generate(encoder_outputs=encoded, max_new_tokens=TARGET, min_new_tokens=TARGET, num_beams=BEAMS)

    model.eval()
    generate()  # warm-up
    encoder_seconds, _ = timed(encode)
    generate_seconds, generate_mib = timed(generate)
    model.train()
    train_seconds, train_mib = timed(lambda: model(**inputs, labels=target).loss.backward())
    return {
        "length": length,
        "k": k,
        "train_seconds": train_seconds,
        "train_mib": train_mib,
        "generate_seconds": generate_seconds,
        "decoder_seconds": generate_seconds - encoder_seconds,
        "generate_mib": generate_mib,
    }


def now(device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def table(record: dict) -> str:
    """Markdown: a row for each length, every figure pooled and not, and the ratio of the two."""
    heads = {"train_seconds": "training step, s", "train_mib": "its peak, MiB", "generate_seconds": "generating, s",
             "decoder_seconds": "of which decoder, s", "generate_mib": "its peak, MiB"}  # fmt: skip
    lines = [f"| tokens | {' | '.join(heads.values())} |", "|--:|" + "--:|" * len(heads)]
    cells = {(run["length"], run["k"]): run for run in record["runs"]}
    k = record["pooled_to"]
    for length in sorted({length for length, _ in cells}):
        pooled, unpooled = cells[length, k], cells[length, None]
        digits = {name: 2 if name.endswith("seconds") else 0 for name in heads}
        shown = [f"{pooled[name]:.{digits[name]}f} / {unpooled[name]:.{digits[name]}f}" for name in heads]
        lines.append(f"| {length} | {' | '.join(shown)} |")
    return "\n".join(lines) + (
        f"\n\nPooled to k = {k} / not pooled; {BATCH} documents, targets of {TARGET} tokens, {BEAMS} beams. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--backbone", help="folder or hub name of an encoder or encoder-decoder")
    parser.add_argument("--k", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    arguments = parser.parse_args()
    path = arguments.results / "scaling.json"
    record = resume(path, arguments.device, backbone=arguments.backbone, pooled_to=arguments.k)
    done = {(run["length"], run["k"]) for run in record["runs"]}
    plan = [(n, k) for n in arguments.lengths for k in (arguments.k, None) if (n, k) not in done]
    for length, k in tqdm(plan, desc="scaling"):
        record["runs"].append(in_its_own_process(measure, arguments.backbone, length, k, arguments.device))
        save(record, path)
    publish(record, path, table)


if __name__ == "__main__":
    main()
