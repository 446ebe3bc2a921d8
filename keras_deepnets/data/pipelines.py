"""Input pipelines from a store of images to batches: in fixed order for evaluation, in seeded epochs for training.

Several workers can share each batch. All randomness is a pure function of (seed, epoch), computed with stateless operations. Epoch 7
is the same whether or not the earlier epochs ran in this process, and for any number of threads.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_deepnets.data import memory, parallel, transforms
from keras_deepnets.data.augmentation import Policy
from keras_deepnets.data.records import RecordStore
from keras_deepnets.data.stores import ArrayPixels, IndexedStore, Store, empty, in_order, indexed

if TYPE_CHECKING:
    import tensorflow as tf

VIEW_BUDGET = memory.share(16, 1 << 29, 8 << 30)
"""Bytes of resized images that a data set may keep in memory, so that later epochs need not decode and resize them again."""

_OPENED = 2
"""Images that a pipeline opens at the same time for each processor. The next one can then start although an earlier one is not finished."""


@dataclass(frozen=True)
class View:
    """The arguments of `transforms.evaluation_view`, which turns images into inputs of one size."""

    height: int
    width: int
    channels: int
    crop_fraction: float = 1.0
    interpolation: str = "bilinear"

    def __call__(self, images: Any) -> tf.Tensor:
        """Apply the view to ``[h, w, c]`` or ``[b, h, w, c]``."""
        return transforms.evaluation_view(
            images, self.height, self.width, self.channels, self.crop_fraction, self.interpolation
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        return (self.height, self.width, self.channels)

    def fits(self, store: Store) -> bool:
        """Whether the store's images at this size fit the memory budget."""
        return store.size * math.prod(self.shape) <= VIEW_BUDGET


@dataclass(frozen=True)
class Share:
    """The part of each batch that one worker reads.

    Of images with random access, worker k of n reads the k-th n-th of every batch. The workers together read the batches of a single
    process. Of a stream of records, each worker reads an equal part of the records, mostly whole files.

    Attributes:
        index: Number of the worker, from 0.
        count: Number of workers. It divides the batch size.
    """

    index: int = 0
    count: int = 1

    def rows(self, values: tf.Tensor, batch_size: int) -> tf.Tensor:
        """The rows of this worker, of ``values`` in the order of whole batches. An incomplete last batch is left out."""
        import tensorflow as tf

        if self.count == 1:
            return values
        steps, rows = tf.shape(values)[0] // batch_size, tf.shape(values)[1:]
        shape = tf.concat([[steps, self.count, batch_size // self.count], rows], 0)
        batches = tf.reshape(values[: steps * batch_size], shape)
        return tf.reshape(batches[:, self.index], tf.concat([[-1], rows], 0))


def materialise(store: Store, view: View) -> IndexedStore:
    """Load every image of the store into memory at the view's size, in the store's order."""
    import tensorflow as tf

    images = empty((store.size, *view.shape))
    labels = np.empty(store.size, np.int64)
    start = 0
    for some_images, some_labels in _opened(store, view).batch(256).prefetch(2).as_numpy_iterator():
        stop = start + len(some_labels)
        images[start:stop], labels[start:stop] = some_images, some_labels
        start = stop
    if start != store.size:
        raise tf.errors.DataLossError(None, None, f"the store promised {store.size} examples but gave {start}.")
    return in_order(ArrayPixels(images), labels)


def _opened(store: Store, view: View) -> tf.data.Dataset:
    """(image at the view's size, label) of every example, in the fixed order."""
    return store.read().map(lambda payload, label: (view(store.open(payload)), label), parallel.calls(_OPENED))


def steps_of(size: int, batch_size: int, drop_remainder: bool) -> int:
    """Number of batches for ``size`` examples."""
    return size // batch_size if drop_remainder else -(-size // batch_size)


def evaluation(store: Store, view: View, batch_size: int, drop_remainder: bool) -> tf.data.Dataset:
    """Batches in the fixed order: (uint8 ``[b, h, w, c]``, int64 ``[b]``)."""
    import tensorflow as tf

    is_array = _is_array(store, view)
    if is_array:
        select = _selector(store, batch_size, drop_remainder)
        steps = steps_of(store.size, batch_size, drop_remainder)
        order = tf.range(store.size, dtype=tf.int64)
        dataset = tf.data.Dataset.range(steps).map(lambda step: select(order, step)[:2], parallel.calls())
    else:
        dataset = _opened(store, view).batch(batch_size, drop_remainder)
        if view.fits(store):
            dataset = dataset.cache()
    return _finish(dataset, is_array)


def training(
    store: Store,
    view: View,
    policy: Policy,
    batch_size: int,
    drop_remainder: bool,
    seed: int,
    first_epoch: int,
    repeat: bool,
    classes: int,
    copies: int = 1,
    first_step: int = 0,
    share: Share | None = None,
) -> tf.data.Dataset:
    """Batches of shuffled, augmented epochs: (uint8 ``[b, h, w, c]``, int64 ``[b]``). Mixed images have labels float32 ``[b, classes]``.

    With ``copies`` an epoch keeps its number of images but shows only a part of the data set. Each image appears ``copies`` times in a
    row, with a different augmentation each time (repeated augmentation: Hoffer et al. 2019; Berman et al. 2019).

    With ``repeat`` the result is one endless dataset that starts with batch ``first_step`` of ``first_epoch``. Without it, each iterator
    runs through one epoch: the first through ``first_epoch``, the second through the next.
    """
    import tensorflow as tf

    share, salt = share or Share(), 0
    if isinstance(store, RecordStore) and share.count > 1:
        each = store.size // share.count  # the same number for every worker, so that all do the same number of steps
        store, salt = store.between(share.index * each, (share.index + 1) * each), share.index
        batch_size, share = batch_size // share.count, Share()
    steps = steps_of(store.size, batch_size, drop_remainder)
    is_array = policy.window is None and _is_array(store, view)
    make = _array_epoch if is_array else _single_epoch
    plan = _Plan(batch_size, drop_remainder, seed, salt, copies, share, first_step)
    epoch = make(store, view, policy, plan, classes)
    if repeat:
        epochs = tf.data.Dataset.counter(start=first_epoch)
        dataset = epochs.flat_map(lambda number: epoch(number, tf.where(number == first_epoch, first_step, 0)))
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))
    else:
        # A Python counter instead of a variable: it works the same under any distribution strategy and is placed on no device.
        counter = itertools.count(first_epoch)
        current = tf.data.Dataset.range(1).map(
            lambda _: tf.ensure_shape(tf.numpy_function(lambda: np.int64(next(counter)), [], tf.int64), [])
        )
        dataset = current.flat_map(lambda number: epoch(number, 0)).apply(
            tf.data.experimental.assert_cardinality(steps)
        )
    return _finish(dataset, is_array)


def _is_array(store: Store, view: View) -> bool:
    """Whether batches can be gathered from one array without resizing."""
    return isinstance(store, IndexedStore) and isinstance(store.pixels, ArrayPixels) and store.image_shape == view.shape


@dataclass(frozen=True)
class _Plan:
    """How epochs are divided into batches. `salt` varies the seeds of workers that read different records."""

    batch_size: int
    drop_remainder: bool
    seed: int
    salt: int
    copies: int
    share: Share
    first_step: int

    @property
    def own(self) -> int:
        """Images per batch of this worker."""
        return self.batch_size // self.share.count

    @property
    def is_whole(self) -> bool:
        """Whether this worker reads all images of every epoch."""
        return self.share.count == 1 and not self.first_step

    def chosen(self, values: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
        """The rows of this worker from batch `first` on, of ``values`` in the order of the epoch."""
        import tensorflow as tf

        if self.is_whole:
            return values
        return self.share.rows(values[tf.cast(first, tf.int64) * self.batch_size :], self.batch_size)


def _selector(store: Store, batch_size: int, drop_remainder: bool, share: Share = Share()) -> Callable:
    """A function from an order of the examples and a step to a batch: images, labels, first position, last position."""
    import tensorflow as tf

    store = indexed(store)
    assert isinstance(store.pixels, ArrayPixels)  # the caller has asked `_is_array`
    images, (rows, labels) = store.pixels.tensor, store.tensors
    full = drop_remainder or store.size % batch_size == 0
    own = batch_size // share.count

    def select(order, step):
        start = step * batch_size + share.index * own
        stop = tf.minimum(start + own, store.size)
        some = order[start:stop]
        some.set_shape([own if full else None])
        return tf.gather(images, tf.gather(rows, some)), tf.gather(labels, some), start, stop

    return select


def _seeds(seed: int, epoch: tf.Tensor, salt: int = 0) -> tuple[tf.Tensor, tf.Tensor]:
    """The stateless seeds of an epoch: one for its order and one for its augmentation."""
    import tensorflow as tf

    base = tf.stack([tf.constant(seed, tf.int64), tf.cast(epoch, tf.int64)])
    if salt:
        base = tf.random.experimental.stateless_fold_in(base, 1 + salt, alg="philox")
    return base, tf.random.experimental.stateless_fold_in(base, 1, alg="philox")


def _draws(store: Store, policy: Policy, seed: tf.Tensor) -> tf.Tensor:
    """The uniform numbers of an epoch, float32 ``[n, draws]``, by position in the epoch."""
    import tensorflow as tf

    return tf.random.stateless_uniform([store.size, policy.draws], seed, alg="philox")


def _varied(
    policy: Policy, images: tf.Tensor, labels: tf.Tensor, draws: tf.Tensor, classes: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply the policy to a batch."""
    import tensorflow as tf

    if policy.batch is not None:
        images = tf.ensure_shape(policy.batch(images, draws), images.shape)
    if policy.mix is None:
        return images, labels
    return policy.mix(images, tf.one_hot(labels, classes), draws)


def _array_epoch(store: Store, view: View, policy: Policy, plan: _Plan, classes: int) -> Callable:
    """An epoch of equal-sized images in memory: whole batches are gathered and augmented at once."""
    import tensorflow as tf

    select = _selector(store, plan.batch_size, plan.drop_remainder, plan.share)
    steps = steps_of(store.size, plan.batch_size, plan.drop_remainder)

    def epoch(number, first):
        order_seed, draws_seed = _seeds(plan.seed, number)
        order = tf.range(store.size, dtype=tf.int64)
        order = tf.random.experimental.stateless_shuffle(order, order_seed, alg="philox")
        if plan.copies > 1:
            order = tf.repeat(order[: -(-store.size // plan.copies)], plan.copies)[: store.size]
        draws = _draws(store, policy, draws_seed)

        def batch(step):
            images, labels, start, stop = select(order, step)
            return _varied(policy, images, labels, draws[start:stop], classes)

        return tf.data.Dataset.range(tf.cast(first, tf.int64), steps).map(batch, parallel.calls(), deterministic=True)

    return epoch


def _single_epoch(store: Store, view: View, policy: Policy, plan: _Plan, classes: int) -> Callable:
    """An epoch of any other store: each image is opened and resized separately, then batched."""
    import tensorflow as tf

    whole = View(view.height, view.width, view.channels, 1.0, view.interpolation)
    # Decoding at a reduced size averages pixels, of which "nearest" would choose one.
    size = None if view.interpolation == "nearest" else (view.height, view.width)

    def single(example, draws):
        payload, label = example
        window = policy.window
        if window is None:
            return view(store.open(payload)), label, draws
        # The window already crops at random. So keep all of it, stretched to the network's size.
        part = store.open(payload, lambda height, width: window(height, width, draws), size)
        image = stretch(part, whole)
        return (image if policy.image is None else policy.image(image, draws)), label, draws

    def batch(images, labels, draws):
        return _varied(policy, images, labels, draws, classes)

    def repeated(examples):
        part = examples.take(-(-store.size // plan.copies))
        return part.flat_map(lambda *example: tf.data.Dataset.from_tensors(example).repeat(plan.copies)).take(
            store.size
        )

    def read(order_seed, first):
        if isinstance(store, IndexedStore) and not plan.is_whole:  # any order is possible: leave out before reading

            def choose(order):
                if plan.copies > 1:
                    order = tf.repeat(order[: -(-store.size // plan.copies)], plan.copies)[: store.size]
                return plan.chosen(order, first)

            return store.read(order_seed, choose)
        examples = store.read(order_seed)
        examples = repeated(examples) if plan.copies > 1 else examples
        return examples if plan.is_whole else examples.skip(tf.cast(first, tf.int64) * plan.batch_size)

    def epoch(number, first):
        order_seed, draws_seed = _seeds(plan.seed, number, plan.salt)
        draws = plan.chosen(_draws(store, policy, draws_seed), first)
        dataset = tf.data.Dataset.zip(read(order_seed, first), tf.data.Dataset.from_tensor_slices(draws))
        dataset = dataset.map(single, parallel.calls(_OPENED), deterministic=True).batch(plan.own, plan.drop_remainder)
        return dataset.map(batch, parallel.calls(), deterministic=True)

    return epoch


def stretch(image: tf.Tensor, view: View) -> tf.Tensor:
    """Resize ``[h, w, c]`` to the view's size without keeping the aspect ratio, antialiased when shrinking."""
    import tensorflow as tf

    resized = transforms.stretched(image[tf.newaxis], view.height, view.width, view.interpolation)[0]
    return transforms.convert_channels(tf.ensure_shape(resized, [view.height, view.width, None]), view.channels)


def _finish(dataset: tf.data.Dataset, is_array: bool) -> tf.data.Dataset:
    """Set the final options and prefetching of every pipeline."""
    import tensorflow as tf

    options = parallel.options()
    if is_array:  # graph rewriting would copy the whole array for each iterator and improve nothing
        options.experimental_optimization.apply_default_optimizations = False
    # Images are already processed in parallel. Dividing each operation among threads as well takes more time than it saves.
    options.threading.max_intra_op_parallelism = 1
    # Examples in memory have no files to shard by, so workers share the batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return dataset.prefetch(parallel.READY).with_options(options)
