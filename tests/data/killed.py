"""Run as a program by `test_shards`: writes shards, and kills itself as `kill -9` would, at a given moment."""

import os
import resource
import signal
import sys

from keras_deepnets.data import shard_writing


def kill(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def main(source, out, moment):
    if moment == "in the second shard":
        shard_writing.write(
            source, out, 2, split="all", report=lambda done, total: kill() if done == total - 2 else None
        )
    elif moment == "before the index":
        shard_writing.write_json = kill
        shard_writing.write(source, out, 2, split="all")
    elif moment == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        shard_writing.write(source, out, 2, split="all")
    else:
        shard_writing.write(source, out, 2, split="all")


if __name__ == "__main__":
    main(*sys.argv[1:])
