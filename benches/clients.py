#!/usr/bin/env python3
"""Lets many clients ask a service at once who is in a picture.

    benches/clients.py http://127.0.0.1:8470 STILL [--clients 200] [--requests 5]

Prints how often each status was answered, how many refusals had a Retry-After header, the times, and the rate of
every source before and after.
"""
import argparse
import collections
import json
import threading
import time
import urllib.error
import urllib.request


def rates(service):
    with urllib.request.urlopen(service + "/api/v1/sources") as answer:
        return {one["name"]: round(one["state"]["rate"], 2) for one in json.load(answer)["sources"]}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("service")
    parser.add_argument("still")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--requests", type=int, default=5)
    options = parser.parse_args()
    service = options.service.rstrip("/")
    with open(options.still, "rb") as file:
        still = file.read()
    statuses, times, said, lock = collections.Counter(), [], [], threading.Lock()

    def client():
        for _ in range(options.requests):
            start = time.time()
            request = urllib.request.Request(service + "/api/v1/recognise", still, {"Content-Type": "image/jpeg"})
            when = None
            try:
                with urllib.request.urlopen(request, timeout=120) as answer:
                    answer.read()
                    status = answer.status
            except urllib.error.HTTPError as error:
                status, when = error.code, error.headers.get("Retry-After")
            except OSError as error:
                status = type(error).__name__
            with lock:
                statuses[status] += 1
                times.append(time.time() - start)
                said.append(when)

    print("rates before:", rates(service))
    threads = [threading.Thread(target=client) for _ in range(options.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times.sort()
    middle, late = times[len(times) // 2] * 1e3, times[len(times) * 95 // 100] * 1e3
    again = sum(when is not None for when in said)
    print(f"statuses: {dict(statuses)}; with Retry-After: {again}; median {middle:.0f} ms, 95 % {late:.0f} ms")
    time.sleep(2)
    print("rates after:", rates(service))


if __name__ == "__main__":
    main()
