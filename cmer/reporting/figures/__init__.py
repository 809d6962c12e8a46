"""The figures that a config can name, one module each."""
