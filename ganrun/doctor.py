"""Check this machine: versions, GPUs, Ray, storage, disk, shared memory and ports; what is wrong, and what to do."""

import argparse
import json
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import ganrun
from ganrun.cli import command
from ganrun.config.ray_variables import cluster_address, session_folder
from ganrun.errors import RunError, UserError
from ganrun.storage import Folder, check_rights, open_storage
from ganrun.telemetry import protocol

if TYPE_CHECKING:  # imported where it is used: --help must answer at once
    from packaging.requirements import Requirement

EXAMPLES = """examples:
  ganrun doctor                            this machine, and a folder runs/ below this one
  ganrun doctor s3://bucket/runs           also whether runs can be stored there
  ganrun doctor --json                     for scripts

Exit code 1: something would keep runs from training. Notes are no faults."""
STATES = {"ok": command.GREEN, "note": command.YELLOW, "fault": command.RED}
PATIENCE_SECONDS = 10.0
"""Retry budget of a storage that does not answer."""
GIB = 2**30
LEAST_DISK, LEAST_MEMORY, LEAST_SHARED = 2 * GIB, 2 * GIB, 128 * 2**20
"""Free bytes below which runs fail sooner or later. A local Ray puts 100 MiB into shared memory."""
LEAST_FILES = 4096
"""Open files that Ray asks for."""


@dataclass(frozen=True)
class Finding:
    """Result of a check.

    Attributes:
        what: what was looked at.
        state: a fault keeps runs from training.
        text: what was found.
        advice: what to do about it; empty if nothing is to be done.
    """

    what: str
    state: Literal["ok", "note", "fault"]
    text: str
    advice: str = ""


Findings = Iterator[Finding]


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = command.parser("doctor", __doc__, EXAMPLES)
    parser.add_argument("storage", metavar="STORAGE", nargs="?", default="runs", help="run.storage (default: runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return command.run(command.parse(parser, arguments), _main)


def _main(options: argparse.Namespace) -> int:
    findings = examine(options.storage)
    faults = sum(finding.state == "fault" for finding in findings)
    if options.json:
        print(json.dumps({"ganrun": ganrun.__version__, "faults": faults, "findings": list(map(asdict, findings))}))
    else:
        print("\n".join(map(_line, findings)))
    return command.FAILED if faults else command.OK


def examine(storage: str) -> list[Finding]:
    """Return the findings of all checks. A check that fails itself is a fault."""
    checks: dict[str, Callable[[], Findings]] = {
        "packages": _packages,
        "machine": _machine,
        "GPU": _gpus,
        "Ray": _ray,
        "storage": lambda: _storage(storage),
        "disk": lambda: _disk(storage),
        "shared memory": _shared_memory,
        "port": _port,
    }
    findings = []
    for what, check in checks.items():
        try:
            findings += list(check())
        except (UserError, RunError, OSError) as error:
            findings.append(Finding(what, "fault", *_halves(str(error))))
    return findings


def _line(finding: Finding) -> str:
    mark = command.coloured(f"{finding.state:5}", STATES[finding.state], sys.stdout)
    advice = f"\n{'':21}-> {finding.advice}" if finding.advice else ""
    return f"{mark}  {finding.what:13} {finding.text}{advice}"


def _halves(error: str) -> tuple[str, str]:
    """Return what is wrong and what to do of a message."""
    wrong, _, advice = " ".join(error.split()).partition("; ")
    return wrong, advice


def _packages() -> Findings:
    """Compare the installed packages with what ganrun requires, and name the extras that are there."""
    from packaging.requirements import Requirement

    about = f"ganrun {ganrun.__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    yield Finding("versions", "ok", about)
    try:
        distribution = metadata.distribution("ganrun")
    except metadata.PackageNotFoundError:
        yield Finding("packages", "note", "ganrun is not installed, only found on the path", "pip install ganrun")
        return
    if distribution.version != ganrun.__version__:
        text = f"this ganrun is {ganrun.__version__}, the one installed {distribution.version}"
        yield Finding("packages", "note", text, "install it again: pip install -e .")
    needed = [Requirement(text) for text in distribution.requires or ()]
    always = [each for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]
    wrong = [f"{each.name}{each.specifier}" for each in always if not _fits(each)]
    for requirement in wrong:
        yield Finding("packages", "fault", f"{requirement} is not installed", f"pip install '{requirement}'")
    if not wrong:
        shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("torch", "torchvision", "ray", "numpy"))
        yield Finding("packages", "ok", f"{shown}, and {len(always) - 4} more")
    extras = distribution.metadata.get_all("Provides-Extra") or []
    of = {
        extra: [each for each in needed if each.marker and each.marker.evaluate({"extra": extra})] for extra in extras
    }
    there = [extra for extra in extras if all(map(_fits, (each for each in of[extra] if each not in always)))]
    missing = [extra for extra in extras if extra not in there and extra not in ("test", "lint")]
    advice = f"for the others: pip install 'ganrun[{','.join(missing)}]'" if missing else ""
    yield Finding("extras", "ok", ", ".join(there) or "none", advice)


def _fits(requirement: "Requirement") -> bool:
    try:
        return bool(requirement.specifier.contains(metadata.version(requirement.name), prereleases=True))
    except metadata.PackageNotFoundError:
        return False


def _machine() -> Findings:
    """Look at CPUs, memory and open files, also at what a container may use of them."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    limit = int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else usable
    yield Finding(
        "CPU", "ok", f"{usable} cores" + (f", of which a container may use {limit:g}" if limit < usable else "")
    )
    lines = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines() if ":" in line)
    if "MemAvailable" in lines:
        free = int(lines["MemAvailable"].split()[0]) * 1024
        most, used = _read("/sys/fs/cgroup/memory.max"), _read("/sys/fs/cgroup/memory.current")
        free = min(free, int(most) - int(used)) if most.isdigit() and used.isdigit() else free
        advice = "end other programs, or lower data.batch_size and model.width" if free < LEAST_MEMORY else ""
        yield Finding("memory", "note" if advice else "ok", f"{free / GIB:.1f} GiB free", advice)
    if sys.platform != "win32":
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        few = 0 <= files < LEAST_FILES
        yield Finding("open files", "note" if few else "ok", f"at most {files:,}", "ulimit -n 65536" if few else "")


def _gpus() -> Findings:
    import torch

    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            try:
                torch.ones(1, device=f"cuda:{number}").item()
            except RuntimeError as error:
                yield Finding("GPU", "fault", *_halves(f"{about.name}: {str(error).splitlines()[0]}; see nvidia-smi"))
                continue
            bf16 = "" if about.major >= 8 else ", without bf16"
            yield Finding(
                "GPU", "ok", f"{about.name}, {about.total_memory / GIB:.0f} GiB{bf16}, CUDA {torch.version.cuda}"
            )
    elif Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi"):
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs only"
        advice = "install the torch of the driver's CUDA version (pytorch.org), or a newer driver"
        yield Finding(
            "GPU", "fault", f"NVIDIA's driver is here, but torch {torch.__version__}, {built}, sees no GPU", advice
        )
    else:
        yield Finding("GPU", "note", "none: runs train on the CPU")


def _ray() -> Findings:
    address = cluster_address()
    if address is None:
        yield Finding("Ray", "ok", f"a local one, with its sessions in {session_folder()}")
        return
    from ganrun.ray_backend.cluster import check_answers

    check_answers(address)
    yield Finding("Ray", "ok", f"the cluster at {address} answers")


def _storage(uri: str) -> Findings:
    check_rights(open_storage(uri, PATIENCE_SECONDS), "STORAGE")
    yield Finding("storage", "ok", f"{uri} can be written, read, listed and deleted in")


def _disk(uri: str) -> Findings:
    from ganrun.data.cache import cache_folder

    storage = open_storage(uri, PATIENCE_SECONDS)
    folders = {"cache": cache_folder(), "Ray": Path(session_folder())}
    folders |= {"runs": storage.path} if isinstance(storage, Folder) else {}
    for what, folder in folders.items():
        there = next(each for each in (folder, *folder.parents) if each.exists())
        free = shutil.disk_usage(there).free
        advice = f"free some space in {there}, or name another folder" if free < LEAST_DISK else ""
        yield Finding("disk", "fault" if advice else "ok", f"{free / GIB:.1f} GiB free for {what} in {folder}", advice)


def _shared_memory() -> Findings:
    place = Path("/dev/shm")
    if place.is_dir():  # Linux.
        free = shutil.disk_usage(place).free
        advice = "start the container with --shm-size=1g" if free < LEAST_SHARED else ""
        yield Finding("shared memory", "fault" if advice else "ok", f"{free / 2**20:,.0f} MiB free in {place}", advice)


def _port() -> Findings:
    from ganrun.telemetry.push import health

    address = protocol.address()
    if address is None:
        yield Finding("port", "ok", "no sidecar is wanted: GANRUN_SIDECAR is off")
    elif health(address):
        yield Finding("port", "ok", f"a sidecar answers at {address.url}")
    elif not protocol.is_default():
        yield Finding("port", "note", f"no sidecar answers at {address.url}", "start it there: ganrun sidecar")
    else:
        with socket.socket() as probe:
            taken = probe.connect_ex((address.host, address.port)) == 0
        text = f"{address.url} is {'that of another program' if taken else 'free for the sidecar'}"
        advice = "start ganrun sidecar --listen 127.0.0.1:PORT and set GANRUN_SIDECAR to its address" if taken else ""
        yield Finding("port", "note" if taken else "ok", text, advice)


def _read(file: str) -> str:
    """Return the text of a file of the kernel; empty if there is none."""
    try:
        return Path(file).read_text().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main())
