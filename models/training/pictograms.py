"""The pictograms that the model learns: which there are, what they are called, how they look.

Which pictograms exist, their names and groups come from Unicode's `emoji-test.txt`; their keywords
from the English annotations of Unicode CLDR; their pictures from the Noto Color Emoji font and
from the 64 pixel PNG files of Twemoji. Debian's packages `unicode-data`, `unicode-cldr-core` and
`fonts-noto-color-emoji` hold all but the last, which is in npm's package `emoji-datasource-twitter`.
"""

import collections
import dataclasses
import io
import pathlib
import re
import tarfile
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image, ImageDraw, ImageFont

EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
ANNOTATIONS = [
    "/usr/share/unicode/cldr/common/annotations/en.xml",
    "/usr/share/unicode/cldr/common/annotationsDerived/en.xml",
]
NOTO_FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
# The only size at which the font holds bitmaps.
NOTO_POINTS = 109
SPRITE_PIXELS = 128

# Signs rather than pictures of things, and what hardly differs from another: clock faces, people
# by gender (and with them, by their names, "man's shoe" and four other things to wear).
LEFT_OUT_GROUPS = {"Flags", "Symbols"}
LEFT_OUT_SUBGROUPS = {"family", "person-symbol"}
KEPT_SUBGROUPS = {"zodiac", "warning"}
LEFT_OUT_NAMES = re.compile(r"o’clock|-thirty$|^(man|woman|men|women)\b(?!$)|: (man|woman)\b|^kiss$")
SKIN_TONES = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}

# Words for the subgroups that people would search for.
CATEGORIES = {
    "animal-mammal": ["animal", "mammal"],
    "animal-bird": ["animal", "bird"],
    "animal-amphibian": ["animal"],
    "animal-reptile": ["animal", "reptile"],
    "animal-marine": ["animal", "sea animal"],
    "animal-bug": ["animal", "insect"],
    "monkey-face": ["animal"],
    "cat-face": ["animal", "cat"],
    "plant-flower": ["plant", "flower"],
    "plant-other": ["plant"],
    "food-fruit": ["food", "fruit"],
    "food-vegetable": ["food", "vegetable"],
    "food-prepared": ["food", "meal"],
    "food-asian": ["food", "asian food"],
    "food-marine": ["food", "seafood"],
    "food-sweet": ["food", "dessert"],
    "drink": ["drink"],
    "dishware": ["dishware"],
    "place-geographic": ["landscape"],
    "place-building": ["building"],
    "place-religious": ["building"],
    "transport-ground": ["vehicle", "transport"],
    "transport-water": ["vehicle", "boat"],
    "transport-air": ["vehicle", "aircraft"],
    "sky & weather": ["sky"],
    "sport": ["sport"],
    "game": ["game"],
    "clothing": ["clothing", "clothes"],
    "musical-instrument": ["musical instrument", "music"],
    "music": ["music"],
    "computer": ["computer", "electronics"],
    "phone": ["phone", "electronics"],
    "light & video": ["electronics"],
    "book-paper": ["paper"],
    "money": ["money"],
    "mail": ["mail"],
    "writing": ["writing tool"],
    "office": ["office supplies"],
    "tool": ["tool"],
    "science": ["science"],
    "medical": ["medicine"],
    "household": ["household item"],
    "time": ["clock"],
    "heart": ["heart"],
    "body-parts": ["body part"],
    "person": ["person"],
    "person-gesture": ["person"],
    "person-role": ["person", "job"],
    "person-fantasy": ["fantasy person"],
    "person-activity": ["person"],
    "person-sport": ["person", "sport"],
    "person-resting": ["person"],
    "zodiac": ["zodiac sign"],
}
# In these subgroups are also road signs, seats and other things that are no vehicles.
NOT_IN_CATEGORY = {
    "vehicle": re.compile(
        r"bus stop|motorway|railway track|oil drum|fuel pump|wheel$|light|sign|construction|anchor"
        r"|ring buoy|seat|airplane (departure|arrival)|station|skateboard|roller skate|parachute"
    ),
    "aircraft": re.compile(r"seat|parachute|rocket|saucer|satellite|departure|arrival"),
    "boat": re.compile(r"anchor|ring buoy"),
    "flower": re.compile(r"bouquet|(?<!sun)flower$"),
}


@dataclasses.dataclass(frozen=True)
class Pictogram:
    """One thing that can be drawn, with what people call it."""

    characters: str
    name: str
    keywords: tuple

    @property
    def code(self):
        """Its code points, as files of pictogram sets are called."""
        return "-".join(f"{ord(character):04x}" for character in self.characters)


def load_vocabulary():
    """All pictograms, in Unicode's order, each with a unique name."""
    keywords = read_annotations()
    found, names = [], set()
    for group, subgroup, characters, name in read_emoji_test():
        is_left_out = group in LEFT_OUT_GROUPS or subgroup in LEFT_OUT_SUBGROUPS
        if is_left_out and subgroup not in KEPT_SUBGROUPS:
            continue
        name = name.replace("’", "'").replace("“", "").replace("”", "").replace("*", "").lower()
        if LEFT_OUT_NAMES.search(name.replace("'", "’")) or name in names:
            continue
        names.add(name)
        words = set(keywords.get(characters.replace("\ufe0f", ""), []))
        words.update(
            category
            for category in CATEGORIES.get(subgroup, [])
            if category not in NOT_IN_CATEGORY or not NOT_IN_CATEGORY[category].search(name)
        )
        words.discard(name)
        found.append(Pictogram(characters, name, tuple(sorted(words))))
    return found


def read_emoji_test():
    """Yields group, subgroup, characters and name of each pictogram without a skin tone."""
    group = subgroup = None
    for line in pathlib.Path(EMOJI_TEST).read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif "; fully-qualified" in line:
            codes, rest = line.split(";", 1)
            if SKIN_TONES.isdisjoint(codes.split()):
                name = re.search(r"E\d+\.\d+ (.*)$", rest).group(1)
                yield group, subgroup, "".join(chr(int(code, 16)) for code in codes.split()), name


def read_annotations():
    """Keywords of each pictogram, by its characters without variation selectors."""
    keywords = {}
    for path in ANNOTATIONS:
        for entry in ElementTree.parse(path).getroot().iter("annotation"):
            if entry.get("type") is None:
                words = [word.strip().lower().replace("’", "'") for word in entry.text.split("|")]
                keywords[entry.get("cp")] = [word for word in words if re.fullmatch(r"[a-z' -]{2,24}", word)]
    return keywords


def pictograms_of_keyword(vocabulary):
    """Which pictograms (indices) each keyword stands for; a bird's own picture is one of `bird`, too."""
    found = collections.defaultdict(list)
    for index, pictogram in enumerate(vocabulary):
        for word in pictogram.keywords:
            found[word].append(index)
    for index, pictogram in enumerate(vocabulary):
        if pictogram.name in found:
            found[pictogram.name].append(index)
    return dict(sorted(found.items()))


def noto_sprites(vocabulary):
    """Pictures of Noto Color Emoji: uint8 of shape [pictograms, 128, 128, 4], not premultiplied."""
    font = ImageFont.truetype(NOTO_FONT, NOTO_POINTS, layout_engine=ImageFont.Layout.RAQM)
    sprites = []
    for pictogram in vocabulary:
        canvas = Image.new("RGBA", (320, 200), (0, 0, 0, 0))
        ImageDraw.Draw(canvas).text((60, 20), pictogram.characters, font=font, embedded_color=True)
        if font.getlength(pictogram.characters) > 1.5 * NOTO_POINTS:
            raise ValueError(f"the font has no single picture of `{pictogram.name}`")
        sprites.append(trimmed(canvas))
    return np.stack(sprites)


def twemoji_sprites(vocabulary, archive):
    """The same of Twemoji, from npm's archive of `emoji-datasource-twitter`."""
    files = read_archive(archive, "/64/")
    found = [file_of(pictogram, files) for pictogram in vocabulary]
    return np.stack([trimmed(Image.open(io.BytesIO(file)).convert("RGBA")) for file in found])


def fluent_sprites(vocabulary, archive):
    """The same of Fluent Emoji (flat), from npm's archive of `@lobehub/fluent-emoji-flat`, and the
    indices of the pictograms that are in it. Only evaluation uses them."""
    import resvg_py  # not needed for training

    files = read_archive(archive, "/assets/")
    sprites, there = [], []
    for index, pictogram in enumerate(vocabulary):
        if file := file_of(pictogram, files):
            png = resvg_py.svg_to_bytes(svg_string=file.decode(), width=SPRITE_PIXELS, skip_system_fonts=True)
            sprites.append(trimmed(Image.open(io.BytesIO(bytes(png))).convert("RGBA")))
            there.append(index)
    return np.stack(sprites), there


def read_archive(archive, folder):
    """The files of a folder by their names without endings, read in one pass."""
    with tarfile.open(archive) as package:
        members = (member for member in package if folder in member.name)
        return {pathlib.PurePath(member.name).stem: package.extractfile(member).read() for member in members}


def file_of(pictogram, files):
    """The file of a pictogram, if there is one; sets differ in where they write the variation selector."""
    plain = pictogram.code.replace("-fe0f", "")
    return next((files[name] for name in (pictogram.code, f"{pictogram.code}-fe0f", plain) if name in files), None)


def trimmed(picture):
    """The picture without its empty border, centred on a square of SPRITE_PIXELS."""
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0).getbbox()
    if box is None:
        raise ValueError("an empty picture")
    picture = picture.crop(box)
    scale = (SPRITE_PIXELS - 2) / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    square = Image.new("RGBA", (SPRITE_PIXELS, SPRITE_PIXELS), (0, 0, 0, 0))
    corner = [(SPRITE_PIXELS - side) // 2 for side in size]
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), tuple(corner))
    return np.asarray(square)
