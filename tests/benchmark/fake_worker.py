"""A worker that builds nothing: the real protocol, and steps that are written down. The job's options say what it does.

``log``: a file that gets a line a step, and the process' number first; ``sleep``: seconds of a step; ``chatter``: what a framework would
print; ``die``, ``stop``, ``bad``, ``kill``: the step at which it ends with a word on stderr, fails, finds bad input, is killed.
"""

import os
import signal
import sys
import time
from pathlib import Path

from keras_deepnets.benchmark.side import Side
from keras_deepnets.benchmark.worker import serve
from keras_deepnets.errors import InputError

FACTS = {
    "import_seconds": 0.25,
    "build_seconds": 0.5,
    "parameters": 7,
    "multiply_adds": 1_000_000,
    "image_size": 32,
    "device": "CPU",
    "versions": {"fake": "1.0"},
    "gflops": 12.5,
}


def build(job):
    does, taken = job.options, 0

    def write(text):
        if "log" in does:
            with Path(does["log"]).open("a") as log:
                log.write(f"{job.library} {text}\n")

    def step():
        nonlocal taken
        taken += 1
        write("step")
        time.sleep(does.get("sleep", 0))
        if taken == does.get("die"):
            print("Something else\nthe last word", file=sys.stderr, flush=True)
            os._exit(3)
        if taken == does.get("stop"):
            raise ValueError("two\nlines")
        if taken == does.get("bad"):
            raise InputError("too small")
        if taken == does.get("kill"):
            os.kill(os.getpid(), signal.SIGKILL)

    if "chatter" in does:
        print(does["chatter"], flush=True)
        os.write(1, does["chatter"].encode())
    write(os.getpid())
    return Side(step, FACTS)


if __name__ == "__main__":
    sys.exit(serve(build))
