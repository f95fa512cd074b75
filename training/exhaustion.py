"""Memory that ran out, on a GPU or on a CPU: recognised, and told in one line with what would help."""

from __future__ import annotations

import re

import torch

from shtopk.training.memory import amount

# What torch says on a CPU, and what some libraries on a GPU say in a RuntimeError of no kind of its own.
SIGNS = ("DefaultCPUAllocator", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory")
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out.

    Example:
        >>> is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory.")), is_out_of_memory(RuntimeError("shapes"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def out_of_memory(error: BaseException) -> str:
    """That memory ran out, where, and how much was asked for, if the error says so.

    Example:
        >>> out_of_memory(RuntimeError("DefaultCPUAllocator: you tried to allocate 3221225472 bytes."))
        'the CPU ran out of memory as it asked for 3.0 GiB more'
    """
    text = str(error)
    where = "GPU" if isinstance(error, torch.OutOfMemoryError) or "CUDA" in text or "CUBLAS" in text else "CPU"
    found = re.search(r"[Tt]ried to allocate ([\d.]+) (bytes|[KMGT]iB)", text)
    if found is None:
        return f"the {where} ran out of memory"
    return f"the {where} ran out of memory as it asked for {amount(float(found[1]) * UNITS[found[2]])} more"


def what_helps(*, training: bool) -> str:
    """Which fields make a command need less memory.

    Args:
        training: it is a training; otherwise an evaluation.
    """
    if not training:
        return "a smaller --eval_batch_size helps, --max_tokens, or --mixed_precision bf16"
    return (
        "what helps: a smaller --batch_size with more --accumulation (and a smaller --eval_batch_size), "
        "--gradient_checkpointing true, a smaller --windows_at_once, --max_tokens, --mixed_precision bf16, "
        "--freeze_layers or --lora_r"
    )
