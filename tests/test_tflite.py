"""The int8 TFLite file for microcontrollers: PyTorch's classes, the same bytes, and what it needs."""

from pathlib import Path

import flatbuffers
import numpy as np
import pytest
import torch
import trained
from torch import nn

from frugalnet.data import arrays
from frugalnet.export import files, runtimes, tflite
from frugalnet.export.formats import FILES
from frugalnet.use import weights

needs_converter = pytest.mark.skipif(not runtimes.has_tflite(), reason="the extra `device` is not installed")
VANISHED = 1e-12


def test_the_bias_of_a_channel_without_weights_fits_32_bits():
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 3, 1)
    with torch.no_grad():
        layer.weight[1] = VANISHED
        layer.bias.copy_(torch.tensor([0.5, 12.0, 0.0]))
    kept = layer.weight.detach().clone()
    inputs = torch.rand(1, 4, 5, 5)
    before = layer(inputs)
    tflite._bound_biases(layer)
    units = layer.weight.detach().abs().amax((1, 2, 3)) / 127 * 0.005  # the inputs' scale, where they are small
    assert (layer.bias.detach().abs() / units < 2**31).all()
    assert torch.equal(layer.weight[[0, 2]], kept[[0, 2]])
    assert torch.allclose(layer(inputs), before, atol=1e-3)


@pytest.fixture(scope="module")
def network(tmp_path_factory, sample_archive) -> tuple[nn.Sequential, np.ndarray]:
    """A network one of whose channels has vanished in training, and training images."""
    project = trained.project(tmp_path_factory.mktemp("trained"), sample_archive)
    normalise, body = weights.load_network(weights.of_run(project, "depthwise-0"))
    normalisation = body.get_submodule("conv3.2")
    with torch.no_grad():
        normalisation.weight[0] = VANISHED
        normalisation.bias[0] = 5.0
    images = np.array(arrays.read_dataset(project / "data/arrays").train.images[::10])
    return files.folded(nn.Sequential(normalise, body)), images


@pytest.fixture(scope="module")
def path(network, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("tflite") / FILES["tflite"]
    tflite.write_tflite(*network, path)
    return path


@needs_converter
def test_it_names_pytorchs_classes(network, path):
    whole, images = network
    with torch.no_grad():
        expected = whole(torch.from_numpy(images)).numpy()
    logits = runtimes.open_runtime("tflite", path)(images)
    assert np.abs(logits - expected).max() < 0.1 * np.abs(expected).max()
    assert (logits.argmax(1) == expected.argmax(1)).mean() > 0.9


@needs_converter
def test_a_microcontroller_computes_the_same(network, path):
    from tflite_micro.python.tflite_micro import runtime

    micro = tflite.describe(path)
    assert (micro.input_scale, micro.input_zero_point) == (1.0, -128)
    assert micro.operators["CONV_2D"] == 5
    assert 64 * 64 * 3 < micro.arena_bytes < 200_000
    image = network[1][:1]
    interpreter = runtime.Interpreter.from_file(str(path), arena_size=micro.arena_bytes)
    interpreter.set_input((image.astype(np.int16) - 128).astype(np.int8), 0)
    interpreter.invoke()
    logits = (interpreter.get_output(0).astype(float) - micro.output_zero_point) * micro.output_scale
    expected = runtimes.open_runtime("tflite", path)(image)
    assert np.abs(logits - expected).max() <= 2 * micro.output_scale


@needs_converter
def test_pixels_are_int8_whatever_images_calibrate_it(network, tmp_path):
    whole, images = network
    tflite.write_tflite(whole, 100 + images[:20] // 4, tmp_path / "dark.tflite")
    micro = tflite.describe(tmp_path / "dark.tflite")
    assert (micro.input_scale, micro.input_zero_point) == (1.0, -128)


@needs_converter
def test_the_same_network_gives_the_same_bytes_without_names_and_with_aligned_weights(network, path, tmp_path):
    from ai_edge_litert import schema_py_generated as schema

    data = path.read_bytes()
    tflite.write_tflite(*network, tmp_path / "again.tflite")
    assert (tmp_path / "again.tflite").read_bytes() == data
    model = schema.Model.GetRootAsModel(data, 0)
    assert not any(model.Subgraphs(0).Tensors(i).Name() for i in range(model.Subgraphs(0).TensorsLength()))
    start = np.frombuffer(data, np.uint8).ctypes.data
    held = [model.Buffers(i).DataAsNumpy() for i in range(model.BuffersLength()) if model.Buffers(i).DataLength()]
    assert len(held) > 10
    assert all((values.ctypes.data - start) % 16 == 0 for values in held)
    parameters = sum(values.numel() for values in network[0].parameters())
    assert len(data) < 1.4 * parameters


@needs_converter
def test_weights_behind_the_model_are_brought_into_it(path):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    largest = max((buffer for buffer in model.buffers if buffer.data is not None), key=lambda buffer: len(buffer.data))
    held = bytes(largest.data)
    largest.data = None
    largest.size = len(held)
    largest.offset = 1
    largest.offset = len(_packed(model))  # as many bytes as with any other number
    assert tflite._slim(_packed(model) + held) == path.read_bytes()


def _packed(model) -> bytes:
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
