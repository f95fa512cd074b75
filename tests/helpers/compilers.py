"""The marks of tests that try torch's compiler for CPUs, which takes its time, or cannot be tried here."""

import shutil

import pytest
import torch

INDUCTOR = (
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler, found no g++"),
    pytest.mark.skipif(" " in torch.__file__, reason=f"inductor cannot link with what has a space, {torch.__file__}"),
)
