"""Compares SphereFace-20, or a network from an ONNX file, with PyTorch, ONNX Runtime and OpenVINO: same
network, same weights, same input, same number of threads, in turns. Prints medians of the milliseconds per face
and of the ratios of each turn, and in brackets the milliseconds of the lowest tenth of all turns and the ratio of these: on a
CPU with AMX, other users of the machine share the tile unit, which the test for quiet cores does not show."""

import argparse
import os
import statistics
import subprocess
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--batches", default="1,4,16")
parser.add_argument("--precision", choices=["f32", "bf16", "auto"], default="f32",
                    help="bf16: ours, OpenVINO and PyTorch in bfloat16, on a CPU that has it; auto: each program as it "
                         "comes, with the arithmetic that it chooses itself")
parser.add_argument("--peers", help="default: openvino,ort,torch; in bf16 openvino,torch")
parser.add_argument("--network", metavar="FILE.onnx",
                    help="another network than SphereFace-20: one that takes any number of 112x112 pictures, RGB, 0 to 255")
options = parser.parse_args()
bf16, auto = options.precision == "bf16", options.precision == "auto"
default = "openvino,ort" if options.network else "openvino,torch" if bf16 else "openvino,ort,torch"
names = (options.peers or default).split(",")
if options.network and (bf16 or "torch" in names):
    parser.error("a network from a file is compared with openvino and ort, in f32")
if bf16 and "ort" in names:
    parser.error("ONNX Runtime has no bfloat16 on the CPU")
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import numpy as np  # noqa: E402

import network  # noqa: E402
from ours import Cores, Ours, timed  # noqa: E402

# Threads of some libraries spin for a while after their work is done, and would take a core
# from the next program.
PAUSE_S = 0.1

weights = network.random_weights()
faces = network.pixels(network.random_crops(16))
if options.network:
    # Our crops have no padding at the sides: the first and the last pixel of a row are repeated.
    square = np.pad(network.random_crops(16), ((0, 0), (0, 0), (8, 8), (0, 0)), mode="edge")
    faces = np.ascontiguousarray(square.transpose(0, 3, 1, 2), dtype=np.float32)


def onnx_network(batch):
    """The model as the other programs read it: the name of a file, or its bytes."""
    return options.network or network.onnx_network(weights, batch)


def torch_peer():
    import torch

    torch.set_num_threads(options.threads)
    run = network.torch_network(weights, torch.bfloat16 if bf16 else torch.float32)
    return lambda batch: run(faces[:batch])


def ort_peer():
    import onnxruntime

    sessions = {}

    def run(batch):
        if batch not in sessions:
            settings = onnxruntime.SessionOptions()
            settings.intra_op_num_threads = options.threads
            settings.inter_op_num_threads = 1
            sessions[batch] = onnxruntime.InferenceSession(
                onnx_network(batch), settings, providers=["CPUExecutionProvider"])
        name = sessions[batch].get_inputs()[0].name
        return sessions[batch].run(None, {name: faces[:batch]})[0]

    return run


def openvino_peer():
    import openvino

    core, requests = openvino.Core(), {}
    settings = {"INFERENCE_NUM_THREADS": options.threads, "NUM_STREAMS": "1", "PERFORMANCE_HINT": "LATENCY"}
    if not auto:
        settings["INFERENCE_PRECISION_HINT"] = options.precision

    def run(batch):
        if batch not in requests:
            model = core.read_model(options.network) if options.network else core.read_model(onnx_network(batch), b"")
            model.reshape(faces[:batch].shape)
            compiled = core.compile_model(model, "CPU", settings)
            if auto and not requests:
                print(f"openvino chooses {compiled.get_property('INFERENCE_PRECISION_HINT').get_type_name()}")
            requests[batch] = compiled.create_infer_request()
        return list(requests[batch].infer({0: faces[:batch]}).values())[0]

    return run


makers = {"torch": torch_peer, "ort": ort_peer, "openvino": openvino_peer}
peers = {name: makers[name]() for name in names}
with tempfile.TemporaryDirectory() as folder:
    model = f"{folder}/network.safetensors"
    if options.network:
        subprocess.run([options.program, "models", "import", options.network, model], check=True)
    else:
        network.save(weights, model)
    ours = Ours(options.program, "--model", model, "--threads", options.threads,
                "--precision", options.precision)
    expected = np.array(ours.ask("feature")["feature"])
for name, run in peers.items():
    found = run(1)[0].astype(np.float64)
    cosine = found @ expected / np.linalg.norm(found) / np.linalg.norm(expected)
    print(f"{name}: 1 - cos = {1 - cosine:.1e}")

# Medians of the undisturbed turns, if there are enough of them.
ENOUGH = 3
cores = Cores(ours, options.threads)
print(f"{options.network or 'SphereFace-20'}, {options.precision}, {options.threads} threads, {options.rounds} rounds: median ms a face, ratio to ours")
for batch in map(int, options.batches.split(",")):
    turns = []
    # The shortest of a few calls in a row: the caches are cold after another program ran.
    repeat = max(2, 12 // batch)
    for round in range(options.rounds + 2):
        time.sleep(PAUSE_S)
        before = cores.look()
        turn = {"ours": min(ours.ask(f"embed {batch}")["time_ms"] for _ in range(repeat)) / batch}
        for name, run in peers.items():
            time.sleep(PAUSE_S)
            turn[name] = min(timed(lambda: run(batch))[0] for _ in range(repeat)) / batch
        time.sleep(PAUSE_S)
        after = cores.look()
        if round >= 2:
            turns.append((turn, before and after))
    quiet = [turn for turn, quiet in turns if quiet]
    chosen = quiet if len(quiet) >= ENOUGH else [turn for turn, _ in turns]
    print(f"batch {batch:2}:", end="")
    for name in turns[0][0]:
        ratio = statistics.median(turn[name] / turn["ours"] for turn in chosen)
        time_ms = statistics.median(turn[name] for turn in chosen)
        low, low_ours = (sorted(turn[which] for turn, _ in turns)[len(turns) // 10] for which in (name, "ours"))
        ratios = [f" x{ratio:.2f}", f" x{low / low_ours:.2f}"] if name != "ours" else ["", ""]
        print(f"  {name} {time_ms:.2f}{ratios[0]} ({low:.2f}{ratios[1]})", end="")
    print(f"  (of {len(chosen)} turns of {len(turns)})", flush=True)
print(cores)
ours.close()
