"""The table in docs/data_sets.md is that of the packaged domains, and its examples are read."""

import re
from pathlib import Path

import yaml

from segzoo.cli.sections import check_sections
from segzoo.configs import config_names, config_path
from segzoo.data.label_spaces import load_class_map

PAGE = (Path(__file__).parents[2] / "docs" / "data_sets.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| `")]


def test_every_domain_has_a_row_with_its_own_folders() -> None:
    assert sorted(row[0].strip("`") for row in ROWS) == config_names("domains")
    for name, what, folders, licence, command in ROWS:
        options = yaml.safe_load(config_path("domains", name.strip("`")).read_text())["init_args"]
        assert folders == f"`{options['images']}`, `{options['masks']}`"
        assert re.fullmatch(rf"`--data\.(source|target) {name.strip('`')}`", command)
        assert what and licence


def test_the_examples_are_read(tmp_path: Path) -> None:
    pair, street = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    data = check_sections(yaml.safe_load(pair), "the page")["data"]
    assert data["target"]["init_args"]["images"] == "acdc/rgb_anon/night/{split}"
    assert data["target"]["init_args"]["mask_suffix"] == "_gt_labelTrainIds"
    (tmp_path / "street.yaml").write_text(street)
    found = load_class_map(tmp_path / "street.yaml", "mine")
    assert found.names == ("unlabeled", "lorry", "car", "asphalt", "number plate")
    assert found.lut.tolist() == [0, 1, 1, 0, -1, 255]
