"""Serve this page and TFLite files on this machine, with the headers that let the browser run the network on several threads.

    python serve.py [MODEL.tflite …] [--port 8000]

Each model needs the JSON file that `keras-deepnets export` wrote next to it. The script uses only Python's standard library. It
prints the address of the page.
"""

import argparse
import http.server
import json
import sys
import urllib.parse
from pathlib import Path

HERE = Path(__file__).resolve().parent
DIGITS = HERE.parents[1] / "savedmodels" / "digits-int8.tflite"
# Browsers let a page share memory among threads only if it is isolated from other origins.
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of this folder, and the models under ``models/``."""

    protocol_version = "HTTP/1.1"
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }
    models: dict[str, Path] = {}  # noqa: RUF012 - filled once, by main

    def __init__(self, *args, **kwargs):
        super().__init__(*args, directory=str(HERE), **kwargs)

    def translate_path(self, path: str) -> str:
        """Return the file that a URL path refers to."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        if name.startswith("/models/"):
            return str(self.models.get(name.removeprefix("/models/"), HERE / "no such model"))
        return super().translate_path(path)

    def do_GET(self) -> None:
        """Send a file, or the list of the models."""
        if urllib.parse.urlsplit(self.path).path != "/models/index.json":
            super().do_GET()
            return
        content = json.dumps([name for name in self.models if name.endswith(".tflite")]).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def end_headers(self) -> None:
        """Add the headers that every response has."""
        for name, value in ISOLATION.items():
            self.send_header(name, value)
        self.send_header("Cache-Control", "no-cache")  # so that the browser notices a new export
        super().end_headers()

    def log_message(self, *args: object) -> None:
        """Log no requests."""


def main(argv: list[str] | None = None) -> None:
    """Serve until Ctrl-C. Exit with status 2 and a one-line message if a file is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL.tflite", default=[DIGITS])
    parser.add_argument("--port", type=int, default=8000, help="port; 0 chooses a free one")
    parser.add_argument(
        "--threads", action=argparse.BooleanOptionalAction, default=True, help="send the headers for threads"
    )
    args = parser.parse_args(argv)
    for model in args.models:
        card = model.with_name(model.name + ".json")
        if model.suffix != ".tflite" or not model.is_file() or not card.is_file():
            parser.error(f"{model} is not a .tflite file with {card.name} next to it.")
        if model.name in Handler.models:
            parser.error(f"two models have the name {model.name}; rename one.")
        Handler.models |= {model.name: model, card.name: card}
    if not args.threads:
        ISOLATION.clear()
    if not (HERE / "node_modules" / "@litertjs" / "core").is_dir():
        parser.error(f"the runtime is not installed; run `npm ci` in {HERE}.")
    try:
        server = http.server.ThreadingHTTPServer(("localhost", args.port), Handler)
    except OSError as error:
        parser.error(f"port {args.port}: {error.strerror}; choose another with --port.")
    with server:
        print(f"http://localhost:{server.server_port}/  (Ctrl-C stops the server)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
