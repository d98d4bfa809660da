"""Shared by all tests: an engine, and a gallery of two of the three people of the bundled sample."""

from pathlib import Path

import pytest

import sphereface

SAMPLES = Path(__file__).resolve().parents[3] / "samples"


def person(name: str, number: int) -> Path:
    return SAMPLES / "people" / name / f"{number}.jpg"


@pytest.fixture(scope="session")
def engine() -> sphereface.Engine:
    return sphereface.Engine(device="cpu", threads=2)


@pytest.fixture(scope="session")
def folder(engine: sphereface.Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people") / "gallery"
    for name in ("Ada", "Boris"):
        sphereface.enroll(folder, name, [person(name, 1), person(name, 2)], engine=engine)
    return folder


@pytest.fixture(scope="session")
def gallery(engine: sphereface.Engine, folder: Path) -> sphereface.Gallery:
    return sphereface.Gallery(engine, folder)


@pytest.fixture(scope="session")
def clip() -> Path:
    return SAMPLES / "sample.mp4"
