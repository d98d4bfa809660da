"""The interface of facenet-pytorch for scripts that detect faces."""

import importlib.util

import numpy as np
import pytest
from conftest import person

import sphereface
from sphereface import facenet_pytorch
from sphereface.facenet_pytorch import MTCNN, extract_face, fixed_image_standardization, prewhiten


@pytest.fixture(scope="module")
def ada() -> np.ndarray:
    return sphereface.read_image(person("Ada", 1))


@pytest.fixture(scope="module")
def two(ada) -> np.ndarray:
    """Two people, the one on the right at half the size."""
    boris = sphereface.read_image(person("Boris", 1))[::2, ::2]
    height = max(ada.shape[0], boris.shape[0])
    padded = [np.pad(one, ((0, height - one.shape[0]), (0, 0), (0, 0))) for one in (ada, boris)]
    return np.concatenate(padded, axis=1)


def numpy(faces) -> np.ndarray:
    return faces.numpy() if hasattr(faces, "numpy") else faces


def test_boxes_are_those_of_the_detector(ada):
    (face,) = sphereface.Engine(min_face=20).detect(ada)
    boxes, probs, points = MTCNN().detect(ada, landmarks=True)
    np.testing.assert_array_equal(boxes, [face.box])
    np.testing.assert_array_equal(points, [face.landmarks])
    assert probs[0] == pytest.approx(face.score)


def test_nobody_is_none():
    blank = np.full((100, 100, 3), 127, dtype=np.uint8)
    assert MTCNN()(blank) is None
    assert MTCNN()(blank, return_prob=True) == (None, None)
    boxes, probs = MTCNN().detect(blank)
    assert boxes is None and probs == [None]
    assert MTCNN(keep_all=True)([blank, blank]) == [None, None]


def test_one_face_of_several_is_chosen_as_asked(two):
    boxes, _ = MTCNN(select_largest=True).detect(two)
    assert len(boxes) == 2 and np.diff((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))[0] < 0
    left = boxes[0, 0]
    every = MTCNN(select_largest=False).detect(two, landmarks=True)
    assert every[1][0] >= every[1][1]
    mtcnn = MTCNN()
    assert mtcnn.select_boxes(*every, two, method="largest")[0][0, 0] == left
    assert mtcnn.select_boxes(*every, two, method="largest_over_threshold")[0][0, 0] == left
    assert mtcnn.select_boxes(*every, two, method="largest_over_threshold", threshold=1.0)[0] is None
    assert mtcnn.select_boxes(*every, two, method="probability")[1] == every[1][0]
    assert mtcnn.select_boxes(*every, two, method="center_weighted_size")[0].shape == (1, 4)
    with pytest.raises(ValueError, match="selection_method"):
        mtcnn.select_boxes(*every, two, method="best")


def test_faces_are_cut_out_and_standardised(two):
    raw, standard = MTCNN(post_process=False)(two), MTCNN()(two)
    _, prob = MTCNN()(two, return_prob=True)
    assert f"{prob:8f}".startswith("0.9") or f"{prob:8f}" == "1.000000"
    assert tuple(raw.shape) == tuple(standard.shape) == (3, 160, 160)
    np.testing.assert_allclose(numpy(fixed_image_standardization(raw)), numpy(standard))
    assert -1.0 <= float(standard.min()) < 0.0 < float(standard.max()) <= 1.0
    every, probs = MTCNN(keep_all=True, image_size=64)(two, return_prob=True)
    assert tuple(every.shape) == (2, 3, 64, 64) and len(probs) == 2
    white = prewhiten(numpy(raw))
    assert abs(white.mean()) < 1e-3 and abs(white.std() - 1.0) < 1e-3


def test_a_face_that_is_averaged_down_keeps_its_means(two):
    face = numpy(extract_face(two, (10, 20, 110, 120), image_size=50))
    np.testing.assert_allclose(face[:, 0, 0], two[20:22, 10:12].mean(axis=(0, 1)), rtol=1e-5)
    wide = numpy(extract_face(two, (10, 20, 110, 120), image_size=50, margin=25))
    np.testing.assert_allclose(wide[:, 0, 0], two[0:4, 0:4].mean(axis=(0, 1)), rtol=0.3)


def test_batches_of_any_kind(ada, two, tmp_path):
    single = MTCNN(keep_all=True)
    boxes, probs, points = single.detect([ada, two], landmarks=True)
    assert [len(one) for one in boxes] == [1, 2] and [len(one) for one in points] == [1, 2]
    np.testing.assert_array_equal(boxes[1], single.detect(two)[0])
    one_each, probs, points = MTCNN().select_boxes(boxes, probs, points, [ada, two], method="largest")
    assert one_each.shape == (2, 1, 4) and probs.shape == (2, 1) and points.shape == (2, 1, 5, 2)
    stacked, _ = single.detect(np.stack([ada, ada]))
    np.testing.assert_array_equal(stacked[0], stacked[1])
    paths = [str(tmp_path / "new" / f"{at}.png") for at in range(2)]
    faces = single([ada, two], save_path=paths)
    assert [len(one) for one in faces] == [1, 2]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["0.png", "1.png", "1_2.png"]


def test_tensors_go_in_and_come_out_where_there_is_torch(ada):
    torch = pytest.importorskip("torch")
    mtcnn = MTCNN(device=torch.device("cpu"))
    face = mtcnn(torch.from_numpy(ada))
    assert isinstance(face, torch.Tensor) and face.dtype == torch.float32
    assert torch.equal(face, mtcnn(ada))


def test_what_does_not_fit_is_told():
    if importlib.util.find_spec("facenet_pytorch") is None:
        with pytest.raises(ImportError, match="Engine.embed"):
            from sphereface.facenet_pytorch import InceptionResnetV1  # noqa: F401
    with pytest.raises(AttributeError):
        facenet_pytorch.nothing
    with pytest.warns(RuntimeWarning, match="below 12 pixels"):
        MTCNN(min_face_size=5)
    with pytest.warns(RuntimeWarning, match="the CPU is used"):
        MTCNN(device="cuda:7", min_face_size=21)
    with pytest.raises(sphereface.Error, match="factor"):
        MTCNN(factor=2.0)
