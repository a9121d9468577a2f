"""Scenes of pictograms, drawn from a seed, and captions that say what is in them.

A scene is described by attributes: which pictograms, which keywords apply, which background
colour, which tint, how many copies. A caption asks for some of these. So for each caption and each
scene, not only its own, it is known whether the one describes the other, in training (other scenes
that a caption describes are no negatives) as in evaluation.
"""

import dataclasses
import math
import random

import numpy as np
import torch
import torch.nn.functional as functional

import pictograms

# Hue, saturation and value ranges, each in [0, 1].
COLOURS = {
    "red": ((-0.02, 0.02), (0.75, 0.95), (0.70, 0.95)),
    "orange": ((0.06, 0.095), (0.75, 1.0), (0.90, 1.0)),
    "yellow": ((0.135, 0.165), (0.60, 0.95), (0.92, 1.0)),
    "green": ((0.28, 0.40), (0.50, 0.90), (0.45, 0.85)),
    "turquoise": ((0.47, 0.51), (0.45, 0.85), (0.70, 0.95)),
    "blue": ((0.56, 0.64), (0.55, 0.95), (0.55, 0.98)),
    "purple": ((0.74, 0.79), (0.45, 0.80), (0.45, 0.80)),
    "pink": ((0.88, 0.94), (0.22, 0.50), (0.93, 1.0)),
    "brown": ((0.05, 0.08), (0.50, 0.75), (0.35, 0.55)),
    "black": ((0.0, 1.0), (0.0, 0.10), (0.0, 0.13)),
    "grey": ((0.0, 1.0), (0.0, 0.05), (0.42, 0.68)),
    "white": ((0.0, 1.0), (0.0, 0.04), (0.94, 1.0)),
}
COLOUR_NAMES = list(COLOURS)
NUMBERS = {2: "two", 3: "three", 4: "four"}
MAX_OBJECTS = 4
# Sizes at which the sprites are kept, so that a small drawing is not full of jaggies.
MIP_SIZES = (128, 64, 32, 16)


class Attributes:
    """The columns of an attribute vector: pictograms, keywords, background, tint, number."""

    def __init__(self, vocabulary):
        self.vocabulary = vocabulary
        self.members = pictograms.pictograms_of_keyword(vocabulary)
        self.keywords = list(self.members)
        self.keyword_index = {word: index for index, word in enumerate(self.keywords)}
        sizes = [len(vocabulary), len(self.keywords), len(COLOURS), len(COLOURS), len(NUMBERS)]
        starts = np.cumsum([0, *sizes])
        names = ["pictogram", "keyword", "background", "tint", "number"]
        self.spans = {name: slice(starts[i], starts[i + 1]) for i, name in enumerate(names)}
        self.count = int(starts[-1])
        self.keywords_of = [[] for _ in vocabulary]
        for word, index in self.keyword_index.items():
            for member in self.members[word]:
                self.keywords_of[member].append(index)

    def column(self, family, index):
        """Where in the vector attribute `index` of a family lies."""
        return int(self.spans[family].start) + index


@dataclasses.dataclass
class Thing:
    """One drawn pictogram. Lengths are shares of the picture's side, angles are in radians."""

    pictogram: int
    style: int
    tint: int | None
    x: float
    y: float
    side: float
    angle: float
    aspect: float
    mirrored: bool


@dataclasses.dataclass
class Scene:
    things: list
    background: int
    copies: int

    @property
    def kinds(self):
        """The distinct pictograms, in the order of drawing."""
        return list(dict.fromkeys(thing.pictogram for thing in self.things))


# === What is in a scene ===


def random_scene(rng, pictogram_count, style_shares, kinds=None, copies=1, tints=True):
    """Draws up a scene of one to four things; `kinds` fixes which pictograms, `copies` how many of
    a single one."""
    if kinds is None:
        kinds = [rng.randrange(pictogram_count) for _ in range(rng.choices([1, 2, 3, 4], [40, 35, 15, 10])[0])]
        kinds = list(dict.fromkeys(kinds))
        copies = rng.choice([2, 3, 4]) if len(kinds) == 1 and rng.random() < 0.2 else 1
    drawn = kinds * copies if len(kinds) == 1 else kinds
    style = rng.choices(range(len(style_shares)), style_shares)[0]
    background = rng.randrange(len(COLOURS))
    tint = None
    if tints and rng.random() < 0.15:
        tint = rng.choice([index for index in range(len(COLOURS)) if index != background])
    tinted = rng.randrange(len(kinds)) if tint is not None else None
    things = []
    for kind, (x, y, side) in zip(drawn, places(rng, len(drawn))):
        is_tinted = tinted is not None and kind == kinds[tinted]
        things.append(
            Thing(
                pictogram=kind,
                style=style,
                tint=tint if is_tinted else None,
                x=x,
                y=y,
                side=side,
                angle=rng.uniform(-0.45, 0.45),
                aspect=math.exp(rng.uniform(-0.12, 0.12)),
                mirrored=rng.random() < 0.3,
            )
        )
    return Scene(things, background, copies)


def places(rng, count):
    """Centre and side of each of `count` things, none covering another by much."""
    if count == 1:
        side = rng.uniform(0.45, 0.92)
        slack = max(0.0, 1.0 - side) / 2 + 0.04
        return [(0.5 + rng.uniform(-slack, slack), 0.5 + rng.uniform(-slack, slack), side)]
    if count == 2:
        side = [rng.uniform(0.40, 0.56) for _ in range(2)]
        spots = [(0.27, 0.5), (0.73, 0.5)]
        if rng.random() < 0.5:
            spots = [(y, x) for x, y in spots]
        along, across = 0.04, 0.22
        is_row = spots[0][1] == 0.5
        jitter = (along, across) if is_row else (across, along)
    else:
        side = [rng.uniform(0.36, 0.48) for _ in range(count)]
        spots = [(0.26, 0.26), (0.74, 0.26), (0.26, 0.74), (0.74, 0.74)]
        rng.shuffle(spots)
        jitter = (0.04, 0.04)
    return [
        (x + rng.uniform(-jitter[0], jitter[0]), y + rng.uniform(-jitter[1], jitter[1]), size)
        for (x, y), size in zip(spots, side)
    ]


def scene_attributes(scene, attributes, row):
    """Sets in `row` whatever is true of the scene."""
    for kind in scene.kinds:
        row[attributes.column("pictogram", kind)] = 1
        for keyword in attributes.keywords_of[kind]:
            row[attributes.column("keyword", keyword)] = 1
    row[attributes.column("background", scene.background)] = 1
    for thing in scene.things:
        if thing.tint is not None:
            row[attributes.column("tint", thing.tint)] = 1
    if scene.copies > 1:
        row[attributes.column("number", scene.copies - 2)] = 1


# === What a caption says ===

OPENINGS = ["", "", "", "", "a picture of ", "an image of ", "a photo of ", "a drawing of ", "show me ", "an emoji of "]
BACKGROUNDS = [" on a {} background", " on a {} background", " on {}", " in front of a {} background", ", {} background"]


def article(words):
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def one(words):
    """A name as one says it of a single thing: "an octopus", but "cherries"."""
    is_plural = words.endswith("s") and not words.endswith(("ss", "us"))
    return words if is_plural else article(words)


def plural(words):
    """English plural of the last word, good enough for names of things."""
    head, _, last = words.rpartition(" ")
    if last.endswith(("s", "x", "ch", "sh")):
        last = last if last.endswith("s") and not last.endswith("ss") else last + "es"
    elif last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        last = last[:-1] + "ies"
    elif last == "mouse":
        last = "mice"
    elif last.endswith("man"):
        last = last[:-3] + "men"
    elif last == "person":
        last = "people"
    else:
        last += "s"
    return f"{head} {last}".strip()


def random_caption(rng, scene, attributes, row):
    """A caption of the scene; sets in `row` which attributes it asks for."""
    kinds = scene.kinds
    if len(kinds) > 1 and rng.random() < 0.25:
        kinds = rng.sample(kinds, rng.randrange(1, len(kinds)))
    elif len(kinds) > 1:
        kinds = rng.sample(kinds, len(kinds))
    tints = {thing.pictogram: thing.tint for thing in scene.things if thing.tint is not None}
    phrases = []
    for kind in kinds:
        words = attributes.vocabulary[kind].name
        keywords = attributes.keywords_of[kind]
        if keywords and rng.random() < 0.2:
            keyword = rng.choice(keywords)
            words = attributes.keywords[keyword]
            row[attributes.column("keyword", keyword)] = 1
        else:
            row[attributes.column("pictogram", kind)] = 1
        phrases.append(phrase(rng, words, kind, scene, tints, attributes, row))
    text = rng.choice(OPENINGS) + joined(rng, phrases)
    if rng.random() < 0.4:
        row[attributes.column("background", scene.background)] = 1
        text += rng.choice(BACKGROUNDS).format(COLOUR_NAMES[scene.background])
    return text


def phrase(rng, words, kind, scene, tints, attributes, row):
    if kind in tints and rng.random() < 0.8:
        row[attributes.column("tint", tints[kind])] = 1
        words = f"{COLOUR_NAMES[tints[kind]]} {words}"
    if scene.copies > 1 and rng.random() < 0.7:
        row[attributes.column("number", scene.copies - 2)] = 1
        return f"{NUMBERS[scene.copies]} {plural(words)}"
    draw = rng.random()
    if scene.copies > 1 or draw < 0.1:
        return plural(words)
    return words if draw < 0.4 else article(words)


def joined(rng, phrases):
    if len(phrases) == 1:
        return phrases[0]
    link = rng.choice([" and ", " and ", ", "])
    return ", ".join(phrases[:-1]) + link + phrases[-1]


def random_words(rng, attributes, row):
    """A caption without a scene: one name or keyword, as people type it into a search box."""
    if rng.random() < 0.5:
        kind = rng.randrange(len(attributes.vocabulary))
        words = attributes.vocabulary[kind].name
        row[attributes.column("pictogram", kind)] = 1
    else:
        keyword = rng.randrange(len(attributes.keywords))
        words = attributes.keywords[keyword]
        row[attributes.column("keyword", keyword)] = 1
    draw = rng.random()
    words = plural(words) if draw < 0.15 else article(words) if draw < 0.4 else words
    return rng.choice(OPENINGS) + words


# === How it is drawn ===


class Painter:
    """Draws batches of scenes with PyTorch. `sprites` is uint8 [styles, pictograms, 128, 128, 4]."""

    def __init__(self, sprites):
        colour = torch.from_numpy(sprites).permute(0, 1, 4, 2, 3)
        alpha = colour[:, :, 3:].to(torch.int32)
        # Premultiplied, so that the border of a sprite has no fringe.
        rgb = (colour[:, :, :3].to(torch.int32) * alpha / 255).round().to(torch.uint8)
        full = torch.cat([rgb, colour[:, :, 3:]], dim=2)
        self.levels = []
        for size in MIP_SIZES:
            step = MIP_SIZES[0] // size
            level = full.flatten(0, 1)
            if step > 1:
                chunks = [functional.avg_pool2d(part.float(), step) for part in level.split(256)]
                level = torch.cat(chunks).round().to(torch.uint8)
            self.levels.append(level)
        self.pictogram_count = sprites.shape[1]

    def draw(self, scenes, pixels, generator):
        """Pictures, float [scenes, 3, pixels, pixels] in [0, 1], and which thing covers what share
        of each pixel, float [scenes, MAX_OBJECTS, pixels, pixels]."""
        pictures = backgrounds([scene.background for scene in scenes], pixels, generator)
        cover = torch.zeros(len(scenes), MAX_OBJECTS, pixels, pixels)
        for slot in range(max(len(scene.things) for scene in scenes)):
            rows = [i for i, scene in enumerate(scenes) if len(scene.things) > slot]
            drawn = self.sprites([scenes[i].things[slot] for i in rows], pixels, generator)
            rows = torch.tensor(rows)
            alpha = drawn[:, 3:]
            pictures[rows] = pictures[rows] * (1 - alpha) + drawn[:, :3]
            if slot:
                cover[rows, :slot] *= 1 - alpha
            cover[rows, slot] = alpha[:, 0]
        return pictures.clamp_(0, 1), cover

    def sprites(self, things, pixels, generator):
        """Each thing alone on a clear canvas: premultiplied, float [things, 4, pixels, pixels]."""
        out = torch.empty(len(things), 4, pixels, pixels)
        wanted = [thing.side * pixels for thing in things]
        # The smallest level that still has at least as many pixels as will be drawn.
        levels = [max(i for i, size in enumerate(MIP_SIZES) if size >= min(side, MIP_SIZES[0])) for side in wanted]
        for level in set(levels):
            rows = [i for i, chosen in enumerate(levels) if chosen == level]
            part = [things[i] for i in rows]
            indices = torch.tensor([thing.style * self.pictogram_count + thing.pictogram for thing in part])
            source = self.levels[level][indices].float() / 255
            grid = functional.affine_grid(placements(part), [len(part), 4, pixels, pixels], align_corners=False)
            out[rows] = functional.grid_sample(source, grid, align_corners=False)
        return recoloured(out, [thing.tint for thing in things], generator)


def placements(things):
    """The affine map from the canvas to each sprite, float [things, 2, 3]."""
    rows = []
    for thing in things:
        wide, high = thing.side * math.sqrt(thing.aspect), thing.side / math.sqrt(thing.aspect)
        cosine, sine = math.cos(thing.angle), math.sin(thing.angle)
        flip = -1 if thing.mirrored else 1
        x, y = 2 * thing.x - 1, 2 * thing.y - 1
        across = [flip * cosine / wide, flip * sine / wide]
        down = [-sine / high, cosine / high]
        rows.append(
            [
                [*across, -(across[0] * x + across[1] * y)],
                [*down, -(down[0] * x + down[1] * y)],
            ]
        )
    return torch.tensor(rows)


def recoloured(sprites, tints, generator):
    """Tinted things take the tint's colour and keep light and shade; all vary a little in light."""
    rows = [i for i, tint in enumerate(tints) if tint is not None]
    if rows:
        tinted = sprites[rows]
        weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
        light = (tinted[:, :3] * weights).sum(1, keepdim=True)
        colour = random_colours([tints[i] for i in rows], generator)[:, :, None, None]
        light = 0.35 * tinted[:, 3:] + 0.65 * light
        sprites[rows, :3] = (light * colour * 1.25).minimum(tinted[:, 3:])
    gain = torch.empty(len(tints), 3, 1, 1).uniform_(0.9, 1.1, generator=generator)
    sprites[:, :3] = (sprites[:, :3] * gain).minimum(sprites[:, 3:])
    return sprites


def random_colours(indices, generator):
    """A shade of each named colour: float [n, 3] of red, green and blue in [0, 1]."""
    ranges = torch.tensor([COLOURS[COLOUR_NAMES[index]] for index in indices])
    draw = torch.rand(len(indices), 3, generator=generator)
    hue, saturation, value = (ranges[..., 0] + draw * (ranges[..., 1] - ranges[..., 0])).unbind(1)
    # https://en.wikipedia.org/wiki/HSL_and_HSV, "HSV to RGB alternative".
    offset = torch.tensor([5.0, 3.0, 1.0])
    position = (offset + hue[:, None] * 6) % 6
    ramp = torch.minimum(position, 4 - position).clamp(0, 1)
    return value[:, None] * (1 - saturation[:, None] * ramp)


def backgrounds(indices, pixels, generator):
    """Plain, shaded or mottled grounds of the named colours: float [n, 3, pixels, pixels]."""
    count = len(indices)
    first, second = random_colours(indices, generator), random_colours(indices, generator)
    kind = torch.randint(0, 3, (count,), generator=generator)
    line = torch.linspace(0, 1, pixels)
    angle = torch.rand(count, generator=generator) * (2 * math.pi)
    slope = line[None, None, :] * torch.cos(angle)[:, None, None] + line[None, :, None] * torch.sin(angle)[:, None, None]
    slope = (slope - slope.amin((1, 2), keepdim=True)) / (slope.amax((1, 2), keepdim=True) - slope.amin((1, 2), keepdim=True))
    spots = torch.rand(count, 1, 6, 6, generator=generator)
    spots = functional.interpolate(spots, size=(pixels, pixels), mode="bilinear", align_corners=True)[:, 0]
    share = torch.where((kind == 1)[:, None, None], slope, spots)
    share = torch.where((kind == 0)[:, None, None], torch.zeros_like(share), share)[:, None]
    return first[:, :, None, None] * (1 - share) + second[:, :, None, None] * share


def shrunk(pictures, pixels):
    """The pictures as a decoder and Pillow's bicubic filter would hand them to the model."""
    pictures = (pictures * 255).round()
    small = functional.interpolate(pictures, size=(pixels, pixels), mode="bicubic", antialias=True, align_corners=False)
    return small.round().clamp(0, 255) / 255


def seeded(*seed):
    """A random source for plain numbers and one for tensors, both of this seed alone. Integers
    only: Python's hash of those is the same in every process, that of strings is not."""
    value = hash(tuple(seed)) & 0x7FFF_FFFF_FFFF_FFFF
    return random.Random(value), torch.Generator().manual_seed(value)
