"""The interface of face_recognition.api: its names, its arguments, its box order (top, right, bottom, left).

Encodings are embeddings of the sphereface network, scaled so that the distance 0.6 between two of them is the angle
of the model's default threshold: the tolerance 0.6 means one false match in a thousand comparisons. Everything that
scripts do with encodings (differences, norms, nearest neighbours, averages) still works. Encodings of the two
packages cannot be compared with each other.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from typing import IO, Any, Union

import numpy as np
from numpy.typing import NDArray

from .. import DetectedFace, Engine, read_image
from . import shape

Location = tuple[int, int, int, int]
Points = list[tuple[int, int]]
_Path = Union[str, "os.PathLike[str]"]

#: Distance that corresponds to the model's default threshold.
TOLERANCE = 0.6
#: Side in pixels of the smallest face that dlib's detector finds without enlarging a picture.
_SMALLEST_PX = 80.0
#: Smallest face in pixels that the detector can find.
_LEAST_PX = 12.0
#: Lowest overlap (intersection over union) at which a location refers to a face.
_SAME = 0.3


@functools.lru_cache(maxsize=None)
def _engine(upsampled: int = 1) -> Engine:
    """The engine for pictures that would be doubled `upsampled` times: it searches for smaller faces instead."""
    return Engine(min_face=max(_LEAST_PX, _SMALLEST_PX / 2.0**upsampled))


@functools.lru_cache(maxsize=None)
def _radius() -> float:
    """Length of an encoding, so that TOLERANCE is the chord of the default threshold."""
    return TOLERANCE / (2.0 * math.sin(math.radians(_engine().threshold_deg()) / 2.0))


def angle_deg(tolerance: float = TOLERANCE) -> float:
    """The angle in degrees between two embeddings for the distance of their encodings."""
    return 2.0 * math.degrees(math.asin(min(1.0, tolerance / (2.0 * _radius()))))


def load_image_file(file: _Path | IO[bytes], mode: str = "RGB") -> NDArray[np.uint8]:
    """The picture of a file (a path or an opened file), upright: height x width x 3, or without the 3 for mode "L"."""
    if mode not in ("RGB", "L"):
        raise ValueError(f"mode {mode!r} is not known: use 'RGB' (8-bit RGB, 3 channels) or 'L' (black and white)")
    picture = _read(file)
    if mode == "L":
        grey: NDArray[np.uint8] = (picture @ np.array([0.299, 0.587, 0.114])).round().astype(np.uint8)
        return grey
    return picture


def _read(file: _Path | IO[bytes]) -> NDArray[np.uint8]:
    if not hasattr(file, "read"):
        return read_image(file)
    with tempfile.NamedTemporaryFile(prefix="picture-") as copy:
        copy.write(file.read())
        copy.flush()
        return read_image(copy.name)


def _colour(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture in RGB; a grey one is converted."""
    return np.repeat(image[:, :, None], 3, axis=2) if getattr(image, "ndim", 3) == 2 else image


def _location(face: DetectedFace, picture: NDArray[np.uint8]) -> Location:
    left, top, right, bottom = (round(side) for side in face.box)
    height, width = picture.shape[:2]
    return max(top, 0), min(right, width), min(bottom, height), max(left, 0)


def face_locations(
    img: NDArray[np.uint8], number_of_times_to_upsample: int = 1, model: str = "hog"
) -> list[Location]:
    """Boxes of faces as (top, right, bottom, left). The smallest face has 80 / 2**number_of_times_to_upsample pixels,
    but at least 12. There is one detector for every value of model."""
    picture = _colour(img)
    return [_location(face, picture) for face in _engine(number_of_times_to_upsample).detect(picture)]


def batch_face_locations(
    images: Sequence[NDArray[np.uint8]], number_of_times_to_upsample: int = 1, batch_size: int = 128
) -> list[list[Location]]:
    """face_locations() of every picture; they share the threads, batch_size at a time."""
    engine = _engine(number_of_times_to_upsample)
    pictures = [_colour(image) for image in images]
    found: list[list[Location]] = []
    for first in range(0, len(pictures), max(1, batch_size)):
        batch = pictures[first : first + max(1, batch_size)]
        for picture, faces in zip(batch, engine.detect_many(batch)):
            found.append([_location(face, picture) for face in faces])
    return found


def _landmarks(picture: NDArray[np.uint8], locations: Iterable[Location] | None) -> list[NDArray[np.float32]]:
    """Five points of every face: of those found, or of those at the locations."""
    if locations is None:
        return [face.landmarks for face in _engine().detect(picture)]
    boxes = [(float(left), float(top), float(right), float(bottom)) for top, right, bottom, left in locations]
    near = _engine().detect_near(picture, boxes) if boxes else []
    return [_of_box(box, near) for box in boxes]


def _of_box(box: tuple[float, float, float, float], faces: list[DetectedFace]) -> NDArray[np.float32]:
    """The points of the face at a location; if none is found, those of an average face that fills the box."""
    best = max(faces, key=lambda face: _overlap(face.box, box), default=None)
    if best is not None and _overlap(best.box, box) >= _SAME:
        return best.landmarks
    return shape.five_in(box)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0.0 or height <= 0.0:
        return 0.0
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


def face_landmarks(
    face_image: NDArray[np.uint8], face_locations: Iterable[Location] | None = None, model: str = "large"
) -> list[dict[str, Points]]:
    """Points of every face by name. Five are measured (eyes, nose, corners of the mouth); the others are those of an
    average face laid through the five."""
    if model not in ("large", "small"):
        raise ValueError("Invalid landmarks model type. Supported models are ['small', 'large'].")
    five = _landmarks(_colour(face_image), face_locations)
    return [shape.large(points) if model == "large" else shape.small(points) for points in five]


def face_encodings(
    face_image: NDArray[np.uint8],
    known_face_locations: Iterable[Location] | None = None,
    num_jitters: int = 1,
    model: str = "small",
) -> list[NDArray[np.float64]]:
    """The encoding of every face, 128 values; of those found, or of those at the locations, in their order. With
    num_jitters above 1 it is the mean of num_jitters encodings of the face, each moved and turned a little."""
    picture = _colour(face_image)
    five = _landmarks(picture, known_face_locations)
    return [_encoding(picture, points, max(1, num_jitters)) for points in five]


def _encoding(picture: NDArray[np.uint8], points: NDArray[np.float32], jitters: int) -> NDArray[np.float64]:
    crops = [_crop(picture, moved) for moved in shape.jittered(points, jitters)]
    mean = _engine().embed(crops).astype(np.float64).mean(axis=0)
    encoding: NDArray[np.float64] = _radius() * mean / np.linalg.norm(mean)
    return encoding


def _crop(picture: NDArray[np.uint8], points: NDArray[np.float32]) -> NDArray[np.uint8]:
    crop = Engine.align(picture, points.tolist())
    if crop is None:
        raise ValueError("there is no face in a location without width or height: leave it out")
    return crop


def face_distance(face_encodings: Any, face_to_compare: NDArray[np.float64]) -> NDArray[np.float64]:
    """The distance of each of the encodings from the given one: 0.6 is the default threshold."""
    if len(face_encodings) == 0:
        return np.empty(0)
    distances: NDArray[np.float64] = np.linalg.norm(np.asarray(face_encodings) - face_to_compare, axis=1)
    return distances


def compare_faces(
    known_face_encodings: Any, face_encoding_to_check: NDArray[np.float64], tolerance: float = TOLERANCE
) -> list[bool]:
    """For each of the encodings, whether the given one is the same person: 0.6 is right for 999 of 1,000 strangers."""
    return [bool(near) for near in face_distance(known_face_encodings, face_encoding_to_check) <= tolerance]
