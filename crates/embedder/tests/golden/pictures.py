"""Draws the pictures of the golden set and writes them in many formats.

Everything is computed from formulas and from one seeded generator, so the
pictures belong to this project and need no licence of anybody else.
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

ORIENTATION_TAG = 0x0112

# What has to be done to upright pixels so that a viewer who honours the
# orientation sees them upright again: the inverse of exif_transpose.
UNDO_ORIENTATION = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def grid(width, height):
    """Coordinates in [0, 1] of every pixel centre, each of shape [height, width]."""
    rows, columns = np.mgrid[0:height, 0:width]
    return (columns + 0.5) / width, (rows + 0.5) / height


def to_image(levels):
    """Rounds an array of levels (0..255, [h, w] or [h, w, 3]) to a picture."""
    return Image.fromarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))


def landscape(width, height, seed):
    """Sky, sun, three ranges of hills and a little film grain; no symmetry."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x, y = grid(width, height)
    tint = rng.uniform(-30, 30, 3)
    low, high = np.array([225, 190, 150]) + tint, np.array([70, 130, 205]) + tint
    levels = low * y[..., None] + high * (1 - y[..., None])
    sun_x, sun_y = rng.uniform(0.15, 0.85), rng.uniform(0.1, 0.35)
    distance = np.hypot((x - sun_x) * width / height, y - sun_y)
    glow = np.clip(1.2 - distance / 0.12, 0, 1)[..., None]
    levels = levels * (1 - glow) + np.array([255, 244, 205]) * glow
    for depth in range(3):
        phase, waves = rng.uniform(0, 6.28), rng.uniform(1.5, 4.5)
        ridge = 0.5 + 0.16 * depth + 0.07 * np.sin(waves * 6.28 * x + phase) + 0.03 * np.sin(17 * x * waves)
        cover = np.clip((y - ridge) * height / 1.5 + 0.5, 0, 1)[..., None]
        colour = np.array([60, 110, 85]) * (1.1 - 0.35 * depth) + rng.uniform(-25, 25, 3)
        shade = 1 + 0.18 * np.sin(40 * x + 60 * y)[..., None]
        levels = levels * (1 - cover) + colour * shade * cover
    return to_image(levels + rng.normal(0, 3, levels.shape))


def shapes(width, height):
    """Flat saturated shapes with hard edges: the worst case for chroma subsampling."""
    image = Image.new("RGB", (width, height), (245, 240, 225))
    draw = ImageDraw.Draw(image)
    draw.rectangle((width * 0.06, height * 0.1, width * 0.45, height * 0.55), fill=(205, 25, 40))
    draw.ellipse((width * 0.4, height * 0.3, width * 0.85, height * 0.9), fill=(25, 80, 190))
    draw.polygon([(width * 0.7, height * 0.05), (width * 0.97, height * 0.45), (width * 0.6, height * 0.4)], fill=(250, 205, 30))
    draw.line((0, height * 0.95, width, height * 0.62), fill=(20, 120, 60), width=max(2, height // 30))
    return image


def plasma(width, height):
    """Smooth waves of colour that use the whole range of each channel."""
    x, y = grid(width, height)
    red = 127.5 + 127.5 * np.sin(7 * x + 3 * y)
    green = 127.5 + 127.5 * np.sin(9 * y - 2 * x + 1)
    blue = 127.5 + 127.5 * np.sin(6 * np.hypot(x - 0.4, y - 0.6) * 2.5)
    return to_image(np.stack([red, green, blue], axis=-1))


def noise(width, height, seed):
    """Independent noise in every channel: nothing a filter can hide behind."""
    rng = np.random.Generator(np.random.PCG64(seed))
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def with_alpha(image):
    """Adds a soft-edged disc of opacity, with fully transparent corners."""
    x, y = grid(*image.size)
    alpha = np.clip(1.25 - 2.2 * np.hypot(x - 0.5, y - 0.5), 0, 1) * 255
    rgba = image.convert("RGBA")
    rgba.putalpha(to_image(alpha))
    return rgba


def png_16_bit(levels):
    """A PNG of 16 bits per channel, written by hand since Pillow has no such RGB mode."""
    height, width = levels.shape[:2]
    colour_type = 0 if levels.ndim == 2 else 2
    rows = levels.astype(">u2").tobytes()
    stride = len(rows) // height
    raw = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw, 9)) + chunk(b"IEND", b"")


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(upright, orientation):
    """A JPEG whose stored pixels are turned and whose tag turns them back."""
    undo = UNDO_ORIENTATION[orientation]
    stored = upright if undo is None else upright.transpose(undo)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    data = encode(stored, "JPEG", quality=92, subsampling=0, exif=exif)
    back = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert back.size == upright.size, f"orientation {orientation} does not undo itself"
    return data


def good_pictures():
    """Name -> file bytes of every picture that has golden pixels and vectors."""
    files = {}
    scene = landscape(240, 180, 1)
    files["landscape-420.jpg"] = encode(scene, "JPEG", quality=88, subsampling="4:2:0")
    files["landscape-422.jpg"] = encode(landscape(190, 141, 2), "JPEG", quality=85, subsampling="4:2:2")
    files["landscape-444.jpg"] = encode(landscape(175, 233, 3), "JPEG", quality=92, subsampling="4:4:4")
    files["landscape-progressive.jpg"] = encode(landscape(251, 167, 4), "JPEG", quality=85, subsampling="4:2:0", progressive=True)
    files["landscape-restart.jpg"] = encode(landscape(160, 120, 5), "JPEG", quality=80, restart_marker_rows=2)
    files["landscape.png"] = encode(landscape(104, 78, 6), "PNG")
    files["landscape.webp"] = encode(landscape(200, 150, 7), "WEBP", quality=85, method=4)
    files["landscape-grey.jpg"] = encode(landscape(180, 140, 8).convert("L"), "JPEG", quality=88)
    files["landscape-cmyk.jpg"] = encode(landscape(150, 110, 9).convert("CMYK"), "JPEG", quality=90)
    files["shapes-420.jpg"] = encode(shapes(220, 160), "JPEG", quality=90, subsampling="4:2:0")
    files["shapes.png"] = encode(shapes(160, 120), "PNG")
    files["shapes-cmyk.jpg"] = encode(shapes(140, 120).convert("CMYK"), "JPEG", quality=92)
    files["shapes.gif"] = animated_gif()
    files["shapes.webp"] = encode(shapes(150, 110), "WEBP", lossless=True)
    files["shapes.tiff"] = encode(shapes(90, 75), "TIFF", compression="tiff_lzw")
    files["plasma.bmp"] = encode(plasma(62, 50), "BMP")
    files["plasma-420.jpg"] = encode(plasma(200, 150), "JPEG", quality=85, subsampling="4:2:0")
    files["plasma-grey.png"] = encode(plasma(110, 140).convert("L"), "PNG")
    files["alpha.png"] = encode(with_alpha(shapes(120, 100)), "PNG")
    files["alpha-grey.png"] = encode(with_alpha(plasma(90, 80)).convert("LA"), "PNG")
    files["alpha.webp"] = encode(with_alpha(shapes(110, 90)), "WEBP", lossless=True)
    files["palette.png"] = encode(plasma(100, 80).quantize(48, dither=Image.Dither.NONE), "PNG")
    files["palette-transparent.png"] = palette_with_alpha()
    files["one-bit.png"] = encode(landscape(96, 70, 10).convert("1"), "PNG")
    x, y = grid(66, 54)
    deep = 65535 * (0.5 + 0.5 * np.sin(9 * x + 4 * y) * np.cos(5 * y))
    files["grey-16-bit.png"] = png_16_bit(deep)
    wide = np.stack([deep, 65535 * x, 65535 * y], axis=-1)
    files["rgb-16-bit.png"] = png_16_bit(wide[:50, :44])
    files["noise.png"] = encode(noise(64, 61, 11), "PNG")
    files["wide.jpg"] = encode(landscape(300, 24, 12), "JPEG", quality=90)
    files["tall.png"] = encode(plasma(17, 300), "PNG")
    files["small.png"] = encode(shapes(23, 19), "PNG")
    files["exact-40.png"] = encode(landscape(40, 40, 13), "PNG")
    files["one-pixel.png"] = encode(Image.new("RGB", (1, 1), (200, 60, 25)), "PNG")
    files["one-pixel.jpg"] = encode(Image.new("RGB", (1, 1), (30, 90, 220)), "JPEG", quality=90)
    turned = landscape(150, 105, 14)
    for orientation in range(1, 9):
        files[f"orientation-{orientation}.jpg"] = oriented(turned, orientation)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    files["orientation-6.png"] = encode(landscape(80, 60, 15).transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    return files


def animated_gif():
    first = shapes(130, 100).quantize(32, dither=Image.Dither.NONE)
    later = [plasma(130, 100).quantize(32, dither=Image.Dither.NONE)]
    return encode(first, "GIF", save_all=True, append_images=later, duration=100, loop=0)


def palette_with_alpha():
    """A palette PNG whose tRNS chunk holds opaque, half and fully transparent entries."""
    image = shapes(100, 90).quantize(24, dither=Image.Dither.NONE)
    alphas = bytes([0, 128, 255, 60] + [255] * 20)
    return encode(image, "PNG", transparency=alphas)


def bad_pictures(good):
    """Name -> (file bytes, what is wrong with them, in the words of index.json)."""
    jpeg, png = good["landscape-420.jpg"], good["landscape.png"]
    side = 20000
    row = b"\0" + b"\0" * (side // 8)
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return {
        "empty.jpg": (b"", "empty"),
        "text.jpg": (b"This is a line of text that somebody named .jpg.\n", "not an image"),
        "truncated.jpg": (jpeg[: len(jpeg) // 2], "corrupt"),
        "truncated.png": (png[: len(png) // 2], "corrupt"),
        "header-only.png": (png[:33], "corrupt"),
        "flipped-bytes.png": (png[:200] + bytes(b ^ 0x5A for b in png[200:260]) + png[260:], "corrupt"),
        "bomb-20000x20000.png": (bomb, "too many pixels"),
    }


def write(folder: Path, files):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
