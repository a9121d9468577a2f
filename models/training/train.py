#!/usr/bin/env python3
"""Trains the tiny CLIP from a seed, on a GPU where there is one, and writes its folder.

Scenes are drawn while it learns, each from the seed and the number of its batch. The loss is CLIP's,
between captions and pictures, where other pictures that a caption describes are right answers too.
What helps a small model to learn from little compute:

- Anchors: each attribute (a pictogram, a keyword, a colour) has a learned vector in the space of
  pictures and words, and both towers are drawn to the anchors of what they show or say (a softmax
  over all anchors, as in Proxy-NCA, Movshovitz-Attias et al., 2017, https://arxiv.org/abs/1703.07464).
  So pictures of the same thing come to lie together however they are drawn, without large batches.
- Patches: the painter knows what covers each patch, and its state is drawn to the same anchors
  (token labelling, Jiang et al., 2021, https://arxiv.org/abs/2104.10858).
- Dropped patches: most of the time half of the patches, mostly empty ones, are left out
  (Li et al., 2022, https://arxiv.org/abs/2212.00794).
- Muon for the matrices, Adam for the rest (Jordan et al., 2024).

    models/training/train.py --twemoji emoji-datasource-twitter-16.0.0.tgz --out models/tiny
"""

import argparse
import json
import math
import pathlib
import time

import numpy as np
import torch
import torch.nn.functional as functional
from safetensors.torch import save_file
from torch import nn

import evaluate
import model as clip
import pictograms
import scenes
import tokens

BATCH = 128
STYLE_SHARES = [0.75, 0.25]
PATCH_SAMPLES = 1024
EVALUATE_STEPS = 1000
SAVE_STEPS = 100
# Of all steps: the first part at half of the patches, the last with a falling learning rate.
CHEAP_PART = 0.85
DECAY_PART = 0.4
WARM_UP_STEPS = 200
# A polish starts from what has been learned, so with less of the rate and sooner.
POLISH_RATE = 0.3
POLISH_WARM_UP_STEPS = 30
MUON_RATE = 0.02
ADAM_RATE = 2e-3
WEIGHTS = {"pictogram": 1.0, "keyword": 0.3, "background": 0.15, "tint": 0.1, "number": 0.1}
TEXT_WEIGHT = 0.5
PATCH_WEIGHT = 0.7
# Keywords of fewer pictograms are learned through those, not through an anchor of their own.
MIN_MEMBERS = 3


class Anchors(nn.Module):
    """A learned vector and a target distribution for each attribute."""

    def __init__(self, attributes, dimension, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.spans = attributes.spans
        self.vectors = nn.Parameter(torch.randn(attributes.count, dimension, generator=generator))
        self.scales = nn.ParameterDict({name: torch.tensor(math.log(16.0)) for name in self.spans})
        members = torch.zeros(len(attributes.keywords), len(attributes.vocabulary))
        for word, indices in attributes.members.items():
            members[attributes.keyword_index[word], indices] = 1
        keyword_sizes = members.sum(1)
        self.register_buffer("members", members / keyword_sizes[:, None], persistent=False)
        shared = members * (keyword_sizes >= MIN_MEMBERS)[:, None]
        self.register_buffer("keywords", shared.T.contiguous(), persistent=False)
        self.register_buffer("is_shared", (keyword_sizes >= MIN_MEMBERS).float(), persistent=False)

    def targets(self, asked):
        """What a caption that asks for these attributes is drawn to, by family."""
        parts = {name: asked[:, span] for name, span in self.spans.items()}
        named, keywords = parts["pictogram"], parts["keyword"]
        parts["pictogram"] = named + keywords @ self.members
        parts["keyword"] = keywords * self.is_shared + (named @ self.keywords).clamp(max=1)
        return parts

    def scene_targets(self, held):
        """The same of what a scene shows."""
        parts = {name: held[:, span] for name, span in self.spans.items()}
        parts["keyword"] = parts["keyword"] * self.is_shared
        return parts

    def loss(self, vectors, targets):
        """The weighted sum over families of the cross entropy of unit vectors to their targets."""
        total = 0.0
        for name, target in targets.items():
            sums = target.sum(1)
            rows = sums > 0
            if rows.any():
                logits = self.logits(vectors[rows], name)
                wanted = target[rows] / sums[rows, None]
                total = total + WEIGHTS[name] * functional.cross_entropy(logits, wanted)
        return total

    def logits(self, vectors, family):
        anchors = functional.normalize(self.vectors[self.spans[family]], dim=1)
        return vectors @ anchors.T * self.scales[family].exp().clamp(max=100)


class Batch:
    """Scenes, their pictures and captions, all decided by the seed and the step."""

    def __init__(self, seed, step, painter, attributes, tokenizer, shape, is_fine):
        rng, generator = scenes.seeded(seed, step)
        drawn = [scenes.random_scene(rng, painter.pictogram_count, STYLE_SHARES) for _ in range(BATCH)]
        held = np.zeros((BATCH, attributes.count), dtype=np.float32)
        asked = np.zeros((2 * BATCH, attributes.count), dtype=np.float32)
        texts = []
        for index, scene in enumerate(drawn):
            scenes.scene_attributes(scene, attributes, held[index])
            texts.append(scenes.random_caption(rng, scene, attributes, asked[index]))
        for index in range(BATCH):
            texts.append(scenes.random_words(rng, attributes, asked[BATCH + index]))
        self.held, self.asked = torch.from_numpy(held), torch.from_numpy(asked)
        self.tokens = torch.from_numpy(tokens.encode(tokenizer, texts, shape.text_length))

        pixels = 2 * shape.pixels if is_fine else shape.pixels
        pictures, cover = painter.draw(drawn, pixels, generator)
        self.pictures = scenes.shrunk(pictures, shape.pixels) if is_fine else pictures
        cover = functional.avg_pool2d(cover, pixels // shape.side).flatten(2)
        share, slot = cover.max(1)
        kinds = torch.tensor([[thing.pictogram for thing in padded(scene.things)] for scene in drawn])
        self.patch_kinds = kinds.gather(1, slot).where(share > 0.4, torch.tensor(-1))
        self.kept = None
        if not is_fine:
            draw = torch.rand(share.shape, generator=generator)
            is_empty = cover.sum(1) < 0.08
            self.kept = (draw - is_empty.float()).topk(shape.side**2 // 2, dim=1).indices
            self.patch_kinds = self.patch_kinds.gather(1, self.kept)
        rows = (self.patch_kinds >= 0).nonzero()
        self.patches = rows[torch.randperm(len(rows), generator=generator)[:PATCH_SAMPLES]]

    def to(self, device):
        """Moves all tensors, and returns itself."""
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(self, name, value.to(device))
        return self


class Batches(torch.utils.data.Dataset):
    """The batches of a training from step `first` on, to be drawn in another process."""

    def __init__(self, first, steps, cheap_steps, *parts):
        self.first, self.steps, self.cheap_steps, self.parts = first, steps, cheap_steps, parts

    def __len__(self):
        return self.steps - self.first

    def __getitem__(self, index):
        step = self.first + index
        seed, *parts = self.parts
        return Batch(seed, step, *parts, is_fine=step >= self.cheap_steps)


def padded(things):
    return things + things[:1] * (scenes.MAX_OBJECTS - len(things))


def losses(model, anchors, batch):
    """All parts of the loss, by name."""
    device = batch.pictures.device
    with torch.autocast(device.type, dtype=torch.bfloat16):
        states = model.image_states(batch.pictures * 2 - 1, batch.kept)
        texts = model.text_projection(model.text_model(batch.tokens))
    images = functional.normalize(states[:, 0].float(), dim=1)
    texts = functional.normalize(texts.float(), dim=1)
    found = {
        "contrast": contrast(images, texts[: len(images)], batch, model.logit_scale),
        "image": anchors.loss(images, anchors.scene_targets(batch.held)),
        "text": TEXT_WEIGHT * anchors.loss(texts, anchors.targets(batch.asked)),
    }
    rows = batch.patches
    patches = functional.normalize(states[:, 1:][rows[:, 0], rows[:, 1]].float(), dim=1)
    logits = anchors.logits(patches, "pictogram")
    wanted = batch.patch_kinds[rows[:, 0], rows[:, 1]]
    found["patch"] = PATCH_WEIGHT * functional.cross_entropy(logits, wanted)
    return found


def contrast(images, texts, batch, logit_scale):
    """CLIP's loss, with all true pairs of the batch as targets."""
    asked = batch.asked[: len(texts)]
    pairs = (asked @ batch.held.T == asked.sum(1, keepdim=True)).float()
    logits = texts @ images.T * logit_scale.exp().clamp(max=100)
    down = functional.cross_entropy(logits, pairs / pairs.sum(1, keepdim=True))
    across = functional.cross_entropy(logits.T, (pairs / pairs.sum(0, keepdim=True)).T)
    return (down + across) / 2


def optimizers(model, anchors):
    """Muon for the matrices inside the towers, Adam for embeddings, norms, ends and anchors."""
    inner = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and ".layers." in name
    ]
    known = {id(parameter) for parameter in inner}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in known]
    return [
        torch.optim.Muon(inner, lr=MUON_RATE, weight_decay=0.01, momentum=0.95),
        torch.optim.AdamW([*rest, *anchors.parameters()], lr=ADAM_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(step, arguments):
    """Up in WARM_UP_STEPS, level, then down to zero in the last DECAY_PART; a polish goes down from
    its start."""
    steps = arguments.steps
    if arguments.polish:
        return POLISH_RATE * min(1.0, (step + 1) / POLISH_WARM_UP_STEPS, (steps - step) / steps)
    return min(1.0, (step + 1) / WARM_UP_STEPS, (steps - step) / (DECAY_PART * steps))


def start(arguments, model, anchors, optimizer_list, device):
    """Takes up where an interrupted run stopped, or what is to be polished; returns the first step."""
    checkpoint = arguments.checkpoint if arguments.checkpoint.exists() else arguments.polish
    if checkpoint is None:
        return 0
    saved = torch.load(checkpoint, map_location=device)
    model.load_state_dict(saved["model"])
    anchors.load_state_dict(saved["anchors"])
    if checkpoint == arguments.polish:
        return 0
    if saved["run"] != run_of(arguments):
        raise SystemExit(f"{checkpoint} is of another run ({saved['run']}): delete it, or name another")
    for optimizer, state in zip(optimizer_list, saved["optimizers"]):
        optimizer.load_state_dict(state)
    print(f"going on at step {saved['step']}", flush=True)
    return saved["step"]


def train(arguments, model, anchors, painter, attributes, tokenizer):
    # Numbers too small to matter would slow a CPU down.
    torch.set_flush_denormal(True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    anchors.to(device)
    optimizer_list = optimizers(model, anchors)
    base_rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizer_list]
    first = start(arguments, model, anchors, optimizer_list, device)
    cheap_steps = 0 if arguments.polish else CHEAP_PART * arguments.steps
    drawn_from = arguments.seed, painter, attributes, tokenizer, model.shape
    source = Batches(first, arguments.steps, cheap_steps, *drawn_from)
    loader = torch.utils.data.DataLoader(source, batch_size=None, num_workers=1, prefetch_factor=8)
    started, means = time.monotonic(), {}
    for step, batch in enumerate(loader, first):
        parts = losses(model, anchors, batch.to(device))
        sum(parts.values()).backward()
        for optimizer, rates in zip(optimizer_list, base_rates):
            for group, rate in zip(optimizer.param_groups, rates):
                group["lr"] = rate * rate_factor(step, arguments)
            optimizer.step()
            optimizer.zero_grad()
        for name, value in parts.items():
            means[name] = 0.98 * means.get(name, value.item()) + 0.02 * value.item()
        done = step + 1
        if done % 50 == 0:
            speed = (done - first) * BATCH / (time.monotonic() - started)
            shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
            print(f"step {done} {shown} · {speed:.0f} scenes/s", flush=True)
        if done % EVALUATE_STEPS == 0 or done == arguments.steps:
            table = evaluate.quick(model.to("cpu"), painter, attributes, tokenizer)
            model.to(device)
            print(f"step {done} {table}", flush=True)
        if done % SAVE_STEPS == 0 or done == arguments.steps:
            save(arguments, model, anchors, optimizer_list, done)
    model.to("cpu")


def run_of(arguments):
    """What a training is told from another one by."""
    return {"seed": arguments.seed, "steps": arguments.steps, "is_polish": arguments.polish is not None}


def save(arguments, model, anchors, optimizer_list, step):
    """All that is needed to go on; a stop in between leaves the last one whole."""
    checkpoint = arguments.checkpoint
    state = {"model": model.state_dict(), "anchors": anchors.state_dict(), "step": step, "run": run_of(arguments)}
    state["optimizers"] = [optimizer.state_dict() for optimizer in optimizer_list]
    torch.save(state, checkpoint.with_suffix(".part"))
    checkpoint.with_suffix(".part").replace(checkpoint)


def export(model, folder):
    """Writes what belongs beside the tokenizer, as `transformers` would."""
    weights = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    pixels = model.shape.pixels
    preprocessing = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"height": pixels, "width": pixels},
        "resample": 3,
        "do_center_crop": False,
        "crop_size": {"height": pixels, "width": pixels},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name, content in [("config.json", model.shape.config()), ("preprocessor_config.json", preprocessing)]:
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--twemoji", required=True, type=pathlib.Path, help="npm's archive of the second style")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder to write")
    parser.add_argument("--checkpoint", type=pathlib.Path, default="checkpoint.pt", help="where to go on from")
    parser.add_argument("--polish", type=pathlib.Path, help="go over the training of this checkpoint once more")
    parser.add_argument("--steps", type=int, default=5000, help=f"batches of {BATCH} scenes")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    vocabulary = pictograms.load_vocabulary()
    attributes = scenes.Attributes(vocabulary)
    sprites = [pictograms.noto_sprites(vocabulary), pictograms.twemoji_sprites(vocabulary, arguments.twemoji)]
    painter = scenes.Painter(np.stack(sprites))
    tokenizer = tokens.load_or_train(arguments.out / "tokenizer.json", attributes, arguments.seed)
    shape = clip.Shape(tokenizer.get_vocab_size(), tokenizer.token_to_id(tokens.END))
    model = clip.Clip(shape, arguments.seed)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(vocabulary)} pictograms, {len(attributes.keywords)} keywords, {count:,} parameters", flush=True)
    train(arguments, model, Anchors(attributes, shape.dimension, arguments.seed), painter, attributes, tokenizer)
    export(model, arguments.out)


if __name__ == "__main__":
    main()
