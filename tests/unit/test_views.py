"""The options of a protocol: what cannot be is refused, and what is published is what a name stands for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segzoo.configs import config_names, config_path
from segzoo.data import Views
from segzoo.data.transforms import evaluation_transform
from segzoo.data.views import published_views
from segzoo.errors import ConfigError
from segzoo.options import resolve

IMAGE = np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"input": "whole"}, "expected one of resized, native"),
        ({"window": [512]}, "`protocol.window` [512]: expected two numbers, height and width"),
        ({"window": [512, 0]}, "`protocol.window` (height, width) 0: expected 1 or more"),
        ({"overlap": 1.0}, "`protocol.overlap` 1.0: expected a share of a window, 0 or more and below 1"),
        ({"overlap": float("nan")}, "`protocol.overlap` nan: expected a share"),
        ({"blend": "gauss"}, "expected one of linear, mean"),
        ({"scales": []}, "`protocol.scales` is empty"),
        ({"scales": [1.0, 0.0]}, "`protocol.scales` 0.0: expected a factor above 0"),
        ({"flips": "yes"}, "`protocol.flips` 'yes': expected True or False"),
        ({"scale": 2}, "`protocol.scale`: there is no such option; did you mean 'scales'?"),
        ({"name": "cityscapes-vall"}, "unknown protocol 'cityscapes-vall'; did you mean 'cityscapes-val'?"),
        ({"name": "cityscapes-val"}, "`protocol.input` resized: the protocol 'cityscapes-val' has native"),
        ({"name": "cityscapes-val", "input": "native", "window": [9, 9]}, "`protocol.window` 9 9: the protocol"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(Views, options, "protocol")
    assert said in str(error.value)


@pytest.mark.parametrize("name", config_names("protocol"))
def test_a_published_protocol_is_named_after_its_file(name: str) -> None:
    views = Views(**published_views(name))
    assert views.name == name and not views.plain


def test_a_protocol_of_ones_own_has_a_name_too(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(yaml.safe_dump({"protocol": {"flips": True}}))
    assert Views(name=str(path), flips=True).flips
    with pytest.raises(ConfigError, match=r"`protocol\.flips` false"):
        Views(name=str(path))
    path.write_text("flips: true\n")
    with pytest.raises(ConfigError, match="is no protocol"):
        Views(name=str(path))
    assert config_path("protocol", str(path)) == path


def test_the_default_is_the_resized_image() -> None:
    views = Views()
    assert views.plain and views.batch_size(8) == 8
    (resized,) = views.inputs(IMAGE, (16, 24))
    assert np.array_equal(resized, evaluation_transform((16, 24))(image=IMAGE)["image"])


@pytest.mark.parametrize("options", [{"input": "native"}, {"window": (8, 8)}, {"flips": True}, {"scales": (1.0, 2.0)}])
def test_whatever_else_comes_image_by_image(options: dict[str, Any]) -> None:
    assert not Views(**options).plain and Views(**options).batch_size(8) == 1


def test_scales_are_of_the_input_and_made_from_the_whole_image() -> None:
    sizes = [one.shape[:2] for one in Views(scales=(0.5, 1, 2)).inputs(IMAGE, (16, 24))]
    assert sizes == [(8, 12), (16, 24), (32, 48)]
    native = Views(input="native", scales=(0.5, 1.0, 1.25)).inputs(IMAGE, (16, 24))
    assert [one.shape[:2] for one in native] == [(15, 25), (30, 50), (38, 62)]
    assert native[1] is IMAGE, "nothing is resized to the size that it has"
    # Larger than the input, smaller than the image: of the image, not of the reduced input, which has lost details.
    assert np.array_equal(
        Views(scales=(1.25,)).inputs(IMAGE, (16, 24))[0], evaluation_transform((20, 30))(image=IMAGE)["image"]
    )


def test_an_enlarged_image_is_smooth() -> None:
    steps = np.zeros((1, 2, 3), np.uint8)
    steps[:, 1] = 200
    (found,) = Views(input="native", scales=(8.0,)).inputs(steps, None)
    assert len(np.unique(found)) > 5


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, {"`data.size`": (16, 24)}),
        ({"input": "native"}, {}),
        ({"window": (9, 8), "input": "native", "scales": (0.5,)}, {"`protocol.window`": (9, 8)}),
        ({"scales": (1.0, 2.0)}, {"`data.size`": (16, 24), "`protocol.scales` 2": (32, 48)}),
    ],
)
def test_the_sizes_that_a_network_has_to_take(options: dict[str, Any], sizes: dict[str, tuple[int, int]]) -> None:
    assert Views(**options).network_sizes((16, 24)) == sizes
