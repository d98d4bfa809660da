"""Streams and label(): frames in, labelled frames and events out."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

import sphereface


@pytest.fixture(scope="session")
def online(engine, gallery, clip):
    """Frames and events of label(..., online=True)."""
    frames, events = [], []
    summary = sphereface.label(clip, gallery=gallery, online=True, on_frame=frames.append, on_event=events.append)
    return summary, frames, events


def through(stream, source):
    outputs = []
    for frame in source:
        stream.push(frame)
        outputs.extend(stream)
    stream.finish()
    outputs.extend(stream)
    frames = [one for one in outputs if isinstance(one, sphereface.LabelledFrame)]
    return frames, [one for one in outputs if isinstance(one, sphereface.Event)]


def test_a_stream_that_may_wait_says_what_label_says_online(engine, gallery, clip, online):
    summary, expected, _ = online
    frames, events = through(sphereface.Stream(engine, gallery, live=False), sphereface.Source(clip))
    assert len(frames) == len(expected) == summary.frames > 100
    for frame, other in zip(frames, expected):
        assert (frame.index, frame.pts_ns, frame.duration_ns, frame.cut) == (
            other.index, other.pts_ns, other.duration_ns, other.cut,
        )  # fmt: skip
        assert frame.faces == other.faces, frame.index
    named = {face.name for frame in frames for face in frame.faces}
    assert named == {"Ada", "Boris", None}
    assert {event.kind for event in events} >= {"appeared", "left"}


def test_a_live_stream_answers_every_picture_at_once(engine, gallery, clip):
    stream = sphereface.Stream(engine, gallery, pictures=True)
    names = set()
    for frame in sphereface.Source(clip):
        stream.push(frame.picture, pts_s=frame.pts_s)
        answer = stream.pull()
        assert isinstance(answer, sphereface.LabelledFrame) and answer.index == frame.index
        assert answer.pts_s == pytest.approx(frame.pts_s, abs=1e-6)
        assert answer.picture.shape == frame.picture.shape
        names |= {face.name for face in answer.faces}
        while stream.pull() is not None:
            pass
        if frame.index == 40:
            break
    assert names & {"Ada", "Boris"}


def test_frames_out_of_order_are_refused(engine, clip):
    frame = next(sphereface.Source(clip))
    stream = sphereface.Stream(engine)
    stream.push(frame)
    with pytest.raises(ValueError, match="in order"):
        stream.push(frame)
    with pytest.raises(ValueError, match="of its own"):
        stream.push(frame, pts_s=1.0)
    with pytest.raises(ValueError, match="is invalid"):
        stream.push(frame.picture, pts_s=-1.0)


def test_another_gallery_takes_its_place_while_a_stream_runs(engine, gallery, clip):
    stream = sphereface.Stream(engine)
    before, after = set(), set()
    for frame in sphereface.Source(clip):
        if frame.index == 12:
            stream.set_gallery(gallery)
        stream.push(frame)
        for output in stream:
            if isinstance(output, sphereface.LabelledFrame):
                (before if frame.index < 12 else after).update(face.name for face in output.faces)
        if frame.index == 24:
            break
    assert before == {None} and after & {"Ada", "Boris"}


def test_label_writes_the_video_and_tells_who_was_seen_when(engine, folder, clip, tmp_path):
    output, analysis = tmp_path / "named.mkv", tmp_path / "seen.parquet"
    shapes, events = set(), []
    summary = sphereface.label(
        str(clip), output, folder, engine=engine, pictures=True, analysis=analysis,
        on_frame=lambda frame: shapes.add(frame.picture.shape), on_event=events.append,
    )  # fmt: skip
    source = sphereface.Source(output)
    assert shapes == {(source.height, source.width, 3)}
    assert sum(1 for _ in source) == summary.frames
    people = dict(summary.people)
    assert people["Ada"][0][1] > people["Ada"][0][0] and "Boris" in people
    assert summary.named <= summary.faces and summary.cut_off is None and summary.warnings == []
    assert {event.name for event in events if event.kind == "appeared"} >= {"Ada", "Boris"}
    assert analysis.read_bytes()[:4] == b"PAR1"


def test_label_takes_stills_too(engine, gallery, tmp_path):
    from conftest import person

    frames = []
    summary = sphereface.label(person("Ada", 3), tmp_path / "ada.png", gallery, on_frame=frames.append)
    assert summary.frames == 1 and frames[0].faces[0].name == "Ada"
    assert (tmp_path / "ada.png").exists()


def test_a_callback_that_raises_ends_the_job_with_that_exception(gallery, clip, tmp_path):
    class Enough(Exception):
        pass

    def callback(frame):
        if frame.index == 3:
            raise Enough("of this")

    with pytest.raises(Enough, match="of this"):
        sphereface.label(clip, tmp_path / "out.mkv", gallery, on_frame=callback, online=True)
    with pytest.raises(Enough):
        sphereface.label(clip, tmp_path / "out.mkv", gallery, on_event=lambda _: callback(type("F", (), {"index": 3})))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_labelled_is_an_exception(engine, gallery, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        sphereface.label(tmp_path / "none.mp4", gallery=gallery)
    with pytest.raises(sphereface.Error, match="video container"):
        sphereface.label(__file__, tmp_path / "out.gif", gallery)
    with pytest.raises(sphereface.Error, match="interval"):
        sphereface.label(__file__, gallery=gallery, detect_every=100)
    with pytest.raises(ValueError, match="no on_frame"):
        sphereface.label(__file__, gallery=gallery, pictures=True)


def test_ctrl_c_ends_label_and_leaves_nothing(folder, clip, tmp_path):
    # Whoever runs the tests in the background of a shell without terminal has SIGINT ignored, and children inherit that.
    script = f"""
        import signal, sphereface
        signal.signal(signal.SIGINT, signal.default_int_handler)
        print("ready", flush=True)
        for _ in range(100):
            sphereface.label({str(clip)!r}, {str(tmp_path / "out.mkv")!r}, {str(folder)!r})
    """
    python = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert python.stdout.readline() == "ready\n"
    time.sleep(1.5)
    os.kill(python.pid, signal.SIGINT)
    began = time.monotonic()
    _, errors = python.communicate(timeout=60)
    assert "KeyboardInterrupt" in errors and python.returncode != 0
    assert time.monotonic() - began < 30
    left = [path.name for path in tmp_path.iterdir()]
    assert left in ([], ["out.mkv"]), "a run before may have been complete"


def test_stub_files_name_everything_that_there_is():
    import ast
    from pathlib import Path

    stub = ast.parse((Path(sphereface.__file__).parent / "sphereface_native.pyi").read_text())
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    functions = {node.name for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert set(sphereface.__all__) == set(classes) | functions
    for name, node in classes.items():
        told = {item.name for item in node.body if isinstance(item, ast.FunctionDef) and item.name[0] != "_"}
        there = {item for item in vars(getattr(sphereface, name)) if item[0] != "_"}
        assert told == there, name
    assert np.__version__ and (Path(sphereface.__file__).parent / "py.typed").exists()
