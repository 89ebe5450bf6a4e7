"""The curve of mIoU over labelled images, from a study's results.

python -m docs.figures.budgets
"""

from pathlib import Path

from matplotlib.figure import Figure

from segzoo.study.curves import budget_figure
from segzoo.study.entries import read_results
from segzoo.study.findings import find

DOCS = Path(__file__).resolve().parents[1]
RESULTS = DOCS / "photographs/carla/budgets.json"


def draw(results: Path) -> Figure:
    """The figure of the report, on white.

    Args:
        results: ``results.json`` of a study with budgets.
    """
    (findings,) = find(read_results(results), results.parent)
    figure = budget_figure(findings)
    assert figure is not None
    figure.set_facecolor("white")
    return figure


def main() -> None:
    """Draws it."""
    draw(RESULTS).savefig(DOCS / "figures/budgets.png", dpi=110)


if __name__ == "__main__":
    main()
