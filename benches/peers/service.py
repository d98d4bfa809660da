"""Compares one request, who is in this picture, of this program's service with deepface's API and InsightFace's package.
All servers run on this machine and take turns. Each has a gallery of the same stills, and must name the person.

    python3 -m venv PEERS
    PEERS/bin/pip install -r requirements-service.txt
    PEERS/bin/pip uninstall -y opencv-python opencv-contrib-python-headless
    # OpenCV 5 lacks the files of deepface's default detector.
    PEERS/bin/pip install --no-deps opencv-contrib-python-headless==4.14.0.94
    PEERS/bin/python service.py sphereface PEOPLE PICTURE --insightface MODELS [--mbf mbf.safetensors]

PEOPLE has a folder of stills per person; PICTURE is left out of the gallery. MODELS is a folder with InsightFace's
networks: det_500m.onnx and one for recognition. deepface runs with its default detector (OpenCV's cascades) and the
recognition network Dlib, the only one of its networks that a Python package ships, in one gunicorn worker, as its own
start script does. Each request has a connection of its own.
"""
import argparse
import base64
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
DEEPFACE = {"model_name": "Dlib", "detector_backend": "opencv"}


def request(port, path, body, content_type):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("POST", path, body, {"Content-Type": content_type})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {text[:500]}")
    return json.loads(text)


def opened(port, process):
    """Waits until a server answers."""
    until = time.time() + 120
    while time.time() < until and process.poll() is None:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/")
            connection.getresponse().read()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("a server did not start")


class Sphereface:
    def __init__(self, folder, gallery, program, *arguments):
        data = tempfile.mkdtemp(dir=folder)
        stills = f"{data}/gallery"
        subprocess.run([program, "enroll", "--dir", gallery, "--gallery", stills], check=True, capture_output=True)
        settings = Path(data) / "serve.toml"
        settings.write_text(
            f"listen = '127.0.0.1:0'\ngallery = '{stills}'\ndata = '{data}/data'\n[limits]\nrequests_per_s = 0\n"
        )
        self.process = subprocess.Popen([program, "serve", settings, *arguments], stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().strip().rstrip("/").rsplit(":", 1)[1])

    def ask(self, picture):
        faces = request(self.port, "/api/v1/recognise", picture, "image/jpeg")["pictures"][0]["faces"]
        return [face["who"]["name"] for face in faces]


class Deepface:
    def __init__(self, folder, gallery, port):
        import face_recognition_models

        weights = folder / ".deepface/weights"
        weights.mkdir(parents=True)
        shutil.copy(face_recognition_models.face_recognition_model_location(), weights)
        environment = os.environ | {
            "DEEPFACE_HOME": str(folder),
            "DEEPFACE_DATABASE_TYPE": "sqlite",
            "DEEPFACE_CONNECTION_DETAILS": str(folder / "deepface.sqlite3"),
            "DEEPFACE_FACE_RECOGNITION_MODELS": DEEPFACE["model_name"],
            "DEEPFACE_FACE_DETECTION_MODELS": DEEPFACE["detector_backend"],
        }
        self.port, self.log = port, open(folder / "deepface.log", "w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--workers=1", "--timeout=3600", f"--bind=127.0.0.1:{port}",
             "deepface.api.src.app:create_app()"],
            env=environment, stdout=self.log, stderr=self.log,
        )
        opened(port, self.process)
        for still in sorted(gallery.glob("*/*.jpg")):
            self.post("/register", still.read_bytes(), img_name=still.parent.name)

    def post(self, path, picture, **more):
        body = DEEPFACE | more | {"img": "data:image/jpeg;base64," + base64.b64encode(picture).decode()}
        return request(self.port, path, json.dumps(body), "application/json")

    def ask(self, picture):
        found = self.post("/search", picture)["results"]
        return [face[0]["img_name"] if face else None for face in found]


class Insightface:
    def __init__(self, models, gallery, port):
        self.port = port
        self.process = subprocess.Popen(
            [sys.executable, HERE / "insightface_server.py", str(port), models, gallery], stdout=subprocess.PIPE, text=True
        )
        while (line := self.process.stdout.readline()) and line != "ready\n":
            pass

    def ask(self, picture):
        return [face["name"] for face in request(self.port, "/", picture, "image/jpeg")]


def measured(server, picture, clients, seconds):
    """Times of all requests in milliseconds, and requests per second."""
    times, begin = [], time.perf_counter()

    def client():
        while time.perf_counter() - begin < seconds:
            start = time.perf_counter()
            server.ask(picture)
            times.append((time.perf_counter() - start) * 1e3)

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(times) / (time.perf_counter() - begin)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("people", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--insightface", metavar="MODELS", help="without it, InsightFace is left out")
    parser.add_argument("--mbf", help="a MobileFaceNet for this program, as InsightFace's recognition network is one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="of each server, number of clients and turn")
    parser.add_argument("--port", type=int, default=18900)
    options = parser.parse_args()
    picture, who = options.picture.read_bytes(), options.picture.resolve().parent.name
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        gallery = folder / "people"
        for still in options.people.glob("*/*.jpg"):
            if still.resolve() != options.picture.resolve():
                (gallery / still.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(still, gallery / still.parent.name)
        servers = {}
        try:
            program = Path(options.program).resolve()
            servers["sphereface"] = Sphereface(folder, gallery, program)
            servers["sphereface, f32"] = Sphereface(folder, gallery, program, "--precision", "f32")
            if options.mbf:
                mbf = ["--model", Path(options.mbf).resolve(), "--precision", "f32"]
                servers["sphereface, MobileFaceNet, f32"] = Sphereface(folder, gallery, program, *mbf)
            servers["deepface"] = Deepface(folder, gallery, options.port)
            if options.insightface:
                servers["InsightFace"] = Insightface(options.insightface, gallery, options.port + 1)
            for name, server in servers.items():
                answer = server.ask(picture)
                print(f"{name}: {answer}", flush=True)
                if answer != [who]:
                    raise SystemExit(f"{name} does not name {who}")
            compare(servers, picture, options)
        finally:
            for server in servers.values():
                server.process.terminate()
                server.process.wait()


def compare(servers, picture, options):
    times = {(name, clients): [] for name in servers for clients in (1, 4)}
    rates = {key: [] for key in times}
    for _ in range(options.rounds):
        for name, clients in times:
            measured(servers[name], picture, clients, 0.5)
            took, rate = measured(servers[name], picture, clients, options.seconds)
            times[name, clients] += took
            rates[name, clients].append(rate)
    print("server: with one client median / 95 % ms, requests/s; with four clients median / 95 % ms, requests/s")
    for name in servers:
        words = []
        for clients in (1, 4):
            took = sorted(times[name, clients])
            late = took[len(took) * 95 // 100]
            words.append(f"{statistics.median(took):.1f} / {late:.1f} ms, {statistics.median(rates[name, clients]):.1f}/s")
        print(f"{name}: {'; '.join(words)}")


if __name__ == "__main__":
    main()
