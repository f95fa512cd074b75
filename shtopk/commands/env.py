"""What is installed, which device there is, and what computes on it.

shtopk env
"""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from importlib.util import find_spec

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "evaluate", "peft", "sentence-transformers", "triton")


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        "shtopk env", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(argv)
    import torch

    import shtopk
    from shtopk.backends import native

    rows = {"shtopk": shtopk.__version__, "python": f"{platform.python_version()} on {platform.platform()}"}
    rows |= {name: _version(name) for name in PACKAGES}
    if torch.cuda.is_available():
        rows["device"] = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        triton = find_spec("triton") is not None
        rows["on the GPU"] = "Triton kernels" if triton else "tensor operations: the package triton is missing"
    else:
        rows["device"] = f"CPU, {torch.get_num_threads()} threads; no GPU that torch can use"
    compiled = native.LIBRARY is not None
    rows["on the CPU"] = "C" if compiled else "tensor operations: shtopk was installed without a C compiler"
    for name, value in rows.items():
        print(f"{name:22}{value}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"
