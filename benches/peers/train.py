"""Compares training of SphereFace-20 with A-Softmax with PyTorch: same network, classes, batch and
number of threads, in turns. One step is the forward pass, the loss, the backward pass and SGD with momentum,
without loading."""

import argparse
import json
import os
import statistics
import subprocess
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--classes", type=int, default=10572)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--steps", type=int, default=2, help="steps per turn, after one more for warming up")
parser.add_argument("--peers", help="f32, bf16 or f32,bf16; default: both where the CPU computes in bf16")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)
if options.peers is None:
    # On other CPUs PyTorch converts number by number, and a step takes minutes.
    with open("/proc/cpuinfo") as file:
        cpu = file.read()
    options.peers = "f32,bf16" if "avx512_bf16" in cpu or "amx_bf16" in cpu else "f32"

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import network  # noqa: E402

LAMBDA = 5.0


class Peer:
    """A step of training, as it is usually written in PyTorch."""

    def __init__(self, precision):
        self.bf16 = precision == "bf16"
        self.present = list(network.layers())
        self.weights = {name: torch.from_numpy(values.copy()).requires_grad_()
                        for name, values in network.random_weights().items()}
        self.classes = (torch.randn(options.classes, network.EMBEDDING) * 0.05).requires_grad_()
        self.optimiser = torch.optim.SGD([*self.weights.values(), self.classes], lr=1e-6, momentum=0.9,
                                         weight_decay=5e-4)
        self.pixels = torch.rand(options.batch, 3, 112, 96) * 2 - 1
        self.labels = torch.randint(options.classes, (options.batch,))

    def step(self):
        """Seconds of the forward pass, the loss with its gradients, the backward pass, and the update."""
        times = [time.perf_counter()]
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            features = network.features(F, self.weights, self.pixels, self.present)
        times.append(time.perf_counter())
        top = features.detach().float().requires_grad_()
        self.loss(top).backward()
        times.append(time.perf_counter())
        features.backward(top.grad.to(features.dtype))
        times.append(time.perf_counter())
        self.optimiser.step()
        self.optimiser.zero_grad()
        times.append(time.perf_counter())
        return [after - before for before, after in zip(times, times[1:])]

    def loss(self, features):
        """A-Softmax with m = 4."""
        length = features.norm(dim=1, keepdim=True)
        cosines = F.linear(features / length, F.normalize(self.classes)).clamp(-1, 1)
        own = cosines.gather(1, self.labels[:, None])
        k = (4 * own.detach().acos() / torch.pi).floor()
        psi = (-1) ** k * (8 * own**4 - 8 * own**2 + 1) - 2 * k
        margined = cosines.scatter(1, self.labels[:, None], (LAMBDA * own + psi) / (1 + LAMBDA))
        return F.cross_entropy(length * margined, self.labels)


def ours(precision):
    command = [options.program, "bench", "train", "--json", "--batch", options.batch, "--classes",
               options.classes, "--threads", options.threads, "--batches", options.steps, "--precision", precision]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    report = json.loads(done.stdout)
    return [report[f"{part}_ms"] for part in ["forward", "losses", "backward", "update"]]


def theirs(peer):
    peer.step()
    steps = [peer.step() for _ in range(options.steps)]
    return [1e3 * statistics.median(part) / options.batch for part in zip(*steps)]


torch.set_num_threads(options.threads)
runs = {"ours f32": lambda: ours("f32")}
# The program trains in bf16 where the CPU has AMX.
with open("/proc/cpuinfo") as file:
    if "amx_bf16" in file.read():
        runs["ours bf16"] = lambda: ours("bf16")
fastest = list(runs)[-1]
for precision in options.peers.split(","):
    runs[f"PyTorch {precision}"] = lambda peer=Peer(precision): theirs(peer)
turns = {name: [] for name in runs}
for _ in range(options.rounds):
    for name, run in runs.items():
        turns[name].append(run())
print(f"SphereFace-20, A-Softmax over {options.classes} classes, batch {options.batch}, {options.threads} "
      f"threads, {options.rounds} rounds: median ms per image")
print(f"{'':14} forward   loss  backward  update     all  images/s")
for name, found in turns.items():
    parts = [statistics.median(part) for part in zip(*found)]
    total = statistics.median(sum(parts) for parts in found)
    ratio = statistics.median(sum(theirs) / sum(ours) for ours, theirs in zip(turns[fastest], found))
    print(f"{name:14} {parts[0]:7.2f} {parts[1]:6.2f} {parts[2]:9.2f} {parts[3]:7.2f} {total:7.2f} {1e3 / total:9.1f}"
          + (f"   {fastest} is {ratio:.2f} times as fast" if name != fastest else ""))
