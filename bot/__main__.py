"""`queqiao` and `python -m bot`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def main() -> int:
    """The console script's entry point."""
    astray = _astray()
    if astray:
        print(astray, file=sys.stderr)
        return 1
    from bot.cli import main as run

    return run()


def _astray() -> str:
    """The three packages have common names: another `adapters` or `storage` earlier on
    the path must not be run in our place (reference/codebases.md 6)."""
    home = Path(__file__).resolve().parent.parent
    for name in ("adapters", "storage"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve().parent if spec and spec.origin else None
        if found != home / name:
            return (
                f"装错了：{name} 来自 {found}，应来自 {home / name}。请装在单独的虚拟环境里。\n"
                f"Wrong installation: {name} comes from {found}, not from {home / name}. "
                "Install Queqiao in a virtual environment of its own."
            )
    return ""


if __name__ == "__main__":
    sys.exit(main())
