"""The functions of the package face_recognition, on sphereface.

Change the import, and a script goes on as it was:

    import sphereface.face_recognition as face_recognition

See docs/python.md for what is the same and what differs.
"""

from .api import (
    angle_deg,
    batch_face_locations,
    compare_faces,
    face_distance,
    face_encodings,
    face_landmarks,
    face_locations,
    load_image_file,
)

__all__ = [
    "angle_deg",
    "batch_face_locations",
    "compare_faces",
    "face_distance",
    "face_encodings",
    "face_landmarks",
    "face_locations",
    "load_image_file",
]
