"""The figures as a picture: one panel for each load, one line for each engine and round."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

from tests.bench.fairness.loads import Outcome

COLOURS = {"bakehouse": "tab:green", "dockerd": "tab:blue"}


def draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """Write a PNG."""
    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  # after the back end is chosen

    loads = list(dict.fromkeys(one.load for one in outcomes))
    figure, panels = pyplot.subplots(
        1, len(loads), squeeze=False, figsize=(5 * len(loads), 4), layout="constrained"
    )
    for panel, load in zip(panels[0], loads, strict=True):
        shown = [one for one in outcomes if one.load == load]
        for one in shown:
            panel.plot(one.series, color=COLOURS.get(one.engine), alpha=0.7, label=one.engine)
        panel.axhline(shown[0].limit, color="tab:red", linestyle=":", label=shown[0].bound)
        panel.set_title(load)
        panel.set_ylim(bottom=0)
        panel.set_ylabel("of Q's fair share" if shown[0].share else "of Q's idle time")
        panel.set_xlabel("seconds" if shown[0].share else "tries")
        handles, labels = panel.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        panel.legend(once.values(), once.keys())
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
