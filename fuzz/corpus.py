"""Fills `corpus/preprocess`: small files of every format, in kinds that are rare.

    crates/embedder/tests/golden/venv/bin/python fuzz/corpus.py
"""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "crates/embedder/tests/golden"
FOLDER = HERE / "corpus/preprocess"
MAX_BYTES = 3000

sys.path.insert(0, str(GOLDEN))

import numpy as np
from PIL import Image

from pictures import encode, landscape, shapes, with_alpha


def odd_files():
    scene, flat = landscape(21, 17, 3), shapes(20, 14)
    grey, inks = scene.convert("L"), flat.convert("CMYK")
    deep = Image.fromarray((np.asarray(grey).astype(np.uint16) << 8) + 77)
    later = [flat.rotate(angle) for angle in (90, 180)]
    files = {
        "baseline-411.jpg": encode(scene, "JPEG", quality=70, subsampling="4:1:1"),
        "progressive.jpg": encode(scene, "JPEG", quality=70, progressive=True),
        "restarts.jpg": encode(scene, "JPEG", quality=60, restart_marker_blocks=1),
        "grey.jpg": encode(grey, "JPEG", quality=60),
        "inks.jpg": encode(inks, "JPEG", quality=60),
        "comment.jpg": encode(flat, "JPEG", quality=50, comment=b"x" * 300),
        "one-bit.png": encode(grey.convert("1"), "PNG"),
        "deep.png": encode(deep, "PNG"),
        "palette.png": encode(flat.quantize(5), "PNG", bits=4),
        "animated.png": encode(flat, "PNG", save_all=True, append_images=later),
        "alpha.webp": encode(with_alpha(flat), "WEBP", quality=50),
        "animated.webp": encode(flat, "WEBP", save_all=True, append_images=later, lossless=True),
        "interlaced.gif": encode(flat.quantize(8), "GIF", interlace=1),
        "transparent.gif": encode(with_alpha(flat), "GIF"),
        "one-bit.bmp": encode(grey.convert("1"), "BMP"),
        "palette.bmp": encode(flat.quantize(16), "BMP"),
        "alpha.bmp": encode(with_alpha(flat), "BMP"),
        "deep.tiff": encode(deep, "TIFF", compression="tiff_adobe_deflate"),
        "inks.tiff": encode(inks, "TIFF", compression="packbits"),
        "float.tiff": encode(grey.convert("F"), "TIFF"),
        "fax.tiff": encode(grey.convert("1"), "TIFF", compression="group4"),
        "jpeg.tiff": encode(scene, "TIFF", compression="jpeg"),
        "bilevel.tiff": encode(grey.convert("1"), "TIFF"),
        "alpha.avif": encode(with_alpha(flat), "AVIF", quality=40),
        "animated.avif": encode(flat, "AVIF", save_all=True, append_images=later, quality=40),
    }
    files["heic-in-name"] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    files["avif-in-name"] = files["alpha.avif"][:60]
    files["png-header"] = files["one-bit.png"][:33]
    files["half.jpg"] = files["progressive.jpg"][: len(files["progressive.jpg"]) // 2]
    return files


def golden_files():
    files = sorted([*(GOLDEN / "images").iterdir(), *(GOLDEN / "formats").iterdir(), *(GOLDEN / "bad-images").iterdir()])
    wanted = [file for file in files if ".expected" not in file.name and 0 < file.stat().st_size <= MAX_BYTES]
    return {f"golden-{file.name}": file.read_bytes() for file in wanted}


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name, data in {**golden_files(), **odd_files()}.items():
        (FOLDER / name).write_bytes(data)


if __name__ == "__main__":
    main()
