"""Manual pages, shell completion and the explained settings file, printed from the code they tell of.

``python -m deploy.manuals DIRECTORY`` writes all of them below a directory, as they will stand below ``/``.
"""
