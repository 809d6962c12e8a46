"""The tables that a config can name, one module each."""
