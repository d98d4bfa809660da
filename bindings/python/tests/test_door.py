"""Engine, gallery, recogniser: pictures in, names out."""

import threading
from pathlib import Path

import numpy as np
import pytest
from conftest import person

import sphereface


def test_faces_are_found_and_embedded(engine):
    picture = sphereface.read_image(person("Ada", 1))
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    (face,) = engine.detect(picture)
    left, top, right, bottom = face.box
    assert 0 < right - left and 0 < bottom - top and face.score > 0.9
    assert face.landmarks.shape == (5, 2) and face.landmarks.dtype == np.float32
    assert face.crop.shape == (112, 112, 3)
    assert face.quality.size_px > 40 and face.quality.problems == []
    of_face, of_crop = engine.embed([face]), engine.embed([face.crop])
    assert of_face.shape == (1, 128) and of_face.dtype == np.float32
    np.testing.assert_array_equal(of_face, of_crop)
    assert abs(np.linalg.norm(of_face[0]) - 1.0) < 1e-5
    np.testing.assert_array_equal(engine.align(picture, face.landmarks.tolist()), face.crop)
    assert engine.embed([]).shape == (0, 128)


def test_the_precision_is_chosen_by_the_cpu_or_asked_for(engine):
    assert engine.precision in ("f32", "bf16")
    chosen = sphereface.Engine(device="cpu", threads=1)
    assert sphereface.Engine(device="cpu", threads=1, precision="auto").precision == chosen.precision
    assert sphereface.Engine(device="cpu", threads=1, precision="f32").precision == "f32"
    with pytest.raises(sphereface.Error, match="auto, f32, bf16 or int8"):
        sphereface.Engine(precision="f16")


def test_a_view_of_an_array_is_the_picture_that_it_shows(engine):
    picture = sphereface.read_image(person("Boris", 1))
    bgr = np.ascontiguousarray(picture[:, :, ::-1])
    assert [face.box for face in engine.detect(bgr[:, :, ::-1])] == [face.box for face in engine.detect(picture)]


def test_many_pictures_are_as_one_by_one(engine):
    pictures = [sphereface.read_image(person(name, n)) for name in ("Ada", "Boris", "Chloé") for n in (1, 2)]
    together = engine.detect_many(pictures)
    assert [[face.box for face in faces] for faces in together] == [
        [face.box for face in engine.detect(picture)] for picture in pictures
    ]
    assert engine.detect_many(pictures[:1])[0][0].box == together[0][0].box
    assert engine.detect_many([]) == []


def test_a_face_is_found_again_near_its_box(engine):
    picture = sphereface.read_image(person("Ada", 2))
    (face,) = engine.detect(picture)
    (near,) = engine.detect_near(picture, [tuple(side + 2.0 for side in face.box)])
    np.testing.assert_allclose(near.box, face.box, atol=0.1 * (face.box[2] - face.box[0]))
    assert engine.detect_near(picture, []) == []


def test_people_are_named_and_strangers_are_not(engine, gallery):
    recogniser = sphereface.Recogniser(engine, gallery)
    for name, expected in (("Ada", "Ada"), ("Boris", "Boris"), ("Chloé", None)):
        (face,) = recogniser.name(sphereface.read_image(person(name, 3)))
        assert face.name == expected and face.angle_deg > 0 and face.track is None
        assert gallery.identify(face.embedding).name == expected
    (face,) = sphereface.Recogniser(engine).name(sphereface.read_image(person("Ada", 3)))
    assert face.name is None and face.embedding is None


def test_a_gallery_says_who_is_in_it_and_how_it_decides(engine, folder, gallery):
    assert gallery.people == ["Ada", "Boris"] and len(gallery) == 2
    assert gallery.threshold.fmr == pytest.approx(1e-3)
    assert gallery.threshold.angle_deg == pytest.approx(engine.threshold_deg())
    assert engine.fmr(engine.threshold_deg(1e-4)) == pytest.approx(1e-4)
    strict = sphereface.Gallery(engine, folder, fmr=1e-4)
    assert strict.threshold.angle_deg < gallery.threshold.angle_deg
    given = sphereface.Gallery(engine, folder, threshold_deg=50)
    assert float(given.threshold) == 50.0 and given.threshold.fmr is None
    with pytest.raises(ValueError, match="one of them"):
        sphereface.Gallery(engine, folder, threshold_deg=50, fmr=1e-3)


def test_errors_are_exceptions_with_the_sentences_of_the_library(engine, gallery, tmp_path):
    with pytest.raises(sphereface.Error, match="there is no gallery at"):
        sphereface.Gallery(engine, tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="none.jpg"):
        sphereface.read_image(tmp_path / "none.jpg")
    with pytest.raises(sphereface.Error, match="12 pixels"):
        sphereface.Engine(min_face=5)
    with pytest.raises(sphereface.Error, match="out of range"):
        sphereface.Gallery(engine, tmp_path, threshold_deg=200)
    with pytest.raises(sphereface.Error, match="from 1 to 256"):
        sphereface.Engine(threads=1000)
    with pytest.raises(TypeError, match="array of float64 with shape"):
        engine.detect(np.zeros((10, 10, 3)))
    with pytest.raises(TypeError, match="a str is not a picture"):
        engine.detect("ada.jpg")
    with pytest.raises(ValueError, match="height x width x 3"):
        engine.detect(np.zeros((10, 10, 4), dtype=np.uint8))
    with pytest.raises(ValueError, match="112 x 112 pixels"):
        engine.embed([np.zeros((10, 10, 3), dtype=np.uint8)])
    with pytest.raises(ValueError, match="128 values"):
        gallery.identify(np.ones(3, dtype=np.float32))


def test_enrolment_names_the_still_that_cannot_be_used(engine, tmp_path):
    blank = tmp_path / "blank.png"
    sphereface.write_image(blank, np.full((200, 200, 3), 128, dtype=np.uint8))
    with pytest.raises(sphereface.Error, match="blank.png is not used: no face found"):
        sphereface.enroll(tmp_path / "gallery", "Ada", [person("Ada", 1), blank], engine=engine)
    with pytest.raises(FileNotFoundError, match="none.jpg"):
        sphereface.enroll(tmp_path / "gallery", "Ada", [tmp_path / "none.jpg"], engine=engine)
    with pytest.raises(ValueError, match="at least one"):
        sphereface.enroll(tmp_path / "gallery", "Ada", [], engine=engine)
    assert not (tmp_path / "gallery").exists()
    assert sphereface.enroll(str(tmp_path / "gallery"), "Ada", [str(person("Ada", 1))], engine=engine) == []


def test_other_threads_run_while_the_library_works(engine):
    picture = np.tile(sphereface.read_image(person("Ada", 1)), (3, 3, 1))
    turns, done = [0], threading.Event()

    def count() -> None:
        while not done.is_set():
            turns[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    before = turns[0]
    for _ in range(3):
        engine.detect(picture)
    during = turns[0] - before
    done.set()
    counter.join()
    # A thread that waits for the interpreter would run only a few times.
    assert during > 1000


def test_pictures_are_written_as_they_are(tmp_path: Path):
    picture = np.arange(30 * 20 * 3, dtype=np.uint8).reshape(30, 20, 3)
    sphereface.write_image(tmp_path / "a.png", picture)
    np.testing.assert_array_equal(sphereface.read_image(str(tmp_path / "a.png")), picture)
