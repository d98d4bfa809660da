#!/usr/bin/env python3
"""How models/sphereface.safetensors was made: SphereFace-20 learns to answer as a teacher does.

    distill.py FACES TEACHER --init model.safetensors --minutes 120 -o student.safetensors

FACES is a folder with train.rec and train.idx (aligned 112x112 crops, RecordIO) and teacher.npy, the
teacher's unit embedding of each; TEACHER a folder with the teacher itself (mobilefacenet.param and
.bin, ncnn), which says who the person in a mixed picture is. Half of every batch are faces as they
are, half two aligned faces mixed: morphs, and two parts with a soft seam. That makes many more people
than there are in the data, and it is what a small data set lacks. `sphereface train` distils too
(--preset distill-small), in f32 and without the mixing, which needs the teacher itself.

Stops after --minutes, or on SIGTERM with its state in OUT.state: the same command goes on from there.
Needs torch, numpy, pillow and safetensors. The weights are plain afterwards (batch normalisation, which
only helps training, is folded into the convolutions); `sphereface models import OUT FILE --precision f16`
halves them.
"""
import argparse
import io
import math
import os
import signal
import struct
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

UNITS, CHANNELS, EMBEDDING = (1, 2, 4, 1), (32, 64, 128, 256), 128
PLAIN = torch.channels_last


class Student(nn.Module):
    """SphereFace-20 with batch normalisation after each convolution."""

    def __init__(self):
        super().__init__()
        inputs = 3
        for stage, (units, width) in enumerate(zip(UNITS, CHANNELS), 1):
            for k in range(1, 2 + 2 * units):
                convolution = nn.Conv2d(inputs if k == 1 else width, width, 3, 2 if k == 1 else 1, 1)
                self.add_module(f"conv{stage}_{k}", convolution)
                self.add_module(f"bn{stage}_{k}", nn.BatchNorm2d(width))
                self.add_module(f"relu{stage}_{k}", nn.PReLU(width))
            inputs = width
        self.fc5 = nn.Linear(CHANNELS[-1] * 7 * 6, EMBEDDING)

    def layers(self, stage, k):
        return (getattr(self, f"{kind}{stage}_{k}") for kind in ("conv", "bn", "relu"))

    def forward(self, x):
        def layer(stage, k, x):
            convolution, norm, prelu = self.layers(stage, k)
            return prelu(norm(convolution(x)))

        for stage, units in enumerate(UNITS, 1):
            x = layer(stage, 1, x)
            for unit in range(units):
                x = x + layer(stage, 3 + 2 * unit, layer(stage, 2 + 2 * unit, x))
        return self.fc5(x.contiguous().flatten(1))

    @torch.no_grad()
    def start_from(self, plain, crops):
        """Takes weights without normalisation: the statistics on `crops` make it the identity."""
        def layer(stage, k, x):
            convolution, norm, prelu = self.layers(stage, k)
            convolution.weight.copy_(plain[f"conv{stage}_{k}.weight"])
            convolution.bias.copy_(plain[f"conv{stage}_{k}.bias"])
            prelu.weight.copy_(plain[f"relu{stage}_{k}.weight"].flatten())
            y = convolution(x)
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3))
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(mean)
            return prelu(y)

        x = crops
        for stage, units in enumerate(UNITS, 1):
            x = layer(stage, 1, x)
            for unit in range(units):
                x = x + layer(stage, 3 + 2 * unit, layer(stage, 2 + 2 * unit, x))
        self.fc5.weight.copy_(plain["fc5.weight"])
        self.fc5.bias.copy_(plain["fc5.bias"])

    @torch.no_grad()
    def folded(self):
        """The weights with the normalisation folded into the convolutions."""
        tensors = {"fc5.weight": self.fc5.weight, "fc5.bias": self.fc5.bias}
        for stage, units in enumerate(UNITS, 1):
            for k in range(1, 2 + 2 * units):
                convolution, norm, prelu = self.layers(stage, k)
                scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
                tensors[f"conv{stage}_{k}.weight"] = convolution.weight * scale.view(-1, 1, 1, 1)
                tensors[f"conv{stage}_{k}.bias"] = (convolution.bias - norm.running_mean) * scale + norm.bias
                tensors[f"relu{stage}_{k}.weight"] = prelu.weight
        return {name: tensor.contiguous().float().clone() for name, tensor in tensors.items()}


class Teacher:
    """A network stored by ncnn: pixels 0 to 255 (RGB, 112x112) to embeddings. Reads what a
    MobileFaceNet is made of: values are float32, or float16 behind a tag."""

    def __init__(self, folder):
        with open(os.path.join(folder, "mobilefacenet.bin"), "rb") as file:
            self.data, self.at = file.read(), 0
        with open(os.path.join(folder, "mobilefacenet.param")) as file:
            rows = [line.split() for line in file.read().splitlines()[2:]]
        self.layers = []
        for kind, _, inputs, outputs, *rest in rows:
            inputs, outputs = int(inputs), int(outputs)
            names, settings = rest[: inputs + outputs], dict(one.split("=") for one in rest[inputs + outputs:])
            self.layers.append((kind, names[:inputs], names[inputs:], settings, self.weights(kind, settings)))
        if self.at != len(self.data):
            raise SystemExit(f"{folder}: {len(self.data) - self.at} bytes of weights are left over")

    def read(self, count, tagged=False):
        if tagged:
            (tag,) = struct.unpack_from("<I", self.data, self.at)
            self.at += 4
            if tag == 0x01306B47:
                values = np.frombuffer(self.data, np.float16, count, self.at).astype(np.float32)
                self.at += (2 * count + 3) // 4 * 4
                return torch.from_numpy(values)
            if tag:
                raise SystemExit(f"weights with the tag {tag:#x} cannot be read")
        values = np.frombuffer(self.data, np.float32, count, self.at).copy()
        self.at += 4 * count
        return torch.from_numpy(values)

    def weights(self, kind, settings):
        number = {key: int(value) for key, value in settings.items() if "." not in value}
        if kind in ("Convolution", "ConvolutionDepthWise"):
            size = number.get("1", 1)
            weight = self.read(number["6"], True).view(number["0"], -1, number.get("11", size), size)
            bias = self.read(number["0"]) if number.get("5") else None
            return weight, bias, number.get("3", 1), number.get("4", 0), number.get("7", 1)
        if kind == "BatchNorm":
            slope, mean, variance, bias = (self.read(number["0"]).view(1, -1, 1, 1) for _ in range(4))
            scale = slope / torch.sqrt(variance + float(settings.get("1", 0)))
            return scale, bias - mean * scale
        if kind == "PReLU":
            return self.read(number["0"])
        if kind == "InnerProduct":
            weight = self.read(number["2"], True).view(number["0"], -1)
            return weight, self.read(number["0"]) if number.get("1") else None
        return None

    @torch.no_grad()
    def __call__(self, pixels):
        values = {"data": pixels}
        for kind, inputs, outputs, settings, weights in self.layers:
            if kind == "Input":
                continue
            x = values[inputs[0]]
            if kind.startswith("Convolution"):
                weight, bias, stride, padding, groups = weights
                y = F.conv2d(x, weight, bias, stride, padding, 1, groups)
            elif kind == "BatchNorm":
                scale, shift = weights
                y = x * scale + shift if x.dim() == 4 else x * scale.flatten() + shift.flatten()
            elif kind == "PReLU":
                y = F.prelu(x, weights.to(x.dtype))
            elif kind == "InnerProduct":
                y = F.linear(x.flatten(1), *weights)
            elif kind == "BinaryOp":
                other = float(settings["2"]) if settings.get("1") == "1" else values[inputs[1]]
                y = (torch.add, torch.sub, torch.mul)[int(settings.get("0", 0))](x, other)
            elif kind in ("Flatten", "Reshape"):
                y = x.flatten(1)
            elif kind in ("Split", "Dropout"):
                y = x
            else:
                raise SystemExit(f"layers of the kind {kind} cannot be evaluated")
            values.update((name, y) for name in outputs)
        return F.normalize(y.float(), dim=1)


def read_faces(folder):
    """Every crop of a RecordIO pair, uint8 [n, 112, 112, 3], in the order of its index."""
    with open(os.path.join(folder, "train.idx")) as file:
        index = sorted(tuple(map(int, line.split())) for line in file)
    crops = []
    with open(os.path.join(folder, "train.rec"), "rb") as file:
        for number, offset in index:
            file.seek(offset)
            _, length = struct.unpack("<II", file.read(8))
            record = file.read(length & ((1 << 29) - 1))
            flag = struct.unpack_from("<I", record)[0]
            image = record[24 + 4 * flag:]
            if number > 0 and image[:2] == b"\xff\xd8":
                crops.append(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))
    return np.stack(crops)


def mixed(faces, others, rng):
    """Two aligned faces become a third, [n, 112, 112, 3]: a morph, or two parts with a soft seam."""
    across, down = torch.meshgrid(*2 * [torch.linspace(-1, 1, 112)], indexing="xy")
    weights = []
    for _ in faces:
        if rng.rand() < 0.5:
            weights.append(torch.full((112, 112), rng.uniform(0.25, 0.75)))
        else:
            turn, place, sharpness = rng.uniform(0, 2 * math.pi), rng.uniform(-0.4, 0.4), rng.uniform(2, 14)
            seam = across * math.cos(turn) + down * math.sin(turn) - place
            weights.append(torch.sigmoid(seam * sharpness))
    weight = torch.stack(weights).unsqueeze(3)
    return faces * weight + others * (1 - weight)


def varied(faces, rng):
    """Crops [n, 3, 112, 96] of faces [n, 112, 112, 3]: mirrored, turned, scaled, shifted, of lower
    resolution, grey, of other light, and partly hidden."""
    n = len(faces)

    def normal(*shape):
        return torch.randn(*shape).clamp(-2, 2)

    x = faces.permute(0, 3, 1, 2).contiguous(memory_format=PLAIN)
    angle, scale = normal(n) * math.radians(3), torch.exp(normal(n) * 0.035)
    mirror = torch.where(torch.rand(n) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    turn = torch.stack([torch.stack([cos * mirror, -sin], 1), torch.stack([sin * mirror, cos], 1)], 1)
    shift = torch.stack([normal(n), normal(n)], 1) * 1.2 / 56
    rows, columns = (torch.arange(112) + 0.5) / 56 - 1, (torch.arange(8, 104) + 0.5) / 56 - 1
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1).view(1, -1, 2)
    grid = (grid @ turn.transpose(1, 2) + shift[:, None]).view(n, 112, 96, 2)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    for i in np.flatnonzero(rng.rand(n) < 0.25):
        factor = rng.uniform(1.5, 5)
        small = F.interpolate(x[i: i + 1], (int(112 / factor), int(96 / factor)), mode="area")
        back = ("bilinear", "bicubic")[rng.randint(2)]
        x[i: i + 1] = F.interpolate(small, (112, 96), mode=back, align_corners=False)
    grey = torch.rand(n) < 0.1
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    x[grey] = (x[grey] * luma).sum(1, keepdim=True).expand(-1, 3, -1, -1)
    contrast, brightness = 1 + 0.2 * normal(n, 1, 1, 1), 18 * normal(n, 1, 1, 1)
    colour = 1 + 0.06 * torch.randn(n, 3, 1, 1)
    x = (((x - 127.5) * contrast + 127.5) * colour + brightness).clamp(0, 255)
    for i in np.flatnonzero(rng.rand(n) < 0.08):
        high, wide = rng.randint(15, 50), rng.randint(15, 50)
        top, left = rng.randint(0, 112 - high), rng.randint(0, 96 - wide)
        x[i, :, top: top + high, left: left + wide] = float(rng.randint(0, 256))
    return ((x - 127.5) / 128).contiguous(memory_format=PLAIN)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faces")
    parser.add_argument("teacher")
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("--init", required=True, help="weights of the same network to start from")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--rate", type=float, default=8e-4, help="learning rate at its largest")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--mixed", type=float, default=0.5, help="share of mixed faces")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    rng = np.random.RandomState(options.seed)

    faces = read_faces(options.faces)
    targets = np.load(os.path.join(options.faces, "teacher.npy")).astype(np.float32)
    if len(faces) != len(targets):
        raise SystemExit(f"{len(faces)} faces and {len(targets)} embeddings of them")
    targets = F.normalize(torch.from_numpy(targets), dim=1)
    teacher, student = Teacher(options.teacher), Student()
    optimiser = torch.optim.AdamW(
        [{"params": [p for p in student.parameters() if p.dim() > 1], "weight_decay": 0.02},
         {"params": [p for p in student.parameters() if p.dim() == 1], "weight_decay": 0}],
        lr=options.rate, betas=(0.9, 0.99))

    def some(ids):
        return torch.from_numpy(faces[ids]).float()

    state, spent, iteration, smooth = options.output + ".state", 0.0, 0, None
    if os.path.exists(state):
        saved = torch.load(state, weights_only=False)
        student.load_state_dict(saved["student"])
        optimiser.load_state_dict(saved["optimiser"])
        spent, iteration = saved["spent"], saved["iteration"]
    else:
        with safe_open(options.init, "pt") as file:
            plain = {key: file.get_tensor(key).float() for key in file.keys()}
        student.start_from(plain, varied(some(rng.choice(len(faces), 192, False)), rng))
    student = student.to(memory_format=PLAIN).train()

    def save():
        torch.save({"student": student.state_dict(), "optimiser": optimiser.state_dict(), "spent": spent,
                    "iteration": iteration}, state + ".part")
        os.replace(state + ".part", state)

    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    signal.signal(signal.SIGINT, lambda *_: stop.append(1))
    count, last_save = int(options.batch * options.mixed), time.time()
    order = rng.permutation(len(faces))
    while not stop and spent < 60 * options.minutes:
        start, progress = time.time(), spent / (60 * options.minutes)
        rate = options.rate * min(1, progress / 0.04 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimiser.param_groups:
            group["lr"] = rate
        if len(order) < options.batch:
            order = rng.permutation(len(faces))
        ids, order = order[: options.batch], order[options.batch:]
        with torch.autocast("cpu", torch.bfloat16):
            others = some(rng.choice(len(faces), count, False))
            flip = torch.rand(count) < 0.5
            others[flip] = others[flip].flip(2)
            third = mixed(some(ids[:count]), others, rng)
            target = teacher(third.permute(0, 3, 1, 2).contiguous(memory_format=PLAIN))
            answer = student(varied(torch.cat([third, some(ids[count:])]), rng))
        target = torch.cat([target, targets[ids[count:]]])
        loss = (1 - (F.normalize(answer.float(), dim=1) * target).sum(1)).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        iteration += 1
        smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
        spent += time.time() - start
        if iteration % 20 == 0:
            print(f"{iteration} iterations, {spent / 60:.1f} minutes: loss {smooth:.4f}, rate {rate:.2e}", flush=True)
        if time.time() - last_save > 240:
            save()
            last_save = time.time()
    save()
    if stop:
        print(f"stopped; the same command goes on from {state}")
        return

    student.eval()
    tensors = student.folded()
    # The mean embedding, of crop and mirror image, which verification subtracts.
    with torch.no_grad():
        total = torch.zeros(EMBEDDING)
        sample = np.sort(rng.choice(len(faces), min(3000, len(faces)), False))
        for ids in np.array_split(sample, 30):
            x = ((some(ids)[:, :, 8:104].permute(0, 3, 1, 2) - 127.5) / 128).contiguous(memory_format=PLAIN)
            total += (student(x) + student(x.flip(3))).sum(0) / 2
    tensors["mean"] = total / len(sample)
    save_file(tensors, options.output, metadata={
        "format": "sphereface", "architecture": "sphereface20", "channels": ",".join(map(str, CHANNELS)),
        "embedding_size": str(EMBEDDING), "input": "112x96", "channel_order": "RGB",
        "training": f"distillation, {iteration:,} iterations of {options.batch}, {spent / 60:.0f} minutes"})


if __name__ == "__main__":
    main()
