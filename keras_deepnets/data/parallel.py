"""How pipelines use the processors. The numbers are fixed, because TensorFlow's autotuning can block the process.

With `tf.data.AUTOTUNE`, a thread sleeps for up to 60 s between two decisions. The process waits for it when an iterator
is deleted. TensorFlow (2.21) wakes the thread before it sets the flag that ends it. If the thread looks at the flag too
early, it sleeps again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_deepnets import processor

if TYPE_CHECKING:
    import tensorflow as tf

READY = 4
"""Elements that a pipeline prepares in advance."""


def calls(per_processor: int = 1) -> int:
    """Return the number of calls that a `map` makes at the same time, from that for each processor that this process may use."""
    return per_processor * len(processor.usable())


def options() -> tf.data.Options:
    """Return options without autotuning. The order of the elements is fixed, and each iterator has its own threads.

    Idle threads of TensorFlow's own pool keep a processor busy for a while, in case more work comes. Those of an iterator do not.
    """
    import tensorflow as tf

    found = tf.data.Options()
    found.autotune.enabled = False
    found.deterministic = True
    found.threading.private_threadpool_size = calls()
    return found
