#!/usr/bin/env python3
r"""Measures the scales of a SphereFace network for `--precision int8`, and what it then recognises.

    eight_bits.py DATA WEIGHTS.safetensors [--output SCALES.json] [--faces 256] [--share 1] [--splits 50]

Convolutions of more than 32 inputs have 8-bit weights with a scale per output, and 8-bit inputs with one scale: `--share`
of the absolute values of that input, in some faces of DATA/faces, are at most 127 times as large. Everything else is
computed in f32 here (in bf16 or f32 in the program). `--output` writes the scales as JSON. A model gets them by

    sphereface models import WEIGHTS.safetensors COPY.safetensors --set int8="$(cat SCALES.json)"

For f32 and 8 bits: misses over all pairs of DATA/lfw-dev/train-crops, and DIR at FPIR 1e-2 and 1e-3 with one enrolled image per
person (60 % of the people with more images; all others are strangers), the mean over `--splits` random splits, and its
difference from f32 on the same splits. Needs torch, numpy, pillow and safetensors."""
import argparse
import json
import os

import numpy as np
import torch

from endless import student
from evaluate import embedded, listed, misses, scores
from records import pixels, read_images


def rounded(values, scale):
    return (values / scale).round().clamp(-128, 127) * scale


class EightBits:
    """The layers of a network with 8-bit weights and inputs."""

    def __init__(self, network, share):
        self.share, self.scales, self.calibrating = share, {}, False
        layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d) and layer.in_channels > 32]
        with torch.no_grad():
            for name, layer in layers:
                weight = layer.weight.flatten(1)
                layer.weight.copy_(rounded(weight, weight.abs().amax(1, keepdim=True).clamp(min=1e-12) / 127).view_as(layer.weight))
                layer.register_forward_pre_hook(lambda _, inputs, name=name: self.enter(name, inputs[0]))

    def enter(self, name, values):
        if self.calibrating:
            seen = values.abs().flatten()
            largest = seen.kthvalue(max(1, int(self.share * seen.numel()))).values.item()
            self.scales[name] = max(self.scales.get(name, 0.0), largest / 127)
            return None
        return rounded(values, self.scales[name])


def rates(rows, people, generator):
    """DIR at FPIR 1e-2 and 1e-3 of one random split."""
    names, first, counts = np.unique(people, return_index=True, return_counts=True)
    several = generator.permutation(names[counts > 1])
    enrolled = {name: generator.integers(counts[names == name][0]) for name in several[:int(0.6 * len(several))]}
    gallery = {name: first[names == name][0] + at for name, at in enrolled.items()}
    known = np.array(list(gallery))
    cosines = rows @ rows[list(gallery.values())].T
    is_known = np.isin(people, known)
    is_probe = np.ones(len(people), bool)
    is_probe[list(gallery.values())] = False
    best, who = cosines.max(1), known[cosines.argmax(1)]
    strangers = np.sort(best[~is_known])
    mated, right = best[is_known & is_probe], (who == people)[is_known & is_probe]
    least = [strangers[-1 - int(fpir * len(strangers))] for fpir in (1e-2, 1e-3)]
    return [100 * ((mated > one) & right).mean() for one in least]


def write(options, scales):
    """Writes the scales, each with 4 digits, and what they rest on."""
    scales = {name: float(f"{scale:.4g}") for name, scale in sorted(scales.items())}
    with open(options.output, "w") as file:
        file.write(json.dumps({"faces": options.faces, "share": options.share, "scales": scales}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--output")
    parser.add_argument("--faces", type=int, default=256)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--splits", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    paths, people, _ = listed(os.path.join(options.data, "lfw-dev/train-crops/*/*.*"), 1)
    found = {}
    for kind in ("f32", "8 bits"):
        network = student(options.weights)[0].eval().to(memory_format=torch.channels_last)
        if kind != "f32":
            quantised = EightBits(network, options.share)
            quantised.calibrating = True
            images = read_images(os.path.join(options.data, "faces"))
            images = images[::max(1, len(images) // options.faces)][:options.faces]
            faces = torch.from_numpy(np.stack([(pixels(image)[:, 8:104] - 127.5) / 128 for image in images])).permute(0, 3, 1, 2)
            with torch.inference_mode():
                for batch in faces.split(32):
                    network(batch.to(memory_format=torch.channels_last))
            quantised.calibrating = False
            if options.output:
                write(options, quantised.scales)
        single, rows = embedded(network, paths, False)
        splits = [rates(rows.numpy(), people, np.random.default_rng(seed)) for seed in range(options.splits)]
        found[kind] = (rows, np.array(splits))
        print(kind, "misses, single views:", misses(*scores(single, people), (1e-3, 1e-4, 1e-5)), flush=True)
        print(kind, "DIR at FPIR 1e-2, 1e-3:", found[kind][1].mean(0).round(2), flush=True)
    (plain, before), (coarse, after) = found.values()
    print("cosine of 8 bits to f32, mean and least:", round((plain * coarse).sum(1).mean().item(), 5), round((plain * coarse).sum(1).min().item(), 5))
    change = after - before
    print("change of DIR, mean and its standard error:", change.mean(0).round(2), (change.std(0) / len(change) ** 0.5).round(2))


if __name__ == "__main__":
    main()
