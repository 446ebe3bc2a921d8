import subprocess
import sys


def test_importing_does_not_import_tensorflow():
    code = "import sys, keras_deepnets.detection.data; print({'tensorflow', 'keras_cv'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
