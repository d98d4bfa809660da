"""The program under test, asked for one measurement at a time."""

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
