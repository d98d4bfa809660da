#!/usr/bin/env python3
"""Tries every request of the API with a client that knows only the OpenAPI document (schemathesis).

    make api-client                       # installs schemathesis in target/schemathesis and runs this
    benches/api.py [--seconds 120]

A service with two enrolled people, a camera and an empty library runs in a temporary folder. Failures are answers that
the document does not describe (statuses, content types, bodies), server errors, and invalid data that is accepted.
Valid data may be refused, because no schema can state that a picture shows a face or that a name is free.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Streams do not end, so they are not tried.
STREAMS = ["/api/v1/events/stream", "/api/v1/events/ws", "/api/v1/wall", "/api/v1/sources/{name}/video"]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--program", default=ROOT / "target/release/sphereface", type=pathlib.Path)
    parser.add_argument("--client", default=ROOT / "target/schemathesis/bin/schemathesis", type=pathlib.Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder, samples = pathlib.Path(folder), ROOT / "samples"
        for name in ("Ada", "Boris"):
            stills = sorted(map(str, (samples / "people" / name).iterdir()))
            subprocess.run([options.program, "enroll", name, *stills, "--gallery", folder / "gallery"], check=True)
        subprocess.run([options.program, "library", "add", samples / "people", "--library", folder / "library"], check=True)
        (folder / "serve.toml").write_text(
            "listen = '127.0.0.1:0'\n[library]\npath = 'library'\n[limits]\nrequests_per_s = 0\n"
            f"[[source]]\nname = 'door'\ninput = '{samples / 'sample.mp4'}'\nrepeat = true\n"
        )
        service = subprocess.Popen(
            [options.program, "serve", folder / "serve.toml"], stdout=subprocess.PIPE, text=True
        )
        try:
            address = service.stdout.readline().strip()
            command = [
                options.client, "run", address + "api/openapi.json", "--url", address.rstrip("/"),
                "--max-time", str(options.seconds), "--checks", "all",
                "--exclude-checks", "positive_data_acceptance", "--continue-on-failure", "--seed", "1",
                "--request-timeout", "30", "--no-color",
            ]
            for path in STREAMS:
                command += ["--exclude-path", path]
            code = subprocess.run(command, cwd=folder).returncode
            gone = service.poll()
            if gone is not None:
                print(f"the service ended with {gone}")
            sys.exit(code or gone is not None)
        finally:
            service.terminate()
            service.wait()


if __name__ == "__main__":
    main()
