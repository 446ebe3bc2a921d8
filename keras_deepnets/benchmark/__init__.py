"""Speed and memory, side by side with peers.

Each network that is measured lives in a process of its own (`worker`), which builds it from a `Job` and takes a step whenever it is
told to. The parent (`pairs`) lets ours and the peer's take turns, and imports no framework. `memory` compares peak memory
against depth. The command is ``keras-deepnets benchmark``.
"""
