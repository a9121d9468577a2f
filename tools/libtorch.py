"""Brings libtorch, as PyPI's wheels hold it, into a folder.

    python libtorch.py FOLDER [--cuda]

Which wheels, and their checksums, stands in libtorch.lock. pip says where a wheel is (so that its
settings for indexes and proxies are honoured), curl fetches it and goes on where an earlier try
stopped, and only what a program needs to compile and run is unpacked: the headers and the
libraries without Python. A folder that is complete is left alone.

Needs Python 3.9 and curl; runs on Linux (x86_64, aarch64) and macOS (arm64).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

LOCK = Path(__file__).with_name("libtorch.lock")

# The wheels of any one Python hold the same libtorch.
PYTHON = "3.11"

# pip's names of the systems that a wheel was built for.
PIP_PLATFORMS = {
    "linux-x86_64": [
        f"manylinux{suffix}_x86_64" for suffix in ("_2_28", "_2_27", "_2_25", "_2_18", "_2_17", "2014", "2010", "1")
    ],
    "linux-aarch64": [f"manylinux{suffix}_aarch64" for suffix in ("_2_28", "_2_27", "_2_25", "_2_18", "_2_17", "2014")],
    "macos-arm64": ["macosx_14_0_arm64", "macosx_11_0_arm64"],
}

# Without these, torch's own libraries are of use to Python alone.
NOT_NEEDED = ("libtorch_python", "libshm")
CUDA_ONLY = ("libtorch_cuda", "libc10_cuda", "libcaffe2_nvrtc", "libtorch_nvshmem")
# libtorch_cpu is linked against these two, and to nothing else of their wheels.
CPU_NVIDIA = ("libcudart.so", "libcupti.so")


@dataclass(frozen=True)
class Wheel:
    part: str
    package: str
    version: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.package} {self.version}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Bring libtorch into a folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cuda", action="store_true", help="with the libraries for NVIDIA devices")
    arguments = parser.parse_args()
    system = this_system()
    if arguments.cuda and system.startswith("macos"):
        sys.exit("libtorch: there is no CUDA on macOS")

    wheels = [wheel for wheel in read_lock(system) if wheel.part == "cpu" or arguments.cuda]
    folder = arguments.folder.absolute()
    manifest = "".join(f"{wheel} {wheel.sha256}\n" for wheel in wheels)
    if is_complete(folder, manifest):
        return
    downloads = folder.with_name(folder.name + ".download")
    staging = folder.with_name(folder.name + ".unpacking")
    shutil.rmtree(staging, ignore_errors=True)
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in wheels:
        unpack(fetch(wheel, system, downloads), staging, arguments.cuda)
    if system.startswith("linux"):
        hide_cuda(staging / "lib" / "libtorch.so")
    version = next(wheel.version for wheel in wheels if wheel.package == "torch")
    # torch-sys refuses a libtorch of another version by this file.
    (staging / "build-version").write_text(version + "\n")
    (staging / "wheels").write_text(manifest)
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    staging.rename(folder)
    shutil.rmtree(downloads)
    print(f"libtorch: {version} is in {folder}")


def this_system() -> str:
    names = {"Linux": "linux", "Darwin": "macos"}
    system = f"{names.get(platform.system(), platform.system())}-{platform.machine()}"
    if system not in PIP_PLATFORMS:
        sys.exit(
            f"libtorch: no wheel for {system}. Bring a libtorch 2.11.0 yourself and set LIBTORCH to its folder."
        )
    return system


def read_lock(system: str) -> list[Wheel]:
    lines = [line.split() for line in LOCK.read_text().splitlines() if not line.startswith("#")]
    return [Wheel(*fields) for name, *fields in lines if name == system]


def is_complete(folder: Path, manifest: str) -> bool:
    """Whether the folder holds all of these wheels, and perhaps more."""
    try:
        present = set((folder / "wheels").read_text().splitlines())
    except FileNotFoundError:
        return False
    return set(manifest.splitlines()) <= present


def fetch(wheel: Wheel, system: str, downloads: Path) -> Path:
    """Downloads a wheel, from where an earlier try stopped, and checks it."""
    path = downloads / f"{wheel.package}-{wheel.version}.whl"
    if not path.exists():
        partial = path.with_suffix(".part")
        print(f"libtorch: fetching {wheel}", flush=True)
        subprocess.run(
            ["curl", "--location", "--fail", "--silent", "--show-error", "--retry", "5"]
            + ["--retry-connrefused", "--continue-at", "-", "--output", partial, locate(wheel, system)],
            check=True,
        )
        partial.rename(path)
    if sha256(path) != wheel.sha256:
        path.unlink()
        sys.exit(f"libtorch: {wheel} is not the file that it should be (SHA-256); it was removed, run this again")
    return path


def locate(wheel: Wheel, system: str) -> str:
    """Asks pip for the address of a wheel."""
    with tempfile.TemporaryDirectory() as nowhere:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps"]
        command += ["--ignore-installed", "--report", "-", "--only-binary=:all:", "--target", nowhere]
        command += ["--python-version", PYTHON, "--implementation", "cp"]
        for name in PIP_PLATFORMS[system]:
            command += ["--platform", name]
        command.append(f"{wheel.package}=={wheel.version}")
        report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    return json.loads(report)["install"][0]["download_info"]["url"]


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def unpack(wheel: Path, folder: Path, cuda: bool) -> None:
    print(f"libtorch: unpacking {wheel.name}", flush=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            target = place(PurePosixPath(member.filename), cuda)
            if target is None or member.is_dir():
                continue
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def hide_cuda(libtorch: Path) -> None:
    """Makes `-ltorch` mean the libraries that have something to link against.

    libtorch.so itself holds no code, but needs libtorch_cuda.so, which a CPU host has not. The
    linker would keep it for one symbol that it and libc10.so both export; no library of the wheels
    needs it at run time.
    """
    libtorch.write_text("INPUT ( libtorch_cpu.so libc10.so )\n")


def place(member: PurePosixPath, cuda: bool) -> PurePosixPath | None:
    """Where a file of a wheel goes; None for what is not needed."""
    if member.parts[:2] == ("torch", "include"):
        return PurePosixPath(*member.parts[1:])
    is_library = ".so" in member.name or member.suffix == ".dylib"
    if not is_library or "lib" not in member.parts:
        return None
    if member.parts[0] == "torch":
        unwanted = NOT_NEEDED if cuda else NOT_NEEDED + CUDA_ONLY
        wanted = not member.name.startswith(unwanted)
    else:
        wanted = cuda or member.name.startswith(CPU_NVIDIA)
    return PurePosixPath("lib", member.name) if wanted else None


if __name__ == "__main__":
    main()
