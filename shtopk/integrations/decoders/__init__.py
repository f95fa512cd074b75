"""The parts of `pool_decoder`: which models, what of a prompt is pooled, where the vectors stand, hooks and caches."""
