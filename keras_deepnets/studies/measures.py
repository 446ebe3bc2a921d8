"""What a study measures of a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A number of a run.

    Attributes:
        name: Name for people.
        unit: Unit, or "".
        form: Format of a value.
        images: ``"train"`` or ``"test"`` if the number is a share of these images in percent, otherwise "".
        factor: Factor of the number on axes, whose unit is `axis`.
        axis: Unit on axes.
    """

    name: str
    unit: str
    form: str
    images: str = ""
    factor: float = 1.0
    axis: str = ""

    def label(self, axis: bool = False) -> str:
        """Return the name with the unit, for a table or for an axis."""
        unit = self.axis if axis and self.axis else self.unit
        return f"{self.name} ({unit})" if unit else self.name


MEASURES = {
    "train_error": Measure("training error", "%", "{:.2f}", "train"),
    "test_error": Measure("test error", "%", "{:.2f}", "test"),
    "train_loss": Measure("training loss", "", "{:.3f}"),
    "test_loss": Measure("test loss", "", "{:.3f}"),
    "parameters": Measure("parameters", "", "{:,.0f}", factor=1e-6, axis="millions"),
    "multiply_adds": Measure("multiply-adds of an image", "", "{:,.0f}", factor=1e-6, axis="millions"),
    "seconds": Measure("training time", "s", "{:,.0f}"),
    "step_time": Measure("time per step", "ms", "{:,.0f}"),
    "feature_reuse": Measure("weight on earlier layers", "of the nearest", "{:.2f}"),
    "cut_cost": Measure("error added by cutting earlier layers", "points", "{:.2f}", "test"),
}
"""Measures by name. Errors are those of the last epoch; the training error is measured during training, with its augmentation."""
