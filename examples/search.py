"""Indexes a folder of pictures and finds those like one of them.

    python examples/search.py ADDRESS FOLDER PICTURE

Needs the modules generated from proto/ on the path; README.md shows how.
"""

import sys
from pathlib import Path

import grpc
from clipmesh.search.v1 import collection_pb2, collection_pb2_grpc
from clipmesh.search.v1 import item_pb2, item_pb2_grpc, search_pb2, search_pb2_grpc

address, folder, picture = sys.argv[1:]
channel = grpc.insecure_channel(address)

collections = collection_pb2_grpc.CollectionServiceStub(channel)
try:
    collections.CreateCollection(collection_pb2.CreateCollectionRequest(name="python"))
except grpc.RpcError as error:
    if error.code() != grpc.StatusCode.ALREADY_EXISTS:
        raise


def requests():
    for key, path in enumerate(sorted(Path(folder).glob("*.jpg"))):
        item = item_pb2.NewItem(id=path.name, filename=path.name, image=path.read_bytes())
        yield item_pb2.IndexItemsRequest(collection="python", key=key, item=item)


for answer in item_pb2_grpc.ItemServiceStub(channel).IndexItems(requests()):
    if answer.HasField("error"):
        print(f"picture {answer.key}: {answer.error.message}")

query = search_pb2.Query(image=Path(picture).read_bytes())
request = search_pb2.SearchRequest(collection="python", query=query, limit=5)
for hit in search_pb2_grpc.SearchServiceStub(channel).Search(request).hits:
    print(f"{hit.score:.4f}  {hit.item.id}")
