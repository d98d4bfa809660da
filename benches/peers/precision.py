"""Measures how many times as fast the embedding networks are in bf16 as in f32, on a CPU that computes in both.
Prints medians of the ratios of turns. `--precision auto` chooses bf16 on CPUs where every measured ratio
was above 1 (src/nn/choice.rs).

    precision.py [--threads 1,2] [--batches 1,4,16] [--rounds 9] [--models sphereface,sphereface20,wide]

`wide` is SphereFace-20 at full width with random weights. Needs numpy and safetensors."""

import argparse
import statistics
import tempfile
from pathlib import Path

import network
from ours import Ours

PROGRAM = Path(__file__).parents[2] / "target/release/sphereface"
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--program", default=PROGRAM)
parser.add_argument("--threads", default="1,2")
parser.add_argument("--batches", default="1,4,16")
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--models", default="sphereface,sphereface20,wide")
options = parser.parse_args()

with tempfile.TemporaryDirectory() as folder:
    wide = f"{folder}/wide.safetensors"
    network.save(network.random_weights(), wide)
    for model in options.models.split(","):
        for threads in map(int, options.threads.split(",")):
            arguments = ["--model", wide if model == "wide" else model, "--threads", threads]
            turns = {batch: [] for batch in map(int, options.batches.split(","))}
            for _ in range(options.rounds):
                found = {}
                for precision in ("f32", "bf16"):
                    # One at a time: idle threads of the other would take part of the cores.
                    ours = Ours(options.program, *arguments, "--precision", precision)
                    for batch in turns:
                        ask = lambda: ours.ask(f"embed {batch}")["time_ms"] / batch
                        ask()
                        found[precision, batch] = statistics.median(ask() for _ in range(max(12, 48 // batch)))
                    ours.close()
                for batch, taken in turns.items():
                    taken.append((found["f32", batch], found["bf16", batch]))
            for batch, taken in turns.items():
                f32, bf16 = map(statistics.median, zip(*taken))
                ratios = sorted(a / b for a, b in taken)
                print(f"{model}, {threads} threads, batch {batch}: f32 {f32:.2f}, bf16 {bf16:.2f} ms per face, "
                      f"{statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
