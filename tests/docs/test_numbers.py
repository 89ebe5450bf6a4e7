"""The tables of the pages are those of the JSON files that they link to."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import pytest

from docs.figures.paired import differences
from segzoo.study.entries import read_results
from segzoo.study.findings import find

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
    "name", ["cpu-deeplabv3plus-resnet18", "cpu-segformer-mit_b0", "h200-deeplabv3plus-resnet50-32"]
)
def test_a_table_of_the_bench_is_its_json(name: str) -> None:
    measured = json.loads((BENCH / f"{name}.json").read_text())
    table = rows(PERFORMANCE[PERFORMANCE.index(f"results/{name}.json") :])
    assert set(table) == set(measured) - {"settings"}
    for row, (seconds, ratio, quartiles, peak, peak_ratio, cosine) in table.items():
        found = measured[row]
        assert seconds == f"{found['seconds']:.3f}" and ratio == f"{found['ratio']:.2f}"
        assert quartiles == "–".join(f"{q:.2f}" for q in found["ratio_quartiles"])
        assert peak == f"{found['peak_bytes'] / 2**20:.0f}" and peak_ratio == f"{found['peak_ratio']:.2f}"
        assert cosine.replace("−", "-") == ("–" if found["cosine"] is None else f"{found['cosine']:.6f}")


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


def test_the_table_of_carla_is_its_json() -> None:
    runs = json.loads((ROOT / "docs/photographs/carla/results.json").read_text())
    measured = {(run["row"], run["seed"]): 100 * run["scores"]["test"]["miou"] for run in runs}
    table = rows(section("Photographs: CARLA"))
    assert set(table) == {row for row, _ in measured}
    for row, cells in table.items():
        seeds = [measured[row, seed] for seed in (0, 1) if (row, seed) in measured]
        whole = [f"{value:.1f}" for value in (*seeds, sum(seeds) / len(seeds))]
        assert cells[-3:] == (whole if len(seeds) == 2 else [whole[0], "–", "–"])


def test_the_table_of_airsim_is_its_json() -> None:
    measured = scores("airsim", "results.json")
    table = rows(section("Photographs: AirSim"))
    assert set(table) == set(measured)
    for row, cells in table.items():
        assert cells[-2:] == [f"{100 * measured[row][key]:.1f}" for key in ("miou", "pixel_accuracy")]


def test_the_table_of_label_budgets_is_its_json() -> None:
    path = ROOT / "docs/photographs/carla/budgets.json"
    found = scores("carla", "budgets.json")
    table = rows(section("Photographs: what synthetic").replace("**", ""))
    for row, cells in table.items():
        names = [f"{row}-{budget}" for budget in (4, 8, 16, 64, "all")]
        assert cells == [f"{100 * found[name]['miou']:.1f}" if name in found else "–" for name in names]
    (findings,) = find(read_results(path), path.parent)
    equal = {(one.row, one.labels): one.equal for one in findings.worths}
    assert [round(equal["ssda", labels]) for labels in (4, 8, 16)] == [9, 23, 27]


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


def test_the_table_of_all_labels_is_its_json() -> None:
    ((row, found),) = scores("carla", "all-labels.json").items()
    page = (ROOT / "docs/photographs/README.md").read_text()
    table = rows(page[page.index("### With all 367 labels") :])
    classes = [one["iou"] for one in found["classes"].values()]
    expected = [f"{100 * value:.1f}" for value in (found["miou"], found["pixel_accuracy"], *classes)]
    assert row == "target-only-all" and table == {"target-only": expected}


def test_the_table_of_cracks_is_its_json() -> None:
    measured = scores("cracks", "results.json", "unaligned.json")
    table = {name.rstrip(" `*"): cells for name, cells in rows(section("Photographs: cracks")).items()}
    assert len(table) == 11
    for row, cells in table.items():
        crack = measured[row]["classes"]["crack"]
        expected = [crack[key] for key in ("iou", "precision", "recall")] + [measured[row]["miou"]]
        assert cells[-4:] == [f"{100 * value:.1f}" for value in expected], row


def test_the_table_of_minicity_measured_again_is_its_json() -> None:
    found: dict[str, list[float]] = {}
    for run in read_results(ROOT / "docs/minicity/labels.json"):
        found.setdefault(run["row"], []).append(100 * run["scores"]["test"]["miou"])
    table = rows(RESULTS[RESULTS.index("(minicity/labels.json)") :])
    assert set(table) == set(found)
    for row, (each, average, gain) in table.items():
        assert each == ", ".join(f"{value:.1f}" for value in found[row]) and average == f"{mean(found[row]):.1f}"
        gains = [value - other for value, other in zip(found[row], found["joint"], strict=True)]
        above = sum(one > 0 for one in gains)
        expected = f"{mean(gains):+.1f} ({above}/{len(gains)})".replace("-", "−")
        assert gain == ("–" if row == "joint" else expected)


def test_the_tables_of_two_labelled_faces_are_their_json() -> None:
    runs: dict[str, list[Any]] = {"target-only": [], "gradient-annotator": []}
    for run in json.loads((ROOT / "docs/faces/two-labels.json").read_text()):
        runs[run["row"]].append(run["scores"]["test"])
    page = (ROOT / "docs/gradient_annotator.md").read_text().replace("**", "")

    def spread(values: list[float]) -> str:
        return f"{100 * mean(values):.1f} ± {100 * stdev(values):.1f}"

    def parts(one: dict[str, Any]) -> float:
        return mean(found["iou"] for name, found in one["classes"].items() if name != "background")

    for row, found in runs.items():
        assert len(found) == 5
        cells = [spread([one[key] for one in found]) for key in ("miou", "pixel_accuracy")]
        assert f"| 2 | `{row}` | {cells[0]} | {spread([parts(one) for one in found])} | {cells[1]} |" in page
        classes = [f"{100 * mean(one['classes'][name]['iou'] for one in found):.1f}" for name in found[0]["classes"]]
        assert f"| 2, `{row}` | {' | '.join(classes)} |" in page
    pairs = list(zip(runs["gradient-annotator"], runs["target-only"], strict=True))
    for gains in ([a["miou"] - b["miou"] for a, b in pairs], [parts(a) - parts(b) for a, b in pairs]):
        assert f"+{spread(gains)} (5/5" in page and min(gains) > 0


def quoted(page: str) -> Iterator[str]:
    yield from re.findall(r"`[\w-]+`[^.\n]{0,40}?\b(\d\d\.\d)\b", (ROOT / page).read_text())


@pytest.mark.parametrize("page", ["README.md", "docs/choosing.md"])
def test_scores_that_are_quoted_stand_in_a_table(page: str) -> None:
    tables = "\n".join(
        (ROOT / name).read_text() for name in ("docs/results.md", "docs/gradient_annotator.md", "docs/performance.md")
    )
    cells = set(re.findall(r"\d+\.\d", "\n".join(line for line in tables.splitlines() if line.startswith("|"))))
    found = list(quoted(page))
    assert found and set(found) <= cells | {"3.0"}


def test_figures_of_paired_differences_read_the_tables() -> None:
    found = {row.row: row for row in differences("results.md", "## MiniCity, 16")}
    assert (found["source-only"].mean, found["source-only"].spread, found["source-only"].above) == (-22.2, 0.9, 0)
    assert (
        found["region-selection, a weight per class"].above == found["region-selection, a weight per class"].seeds == 5
    )
    assert len(differences("results.md", "## MiniCity without")) == 5
    assert len(differences("region_selection.md", "## Ablation")) == 9
