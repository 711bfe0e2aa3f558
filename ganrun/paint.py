"""Paint with a run: draw a few strokes on a page, and the generator does the rest."""

import argparse
import contextlib
import functools
import ipaddress
import secrets
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ganrun.cli import command
from ganrun.cli.arguments import listen_address
from ganrun.errors import RunError, UserError, escaped
from ganrun.storage import expand_user
from ganrun.telemetry.protocol import HOST, Address

if TYPE_CHECKING:
    from ganrun.inference.paint.edits import Painter

PORT = 9110
EXAMPLES = f"""examples:
  ganrun paint runs/quickstart                                  a page at http://{HOST}:{PORT}
  ganrun paint runs/quickstart --encoder runs/invert-quickstart   a better start for your own pictures
  ganrun paint runs/pix2pix-fluent                              translates what you draw
  ganrun paint runs/quickstart --log edits.jsonl                writes down every edit
  ganrun paint runs/quickstart --replay edits.jsonl --out again   draws those edits again: again/0000.png, ...
  ganrun paint runs/quickstart --listen 0.0.0.0:{PORT}            for other machines, with a token in the address

Nothing leaves this machine but to those who open the page. Ctrl-C ends it."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("paint", __doc__, EXAMPLES)
    parser.add_argument("run", metavar="RUN_OR_CHECKPOINT", help="folder of a run, or of one of its checkpoints")
    parser.add_argument("--listen", metavar="ADDR:PORT", default=f"{HOST}:{PORT}", help="default: %(default)s")
    parser.add_argument("--encoder", metavar="RUN", help="run of the game inversion, whose encoder gives a start")
    parser.add_argument("--log", metavar="FILE", help="add a line for each edit to this file")
    parser.add_argument("--replay", metavar="FILE", help="draw the edits of such a file again, without a page")
    parser.add_argument("--out", metavar="DIR", help="folder for the images of --replay")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    if (options.replay is None) != (options.out is None):
        raise UserError("--replay and --out: belong together; give both or none")
    where = listen_address(options.listen, PORT)
    from ganrun.inference.paint.painters import open_painter
    from ganrun.inference.sampling import Sampler

    painter = open_painter(Sampler(options.run), options.encoder)
    if options.replay:
        return _replay(painter, Path(expand_user(options.replay)), Path(expand_user(options.out)))
    return _serve(painter, where, options.log and Path(expand_user(options.log)))


def _log_to(path: Path | None, stack: contextlib.ExitStack) -> Callable[[str], object]:
    """Return the function that writes a line to the log; without a log it does nothing."""
    if path is None:
        return lambda line: None
    return stack.enter_context(path.open("a", buffering=1, encoding="utf-8")).write


def _serve(painter: "Painter", where: Address, log: Path | None) -> int:
    from ganrun.inference.paint.server import Server
    from ganrun.preparation.own_pictures import read_drawing

    decode = functools.partial(read_drawing, size=painter.size, channels=painter.channels)
    token = "" if ipaddress.ip_address(where.host).is_loopback else secrets.token_urlsafe(16)
    with contextlib.ExitStack() as stack:
        write = _log_to(log, stack)
        try:
            server = stack.enter_context(Server(where, painter, decode, write, token))
        except OSError as error:
            raise RunError(f"--listen: {where.host}:{where.port}: {error.strerror}; choose another port") from error
        url = Address(where.host, server.port).url + (f"/#{token}" if token else "")
        if token:
            print(
                f"{where.host} is open to other machines, without encryption: whoever has this address may paint",
                file=sys.stderr,
            )
        print(url, flush=True)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()
    return command.OK


def _replay(painter: "Painter", log: Path, out: Path) -> int:
    from ganrun.inference.paint.edits import replay
    from ganrun.inference.sampling import write_file
    from ganrun.preparation.own_pictures import read_drawing

    decode = functools.partial(read_drawing, size=painter.size, channels=painter.channels)
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--replay {escaped(str(log))}: cannot read it: {error}") from error
    alike = 0
    for number, (png, same) in enumerate(replay(painter, lines, decode, f"--replay {log}")):
        write_file(out / f"{number:04d}.png", png)
        alike += same
    print(f"{len(lines)} edits drawn again, {alike} of them as before to the last bit", file=sys.stderr)
    print(out)
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
