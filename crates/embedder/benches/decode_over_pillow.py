"""The other side of `decode_over_pillow`: the same steps on the same files by Pillow.

Takes a folder and the edge of the model's picture, then times one pass over the folder's files for each line it gets, and answers
with the seconds that it took.
"""

import io
import sys
import time
from pathlib import Path

from PIL import Image


def preprocess(data, edge):
    """JPEG, RGB, bicubic resize of the short edge, centre crop, bytes: what a model takes."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    width, height = image.size
    short = min(width, height)
    image = image.resize((edge * width // short, edge * height // short), Image.Resampling.BICUBIC)
    left, top = (image.width - edge) // 2, (image.height - edge) // 2
    return image.crop((left, top, left + edge, top + edge)).tobytes()


def main():
    folder, edge = sys.argv[1], int(sys.argv[2])
    files = [path.read_bytes() for path in sorted(Path(folder).iterdir())]
    assert all(len(preprocess(data, edge)) == 3 * edge * edge for data in files)
    print(Image.__version__, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        for data in files:
            preprocess(data, edge)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main()
