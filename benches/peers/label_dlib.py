"""The loop of face_recognition's own example for video files: dlib's HOG detector on every frame,
its ResNet for every face, OpenCV for the video. Prints JSON; the time excludes imports and
enrolment."""

import argparse
import json
import os
import time
from pathlib import Path

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("output", help="an .avi file")
parser.add_argument("stills", help="folder with one folder of stills per person")
parser.add_argument("--threads", type=int, default=2)
options = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(options.threads)

import cv2  # noqa: E402
import face_recognition  # noqa: E402

cv2.setNumThreads(options.threads)
enrolling = time.perf_counter()
people, known = [], []
for folder in sorted(Path(options.stills).iterdir()):
    for still in sorted(folder.iterdir()):
        people.append(folder.name)
        known.append(face_recognition.face_encodings(face_recognition.load_image_file(str(still)))[0])

start = time.perf_counter()
reader = cv2.VideoCapture(options.video)
size = [int(reader.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
writer = cv2.VideoWriter(options.output, cv2.VideoWriter_fourcc(*"XVID"), reader.get(cv2.CAP_PROP_FPS), size)
frames, faces = 0, 0
while True:
    more, frame = reader.read()
    if not more:
        break
    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    places = face_recognition.face_locations(image)
    for (top, right, bottom, left), code in zip(places, face_recognition.face_encodings(image, places)):
        matches = face_recognition.compare_faces(known, code, tolerance=0.5)
        name = next((name for name, match in zip(people, matches) if match), "unknown")
        cv2.rectangle(frame, (left, top), (right, bottom), (0, 0, 255), 2)
        cv2.rectangle(frame, (left, bottom - 25), (right, bottom), (0, 0, 255), cv2.FILLED)
        cv2.putText(frame, name, (left + 6, bottom - 6), cv2.FONT_HERSHEY_DUPLEX, 0.5, (255, 255, 255), 1)
        faces += 1
    writer.write(frame)
    frames += 1
writer.release()
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "enrolling": start - enrolling, "frames": frames, "faces": faces}))
