"""Tables and the paper's printed values."""
