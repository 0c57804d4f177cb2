"""A folder that runs alone: an exported file, a detector for it, and what both need."""

from __future__ import annotations

from pathlib import Path

from utils.backends import standalone_detector
from utils.files.writing import fill
from utils.timing import version

ENGINES = {  # by format, the package and the oldest version of it that reads the file
    "onnx": ("onnxruntime", "1.17"),
    "openvino": ("openvino", "2024.0"),
    "ncnn": ("ncnn", "1.0.20240102"),
}
USE = """# {name}: finds objects with Python, OpenCV and {engine} alone

```
python -m venv venv
venv/bin/pip install -r requirements.txt          # Windows: venv\\Scripts\\pip
venv/bin/python detector.py photo.jpg folder video.mp4
venv/bin/python detector.py 0 --output ""         # the first camera; only prints
```

Each picture costs a line with its objects: class, score, and left, top, right, bottom in pixels.
Annotated pictures go into the folder `detected`. `--conf_thres` and `--nms_thres` change what
counts; `--show` opens a window (it needs `opencv-python` in place of `opencv-python-headless`).

```python
import cv2
from detector import Detector

detector = Detector()  # the file beside it
for name, score, (left, top, right, bottom) in detector(cv2.imread("photo.jpg")):
    print(name, score)
```

The rest of this page is for who writes a detector of their own.

"""


def write(folder: Path, file_format: str, file: str, page: str) -> list[Path]:
    """Write what goes beside an exported file; the files.

    Args:
        folder: where they go.
        file_format: one of `ENGINES`.
        file: the name of the exported file.
        page: its README.
    """
    engine, oldest = ENGINES[file_format]
    requirements = (
        f"{engine}>={oldest}  # compared with torch in version {version(engine)}\n"
        "opencv-python-headless>=4.8\nnumpy>=1.24\n"
    )
    template = Path(standalone_detector.__file__)
    contents = {
        "README.md": USE.format(name=file, engine=engine) + page.partition("\n\n")[2],
        "requirements.txt": requirements,
        "detector.py": template.read_text(encoding="utf-8"),
    }
    for name, content in contents.items():
        fill(folder / name, content)
    return [folder / name for name in contents]
