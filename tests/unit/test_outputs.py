"""What is written for a labelled image, and how it is said."""

import itertools
import re
from pathlib import Path
from typing import Any

import pytest

from segzoo.inference.outputs import Outputs


class Export:
    """Names files as the export of Cityscapes does."""

    def file_name(self, name: str) -> str:
        return f"{name}_labelIds.png"


@pytest.mark.parametrize("chosen", list(itertools.product([False, True], repeat=3)))
def test_what_a_folder_holds_is_said_of_all_that_is_written_and_of_nothing_else(chosen: tuple[bool, ...]) -> None:
    confidence, probabilities, exported = chosen
    export: Any = Export() if exported else None
    outputs = Outputs(Path("seen"), 0.5, confidence, probabilities, export)
    written = {path.relative_to("seen").parts[0] for path in outputs.paths("photo").values()}
    assert set(re.findall(r"(\w+)/", outputs.content)) == written
    assert outputs.content.startswith("labels/, overlays/") and outputs.content.endswith(" and legend.png")
