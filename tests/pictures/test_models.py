"""Folders of models: what of them is taken, and that vectors are those of ONNX Runtime over Pillow's pixels."""

import json
import os

import grpc
import numpy as np
import pytest

import models
import reference
from drawing import encoded, jpeg, scene
from server import StartFailed, run_voisin
from voisin_v1 import VoisinV1, refused

#: A model, the configuration of its pictures, and the output that is the embedding.
EXPORTS = {
    "resnet18": (lambda: models.resnet((2, 2, 2, 2), False), models.resnet_config(224), "pooler_output"),
    "resnet50": (lambda: models.resnet((3, 4, 6, 3), True), models.resnet_config(224), "pooler_output"),
    "vgg16": (models.vgg16, models.vgg_config(224), "features"),
    "clip": (lambda: models.transformer(32, 224, 32, 48, 3, 4, project=40), models.clip_config(224), "image_embeds"),
    "dinov2": (lambda: models.transformer(14, 112, 14, 48, 3, 4), models.dinov2_config(112), "pooler_output"),
}
PICTURES = [scene(1), scene(2, 200, 333), scene(3, 500, 130)]


def numbers(column):
    return np.frombuffer(column.vectors, np.float32).reshape(-1, column.dimension)


@pytest.fixture
def serve(start_server, tmp_path):
    """Starts a server whose models are in `folder`, and gives its calls."""
    folder = tmp_path / "models"

    def start(**settings):
        start.server = start_server(settings={"embedding.models": folder, **settings})
        return VoisinV1(start.server.channel())

    def again():
        start.server.restart("stop")
        return VoisinV1(start.server.channel())

    start.folder, start.again = folder, again
    return start


@pytest.mark.parametrize("export", EXPORTS)
def test_vectors_are_those_of_onnx_runtime_over_pillows_pixels(serve, export):
    make, config, output = EXPORTS[export]
    made = make()
    folder = models.save(serve.folder / export, made, config)
    checked = run_voisin("model", "check", folder, "--json")
    assert checked.returncode == 0, checked.stderr
    told = json.loads(checked.stdout)
    files = [encoded(picture) for picture in PICTURES] + [jpeg(picture) for picture in PICTURES]
    calls = serve()
    expected = np.stack(
        [reference.vector(made.SerializeToString(), output, reference.tensor(file, config)) for file in files])
    assert (told["dimension"], told["metric"], told["provider"]) == (expected.shape[1], "Cosine", "CPUExecutionProvider")
    assert told["milliseconds_per_image"] > 0 and "pixel_values" in told["input"] and output in told["output"]
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model=export, images=files)])
    assert not reply.failures and not reply.HasField("status")
    assert np.abs(numbers(reply.vectors) - expected).max() < 1e-4
    [listed] = [model for model in calls.ListModels().models if model.name == export]
    assert (listed.dimension, listed.problem, listed.built_in) == (expected.shape[1], "", False)


@pytest.mark.parametrize("config", [models.clip_config, models.dinov2_config, models.resnet_config, models.vgg_config,
                                    models.vit_config], ids=lambda config: config.__name__.removesuffix("_config"))
@pytest.mark.parametrize("channels_first", [True, False], ids=["nchw", "nhwc"])
def test_tensors_are_the_references_to_one_step_of_a_pixel(serve, config, channels_first):
    side = 112
    config = config(side)
    models.save(serve.folder / "probe", models.probe(side, channels_first), config, "normalise = false\n")
    calls = serve()
    files = [encoded(picture) for picture in PICTURES] + [jpeg(picture) for picture in PICTURES]
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model="probe", images=files)])
    assert not reply.failures and not reply.HasField("status"), reply.status
    shape = (3, side, side) if channels_first else (side, side, 3)
    for made, file in zip(numbers(reply.vectors), files):
        made = made.reshape(shape) if channels_first else made.reshape(shape).transpose(2, 0, 1)
        apart = np.abs(made - reference.tensor(file, config)[0]) * np.float32(config["image_std"])[:, None, None]
        assert apart.max() < 1.01 / 255


def test_a_collection_takes_dimension_and_metric_of_its_model(serve):
    made = models.resnet((1, 1, 1, 1), False, side=64)
    models.save(serve.folder / "small", made, models.resnet_config(64), 'metric = "InnerProduct"\n')
    models.save(serve.folder / "plain", made, models.resnet_config(64), "normalise = false\n")
    calls = serve()
    small = calls.CreateCollection(name="a", vectors=[dict(name="e", params={"model": "small"})]).vectors[0]
    assert (small.dimension, small.metric, small.element) == (64, 3, 1)
    plain = calls.CreateCollection(name="b", vectors=[dict(name="e", params={"model": "plain"})]).vectors[0]
    assert (plain.dimension, plain.metric) == (64, 1)
    own = calls.CreateCollection(name="c", vectors=[dict(name="e", metric=5, element=2, dimension=64, params={"model": "small"})])
    assert (own.vectors[0].metric, own.vectors[0].element) == (5, 2)

    def create(**column):
        return lambda: calls.CreateCollection(name="d", vectors=[dict(name="e", **column)])

    refused(create(dimension=65, params={"model": "small"}), grpc.StatusCode.INVALID_ARGUMENT, "65", "64")
    refused(create(element=3, params={"model": "small"}), grpc.StatusCode.INVALID_ARGUMENT, "FP32 or FP16")
    for name in ("nothing", "../small", "small/..", ""):
        refused(create(params={"model": name}), grpc.StatusCode.NOT_FOUND, "small", "holistic")


def test_cards_choose_output_pooling_and_length(serve):
    made = models.transformer(14, 56, 14, 24, 1, 4)
    config = models.dinov2_config(56)
    file = encoded(PICTURES[0])
    session = reference.onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    tokens = session.run(["last_hidden_state"], {"pixel_values": reference.tensor(file, config)})[0][0]
    folder = serve.folder
    models.save(folder / "mean", made, config, 'output = "last_hidden_state"\npooling = "mean"\nnormalise = false\n')
    models.save(folder / "cls", made, config, 'output = "last_hidden_state"\npooling = "cls"\nnormalize = false\n')
    calls = serve()
    for name, expected in (("mean", tokens.mean(0)), ("cls", tokens[0])):
        [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model=name, images=[file])])
        assert np.abs(numbers(reply.vectors)[0] - expected).max() < 1e-4


def test_cards_choose_how_exact_pixels_are(serve):
    """The probe's vectors are its pixels: a photograph that is decoded smaller is nearly the same photograph."""
    config, side = models.vit_config(64), 64
    for decode in ("exact", "scaled", "coarse"):
        models.save(serve.folder / decode, models.probe(side, True), config, f'normalise = false\ndecode = "{decode}"\n')
    models.save(serve.folder / "wrong", models.probe(side, True), config, 'decode = "best"\n')
    calls = serve()
    files = [jpeg(scene(seed, 1200, 900)) for seed in range(3)]
    spread = np.float32(config["image_std"])[None, :, None, None]
    expected = np.stack([reference.tensor(file, config)[0] for file in files]) * spread * 255
    apart = {}
    for decode in ("exact", "scaled", "coarse"):
        [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model=decode, images=files)])
        made = numbers(reply.vectors).reshape(expected.shape) * spread * 255
        apart[decode] = np.abs(made - expected).mean()
    assert apart["exact"] < 0.01 < apart["scaled"] <= apart["coarse"] < 3, apart
    [listed] = [model for model in calls.ListModels().models if model.name == "wrong"]
    assert "best" in listed.problem and "exact" in listed.problem


def test_a_model_that_became_another_is_not_taken_for_the_old_one(serve):
    """Vectors of 1,024 elements could be taken for two of 512."""
    config = models.vit_config(16)
    folder = serve.folder / "mine"

    def save(width):
        g = models.Graph(1)
        made = g.model({"out": g.linear(g("Flatten", "pixel_values"), 3 * 16 * 16, width)}, 16)
        models.save(folder, made, config)

    save(24)
    calls = serve()
    calls.CreateCollection(name="photos", vectors=[dict(name="e", params={"model": "mine"})])
    file = jpeg(scene(1))

    def write():
        return calls.WriteImages([calls.message("WriteImagesRequest", collection="photos", keys=[1], images=[file],
                                                operation="OPERATION_UPSERT")])[0]

    assert write().rows_applied == 1
    save(48)
    calls = serve.again()
    ack = write()
    assert ack.status.code == 9 and all(word in ack.status.message for word in ("mine", "24", "48", '"e"')), ack
    refused(lambda: calls.SearchByImage(images=[file], query=dict(collection="photos", topk=1)),
            grpc.StatusCode.FAILED_PRECONDITION, "mine", "24", "48")
    assert calls.Get(collection="photos", keys=[1]).keys


def test_graphs_of_one_picture_at_a_time_and_of_half_floats_are_taken(serve):
    config = models.vit_config(32)
    g = models.Graph(1)
    fixed = g.model({"out": g("Flatten", g.conv("pixel_values", 3, 4, 3, 4))}, 32, batch=1)
    models.save(serve.folder / "fixed", fixed, config)
    g = models.Graph(0)
    half = g.model({"out": g("Flatten", "pixel_values")}, 32, dtype=models.TensorProto.FLOAT16)
    models.save(serve.folder / "half", half, config, "normalise = false\n")
    calls = serve()
    files = [encoded(picture) for picture in PICTURES]
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model="fixed", images=files)])
    expected = [reference.vector(fixed.SerializeToString(), "out", reference.tensor(file, config)) for file in files]
    assert np.abs(numbers(reply.vectors) - np.stack(expected)).max() < 1e-4
    [reply] = calls.EmbedImages([calls.message("EmbedImagesRequest", model="half", images=files[:1])])
    assert np.abs(numbers(reply.vectors)[0] - reference.tensor(files[0], config).reshape(-1)).max() < 1e-2


def test_what_is_no_model_is_said_and_harms_no_other(serve):
    folder, side = serve.folder, 32
    good, config = models.probe(side), models.vit_config(side)
    models.save(folder / "no-graph", good, config)
    (folder / "no-graph" / "model.onnx").unlink()
    models.save(folder / "no-config", good, config)
    (folder / "no-config" / "preprocessor_config.json").unlink()
    models.save(folder / "no-onnx", good, config)
    (folder / "no-onnx" / "model.onnx").write_bytes(b"PK\x03\x04" + bytes(range(256)) * 40)
    models.save(folder / "cut", good, config)
    whole = models.resnet((1, 1, 1, 1), False).SerializeToString()
    (folder / "cut" / "model.onnx").write_bytes(whole[: len(whole) // 2])
    models.save(folder / "other-size", good, models.vit_config(64))
    models.save(folder / "no-json", good, config)
    (folder / "no-json" / "preprocessor_config.json").write_text("{")
    models.save(folder / "pipe", good, config)
    (folder / "pipe" / "preprocessor_config.json").unlink()
    os.mkfifo(folder / "pipe" / "preprocessor_config.json")
    models.save(folder / "bad-card", good, config, "pooling = 'none'\n")
    models.save(folder / "no-output", good, config, "output = 'x'\n")
    models.save(folder / "two-sizes", good, config, "metric = 'Hammering'\n")
    g = models.Graph(1)
    whole_numbers = g.model({"out": g("Flatten", "pixel_values")}, side, dtype=models.TensorProto.INT64)
    models.save(folder / "whole-numbers", whole_numbers, config)
    g = models.Graph(2)
    models.save(folder / "many-at-a-time", g.model({"out": g("Flatten", "pixel_values")}, side, batch=1_025), config)
    words = {
        "no-graph": "model.onnx", "no-config": "preprocessor_config.json", "no-onnx": "", "cut": "", "no-json": "JSON",
        "other-size": "64", "bad-card": "pooling", "no-output": '"x"', "two-sizes": "Hammering",
        "whole-numbers": "floats", "pipe": "not a file", "many-at-a-time": "1025 pictures at a time",
    }
    calls = serve()
    listed = {model.name: model for model in calls.ListModels().models}
    assert listed["holistic"].problem == "" and listed["holistic"].provider == "CPUExecutionProvider"
    assert set(listed) == {"holistic", *words}
    for name, word in words.items():
        assert listed[name].problem and word in listed[name].problem, (name, listed[name].problem)
        refused(lambda: calls.CreateCollection(name="x", vectors=[dict(name="e", params={"model": name})]),
                grpc.StatusCode.FAILED_PRECONDITION, name)
        checked = run_voisin("model", "check", folder / name)
        assert checked.returncode == 1 and name in checked.stderr
    # What is mended is taken without a restart.
    models.save(folder / "cut", good, config)
    assert calls.CreateCollection(name="y", vectors=[dict(name="e", params={"model": "cut"})]).vectors[0].dimension == 3 * side * side


def test_models_are_added_and_listed_by_the_command_line(tmp_path):
    folder = models.save(tmp_path / "export", models.probe(32), models.vit_config(32))
    data = tmp_path / "data"
    added = run_voisin("model", "add", folder, "--name", "mine", "--data", data)
    assert added.returncode == 0 and "model=mine" in added.stdout, added.stderr
    again = run_voisin("model", "add", folder, "--name", "mine", "--data", data)
    assert again.returncode == 1 and "exists already" in again.stderr
    for bad in ("../mine", "a b", "holistic"):
        assert run_voisin("model", "add", folder, "--name", bad, "--data", data).returncode == 1
    broken = models.save(tmp_path / "broken", models.probe(32), models.vit_config(64))
    assert run_voisin("model", "add", broken, "--data", data).returncode == 1
    listed = json.loads(run_voisin("model", "list", "--data", data, "--json").stdout)
    assert [model["name"] for model in listed["models"]] == ["holistic", "mine"]
    assert sorted(path.name for path in (data / "models").iterdir()) == ["mine"]


def test_a_server_that_is_to_use_a_gpu_does_not_start_without_one(start_server):
    with pytest.raises(StartFailed) as failed:
        start_server(settings={"embedding.device": "cuda"})
    assert "embedding.device" in str(failed.value) and "CUDAExecutionProvider" in str(failed.value)


def test_a_server_without_onnx_runtime_serves_vectors_and_says_what_is_missing(start_server, tmp_path):
    server = start_server(settings={"embedding.runtime": tmp_path / "libonnxruntime.so"})
    calls = VoisinV1(server.channel())
    [model] = calls.ListModels().models
    assert "libonnxruntime.so" in model.problem and "embedding.runtime" in model.problem
    refused(lambda: calls.CreateCollection(name="x", vectors=[dict(name="e", params={"model": "holistic"})]),
            grpc.StatusCode.FAILED_PRECONDITION, "embedding.runtime")
    made = calls.CreateCollection(name="x", vectors=[dict(name="e", element=1, dimension=2)])
    assert made.vectors[0].dimension == 2
