"""Experiments: a YAML file for each, with what differs from the defaults."""
