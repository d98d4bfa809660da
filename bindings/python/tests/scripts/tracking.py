from facenet_pytorch import MTCNN, extract_face

import numpy as np
from PIL import Image, ImageDraw

from people import frames, picture

mtcnn = MTCNN(keep_all=True, device="cpu")
pictures = [Image.fromarray(np.asarray(frame)) for frame in frames(4)]
frames_tracked = []
for i, frame in enumerate(pictures):
    boxes, _ = mtcnn.detect(frame)
    frame_draw = frame.copy()
    draw = ImageDraw.Draw(frame_draw)
    for box in boxes:
        draw.rectangle(box.tolist(), outline=(255, 0, 0), width=6)
    frames_tracked.append(frame_draw.resize((640, 360), Image.BILINEAR))
    face = extract_face(frame, boxes[0], save_path=str(picture(f"tracked_{i}.png")))
    print(i, len(boxes) > 1, tuple(face.shape), Image.open(picture(f"tracked_{i}.png")).size)

boxes, probs, points = mtcnn.detect(pictures, landmarks=True)
print(len(boxes), all(len(b) == len(p) == len(q) for b, p, q in zip(boxes, probs, points)))
print(frames_tracked[0].size, np.asarray(boxes[0]).shape[1], np.asarray(points[0]).shape[1:])
