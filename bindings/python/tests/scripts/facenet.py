from facenet_pytorch import MTCNN

import numpy as np
from PIL import Image

from people import person, picture

mtcnn = MTCNN(image_size=160, margin=20, keep_all=False, device="cpu")
img = Image.open(person("Ada", 1))
face, prob = mtcnn(img, save_path=str(picture("ada.png")), return_prob=True)
print(tuple(face.shape), bool(prob > 0.9), Image.open(picture("ada.png")).size)

mtcnn = MTCNN(keep_all=True, post_process=False).eval()
group = Image.open(picture("group.png"))
boxes, probs, landmarks = mtcnn.detect(group, landmarks=True)
print(boxes.shape, probs.shape, landmarks.shape)
faces = mtcnn(group)
print(tuple(faces.shape), bool(faces.max() > 200))

boxes, probs = mtcnn.detect([img, group, np.zeros((90, 120, 3), dtype=np.uint8)])
print(len(boxes), len(boxes[0]), len(boxes[1]), boxes[2], list(probs[2]))
