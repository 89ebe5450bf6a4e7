"""What a run of wandb holds that was logged offline: its file is a log of LevelDB's format with a message per record."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from wandb.proto import wandb_internal_pb2 as messages

BLOCK = 32768
FIRST_HEADER, HEADER = 7, 7


class Offline(NamedTuple):
    """A run.

    Attributes:
        id: its id.
        config: its configuration.
        history: what was logged, a mapping per call.
        summary: its summary.
        artifacts: names of its artifacts.
        group: what it is grouped by.
        project: where it belongs.
    """

    id: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    artifacts: list[str]
    group: str
    project: str


def records(path: Path) -> Iterator[Any]:
    """The messages in a file, in their order."""
    content, at, parts = path.read_bytes(), FIRST_HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + HEADER])
        parts += content[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if kind in (1, 4):  # whole, or the last of its parts
            record = messages.Record()
            record.ParseFromString(parts)
            yield record
            parts = b""


def read(folder: Path) -> list[Offline]:
    """The runs that were logged offline into a run folder, in the order of their starts."""
    return [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def _read(path: Path) -> Offline:
    run, config, history, summary, artifacts = None, {}, [], {}, []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        content = getattr(record, kind)
        if kind == "run":
            run = content
            _update(config, content.config.update)
        elif kind == "config":
            _update(config, content.update)
        elif kind == "history":
            history.append(_update({}, content.item))
        elif kind == "summary":
            _update(summary, content.update)
        elif kind == "request" and content.WhichOneof("request_type") == "partial_history":
            history.append(_update({}, content.partial_history.item))
        elif kind == "artifact":
            artifacts.append(content.name)
    assert run is not None
    return Offline(run.run_id, config, history, summary, artifacts, run.run_group, run.project)


def _update(into: dict[str, Any], items: Any) -> dict[str, Any]:
    for item in items:
        *keys, last = list(item.nested_key) or [item.key]
        inner = into
        for key in keys:
            inner = inner.setdefault(key, {})
        inner[last] = json.loads(item.value_json)
    return into
