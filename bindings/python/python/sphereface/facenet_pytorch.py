"""The detector of the package facenet-pytorch, on sphereface.

A script needs no change but the import:

    from sphereface.facenet_pytorch import MTCNN

Faces are torch tensors if torch is installed, otherwise numpy arrays. docs/python.md lists the differences from the
package.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import Engine, Error, write_image

__all__ = ["MTCNN", "extract_face", "fixed_image_standardization", "prewhiten"]

_OTHERS = {"InceptionResnetV1", "PNet", "RNet", "ONet", "training"}
#: Smallest face in pixels that the first network can see.
_LEAST_PX = 12


def __getattr__(name: str) -> Any:
    if name in _OTHERS:
        # Names beyond detection come from the other package, if it is installed.
        try:
            return getattr(importlib.import_module("facenet_pytorch"), name)
        except ImportError:
            raise ImportError(
                f"{name} is not part of this module, which only detects faces: compute embeddings with "
                "sphereface.Engine.embed(), or install facenet-pytorch, which then provides it"
            ) from None
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.lru_cache(maxsize=None)
def _engine(min_face: float, thresholds: tuple[float, float, float], factor: float, device: str) -> Engine:
    def made(device: str) -> Engine:
        return Engine(device=device, min_face=min_face, thresholds=thresholds, factor=factor)

    try:
        return made(device)
    except Error as error:
        if device == "cpu":
            raise
        warnings.warn(f"the CPU is used: {error}", RuntimeWarning, stacklevel=4)
        return made("cpu")


class MTCNN:
    """Finds faces and cuts them out, with the arguments and results of facenet_pytorch.MTCNN."""

    def __init__(
        self,
        image_size: int = 160,
        margin: int = 0,
        min_face_size: int = 20,
        thresholds: Sequence[float] = (0.6, 0.7, 0.7),
        factor: float = 0.709,
        post_process: bool = True,
        select_largest: bool = True,
        selection_method: str | None = None,
        keep_all: bool = False,
        device: Any = None,
    ) -> None:
        self.image_size = image_size
        self.margin = margin
        self.min_face_size = min_face_size
        self.thresholds = list(thresholds)
        self.factor = factor
        self.post_process = post_process
        self.select_largest = select_largest
        self.selection_method = selection_method or ("largest" if select_largest else "probability")
        self.keep_all = keep_all
        self.device = device
        if min_face_size < _LEAST_PX:
            warnings.warn(
                f"faces below {_LEAST_PX} pixels cannot be detected, and min_face_size is {min_face_size}",
                RuntimeWarning,
                stacklevel=2,
            )
        self._detector()

    def _detector(self) -> Engine:
        first, second, third = self.thresholds
        smallest = float(max(_LEAST_PX, self.min_face_size))
        device = "cpu" if self.device is None else str(self.device)
        return _engine(smallest, (first, second, third), self.factor, device)

    # A script may treat it as the torch module that it stands for.

    def to(self, device: Any) -> MTCNN:
        """Moves to a device."""
        self.device = device
        return self

    def cpu(self) -> MTCNN:
        """Moves to the CPU."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> MTCNN:
        """Moves to a GPU, by default the first one."""
        return self.to(f"cuda:{device or 0}")

    def train(self, mode: bool = True) -> MTCNN:
        """Is never in training."""
        return self

    def eval(self) -> MTCNN:
        """Is never in training."""
        return self

    def __call__(self, img: Any, save_path: Any = None, return_prob: bool = False) -> Any:
        return self.forward(img, save_path, return_prob)

    def forward(self, img: Any, save_path: Any = None, return_prob: bool = False) -> Any:
        """The face of a picture, 3 x image_size x image_size, or all of them with keep_all; None without one. A list
        of pictures gives a list. With save_path faces are written as image files."""
        boxes, probs, points = self.detect(img, landmarks=True)
        if not self.keep_all:
            boxes, probs, points = self.select_boxes(boxes, probs, points, img, method=self.selection_method)
        faces = self.extract(img, boxes, save_path)
        return (faces, probs) if return_prob else faces

    def detect(self, img: Any, landmarks: bool = False) -> tuple[Any, ...]:
        """Boxes (left, top, right, bottom) and probabilities, and with landmarks five points each: eyes, nose, corners
        of the mouth. A list of pictures, which may differ in size, gives arrays with an entry for each."""
        pictures = [_picture(one) for one in img] if _is_batch(img) else [_picture(img)]
        found = [self._of_picture(faces) for faces in self._detector().detect_many(pictures)]
        columns: list[Any] = [_column([one[at] for one in found]) for at in range(3)]
        if not _is_batch(img):
            columns = [column[0] for column in columns]
        return tuple(columns) if landmarks else tuple(columns[:2])

    def _of_picture(self, faces: list[Any]) -> tuple[Any, Any, Any]:
        if not faces:
            return None, [None], None
        boxes = np.array([face.box for face in faces], dtype=np.float32)
        probs = np.array([face.score for face in faces], dtype=np.float32)
        points = np.stack([face.landmarks for face in faces])
        if self.select_largest:
            order = np.argsort(_areas(boxes), kind="stable")[::-1]
            boxes, probs, points = boxes[order], probs[order], points[order]
        return boxes, probs, points

    def select_boxes(
        self,
        all_boxes: Any,
        all_probs: Any,
        all_points: Any,
        imgs: Any,
        method: str = "probability",
        threshold: float = 0.9,
        center_weight: float = 2.0,
    ) -> tuple[Any, Any, Any]:
        """One face of every picture: the most probable ("probability"), the largest ("largest"), the largest above a
        probability ("largest_over_threshold"), or the largest near the middle ("center_weighted_size")."""
        if not _is_batch(imgs):
            all_boxes, all_probs, all_points, imgs = [all_boxes], [all_probs], [all_points], [imgs]
            batch = False
        else:
            batch = True
        chosen: list[tuple[Any, Any, Any]] = []
        for boxes, probs, points, image in zip(all_boxes, all_probs, all_points, imgs):
            at = _best(boxes, probs, _size(image), method, threshold, center_weight)
            if at is None:
                chosen.append((None, [None], None))
            else:
                chosen.append((boxes[[at]], probs[[at]], points[[at]]))
        if not batch:
            # Of a single picture it is a single probability.
            box, prob, point = chosen[0]
            return box, prob[0], point
        columns = [[one[at] for one in chosen] for at in range(3)]
        missing = any(box is None for box in columns[0])
        boxes, probs, points = (_column(column) if missing else np.array(column) for column in columns)
        return boxes, probs, points

    def extract(self, img: Any, batch_boxes: Any, save_path: Any) -> Any:
        """Cuts the boxes out of the pictures that they were found in."""
        batch = _is_batch(img)
        images = list(img) if batch else [img]
        boxes = batch_boxes if batch else [batch_boxes]
        paths = [save_path] if isinstance(save_path, (str, os.PathLike)) else save_path
        paths = [None] * len(images) if paths is None else paths
        faces = [self._extract(*one) for one in zip(images, boxes, paths)]
        return faces if batch else faces[0]

    def _extract(self, image: Any, boxes: Any, path: Any) -> Any:
        if boxes is None:
            return None
        faces = []
        for number, box in enumerate(boxes if self.keep_all else boxes[:1], start=1):
            face = extract_face(image, box, self.image_size, self.margin, _numbered(path, number))
            faces.append(fixed_image_standardization(face) if self.post_process else face)
        return _stack(faces) if self.keep_all else faces[0]


def _is_batch(img: Any) -> bool:
    return isinstance(img, (list, tuple)) or len(getattr(img, "shape", ())) == 4


def _array(img: Any) -> NDArray[Any]:
    """The pixels of a PIL image, a torch tensor or an array."""
    if hasattr(img, "convert"):
        img = img.convert("RGB")
    elif hasattr(img, "detach"):
        img = img.detach().cpu().numpy()
    return np.asarray(img)


def _picture(img: Any) -> NDArray[np.uint8]:
    pixels = _array(img)
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint8)


def _size(img: Any) -> tuple[int, int]:
    """Width and height."""
    size = getattr(img, "size", None)
    width, height = size if isinstance(size, tuple) else img.shape[1::-1]
    return int(width), int(height)


def _areas(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _column(entries: list[Any]) -> NDArray[Any]:
    """An array with one entry per picture, of any type."""
    column = np.empty(len(entries), dtype=object)
    for at, entry in enumerate(entries):
        column[at] = entry
    return column


def _best(
    boxes: Any, probs: Any, size: tuple[int, int], method: str, threshold: float, center_weight: float
) -> int | None:
    if boxes is None:
        return None
    areas = _areas(boxes)
    if method == "probability":
        return int(np.argmax(probs))
    if method == "largest":
        return int(np.argmax(areas))
    if method == "largest_over_threshold":
        worth = np.where(probs > threshold, areas, -np.inf)
        return int(np.argmax(worth)) if np.isfinite(worth).any() else None
    if method == "center_weighted_size":
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2.0
        offset = ((middle - np.array(size) / 2.0) ** 2).sum(axis=1)
        return int(np.argmax(areas - center_weight * offset))
    raise ValueError(
        f"selection_method {method!r} is not known: "
        "use probability, largest, largest_over_threshold or center_weighted_size"
    )


def _numbered(path: Any, number: int) -> Any:
    """The path of the n-th face of a picture."""
    if path is None or number == 1:
        return path
    name, suffix = os.path.splitext(os.fspath(path))
    return f"{name}_{number}{suffix}"


def extract_face(img: Any, box: Any, image_size: int = 160, margin: int = 0, save_path: Any = None) -> Any:
    """A box of a picture with a margin around it, as 3 x image_size x image_size with values from 0 to 255."""
    width, height = _size(img)
    left, top, right, bottom = (float(side) for side in box)
    grow = [margin * (right - left) / (image_size - margin), margin * (bottom - top) / (image_size - margin)]
    inside = (
        int(max(left - grow[0] / 2.0, 0.0)),
        int(max(top - grow[1] / 2.0, 0.0)),
        int(min(right + grow[0] / 2.0, width)),
        int(min(bottom + grow[1] / 2.0, height)),
    )
    face = _resized(img, inside, image_size)
    if save_path is not None:
        os.makedirs(os.path.dirname(os.fspath(save_path)) or ".", exist_ok=True)
        write_image(save_path, np.clip(face.round(), 0, 255).astype(np.uint8))
    return _tensor(np.ascontiguousarray(face.transpose(2, 0, 1)))


def _resized(img: Any, box: tuple[int, int, int, int], side: int) -> NDArray[np.float32]:
    left, top, right, bottom = box
    if hasattr(img, "crop"):
        # Bilinear, as PIL has it.
        face: NDArray[np.float32] = np.asarray(img.convert("RGB").crop(box).resize((side, side), 2), dtype=np.float32)
        return face
    pixels = _array(img)[top:bottom, left:right].astype(np.float32)
    rows, columns = _means(pixels.shape[0], side), _means(pixels.shape[1], side)
    averaged: NDArray[np.float32] = np.einsum("yh,hwc,xw->yxc", rows, pixels, columns, optimize=True).astype(np.float32)
    return averaged


def _means(length: int, side: int) -> NDArray[np.float32]:
    """Weights that average a row of pixels down, or repeat it up, to another length."""
    weights = np.zeros((side, length), dtype=np.float32)
    for at in range(side):
        first, last = at * length // side, -(-(at + 1) * length // side)
        weights[at, first:last] = 1.0 / (last - first)
    return weights


@functools.lru_cache(maxsize=None)
def _torch() -> Any:
    """torch, where it is installed."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _tensor(values: NDArray[np.float32]) -> Any:
    torch = _torch()
    return values if torch is None else torch.from_numpy(values)


def _stack(faces: list[Any]) -> Any:
    torch = _torch()
    return np.stack(faces) if torch is None else torch.stack(faces)


def fixed_image_standardization(image_tensor: Any) -> Any:
    """Values from 0 to 255 as values from about -1 to 1."""
    return (image_tensor - 127.5) / 128.0


def prewhiten(x: Any) -> Any:
    """The same picture with mean 0 and standard deviation 1."""
    least = 1.0 / float(np.prod(x.shape)) ** 0.5
    return (x - x.mean()) / max(float(x.std()), least)
