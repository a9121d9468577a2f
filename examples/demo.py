#!/usr/bin/env python3
"""Shows clipmesh at work, and checks what it shows.

Starts the whole mesh on free ports with a fresh data folder and the model that clipmesh brings,
indexes `examples/images/gallery`, searches it by words and by example, checks that what a person
expects is on top, and stops the mesh.

    examples/demo.py --bin target/release/clipmesh

Needs nothing but Python 3.8 or newer. Exits 0 when everything went as it should; otherwise prints
what went wrong with the end of the mesh's log, and exits 1.
"""

import argparse
import json
import os
import pathlib
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time

GALLERY = pathlib.Path(__file__).resolve().parent / "images" / "gallery"
# Hits shown beyond those that are checked.
MORE_HITS = 2
LOG_TAIL_LINES = 40

# Generous, for a machine that is busy compiling; each is a limit, not a wait.
START_SECONDS = 300
INDEX_SECONDS = 900
SEARCH_SECONDS = 60
STOP_SECONDS = 60


class DemoError(Exception):
    """Something did not go as it should; the message says what."""


class Mesh:
    """One `clipmesh up`, with its log in a file."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.log = folder / "mesh.log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [binary, "up", "--model", "tiny", "--data", folder / "data"]
                + ["--listen", "127.0.0.1:0", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(),
            )
        self.lines = queue.Queue()
        threading.Thread(target=self._read_lines, daemon=True).start()
        self.gateway = None

    def _read_lines(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def wait_until_ready(self):
        try:
            line = self.lines.get(timeout=START_SECONDS)
        except queue.Empty:
            raise DemoError(f"the mesh was not ready within {START_SECONDS} s") from None
        if line is None:
            code = self.process.wait(timeout=STOP_SECONDS)
            raise DemoError(f"the mesh ended with exit code {code} instead of starting")
        self.gateway = json.loads(line)["gateway"]

    def run(self, *arguments, seconds, capture=True):
        """Runs a client command and returns its output; other exit codes than 0 are errors."""
        command = [self.binary, *arguments, "--server", self.gateway]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if capture else None,
                timeout=seconds,
                env=clean_environment(),
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoError(f"`{show(arguments)}` took more than {seconds} s") from None
        if done.returncode != 0:
            raise DemoError(f"`{show(arguments)}` ended with exit code {done.returncode}")
        return done.stdout

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the mesh did not stop within {STOP_SECONDS} s") from None
        if code != 0:
            raise DemoError(f"the mesh stopped with exit code {code} instead of 0")

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def log_tail(self):
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def clean_environment():
    """Our own environment without settings of another mesh."""
    return {key: value for key, value in os.environ.items() if not key.startswith("CLIPMESH")}


def show(arguments):
    """A command line as one would type it."""
    return shlex.join(["clipmesh", *(str(argument) for argument in arguments)])


def say(text=""):
    print(text, flush=True)


def expected_first(query, answer):
    """Checks one answer: the first hits are what a person would expect."""
    first = answer["hits"][: query["first"]]
    wanted = query["expect"]
    fitting = [hit for hit in first if has(hit["metadata"], wanted)]
    if len(fitting) < query["first"]:
        strangers = ", ".join(hit["filename"] for hit in first if hit not in fitting) or "none"
        raise DemoError(
            f"{len(fitting)} of the first {query['first']} hits fit {wanted}; these do not: {strangers}"
        )


def has(metadata, wanted):
    """Whether a picture's metadata holds all values that are wanted."""
    return all(
        value in metadata[key] if isinstance(metadata[key], list) else metadata[key] == value
        for key, value in wanted.items()
    )


def search(mesh, query):
    asked = []
    if "image" in query:
        asked += ["--image", os.path.relpath(GALLERY / query["image"])]
    if "text" in query:
        asked += ["--text", query["text"]]
    arguments = ["search", *asked, "--limit", str(query["first"] + MORE_HITS)]
    say(f"$ {show(arguments)}")
    say(mesh.run(*arguments, seconds=SEARCH_SECONDS))
    expected_first(query, json.loads(mesh.run(*arguments, "--json", seconds=SEARCH_SECONDS)))


def demo(mesh):
    started = time.monotonic()
    mesh.wait_until_ready()
    say(f"The mesh is up at {mesh.gateway} after {time.monotonic() - started:.1f} s. Its model is `tiny`, the one")
    say("that clipmesh brings: a small CLIP that knows pictograms and nothing else.")
    say()
    path = os.path.relpath(GALLERY)
    say(f"$ {show(['index', path])}")
    mesh.run("index", path, seconds=INDEX_SECONDS, capture=False)
    say()
    queries = json.loads((GALLERY / "queries.json").read_text())
    for query in queries:
        search(mesh, query)
    mesh.stop()
    say(f"All {len(queries)} searches found what was expected first. The mesh stopped cleanly.")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", required=True, type=pathlib.Path, help="the clipmesh binary")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clipmesh-demo-") as folder:
        mesh = Mesh(arguments.bin.resolve(), pathlib.Path(folder))
        try:
            demo(mesh)
            return 0
        except (DemoError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
            say(f"\ndemo failed: {error}\n--- the end of the mesh's log ---\n{mesh.log_tail()}")
            return 1
        finally:
            mesh.kill()


if __name__ == "__main__":
    sys.exit(main())
