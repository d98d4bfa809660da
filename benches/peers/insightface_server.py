"""The smallest HTTP server around InsightFace's package, which has none of its own. service.py starts it.

    insightface_server.py PORT MODELS GALLERY

MODELS is a folder with a detector and a recognition network of the package's kinds (ONNX), GALLERY one with a folder of
stills per person. The body of a POST request is a picture, the answer who is in it.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
from insightface.app import FaceAnalysis

# A person is named from this cosine on. The value does not change the time.
THRESHOLD = 0.35

port, models, gallery = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
app = FaceAnalysis(name=models, allowed_modules=["detection", "recognition"])
app.prepare()
recognition = app.models["recognition"]
if recognition.input_name == "crops_rgb_0_255":
    # This network scales its input itself.
    recognition.input_mean, recognition.input_std = 0.0, 1.0


def faces(bytes_):
    return app.get(cv2.imdecode(np.frombuffer(bytes_, np.uint8), cv2.IMREAD_COLOR))


names, templates = [], []
for still in sorted(gallery.glob("*/*.jpg")):
    found = faces(still.read_bytes())
    if found:
        names.append(still.parent.name)
        templates.append(found[0].normed_embedding)
templates = np.array(templates)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        answer = []
        for face in faces(self.rfile.read(int(self.headers["Content-Length"]))):
            cosines = templates @ face.normed_embedding
            best = int(cosines.argmax())
            name = names[best] if cosines[best] >= THRESHOLD else None
            answer.append({"name": name, "cosine": float(cosines[best]), "box": face.bbox.tolist()})
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
print("ready", flush=True)
server.serve_forever()
