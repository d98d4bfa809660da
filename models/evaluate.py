#!/usr/bin/env python3
r"""Measures networks on faces of people that none was trained on: distance to the teacher, and misses.

    evaluate.py DATA WEIGHTS.safetensors... [--teacher mbf.onnx] [--mugshots ALIGNED] [--bf16] [--json OUT.jsonl]

DATA has lfw-dev/train-crops and tracks (folders of a person's aligned 112x112 crops; in tracks PERSON/VIDEO/FRAME.jpg).
ALIGNED is what `sphereface align --size 112x112` made of the stills of mugshots, PERSON/img_XY.png, X from 0 to 6 for
-135 to 135 degrees: those at -90 and 90 count. For each network, and for the teacher itself:

- DevTrain: the mean cosine to the teacher, and the misses (FNMR) at false matches (FMR) of 1e-3 and 1e-5 over all pairs
  of crops, with the angles; for single views, and for crop and mirror image together;
- tracks: the misses of single frames over all pairs of different videos, and of the mean of each video's frames;
- mugshots: the share of pairs of two people from the side that are taken for one person at DevTrain's angle for FMR
  1e-3.

Needs torch, numpy, pillow and safetensors; with --teacher also the teacher's requirements of distill.py.
"""
import argparse
import glob
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from endless import student


def crops(paths):
    return torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])).permute(0, 3, 1, 2)


def embedded(network, paths, bf16):
    """Unit embeddings of the crops, and of crops and mirror images together."""
    single, both = [], []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for start in range(0, len(paths), 64):
            faces = (crops(paths[start:start + 64])[:, :, :, 8:104].float() - 127.5) / 128
            one = network(faces.to(memory_format=torch.channels_last)).float()
            two = network(faces.flip(3).to(memory_format=torch.channels_last)).float()
            single.append(F.normalize(one))
            both.append(F.normalize(one + two))
    return torch.cat(single), torch.cat(both)


def asked(ask, paths):
    both = torch.cat([ask(crops(paths[start:start + 64]).float()) for start in range(0, len(paths), 64)])
    return both, both


def scores(rows, people, videos=None):
    """Cosines of all pairs of one person (from different videos), and of all pairs of two people."""
    first, second = np.triu_indices(len(rows), 1)
    every = (rows @ rows.T).numpy()[first, second]
    same = people[first] == people[second]
    kept = same & (videos[first] != videos[second]) if videos is not None else same
    return every[kept], every[~same]


def threshold(impostors, rate):
    """The lowest cosine that at most this share of impostors reaches."""
    allowed = int(rate * len(impostors))
    return np.partition(impostors, len(impostors) - 1 - allowed)[len(impostors) - 1 - allowed]


def misses(genuine, impostors, rates):
    found = {}
    for rate in rates:
        least = threshold(impostors, rate)
        found[f"{rate:.0e}"] = (round(100 * float((genuine <= least).mean()), 2), round(math.degrees(math.acos(least)), 2))
    return found


def listed(pattern, depth):
    """Paths in order, and for each the folders that name the person and the video."""
    paths = sorted(glob.glob(pattern))
    parts = [path.split(os.sep) for path in paths]
    return paths, np.array([part[-1 - depth] for part in parts]), np.array(["/".join(part[-1 - depth:-1]) for part in parts])


def means(rows, videos):
    """The mean of each video's rows, of unit length, and the person of each video."""
    names, which = np.unique(videos, return_inverse=True)
    sums = torch.zeros(len(names), rows.shape[1]).index_add_(0, torch.from_numpy(which), rows)
    return F.normalize(sums), np.array([name.split("/")[0] for name in names])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("weights", nargs="*")
    parser.add_argument("--teacher")
    parser.add_argument("--rows", help="file that keeps the teacher's rows, so that they are computed only once")
    parser.add_argument("--mugshots")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", help="a line for each network is added to this file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dev, dev_people, _ = listed(os.path.join(options.data, "lfw-dev/train-crops/*/*.*"), 1)
    tracks, track_people, track_videos = listed(os.path.join(options.data, "tracks/*/*/*.jpg"), 2)
    side, side_people = [], None
    if options.mugshots:
        paths, people, _ = listed(os.path.join(options.mugshots, "*/img_*.*"), 1)
        kept = [os.path.basename(path)[4] in "15" for path in paths]
        side, side_people = [path for path, keep in zip(paths, kept) if keep], people[kept]

    taught = None
    if options.teacher:
        rows = options.rows and os.path.exists(options.rows) and np.load(options.rows)
        if rows:
            taught = {name: torch.from_numpy(rows[name]) for name in rows}
        else:
            from distill import teacher
            ask = teacher(options.teacher, torch.device("cpu"))
            taught = {name: asked(ask, paths)[1] for name, paths in (("dev", dev), ("tracks", tracks), ("side", side)) if paths}
            if options.rows:
                np.savez(options.rows, **{name: value.numpy() for name, value in taught.items()})
    for path in ([None] if taught else []) + options.weights:
        if path:
            network = student(path)[0].eval().to(memory_format=torch.channels_last)
            of = lambda name, paths: embedded(network, paths, options.bf16)
        else:
            of = lambda name, paths: (taught[name], taught[name])
        single, both = of("dev", dev)
        line = {"network": path or "teacher"}
        if taught and both.shape[1] == taught["dev"].shape[1]:
            line["cosine"] = [round((rows * taught["dev"]).sum(1).mean().item(), 4) for rows in (single, both)]
        genuine, impostors = scores(single, dev_people)
        least = threshold(impostors, 1e-3)
        line["devtrain, single views: FMR: FNMR %, degrees"] = misses(genuine, impostors, (1e-3, 1e-4, 1e-5))
        line["devtrain, crop and mirror"] = misses(*scores(both, dev_people), (1e-3, 1e-4, 1e-5))
        frames = of("tracks", tracks)[0]
        line["tracks, single frames"] = misses(*scores(frames, track_people, track_videos), (1e-2, 1e-3, 1e-4))
        line["tracks, means of videos"] = misses(*scores(*means(frames, track_videos)), (1e-2, 1e-3, 1e-4))
        if side:
            genuine, impostors = scores(of("side", side)[0], side_people)
            line["mugshots from the side: false matches %, right %"] = [round(100 * float((s > least).mean()), 2) for s in (impostors, genuine)]
            line["mugshots from the side, own angle"] = misses(genuine, impostors, (1e-2, 1e-3))
        print(json.dumps(line), flush=True)
        if options.json:
            with open(options.json, "a") as file:
                print(json.dumps(line), file=file)


if __name__ == "__main__":
    main()
