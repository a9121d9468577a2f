#!/usr/bin/env python3
"""Draws the gallery of `examples/images/gallery`: scenes of pictograms, with metadata.

A few dozen well-known things, each in several scenes, alone and together. The seeds are none that
training or evaluation uses. `metadata.jsonl` has a line per picture, as `clipmesh index` reads it.

    models/training/gallery.py --out examples/images/gallery
"""

import argparse
import json
import pathlib

import torch
from PIL import Image

import pictograms
import scenes

FIRST_SEED = 2_000_000
PIXELS = 256
DRAWN_PIXELS = 512
WEBP_QUALITY = 80
THINGS = {
    "animal": "cat,dog,horse,elephant,rabbit,fox,penguin,owl,butterfly,octopus,turtle,whale,giraffe,zebra",
    "fruit": "banana,red apple,strawberry,pineapple,grapes,watermelon,cherries,lemon",
    "vehicle": "automobile,bicycle,fire engine,sailboat,helicopter,rocket,tractor,locomotive",
    "food": "pizza,hamburger,doughnut,bread,cheese wedge,ice cream",
    "plant": "sunflower,tulip,cactus,palm tree,four leaf clover",
    "music": "guitar,violin,trumpet,drum",
    "tool": "hammer,axe,wrench,screwdriver",
    "building": "castle,house,church",
    "clothing": "t-shirt,running shoe,top hat,dress",
    "thing": "key,umbrella,light bulb,alarm clock,rainbow,balloon,scissors,soccer ball",
}
ALONE = 3
TOGETHER = 90
COPIES = 22


def plan(rng):
    """The kinds of each scene, as (names, copies)."""
    names = [name for group in THINGS.values() for name in group.split(",")]
    scenes_wanted = [([name], 1) for name in names for _ in range(ALONE)]
    for _ in range(TOGETHER):
        scenes_wanted.append((rng.sample(names, rng.choices([2, 3], [75, 25])[0]), 1))
    for _ in range(COPIES):
        scenes_wanted.append(([rng.choice(names)], rng.choice([2, 3, 4])))
    return scenes_wanted


def describe(names, copies, background):
    """A caption, and a file name that a person can judge a result by."""
    if copies > 1:
        words = f"{scenes.NUMBERS[copies]} {scenes.plural(names[0])}"
    else:
        phrases = [scenes.one(name) for name in names]
        words = phrases[0] if len(names) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    stem = "+".join(name.replace(" ", "-") for name in names)
    stem = f"{copies}-{stem}" if copies > 1 else stem
    return f"{words} on {scenes.article(background)} background", f"{stem}-on-{background}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the folder to write")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)

    vocabulary = pictograms.load_vocabulary()
    index = {pictogram.name: number for number, pictogram in enumerate(vocabulary)}
    painter = scenes.Painter(pictograms.noto_sprites(vocabulary)[None])
    group_of = {name: group for group, names in THINGS.items() for name in names.split(",")}
    rng, _ = scenes.seeded(FIRST_SEED)
    taken, lines = set(), []
    for number, (names, copies) in enumerate(plan(rng)):
        source, generator = scenes.seeded(FIRST_SEED, number)
        kinds = [index[name] for name in names]
        while True:
            scene = scenes.random_scene(source, len(vocabulary), [1.0], kinds, copies=copies, tints=False)
            background = scenes.COLOUR_NAMES[scene.background]
            caption, stem = describe(names, copies, background)
            if stem not in taken:
                break
        taken.add(stem)
        pictures, _ = painter.draw([scene], DRAWN_PIXELS, generator)
        pixels = (scenes.shrunk(pictures, PIXELS)[0] * 255).round().to(torch.uint8)
        file_name = f"{stem}.webp"
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        picture.save(folder / file_name, quality=WEBP_QUALITY, method=6)
        line = {"file_name": file_name, "caption": caption, "things": names}
        line |= {"kinds": sorted({group_of[name] for name in names}), "background": background}
        lines.append(line | {"count": len(scene.things)})
    lines.sort(key=lambda line: line["file_name"])
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{len(lines)} pictures, {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
