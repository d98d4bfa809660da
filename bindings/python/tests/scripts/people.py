"""What the scripts of this folder work on; the test sets PICTURES."""

import os
from pathlib import Path

PEOPLE = Path(__file__).resolve().parents[4] / "samples" / "people"


def person(name, number):
    return PEOPLE / name / f"{number}.jpg"


def picture(name):
    return Path(os.environ["PICTURES"]) / name


def frames(count):
    """Frames of the sample, from one on in which two people are seen."""
    import sphereface

    for frame in sphereface.Source(PEOPLE.parent / "sample.mp4"):
        if frame.index >= 60 + 5 * count:
            return
        if frame.index >= 60 and frame.index % 5 == 0:
            yield frame.picture
