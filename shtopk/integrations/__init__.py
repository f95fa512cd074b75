"""Bridges to other libraries. Each is imported on its own, as it needs its library."""
