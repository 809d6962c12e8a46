"""Bottleneck adapters in both towers."""
