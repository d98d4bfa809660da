import face_recognition

from people import frames

batch = list(frames(12))
batch_of_face_locations = face_recognition.batch_face_locations(batch, number_of_times_to_upsample=0, batch_size=5)
for frame_number_in_batch, face_locations in enumerate(batch_of_face_locations):
    for top, right, bottom, left in face_locations:
        assert 0 <= top < bottom and 0 <= left < right
    print(frame_number_in_batch, len(face_locations) > 0)
