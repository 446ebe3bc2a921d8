"""Training and inference on one GPU: this library on JAX against PyTorch, eager and compiled.

    KERAS_BACKEND=jax python -m benchmarks.gpu
    KERAS_BACKEND=jax python -m benchmarks.gpu resnet20 resnet20-torch --cifar cifar --out gpu.json

Each piece takes less than eight minutes on a data-centre GPU. Without names, all pieces run, the most telling first. The results go to a
JSON file and to a Markdown table next to it. Pieces that ran before are kept, so one table can come from several sessions.

This needs JAX, PyTorch and torchvision with their GPU libraries. The pieces of whole recipes read their images with TensorFlow on the CPU.

Speed and memory: all sides compute in bfloat16 with float32 weights (PyTorch: autocast, channels last), on images in GPU memory. A
training step is a forward pass, a backward pass and an SGD update with momentum. The sides alternate, and a row shows the median of the
rounds. The share of the peak is that of the speed of a large bfloat16 matrix product on the same card.

Recipes: `resnet20` and `resnet56` train 64,000 steps by the recipe `he2015_cifar`. Their twins `…-torch` train by the same schedule on
the same images. `fast` and `imagenette` measure the time to an accuracy.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory on the same GPU

Side = Callable[[int], float]
"""Function that runs a number of steps and returns their seconds."""
Row = dict[str, Any]

SPEED = ("resnet50", "densenet121", "resnext50_32x4d", "wideresnet28_10")
RECIPES = ("resnet20", "resnet20-torch", "resnet56", "resnet56-torch")
PIECES = (*SPEED, "memory", "resnet20", "resnet20-torch", "fast", "imagenette", "resnet56", "resnet56-torch")
TARGETS = (0.8, 0.9, 0.92)
"""Validation accuracies to which `fast` and `imagenette` measure the time."""


def small(name: str) -> bool:
    """Whether a network is one for images of 32 pixels."""
    return name.startswith("wideresnet28")


def _four_digits(value: float) -> float:
    """`value` with four significant digits."""
    return float(f"{value:.4g}")


def ours(name: str, batch: int, size: int, training: bool, **options: Any) -> tuple[Side, Any]:
    """This library's network as one jitted function, with donated buffers in training.

    Returns:
        The side, and the compiled function.
    """
    import jax
    import keras
    from jax import numpy as jnp

    import keras_deepnets as kd

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kd.create_model(name, input_shape=(size, size, 3), classifier_activation=None, **options)
    images = jax.random.normal(jax.random.PRNGKey(0), (batch, size, size, 3), jnp.bfloat16)
    labels = jnp.arange(batch) % model.output_shape[-1]
    weights = [variable.value for variable in model.trainable_variables]
    rest = [variable.value for variable in model.non_trainable_variables]
    if not training:
        infer = jax.jit(lambda weights, rest, images: model.stateless_call(weights, rest, images, training=False)[0])
        compiled = infer.lower(weights, rest, images).compile()

        def run(steps: int) -> float:
            start = time.perf_counter()
            for _ in range(steps):
                result = compiled(weights, rest, images)
            jax.block_until_ready(result)
            return time.perf_counter() - start

        return run, compiled

    def loss(weights: Any, rest: Any, images: Any) -> tuple[Any, Any]:
        logits, rest = model.stateless_call(weights, rest, images, training=True)
        chosen = jax.nn.log_softmax(logits.astype(jnp.float32))
        return -jnp.take_along_axis(chosen, labels[:, None], 1).mean(), rest

    def step(weights: Any, rest: Any, momenta: Any, images: Any) -> tuple[Any, Any, Any]:
        (_, rest), gradients = jax.value_and_grad(loss, has_aux=True)(weights, rest, images)
        momenta = [0.9 * momentum + gradient for momentum, gradient in zip(momenta, gradients, strict=True)]
        return [weight - 1e-4 * momentum for weight, momentum in zip(weights, momenta, strict=True)], rest, momenta

    state = jax.tree.map(jnp.array, (weights, rest, [jnp.zeros_like(weight) for weight in weights]))
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, images).compile()

    def train(steps: int) -> float:
        nonlocal state
        start = time.perf_counter()
        for _ in range(steps):
            state = compiled(*state, images)
        jax.block_until_ready(state)
        return time.perf_counter() - start

    return train, compiled


def theirs(name: str, batch: int, size: int, training: bool, compiled: bool) -> Side:
    """The same network in PyTorch: torchvision's, or a twin."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cudnn.benchmark = True
    if small(name):
        from benchmarks.torch_twins import twin

        model = twin(name)
    else:
        import torchvision

        model = torchvision.models.get_model(name)
    model = model.to(device, memory_format=torch.channels_last).train(training)
    images = torch.randn(batch, 3, size, size, device=device).to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % (10 if small(name) else 1000)
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(forward(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def infer() -> None:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16):
            forward(images)

    def run(steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step() if training else infer()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return run


def peak(side: int) -> float:
    """Floating-point operations a second of a bfloat16 matrix product of this size."""
    import jax
    from jax import numpy as jnp

    matrix = jnp.ones((side, side), jnp.bfloat16)
    product = jax.jit(lambda a, b: a @ b)
    jax.block_until_ready(product(matrix, matrix))
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds)


def speed(name: str, asked: argparse.Namespace) -> Iterator[Row]:
    """Training and inference of one network, against PyTorch."""
    import keras_deepnets as kd

    size = 32 if small(name) else 64 if asked.toy else 224
    batch = asked.batch or (4 if asked.toy else 1024 if small(name) else 256)
    steps, rounds = (1, 1) if asked.toy else (20, 5)
    highest = peak(256 if asked.toy else 8192)
    share = (size / kd.model_info(name).input_shape[0]) ** 2
    flops = 2 * kd.model_info(name).flops * share  # a multiplication and an addition
    for mode in ("train", "inference"):
        common = (name, batch, size, mode == "train")
        sides = {"ours": ours(*common)[0], "torch": theirs(*common, False), "torch.compile": theirs(*common, True)}
        first = {side: round(run(3), 1) for side, run in sides.items()}
        seconds: dict[str, list[float]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, run in sides.items():
                seconds[side].append(run(steps))
        rates = {side: batch * steps / statistics.median(times) for side, times in seconds.items()}
        row: Row = {"network": name, "mode": mode, "batch": batch, "image size": size}
        row |= {f"{side} img/s": _four_digits(rate) for side, rate in rates.items()}
        row |= {f"ours / {side}": round(rates["ours"] / rates[side], 3) for side in sides if side != "ours"}
        work = flops * (3 if mode == "train" else 1)
        row["share of peak"] = round(rates["ours"] * work / highest, 3)
        yield row | {"first 3 steps s": first}


def kept_bytes(name: str, batch: int, size: int, **options: Any) -> int:
    """Bytes that a training step keeps from the forward pass for the backward pass, weights included."""
    import jax
    import keras
    from jax import numpy as jnp

    import keras_deepnets as kd

    keras.config.set_dtype_policy("mixed_bfloat16")
    model = kd.create_model(name, input_shape=(size, size, 3), classifier_activation=None, **options)
    rest = [variable.value for variable in model.non_trainable_variables]
    images = jnp.zeros((batch, size, size, 3), jnp.bfloat16)

    def backward(weights: Any) -> Any:
        return jax.vjp(lambda weights: model.stateless_call(weights, rest, images, training=True)[0], weights)[1]

    kept = jax.eval_shape(backward, [variable.value for variable in model.trainable_variables])
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


def memory(asked: argparse.Namespace) -> Iterator[Row]:
    """Memory of a training step of a DenseNet with and without `memory_efficient`.

    Temporary memory is as XLA plans it. On CPUs, XLA removes the recomputation, so `memory_efficient` changes nothing there.
    """
    size, batch = (32, 2) if asked.toy else (224, 128)
    for efficient in (False, True):
        run, compiled = ours("densenet121", batch, size, True, memory_efficient=efficient)
        run(1)
        plan = compiled.memory_analysis()
        yield {
            "network": "densenet121",
            "mode": f"train, memory_efficient={efficient}",
            "batch": batch,
            "image size": size,
            "kept MB": round(kept_bytes("densenet121", batch, size, memory_efficient=efficient) / 1e6, 1),
            "temporary MB": round(plan.temp_size_in_bytes / 1e6, 1),
            "ours img/s": _four_digits(batch / run(1)),
        }


def recipe_sets(asked: argparse.Namespace) -> tuple[Any, Any]:
    """The training and test images of the recipes on CIFAR-10."""
    import keras_deepnets as kd

    source = "digits" if asked.toy else asked.cifar
    return kd.data.load(source, "train"), kd.data.load(source, "test")


def recipe(name: str, asked: argparse.Namespace) -> Iterator[Row]:
    """A network of the ResNet paper, trained by `he2015_cifar`: ours, or its twin in PyTorch."""
    from keras_deepnets import training

    network, _, engine = name.partition("-")
    train_set, test_set = recipe_sets(asked)
    plan = training.get_recipe("he2015_cifar", steps=10 if asked.toy else 64_000)
    if engine:
        accuracy, seconds = twin_of(network, train_set, test_set, plan, compiled=not asked.toy)
    else:
        run = training.train(
            network,
            train_set,
            plan,
            validation=False,
            precision="mixed_bfloat16",
            run_dir=asked.runs / network,
        )
        accuracy, seconds = training.evaluate(run.model, test_set).top1, sum(run.history["seconds"])
    mode = f"he2015_cifar, {plan.steps:,} steps"
    yield {"network": name, "mode": mode, "test error %": round(100 * (1 - accuracy), 2), "seconds": round(seconds)}


def twin_of(network: str, train_set: Any, test_set: Any, plan: Any, compiled: bool) -> tuple[float, float]:
    """Accuracy and seconds of the twin of a network, trained by the same recipe in its own process."""
    import numpy as np

    arrays = {}
    for part, data in (("", train_set), ("test_", test_set)):
        images, labels = zip(*data.examples().as_numpy_iterator(), strict=True)
        arrays |= {f"{part}images": np.stack(images), f"{part}labels": np.stack(labels)}
    fields = ("steps", "batch_size", "learning_rate", "milestones", "drop", "momentum", "weight_decay")
    settings = {name: getattr(plan, name) for name in fields} | {"compiled": compiled}
    with tempfile.TemporaryDirectory() as folder:
        images_file, settings_file = Path(folder) / "images.npz", Path(folder) / "settings.json"
        np.savez(images_file, **arrays)
        settings_file.write_text(json.dumps(settings))
        command = [sys.executable, "-m", "benchmarks.torch_twins", network, str(images_file), str(settings_file)]
        done = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)
    return done["accuracy"], done["seconds"]


def to_accuracy(name: str, network: str, source: Any, asked: argparse.Namespace, **options: Any) -> Row:
    """Train by a recipe. The row has the seconds to each of `TARGETS`."""
    from keras_deepnets import training

    run = training.train(network, source, run_dir=asked.runs / name, precision="mixed_bfloat16", **options)
    spent, row = 0.0, {"network": network, "mode": f"{name}, {len(run.history['loss'])} epochs"}
    for accuracy, seconds in zip(run.history["val_accuracy"], run.history["seconds"], strict=True):
        spent += seconds
        for target in TARGETS:
            if accuracy >= target:
                row.setdefault(f"seconds to {target:.0%}", round(spent))
    return row | {"test error %": round(100 * (1 - run.history["val_accuracy"][-1]), 2), "seconds": round(spent)}


def fast(asked: argparse.Namespace) -> Iterator[Row]:
    """The recipe `fast` on CIFAR-10."""
    from keras_deepnets import training

    sets = training.Sets(*recipe_sets(asked))
    more = {"epochs": 1, "batch_size": 64} if asked.toy else {}
    yield to_accuracy("fast", "resnet20", sets, asked, recipe="fast", **more)


def imagenette(asked: argparse.Namespace) -> Iterator[Row]:
    """fast.ai's leaderboard: 20 and 80 epochs at 128 pixels."""
    source = "digits" if asked.toy else asked.imagenette
    more = {"limit": 64, "image_size": 32, "batch_size": 32} if asked.toy else {}
    for epochs in (1,) if asked.toy else (20, 80):
        name = f"imagenette-{epochs}"
        yield to_accuracy(name, "resnet18", source, asked, recipe="imagenette_20", epochs=epochs, **more)


def run_piece(name: str, asked: argparse.Namespace) -> Iterable[Row]:
    """The rows of a piece."""
    if name in SPEED:
        return speed(name, asked)
    if name in RECIPES:
        return recipe(name, asked)
    return {"memory": memory, "fast": fast, "imagenette": imagenette}[name](asked)


def card() -> str:
    """The name of the device that JAX computes on."""
    import jax

    return str(jax.devices()[0].device_kind)


def table(results: dict[str, list[Row]]) -> str:
    """All rows as Markdown: one table for each set of columns."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    for rows in results.values():
        for row in rows:
            tables.setdefault(tuple(name for name in row if not name.startswith(("first", "seconds to"))), []).append(
                row
            )
    lines: list[str] = []
    for columns, rows in tables.items():
        extra = sorted({name for row in rows for name in row if name.startswith("seconds to")})
        lines += ["", "| " + " | ".join([*columns, *extra]) + " |", "|" + "---|" * (len(columns) + len(extra))]
        lines += ["| " + " | ".join(str(row.get(name, "–")) for name in [*columns, *extra]) + " |" for row in rows]
    return "\n".join(lines[1:]) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pieces", nargs="*", metavar="PIECE", help=f"{', '.join(PIECES)}; default: all, in this order")
    parser.add_argument("--batch", type=int, help="images per step of the speed pieces (256; 1,024 at 32 pixels)")
    parser.add_argument("--cifar", help="folder of CIFAR-10 with train and test, or cifar10 for TFDS")
    parser.add_argument("--imagenette", help="folder of imagenette2-160")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"), help="JSON file of the results (gpu.json)")
    parser.add_argument("--runs", type=Path, default=Path("runs/gpu"), help="folder of the runs (runs/gpu)")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, to try the script without a GPU")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)  # of one piece, in this process
    asked = parser.parse_args(arguments)
    if unknown := [name for name in asked.pieces if name not in PIECES]:
        parser.error(f"{', '.join(unknown)}: choose from {', '.join(PIECES)}.")
    if os.environ.get("KERAS_BACKEND") != "jax":
        parser.error("this runs under JAX; set KERAS_BACKEND=jax.")
    lacking = {name: "--cifar" for name in (*RECIPES, "fast") if asked.cifar is None}
    lacking |= {"imagenette": "--imagenette"} if asked.imagenette is None else {}
    lacking = {} if asked.toy else lacking
    for name in asked.pieces:
        if name in lacking:
            parser.error(f"piece {name} needs {lacking[name]} FOLDER.")
    if asked.rows:
        with asked.rows.open("w") as file:
            for row in run_piece(asked.pieces[0], asked):
                file.write(json.dumps(row | {"device": card()}) + "\n")
                print(json.dumps(row), flush=True)
        return
    found = json.loads(asked.out.read_text()) if asked.out.exists() else {"pieces": {}}
    words = sys.argv[1:] if arguments is None else arguments
    options = [word for word in words if word not in asked.pieces]
    for name in asked.pieces or PIECES:
        if name in lacking:
            print(f"{name} is left out: it needs {lacking[name]} FOLDER.", file=sys.stderr)
            continue
        start = time.perf_counter()
        rows = in_its_own_process(name, options)
        found["device"] = rows[0].pop("device")
        found["pieces"][name] = [{key: value for key, value in row.items() if key != "device"} for row in rows]
        asked.out.write_text(json.dumps(found, indent=2) + "\n")
        asked.out.with_suffix(".md").write_text(f"Device: {found['device']}\n\n{table(found['pieces'])}")
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def in_its_own_process(name: str, options: list[str]) -> list[Row]:
    """The rows of a piece. A process loads PyTorch's compiler or TensorFlow, because both together crash."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.gpu", name, *options, "--rows", str(path)], check=False
        )
        if done.returncode:
            raise SystemExit(f"Piece {name} ended with status {done.returncode}. The results before it are saved.")
        return [json.loads(line) for line in path.read_text().splitlines()]


if __name__ == "__main__":
    main()
