"""Builds and serves the sample corpus.

python -m pipelines.sample build ROOT
python -m pipelines.sample serve ROOT [--port N]
python -m pipelines.sample demo
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipelines import progress
from pipelines.command import EXIT_OK, EXIT_STOPPED, EXIT_USAGE
from pipelines.errors import StopStage, UserError
from pipelines.sample import corpus, demo, server


def main(argv: list[str] | None = None) -> int:
    """Build the sample corpus, or serve it as a video site on this machine alone."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.sample", description=main.__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="make videos and annotations in ROOT (a minute)")
    build.add_argument("root", type=Path)
    build.add_argument("--seed", type=int, default=0)
    serve = commands.add_parser("serve", help="serve ROOT's videos, faults included")
    serve.add_argument("root", type=Path)
    serve.add_argument("--port", type=int, default=8998, help="0 picks a free one")
    serve.add_argument("--log", action="store_true", help="a line per request on stderr")
    demo_command = commands.add_parser("demo", help="build, serve and rebuild it under DVC")
    demo_command.add_argument("--params", default="params.yaml", metavar="FILE")
    args = parser.parse_args(argv)
    try:
        if args.command == "demo":
            return demo.run(args.params)
        if args.command == "serve":
            made = corpus.load(args.root)
            return server.serve(made.video_folder, made.faults, args.port, args.log)
        made = corpus.build(args.root, args.seed, report=lambda name: _say(f"  {name}"))
    except UserError as error:
        progress.complain(str(error))
        return EXIT_USAGE
    except (corpus.SampleError, StopStage) as error:
        progress.complain(str(error))
        return EXIT_STOPPED
    except OSError as error:
        progress.complain(f"cannot write {error.filename or args.root}: {error.strerror}")
        return EXIT_STOPPED
    _say(f"{len(made.videos)} videos and {len(made.clips)} clips in {args.root}")
    return EXIT_OK


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
