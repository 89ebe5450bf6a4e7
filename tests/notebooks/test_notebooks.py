"""The notebooks run from top to bottom on a small comparison."""

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest
import yaml

from segzoo.cli.main import main
from tests.methods.test_contract import write_config

pytestmark = pytest.mark.filterwarnings("ignore")
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def cells(name: str) -> list[str]:
    content = json.loads((NOTEBOOKS / name).read_text())
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.name)
def test_no_outputs_are_kept(path: Path) -> None:
    for cell in json.loads(path.read_text())["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.slow
def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(tmp_path, "metapix", log_every_n_steps=1)
    out = tmp_path / "comparison"
    command = ["compare", "--rows", "target-only,joint,metapix", "--seeds", "0,1", "--out", str(out)]
    # The configuration of a row holds no options that another method lacks.
    shared = {name: section for name, section in yaml.safe_load(config.read_text()).items() if name != "method"}
    config.write_text(yaml.safe_dump(shared))
    assert main([*command, "--", "--config", str(config)]) == 0
    capsys.readouterr()
    matplotlib.use("agg")
    monkeypatch.setenv("SEGZOO_CACHE", str(tmp_path / "cache"))
    space: dict[str, Any] = {}
    for i, source in enumerate(cells("compare.ipynb")):
        source = source.replace('Path("../runs/minicity")', repr(out).replace("PosixPath", "Path"))
        exec(compile(source.replace("IMAGES, SIZE = 100", "IMAGES, SIZE = 4"), f"cell {i}", "exec"), space)
    printed = capsys.readouterr().out
    assert "| metapix | 2 |" in printed and "metapix, seed 1: mean weight of wrong pixels" in printed
    assert len(matplotlib.pyplot.get_fignums()) == 3
    matplotlib.pyplot.close("all")
