#!/usr/bin/env python3
"""Writes labels of images for `sphereface eval ... --labels` from measurements of the program.

    benches/labels.py SPHEREFACE FOLDER >labels.csv

The labels are classes of the yaw angle of the head, of the size of the face and of its sharpness, for the largest face
in each image.
"""
import csv
import json
import pathlib
import subprocess
import sys


def label(value, limits, unit):
    """The class of a value, by the limits between classes."""
    below = [limit for limit in limits if limit <= value]
    above = [limit for limit in limits if limit > value]
    if not below:
        return f"below {above[0]}{unit}"
    return f"{below[-1]}{unit} or more" if not above else f"{below[-1]} to {above[0]}{unit}"


def main():
    program, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    out = csv.writer(sys.stdout)
    out.writerow(["image", "yaw", "size", "sharpness"])
    for first in range(0, len(images), 200):
        batch = images[first : first + 200]
        told = subprocess.run([program, "embed", *map(str, batch), "--json"], stdout=subprocess.PIPE, check=True)
        for line in told.stdout.decode().splitlines():
            found = json.loads(line)
            faces = found["faces"]
            if not faces:
                continue
            quality = max(faces, key=lambda face: face["quality"]["size_px"])["quality"]
            path = pathlib.Path(found["file"]).relative_to(folder)
            classes = [label(abs(quality["yaw_deg"]), (15, 30), " deg"), label(quality["size_px"], (80, 120), " px"),
                       label(quality["sharpness"], (0.3, 0.5), "")]
            out.writerow([path, *classes])


main()
