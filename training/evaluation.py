"""What a model answers to a whole split, and what that is worth."""

import time
from collections.abc import Callable

import torch
from accelerate import Accelerator
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from shtopk.tasks import Task


class Stopped(Exception):
    """An evaluation was interrupted; the model is as it was."""


def predict(
    model, loader: DataLoader, accelerator: Accelerator, desc: str, stop: Callable[[], bool] | None = None
) -> list:
    """Class numbers, or the tokens of summaries, of a whole split: each document once, on however many processes.

    Args:
        stop: asked before each batch, on all processes; raises `Stopped` where it says yes.
    """
    model.eval()
    predictions = []
    for batch in tqdm(loader, desc=desc, leave=False, disable=not accelerator.is_main_process):
        if stop is not None and stop():
            raise Stopped
        with torch.inference_mode(), accelerator.autocast():
            if model.can_generate():
                predicted = model.generate(
                    batch["input_ids"],
                    attention_mask=batch["attention_mask"],
                    synced_gpus=isinstance(model, FSDPModule),  # whose processes need each other for every token
                )
                pad = model.generation_config.pad_token_id
                predicted = accelerator.pad_across_processes(predicted, dim=1, pad_index=pad)
            else:
                predicted = model(**batch).logits.argmax(-1)
        predictions += accelerator.gather_for_metrics(predicted).tolist()
    return predictions


def evaluate(
    model,
    loader: DataLoader,
    task: Task,
    tokenizer,
    references: list,
    accelerator: Accelerator,
    name: str,
    stop: Callable[[], bool] | None = None,
) -> tuple[dict, list]:
    """(metrics of a split, with the split's name in front; the predictions)."""
    start = time.perf_counter()
    predicted = predict(model, loader, accelerator, f"evaluate ({name})", stop)
    seconds = time.perf_counter() - start
    predictions = task.decode(tokenizer, predicted)
    results = task.compute_metrics(predictions, references)
    results |= {"runtime": seconds, "documents_per_second": len(references) / seconds, "documents": len(predictions)}
    if model.can_generate():
        pad = model.generation_config.pad_token_id
        generated = sum(token != pad for summary in predicted for token in summary[1:])  # without the start
        results["generated_tokens_per_second"] = generated / seconds
    return {f"{name}_{key}": value for key, value in results.items()}, predictions
