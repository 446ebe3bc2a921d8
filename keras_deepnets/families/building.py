"""Build the model of a spec: input, scaling, features, classifier, weights and record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keras_deepnets.errors import InputError
from keras_deepnets.families.base import LAYER_PREFIX, Source, VariantFacts
from keras_deepnets.families.checks import check_choice
from keras_deepnets.scaling import Scaling

if TYPE_CHECKING:
    import keras


def build(
    facts: VariantFacts,
    spec: Any,
    options: dict[str, Any],
    *,
    include_top: bool,
    source: Source | None,
    input_tensor: Any,
    input_shape: tuple[int | None, ...] | None,
    pooling: str | None,
    classes: int,
    classifier_activation: Any,
    name: str,
    include_preprocessing: bool | Scaling,
    layer_prefix: str,
) -> keras.Model:
    """The model of `spec`: input, scaling, features, classifier or pooling, weights and record."""
    import keras

    from keras_deepnets import layers
    from keras_deepnets.models import DeepNet, deep_graphs, layers_before, scales, weight_owners

    if pooling is not None:
        check_choice(facts.name, "pooling", pooling, ("avg", "max"))
    if not isinstance(classes, int) or isinstance(classes, bool) or classes < 1:
        raise InputError(f"{facts.name}: classes={classes!r} must be a whole number of at least 1.")
    inputs, x = _input(facts, spec, input_tensor, input_shape, include_top, layer_prefix)
    expected = source.scaling if source and source.scaling else spec.domain.scaling
    scaling = _scaling(facts, expected, include_preprocessing, x.shape[-1])
    with layers.prefixed(layer_prefix), deep_graphs():
        if include_preprocessing and scaling is not None:
            x = layers.scale_input(x, scaling)
        x = facts.family.features(x, spec)
        if include_top:
            if facts.family.head is not None:
                x = facts.family.head(x, spec)
            norm = layers.norm_constraint(getattr(spec, "classifier_norm", None), 2)
            x = layers.classifier(x, classes, classifier_activation, kernel_constraint=norm)
        elif pooling and len(x.shape) == 4:
            x = layers.pool_features(x, pooling)
    architecture: dict[str, Any] = {
        "constructor": facts.name,
        "family": facts.family.name,
        "options": _jsonable(options),
    }
    if layer_prefix:
        architecture["options"][LAYER_PREFIX] = layer_prefix
    if source is not None:
        architecture["weights"] = source.name
    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
        inputs = inputs[0] if isinstance(inputs, list) and len(inputs) == 1 else inputs
        before = layers_before(input_tensor)
        if any(layer.weights for layer in before):
            architecture["before"] = list(dict.fromkeys(name for layer in before for name in weight_owners(layer)))
        if scaling is not None and any(map(scales, before)) and not include_preprocessing:
            scaling = None  # the layers before the network scale
    model = DeepNet(inputs, x, name=name, record={"architecture": architecture, "scaling": scaling})
    if source is not None:
        source.load_into(model)
    return model


def _jsonable(options: dict[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value

    return {key: plain(value) for key, value in options.items()}


def _scaling(
    facts: VariantFacts, expected: Scaling, include_preprocessing: bool | Scaling, channels: int
) -> Scaling | None:
    if isinstance(include_preprocessing, Scaling):
        scaling = include_preprocessing
    else:
        scaling = expected
        if scaling.channels != channels and not include_preprocessing:
            return None
    if scaling.channels != channels:
        raise InputError(
            f"{facts.name}: include_preprocessing scales {scaling.channels} channels and the input has {channels}; "
            "pass include_preprocessing=keras_deepnets.Scaling(mean, std) with one number per channel."
        )
    return scaling


def _input(
    facts: VariantFacts, spec: Any, input_tensor: Any, input_shape: Any, include_top: bool, layer_prefix: str
) -> tuple[Any, Any]:
    import keras

    if keras.config.image_data_format() != "channels_last":
        raise InputError(
            f"{facts.name}: the image data format is 'channels_first', but these networks are channels last; "
            "call keras.config.set_image_data_format('channels_last')."
        )
    if input_tensor is not None:
        if not keras.backend.is_keras_tensor(input_tensor):
            raise InputError(
                f"{facts.name}: input_tensor must be a Keras tensor such as keras.Input(...), not a {type(input_tensor).__name__}."
            )
        shape = tuple(input_tensor.shape[1:])
        if input_shape is not None and tuple(input_shape) != shape:
            raise InputError(
                f"{facts.name}: input_shape={tuple(input_shape)} contradicts the input_tensor's {shape}; give one of them."
            )
        _check_shape(facts, spec, shape)
        return input_tensor, input_tensor
    if input_shape is None:
        default = spec.domain.input_shape
        fixed = include_top or getattr(spec, "fixed_input_size", False)
        input_shape = default if fixed else (None, None, default[-1])
    shape = tuple(input_shape)
    _check_shape(facts, spec, shape)
    inputs = keras.Input(shape=shape, name=f"{layer_prefix}input_layer")
    return inputs, inputs


def _check_shape(facts: VariantFacts, spec: Any, shape: tuple[Any, ...]) -> None:
    rule = "(height, width, channels), e.g. " + str(spec.domain.input_shape)
    if len(shape) != 3 or any(side is not None and (not isinstance(side, int) or side < 1) for side in shape):
        raise InputError(f"{facts.name}: input_shape={shape} must be {rule}.")
    height, width, channels = shape
    if channels is None:
        raise InputError(
            f"{facts.name}: input_shape={shape} leaves the number of channels open; it must be given: {rule}."
        )
    if height in (1, 3) and channels > 4:
        raise InputError(
            f"{facts.name}: input_shape={shape} looks like channels first; these networks are channels last: {rule}."
        )
    smallest = spec.total_stride
    if any(side is not None and side < smallest for side in (height, width)):
        raise InputError(
            f"{facts.name}: input_shape={shape} is too small: the network's stride is {smallest}, so each side must be at least {smallest}."
        )
