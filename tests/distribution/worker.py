"""Run as a program by the tests: one process of a run. It records the loss of each step on this worker and digests of its weights.

python -m tests.distribution.worker RUN_FOLDER RECORD '{"model": "resnet20", …}' [STEP_TO_PAUSE_AT]
"""

import hashlib
import json
import os
import sys
import time
from pathlib import Path


def main(folder: str, record: str, arguments: str, pause: str = "") -> None:
    import keras
    import tensorflow as tf

    options = json.loads(arguments)
    devices = options.pop("devices", 0)
    if devices and keras.backend.backend() == "tensorflow":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    from keras_deepnets import detection, distribution, training

    if options.get("precision") == "float64":
        keras.config.set_floatx("float64")  # of the loss and the metrics too
    mode = options.get("distribute", "none")
    group = distribution.start() if mode == "multiworker" else distribution.ALONE
    losses: list[float] = []
    delay = options.pop("delay", 0.0)

    class Record(keras.callbacks.Callback):
        """The running mean of the loss after each step."""

        def on_train_batch_begin(self, batch, logs=None):
            time.sleep(delay)

        def on_train_batch_end(self, batch, logs=None):
            losses.append(float(logs["loss"]))
            if pause and len(losses) == int(pause):
                Path(f"{record}.paused").touch()
                end = time.monotonic() + 100
                while not Path(f"{record}.go").exists() and time.monotonic() < end:
                    time.sleep(0.05)

    given = {"recipe": "fast", "verbose": 2, "callbacks": [Record()], **options}
    train = detection.train if given.pop("task", "") == "detection" else training.train
    run = train(given.pop("model"), given.pop("data"), given.pop("recipe"), folder, **given)
    weights = hashlib.sha256(b"".join(weight.tobytes() for weight in run.model.get_weights())).hexdigest()
    found = {"losses": losses, "weights": weights, "history": run.history, "worker": group.index}
    if run.evaluation is not None:
        found["evaluation"] = run.evaluation.to_dict()
    Path(record).write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    main(*sys.argv[1:])
