import face_recognition

import math

from people import person


def openness(eye):
    upright = math.dist(eye[1], eye[5]) + math.dist(eye[2], eye[4])
    return upright / (2.0 * math.dist(eye[0], eye[3]))


for name in ("Ada", "Boris", "Chloé"):
    image = face_recognition.load_image_file(person(name, 1))
    for landmarks in face_recognition.face_landmarks(image[:, ::-1]):
        left, right = openness(landmarks["left_eye"]), openness(landmarks["right_eye"])
        below = max(y for _, y in landmarks["left_eye"]) < min(y for _, y in landmarks["top_lip"])
        print(name, left > 0.2 and right > 0.2, landmarks["left_eye"][0] < landmarks["right_eye"][3], below)
