#!/usr/bin/env python3
"""Adds the mean embedding, which verification subtracts, to weights that `sphereface train` or endless.py made.

    mean.py FACES WEIGHTS.safetensors -o OUT.safetensors

FACES is a folder with train.rec and train.idx; 2,000 of its faces count, crop and mirror image.
Afterwards `sphereface models import OUT FILE --precision f16` halves the file. Needs torch, numpy,
pillow and safetensors.
"""
import argparse

import numpy as np
import torch
from safetensors.torch import save_file

from endless import student
from records import pixels, read_images


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("weights")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()

    network, metadata = student(options.weights)
    images = read_images(options.faces)
    chosen = np.random.RandomState(7).choice(len(images), min(2000, len(images)), False)
    total = 0
    with torch.inference_mode():
        for part in np.array_split(chosen, max(1, len(chosen) // 50)):
            crops = np.stack([pixels(images[i])[:, 8:104] for i in part])
            faces = (torch.from_numpy(crops).permute(0, 3, 1, 2) - 127.5) / 128
            total = total + (network(faces) + network(faces.flip(3))).sum(0) / 2
    tensors = {name: value.detach().contiguous() for name, value in network.named_parameters()}
    save_file({**tensors, "mean": total / len(chosen)}, options.output, metadata)


if __name__ == "__main__":
    main()
