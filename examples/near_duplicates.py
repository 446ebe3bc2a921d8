"""Find near duplicates among images: pairs whose features point in almost the same direction.

    python near_duplicates.py runs/photos photos                # a run folder or a .keras file, and images
    python near_duplicates.py runs/photos photos --least 0.97   # less similar pairs too

Needs ``pip install "keras-deepnets[beam]"``. An interrupted call continues where it was. The script prints a line for each pair, the
most similar first: the cosine similarity and the two names. The last line is ``… pairs among … images``.
"""

import argparse

import numpy as np
from pyarrow import parquet

import keras_deepnets as kd

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("model", help="run folder or .keras file")
parser.add_argument("images", nargs="+", help="files, folders, patterns or TFRecord files")
parser.add_argument("--least", type=float, default=0.99, help="smallest cosine similarity of a pair")
parser.add_argument("--out", default="features", help="folder of the features; the same command continues there")
args = parser.parse_args()

job = kd.batch.predict_many(args.model, args.images, args.out, features=True, format="parquet")
rows = [row for path in job.predictions for row in parquet.read_table(path).to_pylist()]
names = [row["name"] for row in rows]
features = np.array([row["features"] for row in rows], "float32")
features /= np.linalg.norm(features, axis=1, keepdims=True) + 1e-12

pairs = []
for start in range(0, len(names), 1024):  # blocks, because the whole matrix may not fit in memory
    similar = features[start : start + 1024] @ features.T
    for row, column in np.argwhere(similar >= args.least):
        if start + row < column:
            pairs.append((similar[row, column], names[start + row], names[column]))
for similarity, first, second in sorted(pairs, reverse=True):
    print(f"{similarity:.4f}  {first}  {second}")
print(f"{len(pairs):,} pairs among {len(names):,} images")
