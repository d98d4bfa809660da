#!/usr/bin/env python3
"""Measures a service on real RTSP cameras, which are made of videos.

    benches/cameras.py --gallery GALLERY VIDEO... [--sources 16] [--stream-fps 5] [--seconds 60]

Each video is encoded once (640x360, H.264, a key frame per second) and served in a loop by examples/rtsp_loop.rs, which
does not encode it again. `sphereface bench cameras` is the service and measures itself: the number of sources that
named each person, the delay from the arrival of a frame to the end of its events, frames per second, and memory per
source.

Needs ffmpeg, and `cargo build --release --example rtsp_loop` beside the program.
"""
import argparse
import pathlib
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent


def encoded(video, fps, to):
    """The video as a camera sends it."""
    size = "scale=640:360:force_original_aspect_ratio=decrease,pad=640:360:(ow-iw)/2:(oh-ih)/2"
    rate = ["-g", str(max(1, round(fps))), "-b:v", "600k", "-maxrate", "900k", "-bufsize", "900k"]
    subprocess.run(
        ["ffmpeg", "-v", "error", "-y", "-i", video, "-an", "-vf", f"{size},fps={fps},setsar=1", "-c:v", "libx264",
         "-preset", "veryfast", "-bf", "0", "-pix_fmt", "yuv420p", *rate, "-f", "mp4", to],
        check=True,
    )
    return to


class Cameras:
    """RTSP streams, each served by a process of its own."""

    def __init__(self, program, videos, first_port, each=False):
        self.program, self.videos, self.first_port, self.each = program, videos, first_port, each
        self.processes = {}

    def urls(self, count):
        if self.each:
            return [f"rtsp://127.0.0.1:{self.first_port + one}/1" for one in range(count)]
        return [f"rtsp://127.0.0.1:{self.first_port}/{one % len(self.videos) + 1}" for one in range(count)]

    def start(self, number=0):
        videos = [self.videos[number % len(self.videos)]] if self.each else self.videos
        command = [self.program, str(self.first_port + number), *map(str, videos)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        self.processes[number] = process

    def stop(self, number=0):
        process = self.processes.pop(number)
        process.kill()
        process.wait()

    def stop_all(self):
        for number in list(self.processes):
            self.stop(number)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--fps", type=float, default=5, help="frames analysed per second")
    parser.add_argument("--stream-fps", type=float, default=5, help="frames per second that a camera sends")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--port", type=int, default=18600)
    parser.add_argument("--build", default=ROOT / "target/release", type=pathlib.Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = [
            encoded(video, options.stream_fps, f"{folder}/{number}.mp4") for number, video in enumerate(options.videos)
        ]
        cameras = Cameras(options.build / "examples/rtsp_loop", videos, options.port)
        cameras.start()
        try:
            inputs = [word for url in cameras.urls(options.sources) for word in ("--input", url)]
            command = [
                options.build / "sphereface", "bench", "cameras", "--gallery", options.gallery,
                "--sources", str(options.sources), "--fps", str(options.fps), "--seconds", str(options.seconds), *inputs,
            ]
            subprocess.run(command + (["--json"] if options.json else []), check=True)
        finally:
            cameras.stop_all()


if __name__ == "__main__":
    main()
