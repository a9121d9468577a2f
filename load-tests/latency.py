"""Measures one mesh on this machine: time to ready, embeddings, and searches with and without the
caches.

    .deps/venv/bin/python load-tests/latency.py --bin target/debug/clipmesh --model tiny

Starts `clipmesh up` with a fresh data folder, indexes pictures of noise, and searches one at a
time, so that the figures are latencies and not throughput. Prints a table in Markdown.
"""

import argparse
import importlib
import json
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import grpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
COLLECTION = "latency"
SIDE = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, required=True, help="the clipmesh command")
    parser.add_argument("--model", required=True, help="as of `clipmesh up`")
    parser.add_argument("--items", type=int, default=200, help="pictures to index")
    parser.add_argument("--searches", type=int, default=100, help="searches of each kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        api = generate(Path(folder))
        command = [arguments.bin, "up", "--listen", "127.0.0.1:0", "--json"]
        command += ["--model", arguments.model, "--data", Path(folder) / "data"]
        started = time.monotonic()
        mesh = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            address = json.loads(mesh.stdout.readline())["gateway"].removeprefix("http://")
            ready = time.monotonic() - started
            report(ready, *measure(api, address, arguments))
        finally:
            mesh.terminate()
            if mesh.wait(timeout=60) != 0:
                sys.exit("the mesh did not stop cleanly")


def generate(folder: Path):
    """The client's modules, made from the contracts."""
    stubs = folder / "stubs"
    stubs.mkdir()
    # `google/rpc` comes ready-made with grpcio-status.
    protos = [str(path) for path in (ROOT / "proto" / "clipmesh").rglob("*.proto")]
    options = ["protoc", f"-I{ROOT / 'proto'}", f"-I{Path(protoc.__file__).parent / '_proto'}"]
    if protoc.main([*options, f"--python_out={stubs}", f"--grpc_python_out={stubs}", *protos]) != 0:
        sys.exit("the contracts could not be compiled")
    sys.path.insert(0, str(stubs))
    names = [f"search.v1.{name}" for name in ("collection", "item", "search")] + ["embedder.v1.embedder"]
    modules = [f"clipmesh.{name}_pb2{kind}" for name in names for kind in ("", "_grpc")]
    return {module.rpartition(".")[2]: importlib.import_module(module) for module in modules}


def measure(api, address, arguments):
    pictures = random.Random(1)
    with grpc.insecure_channel(address) as channel:
        collections = api["collection_pb2_grpc"].CollectionServiceStub(channel)
        collections.CreateCollection(api["collection_pb2"].CreateCollectionRequest(name=COLLECTION))
        indexed = index(api, channel, [noise(pictures) for _ in range(arguments.items)])
        service = api["search_pb2_grpc"].SearchServiceStub(channel)

        def search(image):
            query = api["search_pb2"].Query(image=image)
            request = api["search_pb2"].SearchRequest(collection=COLLECTION, query=query, limit=10)
            begun = time.perf_counter()
            answer = service.Search(request, timeout=30)
            return (time.perf_counter() - begun) * 1e3, answer.timing

        embedder = api["embedder_pb2_grpc"].EmbedderServiceStub(channel)

        def embed(image):
            content = api["embedder_pb2"].EmbedInput(image=image)
            begun = time.perf_counter()
            answer = embedder.Embed(api["embedder_pb2"].EmbedRequest(inputs=[content]), timeout=30)
            assert answer.results[0].HasField("embedding"), "every picture is embedded"
            return (time.perf_counter() - begun) * 1e3, answer

        embedded = [embed(noise(pictures)) for _ in range(arguments.searches)]
        queries = [noise(pictures) for _ in range(arguments.searches)]
        cold = [search(query) for query in queries]
        cached = [search(query) for query in queries]
    assert not any(timing.result_cached for _, timing in cold), "every first search is new"
    assert all(timing.result_cached for _, timing in cached), "every second one is known"
    return indexed, embedded, cold, cached


def index(api, channel, pictures):
    """Indexes through the stream; returns pictures per second."""
    service = api["item_pb2_grpc"].ItemServiceStub(channel)
    messages = (
        api["item_pb2"].IndexItemsRequest(
            collection=COLLECTION, key=key, item=api["item_pb2"].NewItem(image=image)
        )
        for key, image in enumerate(pictures)
    )
    begun = time.perf_counter()
    answers = list(service.IndexItems(messages))
    elapsed = time.perf_counter() - begun
    assert all(answer.HasField("indexed") for answer in answers), "every picture is taken"
    return len(answers) / elapsed


def noise(source: random.Random) -> bytes:
    """A PNG of coarse noise, unlike every other."""
    cell = SIDE // 8
    blocks = [[source.randbytes(3) for _ in range(8)] for _ in range(8)]
    rows = b"".join(
        b"\0" + b"".join(block * cell for block in row) for row in blocks for _ in range(cell)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    image = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + image


def report(ready, indexed, embedded, cold, cached) -> None:
    def row(name, searches):
        times = sorted(elapsed for elapsed, _ in searches)
        p50, p95 = statistics.median(times), times[int(len(times) * 0.95)]
        print(f"| {name} | {p50:.1f} ms | {p95:.1f} ms |")

    print("| one at a time | p50 | p95 |")
    print("| --- | --- | --- |")
    row("a vector for a new image", embedded)
    row("a search by a new image", cold)
    row("the same again (cached)", cached)
    ratio = statistics.median([a for a, _ in cold]) / statistics.median([a for a, _ in cached])
    print(f"\nA cached search takes 1/{ratio:.0f} of a new one.")
    print(f"Start to ready: {ready:.1f} s. Indexing: {indexed:.1f} pictures a second.")


if __name__ == "__main__":
    main()
