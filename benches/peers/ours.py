"""Asks the program under test for one measurement at a time."""

import json
import subprocess
import time


class Ours:
    def __init__(self, program, *arguments):
        command = [program, "bench", "--serve", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, request):
        print(request, file=self.process.stdin, flush=True)
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise SystemExit(f"{request}: {answer['error']}")
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def timed(function):
    """Milliseconds of a call, and what it returned."""
    start = time.perf_counter()
    result = function()
    return (time.perf_counter() - start) * 1e3, result


class Cores:
    """Whether this process has the cores to itself. Cores of a virtual machine may share a physical core
    with other machines, or with each other, for minutes. A loop of multiply-adds on all threads shows it."""

    # Share of the rate of one thread times the number of threads.
    QUIET = 0.95

    def __init__(self, ours, threads):
        self.ours, self.threads = ours, threads
        self.peak = max(self._gflops(1) for _ in range(5))
        self.shares = []

    def _gflops(self, threads):
        return self.ours.ask(f"peak {threads}")["gflops"]

    def look(self):
        """Measures once; true if the cores were undisturbed."""
        self.shares.append(self._gflops(self.threads) / self.threads / self.peak)
        return self.shares[-1] >= self.QUIET

    def __str__(self):
        quiet = sum(share >= self.QUIET for share in self.shares)
        return (f"{quiet} of {len(self.shares)} times {self.threads} threads had the cores for themselves, "
                f"at worst {min(self.shares):.0%} of them")
