#!/usr/bin/env python3
r"""Trains on a GPU towards the teacher, on faces that are mixed during training, so that none is used twice.

    endless.py FACES TEACHER --init WEIGHTS --depth 36 --minutes 20 -o DIR
    mean.py FACES DIR/model0.safetensors -o student.safetensors

Combines mix.py and `sphereface train` with distill.toml, for a machine that is fast enough to mix faces and
to run the teacher during training: 9,700 faces per second for two networks on an H200. FACES and TEACHER are
the folders that mix.py takes. Each of WEIGHTS (one or several `--init`, each with its `--depth`) is trained
further, on the same faces. A `--depth` above its own adds residual units that begin as the identity. DIR gets
a file of weights for each, rewritten every minute, and a log. The rate falls with the remaining time rather
than with iterations, because the time on a shared machine is what is known. To resume a run that was stopped,
give its weights as `--init` and fewer minutes.

Needs torch, numpy, pillow and safetensors.
"""
import argparse
import concurrent.futures
import json
import math
import os
import struct
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from records import pixels, read_images

SIZE = 112
# As in mix.py.
KNOTS, BENT_PX = 5, 2.0
# As in distill.toml.
SHIFT_PX, ZOOM, TURN_DEG, CONTRAST, BRIGHTNESS, COLOUR = 2.5, 0.07, 6.0, 0.3, 30.0, 0.1
LOWER, GREY, ERASE = 0.25, 0.1, 0.08
UNITS = {20: (1, 2, 4, 1), 36: (2, 4, 8, 2)}
RESOLUTIONS = 64


class Teacher(torch.nn.Module):
    """A network in ncnn's files, with normalisations folded into the convolutions before them."""

    def __init__(self, folder):
        super().__init__()
        with open(os.path.join(folder, "mobilefacenet.bin"), "rb") as file:
            self.content, self.at = file.read(), 0
        with open(os.path.join(folder, "mobilefacenet.param")) as file:
            rows = [line.split() for line in file.read().splitlines()[2:]]
        self.steps, self.values = [], torch.nn.ParameterList()
        for kind, name, inputs, outputs, *rest in rows:
            inputs, outputs = int(inputs), int(outputs)
            tops, arguments = rest[inputs:inputs + outputs], rest[inputs + outputs:]
            numbers = dict(argument.split("=") for argument in arguments)
            self.add(kind, rest[:inputs], tops, {int(key): float(value) for key, value in numbers.items()})
        if self.at != len(self.content):
            raise SystemExit(f"{folder}: {len(self.content) - self.at} bytes of the teacher are left over")

    def read(self, count):
        values = np.frombuffer(self.content, "<f4", count, self.at)
        self.at += 4 * count
        return torch.from_numpy(values.copy())

    def read_weight(self, count):
        (kind,) = struct.unpack_from("<I", self.content, self.at)
        if kind:
            raise SystemExit(f"weights of kind {kind:#x} are not understood")
        self.at += 4
        return self.read(count)

    def add(self, kind, bottoms, tops, numbers):
        count = int(numbers.get(0, 0))
        if kind in ("Convolution", "ConvolutionDepthWise", "InnerProduct"):
            groups, side = int(numbers.get(7, 1)), int(numbers.get(1, 1))
            if kind == "InnerProduct":
                weight = self.read_weight(int(numbers[2])).reshape(count, -1)
                bias, options = self.read(count) if side else torch.zeros(count), None
            else:
                weight = self.read_weight(int(numbers[6])).reshape(count, -1, side, side)
                bias = self.read(count) if numbers.get(5) else torch.zeros(count)
                options = (int(numbers.get(3, 1)), int(numbers.get(4, 0)), 1, groups)
            self.values += [weight, bias]
            self.steps.append(["conv", bottoms, tops[0], len(self.values) - 2, options])
        elif kind == "BatchNorm":
            slope, mean, variance, bias = (self.read(count) for _ in range(4))
            scale = slope / (variance + numbers.get(1, 0.0)).sqrt()
            last = self.steps[-1]
            weight, before = self.values[last[3]], self.values[last[3] + 1]
            weight.data *= scale.reshape(-1, *[1] * (weight.dim() - 1))
            before.data = (before.data - mean) * scale + bias
            last[2] = tops[0]
        elif kind == "PReLU":
            self.values.append(self.read(count))
            self.steps.append(["prelu", bottoms, tops[0], len(self.values) - 1, None])
        elif kind == "BinaryOp" and numbers.get(1):
            # Scales the pixels: forward() takes them unscaled.
            self.steps.append([{1: "minus", 2: "times"}[count], bottoms, tops[0], numbers[2], None])
        elif kind == "BinaryOp" and count == 0:
            self.steps.append(["plus", bottoms, tops[0], None, None])
        elif kind == "Split":
            self.steps += [["same", bottoms, top, None, None] for top in tops]
        elif kind != "Input":
            raise SystemExit(f"a layer of kind {kind} is not understood")

    def forward(self, x):
        """Features [n, 128] of faces [n, 3, 112, 112], pixels 0 to 255."""
        maps, left = {"data": x}, {}
        for _, bottoms, *_ in self.steps:
            for name in bottoms:
                left[name] = left.get(name, 0) + 1
        for what, bottoms, top, place, options in self.steps:
            x = [maps[name] for name in bottoms]
            if what == "conv" and options is None:
                y = F.linear(x[0].flatten(1), self.values[place], self.values[place + 1])
            elif what == "conv":
                y = F.conv2d(x[0], self.values[place], self.values[place + 1], options[0], options[1], *options[2:])
            elif what == "prelu":
                y = F.prelu(x[0], self.values[place])
            elif what == "plus":
                y = x[0] + x[1]
            else:
                y = x[0] - place if what == "minus" else x[0] * place if what == "times" else x[0]
            maps[top] = y
            for name in bottoms:
                left[name] -= 1
                if left[name] == 0:
                    del maps[name]
        return y

    def embedding(self, faces):
        """Unit embeddings of faces and their mirror images together."""
        both = self(torch.cat([faces, faces.flip(3)])).float()
        one, other = both.chunk(2)
        return F.normalize(one + other)


class Student(torch.nn.Module):
    """A SphereFace network of the depth of `units`, its parameters named as in our files."""

    def __init__(self, units, channels, embedding):
        super().__init__()
        self.units = units
        inputs = 3
        for stage, (count, outputs) in enumerate(zip(units, channels), 1):
            for index in range(1, 2 + 2 * count):
                self.add_module(f"conv{stage}_{index}",
                                torch.nn.Conv2d(inputs, outputs, 3, 2 if index == 1 else 1, 1))
                self.add_module(f"relu{stage}_{index}", torch.nn.PReLU(outputs))
                inputs = outputs
        self.fc5 = torch.nn.Linear(inputs * 7 * 6, embedding)

    def layer(self, name, x):
        return getattr(self, "relu" + name)(getattr(self, "conv" + name)(x))

    def forward(self, x):
        for stage, units in enumerate(self.units, 1):
            x = self.layer(f"{stage}_1", x)
            for unit in range(units):
                inner = self.layer(f"{stage}_{2 + 2 * unit}", x)
                x = x + self.layer(f"{stage}_{3 + 2 * unit}", inner)
        return self.fc5(x.flatten(1))


def student(path, depth=None):
    """The network of a file of ours, extended to `depth`, and the metadata of the file."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    values = {name: value.float() for name, value in load_file(path).items() if name != "mean"}
    first = int(metadata["architecture"].removeprefix("sphereface"))
    depth = depth or first
    channels = [int(n) for n in metadata["channels"].split(",")]
    network = Student(UNITS[depth], channels, int(metadata["embedding_size"]))
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name in values:
                parameter.copy_(values[name].reshape(parameter.shape))
            else:
                # A new unit adds nothing at first: its second convolution is zero.
                second = int(name.split("_")[1].split(".")[0]) % 2 == 1
                if name.startswith("relu"):
                    parameter.fill_(0.25)
                elif second or name.endswith("bias"):
                    parameter.zero_()
                else:
                    torch.nn.init.kaiming_normal_(parameter, 0.25)
    # The rest of the metadata describes the old weights only.
    kept = ("format", "channels", "embedding_size", "input", "channel_order")
    return network, {**{key: metadata[key] for key in kept}, "architecture": f"sphereface{depth}"}


def resolutions(size):
    """Matrices [RESOLUTIONS + 1, size, size] that reduce the resolution of a line of pixels by factors of
    1.5 to 5; the last is the identity."""
    def triangle(to, of):
        scale = max(of / to, 1.0)
        centres = (np.arange(to) + 0.5) * of / to
        weights = np.maximum(0, 1 - np.abs(np.arange(of) + 0.5 - centres[:, None]) / scale)
        return weights / weights.sum(1, keepdims=True)

    lines = []
    for step in range(RESOLUTIONS):
        small = round(size / (1.5 + 3.5 * step / (RESOLUTIONS - 1)))
        lines.append(triangle(size, small) @ triangle(small, size))
    return np.stack([*lines, np.eye(size)]).astype(np.float32)


class Faces:
    """Batches of faces, some unchanged and most mixed, and the crops of them that a student sees."""

    def __init__(self, images, device, real, warped, seed):
        self.images, self.device, self.real, self.warped = images, device, real, warped
        # Strength of the random changes of the student's crops; 1 is as in distill.toml.
        self.strength = 1.0
        self.random = torch.Generator(device).manual_seed(seed)
        self.down = torch.from_numpy(resolutions(SIZE)).to(device)
        self.across = torch.from_numpy(resolutions(SIZE - 16)).to(device)
        line = torch.arange(SIZE, device=device, dtype=torch.float32) - (SIZE - 1) / 2
        self.y, self.x = torch.meshgrid(line, line, indexing="ij")

    def uniform(self, count, low=0.0, high=1.0):
        return low + (high - low) * torch.rand(count, generator=self.random, device=self.device)

    def normal(self, *shape):
        return torch.randn(*shape, generator=self.random, device=self.device)

    def sampled(self, faces, x, y):
        """The faces sampled at places in pixels from the middle [n, rows, columns]; the border is repeated outside."""
        grid = torch.stack([x, y], 3) / ((SIZE - 1) / 2)
        return F.grid_sample(faces, grid, padding_mode="border", align_corners=True)

    def batch(self, count):
        """Faces [count, 3, 112, 112], whole numbers from 0 to 255."""
        one, other = (
            self.images[torch.randint(len(self.images), (count,), generator=self.random, device=self.device)].float()
            for _ in range(2)
        )
        view = lambda values: values[:, None, None]
        other = torch.where(view(self.uniform(count) < 0.5)[:, None], other.flip(3), other)
        turn, place = self.uniform(count, 0, 2 * math.pi), self.uniform(count, -0.4, 0.4)
        half = (SIZE - 1) / 2
        seam = self.x / half * view(turn.cos()) + self.y / half * view(turn.sin()) - view(place)
        seam = torch.sigmoid(-seam * view(self.uniform(count, 2, 14)))
        weight = torch.where(view(self.uniform(count) < 0.5), view(self.uniform(count, 0.25, 0.75)), seam)
        alone = self.uniform(count) < self.real
        weight = torch.where(view(alone), 1.0, weight)[:, None]
        faces = one * weight + other * (1 - weight)
        # Other proportions: longer or wider, and bent a little everywhere, almost symmetrically.
        bent = view(((self.uniform(count) < self.warped) & ~alone).float())
        longer = view((0.06 * self.normal(count)).exp())
        places = []
        for line, scale, side in ((self.y, longer, 1), (self.x, 1 / longer, -1)):
            knots = BENT_PX * self.normal(count, 1, KNOTS, KNOTS)
            knots = 0.65 * (knots + side * knots.flip(3)) + 0.3 * BENT_PX * self.normal(count, 1, KNOTS, KNOTS)
            shifts = F.interpolate(knots, (SIZE, SIZE), mode="bicubic", align_corners=False)[:, 0]
            places.append(line + bent * (line * scale + shifts - line))
        return self.sampled(faces, places[1], places[0]).round_().clamp_(0, 255)

    def seen(self, faces):
        """Crops [count, 3, 112, 96] as the network takes them, changed as src/train/augment.rs does."""
        count = len(faces)
        view = lambda values: values[:, None, None]
        about = lambda most: self.strength * self.uniform(count, -most, most)
        rare = lambda share: self.uniform(count) < self.strength * share
        turn, zoom = about(TURN_DEG * math.pi / 180), 1 + about(ZOOM)
        sine, cosine = view(turn.sin() / zoom), view(turn.cos() / zoom)
        x, y = self.x[None, :, 8:-8], self.y[None, :, 8:-8]
        shift_x, shift_y = view(about(SHIFT_PX)), view(about(SHIFT_PX))
        crops = self.sampled(faces, cosine * x - sine * y + shift_x, sine * x + cosine * y + shift_y)
        lower = rare(LOWER)
        which = torch.where(lower, (self.uniform(count) * RESOLUTIONS).long(), RESOLUTIONS)
        crops = self.down[which][:, None] @ crops @ self.across[which].transpose(1, 2)[:, None]
        view = lambda values: values[:, None, None, None]
        shade = crops.new_tensor([0.299, 0.587, 0.114])[:, None, None]
        grey = view(rare(GREY))
        crops = torch.where(grey, (crops * shade).sum(1, keepdim=True), crops)
        colours = 1 + self.strength * self.uniform(3 * count, -COLOUR, COLOUR).reshape(count, 3, 1, 1)
        crops = ((crops - 127.5) * view(1 + about(CONTRAST)) + 127.5) * colours + view(about(BRIGHTNESS))
        crops = crops.round_().clamp_(0, 255)
        wide, high = (self.uniform(count, 12, 48).floor() for _ in range(2))
        left, top = (self.uniform(count) * (96 - wide)).floor(), (self.uniform(count) * (SIZE - high)).floor()
        columns, rows = (torch.arange(n, device=self.device) for n in (96, SIZE))
        inside = lambda line, at, long: (line >= at[:, None]) & (line < (at + long)[:, None])
        hole = inside(rows, top, high)[:, :, None] & inside(columns, left, wide)[:, None]
        hole &= rare(ERASE)[:, None, None]
        crops = torch.where(hole[:, None], view((self.uniform(count) * 256).floor()), crops)
        crops = torch.where(view(self.uniform(count) < 0.5), crops.flip(3), crops)
        return (crops - 127.5) / 128


def write(path, network, metadata):
    """Writes weights as a file of ours, which is complete at any time."""
    values = {name: value.detach().contiguous().cpu() for name, value in network.named_parameters()}
    save_file(values, path + ".part", metadata)
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("teacher")
    parser.add_argument("--init", action="append", required=True, help="initial weights")
    parser.add_argument("--depth", type=int, action="append", choices=UNITS, help="depth to extend them to")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=1e-3, help="highest learning rate")
    parser.add_argument("--warmup", type=int, default=300, help="iterations until it is reached")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--decay", type=float, default=0.02, help="weight decay per unit of the rate")
    parser.add_argument("--real", type=float, default=0.25, help="share of faces that are not mixed")
    parser.add_argument("--warped", type=float, default=0.7, help="share of the mixed with other proportions")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    depths = options.depth or [None] * len(options.init)
    if len(depths) != len(options.init):
        parser.error("give each --init a --depth, or none of them")

    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    device = torch.device(options.device)
    os.makedirs(options.output, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        images = np.stack(list(pool.map(lambda image: pixels(image).astype(np.uint8), read_images(options.faces))))
    images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
    print(f"{len(images)} faces", flush=True)
    faces = Faces(images, device, options.real, options.warped, options.seed)
    channels_last = dict(memory_format=torch.channels_last)
    teacher = Teacher(options.teacher).to(device).requires_grad_(False).half().to(**channels_last)
    students = []
    for number, (init, depth) in enumerate(zip(options.init, depths)):
        network, metadata = student(init, depth)
        network = network.to(device).to(**channels_last)
        optimiser = torch.optim.AdamW(network.parameters(), 0.0, (0.9, 0.99), weight_decay=options.decay, fused=True)
        students.append((os.path.join(options.output, f"model{number}.safetensors"), network, optimiser, metadata))

    log = open(os.path.join(options.output, "log.jsonl"), "a")
    iteration, seconds = 0, 60 * options.minutes
    # The first iteration selects the fastest algorithms; it is not timed.
    start = shown = written = None
    sums, since = torch.zeros(len(students), device=device), 0
    while start is None or time.monotonic() - start < seconds:
        passed = 0.0 if start is None else (time.monotonic() - start) / seconds
        rate = options.rate * min(1.0, (iteration + 1) / options.warmup) * (1 + math.cos(math.pi * passed)) / 2
        with torch.no_grad():
            batch = faces.batch(options.batch)
            targets = teacher.embedding(batch.half().to(**channels_last))
            crops = faces.seen(batch).to(**channels_last)
        for number, (_, network, optimiser, _) in enumerate(students):
            with torch.autocast(device.type, torch.bfloat16):
                features = network(crops)
            loss = (1 - F.cosine_similarity(features.float(), targets)).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            for group in optimiser.param_groups:
                group["lr"] = rate
            optimiser.step()
            sums[number] += loss.detach()
        iteration, since = iteration + 1, since + 1
        if start is None:
            if device.type == "cuda":
                torch.cuda.synchronize()
            start = shown = written = time.monotonic()
        elif time.monotonic() - shown > 10:
            losses, now = (sums / since).tolist(), time.monotonic()
            line = {"iteration": iteration, "seconds": round(now - start, 1), "rate": rate, "losses": losses,
                    "images_per_second": round(since * options.batch / (now - shown))}
            print(json.dumps(line), file=log, flush=True)
            print(line, flush=True)
            if not all(map(math.isfinite, losses)):
                raise SystemExit("the loss is no number any more: try a lower --rate")
            sums.zero_()
            since, shown = 0, now
            if now - written > 60:
                written = now
                for path, network, _, metadata in students:
                    write(path, network, metadata)
    for path, network, _, metadata in students:
        write(path, network, metadata)
    print(f"{iteration} iterations of {options.batch} faces, {options.minutes} minutes", flush=True)


if __name__ == "__main__":
    main()
