"""mechvit: see what changed inside a vision transformer when it was fine-tuned.

The public names are loaded on first use, so that `import mechvit` and every `--help` stay fast; `__init__.pyi`
beside this file lists them.
"""

from importlib import metadata as _metadata

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
try:
    __version__ = _metadata.version("mechvit")
except _metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+unknown"
