"""Configurations: a YAML file for each experiment, the fields it may hold, and who wins over whom."""

from configs.arguments import TrainArguments
from configs.parse import parse

__all__ = ["TrainArguments", "parse"]
