"""The page of `examples/browser/`: its files, its arithmetic, and itself in a browser without a window, where there is one."""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_deepnets as kd
from keras_deepnets.data import transforms

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "browser"
MODULES = FOLDER / "node_modules"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")
LOCK = json.loads((FOLDER / "package-lock.json").read_text(encoding="utf-8"))
# What a network of whole numbers gives is a whole number of these.
INT8_STEP = 1 / 256


# --- what needs no browser ---


def test_packages_are_exact_and_from_the_public_registry():
    wanted = json.loads((FOLDER / "package.json").read_text(encoding="utf-8"))["dependencies"]
    packages = {name.removeprefix("node_modules/"): facts for name, facts in LOCK["packages"].items() if name}
    assert {name: facts["version"] for name, facts in packages.items()} == wanted
    for name, facts in packages.items():
        assert facts["resolved"].startswith(f"https://registry.npmjs.org/{name}/-/")
        assert facts["integrity"].startswith("sha512-")


def test_nothing_is_loaded_from_elsewhere():
    for file in FOLDER.iterdir():
        if file.suffix in (".html", ".css", ".js"):
            assert not re.findall(r"""https?:|["'(]//""", file.read_text(encoding="utf-8")), file


VIEW_PROGRAM = """
import { readFileSync } from "node:fs";
import { evaluationView, rint } from "./view.js";
const cases = JSON.parse(readFileSync(0));
const views = cases.map(({ width, height, rgba, input }) =>
  Array.from(evaluationView({ width, height, data: Uint8ClampedArray.from(rgba) }, input)));
console.log(JSON.stringify({ views, rounded: [-0.5, 0.5, 1.5, 2.5, 2.4, 2.6].map((value) => rint(value) + 0) }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_view_is_that_of_python(rng):
    sizes = [  # of the image; height, width, channels and crop of the network
        ((8, 8), (32, 32, 3, 1.0)),
        ((64, 64), (32, 32, 3, 1.0)),  # halves: every mean of four may be a tie
        ((101, 75), (24, 32, 3, 0.875)),
        ((40, 50), (32, 32, 1, 0.875)),
        ((32, 24), (32, 24, 1, 0.5)),  # of the right size: left as it is
        ((37, 37), (32, 32, 3, 0.875)),  # cropped, not resized
    ]
    cases, expected = [], []
    for interpolation in transforms.INTERPOLATIONS:
        for (old_height, old_width), (height, width, channels, crop) in sizes:
            image = rng.integers(0, 256, (old_height, old_width, 4), np.uint8)
            view = {"height": height, "width": width, "channels": channels}
            view |= {"crop_fraction": crop, "interpolation": interpolation}
            cases.append({"height": old_height, "width": old_width, "rgba": image.ravel().tolist(), "input": view})
            expected.append(
                np.asarray(transforms.evaluation_view(image[..., :3], height, width, channels, crop, interpolation))
            )
    program = ["node", "--input-type=module", "--eval", VIEW_PROGRAM]
    done = subprocess.run(program, input=json.dumps(cases), cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["rounded"] == [0, 0, 2, 2, 2, 3]
    for case, ours, python in zip(cases, found["views"], expected, strict=True):
        difference = np.abs(np.reshape(ours, python.shape) - python.astype(int))
        # Where float32 sums in another order fall on the other side of a half.
        assert difference.max() <= 1, case["input"]
        assert (difference > 0).mean() < 0.01, case["input"]


def serve(*words):
    return [sys.executable, str(FOLDER / "serve.py"), *map(str, words)]


def test_the_server_refuses_what_is_no_model(tmp_path):
    (tmp_path / "alone.tflite").write_bytes(b"")
    for word, message in (
        (tmp_path / "none.tflite", "none.tflite is not a .tflite file with none.tflite.json next to it."),
        (tmp_path / "alone.tflite", "alone.tflite is not a .tflite file with alone.tflite.json next to it."),
        (FOLDER / "index.html", "index.html is not a .tflite file with index.html.json next to it."),
    ):
        done = subprocess.run(serve(word), capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert done.stderr.splitlines()[-1].endswith(message)


# --- what needs one ---


def installed_runtime():
    """Whether `npm ci` has been run."""
    return all(
        (FOLDER / name / "package.json").is_file()
        and json.loads((FOLDER / name / "package.json").read_text(encoding="utf-8"))["version"] == facts["version"]
        for name, facts in LOCK["packages"].items()
        if name
    )


@pytest.fixture(scope="module")
def browser():
    """Chromium, started once."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"needs a browser, one of {', '.join(BROWSERS)}")
    if not installed_runtime():
        pytest.skip(f"needs the packages of package-lock.json: npm ci --prefix {FOLDER.relative_to(ROOT)}")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=program)
        yield chromium
        chromium.close()


@contextlib.contextmanager
def served(*words):
    """The address of the page, as long as it is served."""
    with subprocess.Popen(serve(*words, "--port", 0), stdout=subprocess.PIPE, text=True) as server:
        try:
            yield server.stdout.readline().split()[0]
        finally:
            server.terminate()


@contextlib.contextmanager
def opened(browser, *words, **options):
    """A `Page` of the models that are named."""
    with served(*words) as address:
        page = browser.new_page(**options)
        try:
            yield Page(page, address)
        finally:
            page.close()


class Page:
    """The page as a user has it before them."""

    def __init__(self, page, address):
        self.page, self.requests, self.errors = page, [], []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(address)

    def __getitem__(self, selector):
        return self.page.locator(selector)

    def says(self, pattern):
        """Waits for the status line."""
        from playwright.sync_api import expect

        expect(self["#status"]).to_have_text(re.compile(pattern), timeout=60_000)
        assert self["#problem"].is_hidden()

    def problem(self):
        """Waits for a message of what went wrong."""
        self["#problem"].wait_for(timeout=60_000)
        assert self["#problem"].get_attribute("role") == "alert"
        assert self["#status"].inner_text() == ""
        return self["#problem"].inner_text()

    def choose(self, file):
        """An image, by the file chooser."""
        self["#image-file"].set_input_files(file)

    def drop(self, content, name, kind):
        """A file dragged onto the page from elsewhere."""
        transfer = self.page.evaluate_handle(
            """([bytes, name, type]) => {
                const transfer = new DataTransfer();
                transfer.items.add(new File([Uint8Array.from(bytes)], name, { type }));
                return transfer;
            }""",
            [list(content), name, kind],
        )
        for event in ("dragenter", "dragover", "drop"):
            self.page.dispatch_event("h1", event, {"dataTransfer": transfer})

    def rows(self, count=None):
        """Label and probability, as the table has them; of so many classes."""
        if count is not None:
            self["#top"].fill(str(count))
            self["#top"].blur()
        return self.page.evaluate(
            "[...document.querySelectorAll('#classes tr')]"
            ".map((row) => [row.querySelector('th').textContent, Number(row.querySelector('data').value)])"
        )


@pytest.fixture(scope="module")
def digits(browser):
    with opened(browser, viewport={"width": 1000, "height": 800}) as page:
        page.says("^Ready: choose an image.$")
        yield page
        assert page.errors == []
        assert {re.match(r"\w+://[^/]*/|data:|blob:", url).group() for url in page.requests} == {
            page.page.url,
            "blob:",
        }


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A float model of another shape, whose labels are not what HTML takes for text."""
    keras.utils.set_random_seed(3)
    labels = ["a < b", "<b>bold</b>", "Ärmelkanal", "d"]
    model = kd.ResNet20(classes=4, input_shape=(24, 40, 3), include_preprocessing=True)
    for weight in model.layers[-1].weights:
        weight.assign(5 * weight)  # probabilities that differ
    return kd.export.tflite(model, tmp_path_factory.mktemp("ours") / "ours.tflite", labels=labels)


def photograph(rng, height, width):
    """A smooth picture with colours, uint8 ``[height, width, 3]``."""
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def agree(page, model, file, tolerance):
    """Whether the page and Python's interpreter say the same of an image file."""
    expected = kd.export.predict(model, [file])
    best = expected["labels"][0]
    page.says(f"^Most probable: {re.escape(best)}, ")
    labels = json.loads(Path(f"{model}.json").read_text(encoding="utf-8"))["labels"]
    rows = page.rows(len(labels))
    assert rows[0][0] == best
    assert [value for _, value in rows] == sorted((value for _, value in rows), reverse=True)
    found = dict(rows)
    assert set(found) == set(labels)
    np.testing.assert_allclose([found[label] for label in labels], expected["probabilities"][0], atol=tolerance)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A digit as somebody might draw it: 90 × 120 pixels, a grey that is not even."""
    images, _ = next(iter(kd.data.load("digits", "test").examples().batch(360).as_numpy_iterator()))
    large = Image.fromarray(images[3].squeeze()).resize((120, 90), Image.Resampling.BICUBIC)
    pixels = np.asarray(large.convert("RGB")).astype(int) + np.random.default_rng(1).integers(-9, 9, (90, 120, 1))
    file = tmp_path_factory.mktemp("drawn") / "digit.png"
    Image.fromarray(np.clip(pixels, 0, 255).astype("uint8")).save(file)
    return file


def test_an_int8_model_says_what_it_says_in_python(digits, drawn):
    model = ROOT / "savedmodels" / "digits-int8.tflite"
    digits.choose(drawn)
    agree(digits, model, drawn, 1.01 * INT8_STEP)
    size = round(model.stat().st_size / 1000)
    assert re.fullmatch(
        rf"resnet20, int8, {size} kB: 32 × 32 pixels, colour, 10 classes\. Ready in [\d.]+ ms, (1 thread|\d+ threads)\.",
        digits["#model-facts"].inner_text(),
    )
    assert digits["#picture-name"].inner_text() == "digit.png, 120 × 90"
    assert re.fullmatch(r"Resizing and cropping [\d.]+ ms, network [\d.]+ ms\.", digits["#times"].inner_text())
    for sample in sorted((FOLDER / "samples").glob("*.png")):
        digits[f'[data-sample="samples/{sample.name}"]'].click()
        agree(digits, model, sample, 1.01 * INT8_STEP)
        assert digits.rows(1)[0][0] == sample.stem.removeprefix("digit-")
        assert digits["[data-sample][aria-pressed=true] img"].get_attribute("alt") == f"a {sample.stem[-1]}"


def test_the_network_sees_what_it_sees_in_python(digits, drawn, tmp_path):
    # A photograph that lies on its side is turned upright; one of a palette is taken as its pixels are.
    turned, palette = tmp_path / "turned.jpg", tmp_path / "palette.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(drawn).save(turned, quality=90, exif=exif)
    Image.open(drawn).quantize(16).save(palette)
    for file in (drawn, turned, palette):
        digits.choose(file)
        digits.says("^Most probable: ")
        size = "90 × 120" if file is turned else "120 × 90"
        assert digits["#picture-name"].inner_text() == f"{file.name}, {size}"
        seen = digits.page.evaluate(
            "Array.from(document.getElementById('view').getContext('2d').getImageData(0, 0, 32, 32).data)"
        )
        expected = transforms.evaluation_view(transforms.decode(file.read_bytes()), 32, 32, 3)
        np.testing.assert_allclose(np.reshape(seen, (32, 32, 4))[..., :3], expected, atol=2 * (file is turned))


def test_a_float_model_opened_from_the_disk(digits, ours, rng, tmp_path):
    digits["#model-files"].set_input_files([ours, Path(f"{ours}.json")])
    digits.says("^(Ready|Most probable)")
    assert "float32" in digits["#model-facts"].inner_text()
    Image.fromarray(photograph(rng, 211, 160)).save(tmp_path / "tall.png")
    digits.choose(tmp_path / "tall.png")
    agree(digits, ours, tmp_path / "tall.png", 1e-3)
    # A JPEG without subsampled colours: decoders differ in how they spread those.
    file = tmp_path / "wide.jpg"
    Image.fromarray(photograph(rng, 60, 170)).save(file, quality=95, subsampling=0)
    digits.drop(file.read_bytes(), "wide.jpg", "image/jpeg")
    agree(digits, ours, file, 1e-2)
    assert "dragging" not in digits["body"].get_attribute("class")
    digits["#measure"].click()
    digits.says(r"^Measured: [\d.]+ ms per image\.$")
    digits["#models"].select_option("digits-int8.tflite")
    digits["#models"].dispatch_event("change")
    digits.says("^Most probable: ")


def test_without_threads_the_same(browser, digits, drawn):
    digits.choose(drawn)
    digits.says("^Most probable: ")
    with opened(browser, ROOT / "savedmodels" / "digits-int8.tflite", "--no-threads") as single:
        single.says("^Ready")
        assert single["#model-facts"].inner_text().endswith(" 1 thread.")
        single.choose(drawn)
        single.says("^Most probable: ")
        assert single.rows(10) == digits.rows(10)


def test_files_that_are_not_what_they_should_be(digits, ours, drawn, tmp_path):
    (tmp_path / "letter.png").write_text("Dear")
    digits.choose(tmp_path / "letter.png")
    assert digits.problem() == "letter.png is not an image that this browser can read."
    assert digits["#result"].is_hidden()
    digits.choose(drawn)
    digits.says("^Most probable: ")  # it goes on, and the message is gone
    content, card = ours.read_bytes(), json.loads(Path(f"{ours}.json").read_text(encoding="utf-8"))
    model, beside = tmp_path / "bad.tflite", tmp_path / "bad.tflite.json"
    whole = json.dumps(card)
    for data, text, message in (
        (b"<!doctype html>", whole, "bad.tflite is not a TFLite file."),
        (content[:-1], whole, "bad.tflite and bad.tflite.json do not belong together, or one is damaged"),
        (content, "{", "bad.tflite.json is not JSON."),
        (content, "[]", "bad.tflite.json is not a file that keras-deepnets writes for a TFLite model."),
        (content, json.dumps(card | {"input": card["input"] | {"shape": [None, 24, 40, 3]}}), "without --any-batch."),
        (content, json.dumps(card | {"input": card["input"] | {"dtype": "int16"}}), "export it with --float-io."),
        (content, json.dumps(card | {"input": card["input"] | {"width": 39}}), "bad.tflite does not run here: "),
    ):
        model.write_bytes(data)
        beside.write_text(text)
        digits["#model-files"].set_input_files([model, beside])
        assert message in digits.problem()
        assert digits["#result"].is_hidden()
    digits["#model-files"].set_input_files([model])
    assert digits.problem().startswith("Choose two files at once: ")
    digits["#models"].select_option("digits-int8.tflite")
    digits["#models"].dispatch_event("change")
    digits.says("^Most probable: ")


def test_a_page_without_its_files(browser):
    with served() as address:
        page = browser.new_page()
        page.route("**/models/index.json", lambda route: route.fulfill(status=404))
        nothing = Page(page, address)
        nothing.says(r"^No models are listed: open a \.tflite file and its \.json\.$")
        page.unroute_all()
        page.route("**/digits-int8.tflite", lambda route: route.fulfill(status=404))
        page.reload()
        assert nothing.problem() == "models/digits-int8.tflite cannot be loaded: the server says 404 Not Found."
        page.unroute_all()
        page.route("**/node_modules/**", lambda route: route.fulfill(status=404))
        page.reload()
        assert nothing.problem().startswith("The runtime is not installed. Run `npm ci` in examples/browser")
        page.close()


def test_with_the_keyboard_alone(digits):
    digits.page.evaluate("document.activeElement.blur()")
    digits["#models"].focus()
    names = []
    for _ in range(6):
        digits.page.keyboard.press("Tab")
        names.append(digits.page.evaluate("document.activeElement.id || document.activeElement.dataset.sample"))
    assert names[:2] == ["model-files", "image-file"]
    assert names[2:] == [f"samples/digit-{digit}.png" for digit in (0, 4, 7, 9)]
    digits.page.keyboard.press("Enter")
    digits.says("^Most probable: 9, ")
    # A role and a name for all that can be used or is told.
    page = digits.page
    for role, name in (
        ("combobox", "Which"),
        ("button", "Open another model…"),
        ("button", "Choose an image…"),
        ("button", "a 7"),
        ("spinbutton", "Classes shown"),
        ("table", "The most probable classes"),
        ("img", "The image as the network sees it"),
        ("rowheader", "9"),
    ):
        assert page.get_by_role(role, name=name, exact=True).count() == 1, (role, name)
    assert page.get_by_role("status").inner_text().startswith("Most probable: 9, ")


def test_in_a_narrow_window(digits):
    digits['[data-sample="samples/digit-4.png"]'].click()
    digits.says("^Most probable: 4, ")
    for width in (320, 600, 1000):
        digits.page.set_viewport_size({"width": width, "height": 800})
        assert digits.page.evaluate("document.documentElement.scrollWidth") <= width
