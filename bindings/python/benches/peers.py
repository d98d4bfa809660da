"""Compares the speed of the compatible interfaces with the packages that they replace, in turns in one run.

    python bindings/python/benches/peers.py VIDEO [--threads N] [--rounds N] [--frames N]

Measures whichever of facenet-pytorch and face_recognition is installed, on frames of a video that are in memory.
Medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import sphereface


def cpu() -> str:
    with open("/proc/cpuinfo") as file:
        lines = file.read().splitlines()
    facts = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    avx = [name for name in ("avx2", "avx512f", "avx512_bf16") if name in facts.get("flags", "").split()]
    name = facts.get("model name", "?")
    return f"{name}, family {facts.get('cpu family')} model {facts.get('model')}, {' '.join(avx)}"


def frames(video: str, count: int) -> list[np.ndarray]:
    source = sphereface.Source(video)
    step = max(1, (source.frames or count) // count)
    return [frame.picture for frame in source if frame.index % step == 0][:count]


def installed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        print(f"{name} is left out: {error}")
        return None


def in_turns(pictures: list[np.ndarray], rounds: int, ways: dict[str, Callable[[np.ndarray], int]]) -> None:
    """Times each implementation over all pictures, in turns, round by round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {name: sum(way(picture) for picture in pictures) for name, way in ways.items()}
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            for picture in pictures:
                way(picture)
            times[name].append(1000.0 * (time.perf_counter() - began) / len(pictures))
    for name, ms in times.items():
        print(
            f"  {name}: {statistics.median(ms):.2f} ms per picture "
            f"({min(ms):.2f} to {max(ms):.2f}), {found[name]} faces"
        )
    ours, theirs = (statistics.median(ms) for ms in times.values())
    print(f"  {theirs / ours:.1f} times as fast")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("video")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--frames", type=int, default=12)
    given = arguments.parse_args()
    pictures = frames(given.video, given.frames)
    height, width = pictures[0].shape[:2]
    print(f"{cpu()}; {given.threads} threads; {len(pictures)} pictures of {width} x {height}")
    facenet(pictures, given)
    face_recognition(pictures, given)


def facenet(pictures: list[np.ndarray], given: argparse.Namespace) -> None:
    theirs = installed("facenet_pytorch")
    if theirs is None:
        return
    import torch

    from sphereface.facenet_pytorch import MTCNN

    torch.set_num_threads(given.threads)
    for size in (20, 40):
        print(f"MTCNN(min_face_size={size}).detect")
        ours, peer = MTCNN(min_face_size=size), theirs.MTCNN(min_face_size=size)
        count = lambda mtcnn: lambda picture: 0 if (boxes := mtcnn.detect(picture)[0]) is None else len(boxes)  # noqa: E731
        in_turns(pictures, given.rounds, {"sphereface": count(ours), "facenet-pytorch": count(peer)})


def face_recognition(pictures: list[np.ndarray], given: argparse.Namespace) -> None:
    theirs = installed("face_recognition")
    if theirs is None:
        return
    import sphereface.face_recognition as ours

    print("face_locations, found from 40 pixels on")
    locate = lambda module: lambda picture: len(module.face_locations(picture))  # noqa: E731
    in_turns(pictures, given.rounds, {"sphereface": locate(ours), "face_recognition": locate(theirs)})


if __name__ == "__main__":
    main()
