"""Writes `formats/`: one small file of each kind that is decoded, and the RGB picture that Pillow
makes of it, as a PNG beside it.

    venv/bin/python formats.py

`avif-10-bit.avif` is made with libavif's `avifenc`, which must be on the path: Pillow writes 8 bits
only. The HEIC files are made with libheif's `heif-enc`, and what they show is what `heif-convert`
says: Pillow knows no HEIC. `formats.rs` holds the tolerances.
"""

import io
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps

from pictures import ORIENTATION_TAG, encode, landscape, plasma, shapes, with_alpha

FOLDER = Path(__file__).resolve().parent / "formats"
SRGB = ImageCms.createProfile("sRGB")

# Colorants adapted to the white of ICC, D50, and the gamma of each channel.
PROFILES = {
    "adobe-rgb": ([(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)], 2.19921875),
    "display-p3": ([(0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)], 2.2),
}


def s15(value):
    return struct.pack(">i", round(value * 65536))


def profile(space, tags):
    """An ICC profile, version 2, of the given tags."""
    white = b"XYZ \0\0\0\0" + s15(0.9642) + s15(1) + s15(0.8249)
    text = b"made for tests"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0" + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": white,
        **tags,
    }
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", start + len(data), len(content))
        data += content
    body = struct.pack(">I", len(tags)) + table + data
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    pcs = b"Lab " if space == b"CMYK" else b"XYZ "
    head = struct.pack(">I", 128 + len(body)) + bytes(4) + b"\x02\x40\0\0" + kind + space + pcs
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + s15(0.9642) + s15(1) + s15(0.8249)
    return head + bytes(128 - len(head)) + body


def gamma(value):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def rgb_profile(colorants, exponent):
    tags = {name: b"XYZ \0\0\0\0" + b"".join(map(s15, xyz)) for name, xyz in zip((b"rXYZ", b"gXYZ", b"bXYZ"), colorants)}
    return profile(b"RGB ", {**tags, **{name: gamma(exponent) for name in (b"rTRC", b"gTRC", b"bTRC")}})


def cmyk_profile():
    """Ink whose lightness and colour are a table of the sixteen full mixtures."""
    nodes = b""
    for node in range(16):
        cyan, magenta, yellow, black = [node >> shift & 1 for shift in (3, 2, 1, 0)]
        light = (100 - 35 * cyan - 40 * magenta - 8 * yellow) * (1 - 0.85 * black)
        a = (-30 * cyan + 65 * magenta - 5 * yellow) * (1 - 0.9 * black)
        b = (-45 * cyan - 5 * magenta + 80 * yellow) * (1 - 0.9 * black)
        nodes += bytes([round(max(light, 0) * 2.55), round(a + 128), round(b + 128)])
    identity = bytes(range(256))
    matrix = b"".join(s15(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + matrix + identity * 4 + nodes + identity * 3
    return profile(b"CMYK", {b"A2B0": table})


def reference(data):
    """What Pillow makes of a file: upright, in sRGB, on white, RGB."""
    image = Image.open(io.BytesIO(data))
    found = image.info.get("icc_profile")
    image = ImageOps.exif_transpose(image)
    if found and found != b"broken":
        mode = "RGBA" if image.mode == "RGBA" else "RGB"
        image = ImageCms.profileToProfile(image, ImageCms.ImageCmsProfile(io.BytesIO(found)), SRGB, outputMode=mode)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION_TAG] = orientation
    return tags


def ten_bit(picture):
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.png", Path(folder) / "a.avif"
        picture.save(source)
        subprocess.run(["avifenc", "--depth", "10", "--yuv", "420", "--min", "10", "--max", "20", source, target], check=True, capture_output=True)
        return target.read_bytes()


def heic(picture, folder, name):
    """A HEIC file and what libheif's own tool makes of it; an EXIF orientation turns both."""
    source = Path(folder) / "a.jpg"
    source.write_bytes(picture)
    subprocess.run(["heif-enc", "-q", "92", source, "-o", FOLDER / name], check=True, capture_output=True)
    subprocess.run(["heif-convert", FOLDER / name, FOLDER / f"{name}.expected.png"], check=True, capture_output=True)


def files():
    scene, wide = landscape(61, 47, 21), plasma(57, 38)
    adobe, display = (rgb_profile(*PROFILES[name]) for name in ("adobe-rgb", "display-p3"))
    grey = profile(b"GRAY", {b"kTRC": gamma(1.4)})
    turned = {n: landscape(45, 34, 22).transpose(t) for n, t in ((6, Image.Transpose.ROTATE_90), (5, Image.Transpose.TRANSPOSE), (4, Image.Transpose.FLIP_TOP_BOTTOM), (8, Image.Transpose.ROTATE_270), (7, Image.Transpose.TRANSVERSE))}
    return {
        "avif-420.avif": encode(scene, "AVIF", quality=85, subsampling="4:2:0"),
        "avif-422.avif": encode(scene, "AVIF", quality=85, subsampling="4:2:2"),
        "avif-444.avif": encode(wide, "AVIF", quality=90, subsampling="4:4:4"),
        "avif-limited-range.avif": encode(wide, "AVIF", quality=90, range="limited"),
        "avif-grey.avif": encode(scene.convert("L"), "AVIF", quality=90, subsampling="4:0:0"),
        "avif-alpha.avif": encode(with_alpha(shapes(60, 44)), "AVIF", quality=90, subsampling="4:4:4"),
        "avif-10-bit.avif": ten_bit(scene),
        "avif-display-p3.avif": encode(scene, "AVIF", quality=90, subsampling="4:4:4", icc_profile=display),
        **{f"avif-turned-{n}.avif": encode(image, "AVIF", quality=90, subsampling="4:4:4", exif=exif(n)) for n, image in turned.items()},
        "adobe-rgb.jpg": encode(wide, "JPEG", quality=95, subsampling=0, icc_profile=adobe),
        "display-p3.png": encode(wide, "PNG", icc_profile=display),
        "display-p3-alpha.png": encode(with_alpha(wide), "PNG", icc_profile=display),
        "display-p3.webp": encode(wide, "WEBP", lossless=True, icc_profile=display),
        # The decoder takes no profile into more memory than the picture has bytes.
        "adobe-rgb.tiff": encode(shapes(90, 70), "TIFF", compression="tiff_lzw", icc_profile=adobe),
        "dark-grey.png": encode(wide.convert("L"), "PNG", icc_profile=grey),
        "srgb.png": encode(wide, "PNG", icc_profile=ImageCms.ImageCmsProfile(SRGB).tobytes()),
        "broken-profile.png": encode(wide, "PNG", icc_profile=b"broken"),
        "printed.jpg": encode(wide.convert("CMYK"), "JPEG", quality=95, icc_profile=cmyk_profile()),
    }


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    for name, data in files().items():
        (FOLDER / name).write_bytes(data)
        reference(data).save(FOLDER / f"{name}.expected.png", optimize=True, icc_profile=None)
    scene, turned = landscape(64, 48, 23), landscape(64, 48, 23).transpose(Image.Transpose.ROTATE_90)
    with tempfile.TemporaryDirectory() as folder:
        heic(encode(scene, "JPEG", quality=95), folder, "upright.heic")
        heic(encode(turned, "JPEG", quality=95, exif=exif(6)), folder, "turned.heic")


if __name__ == "__main__":
    main()
