"""Full fine-tuning of both towers."""
