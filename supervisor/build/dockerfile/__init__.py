"""Dockerfiles: text to typed instructions. Pure: no I/O, no clock, no images.

The way goes :mod:`source` (lines and places) → :mod:`parser` (nodes) → :mod:`recognise` (typed instructions, see
:mod:`instruction`); :mod:`shell` expands variables later, when the builder knows their values.
"""
