"""Curves and their plots: SVG files that are the same, byte by byte, for the same numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIZE_INCHES = (6.4, 3.4)


@dataclass(frozen=True, slots=True)
class Point:
    """One measurement."""

    x: int
    sent: int  # events
    seconds: float

    @property
    def events_per_s(self) -> float:
        """The rate."""
        return self.sent / self.seconds


@dataclass(frozen=True, slots=True)
class Curve:
    """Throughput against one thing that grows."""

    title: str
    x_label: str
    points: Sequence[Point]
    of_size: bool = False  # what grows is the work itself, so seconds are plotted

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Curve":
        """Return the curve that `asdict` made the document of."""
        return cls(**{**document, "points": [Point(**point) for point in document["points"]]})


def plot(curve: Curve, path: Path) -> None:
    """Write the plot of a curve."""
    import matplotlib as mpl  # noqa: PLC0415 - is in the dependency group `bench` only
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"svg.hashsalt": "currents-bridge", "svg.fonttype": "none"}):
        figure = Figure(figsize=SIZE_INCHES, layout="constrained")
        axes = figure.subplots()
        x = [point.x for point in curve.points]
        y = [point.seconds if curve.of_size else point.events_per_s for point in curve.points]
        axes.plot(x, y, marker="o")
        axes.set(title=curve.title, xlabel=curve.x_label, ylabel="seconds" if curve.of_size else "events/s")
        axes.set_ylim(0, 1.1 * max(y))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:,.0f}")
        axes.grid(visible=True, alpha=0.3)
        figure.savefig(path, metadata={"Date": None})
