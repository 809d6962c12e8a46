"""A local vision-language model."""
