"""Attributes by zero-shot scores of an aligned backbone."""
