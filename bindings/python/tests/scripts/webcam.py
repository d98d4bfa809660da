import face_recognition

import numpy as np
from PIL import Image

from people import frames, person

known_face_encodings = [
    face_recognition.face_encodings(face_recognition.load_image_file(person(name, 1)))[0] for name in ("Ada", "Boris")
]
known_face_names = ["Ada", "Boris"]

face_locations, face_names = [], []
process_this_frame = True
# A webcam gives blue first.
for frame in (picture[:, :, ::-1] for picture in frames(8)):
    if process_this_frame:
        height, width = frame.shape[:2]
        small = Image.fromarray(np.ascontiguousarray(frame)).resize((width // 2, height // 2))
        rgb_small_frame = np.asarray(small)[:, :, ::-1]
        face_locations = face_recognition.face_locations(rgb_small_frame)
        face_names = []
        for face_encoding in face_recognition.face_encodings(rgb_small_frame, face_locations):
            matches = face_recognition.compare_faces(known_face_encodings, face_encoding)
            name = "Unknown"
            if True in matches:
                name = known_face_names[matches.index(True)]
            face_names.append(name)
    process_this_frame = not process_this_frame
    shown = frame.copy()
    for (top, right, bottom, left), name in zip(face_locations, face_names):
        shown[2 * top : 2 * bottom, 2 * left : 2 * right] = (0, 0, 255)
        assert (shown[2 * top, 2 * left] == (0, 0, 255)).all()
    print(sorted(face_names))
