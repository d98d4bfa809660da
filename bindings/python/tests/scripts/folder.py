from facenet_pytorch import MTCNN, fixed_image_standardization

import os

import numpy as np
from PIL import Image

from people import PEOPLE, picture

mtcnn = MTCNN(
    image_size=160, margin=0, min_face_size=20,
    thresholds=[0.6, 0.7, 0.7], factor=0.709, post_process=True,
    device="cpu",
)
aligned, names = [], []
for name in sorted(os.listdir(PEOPLE)):
    x_aligned, prob = mtcnn(Image.open(PEOPLE / name / "1.jpg"), return_prob=True)
    if x_aligned is not None:
        print("Face detected with probability: {:8f}".format(prob)[:38])
        aligned.append(x_aligned)
        names.append(name)
batch = np.stack([np.asarray(face) for face in aligned])
print(names, batch.shape, bool(abs(batch).max() <= 1.0))

# A data set of faces, a batch at a time.
images = [Image.open(PEOPLE / name / "2.jpg") for name in names]
paths = [str(picture(os.path.join("cropped", name, "2.jpg"))) for name in names]
faces = mtcnn(images, save_path=paths)
print(len(faces), [Image.open(path).size for path in paths])
again = np.asarray(Image.open(paths[0]), dtype=np.float32).transpose(2, 0, 1)
print(bool(np.abs(np.asarray(fixed_image_standardization(again)) - np.asarray(faces[0])).mean() < 0.05))
