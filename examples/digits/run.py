"""What `make run` does: train a real model, start the platform, upload, deploy, ask, and stay up.

It uses nothing but the `modelyard` command and HTTP, so every line of it can be typed by hand.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from train import LABELS, train

ROOT = Path(__file__).parent.parent.parent
MODEL = Path(__file__).parent / "model"
MODELYARD = [str(Path(sys.executable).parent / "modelyard")]
SHADES = " .:-=+*#%@"


def main() -> int:
    began = time.monotonic()
    images, digits, accuracy = train(MODEL)
    print(f"trained a digit classifier, accuracy {accuracy:.3f} on {len(digits)} held-out digits\n")
    with subprocess.Popen(
        [*MODELYARD, "up", "--json", "--data", str(ROOT / ".modelyard"), *sys.argv[1:]],
        stdout=subprocess.PIPE,
        text=True,
    ) as platform:
        try:
            assert platform.stdout is not None
            line = platform.stdout.readline()
            if not line:
                return platform.wait()
            standing = json.loads(line)
            show(standing["control_url"], images[0], int(digits[0]))
            print(f"\nup after {time.monotonic() - began:.0f} s; Ctrl-C stops it")
            print(f"  control    {standing['control_url']}\n  inference  {standing['inference_url']}", flush=True)
            platform.wait()
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
        finally:
            platform.send_signal(signal.SIGINT)  # drains; a second signal from the terminal changes nothing
            platform.wait()
    return 0


def show(control_url: str, image: np.ndarray, digit: int) -> None:
    """Upload, deploy, and ask for one digit that the model has not seen."""
    modelyard("upload", os.path.relpath(MODEL), "--name", "digits", "--alias", "champion", url=control_url)
    print()
    modelyard("deploy", "digits@champion", url=control_url)
    with urllib.request.urlopen(f"{control_url}/api/v1/services/digits") as answer:
        address = json.load(answer)["url"] + "/infer"
    body = {"inputs": [{"name": "input", "shape": [1, 64], "datatype": "FP32", "data": image.tolist()}]}
    request = urllib.request.Request(
        address, data=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        outputs = {output["name"]: output["data"] for output in json.load(answer)["outputs"]}
    print(f"\na held-out digit, a {LABELS[digit]}:\n")
    for row in image.reshape(8, 8):
        print("    " + "".join(SHADES[min(int(value / 16 * 9), 9)] * 2 for value in row))
    print(f"\nthe service says {outputs['label'][0]!r}, probability {max(outputs['probabilities']):.3f}")
    print(f"  {address}")


def modelyard(*arguments: str, url: str) -> None:
    print(f"$ modelyard {' '.join(arguments)}", flush=True)
    subprocess.run([*MODELYARD, *arguments, "--url", url], check=True)


if __name__ == "__main__":
    sys.exit(main())
