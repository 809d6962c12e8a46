"""Methods, the systems that are trained: one folder each; `build.build` builds the method of a run."""
