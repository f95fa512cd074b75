"""Whether torch's compiler for CPUs can be tried here, and the marks of tests that do: it takes its time."""

import shutil

import pytest
import torch


def why_not_inductor() -> str | None:
    if not shutil.which("g++"):
        return "needs a C++ compiler, found no g++"
    if " " in torch.__file__:
        return f"inductor cannot link with a torch whose path has a space, {torch.__file__}"
    return None


INDUCTOR = (pytest.mark.slow, pytest.mark.skipif(bool(why_not_inductor()), reason=str(why_not_inductor())))
