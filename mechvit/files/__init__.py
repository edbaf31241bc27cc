"""The only place of the package that writes, replaces, locks and removes files and folders (names in
`__init__.pyi`)."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
