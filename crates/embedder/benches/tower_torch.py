"""CLIP's picture tower in plain PyTorch, for `benches/embedder tower`.

    python tower_torch.py MODEL_FOLDER DEVICE

Reads questions as lines of JSON and answers each with one. It reads the same weights as clipmesh
does and takes the same steps: levels from the machine's memory to the device, normalised there,
through the tower, to length 1, and back.
"""

import copy
import json
import statistics
import struct
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
STORED = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def read_weights(file: Path) -> dict[str, torch.Tensor]:
    """https://huggingface.co/docs/safetensors describes the form."""
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    weights = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        view = bytearray(data[8 + length + begin : 8 + length + end])
        tensor = torch.frombuffer(view, dtype=STORED[entry["dtype"]])
        weights[name] = tensor.reshape(entry["shape"])
    return weights


class Layer(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, quick: bool, epsilon: float):
        super().__init__()
        self.heads, self.quick = heads, quick
        self.layer_norm1 = nn.LayerNorm(width, eps=epsilon)
        self.layer_norm2 = nn.LayerNorm(width, eps=epsilon)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x):
        batch, tokens, width = x.shape
        qkv = self.qkv(self.layer_norm1(x)).view(batch, tokens, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        inner = self.fc1(self.layer_norm2(x))
        inner = inner * torch.sigmoid(1.702 * inner) if self.quick else F.gelu(inner)
        return x + self.fc2(inner)


class Tower(nn.Module):
    def __init__(self, config: dict, preprocessing: dict, weights: dict[str, torch.Tensor]):
        super().__init__()
        vision = config["vision_config"]
        width, epsilon = vision["hidden_size"], vision.get("layer_norm_eps", 1e-5)
        quick = vision.get("hidden_act", "quick_gelu") == "quick_gelu"
        shape = width, vision["intermediate_size"], vision["num_attention_heads"], quick, epsilon
        self.side, patch = vision["image_size"], vision["patch_size"]
        self.patches = nn.Conv2d(3, width, patch, patch, bias=False)
        self.before, self.after = nn.LayerNorm(width, eps=epsilon), nn.LayerNorm(width, eps=epsilon)
        self.layers = nn.ModuleList(Layer(*shape) for _ in range(vision["num_hidden_layers"]))
        self.projection = nn.Linear(width, config["projection_dim"], bias=False)
        self.first = nn.Parameter(weights["vision_model.embeddings.class_embedding"])
        self.positions = nn.Parameter(weights["vision_model.embeddings.position_embedding.weight"])
        for name in ("mean", "std"):
            values = torch.tensor(preprocessing[f"image_{name}"]).view(1, 3, 1, 1)
            self.register_buffer(name, values)
        self.fill(weights)

    def fill(self, weights: dict[str, torch.Tensor]) -> None:
        def put(module: nn.Module, name: str) -> None:
            module.weight.data = weights[f"{name}.weight"]
            if module.bias is not None:
                module.bias.data = weights[f"{name}.bias"]

        self.patches.weight.data = weights["vision_model.embeddings.patch_embedding.weight"]
        put(self.before, "vision_model.pre_layrnorm")
        put(self.after, "vision_model.post_layernorm")
        self.projection.weight.data = weights["visual_projection.weight"]
        for index, layer in enumerate(self.layers):
            name = f"vision_model.encoder.layers.{index}"
            attention = [f"{name}.self_attn.{part}_proj" for part in "qkv"]
            for kind in ("weight", "bias"):
                parts = [weights[f"{part}.{kind}"] for part in attention]
                getattr(layer.qkv, kind).data = torch.cat(parts)
            put(layer.out, f"{name}.self_attn.out_proj")
            for part in ("layer_norm1", "layer_norm2"):
                put(getattr(layer, part), f"{name}.{part}")
            put(layer.fc1, f"{name}.mlp.fc1")
            put(layer.fc2, f"{name}.mlp.fc2")

    def forward(self, levels):
        """`levels`: batch, side, side, 3, in 0 to 255."""
        pixels = levels.permute(0, 3, 1, 2).to(self.mean.dtype) / 255
        x = self.patches((pixels - self.mean) / self.std).flatten(2).transpose(1, 2)
        first = self.first.expand(len(x), 1, -1)
        x = self.before(torch.cat([first, x], dim=1) + self.positions)
        for layer in self.layers:
            x = layer(x)
        return F.normalize(self.projection(self.after(x[:, 0])).float(), dim=-1)


class Bench:
    def __init__(self, folder: Path, device: str):
        read = lambda name: json.loads((folder / name).read_text())
        config, preprocessing = read("config.json"), read("preprocessor_config.json")
        self.device = torch.device(device)
        self.tower = Tower(config, preprocessing, read_weights(folder / "model.safetensors"))
        self.ready = {}

    def model(self, mode: str, dtype: str):
        """Loaded, and compiled if it is to be, once."""
        if (mode, dtype) not in self.ready:
            model = copy.deepcopy(self.tower).to(self.device, DTYPES[dtype]).eval()
            if mode == "compile":
                # On CUDA the settings that search longest for the fastest programs.
                tuning = "max-autotune" if self.device.type == "cuda" else "default"
                model = torch.compile(model, mode=tuning, dynamic=False)
            self.ready[mode, dtype] = model
        return self.ready[mode, dtype]

    def version(self) -> dict:
        is_cuda = self.device.type == "cuda"
        name = torch.cuda.get_device_name(self.device) if is_cuda else "cpu"
        threads = f"{name}, {torch.get_num_threads()} threads"
        return {"torch": torch.__version__, "device": name if is_cuda else threads}

    def vector(self, dtype: str, levels: list[int]) -> dict:
        side = self.tower.side
        picture = torch.tensor(levels, dtype=torch.uint8).view(1, side, side, 3)
        return {"vector": self.model("eager", dtype)(picture.to(self.device))[0].cpu().tolist()}

    def rate(self, mode: str, dtype: str, batch: int, seconds: float) -> dict:
        model, side = self.model(mode, dtype), self.tower.side
        levels = torch.randint(256, (batch, side, side, 3), dtype=torch.uint8)
        if self.device.type == "cuda":
            levels = levels.pin_memory()
        run = lambda: model(levels.to(self.device, non_blocking=True)).cpu()
        for _ in range(3):
            run()
        times, began = [], time.perf_counter()
        while len(times) < 3 or time.perf_counter() - began < seconds:
            started = time.perf_counter()
            run()
            times.append(time.perf_counter() - started)
        return {"per_second": batch / statistics.median(times)}


def main() -> None:
    bench = Bench(Path(sys.argv[1]), sys.argv[2])
    # One shape after another is compiled for itself.
    torch._dynamo.config.cache_size_limit = 64
    with torch.inference_mode():
        for line in sys.stdin:
            question = json.loads(line)
            answer = getattr(bench, question.pop("what"))(**question)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
