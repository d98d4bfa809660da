"""Measures how many times as fast the embedding networks are in one number format as in the one before it in a list, on a
CPU that computes in all of them. Prints medians of the ratios of turns. `--precision auto` chooses bf16 on CPUs where
every measured ratio to f32 was above 1 (src/nn/choice.rs).

    precision.py [--precisions f32,bf16] [--threads 1,2] [--batches 1,4,16] [--rounds 9] [--models sphereface,sphereface20,wide]

`wide` is SphereFace-20 at full width with random weights; it has no scales for int8. Needs numpy and safetensors."""

import argparse
import statistics
import tempfile
from pathlib import Path

import network
from ours import Ours

PROGRAM = Path(__file__).parents[2] / "target/release/sphereface"
parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--program", default=PROGRAM)
parser.add_argument("--precisions", default="f32,bf16")
parser.add_argument("--threads", default="1,2")
parser.add_argument("--batches", default="1,4,16")
parser.add_argument("--rounds", type=int, default=9)
parser.add_argument("--models", default="sphereface,sphereface20,wide")
options = parser.parse_args()
precisions = options.precisions.split(",")

with tempfile.TemporaryDirectory() as folder:
    wide = f"{folder}/wide.safetensors"
    network.save(network.random_weights(), wide)
    for model in options.models.split(","):
        for threads in map(int, options.threads.split(",")):
            arguments = ["--model", wide if model == "wide" else model, "--threads", threads]
            turns = {batch: [] for batch in map(int, options.batches.split(","))}
            for _ in range(options.rounds):
                found = {}
                for precision in precisions:
                    # One at a time: idle threads of the other would take part of the cores.
                    ours = Ours(options.program, *arguments, "--precision", precision)
                    for batch in turns:
                        ask = lambda: ours.ask(f"embed {batch}")["time_ms"] / batch
                        ask()
                        found[precision, batch] = statistics.median(ask() for _ in range(max(12, 48 // batch)))
                    ours.close()
                for batch, taken in turns.items():
                    taken.append([found[precision, batch] for precision in precisions])
            for batch, taken in turns.items():
                for at in range(1, len(precisions)):
                    slow, fast = (statistics.median(turn[i] for turn in taken) for i in (at - 1, at))
                    ratios = sorted(turn[at - 1] / turn[at] for turn in taken)
                    print(f"{model}, {threads} threads, batch {batch}: {precisions[at - 1]} {slow:.2f}, {precisions[at]} {fast:.2f} ms "
                          f"per face, {statistics.median(ratios):.2f} times as fast ({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)
