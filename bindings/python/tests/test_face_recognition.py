"""The interface of face_recognition: scripts run with a changed import, and the numbers have the same meaning."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import person

import sphereface
import sphereface.face_recognition as face_recognition

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """A folder with a picture of three people side by side, the last a stranger to the scripts."""
    folder = tmp_path_factory.mktemp("pictures")
    people = [sphereface.read_image(person(name, 1)) for name in ("Ada", "Boris", "Chloé")]
    height = max(one.shape[0] for one in people)
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, 0), (0, 0))) for one in people]
    sphereface.write_image(folder / "group.png", np.concatenate(padded, axis=1))
    return folder


def run(name: str, pictures: Path) -> list[str]:
    """The output of a script in which only the imports are changed."""
    script = (SCRIPTS / name).read_text()
    changed = (
        script.replace("import face_recognition\n", "import sphereface.face_recognition as face_recognition\n")
        .replace("from face_recognition.", "from sphereface.face_recognition.")
        .replace("from facenet_pytorch import", "from sphereface.facenet_pytorch import")
    )
    assert changed != script
    environment = {**os.environ, "PICTURES": str(pictures), "PYTHONPATH": str(SCRIPTS), "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, "-c", changed], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_script_that_recognises(pictures):
    assert run("recognise.py", pictures) == [
        "Ada [True, False] True True [False, False]",
        "Boris [False, True] True True [False, False]",
        "Chloé [False, False] False True [False, False]",
    ]


def test_a_script_that_draws(pictures):
    pytest.importorskip("PIL")
    assert sorted(run("draw.py", pictures)) == ["Ada True", "Boris True", "Unknown True"]
    assert (pictures / "crop.png").exists()


def test_a_script_that_puts_makeup_on(pictures):
    pytest.importorskip("PIL")
    expected = {
        "chin": 17, "left_eyebrow": 5, "right_eyebrow": 5, "nose_bridge": 4, "nose_tip": 5,
        "left_eye": 6, "right_eye": 6, "top_lip": 12, "bottom_lip": 12,
    }  # fmt: skip
    assert run("makeup.py", pictures) == [f"{name} {count}" for name, count in expected.items()]


def test_a_script_that_works_in_batches(pictures):
    lines = run("batches.py", pictures)
    assert len(lines) == 12 and sum(line.endswith("True") for line in lines) > 6


def test_a_script_that_asks_the_nearest_neighbour(pictures):
    assert run("neighbours.py", pictures) == ["Ada Ada", "Boris Boris", "Chloé unknown"]


def test_a_script_that_watches_a_webcam(pictures):
    pytest.importorskip("PIL")
    lines = run("webcam.py", pictures)
    # Every other frame is analysed; the names of the previous frame are shown in between.
    assert len(lines) == 8 and lines[::2] == lines[1::2]
    assert sum("Ada" in line for line in lines) >= 6, lines


def test_a_script_that_keeps_encodings_in_a_file_and_counts_votes(pictures):
    assert run("votes.py", pictures) == ["Ada ('Ada', 2)", "Boris ('Boris', 2)", "Chloé nobody"]


def test_a_script_that_looks_at_eyes(pictures):
    assert run("eyes.py", pictures) == [f"{name} True True True" for name in ("Ada", "Boris", "Chloé")]


def test_a_script_that_forks_processes(pictures):
    assert run("pool.py", pictures) == [
        "Ada [[True, False]]",
        "Boris [[False, True]]",
        "Chloé [[False, False]]",
    ]


def test_a_script_of_facenet_pytorch_that_tracks(pictures):
    pytest.importorskip("PIL")
    *frames, together, sizes = run("tracking.py", pictures)
    assert frames == [f"{number} True (3, 160, 160) (160, 160)" for number in range(4)]
    assert (together, sizes) == ("4 True", "(640, 360) 4 (5, 2)")


def test_a_script_of_facenet_pytorch_that_aligns_a_folder(pictures):
    pytest.importorskip("PIL")
    *told, names, files, same = run("folder.py", pictures)
    assert len(told) == 3 and all(line.startswith("Face detected with probability: 0.99") for line in told), told
    assert names == "['Ada', 'Boris', 'Chloé'] (3, 3, 160, 160) True"
    assert (files, same) == ("3 [(160, 160), (160, 160), (160, 160)]", "True")


def test_a_script_of_facenet_pytorch(pictures):
    pytest.importorskip("PIL")
    assert run("facenet.py", pictures) == [
        "(3, 160, 160) True (160, 160)",
        "(3, 4) (3,) (3, 5, 2)",
        "(3, 3, 160, 160) True",
        "3 1 3 None [None]",
    ]


def test_the_tolerance_is_the_angle_of_the_default_threshold(engine):
    assert face_recognition.angle_deg(0.6) == pytest.approx(engine.threshold_deg(1e-3))
    assert face_recognition.angle_deg(0.5) < face_recognition.angle_deg(0.6) < face_recognition.angle_deg(0.7)
    one, other = (
        face_recognition.face_encodings(face_recognition.load_image_file(person(name, 1)))[0]
        for name in ("Ada", "Boris")
    )
    assert one.shape == (128,) and one.dtype == np.float64
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    (distance,) = face_recognition.face_distance([one], other)
    assert face_recognition.angle_deg(distance) == pytest.approx(np.degrees(np.arccos(cosine)))
    assert len(face_recognition.face_distance([], other)) == 0 and face_recognition.compare_faces([], other) == []


def test_boxes_are_top_right_bottom_left_and_inside(engine):
    picture = face_recognition.load_image_file(person("Ada", 1))
    ((top, right, bottom, left),) = face_recognition.face_locations(picture)
    ((x1, y1, x2, y2),) = [face.box for face in engine.detect(picture)]
    np.testing.assert_allclose((left, top, right, bottom), (x1, y1, x2, y2), atol=0.51)
    cut = picture[:, int(x1 + 0.2 * (x2 - x1)) :]
    for top, right, bottom, left in face_recognition.face_locations(np.ascontiguousarray(cut)):
        assert 0 <= left < right <= cut.shape[1] and 0 <= top < bottom <= cut.shape[0]
    grey = face_recognition.load_image_file(person("Ada", 1), mode="L")
    assert grey.shape == picture.shape[:2] and len(face_recognition.face_locations(grey)) == 1
    with pytest.raises(ValueError, match="mode"):
        face_recognition.load_image_file(person("Ada", 1), mode="CMYK")


def test_every_location_has_an_encoding_and_landmarks(engine):
    picture = face_recognition.load_image_file(person("Boris", 1))
    (face,) = engine.detect(picture)
    (location,) = face_recognition.face_locations(picture)
    empty = (5, 45, 45, 5)
    found = face_recognition.face_encodings(picture, [empty, location])
    (alone,) = face_recognition.face_encodings(picture)
    assert len(found) == 2 and face_recognition.face_distance([alone], found[1])[0] < 0.1
    (large,) = face_recognition.face_landmarks(picture, [location])
    left_eye = np.mean(large["left_eye"], axis=0)
    np.testing.assert_allclose(left_eye, face.landmarks[0], atol=2.5)
    np.testing.assert_allclose(large["nose_bridge"][-1], face.landmarks[2], atol=2.5)
    np.testing.assert_allclose(large["top_lip"][0], face.landmarks[3], atol=2.5)
    assert max(y for _, y in large["chin"]) > max(y for _, y in large["bottom_lip"])
    (small,) = face_recognition.face_landmarks(picture, model="small")
    assert {name: len(points) for name, points in small.items()} == {"nose_tip": 1, "left_eye": 2, "right_eye": 2}
    assert small["left_eye"][1][0] < small["right_eye"][0][0]
    assert face_recognition.face_encodings(picture, []) == []
    with pytest.raises(ValueError, match="landmarks model"):
        face_recognition.face_landmarks(picture, model="medium")
