import face_recognition

from PIL import Image, ImageDraw

from people import person, picture

image = face_recognition.load_image_file(person("Ada", 1))
pil_image = Image.fromarray(image)
for face_landmarks in face_recognition.face_landmarks(image):
    draw = ImageDraw.Draw(pil_image, "RGBA")
    draw.polygon(face_landmarks["left_eyebrow"], fill=(68, 54, 39, 128))
    draw.polygon(face_landmarks["right_eyebrow"], fill=(68, 54, 39, 128))
    draw.line(face_landmarks["right_eyebrow"], fill=(68, 54, 39, 150), width=5)
    draw.polygon(face_landmarks["top_lip"], fill=(150, 0, 0, 128))
    draw.polygon(face_landmarks["bottom_lip"], fill=(150, 0, 0, 128))
    draw.polygon(face_landmarks["left_eye"], fill=(255, 255, 255, 30))
    draw.line(face_landmarks["left_eye"] + [face_landmarks["left_eye"][0]], fill=(0, 0, 0, 110), width=6)
    for facial_feature in face_landmarks.keys():
        draw.line(face_landmarks[facial_feature], width=1)
        print(facial_feature, len(face_landmarks[facial_feature]))
pil_image.save(picture("makeup.png"))
