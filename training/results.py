"""What a run leaves at its end: the best checkpoint's answers to the test split, and all that explains them."""

import json
from typing import Any

from torch.distributed.fsdp import FSDPModule

from shtopk.models import load_checkpoint, write_model_card
from shtopk.show.answer import show_document
from shtopk.tasks.columns import PAIR, TEXT
from shtopk.training.checkpoints import names_of_model, publish
from shtopk.training.compiling import uncompiled
from shtopk.training.evaluation import evaluate
from shtopk.training.hub import upload
from shtopk.training.label_thresholds import choose_thresholds, save_thresholds
from shtopk.training.measured import write_answers
from shtopk.training.provenance import device_name
from shtopk.training.run import Run
from shtopk.training.run_folder import CARD, FINISHED, PREDICTIONS, SAMPLES, note
from shtopk.training.snapshot import load_weights


def finish(run: Run) -> dict[str, Any]:
    """Test the best checkpoint of a run, and write the results into the run's folder.

    Args:
        run: one that `fit` has trained to its end.

    Returns:
        The content of all_results.json.
    """
    accelerator, progress, output, task = run.accelerator, run.progress, run.output, run.task
    best = run.checkpoints.path(progress.best_update)
    load_weights(run.model, best)
    with uncompiled():
        thresholds = choose_thresholds(run) if run.arguments.training.tune_thresholds else {}
        tested, predictions, answers = evaluate(run, "test", "test")
    references, test = run.references("test"), run.texts["test"]
    baselines = task.baselines(run.texts) if accelerator.is_main_process else {}
    results: dict[str, Any] = progress.best | tested
    results |= {
        "best_update": progress.best_update,
        "updates": progress.update,
        "epochs": progress.update / len(run.batches),
        "train_runtime": progress.seconds,
        "train_documents_per_second": progress.documents / progress.seconds,
        "train_tokens_per_second": progress.tokens / progress.seconds,
        "parameters": sum(p.numel() for p in run.model.parameters()),
        "trained_parameters": sum(p.numel() for p in run.model.parameters() if p.requires_grad),
        "processes": accelerator.num_processes,
        "device": device_name(accelerator.device),
        "mixed_precision": accelerator.mixed_precision,
        "command": run.command,
        "arguments": run.provenance.arguments,
        "baselines": {name: task.compute_metrics(texts, references) for name, texts in baselines.items()},
    }
    if thresholds:
        results["label_thresholds"] = thresholds
    if accelerator.is_main_process:
        shown = min(run.arguments.training.show, len(test))
        note(output, *names_of_model(best), FINISHED, PREDICTIONS, CARD, *[SAMPLES] * run.model.can_generate(),
             *(f"document_{i}.html" for i in range(shown)))  # fmt: skip
        publish(best, output)
        if thresholds:
            save_thresholds(thresholds, output)
        (output / FINISHED).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        write_answers(run, "test", answers)
        run.kind.write_samples(output, test, predictions, baselines)
        write_model_card(
            output,
            target=task.target,
            base_model=run.arguments.model.backbone or "sentence-transformers/all-MiniLM-L6-v2",
            data=task.description,
            licence=task.licence,
            command=run.command,
            results=results,
        )
        with uncompiled():
            show_documents(run)
        for name, metrics in results["baselines"].items():
            print(f"{name}: {task.in_short(metrics)}")
        print(f"test: {task.in_short(results, 'test')}; see {output}")
        if (name := run.arguments.training.push_to_hub) is not None:
            print(f"uploaded to {upload(output, name, private=run.arguments.training.private)}")
    accelerator.end_training()
    return results


def show_documents(run: Run) -> None:
    """Write HTML pages that show what was kept of the first test documents."""
    count = min(run.arguments.training.show, len(run.texts["test"]))
    model = run.model
    if count and isinstance(model, FSDPModule):  # sharded: load the whole model
        model, _ = load_checkpoint(run.output)
    for i, document in enumerate(run.texts["test"].select(range(count))):
        truth = run.kind.truth(model, document[run.task.target])
        texts = (document[TEXT], document[PAIR]) if PAIR in document else document[TEXT]
        page = show_document(model, run.tokenizer, texts, max_tokens=run.arguments.data.max_tokens, **truth)
        (run.output / f"document_{i}.html").write_text(page, encoding="utf-8")
