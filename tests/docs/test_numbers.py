"""The tables of the pages are those of the JSON files that they link to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import yaml

from docs import tables as scored
from docs.kept import without_places
from segzoo.study.entries import read_results
from segzoo.study.findings import find
from tests.benchmarks.losses import LOSSES

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "tests/benchmarks/results"
PERFORMANCE = (ROOT / "docs/performance.md").read_text()
RESULTS = (ROOT / "docs/results.md").read_text()


def rows(text: str) -> dict[str, list[str]]:
    """The rows of the first table of a text by their first cell."""
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table
    cells = [[cell.strip(" *`") for cell in line.strip("|").split("|")] for line in table[0].splitlines()]
    return {name: rest for name, *rest in cells[2:]}


@pytest.mark.parametrize(
    ("page", "name"),
    [
        ("performance.md", "cpu-deeplabv3plus-resnet18"),
        ("performance.md", "cpu-segformer-mit_b0"),
        ("performance.md", "h200-deeplabv3plus-resnet50-32"),
        ("gradient_matching.md", "cpu-annotator"),
    ],
)
def test_a_table_of_the_bench_is_its_json(page: str, name: str) -> None:
    measured, text = json.loads((BENCH / f"{name}.json").read_text()), (ROOT / "docs" / page).read_text()
    table = rows(text[text.index(f"results/{name}.json") :])
    assert set(table) == set(measured) - {"settings"}
    for row, (seconds, ratio, quartiles, peak, peak_ratio, cosine) in table.items():
        found = measured[row]
        assert seconds == f"{found['seconds']:.3f}" and ratio == f"{found['ratio']:.2f}"
        assert quartiles == "–".join(f"{q:.2f}" for q in found["ratio_quartiles"])
        assert peak == f"{found['peak_bytes'] / 2**20:.0f}" and peak_ratio == f"{found['peak_ratio']:.2f}"
        assert cosine.replace("−", "-") == ("–" if found["cosine"] is None else f"{found['cosine']:.6f}")


def test_the_table_of_the_methods_steps_is_its_json() -> None:
    networks = [
        json.loads((BENCH / f"cpu-adaptation-{name}.json").read_text())["32"] for name in ("deeplabv2", "daformer")
    ]
    table = rows(PERFORMANCE[PERFORMANCE.index("results/cpu-adaptation-daformer.json") :])
    assert list(table) == list(networks[0])
    for row, cells in table.items():
        expected = []
        for measured in networks:
            low, high = measured[row]["quartiles"]
            seconds, unit = measured[row]["seconds"], measured["source-only"]["seconds"] / 3
            expected += [f"{seconds:.3f} ({low:.3f}–{high:.3f})", f"{seconds / unit:.1f}"]
        assert cells == expected


def test_the_table_of_phases_is_its_text() -> None:
    text = (BENCH / "h200-segformer-mit_b2-bf16-phases.txt").read_text()
    steps = re.findall(r"^(\S+), segformer .*: ([\d.]+) ms$", text, re.MULTILINE)
    busy = re.findall(r"busy ([\d.]+) ms with (\d+) kernels", text)
    found = rows(PERFORMANCE[PERFORMANCE.index("### Where the time goes") :])
    assert found == {row: [step, *one] for (row, step), one in zip(steps, busy, strict=True)}


def test_the_table_of_stages_is_its_json() -> None:
    measured = json.loads((BENCH / "cpu-stages.json").read_text())
    table = rows(PERFORMANCE[PERFORMANCE.index("results/cpu-stages.json") :])
    assert set(table) == set(measured) - {"settings"}
    for row, cells in table.items():
        found = measured[row]
        assert cells == [f"{median(found):.2f}", f"{min(found):.2f}–{max(found):.2f}"]


def test_the_table_of_loading_is_its_json() -> None:
    measured = json.loads((BENCH / "cpu-2-loading.json").read_text())
    page = (ROOT / "docs/your_data.md").read_text()
    lines = re.findall(r"^\| (as they are|prepared) \| (\d) \| ([\d.]+) \| (\d+) \|$", page, re.MULTILINE)
    assert len(lines) == len(measured) - 1
    for name, workers, speed, waiting in lines:
        found = measured[f"{name}, {workers} workers"]
        assert (speed, waiting) == (f"{found['images_per_second']:.1f}", f"{100 * found['waiting']:.0f}")


def test_the_table_of_the_costs_of_losses_is_its_json() -> None:
    measured = json.loads((BENCH / "cpu-losses.json").read_text())
    page = (ROOT / "docs/losses.md").read_text()
    for classes, cells in rows(page[page.index("## What it costs") :]).items():
        plain, *others = (measured[f"{classes} classes"][name] for name in LOSSES)
        assert cells == [f"{seconds / plain:.2f}" for seconds in others]


def test_the_table_of_the_annotators_signal_is_its_json() -> None:
    measured = json.loads((BENCH / "cpu-annotator-signal.json").read_text())
    page = (ROOT / "docs/gradient_matching.md").read_text()
    found = rows(page[page.index("results/cpu-annotator-signal.json") :])
    assert len(found) == len(measured) == 2
    for options, cells in found.items():
        named = yaml.safe_load(options.partition("`")[0])
        (areas,) = (areas for text, areas in measured.items() if yaml.safe_load(text) == named)
        assert cells == [f"{areas[part]:.2f}" for part in ("eyes", "brows", "nose", "mouth")]


def test_the_table_of_a_sweep_is_its_json() -> None:
    measured = json.loads((BENCH / "cpu-sweep.json").read_text())
    found = [
        line.split(" | ")
        for line in re.findall(r"^\| (0\..*) \|$", (ROOT / "docs/sweeps.md").read_text(), re.MULTILINE)
    ]
    for (score, *cells), one in zip(found, measured, strict=True):
        assert float(score) == one.pop("val/miou")
        assert cells == [f"{value:.4g}" if isinstance(value, float) else str(value) for value in one.values()]


def test_the_table_of_gradient_shares_is_its_json() -> None:
    measured = json.loads((ROOT / "docs/minicity/gradient-shares.json").read_text())
    found = re.findall(r"^\| `([\w-]+)` \| ([a-z ]+) \| ([\de.-]+) \|$", RESULTS, re.MULTILINE)
    expected = [
        (method, term, f"{norm / terms['source']:.2g}")
        for method, terms in measured.items()
        for term, norm in terms.items()
        if term != "source"
    ]
    assert found == expected


def test_the_table_of_large_images_is_its_json() -> None:
    measured = [json.loads(line) for line in (BENCH / "cpu-large-images.jsonl").read_text().splitlines()]
    page = (ROOT / "docs/large_images.md").read_text()
    found = list(rows(page[page.index("## Memory and time") :]).values())
    assert found == [[f"{one['GB']:.2f}", f"{one['seconds']:.0f}"] for one in measured]


def test_the_costs_of_a_study_are_their_json() -> None:
    measured = json.loads((BENCH / "cpu-2-study.json").read_text())
    page = (ROOT / "docs/studies.md").read_text()
    for steps, cells in rows(page[page.index("results/cpu-2-study.json") :]).items():
        assert cells == [f"{share:.1f} %" for share in measured[steps]]
    named = re.search(
        r"Importing takes ([\d.]+) s, a step ([\d.]+) s, the rest of a run ([\d.]+) s .* 60 runs ([\d.]+) s",
        " ".join(page.split()),
    )
    assert named
    keys = (("imports", ".1f"), ("step", ".3f"), ("beside", ".1f"), ("report", ".1f"))
    assert named.groups() == tuple(format(measured[key], digits) for key, digits in keys)


def scores(folder: str, *files: str) -> dict[str, Any]:
    """The test scores of a study by row; later files fill what earlier ones lack."""
    found: dict[str, Any] = {}
    for file in files:
        for run in json.loads((ROOT / "docs/photographs" / folder / file).read_text()):
            if "test" in run["scores"]:
                found.setdefault(run["row"], run["scores"]["test"])
    return found


def section(title: str) -> str:
    return RESULTS[RESULTS.index(f"## {title}") :]


ABOVE = ("ssda-4", "ssda-8", "ssda-16")
"""Rows that the page calls above `target-only` with both seeds."""


def test_what_is_said_of_label_budgets_is_in_their_json() -> None:
    path = ROOT / "docs/photographs/carla/budgets.json"
    (findings,) = find(read_results(path), path.parent)
    equal = {(one.row, one.labels): one.equal for one in findings.worths}
    said = " ".join(section("Photographs: what synthetic").split())
    worth = ", ".join(str(round(equal["ssda", labels])) for labels in (4, 8)) + f" and {equal['ssda', 16]:.0f}"
    assert f"`ssda` with 4, 8 and 16 labels equals `target-only` with about {worth}." in said
    runs = scored.read_runs(path)
    gains = {row: scored.gain(runs, row, f"target-only-{row.rpartition('-')[2]}") for row in runs}
    assert all(gain is not None and min(gain.values) > 0 for row, gain in gains.items() if row in ABOVE)
    shown = {row: f"{gain.mean:.1f}" for row, gain in gains.items() if gain is not None}
    for page in (said, " ".join((ROOT / "docs/choosing.md").read_text().split())):
        for row in ("ssda-4", "ssda-8", "ssda-16", "ssda-64"):
            assert re.search(rf"\b{re.escape(shown[row])}\b", page), (row, shown[row])


def test_the_table_of_fine_tuning_is_its_json() -> None:
    found: dict[tuple[str, str, int], str] = {}
    for file in ("carla/results.json", "airsim/results.json", "cracks/results.json", "fine-tuned.json"):
        for run in json.loads((ROOT / "docs/photographs" / file).read_text()):
            score = run["scores"]["test"]
            value = f"{100 * score['classes'].get('crack', {}).get('iou', score['miou']):.1f}"
            # Where a run was repeated it came out the same.
            assert found.setdefault((run["pair"], run["row"], run["seed"]), value) == value
    table = rows(section("Photographs: fine-tuning").replace("**", ""))
    names = ("target-only", "semi-supervised", "joint", "ssda", "fine-tuned", "fine-tuned-semi")
    lines = {
        "CARLA → CamVid": "carla_to_camvid",
        "AirSim → CamVid": "airsim_to_camvid",
        "painted → real cracks": "cracks",
    }
    assert set(table) == set(lines)
    for line, pair in lines.items():
        for name, cell in zip(names, table[line], strict=True):
            # These two see no synthetic image: with AirSim they are those of CARLA.
            pairs = [pair, "carla_to_camvid"] if name in names[:2] and pair != "cracks" else [pair]
            seeds = [next((found[p, name, seed] for p in pairs if (p, name, seed) in found), None) for seed in (0, 1)]
            assert cell.split(", ") == [value for value in seeds if value is not None], (line, name)


def quoted(page: str) -> Iterator[str]:
    yield from re.findall(r"`[\w-]+`[^.\n]{0,40}?\b(\d\d\.\d)\b", (ROOT / page).read_text())


@pytest.mark.parametrize("page", ["README.md", "docs/choosing.md"])
def test_scores_that_are_quoted_stand_in_a_table(page: str) -> None:
    found = list(quoted(page))
    assert found and set(found) <= cells_of_sources()


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
NO_MEASUREMENTS = {
    "docs/data_sets.md": ["name"],
    "docs/defaults.md": ["data", "method"],
    "docs/gradient_matching.md": ["option", "`--data`"],
    "docs/large_images.md": ["option"],
    "docs/losses.md": ["option"],
    "docs/recipes.md": ["paper"],
    "docs/region_selection.md": ["choice"],
    "docs/unlabelled.md": ["option"],
}
"""The first cells of tables with decimals that are options or the numbers of others."""
REPEATED = {
    "docs/choosing.md": ["", "method"],
    "docs/methods/gradient-annotator.md": ["labelled faces"],
    "docs/photographs/README.md": ["method"],
}
"""Those of tables whose numbers stand in the tables of `SOURCES`."""
SOURCES = ("docs/results.md", "docs/gradient_annotator.md", "docs/performance.md", "docs/region_selection.md")


def decimals(text: str) -> set[str]:
    """The decimals of a text that are neither in code nor in addresses."""
    return set(re.findall(r"\d+\.\d+", re.sub(r"\]\([^)]*\)|`[^`]*`", "", text)))


def tables(page: str) -> Iterator[tuple[str, str]]:
    """The tables of a page, each with what stands between it and the heading above."""
    text, heading = (ROOT / page).read_text(), 0
    for found in re.finditer(r"^#+ .*\n|(?:^\|.*\n)+", text, re.MULTILINE):
        if found[0].startswith("#"):
            heading = found.start()
        else:
            yield text[heading : found.start()], found[0]


def cells_of_sources() -> set[str]:
    return set().union(*(decimals(table) for page in SOURCES for _, table in tables(page)))


@pytest.mark.parametrize("page", PAGES)
def test_a_table_of_measurements_names_its_file(page: str) -> None:
    known = cells_of_sources()
    for before, table in tables(page):
        first = table.split("|")[1].strip()
        if not decimals(table) or first in NO_MEASUREMENTS.get(page, []):
            continue
        if first in REPEATED.get(page, []) and decimals(table) <= known:
            continue
        files = re.findall(r"\]\(([^)]+\.(?:jsonl?|csv|txt))\)|<!-- (?:scores|table) ", before)
        assert files, f"{page}: no file is named above the table that begins with\n{table.splitlines()[0]}"
        assert all((ROOT / page).parent.joinpath(file).exists() for file in files)


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/methods/")])
def test_what_was_measured_of_a_method_stands_in_a_table(page: str) -> None:
    _, _, after = (ROOT / page).read_text().partition("## What we measured\n")
    ours = [item for item in re.split(r"\n(?=- )", after.partition("\n## ")[0]) if not item.startswith("- Published")]
    assert decimals("\n".join(ours)) <= cells_of_sources()


def test_the_tables_of_scores_are_those_of_their_files() -> None:
    found = list(scored.pages())
    assert len(found) > 5
    for page in found:
        text = page.read_text()
        assert scored.fill(text, page.parent) == text, f"{page.relative_to(ROOT)}: run `python -m docs.tables`"


def test_scores_over_seeds_and_their_differences() -> None:
    def run(miou: float, thin: float | None) -> dict[str, Any]:
        classes = {"sky": {"iou": miou}} | {name: {"iou": thin} for name in ("pole", "sign", "pedestrian")}
        scores = {"miou": miou, "pixel_accuracy": 0.5, "classes": classes, "protocol": "9 classes (minicity), ..."}
        return {"scores": {"test": scores}, "resources": ["source"], "data": "mine"}

    runs = {"a": {0: run(0.5, 0.1), 1: run(0.6, None)}, "b *": {0: run(0.4, 0.3), 1: run(0.7, 0.3), 2: run(0.9, 0.3)}}
    lines = scored.table(runs, ["uses", "mIoU", "seeds", "IoU of pole", "rare", "minus b *"]).splitlines()
    assert lines[0].startswith("| | source | labels | unlabelled | mIoU % | seed by seed | pole IoU % | rare % | minus")
    assert lines[2] == "| `a` | ✓ |   |   | 55.0 ± 7.1 | 50.0 60.0 | 10.0 | 10.0 | +0.0 [−127.1, 127.1] (1/2) |"
    assert lines[3] == "| `b` * | ✓ |   |   | **66.7** ± 25.2 | 40.0 70.0 90.0 | **30.0** ± 0.0 | **30.0** ± 0.0 | – |"
    # A class that neither occurs nor is predicted has no IoU; what is never predicted has a precision of 0.
    assert scored.table(runs, ["IoU"]).splitlines()[2] == "| `a` | 55.0 | 10.0 | 10.0 | 10.0 |"


def test_runs_of_several_pairs_are_no_table() -> None:
    with pytest.raises(SystemExit, match="source-only, seed 0, is there twice"):
        scored.read_runs(ROOT / "docs/photographs/fine-tuned.json")


def test_no_kept_result_names_a_place() -> None:
    words = ["--data.root", "/a", "--data.root=/a", "--method.generator", "/b.pt", "--data", "/c/my.yaml"]
    words += ["--network.initial_checkpoint", "{source-only}", "--data", "minifaces", "--trainer.max_steps", "3"]
    entry = {"options": words, "run": "/d", "manifest": {"command": "/e", "platform": "f", "git": {}}}
    assert without_places(entry) == {
        "options": ["--network.initial_checkpoint", "{source-only}", "--data", "minifaces", "--trainer.max_steps", "3"],
        "manifest": {"git": {}},
    }


def test_the_tables_of_alignment_are_their_files() -> None:
    page = (ROOT / "docs/photographs/README.md").read_text()
    for pair, split, text in (
        ("carla", "val", page[page.index("## Why alignment") :]),
        ("cracks", "test", page[page.index("The cracks are a counter") :]),
    ):
        for row, cells in rows(text).items():
            values = []
            for file in ("unaligned", "strict", "results"):
                runs = json.loads((ROOT / f"docs/photographs/{pair}/{file}.json").read_text())
                (found,) = (run["scores"][split] for run in runs if (run["row"], run["seed"]) == (row, 0))
                values.append(found["miou"] if pair == "carla" else found["classes"]["crack"]["iou"])
            assert cells == [f"{100 * value:.1f}" for value in values]


def test_the_table_of_losses_on_cracks_is_its_files() -> None:
    page = (ROOT / "docs/photographs/README.md").read_text()
    found = scores("cracks", "losses.json", "results.json")
    for row, cells in rows(page[page.index("[cracks/losses.json]") :]).items():
        names = (row.replace("only", "plain"), row)
        for name, cell in zip(names, cells, strict=True):
            crack = found[name]["classes"]["crack"]
            assert cell == f"{100 * crack['iou']:.1f} ({100 * crack['precision']:.0f}, {100 * crack['recall']:.0f})"
