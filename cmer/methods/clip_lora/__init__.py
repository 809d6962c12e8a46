"""LoRA in both towers."""
