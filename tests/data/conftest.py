import numpy as np
import pytest
from PIL import Image


def picture(seed, height=20, width=24):
    """A smooth random colour picture, uint8 [height, width, 3], whose contrast leaves cubic kernels room to overshoot."""
    small = np.random.default_rng(seed).integers(64, 192, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def write_class_folders(folder, counts, size=(20, 24), extension="png"):
    """Class folders with that many pictures each, every picture different."""
    for number, (label, count) in enumerate(counts.items()):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            height, width = size if not callable(size) else size(index)
            image = Image.fromarray(picture(1000 * number + index, height, width))
            image.save(folder / label / f"{index}.{extension}")
    return folder


@pytest.fixture
def two_classes(tmp_path):
    return write_class_folders(tmp_path / "photos", {"cat": 20, "dog": 10})
