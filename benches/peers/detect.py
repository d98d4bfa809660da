"""The face detector against facenet-pytorch's MTCNN, and its P-Net stage against OpenVINO.

One thread each, the same frame, rounds in turn, medians. Needs ffmpeg and the packages
facenet-pytorch 2.6.0 (pip install --no-deps) and openvino.

    cargo bench --bench detect --no-run      # prints the path of the program
    python benches/peers/detect.py PROGRAM CLIP [--rounds 21] [--min-face 40]

The P-Net figures of OpenVINO leave out resizing and what follows the network (boxes and their
suppression); ours include both.
"""

import argparse
import statistics
import subprocess
import tempfile
import time

import numpy
import openvino
import torch
from facenet_pytorch import MTCNN
from PIL import Image

SIZES = [(640, 360), (1280, 720), (1920, 1080)]
FACTOR = 0.709


class Ours:
    def __init__(self, program, image, min_face):
        command = [program, "serve", image, str(min_face)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, what):
        print(what, file=self.process.stdin, flush=True)
        time_ms, found = self.process.stdout.readline().split()
        return float(time_ms), int(found)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(function):
    start = time.perf_counter()
    result = function()
    return (time.perf_counter() - start) * 1e3, result


def pyramid(width, height, min_face):
    """Sizes of the pyramid's levels."""
    scale = 12 / min_face
    while min(width, height) * scale >= 12:
        yield int(height * scale + 1), int(width * scale + 1)
        scale *= FACTOR


def openvino_pnet(network, levels):
    """A function that runs every level once, on random pixels."""
    core = openvino.Core()
    requests = []
    for height, width in levels:
        model = openvino.convert_model(network, example_input=torch.zeros(1, 3, height, width))
        model.reshape([1, 3, height, width])
        hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        pixels = numpy.random.default_rng(0).uniform(-1, 1, (1, 3, height, width))
        request.set_input_tensor(openvino.Tensor(pixels.astype(numpy.float32)))
        requests.append(request)
    return lambda: [request.infer() for request in requests]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("clip")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--min-face", type=int, default=40)
    options = parser.parse_args()
    torch.set_num_threads(1)
    port = MTCNN(keep_all=True, min_face_size=options.min_face, device="cpu")
    print(f"smallest face {options.min_face} px, 1 thread, median of {options.rounds}, ms a frame")
    print("     frame   ours   port  ratio  faces   P-Net: ours  OpenVINO  ratio")
    for width, height in SIZES:
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            scale = f"scale={width}:{height}:flags=bicubic"
            command = ["ffmpeg", "-v", "error", "-y", "-i", options.clip, "-frames:v", "1", "-vf", scale]
            subprocess.run([*command, file.name], check=True)
            image = Image.open(file.name).convert("RGB")
            image.load()
            ours = Ours(options.program, file.name, options.min_face)
            peer = openvino_pnet(port.pnet, pyramid(width, height, options.min_face))
            times = {"ours": [], "port": [], "propose": [], "openvino": []}
            for turn in range(options.rounds + 2):
                with torch.no_grad():
                    port_ms, (boxes, _) = timed(lambda: port.detect(image))
                ours_ms, faces = ours.run("detect")
                openvino_ms, _ = timed(peer)
                propose_ms, _ = ours.run("propose")
                if turn >= 2:
                    for name, value in zip(times, [ours_ms, port_ms, propose_ms, openvino_ms]):
                        times[name].append(value)
            ours.close()
            median = {name: statistics.median(values) for name, values in times.items()}
            print(
                f"{width:5}x{height:<4} {median['ours']:6.1f} {median['port']:6.1f}"
                f" {median['port'] / median['ours']:5.1f}x {faces:3}/{0 if boxes is None else len(boxes)}"
                f"   {median['propose']:10.1f} {median['openvino']:9.1f}"
                f" {median['openvino'] / median['propose']:5.2f}x",
                flush=True,
            )


main()
