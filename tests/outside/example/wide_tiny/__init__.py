"""The tiny backbone with another seed."""
