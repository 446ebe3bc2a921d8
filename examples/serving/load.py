"""Load test of a served model: throughput and latency with many clients at once.

    python load.py --model digits --clients 16 --seconds 20 one.png
    python load.py --model digits --grpc localhost:8500 --batch 8 one.png two.jpg

Every client sends its next request as soon as the last one is answered (a closed loop). So the server always has `--clients`
requests in flight. Set this number to what your users have in flight. The script never retries: a refused request counts as failed.
Prints the number of requests, the throughput, and the latency percentiles.
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rest_client import RestClient, ServerError


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of sorted `values`: the smallest value that at least `percent` of them do not exceed."""
    return values[max(math.ceil(percent / 100 * len(values)), 1) - 1]


def measure(
    calls: Sequence[Callable[[], None]], seconds: float, failures: tuple[type[Exception], ...]
) -> tuple[list[float], list[Exception], float]:
    """Run each call repeatedly in a separate thread.

    Returns:
        Sorted durations of the answered calls in seconds, the errors of the other calls, and the seconds from the start to the last
        answer.
    """
    waits: list[float] = []
    errors: list[Exception] = []
    ready = threading.Barrier(len(calls) + 1)

    def client(call: Callable[[], None]) -> None:
        ready.wait()
        end = time.perf_counter() + seconds
        while (start := time.perf_counter()) < end:
            try:
                call()
            except failures as error:
                errors.append(error)
                time.sleep(0.05)  # do not flood a server that is down
            else:
                waits.append(time.perf_counter() - start)

    threads = [threading.Thread(target=client, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return sorted(waits), errors, time.perf_counter() - start


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="JPEG or PNG files, sent in rotation")
    parser.add_argument("--model", required=True, help="name of the model in models.config")
    parser.add_argument("--url", default="http://localhost:8501", help="address of the REST API")
    parser.add_argument("--grpc", metavar="HOST:PORT", help="use gRPC instead of REST")
    parser.add_argument("--clients", type=int, default=8, help="number of simultaneous requests")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=1, help="images per request")
    parser.add_argument("--deadline", type=float, default=10.0, help="time limit of a request in seconds")
    args = parser.parse_args()
    if args.clients < 1 or args.batch < 1 or args.seconds <= 0:
        parser.error("--clients, --batch and --seconds must be positive.")
    try:
        files = [path.read_bytes() for path in args.images]
    except OSError as error:
        parser.error(str(error))
    batches = [[files[(start + i) % len(files)] for i in range(args.batch)] for start in range(len(files))]
    failures: tuple[type[Exception], ...] = (ServerError,)
    clients = []
    for _ in range(args.clients):
        if args.grpc:
            import grpc
            from grpc_client import GrpcClient

            failures = (ServerError, grpc.RpcError)
            clients.append(GrpcClient(args.grpc, args.model, deadline=args.deadline))
        else:
            clients.append(RestClient(args.url, args.model, deadline=args.deadline, retries=0))
    try:
        for client in clients:  # connect, and find a wrong name or file before the measurement
            client.predict_files(batches[0])
    except failures as error:
        print(f"load: {error}", file=sys.stderr)
        return 1

    def caller(client: RestClient, number: int) -> Callable[[], None]:
        turn = itertools.cycle(batches[number % len(batches) :] + batches[: number % len(batches)])
        return lambda: client.predict_files(next(turn))

    waits, errors, seconds = measure(
        [caller(client, number) for number, client in enumerate(clients)], args.seconds, failures
    )
    rate = len(waits) / seconds
    print(
        f"{len(waits)} requests in {seconds:.1f} s, {len(errors)} failed; {args.clients} clients, {args.batch} images each"
    )
    print(f"throughput  {rate:.1f} requests/s  {rate * args.batch:.1f} images/s")
    if waits:
        points = "  ".join(f"p{percent} {1000 * percentile(waits, percent):.1f} ms" for percent in (50, 90, 99))
        print(f"latency     {points}  max {1000 * waits[-1]:.1f} ms")
    for error, count in {str(error): sum(str(other) == str(error) for other in errors) for error in errors}.items():
        print(f"failed {count} times: {error}", file=sys.stderr)
    return 0 if waits and not errors else 1


if __name__ == "__main__":
    sys.exit(main())
