"""Official label ids of Cityscapes: the inverse of the map that reads them, whatever classes are predicted."""

from dataclasses import replace

import numpy as np
import pytest

from segzoo.data.label_spaces import load_class_map, load_label_space
from segzoo.errors import ConfigError, DataError
from segzoo.inference.cityscapes import CityscapesExport


@pytest.mark.parametrize("name", ["cityscapes", "cityscapes16", "cityscapes13"])
def test_what_is_written_is_read_as_the_same_class(name: str) -> None:
    space = load_label_space(name)
    labels = np.arange(space.num_classes, dtype=np.uint8)[None]
    written = CityscapesExport(space).label_ids(labels)
    assert np.array_equal(load_class_map(space, "cityscapes").apply(written, "mask.png"), labels)


def test_the_official_ids_of_some_classes() -> None:
    space = load_label_space("cityscapes")
    order = [space.classes.index(name) for name in ("road", "sky", "car", "bicycle")]
    written = CityscapesExport(space).label_ids(np.array([order], np.uint8))
    assert written.tolist() == [[7, 23, 26, 33]]


def test_classes_count_by_name_and_not_by_position() -> None:
    space = load_label_space("cityscapes")
    turned = replace(space, classes=space.classes[::-1], subsets={})
    written = CityscapesExport(turned).label_ids(np.array([[0, 18]], np.uint8))
    assert written.tolist() == [[33, 7]]
    with pytest.raises(ConfigError, match=r"the class 'vehicle' .* is none of Cityscapes"):
        CityscapesExport(replace(space, classes=("vehicle", *space.classes[1:])))


def test_the_names_are_those_that_the_script_looks_for() -> None:
    export = CityscapesExport(load_label_space("cityscapes"))
    assert export.file_name("val/bad-honnef/bad-honnef_000000_000294_leftImg8bit").startswith(
        "bad-honnef_000000_000294_"
    )
    assert export.file_name("ulm_000001_000002") == "ulm_000001_000002_labelIds.png"
    for other in ("ulm_1_2", "photo", "ulm_000001_000002_gtFine_color"):
        with pytest.raises(DataError, match=f"{other}: the official script finds predictions by names"):
            export.file_name(other)
    export.check(["a/ulm_000001_000002", "b/ulm_000001_000003"])
    with pytest.raises(DataError, match="are one image of Cityscapes"):
        export.check(["a/ulm_000001_000002", "b/ulm_000001_000002_leftImg8bit"])
