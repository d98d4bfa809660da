#!/usr/bin/env python3
"""SphereFace-20 against PyTorch, ONNX Runtime and OpenVINO: same network, same weights, same
input, same threads, in turns; medians of milliseconds a face and of the ratios of each turn.

    cargo bench --bench embed --no-run
    python benches/peers/embed.py target/release/deps/embed-*  [--threads 1] [--rounds 15]

Needs: pip install torch onnx onnxruntime openvino numpy. Run it on an idle machine.
"""
import argparse
import json
import math
import os
import statistics
import subprocess
import time

parser = argparse.ArgumentParser()
parser.add_argument("program")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--batches", default="1,4,16")
parser.add_argument("--peers", default="torch,ort,openvino")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)

import numpy as np  # noqa: E402

UNITS, CHANNELS, EMBEDDING = [1, 2, 4, 1], [64, 128, 256, 512], 512


def numbers(first, count):
    """splitmix64 in [-1, 1), as in benches/embed.rs."""
    with np.errstate(over="ignore"):
        z = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


weights, layers, drawn = {}, [], 0


def draw(name, shape):
    global drawn
    count, fan_in = math.prod(shape), math.prod(shape[1:])
    offset, scale = (0.25, 0.2) if name.startswith("relu") else (0.0, 0.1)
    if not name.startswith("relu") and not name.endswith("bias"):
        scale = math.sqrt(2 / fan_in)
    weights[name] = (np.float32(offset) + np.float32(scale) * numbers(drawn, count)).reshape(shape)
    drawn += count


inputs = 3
for stage, (units, channels) in enumerate(zip(UNITS, CHANNELS), 1):
    for index in range(1, 2 + 2 * units):
        name = f"{stage}_{index}"
        draw(f"conv{name}.weight", [channels, inputs, 3, 3])
        draw(f"conv{name}.bias", [channels])
        draw(f"relu{name}.weight", [channels])
        layers.append((name, 2 if index == 1 else 1, index > 1 and index % 2 == 1))
        inputs = channels
draw("fc5.weight", [EMBEDDING, CHANNELS[3] * 7 * 6])
draw("fc5.bias", [EMBEDDING])

size = 112 * 96 * 3
byte = np.floor((numbers(0, 16 * size) + np.float32(1)) * np.float32(128)).astype(np.float32)
faces = ((byte.reshape(16, 112, 96, 3) - 127.5) / 128).transpose(0, 3, 1, 2).astype(np.float32).copy()


def onnx_model(batch):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, x, outer = [], "input", None
    for name, stride, last in layers:
        if not last:
            outer = x
        nodes.append(helper.make_node(
            "Conv", [x, f"conv{name}.weight", f"conv{name}.bias"], [f"conv{name}"],
            kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("PRelu", [f"conv{name}", f"relu{name}.weight"], [f"relu{name}"]))
        x = f"relu{name}"
        if last:
            nodes.append(helper.make_node("Add", [outer, x], [f"sum{name}"]))
            x = f"sum{name}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc5.weight", "fc5.bias"], ["output"], transB=1))
    tensors = [numpy_helper.from_array(v.reshape(-1, 1, 1) if k.startswith("relu") else v, k)
               for k, v in weights.items()]
    graph = helper.make_graph(
        nodes, "sphereface20",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 112, 96])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, EMBEDDING])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()


def torch_peer():
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(args.threads)
    w = {k: torch.from_numpy(v) for k, v in weights.items()}

    def run(batch):
        with torch.inference_mode():
            x = torch.from_numpy(faces[:batch])
            for name, stride, last in layers:
                if not last:
                    outer = x
                x = F.prelu(F.conv2d(x, w[f"conv{name}.weight"], w[f"conv{name}.bias"], stride, 1),
                            w[f"relu{name}.weight"])
                if last:
                    x = x + outer
            return F.linear(x.flatten(1), w["fc5.weight"], w["fc5.bias"]).numpy()

    return run


def ort_peer():
    import onnxruntime

    sessions = {}

    def run(batch):
        if batch not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = args.threads
            options.inter_op_num_threads = 1
            sessions[batch] = onnxruntime.InferenceSession(
                onnx_model(batch), options, providers=["CPUExecutionProvider"])
        return sessions[batch].run(None, {"input": faces[:batch]})[0]

    return run


def openvino_peer():
    import openvino

    core, requests = openvino.Core(), {}

    def run(batch):
        if batch not in requests:
            model = core.read_model(onnx_model(batch), b"")
            requests[batch] = core.compile_model(model, "CPU", {
                "INFERENCE_NUM_THREADS": args.threads, "NUM_STREAMS": "1",
                "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}).create_infer_request()
        return list(requests[batch].infer({0: faces[:batch]}).values())[0]

    return run


class Ours:
    def __init__(self):
        self.process = subprocess.Popen(
            [args.program, "--serve", "--threads", str(args.threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


makers = {"torch": torch_peer, "ort": ort_peer, "openvino": openvino_peer}
ours, peers = Ours(), {name: makers[name]() for name in args.peers.split(",")}
expected = np.array(ours.ask("features"))
for name, run in peers.items():
    found = run(1)[0].astype(np.float64)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    print(f"{name}: 1 - cos = {1 - cosine:.1e}")

print(f"{args.threads} threads, {args.rounds} rounds: median (least) ms a face, ratio to ours")
for batch in map(int, args.batches.split(",")):
    times = {name: [] for name in ["ours", *peers]}
    for round in range(args.rounds + 2):
        repeat = max(1, 4 // batch)
        turn = {"ours": min(ours.ask(batch) for _ in range(repeat)) / batch}
        for name, run in peers.items():
            best = math.inf
            for _ in range(repeat):
                start = time.perf_counter()
                run(batch)
                best = min(best, time.perf_counter() - start)
            turn[name] = best * 1e3 / batch
        if round >= 2:
            for name, value in turn.items():
                times[name].append(value)
    print(f"batch {batch:2}:", end="")
    for name, values in times.items():
        ratio = statistics.median(b / a for a, b in zip(times["ours"], values))
        print(f"  {name} {statistics.median(values):.2f} ({min(values):.2f}) x{ratio:.2f}", end="")
    print(flush=True)
