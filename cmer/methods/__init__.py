"""What is trained: one file a system."""
