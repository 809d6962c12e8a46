"""The report: one self-contained HTML page with all tables and figures of an experiment, and a page per run."""
