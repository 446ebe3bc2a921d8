"""Speed and memory, side by side with peers.

Each network runs in a separate process (`worker`), which builds it from a `Job` and runs steps on command. The parent (`pairs`)
alternates steps of this library's network and the peer's. The parent imports no framework. The command is ``keras-deepnets
benchmark``.
"""
