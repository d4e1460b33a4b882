"""What a Hugging Face Space runs; `kinetrack push-space` uploads it as app.py, with KineTrack's wheel beside it."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def install_wheel() -> None:
    """Installs the wheel; what it needs came with requirements.txt."""
    wheels = sorted(HERE.glob("kinetrack-*.whl"))
    if wheels:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", str(wheels[-1])]
        subprocess.run(command, check=True)


def main() -> None:
    """Starts the demo on all addresses of the Space."""
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # see `prepare_console`
    if (HERE / "model.txt").is_file():
        os.environ.setdefault("KINETRACK_DEMO_MODEL", (HERE / "model.txt").read_text(encoding="utf-8").strip())
    from kinetrack.demo.app import launch
    from kinetrack.demo.options import DemoOptions

    launch(DemoOptions.from_environment(), host="0.0.0.0", port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")))


if __name__ == "__main__":
    install_wheel()
    main()
