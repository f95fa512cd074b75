"""Pooling between the layers of an encoder by hooks, so that the encoder's code stays as it is."""
