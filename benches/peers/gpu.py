"""Compares SphereFace-20 on a GPU with PyTorch: faces/s of embedding, and images/s of training with
A-Softmax (without loading), with the same weights, batches and classes.

    gpu.py PROGRAM [--threads N]

PROGRAM is sphereface built by tools/cuda.sh. The two take turns; each has the GPU to itself in its turn.
"""

import argparse
import json
import math
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

import network

LAMBDA = 5.0
PRECISIONS = ("f32", "tf32", "bf16")

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("program")
parser.add_argument("--threads", type=int, default=16, help="CPU threads, which compute our losses and updates")
parser.add_argument("--batches", default="1,16,64,256", help="faces embedded together")
parser.add_argument("--train-batches", default="256,512", help="images per step of training")
parser.add_argument("--classes", type=int, default=10572)
parser.add_argument("--rounds", type=int, default=2)
options = parser.parse_args()
present = list(network.layers())


def weights():
    return {name: torch.from_numpy(values.copy()).cuda() for name, values in network.random_weights().items()}


def precision(name):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name != "f32"
    torch.backends.cudnn.benchmark = True
    return torch.autocast("cuda", torch.bfloat16, enabled=name == "bf16")


def median(run, seconds=0.3):
    for _ in range(3):
        run()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < seconds:
        torch.cuda.synchronize()
        before = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - before)
    return statistics.median(times)


def embedding(name, batch):
    """Faces/s, from pixels in memory to features in memory, as ours are measured."""
    w, pixels = weights(), torch.rand(batch, 3, 112, 96) * 2 - 1

    def run():
        with precision(name), torch.inference_mode():
            return network.features(F, w, pixels.cuda(), present).float().cpu()

    return batch / median(run)


def training(name, batch):
    """Images/s of the forward pass, A-Softmax with m = 4, the backward pass and SGD with momentum."""
    w = {name: values.requires_grad_() for name, values in weights().items()}
    classes = (torch.randn(options.classes, network.EMBEDDING, device="cuda") * 0.05).requires_grad_()
    optimiser = torch.optim.SGD([*w.values(), classes], lr=1e-6, momentum=0.9, weight_decay=5e-4)
    pixels, labels = torch.rand(batch, 3, 112, 96) * 2 - 1, torch.randint(options.classes, (batch,))

    def run():
        own = labels.cuda()
        with precision(name):
            features = network.features(F, w, pixels.cuda(), present)
        features = features.float()
        length = features.norm(dim=1, keepdim=True)
        cosines = (features / length) @ F.normalize(classes).t()
        cosine = cosines.gather(1, own[:, None])
        k = (4 * cosine.clamp(-1, 1).acos() / math.pi).floor().detach()
        psi = (1 - 2 * (k % 2)) * (8 * cosine**4 - 8 * cosine**2 + 1) - 2 * k
        logits = cosines.scatter(1, own[:, None], (LAMBDA * cosine + psi) / (1 + LAMBDA)) * length
        F.cross_entropy(logits, own).backward()
        optimiser.step()
        optimiser.zero_grad()

    return batch / median(run, 1.0)


def ours(*arguments):
    done = subprocess.run([options.program, "bench", *arguments, "--device", "cuda", "--threads",
                           str(options.threads), "--json"], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def table(what, unit, batches, peer, of_ours):
    found = {batch: {name: [] for name in ("ours", *PRECISIONS)} for batch in batches}
    for _ in range(options.rounds):
        for batch, speed in of_ours().items():
            found[batch]["ours"].append(speed)
        for batch in batches:
            for name in PRECISIONS:
                found[batch][name].append(peer(name, batch))
    print(f"\n| {what} | sphereface f32 | " + " | ".join(f"PyTorch {name}" for name in PRECISIONS) + f" |\n|{'---|' * 5}")
    for batch, speeds in found.items():
        best = {name: statistics.median(values) for name, values in speeds.items()}
        ratios = (f"{best[name]:.0f} (ratio {best['ours'] / best[name]:.2f})" for name in PRECISIONS)
        print(f"| {batch} {unit} | {best['ours']:.0f} | " + " | ".join(ratios) + " |", flush=True)


def embedded():
    rows = ours("--batches", options.batches)["embedding"]
    return {row["batch"]: row["per_s"] for row in rows if row["what"] == "sphereface20"}


def trained():
    return {batch: ours("train", "--batch", str(batch), "--classes", str(options.classes))["images_per_s"]
            for batch in train_batches}


print(torch.cuda.get_device_name(), "PyTorch", torch.__version__)
batches, train_batches = ([int(n) for n in text.split(",")] for text in (options.batches, options.train_batches))
table("embedding, faces/s", "together", batches, embedding, embedded)
table("training, images/s", "a step", train_batches, training, trained)
