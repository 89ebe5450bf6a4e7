"""Writes all pages below a folder, and builds the site from them. A broken link or a missing reference is an error.

pip install -e '.[docs]'
python -m docs.site                      # build/site/html/index.html
python -m docs.site --serve              # and looks at it, on this machine alone
"""

import argparse
import functools
import subprocess
import sys
from collections.abc import Sequence
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from docs.site.stage import stage


def main(argv: Sequence[str] | None = None) -> int:
    """Builds the site.

    Args:
        argv: the arguments; those of the process when absent.

    Returns:
        0, or the status of the builder, which has said what is wrong.
    """
    parser = argparse.ArgumentParser(prog="python -m docs.site", description="Build the documentation site.")
    parser.add_argument(
        "--out", type=Path, default=Path("build/site"), help="folder of pages and site (default: build/site)"
    )
    parser.add_argument("--serve", action="store_true", help="serve the site at http://localhost:8000 until Ctrl-C")
    arguments = parser.parse_args(argv)
    config = stage(arguments.out)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", str(config)]
    status = subprocess.run(command, check=False).returncode
    if status == 0 and arguments.serve:
        handler = functools.partial(SimpleHTTPRequestHandler, directory=str(arguments.out / "html"))
        with ThreadingHTTPServer(("localhost", 8000), handler) as server:
            server.serve_forever()
    return status


if __name__ == "__main__":
    sys.exit(main())
