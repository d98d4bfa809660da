#!/usr/bin/env python3
r"""Makes faces of more people by mixing faces, and the teacher's embedding of each.

    mix.py FACES TEACHER --count 60000 -o MIXED

FACES is a folder with train.rec and train.idx (aligned 112x112 crops, RecordIO) and teacher.npy, the
teacher's unit embedding of each; TEACHER a folder with the teacher itself (mobilefacenet.param and .bin,
ncnn). MIXED becomes such a folder too, of the unchanged faces and COUNT mixed ones: morphs of two,
and parts of two along a soft seam, most of them with other proportions. A small network that learns
to reproduce the teacher needs many different people more than it needs many pictures of each:

    sphereface train MIXED --config models/distill.toml --teacher MIXED/teacher.npy \
        --init models/sphereface.safetensors -o DIR
    mean.py FACES DIR/model.safetensors -o student.safetensors

Needs numpy, pillow and ncnn.
"""
import argparse
import io
import math
import multiprocessing
import os
import struct

import ncnn
import numpy as np
from PIL import Image

from records import MAGIC, pixels, read_images

SIZE = 112
# Shifts that bend a face: knots along a side, and their standard deviation.
KNOTS = 5
BENT_PX = 2.0
shared = {}


def mixed(one, other, rng):
    """Two aligned faces [112, 112, 3] become a third: a morph, or two parts with a soft seam."""
    if rng.random() < 0.5:
        weight = np.float32(rng.uniform(0.25, 0.75))
    else:
        turn, place, sharpness = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4), rng.uniform(2, 14)
        down, across = np.mgrid[-1:1:SIZE * 1j, -1:1:SIZE * 1j]
        seam = across * math.cos(turn) + down * math.sin(turn) - place
        weight = (1 / (1 + np.exp(-seam * sharpness))).astype(np.float32)[:, :, None]
    return one * weight + other * (1 - weight)


def warped(face, rng):
    """The face [112, 112, 3] with other proportions: longer or wider, and bent a little everywhere."""
    place = (np.mgrid[0:SIZE, 0:SIZE] - (SIZE - 1) / 2).astype(np.float32)
    longer = np.exp(np.float32(rng.normal(0, 0.06)))
    place[0] *= longer
    place[1] /= longer
    # Shifts at a few knots, which change smoothly between them; almost symmetric, as faces are.
    for axis, side in enumerate([1, -1]):
        one = rng.normal(0, BENT_PX, (KNOTS, KNOTS))
        knots = 0.65 * (one + side * one[:, ::-1]) + rng.normal(0, 0.3 * BENT_PX, (KNOTS, KNOTS))
        knots = Image.fromarray(knots.astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        place[axis] += np.asarray(knots)
    place = np.clip(place + (SIZE - 1) / 2, 0, SIZE - 1.001)
    first = place.astype(np.int32)
    down, across = (place - first)[..., None]
    pixels_of, at = face.reshape(-1, 3), first[0] * SIZE + first[1]
    upper, lower = (
        pixels_of.take(at + row, axis=0) * (1 - across) + pixels_of.take(at + row + 1, axis=0) * across
        for row in (0, SIZE)
    )
    return upper * (1 - down) + lower * down


def start(images, teacher, share):
    net = ncnn.Net()
    net.opt.num_threads = 1
    net.opt.use_fp16_storage = net.opt.use_fp16_packed = net.opt.use_fp16_arithmetic = False
    net.load_param(os.path.join(teacher, "mobilefacenet.param"))
    net.load_model(os.path.join(teacher, "mobilefacenet.bin"))
    shared.update(images=images, net=net, warped=share)


def embedding(face):
    """The teacher's unit embedding of a face [112, 112, 3], pixels 0 to 255."""
    total = 0
    for view in (face, face[:, ::-1]):
        # ncnn uses the memory of the array directly: the array has to live until it is copied.
        planes = np.ascontiguousarray(view.transpose(2, 0, 1))
        extractor = shared["net"].create_extractor()
        extractor.input("data", ncnn.Mat(planes).clone())
        _, answer = extractor.extract("fc1")
        total = total + np.array(answer, np.float32)
    return total / np.linalg.norm(total)


def make(seed):
    """A mixed face as a JPEG file, and the teacher's embedding of it."""
    images, rng = shared["images"], np.random.default_rng(seed)
    one, other = (pixels(images[i]) for i in rng.integers(len(images), size=2))
    if rng.random() < 0.5:
        other = other[:, ::-1]
    face = mixed(one, other, rng)
    if rng.random() < shared["warped"]:
        face = warped(face, rng)
    face = np.clip(np.rint(face), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(face).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue(), embedding(pixels(file.getvalue()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("teacher")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--count", type=int, default=60000, help="mixed faces")
    parser.add_argument("--warped", type=float, default=0.7,
                        help="share of them with other proportions; the default model had none at first")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    images = read_images(options.faces)
    rows = np.load(os.path.join(options.faces, "teacher.npy")).astype(np.float32)
    if len(images) != len(rows):
        raise SystemExit(f"{len(images)} faces and {len(rows)} embeddings of them")
    os.makedirs(options.output, exist_ok=True)
    total = len(images) + options.count
    embeddings = np.empty((total, rows.shape[1]), np.float16)
    embeddings[: len(rows)] = rows / np.linalg.norm(rows, axis=1, keepdims=True)

    with open(os.path.join(options.output, "train.rec"), "wb") as records, \
            open(os.path.join(options.output, "train.idx"), "w") as index:
        def record(number, label, content, further=()):
            body = struct.pack("<IfQQ", len(further), label, number, 0)
            body += struct.pack(f"<{len(further)}f", *further) + content
            index.write(f"{number}\t{records.tell()}\n")
            records.write(struct.pack("<II", MAGIC, len(body)) + body + bytes(-len(body) % 4))

        # Each record has a label of its own: training towards a teacher uses no labels.
        record(0, 0, b"", (total + 1, total + 1))
        for number, image in enumerate(images):
            record(number + 1, number, image)
        seeds = ((options.seed, number) for number in range(options.count))
        with multiprocessing.Pool(options.processes, start, (images, options.teacher, options.warped)) as pool:
            for done, (image, who) in enumerate(pool.imap(make, seeds, 64)):
                number = len(images) + done
                record(number + 1, number, image)
                embeddings[number] = who
                if (done + 1) % 2000 == 0:
                    print(f"{done + 1} of {options.count}", flush=True)
    np.save(os.path.join(options.output, "teacher.npy"), embeddings)


if __name__ == "__main__":
    main()
