"""An average face, which gives the points between the five that are measured."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: The five points in the coordinates of the average face: eyes, nose, corners of the mouth, from the left.
_FIVE = np.array([[30.3, 51.6], [65.5, 51.6], [48.0, 71.7], [33.5, 92.3], [62.7, 92.3]])
#: Edges of the box that the detector would give the average face: left, top, right, bottom.
_BOX = (12.0, 8.0, 84.0, 116.0)

_EYE = np.array([[-7.0, 0.3], [-2.8, -2.9], [2.8, -2.9], [7.0, 0.3], [2.8, 2.6], [-2.8, 2.6]])
_BROW = np.array([[17.0, 43.0], [22.0, 38.0], [29.0, 36.5], [36.0, 38.0], [42.0, 41.0]])
_ROUND = np.linspace(0.0, np.pi, 17)
_CHIN = np.stack([48.0 - 36.0 * np.cos(_ROUND), 54.0 + 64.0 * np.sin(_ROUND)], axis=1)
_BRIDGE = np.array([[48.0, 51.0], [48.0, 58.0], [48.0, 65.0], [48.0, 71.7]])
_TIP = np.array([[40.5, 77.0], [44.0, 78.5], [48.0, 79.5], [52.0, 78.5], [55.5, 77.0]])
#: Outer edge of the upper lip from the left, then its inner edge back.
_UPPER = np.array(
    [[33.5, 92.3], [38.5, 89.0], [44.0, 87.0], [48.0, 88.0], [52.0, 87.0], [57.5, 89.0], [62.7, 92.3]]
    + [[60.3, 92.3], [52.0, 91.5], [48.0, 91.8], [44.0, 91.5], [35.9, 92.3]]
)
#: Outer edge of the lower lip from the right, then its inner edge back.
_LOWER = np.array(
    [[62.7, 92.3], [58.0, 97.0], [53.0, 99.5], [48.0, 100.0], [43.0, 99.5], [38.0, 97.0], [33.5, 92.3]]
    + [[35.9, 92.3], [44.0, 94.0], [48.0, 94.3], [52.0, 94.0], [60.3, 92.3]]
)


def _mirrored(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The same on the other side, still from left to right."""
    return points[::-1] * [-1.0, 1.0] + [96.0, 0.0]


#: Names and points, each with the measured points that they move with.
_PARTS: list[tuple[str, NDArray[np.float64], tuple[int, ...]]] = [
    ("chin", _CHIN, (3, 4)),
    ("left_eyebrow", _BROW, (0,)),
    ("right_eyebrow", _mirrored(_BROW), (1,)),
    ("nose_bridge", _BRIDGE, (2,)),
    ("nose_tip", _TIP, (2,)),
    ("left_eye", _FIVE[0] + _EYE, (0,)),
    ("right_eye", _FIVE[1] + _EYE, (1,)),
    ("top_lip", _UPPER, (3, 4)),
    ("bottom_lip", _LOWER, (3, 4)),
]


class _Fit:
    """The affine map that brings the average face nearest to five points, and the remaining error of each."""

    def __init__(self, five: NDArray[np.float32]) -> None:
        extended = np.concatenate([_FIVE, np.ones((5, 1))], axis=1)
        self.matrix = np.linalg.lstsq(extended, np.asarray(five, dtype=np.float64), rcond=None)[0]
        self.missing = five - extended @ self.matrix

    def place(self, points: NDArray[np.float64], anchors: tuple[int, ...]) -> list[tuple[int, int]]:
        placed = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ self.matrix
        first, last = anchors[0], anchors[-1]
        span = _FIVE[last, 0] - _FIVE[first, 0]
        share = np.clip((points[:, :1] - _FIVE[first, 0]) / span, 0.0, 1.0) if span else np.zeros((len(points), 1))
        placed += (1.0 - share) * self.missing[first] + share * self.missing[last]
        return [(round(x), round(y)) for x, y in placed.tolist()]


def large(five: NDArray[np.float32]) -> dict[str, list[tuple[int, int]]]:
    """68 points by name."""
    fit = _Fit(five)
    return {name: fit.place(points, anchors) for name, points, anchors in _PARTS}


def small(five: NDArray[np.float32]) -> dict[str, list[tuple[int, int]]]:
    """The corners of the eyes, and the bottom of the nose."""
    fit = _Fit(five)
    corners = _EYE[[0, 3]]
    return {
        "nose_tip": fit.place(_TIP[2:3], (2,)),
        "left_eye": fit.place(_FIVE[0] + corners, (0,)),
        "right_eye": fit.place(_FIVE[1] + corners, (1,)),
    }


def five_in(box: tuple[float, float, float, float]) -> NDArray[np.float32]:
    """The five points of an average face that fills a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    scale = [(right - left) / (_BOX[2] - _BOX[0]), (bottom - top) / (_BOX[3] - _BOX[1])]
    points: NDArray[np.float32] = ((_FIVE - _BOX[:2]) * scale + [left, top]).astype(np.float32)
    return points


def jittered(five: NDArray[np.float32], count: int) -> list[NDArray[np.float32]]:
    """Those points, and count - 1 times moved, turned and scaled a little; the same every time."""
    chance = np.random.default_rng(1)
    middle = five.mean(axis=0)
    side = float(np.ptp(five, axis=0).max())
    moved = [five]
    for _ in range(count - 1):
        turn, scale = np.radians(chance.uniform(-3.0, 3.0)), chance.uniform(0.96, 1.04)
        rotation = scale * np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        shift = chance.uniform(-0.03, 0.03, 2) * side
        moved.append(((five - middle) @ rotation + middle + shift).astype(np.float32))
    return moved
