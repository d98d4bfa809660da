"""Compares the whole job, a video in and the same video with names out. `sphereface label`, every frame by
itself and by default, takes turns with the same in Python (label_mtcnn.py), with face_recognition's
example (label_dlib.py), and with decoding and encoding alone. Ours is timed as a whole process with a
gallery that is enrolled already. The others are timed from the first frame to the last, and also as whole
processes, because a user waits for imports and loading too."""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from ours import Cores, Ours, timed

HERE = Path(__file__).parent
parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("program")
parser.add_argument("video")
parser.add_argument("stills", help="folder with one folder of stills per person")
parser.add_argument("--model", default="sphereface", help="a built-in model, or SphereFace weights (safetensors)")
parser.add_argument("--wide", action="store_true", help="SphereFace-20 of the paper's width, with random weights")
parser.add_argument("--truth", help="who is in the video, to compare the names with")
parser.add_argument("--threads", type=int, default=2)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--min-face", type=int, default=40)
parser.add_argument("--jobs", default="per-frame,default,copy,mtcnn,dlib")
options = parser.parse_args()


def call(command, **settings):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **settings)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}:\n{done.stderr}")
    return done


with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    model = options.model
    threshold = []
    if options.wide:
        import network

        model = folder / "sphereface20.safetensors"
        network.save(network.random_weights(), model)
        threshold = ["--threshold", "45deg"]
    built_in = HERE.parent.parent / "models" / f"{model}.safetensors"
    weights = built_in if built_in.exists() else model
    gallery = folder / "gallery"
    call([options.program, "enroll", "--dir", options.stills, "--gallery", gallery])
    ours = Ours(options.program, "--threads", options.threads)

    def label(*mode):
        command = [options.program, "label", options.video, "-o", folder / "out.mp4", "--gallery", gallery,
                   "--threads", options.threads, "--min-face", options.min_face, "--model", model, "--stats",
                   # As the other programs compute.
                   "--precision", "f32", *threshold, *mode]
        faces = folder / f"ours{''.join(mode)}.jsonl"
        time_ms, done = timed(lambda: call([*command, "--jsonl", faces]))
        return time_ms / 1e3, faces, done.stderr

    def script(name, output, faces, *arguments):
        command = [sys.executable, HERE / name, options.video, folder / output, options.stills, *arguments]
        time_ms, done = timed(lambda: call([*command, "--threads", options.threads], cwd=HERE))
        answer = json.loads(done.stdout.splitlines()[-1])
        processes[name].append(time_ms / 1e3 - answer["enrolling"])
        return answer["seconds"], faces, f"{answer['faces']} faces in {answer['frames']} frames"

    scripts = {"mtcnn": "label_mtcnn.py", "dlib": "label_dlib.py"}
    processes = {name: [] for name in scripts.values()}
    python_faces = folder / "python.jsonl"
    jobs = {
        "per-frame": lambda: label("--per-frame"),
        "default": lambda: label(),
        "copy": lambda: (ours.ask(f"copy {options.video} {folder / 'copy.mp4'}")["time_ms"] / 1e3, None, ""),
        "mtcnn": lambda: script(scripts["mtcnn"], "mtcnn.mp4", python_faces, weights, "--min-face",
                                options.min_face, "--jsonl", python_faces),
        "dlib": lambda: script(scripts["dlib"], "dlib.avi", None),
    }
    names = {
        "per-frame": "sphereface label --per-frame",
        "default": "sphereface label",
        "copy": "decoding and encoding only (ours)",
        "mtcnn": "facenet-pytorch + PyTorch + OpenCV",
        "dlib": "face_recognition's example",
    }
    chosen = options.jobs.split(",")
    times, last = {job: [] for job in chosen}, {}
    cores = Cores(ours, options.threads)
    for _ in range(options.rounds):
        for job in chosen:
            cores.look()
            seconds, *last[job] = jobs[job]()
            times[job].append(seconds)
    ours.close()

    print(f"{options.video}, {options.threads} threads, smallest face {options.min_face} px, "
          f"{options.rounds} rounds in turns, median seconds; {cores}")

    def show(name, seconds, modes):
        print(f"{name:36} {statistics.median(seconds):7.2f} s", end="")
        for mode in modes:
            ratio = statistics.median(b / a for a, b in zip(times[mode], seconds))
            print(f"   {ratio:5.2f} times {names[mode]}", end="")
        print()

    modes = [mode for mode in ("per-frame", "default") if mode in times]
    for job in chosen:
        show(names[job], times[job], () if job in modes else modes)
        if job in scripts:
            show("  with imports, without enrolling", processes[scripts[job]], modes)
    for job, (faces, said) in last.items():
        if said:
            print(f"\n{names[job]}:")
            print("\n".join(line for line in said.splitlines() if re.search(r"^stage|%|frames|searched", line)))
    for job, (faces, _) in last.items():
        if options.truth and faces and not options.wide:
            print(f"\n{names[job]} against the truth:")
            print(call([options.program, "eval", "video", options.truth, faces]).stdout.rstrip())
