"""SphereFace-20 with random weights: as a file of sphereface, in PyTorch, and as ONNX for the other programs."""

import math

import numpy as np

UNITS, CHANNELS, EMBEDDING = [1, 2, 4, 1], [64, 128, 256, 512], 512


def numbers(first, count):
    """splitmix64 in [-1, 1), as in src/bench/inputs.rs."""
    with np.errstate(over="ignore"):
        z = (np.arange(first, first + count, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def layers(weights=None):
    """Name, input and output channels, stride, and whether the layer ends a residual unit: of weights,
    whatever their depth, or of the SphereFace-20 of the paper."""
    inputs, depths, widths = 3, UNITS, CHANNELS
    if weights:
        names = [name for name in weights if name.startswith("conv") and name.endswith(".weight")]
        depths = [sum(name.startswith(f"conv{stage}_") for name in names) // 2 for stage in range(1, 5)]
        widths = [len(weights[f"conv{stage}_1.weight"]) for stage in range(1, 5)]
    for stage, (units, channels) in enumerate(zip(depths, widths), 1):
        for index in range(1, 2 + 2 * units):
            yield f"{stage}_{index}", inputs, channels, 2 if index == 1 else 1, index > 1 and index % 2 == 1
            inputs = channels


def load(path):
    """Weights and metadata of a file of ours: in f32, whatever they are stored in."""
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}, file.metadata()


def random_weights():
    """Random weights that keep activations near 1 from layer to layer, in half precision as in the files of models."""
    weights, drawn = {}, 0

    def draw(name, shape):
        nonlocal drawn
        count, fan_in = math.prod(shape), math.prod(shape[1:])
        offset, scale = (0.25, 0.2) if name.startswith("relu") else (0.0, 0.1)
        if not name.startswith("relu") and not name.endswith("bias"):
            scale = math.sqrt(2 / fan_in)
        values = np.float32(offset) + np.float32(scale) * numbers(drawn, count)
        weights[name] = values.astype(np.float16).astype(np.float32).reshape(shape)
        drawn += count

    for name, inputs, channels, _, _ in layers():
        draw(f"conv{name}.weight", [channels, inputs, 3, 3])
        draw(f"conv{name}.bias", [channels])
        draw(f"relu{name}.weight", [channels])
    draw("fc5.weight", [EMBEDDING, CHANNELS[3] * 7 * 6])
    draw("fc5.bias", [EMBEDDING])
    return weights


def save(weights, path):
    """As the file that `sphereface --model` reads, in half precision as files of models are."""
    from safetensors.numpy import save_file

    save_file({name: values.astype(np.float16) for name, values in weights.items()}, path, {
        "architecture": "sphereface20",
        "channels": ",".join(map(str, CHANNELS)),
        "embedding_size": str(EMBEDDING),
        "input": "112x96",
        "channel_order": "RGB",
    })


def pixels(crops):
    """Crops [n, 112, 96, 3] of bytes as the network's input."""
    return ((crops.astype(np.float32) - 127.5) / 128).transpose(0, 3, 1, 2).copy()


def random_crops(count):
    """The crops that `sphereface bench` makes for itself."""
    size = 112 * 96 * 3
    return np.floor((numbers(0, count * size) + np.float32(1)) * np.float32(128)).reshape(count, 112, 96, 3)


def torch_network(weights, dtype=None):
    """A function from a batch of pixels to features, computed in a type of PyTorch's, else f32."""
    import torch
    import torch.nn.functional as F

    dtype = dtype or torch.float32
    w = {name: torch.from_numpy(values).to(dtype) for name, values in weights.items()}
    present = list(layers(weights))

    def run(batch):
        with torch.inference_mode():
            return features(F, w, torch.from_numpy(batch).to(dtype), present).float().numpy()

    return run


def features(F, w, x, present):
    """The network on a batch of pixels, from its tensors by name."""
    for name, _, _, stride, last in present:
        if not last:
            outer = x
        x = F.prelu(
            F.conv2d(x, w[f"conv{name}.weight"], w[f"conv{name}.bias"], stride, 1),
            w[f"relu{name}.weight"],
        )
        if last:
            x = x + outer
    return F.linear(x.flatten(1), w["fc5.weight"], w["fc5.bias"])


def onnx_network(weights, batch):
    """The same as a serialised ONNX model for one batch size."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, x, outer = [], "input", None
    for name, _, _, stride, last in layers(weights):
        if not last:
            outer = x
        nodes.append(helper.make_node(
            "Conv", [x, f"conv{name}.weight", f"conv{name}.bias"], [f"conv{name}"],
            kernel_shape=[3, 3], strides=[stride, stride], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("PRelu", [f"conv{name}", f"relu{name}.weight"], [f"relu{name}"]))
        x = f"relu{name}"
        if last:
            nodes.append(helper.make_node("Add", [outer, x], [f"sum{name}"]))
            x = f"sum{name}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "fc5.weight", "fc5.bias"], ["output"], transB=1))
    tensors = [
        numpy_helper.from_array(values.reshape(-1, 1, 1) if name.startswith("relu") else values, name)
        for name, values in weights.items()
    ]
    graph = helper.make_graph(
        nodes, "sphereface20",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3, 112, 96])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, EMBEDDING])], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model.SerializeToString()
