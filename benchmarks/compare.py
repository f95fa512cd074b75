"""Is it worth learning which tokens to keep? The same encoder, data and budget; only the pooling differs.

python benchmarks/compare.py [--tasks needle bbc] [--k 8 32] [--seeds 0 1 2] [--device cuda]
python benchmarks/compare.py --tasks bbc --fine-tune    # the whole model, by train.py: hours on a CPU
python benchmarks/compare.py --tasks docstrings [--train --epochs 1]    # summaries, always by train.py

needle: two sentences of an article hidden in about 2,000 tokens of documentation; bbc: the articles as they are;
docstrings: their summary lines. But for these the encoder is frozen and its token vectors are computed once, unless
--fine-tune is given. Writes benchmarks/results/compare-<task>.json after every single training, so that an interrupted
run goes on where it stopped (delete the file to start anew), and the table beside it as .md. For docstrings all ways
take turns at the end (pace.py), for which the machine must have nothing else to do: seconds and tokens a second of the
table are from there.
"""

import argparse
import itertools
import statistics
import tempfile
import time

import torch
from frozen import Classifier, fit, predict, token_vectors, with_attention
from pace import pace
from paired import best_rows
from record import RESULTS, ROOT, CommandLine, resume, save
from tqdm.auto import tqdm
from variants import BBC_ONLY, NEEDLE_ONLY, RIVAL_ROWS, SUMMARIES, VARIANTS, Variant

from shtopk import TopKPooling, tasks
from shtopk.commands.compare import fine_tune
from shtopk.models import default_encoder
from shtopk.training.comparison import COLUMNS, cell, in_its_own_process

CACHE = RESULTS.parent / ".cache"


class Frozen:
    """Trains a pooling and a classifier on token vectors that are in memory."""

    def __init__(self, task: str, device: torch.device):
        arguments = tasks.DataArguments(task=task)
        dataset = tasks.get_task(arguments).load(arguments)
        self.task, self.texts, self.device = task, dataset["train"], device
        self.classes = dataset["train"].features["label"].num_classes
        self.splits = token_vectors(task, dataset, default_encoder(), device, CACHE)

    def __call__(self, variant: Variant, k: int | float, seed: int, split: str = "test") -> dict:
        if variant.kind == "taught" and self.splits["train"].attention is None:
            name = f"{self.task}-train"
            self.splits["train"] = with_attention(name, self.texts, self.splits["train"], default_encoder(), CACHE)
        torch.manual_seed(seed)
        train_split, test = self.splits["train"], self.splits[split]
        classifier = Classifier(train_split.hidden_states.shape[-1], self.classes, k, variant).to(self.device)
        start = self.now()
        fit(classifier, train_split, seed, variant.scorer_learning_rate)
        seconds = self.now() - start
        predictions, share = predict(classifier, test)
        return {
            **tasks.classification_metrics(predictions.tolist(), test.labels.tolist()),
            "correct": "".join("01"[right] for right in (predictions == test.labels).tolist()),
            **({"evidence_share": share} if test.evidence.any() else {}),
            "train_seconds": seconds,
        }

    def now(self) -> float:
        """Seconds; on a CPU those that this process has computed, whatever else the machine does."""
        if self.device.type != "cuda":
            return time.process_time()
        torch.cuda.synchronize(self.device)
        return time.perf_counter()


class FineTuned:
    """Trains the whole model with train.py, the task's configuration and more words of its command line."""

    def __init__(self, task: str, device: torch.device, words: list[str]):
        self.words, self.device = ["--config", str(ROOT / "configs" / CONFIGURATIONS[task]), *words], device

    def command_line(self, variant: Variant, k: int | float, seed: int) -> list[str]:
        pooling = TopKPooling(1, k, **variant.pooling)
        fields = variant.pooling | {
            "initial_temperature": pooling.initial_temperature or pooling.temperature,
            "k": k,
            "seed": seed,
            "freeze_scorer": variant.freeze_scorer,
        }
        return self.words + [f"--{name}={value}" for name, value in fields.items()]

    def __call__(self, variant: Variant, k: int | float, seed: int) -> dict:
        with tempfile.TemporaryDirectory() as folder:
            words = [*self.command_line(variant, k, seed), "--show=0"]
            return in_its_own_process(fine_tune, words, folder)


CONFIGURATIONS = {"bbc": "bbc.yaml", "docstrings": "docstrings.yaml"}
BUDGETS = {"docstrings": ["--epochs", "0.4"]}  # 33 trainings of four minutes on one core each
SHOWN = ("32", "8")  # of the numbers of slots, in summaries
WITHOUT_K = ("1", "all")  # slots of the rows that stand beside those of any k
ORACLES = {variant.name for variant in NEEDLE_ONLY if variant.kind == "oracle"}
TIMES = ("train_seconds", "documents_per_second", "generated_tokens_per_second")


def table(record: dict) -> str:
    """Markdown: a row for each variant and k, mean ± standard deviation over the seeds."""
    record = _at_one_pace(record)
    shown = {key: column for key, column in COLUMNS.items() if any(key in run for run in record["runs"])}
    lines = [
        f"| pooling | k | {' | '.join(head for head, _, _ in shown.values())} |",
        "|---|--:|" + "--:|" * len(shown),
    ]
    ks = _ks(record)
    bold = best(record, ks)
    for name, k in itertools.product(_names(record), ks):
        if runs := [run for run in record["runs"] if (run["variant"], run["k"]) == (name, k)]:
            cells = [_shown(runs, key, name in bold[k]) for key in shown]
            lines.append(f"| {name} | {k} | {' | '.join(cells)} |")
    return "\n".join(lines) + _source(record, any(bold.values()))


def best(record: dict, ks: list[str]) -> dict[str, set[str]]:
    """{k: the variants whose accuracy is best, or within one standard error of the best}.

    Variants without a k of the table compete with those of each, and count as best if they are so with all of them.
    The oracle, which knows where the evidence is, does not compete.
    """
    bold = {k: _best_with(k, record) for k in ks if k not in WITHOUT_K}
    of_all = set.intersection(*bold.values()) if bold else set()
    return bold | dict.fromkeys(WITHOUT_K, of_all)


def _best_with(k: str, record: dict) -> set[str]:
    column, others = {}, []
    for name in _names(record):
        runs = [run for run in record["runs"] if run["variant"] == name and run["k"] in (k, *WITHOUT_K)]
        if not runs or name in ORACLES or "accuracy" not in runs[0]:
            continue
        if all("correct" in run for run in runs):
            column[name] = [[int(right) for right in run["correct"]] for run in runs]
        else:
            others.append(statistics.mean(run["accuracy"] for run in runs))
    return best_rows(column, others=others)


def summary(record: dict) -> str:
    """Markdown for the README: a row for each variant, accuracy and, on needle, the share of evidence for each k."""
    record = _at_one_pace(record)
    keys = [key for key in ("accuracy", "evidence_share", "rouge1", "rougeL") if key in record["runs"][0]]
    ks = [k for k in _ks(record) if k in SHOWN]
    heads = [f"{COLUMNS[key][0]}, k = {k}" for k in ks for key in keys]
    lines = [f"| pooling | {' | '.join(heads)} | training s |", "|---|" + "--:|" * (len(heads) + 1)]
    bold = best(record, ks)
    for name in _names(record):
        of_name = [run for run in record["runs"] if run["variant"] == name]
        without_k = of_name[0]["k"] in WITHOUT_K
        parts = (
            [of_name, *([] for _ in ks[1:])] if without_k else [[run for run in of_name if run["k"] == k] for k in ks]
        )
        cells = [_shown(runs, key, name in bold[runs[0]["k"]]) if runs else "" for runs in parts for key in keys]
        lines.append(f"| {name} | {' | '.join(cells)} | {cell(parts[0], 'train_seconds')} |")
    return "\n".join(lines) + _source(record, any(bold.values()))


def _shown(runs: list[dict], key: str, is_best: bool) -> str:
    return f"**{cell(runs, key)}**" if is_best and key == "accuracy" else cell(runs, key)


def _at_one_pace(record: dict) -> dict:
    """With seconds and tokens a second from where all ways took turns, if they did, not from the runs."""
    measured = {(one["variant"], one["k"]): one for one in record.get("pace", [])}
    if not measured:
        return record
    runs = []
    for run in record["runs"]:
        run = {key: value for key, value in run.items() if key not in TIMES}
        if speed := measured.get((run["variant"], run["k"])):
            run["train_seconds"] = speed["updates"] * speed["update_seconds"]
            run["generated_tokens_per_second"] = speed["generated_tokens_per_second"]
        runs.append(run)
    return record | {"runs": runs}


def _ks(record: dict) -> list[str]:
    return list(dict.fromkeys(run["k"] for run in record["runs"]))


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _names(record: dict) -> list[str]:
    """Of the variants that ran, in the order of variants.py; others after them."""
    ran = dict.fromkeys(run["variant"] for run in record["runs"])
    known = dict.fromkeys(variant.name for variant in VARIANTS + NEEDLE_ONLY + RIVAL_ROWS + BBC_ONLY + SUMMARIES)
    return [name for name in known if name in ran] + [name for name in ran if name not in known]


def _source(record: dict, with_bold: bool) -> str:
    """Where the figures come from, and what bold means."""
    counts = {one["updates"] for one in record.get("pace", [])}
    updates = _listed(sorted(counts))
    paced = (
        f"Times: {updates} updates, and summaries, with all ways taking turns (`benchmarks/pace.py`). "
        if counts
        else ""
    )
    bold = (
        "Bold: best, or within one paired standard error of the best of this k, but for the oracle. "
        if with_bold
        else ""
    )
    frozen = any("correct" in run for run in record["runs"])
    times = "Training: CPU time. " if frozen and "CPU" in record["device"] else ""
    return (
        f"\n\nTest split, mean ± standard deviation over seeds {_seeds(record)}. {paced}{times}{bold}"
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def _seeds(record: dict) -> str:
    """The seeds that most rows have, and in parentheses whoever has others."""
    rows: dict[tuple[str, str], list[int]] = {}
    for run in record["runs"]:
        rows.setdefault((run["k"], run["variant"]), []).append(run["seed"])
    most = max(rows.values(), key=len)
    others: dict[tuple[str, str], list[str]] = {}  # (names, their seeds) -> numbers of slots
    for k in _ks(record):
        seeds_of = {name: sorted(seeds) for (other, name), seeds in rows.items() if other == k}
        fewer = [name for name, seeds in seeds_of.items() if seeds != sorted(most)]
        for seeds in dict.fromkeys(_listed(seeds_of[name]) for name in fewer):
            names = [name for name in fewer if _listed(seeds_of[name]) == seeds]
            whose = "" if len(names) == len(seeds_of) else f" and {', '.join(names)}"
            others.setdefault((whose, seeds), []).append(k)
    found = [f"with k = {', '.join(ks)}{whose}: {seeds}" for (whose, seeds), ks in others.items()]
    return _listed(sorted(most)) + (f" ({'; '.join(found)})" if found else "")


def rows_of(task: str, ks: list[int], rivals: bool = False) -> dict[tuple[str, str], tuple[Variant, int | float]]:
    """(name, k as the table shows it) of each row -> the variant and its slots."""
    variants = SUMMARIES if task == "docstrings" else VARIANTS + (NEEDLE_ONLY if task == "needle" else [])
    if rivals:
        variants = variants + RIVAL_ROWS + (BBC_ONLY if task == "bbc" else [])
    rows = {}
    for k, variant in itertools.product(ks, variants):
        slots = k if variant.k is None else variant.k
        rows[variant.name, "all" if isinstance(slots, float) else str(slots)] = variant, slots
    return rows


def main() -> None:
    parser = CommandLine(__doc__)
    parser.add_argument("--tasks", nargs="+", choices=["needle", "bbc", "docstrings"], default=["needle", "bbc"])
    parser.add_argument("--k", nargs="+", type=int, default=[8, 32], help="slots")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", metavar="NAME", help="rows; all by default")
    parser.add_argument("--fine-tune", action="store_true", help="task bbc: train the encoder too")
    parser.add_argument("--train", nargs=argparse.REMAINDER, help="all that follows goes to train.py")
    arguments = parser.parse_args()
    if arguments.fine_tune and arguments.tasks != ["bbc"]:
        parser.error("--fine-tune goes with --tasks bbc")
    device = torch.device(arguments.device)
    for task in arguments.tasks:
        path = arguments.results / f"compare-{task}{'-fine-tuned' if arguments.fine_tune else ''}.json"
        done = {(run["variant"], run["k"], run["seed"]) for run in resume(path, arguments.device)["runs"]}
        whole = arguments.fine_tune or task == "docstrings"
        rows = rows_of(task, arguments.k, rivals=not whole)
        if arguments.variants:
            rows = {row: found for row, found in rows.items() if row[0] in arguments.variants}
        plan = [(row, seed) for seed in arguments.seeds for row in rows if (*row, seed) not in done]
        words = BUDGETS.get(task, []) if arguments.train is None else arguments.train
        run = FineTuned(task, device, words) if whole else Frozen(task, device) if plan else None
        for row, seed in tqdm(plan, desc=task):
            new = {"variant": row[0], "k": row[1], "seed": seed, **run(*rows[row], seed)}
            record = resume(path, arguments.device)  # again: other seeds may be running beside this one
            record["runs"].append(new)
            save(record, path)
        record = resume(path, arguments.device)
        if task == "docstrings":
            rows = rows_of(task, [int(k) for k in _ks(record) if k != "all"])
            if {(one["variant"], one["k"]) for one in record.get("pace", [])} != set(rows):
                found = pace([run.command_line(*row, seed=0) for row in rows.values()], device)
                record = resume(path, arguments.device)
                record["pace"] = [
                    {"variant": name, "k": k, **speed} for (name, k), speed in zip(rows, found, strict=True)
                ]
        save(record, path)
        text = table(record)
        path.with_suffix(".md").write_text(text)
        print(f"\n{task}\n\n{text}")


if __name__ == "__main__":
    main()
