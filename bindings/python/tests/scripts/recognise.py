import face_recognition

from people import person

ada = face_recognition.load_image_file(person("Ada", 1))
boris = face_recognition.load_image_file(str(person("Boris", 1)))

try:
    known_faces = [face_recognition.face_encodings(ada)[0], face_recognition.face_encodings(boris)[0]]
except IndexError:
    raise SystemExit("there is no face in one of the pictures")

for name in ("Ada", "Boris", "Chloé"):
    unknown = face_recognition.face_encodings(face_recognition.load_image_file(person(name, 3)))[0]
    results = face_recognition.compare_faces(known_faces, unknown)
    distances = face_recognition.face_distance(known_faces, unknown)
    strict = face_recognition.compare_faces(known_faces, unknown, tolerance=0.1)
    print(name, results, True in results, [bool(d < 0.6) for d in distances] == results, strict)
