#!/usr/bin/env python3
"""Measures the tiny CLIP on scenes drawn from seeds that training never uses.

Prints the tables of the model card, for each style of pictograms:

    models/training/evaluate.py --model models/tiny --twemoji emoji-datasource-twitter-16.0.0.tgz \\
      --fluent lobehub-fluent-emoji-flat-1.1.0.tgz

The weights are read as they were shipped, in half precision, and computed with in single precision.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import model as clip
import pictograms
import scenes
import tokens

# Training's seeds are small numbers, and its log watches scenes of its own: nothing was ever chosen
# by the scenes of the table.
FIRST_SEED = 4_000_000
WATCHED_SEED = 3_000_000
DRAWN_PIXELS = 256
KEYWORDS = ["fruit", "vegetable", "vehicle", "animal", "bird", "insect", "flower", "plant", "food", "drink"]
KEYWORDS += ["building", "clothing", "tool", "sport", "musical instrument", "person", "face", "heart"]


class Bench:
    """Draws and embeds, the way the embedder would see the pictures."""

    def __init__(self, model, painter, attributes, tokenizer, first_seed=FIRST_SEED, drawn_pixels=DRAWN_PIXELS):
        self.first_seed, self.drawn_pixels = first_seed, drawn_pixels
        self.model, self.painter = model, painter
        self.attributes, self.tokenizer = attributes, tokenizer

    def draw(self, seed, kinds_of_scenes):
        rng, generator = scenes.seeded(self.first_seed + seed)
        count = self.painter.pictogram_count
        drawn = [scenes.random_scene(rng, count, [1.0], list(kinds), tints=False) for kinds in kinds_of_scenes]
        vectors = []
        for start in range(0, len(drawn), 50):
            pictures, _ = self.painter.draw(drawn[start : start + 50], self.drawn_pixels, generator)
            vectors.append(self.images(scenes.shrunk(pictures, self.model.shape.pixels)))
        return drawn, torch.cat(vectors)

    @torch.no_grad()
    def images(self, pictures):
        return self.model.embed_images(pictures * 2 - 1)

    @torch.no_grad()
    def texts(self, texts):
        rows = tokens.encode(self.tokenizer, texts, self.model.shape.text_length)
        return self.model.embed_texts(torch.from_numpy(rows))

    def chosen(self, count, seed):
        """`count` distinct pictograms."""
        order = np.random.default_rng(self.first_seed + seed).permutation(self.painter.pictogram_count)
        return order[:count].tolist()

    def name(self, kind):
        return self.attributes.vocabulary[kind].name


def recall(queries, pictures, most):
    """The share of queries whose own picture, at the same index, is among the `most` nearest."""
    scores = queries @ pictures.T
    own = scores.diagonal()[:, None]
    # Itself is one that is not behind it; equals count against it, and so does no number at all.
    return ((~(scores < own)).sum(1) <= most).float().mean().item()


def singles(bench, count=1000):
    """Text to image and image to image, one pictogram a scene."""
    kinds = bench.chosen(count, 1)
    _, pictures = bench.draw(1, [[kind] for kind in kinds])
    _, others = bench.draw(2, [[kind] for kind in kinds])
    queries = bench.texts([scenes.one(bench.name(kind)) for kind in kinds])
    rows = {
        "text to image, one pictogram, recall@1": recall(queries, pictures, 1),
        "text to image, one pictogram, recall@5": recall(queries, pictures, 5),
        "image to image, same pictogram, recall@1": recall(others, pictures, 1),
    }
    precision = []
    for word in KEYWORDS:
        members = set(bench.attributes.members[word])
        best = (bench.texts([word]) @ pictures.T)[0].topk(10).indices.tolist()
        precision.append(sum(kinds[index] in members for index in best) / 10)
    rows["keywords, precision@10"] = sum(precision) / len(precision)
    return rows, dict(zip(KEYWORDS, precision))


def pairs(bench, count=1000):
    """Text to image, two pictograms a scene."""
    rng = np.random.default_rng(bench.first_seed + 3)
    kinds = [rng.choice(bench.painter.pictogram_count, 2, replace=False).tolist() for _ in range(count)]
    _, pictures = bench.draw(3, kinds)
    texts = [f"{scenes.one(bench.name(a))} and {scenes.one(bench.name(b))}" for a, b in kinds]
    queries = bench.texts(texts)
    return {
        "text to image, two pictograms, recall@1": recall(queries, pictures, 1),
        "text to image, two pictograms, recall@5": recall(queries, pictures, 5),
    }


def quick(model, painter, attributes, tokenizer):
    """The figures for the log of a training: scenes of the first style, drawn smaller, half of the
    pairs, and none of the scenes that the table is made of."""
    bench = Bench(model.eval(), painter, attributes, tokenizer, WATCHED_SEED, drawn_pixels=128)
    rows, _ = singles(bench, 1000)
    model.train()
    return " ".join(f"{value:.3f}" for value in [*rows.values(), *pairs(bench, 500).values()])


# === The whole table ===


def load(folder):
    """The model and its tokenizer from a folder that `train.py` wrote."""
    config = json.loads((folder / "config.json").read_text())
    text = config["text_config"]
    model = clip.Clip(clip.Shape(text["vocab_size"], text["eos_token_id"]), seed=0)
    if model.shape.config() != config:
        raise ValueError(f"{folder} holds a model of another shape than train.py makes")
    weights = load_file(folder / "model.safetensors")
    model.load_state_dict({name: value.float() for name, value in weights.items()})
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def colours(bench):
    """Text to image among the same things on other grounds: 100 pictograms, each on ten colours."""
    kinds = bench.chosen(100, 4)
    drawn, pictures = bench.draw(4, [[kind] for kind in kinds for _ in range(10)])
    texts, seen, rows = [], set(), []
    for index, scene in enumerate(drawn):
        what = (scene.kinds[0], scene.background)
        if what not in seen:
            seen.add(what)
            rows.append(index)
            ground = scenes.COLOUR_NAMES[scene.background]
            texts.append(f"{scenes.one(bench.name(scene.kinds[0]))} on {scenes.article(ground)} background")
    name = f"text to image, thing and background, recall@1 of {len(rows)}"
    return {name: recall(bench.texts(texts), pictures[rows], 1)}, 1 / len(rows)


def chance(bench):
    """What drawing lots would give, row by row, before the row of colours."""
    members = [len(bench.attributes.members[word]) for word in KEYWORDS]
    share = sum(members) / len(members) / bench.painter.pictogram_count
    return [1 / 1000, 5 / 1000, 1 / 1000, share, 1 / 1000, 5 / 1000]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--twemoji", type=pathlib.Path, help="npm's archive of the second style")
    parser.add_argument("--fluent", type=pathlib.Path, help="npm's archive of the style held out")
    arguments = parser.parse_args()
    model, tokenizer = load(arguments.model)
    vocabulary = pictograms.load_vocabulary()
    attributes = scenes.Attributes(vocabulary)

    styles = {"Noto": pictograms.noto_sprites(vocabulary)}
    if arguments.twemoji:
        styles["Twemoji"] = pictograms.twemoji_sprites(vocabulary, arguments.twemoji)
    table = {}
    for style, sprites in styles.items():
        bench = Bench(model, scenes.Painter(sprites[None]), attributes, tokenizer)
        rows, precision = singles(bench)
        grounds, lot = colours(bench)
        table[style] = rows | pairs(bench) | grounds
        if style == "Noto":
            words, lots = precision, [*chance(bench), lot]
    if arguments.fluent:
        sprites, there = pictograms.fluent_sprites(vocabulary, arguments.fluent)
        held_out = scenes.Attributes([vocabulary[index] for index in there])
        bench = Bench(model, scenes.Painter(sprites[None]), held_out, tokenizer)
        table[f"Fluent, {len(there)} pictograms"] = singles(bench)[0] | pairs(bench)

    print("| " + " | ".join(["measure", *table, "chance"]) + " |")
    print("| --- |" + " ---: |" * (len(table) + 1))
    for row, name in enumerate(table["Noto"]):
        cells = [f"{columns[name]:.3f}" if name in columns else "" for columns in table.values()]
        print("| " + " | ".join([name, *cells, f"{lots[row]:.3f}"]) + " |")
    print()
    print("| keyword | precision@10 |\n| --- | ---: |")
    for word, value in words.items():
        print(f"| {word} | {value:.1f} |")


if __name__ == "__main__":
    main()
