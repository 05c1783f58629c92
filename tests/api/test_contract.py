"""The JSON API has all of voisin.v1: every call, every field and every name of its enums, as the running server's gRPC
reflection and its OpenAPI document tell them.
"""

import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

#: The operation of each call.
OPERATIONS = {
    "CreateCollection": "createCollection", "DescribeCollection": "describeCollection",
    "ListCollections": "listCollections", "AlterCollection": "alterCollection", "DropCollection": "dropCollection",
    "ChangeAliases": "changeAliases", "Write": "writeRows", "WriteStream": "writeRows", "Delete": "deleteRows",
    "Query": "query", "Get": "getRows", "Read": "readRows", "Scroll": "scrollRows", "Count": "countRows",
    "Stats": "collectionStats", "WaitIndexed": "waitIndexed", "ListModels": "listModels", "EmbedImages": "embedImages", "WriteImages": "writeImages",
    "SearchByImage": "searchByImage",
}
#: Where the fields of each message are: schemas of the document, or none where the message has another form.
SCHEMAS = {
    "VectorColumnInfo": ["VectorColumn"], "ForwardColumnInfo": ["ForwardColumn"], "Ttl": ["Ttl"],
    "CollectionInfo": ["Collection"], "CreateCollectionRequest": ["NewCollection"], "DescribeCollectionRequest": [],
    "ListCollectionsRequest": [], "ListCollectionsReply": ["Collections"], "UnservedCollection": ["Unserved"],
    "DropCollectionRequest": [], "DropCollectionReply": [], "ParamChange": [],
    "AlterCollectionRequest": ["CollectionChange"], "AliasChange": ["AliasChange"],
    "ChangeAliasesRequest": ["AliasChanges"], "ChangeAliasesReply": ["Aliases"],
    "WriteRequest": ["Batch", "NewRow"], "LsnContext": ["Lsn"], "WriteAck": ["Written"], "RowFailure": ["Failure"],
    "Status": ["Cause"], "DeleteRequest": ["Selection"], "DeleteReply": ["Deleted"],
    "QueryRequest": ["Query"], "Group": ["Group"], "Aggregation": ["Aggregation"], "SearchParams": ["SearchParams"],
    "QueryReply": ["QueryResult"], "Hits": ["Hit"],
    "GetRequest": ["Keys"], "ReadRequest": ["Reading"], "ScrollRequest": ["Page"], "ScrollReply": ["Scrolled"],
    "CountRequest": ["Selection"], "CountReply": ["Count"], "Rows": ["Row"],
    "StatsRequest": [], "StatsReply": ["Stats"], "Indexing": ["Indexing"], "CollectionMemory": ["CollectionMemory"],
    "ServerMemory": ["ServerMemory"], "ColumnRecall": ["ColumnRecall"], "WaitIndexedRequest": ["Waiting"], "WaitIndexedReply": ["Waited"],
    "BytesWritten": ["BytesWritten"],
    "ListModelsRequest": [], "ListModelsReply": ["Models"], "Model": ["Model"], "EmbedImagesRequest": ["EmbedParts", "Embed"],
    "EmbedImagesReply": ["Vectors"], "ImageFailure": ["ImageFailure"], "Thumbnails": ["Thumbnails"],
    "WriteImagesRequest": ["WriteParts", "ImageRows", "ImageRow"], "SearchByImageRequest": ["SearchParts"],
    "SearchByImageReply": ["ImageResult"],
    # Written as the values themselves.
    "VectorNames": [], "ForwardNames": [], "VectorColumn": [], "ForwardColumn": [], "Value": ["NamedValue"],
    "FilterValue": [], "FilterValues": [],
}
#: Fields with another name, or `None` where the path or the answer's own form stands for them.
RENAMED = {
    ("CreateCollectionRequest", "name"): None, ("AlterCollectionRequest", "name"): None,
    **{(message, "collection"): None for message in (
        "WriteRequest", "WriteImagesRequest", "DeleteRequest", "QueryRequest", "GetRequest", "ReadRequest", "ScrollRequest", "CountRequest",
        "WaitIndexedRequest")},
    # `false` for it.
    ("AlterCollectionRequest", "no_ttl"): "ttl",
    # Row by row instead of column by column.
    **{("WriteRequest", many): one for many, one in {
        "keys": "key", "operations": "operation", "forwards": "values", "lsns": "lsn", "if_versions": "if_version"}.items()},
    **{(message, many): one for message in ("Hits", "Rows") for many, one in {
        "keys": "key", "scores": "score", "forwards": "values", "group_rows": "group"}.items()},
    # Parts of a form.
    **{(message, many): one for message in ("EmbedImagesRequest", "WriteImagesRequest", "SearchByImageRequest")
       for many, one in {"images": "image", "urls": "url"}.items()},
    ("WriteImagesRequest", "keys"): "key", ("WriteImagesRequest", "forwards"): "values",
    ("SearchByImageRequest", "query"): "request", ("SearchByImageReply", "reply"): "results",
    **{(message, "request_id"): None for message in ("EmbedImagesRequest", "EmbedImagesReply", "WriteImagesRequest")},
    ("EmbedImagesReply", "status"): None,
    # An answer belongs to its request, and one that is refused whole is an error.
    ("WriteRequest", "request_id"): None, ("WriteAck", "request_id"): None, ("WriteAck", "status"): None,
    **{("Value", f"{kind}_value"): kind for kind in (
        "bytes", "string", "bool", "int32", "int64", "uint32", "uint64", "float", "double")},
}
#: The schema of each enum, and names that are not said.
ENUMS = {
    # FP64 is for bytes that are sent; JSON has numbers.
    "ElementType": ("Element", {"unspecified", "fp64"}), "ValueType": ("ValueType", {"unspecified"}),
    "Metric": ("Metric", {"unspecified"}), "ScoreShape": ("ScoreShape", set()),
    "Kind": ("AggregationKind", {"unspecified"}), "Operation": ("Operation", {"unspecified"}),
    "RowFailureCode": ("FailureCode", set()), "RecallSource": ("RecallSource", set()),
}


@pytest.fixture(scope="module")
def contract(server):
    """The service and the messages of voisin.v1."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(server.channel()))
    service = pool.FindServiceByName("voisin.v1.Voisin")
    messages, enums, files = {}, {}, [service.file]
    while files:
        file = files.pop()
        files += file.dependencies
        for message in file.message_types_by_name.values():
            messages[message.name] = message
            assert not message.nested_types_by_name or all(
                nested.GetOptions().map_entry for nested in message.nested_types), message.name
            enums.update(message.enum_types_by_name)
        enums.update(file.enum_types_by_name)
    return service, messages, enums


@pytest.fixture
def document(api):
    return api.ok("GET", "/openapi.json")


def properties(document, schema):
    """The names that objects of a schema may have, those of its alternatives and parts included."""
    def names(schema):
        if "$ref" in schema:
            return properties(document, schema["$ref"].rsplit("/", 1)[1])
        return set(schema.get("properties", ())).union(
            *(names(one) for key in ("oneOf", "anyOf", "allOf") for one in schema.get(key, ())))

    return names(document["components"]["schemas"][schema])


def test_every_call_has_an_operation(contract, document):
    service, _, _ = contract
    assert {method.name for method in service.methods} == set(OPERATIONS)
    known = {op["operationId"] for item in document["paths"].values() for op in item.values() if isinstance(op, dict)}
    assert set(OPERATIONS.values()) <= known


def test_every_field_of_every_message_has_a_property(contract, document):
    _, messages, _ = contract
    assert set(messages) == set(SCHEMAS)
    fields = {(name, field.name) for name, message in messages.items() for field in message.fields if SCHEMAS[name]}
    assert set(RENAMED) - fields <= {("Rows", "scores"), ("Rows", "group_rows")}
    for name, field in fields:
        wanted = RENAMED.get((name, field), field)
        found = set().union(*(properties(document, schema) for schema in SCHEMAS[name]))
        assert wanted is None or wanted in found, f"{name}.{field} has no property among {sorted(found)}"


def test_every_name_of_every_enum_can_be_said(contract, document):
    _, _, enums = contract
    # Codes are text that may grow.
    assert set(enums) - {"Code"} == set(ENUMS)
    for name, (schema, unsaid) in ENUMS.items():
        schema = document["components"]["schemas"][schema]
        said = schema.get("enum") or [value for one in schema["oneOf"] for value in one.get("enum", [one.get("const")])]
        prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in name).strip("_").upper() + "_"
        known = {value.name.removeprefix(prefix).replace("_", "").lower() for value in enums[name].values}
        assert {value.replace("_", "").lower() for value in said} == known - unsaid, name
