"""Runs notebooks from top to bottom, as somebody would who has them alone, and keeps what they show.

OMP_NUM_THREADS=1 python -m tests.notebooks.rerun your_own_data compare_methods      # none named: all
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAMES = ("annotate_parts", "compare_methods", "what_metapix_learns", "your_own_data")
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
"""What says nothing of the machine that ran it."""
SECONDS = 1200
"""Of one cell, at most: three minutes are meant for an idle core."""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs and writes notebooks.

    Args:
        argv: the arguments; those of the process when absent.
    """
    import nbformat

    parser = argparse.ArgumentParser(prog="python -m tests.notebooks.rerun", description="Run the notebooks again.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    for name in parser.parse_args(argv).names or NAMES:
        with tempfile.TemporaryDirectory() as work:
            nbformat.write(executed(name, Path(work)), NOTEBOOKS / f"{name}.ipynb")
        print(f"written: notebooks/{name}.ipynb")


def executed(name: str, work: Path) -> Any:
    """A notebook with the outputs of today.

    Args:
        name: its file without the ending.
        work: the folder that it runs in, an empty one.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell ends with an error.
    """
    import nbclient
    import nbformat

    # What somebody with `.[notebooks]` does not see: their progress bars have ipywidgets.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    # The kernel is a process of its own, and uses this checkout.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(NOTEBOOKS.parent), os.environ.get("PYTHONPATH")]))
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(work)}},
        record_timing=False,
        coalesce_streams=True,
    ).execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):  # a picture of PIL comes twice
                output.data.pop("image/jpeg", None)
    notebook.metadata = nbformat.from_dict(METADATA)
    return notebook


if __name__ == "__main__":
    main()
