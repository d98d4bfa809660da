"""Faces in the RecordIO layout in which CASIA-WebFace is commonly distributed."""
import io
import os
import struct

import numpy as np
from PIL import Image

MAGIC = 0xCED7230A


def read_images(folder):
    """The JPEG files of a RecordIO pair, in the order of its index."""
    with open(os.path.join(folder, "train.idx")) as file:
        index = sorted(tuple(map(int, line.split())) for line in file)
    images = []
    with open(os.path.join(folder, "train.rec"), "rb") as file:
        for number, offset in index:
            file.seek(offset)
            _, length = struct.unpack("<II", file.read(8))
            record = file.read(length & ((1 << 29) - 1))
            (flag,) = struct.unpack_from("<I", record)
            image = record[24 + 4 * flag:]
            if number > 0 and image[:2] == b"\xff\xd8":
                images.append(image)
    return images


def pixels(image):
    return np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), np.float32)
