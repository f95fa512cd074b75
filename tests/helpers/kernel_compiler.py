"""Compile kernels for GPUs that are not here, and see what of the machine they would use."""

import re
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64",
    torch.int32: "*i32", torch.int16: "*i16", torch.int8: "*i8", torch.bool: "*i1",
}  # fmt: skip
PTXAS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"


class Compiled(NamedTuple):
    """What a kernel uses."""

    name: str
    registers: int  # of a thread
    spilled: int  # bytes of a thread
    shared: int  # bytes of a program
    seconds: float


class Compiler:
    """Takes the place of a start: compiles the kernel for one architecture, once for each kind of arguments."""

    def __init__(self, capability: int, folder: Path):
        self.target, self.folder = GPUTarget("cuda", capability, 32), folder
        self.found: dict[tuple, Compiled] = {}

    def compile(self, start, grid, *given):
        kernel, arguments, values = start.kernel, (*given, *start.numbers), dict(start.constants)
        signature, attributes, num_warps = {}, {}, values.pop("num_warps")
        for i, (name, x) in enumerate(zip(kernel.arg_names, arguments, strict=False)):
            if x is None or (isinstance(x, int) and x == 1):
                values[name] = x
                continue
            if isinstance(x, torch.Tensor):
                signature[name] = POINTERS[x.dtype]
            else:
                signature[name] = "i32" if isinstance(x, int) else "fp32"
            if isinstance(x, torch.Tensor) or (isinstance(x, int) and x % 16 == 0):
                attributes[(i,)] = [["tt.divisibility", 16]]
        signature |= dict.fromkeys(values, "constexpr")
        kind = (kernel, num_warps, *sorted(signature.items()), *sorted(values.items(), key=str), *attributes)
        if kind in self.found:
            return
        begin = time.perf_counter()
        source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
        compiled = triton.compile(source, target=self.target, options={"num_warps": num_warps})
        seconds = time.perf_counter() - begin
        text = compiled.asm["ptx"]
        path = self.folder / "kernel.ptx"
        path.write_text(text)
        architecture = re.search(r"\.target (\w+)", text)[1]
        report = subprocess.run([PTXAS, "-v", "-arch", architecture, path, "-o", path.with_suffix(".cubin")],
                                capture_output=True, text=True, check=True).stderr  # fmt: skip
        registers, spilled = (int(re.search(pattern, report)[1])
                              for pattern in (r"Used (\d+) registers", r"(\d+) bytes spill stores"))  # fmt: skip
        self.found[kind] = Compiled(kernel.__name__, registers, spilled, compiled.metadata.shared, seconds)
