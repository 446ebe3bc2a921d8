import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from keras_deepnets.insight import draw_confusion, image_grid, lettering
from keras_deepnets.insight.lettering import escaped, families_for, lettered

LATIN = "abcdefghijklmnopqrstuvwxyz0123456789 →…%"


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """Installs fonts that have the given letters, each a filled square, and no others."""

    def install(**letters_of):
        # Matplotlib remembers families, so every test has its own.
        files = [
            square_font(tmp_path / f"{name}.ttf", f"{name} {tmp_path.name}", letters)
            for name, letters in letters_of.items()
        ]
        monkeypatch.setattr(lettering, "installed", lambda: files)

    install.family = lambda name: f"Squares {name} {tmp_path.name}"
    return install


def square_font(path, name, letters):
    glyphs = {".notdef": TTGlyphPen(None).glyph()}
    for letter in letters:
        pen = TTGlyphPen(None)
        pen.moveTo((100, 0))
        for corner in ((100, 800), (900, 800), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[f"g{ord(letter):04x}"] = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([*glyphs])
    builder.setupCharacterMap({ord(letter): f"g{ord(letter):04x}" for letter in letters})
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (1000, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": f"Squares {name}", "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=800, usWinAscent=800, usWinDescent=200)
    builder.setupPost()
    builder.save(path)
    return str(path)


def test_latin_greek_and_cyrillic_need_no_other_font(fonts):
    fonts(a="猫")
    assert families_for(["cat", "γάτα", "кошка"]) == (["DejaVu Sans"], set())
    text, font = lettered("кошка", 13)
    assert text == "кошка" and font.getname()[0] == "DejaVu Sans"


def test_a_font_with_the_letters_is_found(fonts):
    fonts(a="猫", b="犬鳥" + LATIN)
    assert families_for(["dog 犬", "鳥"]) == (["DejaVu Sans", fonts.family("b")], set())
    assert families_for(["猫", "犬鳥"]) == (["DejaVu Sans", fonts.family("b"), fonts.family("a")], set())
    text, font = lettered("dog 犬", 13)
    assert text == "dog 犬" and font.getname()[0] == fonts.family("b")


def test_letters_without_a_font_are_escaped(fonts):
    fonts(a="猫")
    assert families_for(["猫犬"]) == (["DejaVu Sans", fonts.family("a")], {"犬"})
    assert escaped("猫犬", {"犬"}) == r"猫\u72ac"
    # Pillow draws a line with one font, and none has both.
    text, font = lettered("cat 猫", 13)
    assert text == r"cat \u732b" and font.getname()[0] == "DejaVu Sans"


def test_names_of_classes_are_drawn_with_the_font(fonts, tmp_path):
    """The squares of the font are drawn where Matplotlib's own font would draw an empty box."""
    confusion = np.array([[9, 1], [2, 8]])

    def ink(labels):
        path = draw_confusion(confusion, labels, tmp_path / "confusion.png")
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("L")).astype(int)
        return (pixels[:, :110] < 140).sum()  # where the names of the rows are

    fonts(a="猫犬")
    squares = ink(["猫猫猫", "犬犬犬"])
    fonts()
    escapes = ink(["猫猫猫", "犬犬犬"])
    # Six squares of 0.8 by 0.8 em at 10 points and 150 dots per inch: about 17 × 17 dots each.
    assert squares > 6 * 15 * 15 > escapes


def test_a_grid_of_images_with_such_names(fonts):
    fonts(a="猫" + LATIN)
    images = np.zeros((1, 96, 96, 3), np.uint8)
    named = image_grid(images, ["猫猫猫"])[100:]
    # Three squares of 0.8 by 0.8 of 11 pixels.
    assert (named < 128).all(-1).sum() == pytest.approx(3 * 8.8 * 8.8, rel=0.35)
    assert (named < 128).all(-1)[:, :40].any() and not (named < 128).all(-1)[:, 40:].any()


def test_dollars_are_no_formula(tmp_path):
    path = draw_confusion(np.eye(2, dtype=int), ["$x$", r"$\nofunction$"], tmp_path / "confusion.png")
    assert path.stat().st_size > 1000
