"""Several sources: their images as one set, in training, and what says which is which."""

import csv
import json
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from PIL import Image

from segzoo.callbacks import FinalReport, RunManifest
from segzoo.callbacks.opening import opening_lines
from segzoo.data import DomainDataModule, LabelSpace, MiniCity, PairedFolders, SeveralDomains, Stream, from_folders
from segzoo.data.class_counts import class_counts
from segzoo.data.domains import JoinedImages
from segzoo.data.order import training_batches
from segzoo.data.rare_classes import RareClassBatches
from segzoo.data.sampling import EndlessBatches, derived_seed
from segzoo.errors import ConfigError, DataError
from segzoo.evaluation.history import SOURCE_WEIGHTS
from segzoo.evaluation.plots import class_history_figure
from segzoo.loggers.metrics_csv import MetricsCsv
from segzoo.methods import joint
from tests import tiny


def city(name: str, train: int, **options: Any) -> MiniCity:
    domain = MiniCity("source", train=train, val=1, test=1, size=tiny.SIZE, **options)
    domain.name = name
    return domain


def several(*weights: float, sizes: tuple[int, ...] = (6, 3), **options: Any) -> SeveralDomains:
    domains = [city(name, size) for name, size in zip("abcd", sizes, strict=False)]
    return SeveralDomains(domains, list(weights) or None, **options)


# As one set


def write(folder: Path, count: int, ids: tuple[int, ...], size: tuple[int, int] = (8, 12)) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for i in range(count):
        mask = np.resize(np.array(ids, np.uint8), size)
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
        Image.fromarray(np.full((*size, 3), 20 * i, np.uint8)).save(folder / "images" / f"{i}.png")
    return folder


def test_images_labels_and_files_are_those_of_the_parts() -> None:
    both = several()
    images = both.images("train", Path())
    parts = [domain.images("train", Path()) for domain in both.domains.values()]
    assert images.names == [f"{name}/{one}" for name, part in zip("ab", parts, strict=True) for one in part.names]
    assert len(set(images.names)) == 9 and images.has_labels and list(images.parts) == ["a", "b"]
    assert [images.origin(i) for i in range(9)] == [0] * 6 + [1] * 3
    for index, (part, position) in enumerate([(parts[0], i) for i in range(6)] + [(parts[1], i) for i in range(3)]):
        np.testing.assert_array_equal(images.image(index), part.image(position))
        np.testing.assert_array_equal(images.label(index), part.label(position))
    assert not JoinedImages([(parts[0], [1])]).has_labels and len(both.images("val", Path())) == 2


def test_each_source_has_its_own_class_map(tmp_path: Path) -> None:
    for name, ids in (("one", (0, 1)), ("two", (7, 9))):
        write(tmp_path / name, 3, ids)
    write(tmp_path / "photos", 4, (0, 1))
    data = from_folders(
        [tmp_path / "one", (tmp_path / "two" / "images", tmp_path / "two" / "masks")],
        tmp_path / "photos",
        label_space=["ground", "crack"],
        size=(8, 12),
        source_map=["identity", {7: "crack", 9: "ground"}],
        source_weights=[1, 3],
        blocks=(0.5, 0.25, 0.25),
    )
    images = data.images("source", "train")
    assert data.source_weights == {"one": 1.0, "two": 3.0} and data.name == "one+two_to_photos"
    assert images.label(0)[0, :2].tolist() == [0, 1] and images.label(3)[0, :2].tolist() == [1, 0]
    labels, ids = images.label_and_ids(3)
    assert ids is not None and ids[0, :2].tolist() == [7, 9] and labels.shape == ids.shape
    assert [path.parent.parent.name for path in images.files] == ["one"] * 3 + ["two"] * 3
    images.check()
    before = images.fingerprint()
    Image.new("L", (12, 8), 9).save(tmp_path / "two" / "masks" / "1.png")
    again = data.source.images("train", Path())
    assert before and again.fingerprint() not in (None, before)
    Image.new("L", (5, 8), 9).save(tmp_path / "two" / "masks" / "1.png")
    with pytest.raises(DataError, match=r"two/masks/1\.png is 5x8"):
        again.check()


def test_a_name_that_comes_again_gets_a_number() -> None:
    domains = [city("a", 2), city("a", 2), city("a-2", 2)]
    assert list(SeveralDomains(domains).weights) == ["a", "a-2", "a-2-2"]
    assert several().name == "a+b" and several(name="streets").name == "streets"


@pytest.mark.fault("list-of-sources")
@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf"), "2", True, None])
def test_a_weight_is_a_number_above_0(weight: Any) -> None:
    with pytest.raises(ConfigError, match=r"`data.source\[1\].weight`: expected a number above 0, found"):
        several(1, weight)


@pytest.mark.fault("list-of-sources")
def test_what_are_no_several_sources_is_said() -> None:
    with pytest.raises(ConfigError, match="lists 0 domains: several sources are two or more"):
        SeveralDomains([])
    with pytest.raises(ConfigError, match=r"lists 1 domains.*give that domain itself"):
        SeveralDomains([city("a", 2)])
    with pytest.raises(ConfigError, match="has 3 numbers for 2 sources"):
        several(1, 2, 3)
    with pytest.raises(ConfigError, match=r"source\[1\]` is a list of sources itself"):
        SeveralDomains([city("a", 2), several()])
    other = city("b", 2)
    other.label_space = LabelSpace("other", ("x", "y"), ((0, 0, 0), (1, 1, 1)))
    with pytest.raises(ConfigError, match=r"source\[1\].label_space`: .*'other' for 'b' and 'minicity.*' for 'a'"):
        SeveralDomains([city("a", 2), other])
    with pytest.raises(ConfigError, match=r"`data.target` lists 2 domains, and only `data.source` may be several"):
        tiny.data(target=several())


def test_sources_that_lack_images_or_masks_are_named(tmp_path: Path) -> None:
    write(tmp_path / "one", 2, (0, 1))
    space = LabelSpace("two", ("ground", "crack"), ((0, 0, 0), (9, 9, 9)))
    masks: list[str | None] = [str(tmp_path / "one" / "masks"), None]
    domains = [
        PairedFolders(str(tmp_path / "one" / "images"), part, space, name=name)  # type: ignore[arg-type]
        for part, name in zip(masks, ("one", "bare"), strict=True)
    ]
    target = PairedFolders(*(str(tmp_path / "one" / n) for n in ("images", "masks")), space)  # type: ignore[arg-type]
    data = DomainDataModule(SeveralDomains(list(domains)), target, size=tiny.SIZE, num_workers=0)
    method = tiny.method("source-only")
    with pytest.raises(ConfigError, match="the source 'bare' has no masks; give it masks, or take it out of the list"):
        tiny.trainer(1).fit(method, datamodule=data)
    empty = city("b", 1)
    empty.images = lambda split, root: JoinedImages([])  # type: ignore[method-assign]
    with pytest.raises(DataError, match="the source 'b' has no image in its train split"):
        SeveralDomains([city("a", 2), empty]).images("train", Path())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_map": ["identity"]}, "source_map lists 1 for 2 sources"),
        ({"source_weights": [1, 2, 3]}, "source_weights lists 3 for 2 sources"),
        ({"source_weights": [1, 0]}, r"source\[1\].weight`: expected a number above 0"),
    ],
)
def test_lists_of_from_folders_have_one_for_each_source(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    sources: list[Any] = [write(tmp_path / name, 2, (0, 1)) for name in ("one", "two")]
    with pytest.raises(ConfigError, match=message):
        from_folders(sources, tmp_path / "one", label_space=["a", "b"], size=(8, 12), blocks=(1, 0, 0), **options)
    with pytest.raises(ConfigError, match="source is an empty list"):
        from_folders([], tmp_path / "one", label_space=["a", "b"], size=(8, 12))


# In training


def loader(data: DomainDataModule, name: str = "source", slug: str = "joint") -> Any:
    data.trainer = tiny.trainer(1)
    data.trainer.strategy.connect(tiny.method(slug))
    return data._train_loader(name, data.trainer.lightning_module.streams[name])


def test_a_single_source_is_drawn_as_ever() -> None:
    sampler = loader(tiny.data()).batch_sampler
    assert type(sampler) is EndlessBatches
    expected = EndlessBatches(8, 2, derived_seed(0, "source", "order"))
    assert list(islice(sampler, 8)) == list(islice(expected, 8))


def test_a_batch_says_where_each_image_is_from() -> None:
    found = loader(tiny.data(source=several(2, 1), batch_size=3))
    for batch in islice(found, 5):
        assert batch["origin"].tolist() == ["ab".index(name[0]) for name in batch["name"]]
        assert sorted(batch["origin"].tolist()) == [0, 0, 1] and batch["origin"].dtype == torch.int64
    assert "origin" not in next(iter(loader(tiny.data())))
    assert "origin" not in next(iter(loader(tiny.data(source=several()), "target")))


def test_with_rare_classes_the_weights_come_first_then_the_classes_of_the_source() -> None:
    data = tiny.data(source=several(1, 3), batch_size=4)
    sampler = loader(data, slug="self-training").batch_sampler
    parts = data.images("source", "train").parts
    keys = [key for batch in islice(sampler, 50) for key in batch]
    assert Counter(key[1] < 6 for key in keys) == {True: 50, False: 150}
    for (name, part), (low, high) in zip(parts.items(), ((0, 6), (6, 9)), strict=True):
        counts = class_counts(part, range(len(part)), data.label_space.num_classes)
        seed = derived_seed(0, "source", "order", name)
        alone = RareClassBatches(counts, 0.01, data.rare_class_min_share, 4, seed)
        found = sorted((key[0], key[1] - low, key[2]) for key in keys if low <= key[1] < high)  # type: ignore[misc]
        assert found == [alone.key(n) for n in range(len(found))]


def test_a_part_of_the_sources_keeps_to_its_images_and_to_the_weights() -> None:
    data = tiny.data(source=several(1, 1, sizes=(8, 8)))
    dataset = loader(data).dataset
    dataset.indices = Stream("source", part=(0.0, 0.5)).select(range(16))
    sampler = training_batches(data, "source", Stream("source"), dataset)
    drawn = [dataset.indices[key[1]] for batch in islice(sampler, 40) for key in batch]
    assert set(drawn) == set(dataset.indices) and Counter(i < 8 for i in drawn) == {True: 40, False: 40}


def test_class_shares_are_those_of_the_draws() -> None:
    data = tiny.data(source=several(1, 3))
    expected = np.zeros(data.label_space.num_classes)
    for weight, part in zip((1, 3), data.images("source", "train").parts.values(), strict=True):
        labels = np.stack([part.label(i) for i in range(len(part))])
        labelled = labels[labels < 255]
        expected += weight / 4 * np.bincount(labelled, minlength=len(expected)) / labelled.size
    np.testing.assert_allclose(data.class_shares("source"), expected, atol=1e-12)
    alone = tiny.data(source=city("a", 6)).class_shares("source")
    assert np.abs(alone - expected).max() > 1e-4  # the sources differ, or nothing was tested


def test_counts_and_the_look_at_the_labels_name_the_sources() -> None:
    data = tiny.data(source=several())
    sets: dict[str, Any] = {}

    def look(found: dict[str, Any], space: LabelSpace) -> list[Any]:
        sets.update({name: len(indices) for name, (_, indices) in found.items()})
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segzoo.data.datamodule.look_at_labels", look)
        data.check_labels(tiny.method("joint").streams, ["val"])
    assert sets == {"source/train: a": 6, "source/train: b": 3, "target/train": 4, "target/val": 2}
    counts = data.counts()
    assert (counts["source/train"], counts["source/train: a"], counts["source/train: b"]) == (9, 6, 3)


def test_the_mean_weight_of_a_source_is_that_of_its_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny.method("joint")
    method.trainer = tiny.trainer(1)
    method.trainer._data_connector.attach_datamodule(method, datamodule=tiny.data(source=several(sizes=(2, 2, 2))))
    logged: dict[str, Any] = {}
    monkeypatch.setattr(method, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(method, "log_dict", lambda found: logged.update({n: float(v) for n, v in found.items()}))
    monkeypatch.setattr(type(method), "logs_step", True)
    # Two processes, whose sums are added; nothing of the third source is in their batches.
    generator = torch.Generator().manual_seed(0)
    ranks = [
        (
            torch.rand((3, 4, 5), generator=generator),
            torch.randint(0, method.num_classes, (3, 4, 5), generator=generator),
            torch.tensor(origin),
        )
        for origin in ([0, 1, 1], [0, 0, 1])
    ]
    for _, label, _ in ranks:
        label[:, 0] = 255
    own: list[torch.Tensor] = []
    for weights, label, origin in ranks:
        monkeypatch.setattr(joint, "sum_across_ranks", lambda value: own.append(value) or sum(own))
        method.log_weights(weights, {"label": label, "origin": origin})
    values: dict[str, list[float]] = {}
    for weights, label, origin in ranks:
        for b, y, x in np.ndindex(3, 4, 5):
            if label[b, y, x] != 255:
                source, name = "abc"[int(origin[b])], method.label_space.classes[int(label[b, y, x])]
                for key in ("weight/mean", f"weight/source/{source}", f"weight/class/{name}"):
                    values.setdefault(key, []).append(float(weights[b, y, x]))
    assert set(logged) == set(values) and {"weight/source/a", "weight/source/b"} < set(logged)
    for key, found in values.items():
        assert logged[key] == pytest.approx(np.mean(found), abs=1e-6)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("slug", ["region-selection", "metapix"])
def test_a_run_says_what_came_from_where(tmp_path: Path, slug: str) -> None:
    L.seed_everything(0, verbose=False)
    expected = {"a": {"images": 6, "weight": 2.0}, "b": {"images": 3, "weight": 1.0}}
    method, data = tiny.method(slug), tiny.data(source=several(2, 1), batch_size=3)
    callbacks = [RunManifest(tmp_path), FinalReport(tmp_path)]
    trainer = tiny.trainer(2, callbacks=callbacks, logger=MetricsCsv(tmp_path))
    trainer.fit(method, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["sources"] == expected and manifest["resources"]["source"] == 9
    assert manifest["data"]["images"]["source/train: b"] == 3
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    means = [[float(row[f"weight/source/{name}"]) for name in "ab"] for row in rows if row.get("weight/mean")]
    assert len(means) == 2 and all(0 < value < 9 for row in means for value in row)
    # A test of its own, of data without these sources, has them of the checkpoint.
    other = tiny.trainer(1, callbacks=[FinalReport(tmp_path / "again")])
    other.test(tiny.method(slug), datamodule=tiny.data(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert json.loads((tmp_path / "again" / "scores-test.json").read_text())["sources"] == expected


@pytest.mark.filterwarnings("ignore")
def test_the_opening_names_the_sources(tmp_path: Path) -> None:
    lines: list[str] = []

    class Say(L.Callback):
        def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
            lines.extend(opening_lines(trainer, pl_module, tmp_path))

    tiny.trainer(1, callbacks=[Say()]).fit(tiny.method("source-only"), datamodule=tiny.data(source=several(3, 1)))
    (line,) = (line for line in lines if line.startswith("data: "))
    assert "source 9 images: a 6 images (weight 3, 75%), b 3 images (weight 1, 25%)" in line


def test_the_course_of_the_weights_has_a_line_per_source() -> None:
    steps = np.arange(5.0)
    history = {"weight/source/a": (steps, steps / 4), "weight/source/b": (steps, 2 - steps / 4)}
    history["weight/mean"] = (steps, np.ones(5))
    figure = class_history_figure(history, tiny.data().label_space, SOURCE_WEIGHTS)
    (axes,) = figure.axes
    assert axes.get_title("left") == "Mean weight of the pixels of each source"
    drawn = {line.get_label(): line for line in axes.lines}
    assert {"a", "b", "all pixels"} <= set(drawn) and drawn["a"].get_color() != drawn["b"].get_color()
