import face_recognition

import multiprocessing

from people import person


def look(task):
    name, known = task
    image = face_recognition.load_image_file(person(name, 3))
    return name, [face_recognition.compare_faces(known, one) for one in face_recognition.face_encodings(image)]


if __name__ == "__main__":
    # Encodings are made before the processes are forked, as scripts do.
    known = [
        face_recognition.face_encodings(face_recognition.load_image_file(person(name, 1)))[0]
        for name in ("Ada", "Boris")
    ]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for name, results in pool.map(look, [(name, known) for name in ("Ada", "Boris", "Chloé")]):
            print(name, results)
