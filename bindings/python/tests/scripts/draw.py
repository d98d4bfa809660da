import face_recognition

import numpy as np
from PIL import Image, ImageDraw

from people import person, picture

known_face_encodings, known_face_names = [], []
for name in ("Ada", "Boris"):
    image = face_recognition.load_image_file(person(name, 2))
    known_face_encodings.append(face_recognition.face_encodings(image)[0])
    known_face_names.append(name)

unknown_image = face_recognition.load_image_file(picture("group.png"))
face_locations = face_recognition.face_locations(unknown_image)
face_encodings = face_recognition.face_encodings(unknown_image, face_locations)

pil_image = Image.fromarray(unknown_image)
draw = ImageDraw.Draw(pil_image)
for (top, right, bottom, left), face_encoding in zip(face_locations, face_encodings):
    matches = face_recognition.compare_faces(known_face_encodings, face_encoding)
    name = "Unknown"
    face_distances = face_recognition.face_distance(known_face_encodings, face_encoding)
    best_match_index = np.argmin(face_distances)
    if matches[best_match_index]:
        name = known_face_names[best_match_index]
    draw.rectangle(((left, top), (right, bottom)), outline=(0, 0, 255))
    draw.text((left + 6, bottom - 10), name.encode("ascii", "replace").decode())
    print(name, left < right and top < bottom)
pil_image.crop((left, top, right, bottom)).save(picture("crop.png"))
