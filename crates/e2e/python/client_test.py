"""A Python program against a running mesh, as a user would write it.

The stubs are generated from the contracts into a temporary folder, so that this is also a test of
the contracts themselves: that another language's compiler takes them.

Usage: client_test.py ADDRESS PROTO_FOLDER
"""

import random
import struct
import sys
import tempfile
import unittest
import zlib
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_status import rpc_status
from grpc_tools import protoc

TIMEOUT = 60  # Seconds for one call, on the slowest machine.


def generate(proto_folder, folder):
    """Compiles the contracts. `google/rpc` comes ready-made with grpcio-status."""
    files = sorted(str(path) for path in Path(proto_folder, "clipmesh").rglob("*.proto"))
    well_known = str(Path(protoc.__file__).parent / "_proto")
    arguments = ["protoc", f"-I{proto_folder}", f"-I{well_known}"]
    arguments += [f"--python_out={folder}", f"--grpc_python_out={folder}", *files]
    if protoc.main(arguments) != 0:
        sys.exit("the contracts do not compile for Python")
    sys.path.insert(0, folder)


def picture(seed, edge=48, tile=8):
    """A PNG of flat tiles in random colours."""
    colours = random.Random(seed)
    tiles = [[colours.randbytes(3) for _ in range(edge // tile)] for _ in range(edge // tile)]
    lines = [b"\0" + b"".join(colour * tile for colour in row) for row in tiles for _ in range(tile)]

    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", edge, edge, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


class ClientTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.channel = grpc.insecure_channel(ADDRESS)
        cls.collections = collection_pb2_grpc.CollectionServiceStub(cls.channel)
        cls.items = item_pb2_grpc.ItemServiceStub(cls.channel)
        cls.search = search_pb2_grpc.SearchServiceStub(cls.channel)
        cls.embedder = embedder_pb2_grpc.EmbedderServiceStub(cls.channel)

    @classmethod
    def tearDownClass(cls):
        cls.channel.close()

    def collection(self, name):
        request = collection_pb2.CreateCollectionRequest(name=name)
        return self.collections.CreateCollection(request, timeout=TIMEOUT).collection

    def index(self, collection, item_id, image, **fields):
        item = item_pb2.NewItem(id=item_id, image=image, **fields)
        request = item_pb2.IndexItemRequest(collection=collection, item=item)
        return self.items.IndexItem(request, timeout=TIMEOUT)

    def find(self, collection, query, **fields):
        request = search_pb2.SearchRequest(collection=collection, query=query, **fields)
        return self.search.Search(request, timeout=TIMEOUT)

    def test_indexes_and_searches(self):
        collection = self.collection("python")
        for seed in range(5):
            answer = self.index("python", f"p{seed}", picture(seed))
            self.assertEqual(answer.outcome, item_pb2.INDEX_OUTCOME_CREATED)
            self.assertEqual((answer.item.width, answer.item.format), (48, "png"))

        answer = self.find("python", search_pb2.Query(image=picture(3)), limit=2)
        self.assertEqual([answer.hits[0].item.id, len(answer.hits)], ["p3", 2])
        self.assertGreater(answer.hits[0].score, 0.999)

        request = item_pb2.GetItemRequest(collection="python", id="p4", include_vector=True)
        vector = self.items.GetItem(request, timeout=TIMEOUT).vector
        self.assertEqual(len(vector), collection.dimension)
        query = search_pb2.Query(vector=search_pb2.VectorQuery(values=vector))
        self.assertEqual(self.find("python", query).hits[0].item.id, "p4")

        answer = self.find("python", search_pb2.Query(text="ein rotes Fahrrad"))
        self.assertEqual(len(answer.hits), 5)

    def test_metadata_is_a_plain_dictionary(self):
        self.collection("python-metadata")
        self.index("python-metadata", "a", picture(1), metadata={"year": 1999, "tags": ["x", "y"]})
        self.index("python-metadata", "b", picture(2), metadata={"year": 2020})
        modern = filter_pb2.Range(gte=2000)
        condition = filter_pb2.Condition(key="metadata.year", range=modern)
        request = item_pb2.ListItemsRequest(
            collection="python-metadata", filter=filter_pb2.Filter(must=[condition])
        )
        listed = self.items.ListItems(request, timeout=TIMEOUT).items
        self.assertEqual([item.id for item in listed], ["b"])
        request = item_pb2.GetItemRequest(collection="python-metadata", id="a")
        item = self.items.GetItem(request, timeout=TIMEOUT).item
        self.assertEqual(list(item.metadata["tags"]), ["x", "y"])

    def test_a_stream_acknowledges_each_item(self):
        self.collection("python-stream")

        def requests():
            for key in range(20):
                image = b"not a picture" if key == 7 else picture(key)
                item = item_pb2.NewItem(id=f"s{key}", image=image)
                yield item_pb2.IndexItemsRequest(collection="python-stream", key=key, item=item)

        answers = {ack.key: ack for ack in self.items.IndexItems(requests(), timeout=TIMEOUT)}
        self.assertEqual(sorted(answers), list(range(20)))
        failed = [key for key, ack in answers.items() if ack.WhichOneof("result") == "error"]
        self.assertEqual(failed, [7])
        violation, info = details_of(answers[7].error)
        self.assertEqual((violation.field, info.reason), ("item.image", "NOT_AN_IMAGE"))
        request = item_pb2.CountItemsRequest(collection="python-stream")
        self.assertEqual(self.items.CountItems(request, timeout=TIMEOUT).count, 19)

    def test_an_error_says_which_field_and_why(self):
        self.collection("python-errors")
        with self.assertRaises(grpc.RpcError) as caught:
            self.index("python-errors", "a", b"")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        violation, info = details_of(rpc_status.from_call(caught.exception))
        self.assertEqual(violation.field, "item.image")
        self.assertEqual((info.reason, info.domain), ("EMPTY", "clipmesh"))

        with self.assertRaises(grpc.RpcError) as caught:
            self.find("python-nowhere", search_pb2.Query(text="a"))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_describes_the_model(self):
        model = self.embedder.GetModel(embedder_pb2.GetModelRequest(), timeout=TIMEOUT).model
        self.assertRegex(model.fingerprint, "^[0-9a-f]{64}$")
        self.assertIn(embedder_pb2.MODALITY_IMAGE, model.modalities)

    def test_is_healthy(self):
        health = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service="clipmesh.search.v1.SearchService")
        status = health.Check(request, timeout=TIMEOUT).status
        self.assertEqual(status, health_pb2.HealthCheckResponse.SERVING)

    def test_reflection_describes_the_contracts(self):
        database = ProtoReflectionDescriptorDatabase(self.channel)
        services = set(database.get_services())
        for name in ("Collection", "Item", "Search"):
            self.assertIn(f"clipmesh.search.v1.{name}Service", services)
        self.assertIn("clipmesh.embedder.v1.EmbedderService", services)
        found = database.FindFileContainingSymbol("clipmesh.search.v1.SearchRequest")
        ours = search_pb2.SearchRequest.DESCRIPTOR
        theirs = next(message for message in found.message_type if message.name == ours.name)
        numbers = {field.name: field.number for field in theirs.field}
        self.assertEqual(numbers, {field.name: field.number for field in ours.fields})


def details_of(status):
    """The field violation and the reason in a google.rpc.Status."""
    violations, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    for detail in status.details:
        for message in (violations, info):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    return violations.field_violations[0], info


if __name__ == "__main__":
    ADDRESS, PROTO_FOLDER = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="clipmesh-stubs-") as stubs:
        generate(PROTO_FOLDER, stubs)
        from clipmesh.embedder.v1 import embedder_pb2, embedder_pb2_grpc
        from clipmesh.search.v1 import (
            collection_pb2,
            collection_pb2_grpc,
            filter_pb2,
            item_pb2,
            item_pb2_grpc,
            search_pb2,
            search_pb2_grpc,
        )
        from google.rpc import error_details_pb2

        unittest.main(argv=sys.argv[:1], verbosity=2)
