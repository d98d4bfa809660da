"""Compares the face detector with facenet-pytorch's MTCNN, and its P-Net stage with OpenVINO: same
frames, same number of threads, in turns. Prints medians of the milliseconds per frame and of the ratios of each
turn. OpenVINO's first figure is for the networks alone, the second includes resizing by OpenCV. Ours
includes resizing and the steps after the network (boxes and their suppression)."""

import argparse
import os
import statistics
import subprocess
import tempfile
import warnings

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("video", help="its first frame is used, enlarged")
parser.add_argument("--threads", type=int, default=1)
parser.add_argument("--rounds", type=int, default=15)
parser.add_argument("--min-face", type=int, default=40)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import cv2  # noqa: E402
import numpy  # noqa: E402
import openvino  # noqa: E402
import torch  # noqa: E402
from facenet_pytorch import MTCNN  # noqa: E402
from PIL import Image  # noqa: E402

from ours import Ours, timed  # noqa: E402

SIZES = [(640, 360), (1280, 720), (1920, 1080)]
FACTOR = 0.709


def pyramid(width, height):
    """Sizes of the pyramid's levels."""
    scale = 12 / options.min_face
    while min(width, height) * scale >= 12:
        yield int(height * scale + 1), int(width * scale + 1)
        scale *= FACTOR


def openvino_pnet(network, levels, image):
    """Two functions that run every level once: on random pixels, and on the image resized to the level."""
    core = openvino.Core()
    requests = []
    for height, width in levels:
        model = openvino.convert_model(network, example_input=torch.zeros(1, 3, height, width))
        model.reshape([1, 3, height, width])
        hints = {"INFERENCE_NUM_THREADS": options.threads, "NUM_STREAMS": 1,
                 "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        pixels = numpy.random.default_rng(0).uniform(-1, 1, (1, 3, height, width))
        request.set_input_tensor(openvino.Tensor(pixels.astype(numpy.float32)))
        requests.append(request)
    image = numpy.asarray(image)

    def resized():
        for (height, width), request in zip(levels, requests):
            level = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
            pixels = (level.transpose(2, 0, 1)[None].astype(numpy.float32) - 127.5) * 0.0078125
            request.infer({0: pixels}, share_inputs=True)

    return lambda: [request.infer() for request in requests], resized


def same(faces, boxes):
    """Whether each face has a box of the other that covers nearly the same."""
    def overlap(a, b):
        sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
        both = max(sides[0], 0) * max(sides[1], 0)
        return both / sum((c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)) * 2

    ours = [[face["bbox"][side] for side in ("x1", "y1", "x2", "y2")] for face in faces]
    theirs = [] if boxes is None else boxes.tolist()
    return len(ours) == len(theirs) and all(any(overlap(a, b) > 0.9 for b in theirs) for a in ours)


torch.set_num_threads(options.threads)
cv2.setNumThreads(options.threads)
warnings.filterwarnings("ignore", category=FutureWarning)
port = MTCNN(keep_all=True, min_face_size=options.min_face, factor=FACTOR, device="cpu")
ours = Ours(options.program, "--min-face", options.min_face, "--threads", options.threads)
print(f"smallest face {options.min_face} px, {options.threads} threads, {options.rounds} rounds, median ms per frame")
print("     frame   ours  facenet-pytorch  ratio  faces   P-Net: ours  OpenVINO  ratio  resized  ratio")
for width, height in SIZES:
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        scale = f"scale={width}:{height}:flags=bicubic"
        command = ["ffmpeg", "-v", "error", "-y", "-i", options.video, "-frames:v", "1", "-vf", scale]
        subprocess.run([*command, file.name], check=True)
        image = Image.open(file.name).convert("RGB")
        image.load()
        peer, peer_resized = openvino_pnet(port.pnet, list(pyramid(width, height)), image)
        times = {"ours": [], "port": [], "propose": [], "openvino": [], "resized": []}
        for turn in range(options.rounds + 2):
            with torch.inference_mode():
                port_ms, (boxes, _) = timed(lambda: port.detect(image))
            answers = [ours.ask(f"detect {file.name}") for _ in range(2)]
            openvino_ms = min(timed(peer)[0] for _ in range(2))
            resized_ms = min(timed(peer_resized)[0] for _ in range(2))
            propose_ms = min(ours.ask(f"propose {file.name}")["time_ms"] for _ in range(2))
            ours_ms = min(answer["time_ms"] for answer in answers)
            if turn >= 2:
                for name, value in zip(times, [ours_ms, port_ms, propose_ms, openvino_ms, resized_ms]):
                    times[name].append(value)
        faces = answers[0]["faces"]
        median = {name: statistics.median(values) for name, values in times.items()}
        ratio = {
            other: statistics.median(b / a for a, b in zip(times[name], times[other]))
            for name, other in [("ours", "port"), ("propose", "openvino"), ("propose", "resized")]
        }
        print(
            f"{width:5}x{height:<4} {median['ours']:6.1f} {median['port']:16.1f} {ratio['port']:5.1f}x"
            f" {len(faces):2} {'same' if same(faces, boxes) else 'DIFFERENT'}"
            f" {median['propose']:12.2f} {median['openvino']:9.2f} {ratio['openvino']:5.2f}x"
            f" {median['resized']:8.2f} {ratio['resized']:5.2f}x",
            flush=True,
        )
ours.close()
