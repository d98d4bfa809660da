"""The work of `sphereface label --per-frame` in Python: facenet-pytorch's MTCNN on every frame, the
same SphereFace-20 weights in PyTorch for every face, OpenCV for the video. Prints JSON; the time
excludes imports and loading of models."""

import argparse
import json
import math
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("output", help="an .mp4 file")
parser.add_argument("stills", help="folder with one folder of stills per person")
parser.add_argument("model", help="SphereFace-20 weights as safetensors")
parser.add_argument("--threshold", type=float, default=67.0, help="degrees below which a face is named")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--min-face", type=int, default=40)
parser.add_argument("--jsonl", help="lists every face, as `sphereface label --jsonl` does")
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from facenet_pytorch import MTCNN  # noqa: E402

import network  # noqa: E402

TEMPLATE = np.array(
    [[30.2946, 51.6963], [65.5318, 51.5014], [48.0252, 71.7366], [33.5493, 92.3655], [62.7299, 92.2041]])

torch.set_num_threads(options.threads)
cv2.setNumThreads(options.threads)
weights, metadata = network.load(options.model)
run = network.torch_network(weights)
detector = MTCNN(keep_all=True, min_face_size=options.min_face, factor=0.709, device="cpu")


def align(image, points):
    """The least-squares similarity from the landmarks onto the template, and the crop it makes."""
    p, q = points - points.mean(0), TEMPLATE - TEMPLATE.mean(0)
    square = (p * p).sum()
    a, b = (p * q).sum() / square, (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]).sum() / square
    turn = np.array([[a, -b], [b, a]])
    matrix = np.column_stack([turn, TEMPLATE.mean(0) - turn @ points.mean(0)])
    return cv2.warpAffine(image, matrix, (96, 112), flags=cv2.INTER_LINEAR)


def embed(crops):
    """Unit vectors of crops in RGB."""
    crops = np.stack(crops)
    if metadata["channel_order"] == "BGR":
        crops = crops[..., ::-1]
    found = run(network.pixels(crops))
    found = found - weights.get("mean", 0)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def detect(image):
    with torch.inference_mode():
        boxes, scores, points = detector.detect(image, landmarks=True)
    if boxes is None:
        return []
    return [(*face[:2], np.array(face[2], dtype=float)) for face in zip(boxes, scores, points)]


enrolling = time.perf_counter()
people, templates = [], []
for folder in sorted(Path(options.stills).iterdir()):
    for still in sorted(folder.iterdir()):
        image = cv2.cvtColor(cv2.imread(str(still)), cv2.COLOR_BGR2RGB)
        box, _, points = max(detect(image), key=lambda face: (face[0][2] - face[0][0]) * (face[0][3] - face[0][1]))
        crop = align(image, points)
        people.append(folder.name)
        templates.append(embed([crop, crop[:, ::-1]]).sum(0))
templates = np.stack(templates)
templates /= np.linalg.norm(templates, axis=1, keepdims=True)

start = time.perf_counter()
reader = cv2.VideoCapture(options.video)
size = [int(reader.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
writer = cv2.VideoWriter(options.output, cv2.VideoWriter_fourcc(*"mp4v"), reader.get(cv2.CAP_PROP_FPS), size)
frames, faces, lines = 0, 0, []
while True:
    more, frame = reader.read()
    if not more:
        break
    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    found = detect(image)
    if found:
        cosines = embed([align(image, points) for _, _, points in found]) @ templates.T
        for (box, score, points), row in zip(found, cosines):
            best = int(row.argmax())
            angle = math.degrees(math.acos(min(1.0, float(row[best]))))
            name = people[best] if angle < options.threshold else None
            left, top, right, bottom = (int(side) for side in box)
            cv2.rectangle(frame, (left, top), (right, bottom), (0, 200, 0) if name else (0, 0, 200), 2)
            cv2.putText(frame, f"{name or 'unknown'} {angle:.0f}", (left, top - 6), cv2.FONT_HERSHEY_SIMPLEX,
                        0.5, (255, 255, 255), 1, cv2.LINE_AA)
            lines.append({"frame": frames, "box": box.tolist(), "landmarks": points.tolist(),
                          "score": float(score), "name": name, "angle_deg": angle})
        faces += len(found)
    writer.write(frame)
    frames += 1
writer.release()
seconds = time.perf_counter() - start
if options.jsonl:
    Path(options.jsonl).write_text("".join(json.dumps(line) + "\n" for line in lines))
print(json.dumps({"seconds": seconds, "enrolling": start - enrolling, "frames": frames, "faces": faces}))
