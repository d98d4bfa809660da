#!/usr/bin/env python3
"""Runs a service with cameras that are cut, slowed and restarted at random, for a given time.

    benches/soak.py --gallery GALLERY VIDEO... [--sources 16] [--minutes 60] [--seed 1]

Each source is an RTSP server of its own (examples/rtsp_loop.rs). Every few seconds one of them is

- cut: killed, and started again some seconds later
- restarted: killed, and started again at once
- slowed: stopped and continued ten times per second, for some seconds
- frozen: stopped for some seconds, with its connections open

and must show pictures again within 30 s of the end of the disturbance. The end of the run must not have more threads
and descriptors than the beginning, and memory must stay within 5 % of its size after the first sixth of the time.
Prints a line per minute and a verdict, and its exit code is 1 if something is not as it should be.
"""
import argparse
import json
import pathlib
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from cameras import ROOT, Cameras, encoded

BACK_WITHIN_S = 30
PAUSE_S = (3, 10)


def sources(address):
    with urllib.request.urlopen(address + "api/v1/sources", timeout=30) as answer:
        return {one["name"]: one["state"] for one in json.load(answer)["sources"]}


def resources(process):
    """Threads, descriptors and resident MiB of a process."""
    place = pathlib.Path(f"/proc/{process}")
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines() if ":" in line)
    return int(status["Threads"]), len(list((place / "fd").iterdir())), int(status["VmRSS"].split()[0]) / 1024


def settled(process):
    """The smallest of a few measurements: threads start and end."""
    looks = []
    for _ in range(20):
        looks.append(resources(process))
        time.sleep(0.25)
    threads, descriptors, mib = zip(*looks)
    return min(threads), min(descriptors), statistics.median(mib)


def trouble(cameras, number, chance):
    """Disturbs a camera; returns the kind of disturbance once it is over."""
    what = chance.choice(["cut", "restarted", "slowed", "frozen"])
    s = chance.uniform(*PAUSE_S)
    if what in ("cut", "restarted"):
        cameras.stop(number)
        time.sleep(s if what == "cut" else 0)
        cameras.start(number)
    else:
        process, until = cameras.processes[number], time.time() + s
        while time.time() < until:
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.09 if what == "slowed" else until - time.time() if until > time.time() else 0)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.01)
    return what


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("videos", nargs="+")
    parser.add_argument("--gallery", required=True)
    parser.add_argument("--sources", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--fps", type=float, default=5, help="frames analysed per second")
    parser.add_argument("--stream-fps", type=float, default=5, help="frames per second that a camera sends")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--port", type=int, default=18700)
    parser.add_argument("--build", default=ROOT / "target/release", type=pathlib.Path)
    options = parser.parse_args()
    chance, wrong = random.Random(options.seed), []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        videos = [
            encoded(video, options.stream_fps, folder / f"{number}.mp4") for number, video in enumerate(options.videos)
        ]
        cameras = Cameras(options.build / "examples/rtsp_loop", videos, options.port, each=True)
        for number in range(options.sources):
            cameras.start(number)
        text = f"listen = '127.0.0.1:0'\ngallery = '{pathlib.Path(options.gallery).resolve()}'\ndata = '{folder}/data'\n"
        for number, url in enumerate(cameras.urls(options.sources)):
            text += f"[[source]]\nname = 'camera-{number}'\ninput = '{url}'\nfps = {options.fps}\n"
        (folder / "serve.toml").write_text(text)
        log = (folder / "log").open("w")
        service = subprocess.Popen(
            [options.build / "sphereface", "serve", folder / "serve.toml"], stdout=subprocess.PIPE, stderr=log, text=True
        )
        try:
            run(options, cameras, service, chance, wrong)
        finally:
            service.terminate()
            service.wait()
            cameras.stop_all()
            print(f"the service ended with {service.returncode}")
    print("as it should be" if not wrong else "WRONG: " + "; ".join(wrong))
    sys.exit(bool(wrong))


def run(options, cameras, service, chance, wrong):
    address = service.stdout.readline().strip()
    began, end = time.time(), time.time() + 60 * options.minutes

    def all_run(limit_s):
        until = time.time() + limit_s
        while time.time() < until:
            waiting = [name for name, state in sources(address).items() if state["phase"] != "running"]
            if not waiting:
                return []
            time.sleep(0.2)
        return waiting

    waiting = all_run(60)
    if waiting:
        wrong.append(f"{waiting} never ran")
        return
    time.sleep(10)
    threads, descriptors, mib = settled(service.pid)
    print(f"at the beginning: {threads} threads, {descriptors} descriptors, {mib:.0f} MiB", flush=True)
    back, counts, lock, busy = [], {}, threading.Lock(), set()

    def one(number):
        what = trouble(cameras, number, random.Random(chance.random()))
        name, whole = f"camera-{number}", time.time()
        before = sources(address)[name]["frames"]
        while time.time() < whole + 2 * BACK_WITHIN_S:
            state = sources(address)[name]
            if state["phase"] == "running" and state["frames"] > before + 2:
                break
            time.sleep(0.2)
        with lock:
            took = time.time() - whole
            back.append(took)
            counts[what] = counts.get(what, 0) + 1
            busy.discard(number)
            if took > BACK_WITHIN_S:
                wrong.append(f"{name} was {what} and came back after {took:.0f} s")

    started, memory, said, threads_at_work = 0, [], time.time(), []
    while time.time() < end:
        time.sleep(1)
        free = [number for number in range(options.sources) if number not in busy]
        # About one source in ten is disturbed at any time.
        if free and len(busy) < max(1, options.sources // 4) and chance.random() < options.sources / 30:
            number = chance.choice(free)
            busy.add(number)
            thread = threading.Thread(target=one, args=(number,))
            thread.start()
            threads_at_work.append(thread)
            started += 1
        memory.append((time.time() - began, resources(service.pid)[2]))
        if time.time() - said >= 60:
            said = time.time()
            now = resources(service.pid)
            rates = [state["rate"] for state in sources(address).values()]
            print(
                f"{(said - began) / 60:.0f} min: {now[0]} threads, {now[1]} descriptors, {now[2]:.0f} MiB; "
                f"{len(back)} troubles, slowest back after {max(back, default=0):.1f} s; {sum(rates):.0f} frames/s",
                flush=True,
            )
    for thread in threads_at_work:
        thread.join()
    waiting = all_run(BACK_WITHIN_S)
    if waiting:
        wrong.append(f"{waiting} do not run at the end")
    time.sleep(10)
    threads_end, descriptors_end, mib_end = settled(service.pid)
    first = [mib for s, mib in memory if s >= 10 * options.minutes]
    level = statistics.median(first[: max(1, len(first) // 10)])
    last = statistics.median([mib for _, mib in memory[-max(1, len(memory) // 10):]])
    print(f"at the end: {threads_end} threads, {descriptors_end} descriptors, {mib_end:.0f} MiB")
    print(f"troubles: {counts}; back after {statistics.median(back):.1f} s (median), {max(back):.1f} s (slowest)")
    print(f"memory: {level:.0f} MiB after the first sixth, {last:.0f} MiB in the last tenth: {100 * (last / level - 1):+.1f} %")
    for name, before, after in [("threads", threads, threads_end), ("descriptors", descriptors, descriptors_end)]:
        if after > before:
            wrong.append(f"{before} {name} became {after}")
    if last > 1.05 * level:
        wrong.append("memory grew by more than 5 %")


if __name__ == "__main__":
    main()
