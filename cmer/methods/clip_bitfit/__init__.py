"""Bias tuning of both towers."""
