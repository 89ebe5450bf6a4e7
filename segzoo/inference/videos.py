"""The frames of videos, one after the other."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from segzoo.data.domains import Pixels
from segzoo.errors import DataError

VIDEO_TYPES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
"""Endings of the files whose frames are labelled."""


def count_frames(path: Path) -> int:
    """How many frames a video says it has; some containers do not know exactly.

    Raises:
        DataError: it cannot be read.
    """
    video = _opened(path)
    try:
        return max(0, round(video.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        video.release()


def frames(path: Path) -> Iterator[Pixels]:
    """The frames (H, W, 3) uint8 RGB of a video, turned as it says.

    Raises:
        DataError: it cannot be read, or ends long before the number of frames that it says.
    """
    video = _opened(path)
    try:
        found, announced = 0, round(video.get(cv2.CAP_PROP_FRAME_COUNT))
        while True:
            read, frame = video.read()
            if not read:
                break
            found += 1
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    finally:
        video.release()
    if found == 0 or found < 0.98 * announced - 1:
        raise DataError(
            f"{path}: {found} of its {announced} frames could be read; it is damaged or cut off: write it anew, e.g. with "
            f"`ffmpeg -i {path.name} -c:v libx264 whole.mp4`"
        )


def frame_name(video: str, number: int) -> str:
    """The name of what is written for a frame: a file in a folder that is called like the video."""
    return f"{video}/{number:06d}"


def _opened(path: Path) -> cv2.VideoCapture:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what is wrong is said below, in words that name the file
    video = cv2.VideoCapture(str(path))
    if not video.isOpened():
        raise DataError(
            f"{path} cannot be read as a video: it is damaged, or its codec is unknown; convert it to MP4 with H.264"
        )
    return video
