"""All settings as typed models: the single source of defaults, validation and the JSON schema. Imports no torch."""
