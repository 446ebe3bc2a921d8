"""A stand-in for TF Serving, for tests only: its REST and gRPC mapping of requests, over `tf.saved_model.load`.

It follows tensorflow_serving/g3doc/api_rest.md as far as exports of this package can be asked: predict in rows and columns, base64,
signature names, versions and labels, model status, JSON errors. It does not batch, reload or measure anything.
"""

import base64
import binascii
import concurrent.futures
import http.server
import json
import re
import threading
import time

import numpy as np
import tensorflow as tf

_PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?")


class RefusalError(Exception):
    """An answer other than 200."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


class Model:
    """All versions in a folder."""

    def __init__(self, folder, labels=()):
        self.versions = {int(path.name): tf.saved_model.load(str(path)) for path in folder.iterdir() if path.is_dir()}
        self.labels = dict(labels)

    def signature(self, name, version=None, label=None, signature_name=""):
        if label is not None:
            if label not in self.labels:
                raise RefusalError(404, f"Unrecognized servable version label: {label}")
            version = self.labels[label]
        version = max(self.versions) if version is None else int(version)
        if version not in self.versions:
            raise RefusalError(404, f"Servable not found for request: Specific({name}, {version})")
        signature_name = signature_name or "serving_default"
        if signature_name not in self.versions[version].signatures:
            raise RefusalError(400, f'Serving signature key "{signature_name}" not found.')
        return self.versions[version].signatures[signature_name]


def run(signature, inputs):
    """Runs a signature on values by input name; what TensorFlow refuses becomes a 400."""
    specs = signature.structured_input_signature[1]
    if set(inputs) != set(specs):
        raise RefusalError(400, f"input names {sorted(inputs)} do not match those of the signature {sorted(specs)}")
    try:
        outputs = signature(**{name: _tensor(value, specs[name]) for name, value in inputs.items()})
    except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
        raise RefusalError(400, str(error)) from error
    return {name: value.numpy() for name, value in outputs.items()}


def _tensor(value, spec):
    if isinstance(value, tf.Tensor):
        if value.dtype != spec.dtype:
            raise RefusalError(400, f"Expected {spec.name} to be {spec.dtype.name} but got {value.dtype.name}")
        return value
    value = _decoded(value, spec.dtype)
    return tf.constant(value, spec.dtype) if spec.dtype == tf.string else tf.constant(np.array(value, spec.dtype.name))


def _decoded(value, dtype):
    """JSON values as a tensor takes them: base64 objects and strings to bytes, numbers checked against the type."""
    if isinstance(value, list):
        return [_decoded(item, dtype) for item in value]
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode()
        if isinstance(value, dict) and set(value) == {"b64"}:
            try:
                return base64.b64decode(value["b64"], validate=True)
            except binascii.Error as error:
                raise RefusalError(400, "JSON Value: unable to base64 decode") from error
    elif isinstance(value, int) and not isinstance(value, bool) and dtype.min <= value <= dtype.max:
        return value
    raise RefusalError(
        400, f"JSON Value: {json.dumps(value)} Type: {type(value).__name__} is not of expected type: {dtype.name}"
    )


def predict(model, name, body, version=None, label=None):
    """The answer to the body of a predict request."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise RefusalError(400, f"JSON Parse error: {error}") from error
    if not isinstance(request, dict) or ("instances" in request) == ("inputs" in request):
        raise RefusalError(400, "Missing 'inputs' or 'instances' key, or both are there")
    signature = model.signature(name, version, label, request.get("signature_name", ""))
    names = list(signature.structured_input_signature[1])
    if "instances" in request:
        rows = request["instances"]
        if not isinstance(rows, list) or not rows:
            raise RefusalError(400, "Expected non-empty 'instances' list")
        if all(isinstance(row, dict) and set(row) != {"b64"} for row in rows):
            if any(set(row) != set(names) for row in rows):
                raise RefusalError(400, f"instances are objects with other keys than {names}")
            inputs = {key: [row[key] for row in rows] for key in names}
        else:
            inputs = {names[0]: rows}
        outputs = {key: _plain(value) for key, value in run(signature, inputs).items()}
        return {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}
    columns = request["inputs"]
    named = isinstance(columns, dict) and set(columns) != {"b64"}
    inputs = columns if named else {names[0]: columns}
    return {"outputs": {key: _plain(value) for key, value in run(signature, inputs).items()}}


def _plain(array):
    return _text(array.tolist()) if array.dtype == object else array.tolist()


def _text(values):
    return [_text(value) if isinstance(value, list) else value.decode() for value in values]


class StandIn:
    """The REST server, and the gRPC one where tensorflow-serving-api is installed; a context manager.

    Attributes:
        url: of the REST server.
        grpc: host:port, None without tensorflow-serving-api.
        faults: what happens to the next POST requests in place of an answer: a status, or "drop" for a closed connection.
        delay: seconds before each answer.
        requests: how many POST requests came.
    """

    def __init__(self, models):
        self.models, self.faults, self.delay, self.requests, self.grpc = models, [], 0.0, 0, None
        self._lock = threading.Lock()
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self._grpc = _grpc_server(self)
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self):
        self._http.shutdown()
        self._http.server_close()
        if self._grpc:
            self._grpc.stop(None)

    def model(self, name):
        if name not in self.models:
            raise RefusalError(404, f"Servable not found for request: Latest({name})")
        return self.models[name]

    def next_fault(self):
        with self._lock:
            self.requests += 1
            return self.faults.pop(0) if self.faults else None


def _handler(server):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self._answer(self._status)

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            fault = server.next_fault()
            time.sleep(server.delay)
            if fault == "drop":
                self.close_connection = True
                return
            if fault is not None:
                self._send(fault, {"error": "The batch scheduling queue to which this task was submitted is full"})
                return
            self._answer(lambda name, version, label, verb: self._predict(name, version, label, verb, body))

        def _predict(self, name, version, label, verb, body):
            if verb != ":predict":
                raise RefusalError(400, f"Malformed request: POST {self.path}")
            return predict(server.model(name), name, body, version, label)

        def _status(self, name, version, label, verb):
            if verb is not None:
                raise RefusalError(400, f"Malformed request: GET {self.path}")
            if name not in server.models:
                raise RefusalError(404, f"Could not find any versions of model {name}")
            fine = {"error_code": "OK", "error_message": ""}
            found = [version] if version else sorted(server.models[name].versions, reverse=True)
            return {"model_version_status": [{"version": str(n), "state": "AVAILABLE", "status": fine} for n in found]}

        def _answer(self, function):
            match = _PATH.fullmatch(self.path)
            try:
                if not match:
                    raise RefusalError(400, f"Malformed request: {self.command} {self.path}")
                self._send(200, function(*match.groups()))
            except RefusalError as refusal:
                self._send(refusal.status, {"error": str(refusal)})

        def _send(self, status, answer):
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words):
            pass

    return Handler


def _grpc_server(server):
    try:
        import grpc
        from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
    except ImportError:
        return None
    codes = {400: grpc.StatusCode.INVALID_ARGUMENT, 404: grpc.StatusCode.NOT_FOUND, 503: grpc.StatusCode.UNAVAILABLE}

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            fault = server.next_fault()
            if fault is not None:
                context.abort(codes[fault], "The batch scheduling queue to which this task was submitted is full")
            spec = request.model_spec
            version = spec.version.value if spec.HasField("version") else None
            try:
                model = server.model(spec.name)
                signature = model.signature(spec.name, version, spec.version_label or None, spec.signature_name)
                tensors = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
                outputs = run(signature, tensors)
            except RefusalError as refusal:
                context.abort(codes[refusal.status], str(refusal))
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                # As the server does: values in their typed fields, not as raw content.
                proto = response.outputs[key]
                proto.CopyFrom(tf.make_tensor_proto(value.ravel()[:1], shape=[1]))
                del proto.tensor_shape.dim[:]
                for size in value.shape:
                    proto.tensor_shape.dim.add(size=size)
                field = {"O": proto.string_val, "f": proto.float_val, "i": proto.int64_val}[value.dtype.kind]
                proto.ClearField("tensor_content")
                del field[:]
                field.extend(value.ravel().tolist())
            return response

    found = grpc.server(
        concurrent.futures.ThreadPoolExecutor(8),
        options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)],
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), found)
    server.grpc = f"127.0.0.1:{found.add_insecure_port('127.0.0.1:0')}"
    found.start()
    return found
