"""Makes the golden files that the embedder's fidelity tests compare with.

The reference is Hugging Face transformers: its CLIPModel, its Pillow-backed
CLIPImageProcessor and its CLIPTokenizer, on weights drawn from fixed seeds.
Versions are pinned in requirements.txt (Python 3.11). `python make.py`
rewrites everything in this folder but the scripts and corpus.txt, byte for
byte the same each time. See README.md for the layout.
"""

import io
import json
import os
import shutil
from collections import Counter
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import regex
import torch
from PIL import Image, ImageOps, features
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import pictures

HERE = Path(__file__).resolve().parent
START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")

TEXTS = {
    "plain": "a photo of a cat sleeping on a red sofa",
    "other": "the rocket lifts off in a cloud of smoke",
    "one-word": "moon",
    "upper-case": "A PHOTO OF A Cat Sleeping On A RED SOFA",
    "upper-case-accents": "ÉLÈVE À L'ÎLE, STRASSE ÄÖÜ",
    "accents-composed": "caf\u00e9 \u00e0 la cr\u00e8me, na\u00efve fa\u00e7ade, \u00c5ngstr\u00f6m",
    "accents-decomposed": "cafe\u0301 a\u0300 la cre\u0300me, nai\u0308ve fac\u0327ade, A\u030angstro\u0308m",
    "emoji": "a happy dog \U0001f436\U0001f602 on the beach \U0001f3d6\ufe0f",
    "emoji-joined": "\U0001f468\u200d\U0001f469\u200d\U0001f467 family \U0001f44d\U0001f3fd",
    "cjk": "\u7ea2\u8272\u6c99\u53d1\u4e0a\u7684\u732b",
    "japanese": "\u8d64\u3044\u30bd\u30d5\u30a1\u306e\u4e0a\u306e\u732b",
    "korean-decomposed": "\u1112\u1161\u11ab\u1100\u116e\u11a8 \uace0\uc591\uc774",
    "cyrillic": "\u041a\u041e\u0428\u041a\u0410 \u043d\u0430 \u0434\u0438\u0432\u0430\u043d\u0435",
    "arabic": "\u0642\u0637\u0629 \u062d\u0645\u0631\u0627\u0621",
    "turkish-dotted-i": "\u0130stanbul \u0130I\u0131i",
    "greek-final-sigma": "\u03a3\u039f\u03a6\u039f\u03a3 \u03bf\u03b4\u03cc\u03c2",
    "ligature": "the \ufb01sh of\ufb01ce \u2460 \u00bd x\u00b2",
    "repeated-whitespace": "  a   photo\t\tof \n\n a \r\n cat  ",
    "odd-spaces": "a\u00a0photo\u2003of\u3000a\u2028cat\u200bfish",
    "punctuation": "wait... what?! (yes) [no] {maybe} -- 50% & #1 @home; \"quoted\" 'single'",
    "contractions": "it's what they're sure we've seen; I'm, he'd, she'll, don't, Y'ALL'S",
    "digits": "in 1998 there were 1234567890 of them, 3.14 each",
    "html-like": "<b>bold</b> &amp; <a href=\"x.html?a=1&b=2\">link</a> &lt;3",
    "special-token-inside": "before <|endoftext|> after",
    "underscores": "file_name_v2.final.jpg C:\\photos\\cat",
    "space": " ",
    "empty": "",
    "over-long": "a very long description of a picture that goes on and on, " * 8,
    "over-long-cjk": "\u5929\u5730\u7384\u9ec4\u5b87\u5b99\u6d2a\u8352" * 12,
    "one-long-word": "antidisestablishmentarianism" * 5,
}

# `quick` is like OpenAI's first checkpoints: quick_gelu, fp32, the legacy
# eos_token_id of 2 (which stands for "the highest id"), a tokenizer.json.
# `gelu` is like later ones: gelu, fp16, the true end token, another padding
# token, vocab.json with merges.txt, and a preprocessor_config.json in the old
# form whose crop is smaller than its resize.
QUICK = {
    "folder": "model",
    "seed": 20240601,
    "merges": 300,
    "pad": END,
    "eos": 2,
    "dtype": torch.float32,
    "projection": 20,
    "text": dict(hidden_size=32, intermediate_size=56, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=24),
    "vision": dict(hidden_size=48, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, image_size=40, patch_size=8),
    "act": "quick_gelu",
    "eps": 1e-5,
}
GELU = {
    "folder": "model-gelu",
    "seed": 20240602,
    "merges": 420,
    "pad": "!",
    "eos": None,
    "dtype": torch.float16,
    "projection": 28,
    "text": dict(hidden_size=36, intermediate_size=60, num_hidden_layers=3, num_attention_heads=3, max_position_embeddings=77),
    "vision": dict(hidden_size=44, intermediate_size=70, num_hidden_layers=2, num_attention_heads=4, image_size=35, patch_size=7),
    "act": "gelu",
    "eps": 1e-6,
}


def byte_characters():
    """The printable stand-in for each byte, in the order that byte-level BPE gives them ids."""
    visible = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {**{b: chr(b) for b in visible}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def train_bpe(text, merge_count):
    """Byte-pair merges and the vocabulary, ties broken by the pair itself so that the result is one."""
    characters = byte_characters()
    words = Counter()
    for word in WORDS.findall(text.lower()):
        symbols = [characters[byte] for byte in word.encode()]
        symbols[-1] += "</w>"
        words[tuple(symbols)] += 1
    merges = []
    while len(merges) < merge_count:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({merge_pair(word, best): count for word, count in words.items()})
    tokens = list(characters.values())
    tokens += [token + "</w>" for token in tokens]
    tokens += ["".join(pair) for pair in merges]
    tokens += [START, END]
    assert len(tokens) == len(set(tokens)), "two merges make one token"
    return {token: index for index, token in enumerate(tokens)}, merges


def merge_pair(word, pair):
    merged, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return tuple(merged)


def make_tokenizer(spec):
    """Writes the tokenizer's files and loads them back as the reference does."""
    folder = HERE / spec["folder"]
    vocabulary, merges = train_bpe((HERE / "corpus.txt").read_text("utf-8"), spec["merges"])
    length = spec["text"]["max_position_embeddings"]
    if spec is QUICK:
        CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=spec["pad"], model_max_length=length).save_pretrained(folder)
    else:
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
        write_json(
            folder / "special_tokens_map.json",
            {"bos_token": START, "eos_token": END, "pad_token": spec["pad"], "unk_token": END},
        )
        write_json(
            folder / "tokenizer_config.json",
            {"bos_token": START, "eos_token": END, "pad_token": spec["pad"], "unk_token": END, "model_max_length": length, "tokenizer_class": "CLIPTokenizer"},
        )
    return CLIPTokenizer.from_pretrained(folder)


def make_config(spec, vocabulary_size):
    ids = {"bos_token_id": vocabulary_size - 2, "eos_token_id": spec["eos"] or vocabulary_size - 1}
    ids["pad_token_id"] = 1 if spec["pad"] == END else 0
    shared = {"hidden_act": spec["act"], "layer_norm_eps": spec["eps"], "projection_dim": spec["projection"]}
    return CLIPConfig(
        text_config={**spec["text"], **shared, **ids, "vocab_size": vocabulary_size},
        vision_config={**spec["vision"], **shared},
        projection_dim=spec["projection"],
        **ids,
    )


def draw_weights(model, seed):
    """Weights that make every part count.

    The gains are set so that attention is far from uniform, that the MLPs
    matter and work mostly below zero, as in trained models (or gelu and
    quick_gelu could not be told apart at the tolerance of the tests), and that patches are seen mostly by their coarse
    structure, as trained models see them (or one level of difference in a
    decoder would move the vectors).
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    for name, parameter in model.named_parameters():
        shape = tuple(parameter.shape)
        normal = rng.standard_normal(shape)
        if name == "logit_scale":
            continue
        if "norm" in name or "layrnorm" in name:
            value = 1 + 0.25 * normal if name.endswith("weight") else 0.15 * normal
        elif name.endswith("fc1.bias"):
            value = 0.5 * normal - 1.3
        elif name.endswith("bias"):
            value = 0.1 * normal
        elif "token_embedding" in name:
            value = 0.8 * normal
        elif "position_embedding" in name or name.endswith("class_embedding"):
            value = 0.4 * normal
        elif "patch_embedding" in name:
            half = np.arange(shape[-1]) * 2 // shape[-1]
            coarse = rng.standard_normal((*shape[:2], 2, 2))[:, :, half][:, :, :, half]
            value = (0.3 * normal + coarse) * 2 / np.prod(shape[1:])
        else:
            value = gain(name) * normal / np.sqrt(shape[1])
        parameter.data.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))


def gain(name):
    return {"q_proj": 1.5, "k_proj": 1.5, "v_proj": 1.5, "out_proj": 1.5, "fc1": 0.9, "fc2": 5.0}.get(name.split(".")[-2], 1.0)


def make_processor(spec):
    """Writes preprocessor_config.json in a form that is found in the wild, and loads it."""
    folder, size = HERE / spec["folder"], spec["vision"]["image_size"]
    if spec is QUICK:
        CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size}).save_pretrained(folder)
    else:
        write_json(
            folder / "preprocessor_config.json",
            {
                "crop_size": size,
                "do_center_crop": True,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "CLIPFeatureExtractor",
                "image_mean": [0.5, 0.45, 0.4],
                "image_std": [0.25, 0.26, 0.28],
                "resample": 3,
                "size": 40,
            },
        )
    return CLIPImageProcessorPil.from_pretrained(folder)


def make_model(spec, vocabulary_size):
    folder = HERE / spec["folder"]
    model = CLIPModel(make_config(spec, vocabulary_size))
    draw_weights(model, spec["seed"])
    model.to(spec["dtype"]).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    # Run in float64, whose rounding vanishes when the vectors are stored as
    # float32: the golden vectors don't depend on the machine that made them.
    return CLIPModel.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


def decode(data):
    """The conventions of this project for what comes before the reference's processor: to RGB, upright, on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def unit(vectors):
    return torch.nn.functional.normalize(vectors.double(), dim=-1).to(torch.float32)


def embed_images(spec, model, processor, images, tensors):
    vectors = []
    for name, image in images.items():
        levels = processor(image, do_rescale=False, do_normalize=False, return_tensors="pt").pixel_values[0]
        assert levels.dtype == torch.uint8, "the reference's processor no longer keeps bytes"
        tensors[f"{spec['folder']}/pixels/{name}"] = levels.permute(1, 2, 0).contiguous()
        pixel_values = processor(image, return_tensors="pt").pixel_values.double()
        vectors.append(unit(model.get_image_features(pixel_values=pixel_values).pooler_output)[0])
    tensors[f"{spec['folder']}/image_vectors"] = torch.stack(vectors)


def embed_texts(spec, model, tokenizer, tensors):
    length = spec["text"]["max_position_embeddings"]
    batch = tokenizer(list(TEXTS.values()), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    padded = unit(model.get_text_features(**batch).pooler_output)
    alone = []
    for text in TEXTS.values():
        one = tokenizer([text], truncation=True, max_length=length, return_tensors="pt")
        alone.append(unit(model.get_text_features(**one).pooler_output)[0])
    alone = torch.stack(alone)
    assert (alone - padded).abs().max() < 1e-6, "padding changes the reference's text vectors"
    tensors[f"{spec['folder']}/token_ids"] = batch.input_ids.to(torch.int64)
    tensors[f"{spec['folder']}/token_counts"] = batch.attention_mask.sum(dim=1).to(torch.int64)
    tensors[f"{spec['folder']}/text_vectors"] = alone


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2) + "\n", "utf-8")


def write_index(images, bad):
    models = []
    for spec in (QUICK, GELU):
        folder = spec["folder"]
        models.append(
            {
                "folder": folder,
                "dimension": spec["projection"],
                "image_size": spec["vision"]["image_size"],
                "context_length": spec["text"]["max_position_embeddings"],
                "image_vectors": f"{folder}/image_vectors",
                "text_vectors": f"{folder}/text_vectors",
                "token_ids": f"{folder}/token_ids",
                "token_counts": f"{folder}/token_counts",
                "pixels": {name: f"{folder}/pixels/{name}" for name in images},
            }
        )
    write_json(
        HERE / "index.json",
        {
            "models": models,
            "images": [{"file": name, "width": image.width, "height": image.height} for name, image in images.items()],
            "bad_images": [{"file": name, "fault": fault} for name, (_, fault) in bad.items()],
            "made_with": {"pillow": Image.__version__, "libjpeg-turbo": features.version("libjpeg_turbo"), "webp": features.version("webp")},
        },
    )


def main():
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(0)
    files = pictures.good_pictures()
    bad = pictures.bad_pictures(files)
    pictures.write(HERE / "images", files)
    pictures.write(HERE / "bad-images", {name: data for name, (data, _) in bad.items()})
    images = {name: decode(data) for name, data in files.items()}
    tensors = {}
    for spec in (QUICK, GELU):
        shutil.rmtree(HERE / spec["folder"], ignore_errors=True)
        (HERE / spec["folder"]).mkdir()
        tokenizer = make_tokenizer(spec)
        processor = make_processor(spec)
        with torch.inference_mode():
            model = make_model(spec, len(tokenizer))
            embed_images(spec, model, processor, images, tensors)
            embed_texts(spec, model, tokenizer, tensors)
    save_file(tensors, HERE / "golden.safetensors")
    write_json(HERE / "texts.json", [{"name": name, "text": text} for name, text in TEXTS.items()])
    write_index(images, bad)


if __name__ == "__main__":
    main()
