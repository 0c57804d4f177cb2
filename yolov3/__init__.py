"""A trained network in three lines of Python.

    import yolov3

    detector = yolov3.load("weights/NAME/best.pt")
    result = detector("photo.jpg")  # or an array, a PIL picture, a list of any of these
    print(result.boxes, result.scores, [result.names[label] for label in result.labels])

Everything that goes in and comes out is NumPy. From the project's folder this imports as it is;
`pip install .` puts it, with all that it needs, below the one name `yolov3`, beside any `utils` or
`models` of your own.
"""

from utils.errors import InputError
from utils.version import VERSION as __version__
from yolov3.api import Detector, Result, load

__all__ = ["Detector", "InputError", "Result", "__version__", "load"]
