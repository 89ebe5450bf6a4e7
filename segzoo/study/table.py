"""The table of a comparison whose runs are complete."""

from collections.abc import Mapping
from pathlib import Path

from segzoo.evaluation import Scores, comparison_table
from segzoo.evaluation.tables import source_text
from segzoo.study.choice import trial
from segzoo.study.results import SPLITS, check_comparable, find_run, planned_steps, read_resources, read_sources
from segzoo.study.study_file import Comparison


def make_table(folder: Path, one: Comparison, *, per_class: bool = False, split: str = "test") -> str:
    """Markdown: the rows' resources, mean and standard deviation of their scores over the seeds, each row's
    difference to its own reference.

    Where rows learned from several sources, a line says what they are; where all trainings were too short to compare rows,
    one says that.

    Args:
        folder: of the comparison.
        one: what was compared.
        per_class: with tables of IoU, precision and recall by class.
        split: of the images that the scores are of.

    Raises:
        ConfigError: scores that were measured differently.
    """
    plan, proof = one.plan, SPLITS[split]
    files = {row.name: [find_run(folder, row, seed, proof) / proof for seed in plan.seeds] for row in plan.rows}
    check_comparable([path for paths in files.values() for path in paths])
    scores = {name: [Scores.load(path) for path in paths] for name, paths in files.items()}
    resources = {
        row.name: dict.fromkeys(row.resources) | read_resources(files[row.name][0], row.method) for row in plan.rows
    }
    table = comparison_table(
        scores, {name: one.references[name] for name in scores}, per_class=per_class, resources=resources
    )
    steps = planned_steps(find_run(folder, row, seed, proof) for row in plan.rows for seed in plan.seeds)
    remarks = [said] if steps and (said := trial(steps)) else []
    sources = _source_lines({name: read_sources(paths[0]) for name, paths in files.items()})
    return "\n\n".join([table, *remarks, *sources])


def _source_lines(sources: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """What several sources are, once for the rows that have the same ones."""
    rows: dict[str, list[str]] = {}
    for row, several in sources.items():
        if several:
            rows.setdefault(source_text(several), []).append(row)
    return [f"Sources of {', '.join(names)}: {text}." for text, names in rows.items()]
