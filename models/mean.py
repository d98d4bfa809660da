#!/usr/bin/env python3
"""Adds the mean embedding, which verification subtracts, to weights that `sphereface train` made.

    mean.py FACES WEIGHTS.safetensors -o OUT.safetensors

FACES is a folder with train.rec and train.idx; 2,000 of its faces count, crop and mirror image.
Afterwards `sphereface models import OUT FILE --precision f16` halves the file. Needs torch, numpy,
pillow and safetensors.
"""
import argparse

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from records import pixels, read_images

UNITS = (1, 2, 4, 1)


def features(tensors, faces):
    """Features [n, 128] of crops [n, 3, 112, 96] by a SphereFace-20."""
    def layer(name, x, stride=1):
        x = F.conv2d(x, tensors[f"conv{name}.weight"], tensors[f"conv{name}.bias"], stride, 1)
        return F.prelu(x, tensors[f"relu{name}.weight"].flatten())

    for stage, units in enumerate(UNITS, 1):
        faces = layer(f"{stage}_1", faces, 2)
        for unit in range(units):
            faces = faces + layer(f"{stage}_{3 + 2 * unit}", layer(f"{stage}_{2 + 2 * unit}", faces))
    return F.linear(faces.flatten(1), tensors["fc5.weight"], tensors["fc5.bias"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("weights")
    parser.add_argument("-o", "--output", required=True)
    options = parser.parse_args()

    with safe_open(options.weights, "pt") as file:
        tensors, metadata = {name: file.get_tensor(name).float() for name in file.keys()}, file.metadata()
    images = read_images(options.faces)
    chosen = np.random.RandomState(7).choice(len(images), min(2000, len(images)), False)
    total = 0
    with torch.inference_mode():
        for part in np.array_split(chosen, max(1, len(chosen) // 50)):
            crops = np.stack([pixels(images[i])[:, 8:104] for i in part])
            faces = (torch.from_numpy(crops).permute(0, 3, 1, 2) - 127.5) / 128
            total = total + (features(tensors, faces) + features(tensors, faces.flip(3))).sum(0) / 2
    tensors["mean"] = total / len(chosen)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, options.output, metadata)


if __name__ == "__main__":
    main()
