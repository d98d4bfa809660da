"""The functions of face_recognition.face_recognition_cli that scripts use."""

from __future__ import annotations

import os

_SUFFIXES = (".jpg", ".jpeg", ".png")


def image_files_in_folder(folder: str) -> list[str]:
    """The pictures in a folder."""
    names = (name for name in os.listdir(folder) if name.lower().endswith(_SUFFIXES))
    return [os.path.join(folder, name) for name in names]
