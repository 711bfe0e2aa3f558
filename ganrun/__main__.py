"""`ganrun VERB ...` is `python -m ganrun.VERB ...`."""

import os
import sys
from importlib import import_module

import ganrun
from ganrun.cli import completion

VERBS = {
    "train": "train a game from a YAML file; the same command resumes",
    "tune": "search hyper-parameters: a population of runs, of which the worst continue from copies of the best",
    "prepare": "turn images into shards with an index",
    "sample": "draw images from a run's EMA generator",
    "project": "find the latents of a run whose images are nearest to your pictures",
    "paint": "draw a few strokes on a page, and the generator does the rest",
    "evaluate": "score a run: Fréchet distance, KID, precision, recall and others",
    "matcher": "train a dual encoder that scores whether pictures show what sentences say",
    "runs": "list, show, plot and delete runs",
    "sidecar": "show runs to Prometheus and browsers",
    "export": "write the EMA generator to one file",
    "configs": "list the configs that travel with ganrun, or print one",
    "doctor": "check this machine: versions, GPUs, Ray, storage, disk, shared memory, ports",
    "bench": "measure this machine, peers beside it",
}


def main() -> int:
    """Run the command that the first argument names and return its exit code."""
    verb = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if completion.is_asked():
        verb = completion.chosen_verb(VERBS)
    if verb in VERBS:
        # Like `python -m`, so that modules of run.imports are found here. Ray passes the path to its workers.
        sys.path.insert(0, os.getcwd())
        return int(import_module(f"ganrun.{verb}").main(sys.argv[2:]))
    if verb == "--version":
        print(ganrun.__version__)
        return 0
    lines = "\n".join(f"  {name:10}{what}" for name, what in VERBS.items())
    usage = f"usage: ganrun VERB ...\n\n{lines}\n\n`ganrun VERB --help` tells more."
    if verb in ("-h", "--help"):
        print(usage)
        return 0
    print(f"ganrun: no verb {verb!r}\n\n{usage}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
