"""What is trained: one folder per system; `build.build` makes the one that a run names."""
