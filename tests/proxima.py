"""The words tests use to speak Proxima BE's messages: schemas, rows, queries, and what comes back.

Everything is built from the SDK's own protobuf modules, so that a message here is byte for byte what a
client could send, including what the SDK's Python classes would refuse to build.
"""

import struct

import numpy as np
from pyproximabe.core.types import common_pb2 as common
from pyproximabe.core.types import proxima_be_pb2 as be

BINARY32, BINARY64, FP16, FP32, FP64, INT4, INT8, INT16 = range(20, 28)
STRING = 2
TYPE_NAMES = {
    BINARY32: "BINARY32", BINARY64: "BINARY64", FP16: "FP16", FP32: "FP32", FP64: "FP64",
    INT4: "INT4", INT8: "INT8", INT16: "INT16",
}
GRAPH = 1
INSERT, UPDATE, DELETE = 0, 1, 2
KEY_MAX = 2**64 - 1

#: The fixed texts of Proxima BE's error table, spelled as it spells them.
REASONS = {
    0: "Success",
    -1000: "",
    -1004: "Config Error",
    -1005: "Invalid Arugment",
    -1010: "Exceed Limit",
    -2000: "Empty Collection Name",
    -2001: "Empty Column Name",
    -2002: "Empty Columns",
    -2003: "Empty Repository Table",
    -2004: "Empty Repository Name",
    -2005: "Empty User Name",
    -2006: "Empty Password",
    -2007: "Invalid URI",
    -2010: "Invalid Query",
    -2012: "Invalid Write Request",
    -2014: "Invalid Repository Type",
    -2015: "Invalid Data Type",
    -2019: "Invalid Feature",
    -2021: "Mismatched Magic Number",
    -2022: "Mismatched Index Column",
    -2023: "Mismatched Dimension",
    -2024: "Mismatched Data Type",
    -4000: "Duplicate Collection",
    -4001: "Duplicate Key",
    -4002: "Collection Not Exist",
    -4003: "Column Not Exist",
    -4004: "Key Not Exist",
    -4007: "Empty Lsn Context",
}


# ----- what comes back -----


def status_of(answer):
    """The status of any answer, which is a status itself for some calls."""
    return answer.status if hasattr(answer, "status") else answer


def accepted(answer):
    """Asserts code 0 and its text, and hands the answer on."""
    status = status_of(answer)
    assert (status.code, status.reason) == (0, "Success")
    return answer


def refused(answer, code):
    """Asserts the code with its fixed text, exactly."""
    status = status_of(answer)
    assert (status.code, status.reason) == (code, REASONS[code])


def refused_because(answer, code, *words):
    """Asserts a refusal of ours: the fixed text of the code, then an explanation with `words`."""
    status = status_of(answer)
    assert status.code == code, f"{status.code} {status.reason}"
    assert status.reason.startswith(REASONS[code])
    for word in words:
        assert str(word) in status.reason, f"{word!r} missing in {status.reason!r}"


def unknown_number(handler, code):
    """What an enum's number that has no meaning is refused with: JSON has none such."""
    return code if handler == "grpc" else -1005


def hits(answer):
    """Per query vector the (key, score) pairs, in order."""
    return [[(d.primary_key, d.score) for d in result.documents] for result in accepted(answer).results]


def keys(answer):
    """Per query vector the keys, in order."""
    return [[key for key, _ in result] for result in hits(answer)]


def forwards(document):
    """The forward values of a document: name -> (kind, value), or None where unset, in order."""
    values = {}
    for pair in document.forward_column_values:
        kind = pair.value.WhichOneof("value_oneof")
        values[pair.key] = None if kind is None else (kind, getattr(pair.value, kind))
    return values


# ----- vectors -----


def pack(data_type, numbers):
    """One vector as the wire carries it: little-endian elements, words for the bit types."""
    if data_type == INT4:
        pairs = zip(numbers[0::2], numbers[1::2])
        return bytes((int(low) & 15) | (int(high) & 15) << 4 for low, high in pairs)
    kinds = {FP32: "<f4", FP16: "<f2", FP64: "<f8", INT8: "<i1", INT16: "<i2", BINARY32: "<u4", BINARY64: "<u8"}
    return np.asarray(numbers).astype(kinds[data_type]).tobytes()


def text(numbers):
    """One vector as JSON text."""
    return "[" + ",".join(map(str, numbers)) + "]"


# ----- collections -----


def column(column_name="v", dimension=2, data_type=FP32, index_type=GRAPH, params=()):
    """An index column; `params` are pairs or a dict."""
    param = be.CollectionConfig.IndexColumnParam(
        column_name=column_name, index_type=index_type, data_type=data_type, dimension=dimension)
    for key, value in params.items() if isinstance(params, dict) else params:
        param.extra_params.add(key=key, value=value)
    return param


def repository(name="mysql_repository", uri="mysql://127.0.0.1:3306/shop", table="pictures",
               user="reader", password="secret"):
    """A repository configuration; the server keeps and describes it, and contacts nobody."""
    config = be.CollectionConfig.RepositoryConfig(repository_name=name)
    config.database.connection_uri = uri
    config.database.table_name = table
    config.database.user = user
    config.database.password = password
    return config


def collection(collection_name, *columns, forward_names=(), repository=None, max_docs=0):
    """A collection declaration; one column `v` of two FP32 elements unless told otherwise."""
    config = be.CollectionConfig(collection_name=collection_name, max_docs_per_segment=max_docs)
    config.index_column_params.extend(columns or [column()])
    config.forward_column_names.extend(forward_names)
    if repository is not None:
        config.repository_config.CopyFrom(repository)
    return config


def named(collection_name):
    return be.CollectionName(collection_name=collection_name)


# ----- writes -----


def value(python_value, kind=None):
    """A GenericValue of the given kind, or of the kind that fits; None is an unset one."""
    generic = common.GenericValue()
    if python_value is None:
        return generic
    if kind is None:
        kinds = {bytes: "bytes_value", str: "string_value", bool: "bool_value", int: "int64_value",
                 float: "double_value"}
        kind = kinds[type(python_value)]
    setattr(generic, kind, python_value)
    return generic


def vector_value(vector):
    """A vector as a GenericValue: text, bytes, numbers (as FP32), or a GenericValue as it is."""
    if isinstance(vector, common.GenericValue):
        return vector
    if isinstance(vector, (str, bytes)):
        return value(vector)
    return value(pack(FP32, vector))


def row(operation, key, *vectors, values=(), lsn=None, context=""):
    """One row of a write."""
    message = be.WriteRequest.Row(primary_key=key, operation_type=operation)
    message.index_column_values.values.extend(vector_value(v) for v in vectors)
    message.forward_column_values.values.extend(
        v if isinstance(v, common.GenericValue) else value(v) for v in values)
    if lsn is not None:
        message.lsn_context.lsn = lsn
        message.lsn_context.context = context
    return message


def insert(key, *vectors, **rest):
    return row(INSERT, key, *vectors, **rest)


def update(key, *vectors, **rest):
    return row(UPDATE, key, *vectors, **rest)


def delete(key, **rest):
    return row(DELETE, key, **rest)


def writing(collection_name, *rows, metas=(("v", FP32, 2),), forward_names=(), magic=0):
    """A write request; `metas` are (column, data type, dimension)."""
    request = be.WriteRequest(collection_name=collection_name, magic_number=magic)
    for column_name, data_type, dimension in metas:
        request.row_meta.index_column_metas.add(
            column_name=column_name, data_type=data_type, dimension=dimension)
    request.row_meta.forward_column_names.extend(forward_names)
    request.rows.extend(rows)
    return request


# ----- queries -----


def knn(collection_name, features=None, column_name="v", matrix=None, topk=10, batch_count=1,
        dimension=2, data_type=FP32, radius=0.0, is_linear=False, params=(), debug=False):
    """A KNN query; `features` are bytes, or numbers of one FP32 vector."""
    request = be.QueryRequest(collection_name=collection_name, debug_mode=debug)
    param = request.knn_param
    param.column_name = column_name
    param.topk = topk
    if features is not None:
        param.features = features if isinstance(features, bytes) else pack(FP32, features)
    if matrix is not None:
        param.matrix = matrix
    param.batch_count = batch_count
    param.dimension = dimension
    param.data_type = data_type
    param.radius = radius
    param.is_linear = is_linear
    for key, param_value in dict(params).items():
        param.extra_params.add(key=key, value=param_value)
    return request


def by_key(collection_name, key):
    return be.GetDocumentRequest(collection_name=collection_name, primary_key=key)


def stored(wire, collection_name, key):
    """The document of that key, or None."""
    answer = accepted(wire.get_document_by_key(by_key(collection_name, key)))
    return answer.document if answer.HasField("document") else None


def float32(number):
    """The number after a trip through FP32."""
    return struct.unpack("<f", struct.pack("<f", number))[0]
