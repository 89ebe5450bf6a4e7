"""The table of a comparison whose runs are complete."""

from pathlib import Path

from segzoo.evaluation import Scores, comparison_table
from segzoo.study.plan import Plan
from segzoo.study.results import check_comparable, find_run, read_resources


def make_table(folder: Path, plan: Plan, *, per_class: bool = False) -> str:
    """Markdown: the rows' resources, mean and standard deviation of their scores over the seeds, differences to the reference.

    Args:
        folder: of the comparison.
        plan: what was compared.
        per_class: with tables of IoU, precision and recall by class.

    Raises:
        ConfigError: scores that were measured differently.
    """
    files = {row.name: [find_run(folder, row, seed) / "scores-test.json" for seed in plan.seeds] for row in plan.rows}
    check_comparable([path for paths in files.values() for path in paths])
    scores = {name: [Scores.load(path) for path in paths] for name, paths in files.items()}
    resources = {row.name: read_resources(files[row.name][0], row.method) for row in plan.rows}
    return comparison_table(scores, plan.reference, per_class=per_class, resources=resources)
