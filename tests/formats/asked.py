"""What is asked of a data folder, old or new: its answers are kept beside the folder, and compared."""

import base64
import hashlib
import json

import numpy as np
from google.protobuf import json_format

#: Collections with more rows than this have the others in a checksum alone.
ROWS_KEPT = 48
#: Queries of each column, each by a row that is there, and how many rows each finds.
QUERIES, TOPK = 3, 5
#: Collections and expressions that count rows.
FILTERS = {
    "kinds": ["double > 20.5", "mixed == 'text 8'", "boolean"],
    "indexes": ["number < 40"],
    "trained": ["number >= 100 and number < 200"],
    "by_column": ["name == 'never'"],
    "versions": ["_version > 80"],
}
ELEMENTS = {"FP32": 1, "FP16": 2, "INT8": 3, "INT4": 4, "INT16": 5, "BINARY32": 6, "BINARY64": 7}


def plain(message):
    """A message as JSON has it, with all fields."""
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


def declared(calls, name):
    """The declaration of a collection, without what differs between two of them."""
    info = plain(calls.DescribeCollection(name=name))
    info.pop("uuid")
    info.get("aliases", []).sort()
    return info


def value_of(value):
    """A forward value with its kind; None where it is unset."""
    kind = value.WhichOneof("kind")
    if kind is None:
        return None
    found = getattr(value, kind)
    return [kind, base64.b64encode(found).decode() if isinstance(found, bytes) else found]


def rows(calls, name):
    """All rows by key: the vectors of each column, in base64 and with their number, and the forward values."""
    found = {}
    for part in calls.Read(collection=name, vectors=calls.message("VectorNames", names=["*"])):
        places = [0] * len(part.vectors)
        for at, key in enumerate(part.keys):
            vectors = {}
            for number, column in enumerate(part.vectors):
                counts = list(column.counts) or [1] * len(part.keys)
                width = len(column.vectors) // max(1, sum(counts))
                start = places[number]
                places[number] = end = start + counts[at] * width
                text = base64.b64encode(column.vectors[start:end]).decode()
                vectors[column.name] = [counts[at], text]
            forwards = {column.name: value_of(column.values[at]) for column in part.forwards}
            assert key not in found
            found[key] = {"vectors": vectors, "forwards": forwards}
    return dict(sorted(found.items()))


def digest(found):
    """A checksum of rows as `rows` gives them."""
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def nearest(calls, name, column, vector, topk=TOPK, params=None):
    """The keys and scores of the rows nearest to one vector, and the reply."""
    vectors = calls.message("VectorColumn", name=column["name"], element=ELEMENTS[column["element"][len("ELEMENT_TYPE_"):]],
                            dimension=column["dimension"], vectors=vector)
    reply = calls.Query(collection=name, vectors=vectors, topk=topk, forwards=calls.message("ForwardNames"),
                        params=calls.message("SearchParams", **(params or {})))
    [hits] = reply.results
    return [[key, float(np.float32(score))] for key, score in zip(hits.keys, hits.scores)], reply


def vector_of(row, column):
    """The first vector that a row has in a column; None where it has none."""
    count, text = row["vectors"][column]
    return base64.b64decode(text)[:len(base64.b64decode(text)) // count] if count else None


def queries(calls, name, info, found):
    """For some rows of each column that holds vectors: which rows an exact search finds near them."""
    asked = []
    for column in info["vectors"]:
        with_vector = [key for key, row in found.items() if vector_of(row, column["name"])]
        for at in range(QUERIES if with_vector else 0):
            key = with_vector[(at * len(with_vector)) // QUERIES]
            hits, reply = nearest(calls, name, column, vector_of(found[key], column["name"]), params={"exact": True})
            assert reply.exact
            asked.append({"column": column["name"], "row": key, "hits": hits})
    return asked


def walked(calls, name, info, found):
    """The columns whose index is used by a query that says how hard to search: others scan what is small."""
    names, params = [], {"ef_search": 8, "nprobe": 1}
    for column in info["vectors"]:
        vector = next((vector_of(row, column["name"]) for row in found.values() if row["vectors"][column["name"]][0]), None)
        if vector and not nearest(calls, name, column, vector, params=params)[1].exact:
            names.append(column["name"])
    return names


def answers(calls):
    """Everything about every collection that callers can see."""
    listed = calls.ListCollections()
    assert not listed.unserved, listed.unserved
    told = {"aliases": dict(calls.ChangeAliases().aliases), "collections": {}}
    for name in sorted(info.name for info in listed.collections):
        info, found = declared(calls, name), rows(calls, name)
        kept = list(found) if len(found) <= ROWS_KEPT else list(found)[::len(found) // ROWS_KEPT + 1]
        counts = {text: calls.Count(collection=name, filter=text).rows for text in FILTERS.get(name, [])}
        told["collections"][name] = {
            "declared": info,
            "count": calls.Count(collection=name).rows,
            "counts": counts,
            "digest": digest(found),
            "rows": {str(key): found[key] for key in kept},
            "queries": queries(calls, name, info, found),
            "walked": walked(calls, name, info, found),
        }
    return told
