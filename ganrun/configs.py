"""List the configs that travel with ganrun, or print one."""

import argparse
import sys

from ganrun.cli import command
from ganrun.cli.completion import add_name
from ganrun.config import shipped
from ganrun.errors import UserError

EXAMPLES = """examples:
  ganrun configs                            what there is, and what each is for
  ganrun configs quickstart                 one as YAML; its header has its commands, hardware and result
  ganrun configs quickstart > mine.yaml     a copy to change
  ganrun configs schema.json > schema.json  describes every key, for editors

ganrun train quickstart takes a config by its name, where no file has that name."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("configs", __doc__, EXAMPLES)
    add_name(parser, "config to print (default: list all)")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    name: str | None = options.name
    if name is None:
        purposes = shipped.purposes()
        width = max(map(len, purposes))
        print("\n".join(f"{each:{width}}  {purpose}" for each, purpose in purposes.items()))
        return command.OK
    path = shipped.find(name)
    if path is None:
        raise UserError(f"NAME {name!r}: no such config; {shipped.hint(name)}")
    print(path.read_text(encoding="utf-8"), end="")
    return command.OK


if __name__ == "__main__":
    sys.exit(main())
