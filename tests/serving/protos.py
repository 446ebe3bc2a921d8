"""TF Serving's messages as far as the tests need them, so that they can be parsed where tensorflow-serving-api is not installed.

The names and numbers are those of tensorflow_serving's .proto files; unknown fields make the parsers fail.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2
from tensorflow.core.framework import tensor_pb2

_KIND = descriptor_pb2.FieldDescriptorProto
_SCALARS = {"string": _KIND.TYPE_STRING, "int64": _KIND.TYPE_INT64, "bool": _KIND.TYPE_BOOL}
_INT64, _TENSOR = "google.protobuf.Int64Value", "tensorflow.TensorProto"
# Message: field: (number, kind); "*" for repeated, "map" for maps from strings.
_MESSAGES = {
    # servables/tensorflow/session_bundle_config.proto
    "BatchingParameters": {
        "max_batch_size": (1, _INT64),
        "batch_timeout_micros": (2, _INT64),
        "max_enqueued_batches": (3, _INT64),
        "num_batch_threads": (4, _INT64),
        "allowed_batch_sizes": (6, "*int64"),
        "pad_variable_length_inputs": (7, "bool"),
    },
    # config/monitoring_config.proto
    "PrometheusConfig": {"enable": (1, "bool"), "path": (2, "string")},
    "MonitoringConfig": {"prometheus_config": (1, "PrometheusConfig")},
    # config/model_server_config.proto, sources/storage_path/file_system_storage_path_source.proto
    "Specific": {"versions": (1, "*int64")},
    "ServableVersionPolicy": {"specific": (102, "Specific")},
    "ModelConfig": {
        "name": (1, "string"),
        "base_path": (2, "string"),
        "model_platform": (4, "string"),
        "model_version_policy": (7, "ServableVersionPolicy"),
        "version_labels": (8, "map int64"),
    },
    "ModelConfigList": {"config": (1, "*ModelConfig")},
    "ModelServerConfig": {"model_config_list": (1, "ModelConfigList")},
    # apis/model.proto, apis/predict.proto, apis/prediction_log.proto
    "ModelSpec": {"name": (1, "string"), "version": (2, _INT64), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, f"map {_TENSOR}")},
    "PredictLog": {"request": (1, "PredictRequest")},
    "PredictionLog": {"predict_log": (6, "PredictLog")},
}


def _add_field(message, name, number, kind):
    field = message.field.add(name=name, number=number, label=_KIND.LABEL_OPTIONAL)
    if kind.startswith("map "):
        entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
        entry.options.map_entry = True
        _add_field(entry, "key", 1, "string")
        _add_field(entry, "value", 2, kind.removeprefix("map "))
        kind = f"*{message.name}.{entry.name}"
    if kind.startswith("*"):
        field.label, kind = _KIND.LABEL_REPEATED, kind[1:]
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type = _KIND.TYPE_MESSAGE
        field.type_name = f".{kind}" if kind.startswith(("google.", "tensorflow.")) else f".keras_deepnets_tests.{kind}"


def _classes():
    file = descriptor_pb2.FileDescriptorProto(
        name="keras_deepnets_tests/serving.proto", package="keras_deepnets_tests", syntax="proto3"
    )
    file.dependency.extend([wrappers_pb2.DESCRIPTOR.name, tensor_pb2.DESCRIPTOR.name])
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            _add_field(message, field, number, kind)
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"keras_deepnets_tests.{name}"))
        for name in _MESSAGES
    }


CLASSES = _classes()
