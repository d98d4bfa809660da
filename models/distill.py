#!/usr/bin/env python3
r"""Trains towards the teacher of 512 values, on faces as they are, mixed, and turned to the side.

    distill.py PACK.npz... --teacher mbf.onnx --init models/sphereface.safetensors -o DIR
    distill.py PACK.npz... --teacher mbf.onnx --init models/sphereface.safetensors -o DIR --device cuda --minutes 12

A pack is NAME.npz (`jpeg`, the bytes of aligned 112x112 crops one after another, and `offsets`, where each begins and
the last ends) with NAME.teacher.npy beside it, the teacher's unit row of each crop (crop and mirror image).
No labels are used. If the embedding of the network has another size than the teacher's, its last layer is first
solved by ridge regression, which is worth more than the first 100,000 faces of training.

Training then runs in rounds. The pool of a round has unchanged faces, mixtures of two faces as endless.py makes them,
and faces turned by profiles.py. The teacher embeds all new faces, and the student is trained on the pool `--passes`
times, with new random changes each time. The order depends on the seed and the iteration alone, so a run that was
stopped resumes exactly: the same command continues from DIR/checkpoint.pt. The target of a turned face is half the
teacher's embedding of it and half the teacher's embedding of the face from the front. (The teacher's rows of 256 people
turned by 75 degrees have a cosine of 0.20 to each other on average and of 0.51 for one pair in a thousand, and 0.26 to
their own view from the front; with that half they have 0.35 for one in a thousand and 0.79.)

DIR gets checkpoint.pt every eight minutes, which is complete at any time, model.safetensors with it (the weights
averaged over about the last thousand iterations) and log.jsonl. With `--minutes`, the rate falls to zero over that
time, for a machine that is available for a limited time. Without it, the rate is constant, and the run ends when it is
stopped (SIGTERM or Ctrl-C: a checkpoint is written first).

Needs torch, numpy, pillow and safetensors; on a CPU OpenVINO, where it is installed, runs the teacher.
"""
import argparse
import concurrent.futures
import io
import json
import math
import os
import signal
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from endless import Faces, student, write
from profiles import Profiles

KINDS = ("real", "mixed", "turned")
# Shares of the kinds of faces from which the last layer is solved, and the ridge added relative to their mean square.
RIDGE_SHARES, RIDGE = (0.7, 0.1, 0.2), 0.02
# The length of the embedding is free. With weights of this size, a step of AdamW is as small for the last layer as for
# the others.
LAST_LAYER_SIZE = 0.05
AVERAGED = 0.999


class Packs:
    """Crops of packs by number, decoded on demand (CPU) or all at once (GPU)."""

    def __init__(self, paths, device):
        self.device, self.jpeg, rows, self.starts = device, [], [], [0]
        for path in paths:
            pack = np.load(path)
            self.jpeg.append((pack["jpeg"], pack["offsets"]))
            rows.append(np.load(path.removesuffix(".npz") + ".teacher.npy"))
            if len(rows[-1]) != len(pack["offsets"]) - 1:
                raise SystemExit(f"{path}: {len(pack['offsets']) - 1} crops, {len(rows[-1])} rows of the teacher")
            self.starts.append(self.starts[-1] + len(rows[-1]))
        self.rows = torch.from_numpy(np.concatenate(rows)).to(device)
        self.all = None
        if device.type == "cuda":
            self.all = torch.empty(len(self), 3, 112, 112, dtype=torch.uint8)
            def decode(i):
                self.all[i] = self.decoded(i)
            with concurrent.futures.ThreadPoolExecutor() as pool:
                list(pool.map(decode, range(len(self))))
            self.all = self.all.to(device)

    def __len__(self):
        return self.starts[-1]

    def decoded(self, index):
        pack = int(np.searchsorted(self.starts, index, "right")) - 1
        jpeg, offsets = self.jpeg[pack]
        start, end = offsets[index - self.starts[pack]:index - self.starts[pack] + 2]
        image = Image.open(io.BytesIO(jpeg[start:end].tobytes())).convert("RGB")
        return torch.from_numpy(np.asarray(image).transpose(2, 0, 1).copy())

    def __getitem__(self, indices):
        if self.all is not None:
            return self.all[indices]
        return torch.stack([self.decoded(i) for i in indices.tolist()])


def varint(content, at):
    """A protobuf integer (varint) at an offset, and the offset after it."""
    value = shift = 0
    while True:
        value |= (content[at] & 127) << shift
        at, shift = at + 1, shift + 7
        if content[at - 1] < 128:
            return value, at


def fields(message):
    """The fields of a protobuf message: for each field number its values, integers or bytes."""
    found, at = {}, 0
    while at < len(message):
        key, at = varint(message, at)
        if key & 7 == 0:
            value, at = varint(message, at)
        else:
            long = {1: 8, 5: 4}.get(key & 7)
            if long is None:
                long, at = varint(message, at)
            value, at = message[at:at + long], at + long
        found.setdefault(key >> 3, []).append(value)
    return found


def integers(values):
    """The integers of a repeated field, packed or not."""
    numbers = []
    for value in values:
        at = 0
        while not isinstance(value, int) and at < len(value):
            number, at = varint(value, at)
            numbers.append(number)
        if isinstance(value, int):
            numbers.append(value)
    return numbers


class Onnx(torch.nn.Module):
    """The teacher's layers as PyTorch runs them, read from its ONNX file (without the package of that name)."""

    def __init__(self, path):
        super().__init__()
        with open(path, "rb") as file:
            graph = fields(fields(file.read())[7][0])
        self.values, self.places, self.steps = torch.nn.ParameterList(), {}, []

        def keep(name, content):
            tensor = fields(content)
            # Numbers are floats, as raw bytes or as a repeated field.
            values = np.frombuffer(b"".join(tensor.get(9) or tensor[4]), "<f4").copy()
            self.places[name] = len(self.values)
            values = torch.from_numpy(values).reshape(integers(tensor.get(1, [])))
            self.values.append(torch.nn.Parameter(values, False))

        for content in graph.get(5, []):
            keep(fields(content)[8][0].decode(), content)
        for content in graph[1]:
            node = fields(content)
            inputs, output = [name.decode() for name in node.get(1, [])], node[2][0].decode()
            options = {}
            for attribute in map(fields, node.get(5, [])):
                options[attribute[1][0].decode()] = integers(attribute.get(8) or attribute.get(3, []))
                if 5 in attribute:
                    keep(output, attribute[5][0])
            if node[4][0] != b"Constant":
                self.steps.append((node[4][0].decode(), inputs, output, options))
        self.input, self.output = (fields(graph[number][0])[1][0].decode() for number in (11, 12))

    def forward(self, faces):
        maps = {self.input: faces}
        get = lambda name: maps[name] if name in maps else self.values[self.places[name]]
        for kind, inputs, output, options in self.steps:
            x = [get(name) for name in inputs]
            if kind == "Conv":
                pads = options["pads"]
                y = F.conv2d(x[0], x[1], x[2], options["strides"], pads[:2], options["dilations"], *options["group"])
            elif kind == "PRelu":
                y = F.prelu(x[0], x[1].flatten())
            elif kind == "Gemm":
                y = F.linear(x[0], x[1] if options.get("transB") == [1] else x[1].T, x[2])
            elif kind == "ReduceL2":
                y = x[0].float().norm(dim=1, keepdim=True)
            elif kind in ("Add", "Sub", "Div"):
                y = {"Add": torch.add, "Sub": torch.sub, "Div": torch.div}[kind](x[0], x[1])
            elif kind == "Flatten":
                y = x[0].flatten(1)
            else:
                raise SystemExit(f"a layer of kind {kind} is not understood")
            maps[output] = y
        return maps[self.output]


def teacher(path, device):
    """Unit rows [n, 512] of faces [n, 3, 112, 112] of pixels 0 to 255 and their mirror images together."""
    if device.type == "cpu":
        try:
            import openvino
        except ImportError:
            openvino = None
        if openvino:
            model = openvino.Core().compile_model(path, "CPU", {
                "INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False, "NUM_STREAMS": 1,
                "INFERENCE_PRECISION_HINT": "bf16"})
            network = lambda faces: torch.from_numpy(model(faces.contiguous().numpy())[0].copy())
        else:
            network = Onnx(path)
    else:
        half = Onnx(path).to(device).half().to(memory_format=torch.channels_last)
        network = lambda faces: half(faces.half().to(memory_format=torch.channels_last)).float()

    def ask(faces):
        # One batch size: an engine that plans for each size would plan again for every batch.
        size = 32 if device.type == "cpu" else len(faces)
        rows = []
        for part in faces.split(size):
            padded = F.pad(part, (0, 0, 0, 0, 0, 0, 0, size - len(part)))
            rows.append((network(padded) + network(padded.flip(3)))[:len(part)])
        return F.normalize(torch.cat(rows))
    return ask


class Lessons:
    """Faces and the teacher's row of each, in rounds."""

    def __init__(self, packs, ask, device, seed, shares):
        self.packs, self.ask, self.device, self.seed, self.shares = packs, ask, device, seed, shares
        self.faces, self.profiles = Faces(packs, device, 0.0, 0.7, seed), Profiles(device)

    def begin(self, *numbers):
        """Seeds the random numbers from these numbers alone."""
        state = np.random.SeedSequence((self.seed, *numbers)).generate_state(1, np.uint64)[0]
        self.faces.random.manual_seed(int(state >> 1))

    def order(self, first, count):
        """Numbers of `count` crops; every crop is taken once before any is taken again."""
        chosen = []
        while count:
            epoch, place = divmod(first, len(self.packs))
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.packs))[place:place + count]
            chosen.append(order)
            first, count = first + len(order), count - len(order)
        return torch.from_numpy(np.concatenate(chosen)).to(self.device)

    def pool(self, number, size, shares=None):
        """Faces [size, 3, 112, 112], rows of the teacher [size, 512] and kinds [size] of a round."""
        self.begin(0, number)
        shares = shares or self.shares
        turned = round(size * shares[2])
        mixed = round(size * shares[1])
        real = size - mixed - turned
        chosen = self.order(number * real, real)
        faces, rows = [self.packs[chosen]], [self.packs.rows[chosen].float()]
        part = 128 if self.device.type == "cpu" else 4096
        for start in range(0, mixed, part):
            made = self.faces.batch(min(part, mixed - start))
            faces.append(made.to(torch.uint8))
            rows.append(self.ask(made))
        for start in range(0, turned, part):
            chosen = torch.randint(len(self.packs), (min(part, turned - start),), generator=self.faces.random, device=self.device)
            made = self.profiles.draw(self.packs[chosen].float(), self.faces.random)[0].round()
            faces.append(made.to(torch.uint8))
            rows.append(F.normalize(self.ask(made) + self.packs.rows[chosen].float()))
        kinds = torch.cat([torch.full((count,), kind, device=self.device) for kind, count in enumerate((real, mixed, turned))])
        return torch.cat(faces), torch.cat(rows), kinds


def solved(network, lessons, count, size, autocast, kept, minutes):
    """A last layer that reproduces the teacher from the features before it, by ridge regression. The sums are saved
    to the file `kept` from time to time, so that this step can be resumed too."""
    features, wanted, device = network.fc5.in_features, lessons.packs.rows.shape[1], lessons.device
    last, network.fc5 = network.fc5, torch.nn.Identity()
    shapes = {"gram": (features, features), "product": (features, wanted), "sums": features, "targets": wanted,
              "middle": features}
    state = {name: torch.zeros(shape, device=device) for name, shape in shapes.items()} | {"rounds": 0}
    if os.path.exists(kept):
        state = torch.load(kept, map_location=device, weights_only=True)
    rounds, written = max(1, count // size), time.monotonic()
    with torch.no_grad():
        while state["rounds"] < rounds:
            faces, rows, _ = lessons.pool(state["rounds"], size, RIDGE_SHARES)
            lessons.begin(1, state["rounds"])
            lessons.faces.strength = 0.0
            x = []
            for part in faces.split(256):
                with autocast():
                    x.append(network(lessons.faces.seen(part.float()).to(memory_format=torch.channels_last)).float())
            x = torch.cat(x)
            # The mean of the first round is subtracted from all features, which keeps the sums of squares small.
            if state["rounds"] == 0:
                state["middle"] = x.mean(0)
            x -= state["middle"]
            state["gram"].addmm_(x.T, x)
            state["product"].addmm_(x.T, rows)
            state["sums"] += x.sum(0)
            state["targets"] += rows.sum(0)
            state["rounds"] += 1
            print(f"features of {state['rounds'] * size} faces", flush=True)
            if time.monotonic() - written > 60 * minutes:
                torch.save(state, kept + ".part")
                os.replace(kept + ".part", kept)
                written = time.monotonic()
        total, gram, product, sums, targets = rounds * size, *(state[name] for name in ("gram", "product", "sums", "targets"))
        gram.addr_(sums, sums, alpha=-1 / total)
        product.addr_(sums, targets, alpha=-1 / total)
        gram.diagonal().add_(RIDGE * gram.diagonal().mean())
        weight = torch.cholesky_solve(product.double(), torch.linalg.cholesky(gram.double())).float().T
        bias = targets / total - weight @ (state["middle"] + sums / total)
        scale = LAST_LAYER_SIZE / weight.square().mean().sqrt()
    network.fc5 = torch.nn.Linear(features, wanted).to(device)
    network.fc5.weight.data.copy_(weight * scale)
    network.fc5.bias.data.copy_(bias * scale)
    print(f"a last layer of {last.out_features} values became one of {wanted}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs="+")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--init", required=True, help="initial weights if DIR has no checkpoint")
    parser.add_argument("--depth", type=int, help="depth to extend them to")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--minutes", type=float, help="the rate falls to 0 over this time, then the run ends")
    parser.add_argument("--iterations", type=int, help="stop after this number")
    parser.add_argument("--rate", type=float, help="highest learning rate [1.5e-4, on a GPU 1e-3]")
    parser.add_argument("--warmup", type=int, default=300, help="iterations until it is reached")
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay per unit of the rate")
    parser.add_argument("--batch", type=int, help="[64, on a GPU 1024]")
    parser.add_argument("--pool", type=int, help="faces per round [4096, on a GPU the batch]")
    parser.add_argument("--passes", type=int, help="passes over each pool [3, on a GPU 1]")
    parser.add_argument("--mixed", type=float, default=0.35, help="share of mixed faces")
    parser.add_argument("--turned", type=float, default=0.25, help="share of turned faces")
    parser.add_argument("--ramp", type=float, default=500_000, help="faces until random changes reach full strength, from 0.4")
    parser.add_argument("--ridge", type=int, default=60_000, help="faces that a new last layer is solved from")
    parser.add_argument("--solve-only", action="store_true", help="write DIR/model.safetensors with that layer, and end")
    parser.add_argument("--checkpoint-minutes", type=float, default=8)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    device = torch.device(options.device)
    on_gpu = device.type == "cuda"
    rate = options.rate or (1e-3 if on_gpu else 1.5e-4)
    batch = options.batch or (1024 if on_gpu else 64)
    size = options.pool or (batch if on_gpu else 4096)
    passes = options.passes or (1 if on_gpu else 3)
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    autocast = lambda: torch.autocast(device.type, torch.bfloat16)
    os.makedirs(options.output, exist_ok=True)
    place = lambda name: os.path.join(options.output, name)

    packs = Packs(options.packs, device)
    print(f"{len(packs)} faces in {len(options.packs)} packs", flush=True)
    lessons = Lessons(packs, teacher(options.teacher, device), device, options.seed,
                      (1 - options.mixed - options.turned, options.mixed, options.turned))
    start = place("start.safetensors")
    network, metadata = student(start if os.path.exists(start) else options.init, options.depth)
    wanted = packs.rows.shape[1]
    metadata["embedding_size"] = str(wanted)
    network = network.to(device).to(memory_format=torch.channels_last)
    checkpoint = None
    if os.path.exists(place("checkpoint.pt")):
        checkpoint = torch.load(place("checkpoint.pt"), map_location="cpu", weights_only=True)
        network.fc5 = torch.nn.Linear(network.fc5.in_features, wanted).to(device)
        network.load_state_dict(checkpoint["network"])
    elif network.fc5.out_features != wanted:
        solved(network, lessons, options.ridge, size, autocast, place("solving.pt"), options.checkpoint_minutes)
        write(start, network, metadata)
        if os.path.exists(place("solving.pt")):
            os.remove(place("solving.pt"))
    if options.solve_only:
        write(place("model.safetensors"), network, metadata)
        return
    optimiser = torch.optim.AdamW(network.parameters(), 0.0, (0.9, 0.99), weight_decay=options.decay, fused=True)
    averaged = {name: value.detach().clone() for name, value in network.named_parameters()}
    iteration, samples = 0, 0
    if checkpoint:
        optimiser.load_state_dict(checkpoint["optimiser"])
        for name, value in checkpoint["averaged"].items():
            averaged[name].copy_(value)
        iteration, samples = checkpoint["iteration"], checkpoint["samples"]
        print(f"goes on after {iteration} iterations, {samples} faces", flush=True)
    run = torch.compile(network) if options.compile else network

    def save():
        state = {"network": network.state_dict(), "averaged": averaged, "optimiser": optimiser.state_dict(),
                 "iteration": iteration, "samples": samples, "packs": [os.path.basename(path) for path in options.packs]}
        torch.save(state, place("checkpoint.pt.part"))
        os.replace(place("checkpoint.pt.part"), place("checkpoint.pt"))
        for (name, value), mean in zip(network.named_parameters(), averaged.values()):
            value.data, mean.data = mean.data, value.data
        write(place("model.safetensors"), network, metadata)
        for (name, value), mean in zip(network.named_parameters(), averaged.values()):
            value.data, mean.data = mean.data, value.data

    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    log = open(place("log.jsonl"), "a")
    a_pass, pool_of, first = size // batch, None, iteration
    losses, counts = torch.zeros(3, device=device), torch.zeros(3, device=device)
    begun = shown = written = time.monotonic()
    since = samples
    while not stopped and iteration != options.iterations:
        passed = 0.0
        if options.minutes:
            # The first iteration, which selects the fastest algorithms, is not timed.
            passed = (time.monotonic() - begun) / (60 * options.minutes)
            if passed >= 1:
                break
        now_rate = rate * min(1.0, (iteration + 1) / options.warmup) * (1 + math.cos(math.pi * passed)) / 2
        round_, place_in = divmod(iteration, a_pass * passes)
        pass_, at = divmod(place_in, a_pass)
        with torch.no_grad():
            if pool_of != round_:
                pool, pool_of = lessons.pool(round_, size), round_
            # The same order for a whole pass.
            lessons.begin(2, round_, pass_)
            chosen = torch.randperm(size, generator=lessons.faces.random, device=device)[at * batch:(at + 1) * batch]
            faces, rows, kinds = (part[chosen] for part in pool)
            lessons.begin(3, iteration)
            lessons.faces.strength = 0.4 + 0.6 * min(1.0, samples / options.ramp)
            crops = lessons.faces.seen(faces.float()).to(memory_format=torch.channels_last)
        with autocast():
            features = run(crops)
        each = 1 - F.cosine_similarity(features.float(), rows)
        optimiser.zero_grad(set_to_none=True)
        each.mean().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in optimiser.param_groups:
            group["lr"] = now_rate
        optimiser.step()
        iteration, samples = iteration + 1, samples + len(faces)
        keep = min(AVERAGED, iteration / (10 + iteration))
        with torch.no_grad():
            torch._foreach_lerp_(list(averaged.values()), list(network.parameters()), 1 - keep)
            losses.index_add_(0, kinds, each.detach())
            counts.index_add_(0, kinds, torch.ones_like(each))
        if iteration == first + 1:
            if on_gpu:
                torch.cuda.synchronize()
            begun = time.monotonic()
        now = time.monotonic()
        if now - shown > (10 if on_gpu else 60):
            mean = (losses / counts.clamp(min=1)).tolist()
            line = {"iteration": iteration, "samples": samples, "seconds": round(now - begun, 1), "rate": now_rate,
                    "loss": round((losses.sum() / counts.sum()).item(), 5),
                    **{kind: round(value, 5) for kind, value in zip(KINDS, mean)},
                    "images_per_second": round((samples - since) / (now - shown), 1)}
            print(json.dumps(line), file=log, flush=True)
            print(line, flush=True)
            if not math.isfinite(line["loss"]):
                raise SystemExit("the loss is no number any more: try a lower --rate")
            losses.zero_()
            counts.zero_()
            shown, since = now, samples
        if now - written > 60 * (1 if on_gpu else options.checkpoint_minutes):
            save()
            written = time.monotonic()
    save()
    print(f"{iteration} iterations, {samples} faces", flush=True)


if __name__ == "__main__":
    main()
