"""Identifies people in videos and pictures.

    import sphereface

    engine = sphereface.Engine()
    gallery = sphereface.Gallery(engine, "gallery")
    for face in sphereface.Recogniser(engine, gallery).name(sphereface.read_image("party.jpg")):
        print(face.name or "unknown", face.box)

Pictures are numpy arrays of uint8, height x width x 3 (RGB). Long operations run without the interpreter's lock, so
that threads of a program run in parallel.

For existing scripts, `sphereface.face_recognition` and `sphereface.facenet_pytorch` have the functions of the packages
of these names.
"""

from .sphereface_native import (
    DetectedFace,
    Engine,
    Error,
    Event,
    Frame,
    Gallery,
    Identification,
    IdentifiedFace,
    LabelledFrame,
    Quality,
    Recogniser,
    Source,
    Stream,
    Summary,
    Threshold,
    enroll,
    label,
    read_image,
    write_image,
)

__all__ = [
    "DetectedFace",
    "Engine",
    "Error",
    "Event",
    "Frame",
    "Gallery",
    "Identification",
    "IdentifiedFace",
    "LabelledFrame",
    "Quality",
    "Recogniser",
    "Source",
    "Stream",
    "Summary",
    "Threshold",
    "enroll",
    "label",
    "read_image",
    "write_image",
]
