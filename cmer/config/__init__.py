"""Every setting as a typed model: the one source of defaults, validation and the JSON schema. Nothing imports torch."""
