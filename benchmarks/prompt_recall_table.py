"""The table of recall: a row for each way, a column for each k."""

import statistics

import numpy as np
from paired import best_rows
from prompt_recall_task import FACTS
from ranking import from_text

TRAINED = ("whole", "scorer", "nothing")  # order of the rows


def table(record: dict) -> str:
    """Markdown: the share of facts recalled, mean ± standard deviation over the seeds of what was trained.

    In bold what is best of its k, or within one standard error of the best. The last column is the loss with one of
    these k.
    """
    ks, runs = record["k"], record["runs"]
    its_k = loss_k(record)
    names = list(dict.fromkeys(run["way"] for run in sorted(runs, key=lambda run: TRAINED.index(run["trained"]))))
    bold = {k: best(record, k) for k in ks}
    lines = [
        f"| facts recalled | what is trained | {' | '.join(f'k = {k}' for k in ks)} | loss, k = {its_k} |",
        "|---|---|" + "--:|" * (len(ks) + 1),
    ]
    for name in names:
        its = [run for run in runs if run["way"] == name]
        cells = []
        for k in ks:
            found = [exact(run) for run in its if run["k"] in (k, 0)]
            text = _cell(found)
            cells.append(f"**{text}**" if name in bold[k] else text)
        losses = [run["loss"] for run in its if run["k"] in (its_k, 0)]
        cells.append(f"{statistics.mean(losses):.2f}" if losses else "")
        lines.append(f"| {name} | {its[0]['trained']} | {' | '.join(cells)} |")
    seeds = ", ".join(map(str, sorted({run["seed"] for run in runs if run["trained"] != "nothing"})))
    prompts = len(from_text(runs[0]["right"])) // FACTS
    return "\n".join(lines) + (
        f"\n\n{prompts} prompts of {record['words']} words with {FACTS} facts each, of which k vectors are left from "
        f"layer {record['layer']} of 4 on; {record['updates']} updates with a way, seeds {seeds}. Loss: nats of a "
        f"part of a number. Bold: best of the ways that pool, or within one standard error of the paired difference "
        f"to it, over prompts and seeds. "
        f"`{record['command']}` on {record['device']}, torch {record['torch']}.\n"
    )


def loss_k(record: dict) -> int:
    """The k whose loss is shown: a sixteenth of the words, or the nearest."""
    return min(record["k"], key=lambda k: abs(16 * k - record["words"]))


def exact(run: dict) -> float:
    """The share of facts that a run recalled."""
    return float(from_text(run["right"]).mean())


def best(record: dict, k: int) -> set[str]:
    """The ways that are best with k vectors, or within one standard error."""
    column: dict[str, list[np.ndarray]] = {}
    for run in record["runs"]:
        if run["k"] == k:
            column.setdefault(run["way"], []).append(from_text(run["right"]))
    return best_rows(column, owners_of(column)) if column else set()


def owners_of(column: dict[str, list[np.ndarray]]) -> np.ndarray:
    """[facts] the number of the prompt that each fact stands in."""
    return np.arange(len(next(iter(column.values()))[0])) // FACTS


def _cell(found: list[float]) -> str:
    if not found:
        return ""
    spread = f" ± {statistics.stdev(found):.3f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.3f}{spread}"
