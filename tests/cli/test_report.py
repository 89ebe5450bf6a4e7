"""The report of a study: what stands in it, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segzoo.cli.main import main
from segzoo.study.entries import study_entries
from segzoo.study.findings import find
from segzoo.study.study_file import Study, read_study
from tests.study_runs import write_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SKILLS = {"source-only": 0.5, "target-only": 0.4, "joint": 0.5}
LOOKED_AT = """<script>addEventListener("load", () => { document.title = JSON.stringify({
  images: document.images.length, loaded: [...document.images].filter((i) => i.naturalWidth).length,
  wide: document.documentElement.scrollWidth - innerWidth,
  paper: getComputedStyle(document.body).backgroundColor,
  first: document.querySelector(".example").dataset.disagreement,
  most: String(Math.max(...[...document.querySelectorAll(".example")].map((e) => +e.dataset.disagreement)).toFixed(5)),
}) })</script>"""


def skill(row: Any, seed: int) -> float:
    labels = [float(value) for option, value in zip(row.options, row.options[1:], strict=False) if "labels" in option]
    return SKILLS[row.method] + 0.03 * seed + (0.08 * np.log2(labels[0] / 4) if labels else 0)


@pytest.fixture
def study(tmp_path: Path) -> tuple[Path, Study]:
    """A study of ten rows and three seeds, all complete."""
    content = {
        "question": "Are <squares> worth it?",
        "seeds": "0-2",
        "data": "minicity",
        "budgets": [4, 16, 32],
        "rows": {"source-only": {"published": 40.5}, "target-only": None, "joint": None},
        "reference": {"without labels": "source-only", "with labels": "target-only"},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    found = read_study(path)
    write_runs(found, tmp_path / "out", skill)
    return path, found


def test_a_complete_study_trains_nothing_and_is_reported(
    study: tuple[Path, Study], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = study
    out = path.parent / "out"
    assert main(["compare", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "21/21" in said and f"written to {out / 'report.html'}\n" in said
    page = (out / "report.html").read_text()
    assert "Are &lt;squares&gt; worth it?" in page and "<squares>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page), "it needs another file"
    assert "joint with 4 labels equals target-only with about" in html.unescape(page)
    assert f"segzoo compare {path} --out {out}" in page and "40.5" in page
    assert "<td>200</td><td>1.7</td>" in page, "minutes of a whole run, although its last start took 61 seconds"
    entries = json.loads((out / "results.json").read_text())
    assert len(entries) == 21 and entries[-1]["budget"] == {"row": "joint", "labels": 32}
    (out / "report.html").unlink()
    assert main(["compare", str(out / "results.json")]) == 0
    assert "Learning curves" in (out / "report.html").read_text()
    # A choice has a report of its own, which begins with what was chosen.
    copy = out.parent / "choice"
    copy.mkdir()
    for name, text in (("results.json", json.dumps(entries)), ("choice.json", "{}"), ("report.html", "chosen")):
        (copy / name).write_text(text)
    assert main(["compare", str(copy / "results.json")]) == 0
    assert (copy / "report.html").read_text() == "chosen"
    assert "Learning curves" in (copy / "comparison.html").read_text()
    # Only the folder of the report can be chosen; nothing that was asked for is ignored.
    capsys.readouterr()
    assert main(["compare", str(out / "results.json"), "--out", str(copy / "new")]) == 0
    assert "has the highest mean mIoU" in capsys.readouterr().out and (copy / "new/report.html").exists()
    for words in (["--seeds", "0"], ["--", "--trainer.max_steps", "3"]):
        assert main(["compare", str(out / "results.json"), *words]) == 2
        assert f"nothing is trained: leave out {words[-2]}" in capsys.readouterr().err


def test_the_table_compares_as_the_report_does(study: tuple[Path, Study]) -> None:
    path, plan = study
    out = path.parent / "out"
    assert main(["compare", str(path), "--out", str(out), "--report"]) == 0
    lines = [line.strip("| ").split(" | ") for line in (out / "minicity/comparison.md").read_text().splitlines()]
    assert lines[0][-1] == "mIoU minus reference (paired)"
    table = {line[0]: line[-1] for line in lines[2:]}
    (found,) = find(study_entries(out, plan), out)
    assert {row.reference for row in found.rows if row.difference} == {
        f"target-only-{labels}" for labels in (4, 16, 32)
    }
    for row in found.rows:
        if row.difference is None:
            assert table[row.name] == "–"
        else:
            assert table[row.name].startswith(f"{100 * row.difference.mean:+.1f} ± ")
            assert table[row.name].endswith(f"above {row.reference})")


def test_a_report_of_a_part_names_what_is_missing(
    study: tuple[Path, Study], capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = study
    out = path.parent / "out"
    arguments = ["compare", str(path), "--out", str(out), "--report"]
    assert main([*arguments, "--seeds", "0-3"]) == 0
    assert "without 7 runs" in capsys.readouterr().out
    assert "minicity/joint-16-s3" in (out / "report.html").read_text()
    assert main([*arguments, "--", "--trainer.max_steps", "7"]) == 2
    assert "there is nothing to report yet" in capsys.readouterr().err, "runs of other options are none of this study"


def test_what_labels_are_worth_is_read_off_the_curves(study: tuple[Path, Study]) -> None:
    path, plan = study
    (found,) = find(study_entries(path.parent / "out", plan), path.parent / "out")
    # joint knows what target-only learns from 2 ** (0.1 / 0.08) times as many labels
    first = next(worth for worth in found.worths if (worth.row, worth.labels) == ("joint", 4))
    assert first.other == "target-only" and first.equal == pytest.approx(4 * 2 ** (0.1 / 0.08), rel=0.25)
    assert len(first.by_seed) == 3
    last = next(worth for worth in found.worths if worth.labels == 32)
    assert np.isinf(last.equal) and last.largest == 32
    verdicts = {row.name: row.difference.verdict for row in found.rows if row.difference}
    assert {f"{worth.row}-{worth.labels}": worth.verdict for worth in found.worths} == {
        name: verdict for name, verdict in verdicts.items() if name.startswith("joint-")
    }
    assert [row.labels for row in found.rows] == [None, 4, 4, 16, 16, 32, 32]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (500, False)])
def test_a_browser_shows_it(study: tuple[Path, Study], width: int, dark: bool) -> None:
    path, _ = study
    out = path.parent / "out"
    assert main(["compare", str(path), "--out", str(out), "--report"]) == 0
    page = out / "looked-at.html"
    page.write_text((out / "report.html").read_text().replace("</body>", f"{LOOKED_AT}</body>"))
    options = [f"--user-data-dir={path.parent / 'browser'}", f"--window-size={width},1200", "--hide-scrollbars"]
    options += ["--enable-logging=stderr", *(["--blink-settings=preferredColorScheme=0"] if dark else [])]
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", *options]
    dumped = subprocess.run([*command, "--dump-dom", page.as_uri()], capture_output=True, text=True, timeout=120)
    match = re.search(r"<title>(\{.*?\})</title>", dumped.stdout)
    assert match, dumped.stderr
    found = json.loads(html.unescape(match[1]))
    assert "CONSOLE" not in dumped.stderr, dumped.stderr
    assert found["images"] == found["loaded"] == 6 * 9 and found["wide"] <= 0
    assert found["first"] == found["most"], "the images on which rows disagree most come first"
    picture = out / f"report-{width}{'-dark' if dark else ''}.png"
    subprocess.run([*command, f"--screenshot={picture}", page.as_uri()], capture_output=True, timeout=120, check=True)
    with Image.open(picture) as pixels:
        assert pixels.size == (width, 1200)
        middle = np.median(np.asarray(pixels.convert("L")))
    assert (middle < 60) if dark else (middle > 200), "the page has the colours that the reader asked for"
