"""The CLIP architecture, with the tensor names of `transformers.CLIPModel`.

Both towers are pre-norm transformers; the picture's vector is read at its class token, the text's
at its end token (Radford et al., 2021, https://arxiv.org/abs/2103.00020).
"""

import dataclasses
import math

import torch
import torch.nn.functional as functional
from torch import nn

EPSILON = 1e-5


@dataclasses.dataclass(frozen=True)
class Tower:
    """The shape of one transformer."""

    width: int
    layers: int
    heads: int

    def config(self):
        return {
            "hidden_size": self.width,
            "intermediate_size": 4 * self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "hidden_act": "gelu",
            "layer_norm_eps": EPSILON,
        }


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of the whole model."""

    vocabulary: int
    end_token: int
    vision: Tower = Tower(width=160, layers=6, heads=5)
    text: Tower = Tower(width=128, layers=3, heads=2)
    dimension: int = 256
    pixels: int = 64
    patch: int = 8
    text_length: int = 32

    @property
    def side(self):
        """Patches in a row of the picture."""
        return self.pixels // self.patch

    def config(self):
        """The content of `config.json`."""
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": self.dimension,
            "logit_scale_init_value": 2.6592,
            "torch_dtype": "float16",
            "text_config": {
                "model_type": "clip_text_model",
                **self.text.config(),
                "vocab_size": self.vocabulary,
                "max_position_embeddings": self.text_length,
                "bos_token_id": self.end_token - 1,
                "eos_token_id": self.end_token,
                "pad_token_id": self.end_token,
            },
            "vision_config": {
                "model_type": "clip_vision_model",
                **self.vision.config(),
                "image_size": self.pixels,
                "patch_size": self.patch,
                "num_channels": 3,
            },
        }


class Attention(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.heads = tower.heads
        self.q_proj = nn.Linear(tower.width, tower.width)
        self.k_proj = nn.Linear(tower.width, tower.width)
        self.v_proj = nn.Linear(tower.width, tower.width)
        self.out_proj = nn.Linear(tower.width, tower.width)

    def forward(self, states, is_causal):
        batch, length, width = states.shape
        parts = (self.q_proj, self.k_proj, self.v_proj)
        weight, bias = torch.cat([part.weight for part in parts]), torch.cat([part.bias for part in parts])
        joint = functional.linear(states, weight, bias).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = joint.permute(2, 0, 3, 1, 4)
        # Written out: on a CPU this is much faster to train than the fused call at these lengths.
        scores = query @ key.transpose(2, 3) * (width // self.heads) ** -0.5
        if is_causal:
            future = torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
            scores = scores.masked_fill(future, float("-inf"))
        mixed = scores.softmax(3) @ value
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.fc1 = nn.Linear(tower.width, 4 * tower.width)
        self.fc2 = nn.Linear(4 * tower.width, tower.width)

    def forward(self, states):
        return self.fc2(functional.gelu(self.fc1(states)))


class Layer(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(tower.width, eps=EPSILON)
        self.self_attn = Attention(tower)
        self.layer_norm2 = nn.LayerNorm(tower.width, eps=EPSILON)
        self.mlp = Mlp(tower)

    def forward(self, states, is_causal):
        states = states + self.self_attn(self.layer_norm1(states), is_causal)
        return states + self.mlp(self.layer_norm2(states))


class Encoder(nn.Module):
    def __init__(self, tower):
        super().__init__()
        self.layers = nn.ModuleList(Layer(tower) for _ in range(tower.layers))

    def forward(self, states, is_causal=False):
        for layer in self.layers:
            states = layer(states, is_causal)
        return states


class VisionEmbeddings(nn.Module):
    def __init__(self, shape):
        super().__init__()
        width = shape.vision.width
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.patch_embedding = nn.Conv2d(3, width, shape.patch, shape.patch, bias=False)
        self.position_embedding = nn.Embedding(shape.side**2 + 1, width)

    def forward(self, pixels, kept):
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        patches = patches + self.position_embedding.weight[1:]
        if kept is not None:
            patches = patches.gather(1, kept[:, :, None].expand(-1, -1, patches.shape[2]))
        first = (self.class_embedding + self.position_embedding.weight[0]).expand(len(patches), 1, -1)
        return torch.cat([first.to(patches.dtype), patches], dim=1)


class VisionModel(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.embeddings = VisionEmbeddings(shape)
        self.pre_layrnorm = nn.LayerNorm(shape.vision.width, eps=EPSILON)
        self.encoder = Encoder(shape.vision)
        self.post_layernorm = nn.LayerNorm(shape.vision.width, eps=EPSILON)

    def forward(self, pixels, kept):
        states = self.pre_layrnorm(self.embeddings(pixels, kept))
        return self.post_layernorm(self.encoder(states))


class TextEmbeddings(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.text.width)
        self.position_embedding = nn.Embedding(shape.text_length, shape.text.width)

    def forward(self, tokens):
        return self.token_embedding(tokens) + self.position_embedding.weight[: tokens.shape[1]]


class TextModel(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.end_token = shape.end_token
        self.embeddings = TextEmbeddings(shape)
        self.encoder = Encoder(shape.text)
        self.final_layer_norm = nn.LayerNorm(shape.text.width, eps=EPSILON)

    def forward(self, tokens):
        states = self.final_layer_norm(self.encoder(self.embeddings(tokens), is_causal=True))
        end = (tokens == self.end_token).int().argmax(1)
        return states[torch.arange(len(tokens)), end]


class Clip(nn.Module):
    """A CLIP of this shape; `seed` decides its first weights."""

    def __init__(self, shape, seed):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.shape = shape
            self.vision_model = VisionModel(shape)
            self.text_model = TextModel(shape)
            self.visual_projection = nn.Linear(shape.vision.width, shape.dimension, bias=False)
            self.text_projection = nn.Linear(shape.text.width, shape.dimension, bias=False)
            self.logit_scale = nn.Parameter(torch.tensor(math.log(20.0)))
            self.apply(first_weights)
            with torch.no_grad():
                self._calm_branches()
                self._place_patches()

    def _calm_branches(self):
        """What each layer adds starts small, the smaller the more layers there are."""
        for encoder in (self.vision_model.encoder, self.text_model.encoder):
            for layer in encoder.layers:
                layer.self_attn.out_proj.weight *= (2 * len(encoder.layers)) ** -0.5
                layer.mlp.fc2.weight *= (2 * len(encoder.layers)) ** -0.5

    def _place_patches(self):
        """Positions start as waves over the grid, and queries as keys: near patches see each other
        first, as in a convolution, which a transformer else learns only slowly from little data
        (compare Trockman and Kolter, 2023, https://arxiv.org/abs/2305.09828)."""
        embeddings = self.vision_model.embeddings
        embeddings.position_embedding.weight[1:] = grid_waves(self.shape.side, self.shape.vision.width)
        for layer in self.vision_model.encoder.layers:
            layer.self_attn.k_proj.weight.copy_(layer.self_attn.q_proj.weight)

    def image_states(self, pixels, kept=None):
        """All patch states behind the projection, class token first: [n, 1 + patches, dimension].
        `pixels` are normalised; `kept` chooses patches by index, [n, k]."""
        return self.visual_projection(self.vision_model(pixels, kept))

    def embed_images(self, pixels):
        """Unit vectors, [n, dimension]."""
        return functional.normalize(self.image_states(pixels)[:, 0].float(), dim=1)

    def embed_texts(self, tokens):
        """Unit vectors, [n, dimension], of tokens [n, length] that hold the end token."""
        return functional.normalize(self.text_projection(self.text_model(tokens)).float(), dim=1)


def first_weights(module):
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.3)
    elif isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def grid_waves(side, width):
    """Sines and cosines of the row and the column, [side * side, width]."""
    quarter = width // 4
    frequency = math.pi / side * torch.logspace(0, math.log2(side), quarter, base=2.0)
    angle = (torch.arange(side) + 0.5)[:, None] * frequency
    wave = torch.cat([angle.sin(), angle.cos()], dim=1)
    rows = wave[:, None, :].expand(side, side, -1)
    columns = wave[None, :, :].expand(side, side, -1)
    return torch.cat([rows, columns], dim=2).reshape(side * side, width)
