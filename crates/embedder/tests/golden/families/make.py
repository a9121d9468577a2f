"""Makes the golden files of the model families beside CLIP.

The reference is Hugging Face transformers, as in ../make.py, whose pictures,
texts and conventions these are; see ../README.md. `python make.py` rewrites
everything in this folder but the scripts.
"""

import io
import json
import os
import shutil
import string
import sys
import unicodedata
import zipfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip2.tokenization_siglip2 import Siglip2Tokenizer
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from make import TEXTS, decode, unit, write_json  # noqa: E402

IMAGES = ["landscape.png", "landscape-420.jpg", "rgb-16-bit.png"]
IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}

# Texts that only one kind of tokenizer finds tricky.
MORE_TEXTS = {
    "control-spaces": "a\x1cphoto\x1d of\x85a cat",
    "word-start": "a \u2581photo\u2581of a cat",
    "only-punctuation": "...!?",
    "all-punctuation": "a" + "b".join(string.punctuation) + "c",
    "gemma-special": "before <eos> after <pad>",
    "unknown-characters": "\U0001f9ff\u0e41\u0e21\u0e27 cat \U00012000",
}

SIGLIP = {
    "folder": "siglip",
    "seed": 20240701,
    "dtype": torch.float16,
    "config": lambda vocabulary: SiglipConfig(
        text_config=dict(hidden_size=36, intermediate_size=48, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=24, vocab_size=vocabulary, projection_size=40),
        vision_config=dict(hidden_size=40, intermediate_size=72, num_hidden_layers=2, num_attention_heads=5, image_size=30, patch_size=7),
    ),
    "processor": lambda: SiglipImageProcessorPil(size={"height": 30, "width": 30}),
    "processor_type": "SiglipImageProcessor",
}
SIGLIP2 = {
    "folder": "siglip2",
    "seed": 20240702,
    "dtype": torch.float16,
    "config": lambda vocabulary: SiglipConfig(
        text_config=dict(hidden_size=32, intermediate_size=52, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64, vocab_size=vocabulary),
        vision_config=dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=4, image_size=40, patch_size=8),
    ),
    "processor": lambda: SiglipImageProcessorPil(size={"height": 40, "width": 40}, resample=2),
    "processor_type": "SiglipImageProcessor",
}
DINOV2 = {
    "folder": "dinov2",
    "seed": 20240703,
    "dtype": torch.float16,
    "model": Dinov2Model,
    "config": lambda: Dinov2Config(hidden_size=40, num_hidden_layers=3, num_attention_heads=5, mlp_ratio=2, image_size=70, patch_size=7),
    "processor": lambda: BitImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 35, "width": 35}, **IMAGENET),
    "processor_type": "BitImageProcessor",
}
DINOV2_GATED = {
    "folder": "dinov2-gated",
    "seed": 20240704,
    "dtype": torch.float16,
    "model": Dinov2Model,
    "config": lambda: Dinov2Config(hidden_size=36, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=3, image_size=42, patch_size=14, use_swiglu_ffn=True),
    "processor": lambda: BitImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 42, "width": 42}, **IMAGENET),
    "processor_type": "BitImageProcessor",
}
DINOV2_REGISTERS = {
    "folder": "dinov2-registers",
    "seed": 20240705,
    "dtype": torch.float16,
    "model": Dinov2WithRegistersModel,
    "config": lambda: Dinov2WithRegistersConfig(hidden_size=40, num_hidden_layers=3, num_attention_heads=5, mlp_ratio=2, image_size=72, patch_size=8, num_register_tokens=3),
    "processor": lambda: BitImageProcessorPil(size={"shortest_edge": 50}, crop_size={"height": 45, "width": 45}, **IMAGENET),
    "processor_type": "BitImageProcessor",
}
VIT = {
    "folder": "vit",
    "seed": 20240706,
    "dtype": torch.float32,
    "model": ViTModel,
    "saved_as": ViTForImageClassification,
    "config": lambda: ViTConfig(hidden_size=36, intermediate_size=60, num_hidden_layers=3, num_attention_heads=3, image_size=30, patch_size=7),
    "processor": lambda: ViTImageProcessorPil(size={"height": 30, "width": 30}),
    "processor_type": "ViTImageProcessor",
}

SCRIPT = {
    "folder": "script",
    "seed": 20240707,
    "processor": lambda: ConvNextImageProcessorPil(size={"shortest_edge": 28}, crop_pct=0.8, **IMAGENET),
    "processor_type": "ConvNextImageProcessor",
}


class Residual(torch.nn.Module):
    """A residual network in small: any program with pictures in and vectors out would do."""

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 12, 5, stride=2, padding=2, bias=False)
        self.norm1 = torch.nn.BatchNorm2d(12)
        self.inside = torch.nn.Conv2d(12, 12, 3, padding=1)
        self.norm2 = torch.nn.BatchNorm2d(12)
        self.widen = torch.nn.Conv2d(12, 20, 1)

    def forward(self, pixels):
        states = torch.relu(self.norm1(self.stem(pixels)))
        states = torch.nn.functional.max_pool2d(states, 2)
        states = states + torch.relu(self.norm2(self.inside(states)))
        return torch.nn.functional.adaptive_avg_pool2d(torch.relu(self.widen(states)), 1)


def normal_value(name, shape, rng):
    """A value that makes its part count, as draw_weights of ../make.py has it and says why."""
    normal = rng.standard_normal(shape)
    if "norm" in name:
        return 1 + 0.25 * normal if name.endswith("weight") else 0.15 * normal
    if "lambda1" in name:
        return 0.6 + 0.3 * normal
    if name.endswith("fc1.bias") or name.endswith("gate_proj.bias"):
        return 0.5 * normal - 1.0
    if name.endswith("bias"):
        return 0.1 * normal
    if "token_embedding" in name or name.endswith("probe"):
        return 0.8 * normal
    if "position_embedding" in name or name.endswith("_token") or name.endswith("_tokens"):
        return 0.4 * normal
    if len(shape) == 4:
        half = np.arange(shape[-1]) * 2 // shape[-1]
        coarse = rng.standard_normal((*shape[:2], 2, 2))[:, :, half][:, :, :, half]
        return (0.3 * normal + coarse) * 2 / np.prod(shape[1:])
    gains = {"fc1": 0.9, "gate_proj": 0.9, "fc2": 4.0, "down_proj": 4.0, "attention": 1.5}
    gain = next((gain for part, gain in gains.items() if part in name), 1.5 if "_proj" in name else 1.0)
    return gain * normal / np.sqrt(shape[-1] if len(shape) > 1 else 1)


def draw_weights(model, seed):
    rng = np.random.Generator(np.random.PCG64(seed))
    for name, parameter in model.named_parameters():
        if not name.startswith("logit"):
            value = normal_value(name, tuple(parameter.shape), rng)
            parameter.data.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))


def make_processor(spec):
    folder = HERE / spec["folder"]
    spec["processor"]().save_pretrained(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text("utf-8"))
    # As files of the hub have it: the class without its backend.
    settings["image_processor_type"] = spec["processor_type"]
    write_json(path, settings)
    return spec["processor"]()


def write_rules(path):
    """What NFKC does to the letters of the texts; all of it would take 300 kB."""
    text = "".join([*TEXTS.values(), *MORE_TEXTS.values()]).lower()
    sources = {char for char in text} | {first + second for first, second in zip(text, text[1:])}
    rules = {}
    for source in sorted(sources):
        target = unicodedata.normalize("NFKC", source)
        if target != source and (len(source) == 1 or len(target) == 1):
            rules[source] = target
    rules.update({space: " " for space in "\t\n\r"})
    code_points = lambda text: " ".join(f"{ord(char):X}" for char in text)
    path.write_text("".join(f"{code_points(source)}\t{code_points(target)}\n" for source, target in rules.items()), "utf-8")


def train_unigram(folder):
    """A SentencePiece vocabulary of SigLIP's kind, and the tokenizer.json that says the same."""
    lines = [line.lower() for line in (HERE.parent / "corpus.txt").read_text("utf-8").splitlines() if line]
    rules = folder / "rules.tsv"
    write_rules(rules)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_prefix=str(folder / "spiece"),
        model_type="unigram",
        vocab_size=320,
        hard_vocab_limit=False,
        normalization_rule_tsv=str(rules),
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    rules.unlink()
    (folder / "spiece.vocab").unlink()
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((folder / "spiece.model").read_bytes())
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], 2, False))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
            normalizers.Strip(left=False, right=True),
            normalizers.Replace(Regex(" {2,}"), "\u2581"),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("\u2581", "always")
    tokenizer.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    tokenizer.add_special_tokens(["</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "SiglipTokenizer", "do_lower_case": True, "eos_token": "</s>", "pad_token": "</s>", "unk_token": "<unk>", "model_max_length": 24},
    )
    reference = SiglipTokenizer(str(folder / "spiece.model"), model_max_length=24)
    # The reference alone reads it.
    (folder / "spiece.model").unlink()
    return reference


def train_gemma(folder):
    """Byte pairs over characters with bytes to fall back on, as Gemma's vocabulary has them."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    trainer = trainers.BpeTrainer(vocab_size=560, special_tokens=special + [f"<0x{byte:02X}>" for byte in range(256)], show_progress=False, max_token_length=12)
    lines = (HERE.parent / "corpus.txt").read_text("utf-8").lower().splitlines()
    tokenizer.train_from_iterator(lines, trainer)
    # The bytes must be plain tokens, or texts that spell them out would be bytes.
    trained = json.loads(tokenizer.to_str())
    trained["added_tokens"] = [token for token in trained["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(trained))
    tokenizer.post_processor = processors.TemplateProcessing("$A <eos>", "$A <eos> $B <eos>", [("<eos>", 1)])
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", "bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 64},
    )
    return Siglip2Tokenizer.from_pretrained(folder)


def embed_images(spec, pooled, processor, images, tensors):
    folder, vectors = spec["folder"], []
    for name, image in images.items():
        levels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values[0]
        assert levels.dtype == torch.uint8, "the reference's processor no longer keeps bytes"
        tensors[f"{folder}/pixels/{name}"] = levels.permute(1, 2, 0).contiguous()
        pixel_values = processor(image, return_tensors="pt").pixel_values.double()
        vectors.append(unit(pooled(pixel_values))[0])
    tensors[f"{folder}/image_vectors"] = torch.stack(vectors)


def embed_texts(spec, model, tokenizer, texts, tensors):
    folder, length = spec["folder"], model.config.text_config.max_position_embeddings
    batch = tokenizer(texts, padding="max_length", truncation=True, max_length=length)
    ids = torch.tensor(batch["input_ids"])
    # No mask: the padding is read, as in training.
    vectors = unit(model.get_text_features(input_ids=ids).pooler_output)
    tensors[f"{folder}/token_ids"] = ids
    # All are read.
    tensors[f"{folder}/token_counts"] = torch.full((len(texts),), length, dtype=torch.int64)
    tensors[f"{folder}/text_vectors"] = vectors


def make_siglip(spec, train, images, texts, tensors):
    folder = HERE / spec["folder"]
    tokenizer = train(folder)
    vocabulary = len(json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
    model = SiglipModel(spec["config"](vocabulary))
    draw_weights(model, spec["seed"])
    model.to(spec["dtype"]).save_pretrained(folder)
    model = SiglipModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    pooled = lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output
    embed_images(spec, pooled, make_processor(spec), images, tensors)
    embed_texts(spec, model, tokenizer, texts, tensors)
    return entry(spec, model.config.vision_config.hidden_size, images, texts)


def make_vision(spec, images, tensors):
    folder = HERE / spec["folder"]
    model = spec.get("saved_as", spec["model"])(spec["config"]())
    draw_weights(model, spec["seed"])
    model.to(spec["dtype"]).save_pretrained(folder)
    model = spec["model"].from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()
    pooled = lambda pixels: model(pixels).last_hidden_state[:, 0]
    embed_images(spec, pooled, make_processor(spec), images, tensors)
    return entry(spec, model.config.hidden_size, images, None)


def save_script(module, path):
    """Without the places of the source, which would name this folder."""
    archive, kept = io.BytesIO(), io.BytesIO()
    torch.jit.save(module, archive)
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(kept, "w", zipfile.ZIP_STORED) as target:
        for info in source.infolist():
            if not info.filename.endswith(".debug_pkl"):
                target.writestr(zipfile.ZipInfo(info.filename), source.read(info))
    path.write_bytes(kept.getvalue())


def make_script(spec, images, tensors):
    folder = HERE / spec["folder"]
    module = Residual().eval()
    draw_weights(module, spec["seed"])
    traced = torch.jit.trace(module, torch.zeros(2, 3, 28, 28))
    save_script(traced, folder / "model.pt")
    reference = module.double()
    embed_images(spec, lambda pixels: reference(pixels).flatten(1), make_processor(spec), images, tensors)
    return entry(spec, 20, images, None)


def entry(spec, dimension, images, texts):
    folder = spec["folder"]
    names = ["image_vectors"] + (["text_vectors", "token_ids", "token_counts"] if texts else [])
    return {
        "folder": folder,
        "dimension": dimension,
        **{name: f"{folder}/{name}" for name in names},
        "pixels": {name: f"{folder}/pixels/{name}" for name in images},
    }


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    images = {name: decode((HERE.parent / "images" / name).read_bytes()) for name in IMAGES}
    texts = {**TEXTS, **MORE_TEXTS}
    tensors, entries = {}, []
    for spec in (SIGLIP, SIGLIP2, DINOV2, DINOV2_GATED, DINOV2_REGISTERS, VIT, SCRIPT):
        shutil.rmtree(HERE / spec["folder"], ignore_errors=True)
        (HERE / spec["folder"]).mkdir()
        with torch.inference_mode():
            if spec is SCRIPT:
                entries.append(make_script(spec, images, tensors))
            elif "model" in spec:
                entries.append(make_vision(spec, images, tensors))
            else:
                train = train_unigram if spec is SIGLIP else train_gemma
                entries.append(make_siglip(spec, train, images, list(texts.values()), tensors))
        for weights in (HERE / spec["folder"]).glob("*.safetensors"):
            weights.chmod(0o644)
    save_file(tensors, HERE / "golden.safetensors")
    (HERE / "golden.safetensors").chmod(0o644)
    write_json(HERE / "texts.json", [{"name": name, "text": text} for name, text in texts.items()])
    write_json(
        HERE / "index.json",
        {"models": entries, "images": [{"file": name, "width": image.width, "height": image.height} for name, image in images.items()]},
    )


if __name__ == "__main__":
    main()
