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
job=$(sbatch --parsable --job-name=segzoo --array=0-{last} --output={logs}/%A-%a.log --signal=TERM@120 --requeue $after "$@" \\
  --wrap {command})
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
        names = shlex.join(run.name for run in wave)
        # For the plainest of shells, in which `--wrap` runs.
        one = f'set -- {names}; shift "$SLURM_ARRAY_TASK_ID"; exec {shlex.join(command)} --run "$1"{words}'
        parts.append(WAVE.format(last=len(wave) - 1, logs=logs, command=shlex.quote(one)))
    report = shlex.quote(f"{shlex.join([*command, '--report'])}{words}")
    return "".join([*parts, REPORT.format(logs=logs, command=report)])
