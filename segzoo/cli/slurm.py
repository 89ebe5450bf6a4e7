"""A study for a cluster: a script that gives every run to SLURM, and the report to a job after them."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from segzoo.study.running import waves
from segzoo.study.study_file import Study

HEAD = """\
#!/bin/bash
# Runs of `{command}`, one task of an array each; complete ones end at once, so that it can be submitted again.
# Everything given to this script goes to every sbatch of a run:
#
#   bash THIS_FILE --gres=gpu:1 --cpus-per-task=4 --time=4:00:00
set -euo pipefail
mkdir -p {logs}
after=
"""
WAVE = """
runs=({runs})
job=$(sbatch --parsable --job-name=segzoo --array=0-{last} --output={logs}/%A-%a.log --signal=TERM@120 --requeue $after "$@" \\
  --export=ALL,RUNS="${{runs[*]}}" --wrap 'runs=($RUNS); exec {command} --run "${{runs[$SLURM_ARRAY_TASK_ID]}}"{words}')
after=--dependency=afterany:${{job%%;*}}
"""
REPORT = """
sbatch --job-name=segzoo-report --output={logs}/report.log $after --wrap {command}
"""


def slurm_script(study: Study, own: Sequence[str], common: Sequence[str], out: Path) -> str:
    """A script for bash that submits the runs of a study, those that start from others after them, and its report.

    Args:
        study: what is compared.
        own: words of the command before ``--``.
        common: words after it.
        out: folder of the study.
    """
    command = ["segzoo", *(word for word in own if word != "--slurm")]
    words = f" -- {shlex.join(common)}" if common else ""
    logs = shlex.quote(str(out / "slurm"))
    parts = [HEAD.format(command=shlex.join(command) + words, logs=logs)]
    for wave in waves(study):
        runs = " ".join(shlex.quote(run.name) for run in wave)
        quoted = _within_quotes(shlex.join(command)), _within_quotes(words)
        parts.append(WAVE.format(runs=runs, last=len(wave) - 1, logs=logs, command=quoted[0], words=quoted[1]))
    report = shlex.quote(f"{shlex.join([*command, '--report'])}{words}")
    return "".join([*parts, REPORT.format(logs=logs, command=report)])


def _within_quotes(text: str) -> str:
    return text.replace("'", "'\\''")
