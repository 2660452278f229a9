"""One SQLite file: one writer with group commit, many readers."""
