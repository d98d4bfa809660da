import face_recognition

import os
import pickle
from collections import Counter

from people import PEOPLE, person, picture

known_encodings, known_names = [], []
for name in sorted(os.listdir(PEOPLE)):
    if name == "Chloé":
        continue
    for number in (1, 2):
        rgb = face_recognition.load_image_file(os.path.join(PEOPLE, name, f"{number}.jpg"))
        boxes = face_recognition.face_locations(rgb, model="cnn")
        for encoding in face_recognition.face_encodings(rgb, boxes):
            known_encodings.append(encoding)
            known_names.append(name)
with open(picture("encodings.pickle"), "wb") as file:
    file.write(pickle.dumps({"encodings": known_encodings, "names": known_names}))

data = pickle.loads(open(picture("encodings.pickle"), "rb").read())
for who in ("Ada", "Boris", "Chloé"):
    rgb = face_recognition.load_image_file(person(who, 3))
    boxes = face_recognition.face_locations(rgb, number_of_times_to_upsample=0)
    for encoding in face_recognition.face_encodings(rgb, boxes, num_jitters=2):
        matches = face_recognition.compare_faces(data["encodings"], encoding, tolerance=0.6)
        votes = Counter(name for name, same in zip(data["names"], matches) if same)
        print(who, votes.most_common(1)[0] if votes else "nobody")
