"""Read ``torch.save`` files as tensors and plain data: nothing in a file is imported or called."""

import pickle
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

_LEGACY_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9"  # how torch.save began its files before PyTorch 1.6
# Only for the sentence: nothing outside this file is ever called, whatever it is.
_RUN_CODE = {"os", "posix", "nt", "subprocess", "sys", "pty", "shutil", "socket", "runpy", "importlib", "ctypes"}
_RUN_CODE |= {f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("eval", "exec", "__import__")}


class Inert(dict[str, Any]):
    """Stands for an object of any class that is not plain data: its attributes and items."""


class _Global(str):
    """The dotted name of a class or function; nothing else of it is read."""


class _PlainUnpickler(pickle._Unpickler):  # its loop in C has no hooks for what is refused here
    """Pickle's stack machine without its power: no import, no call, and changes only to its own lists and dicts.

    Tensors, lists, tuples, dicts, strings and numbers come out as themselves, everything else as :class:`Inert`.
    """

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        dtype = getattr(torch, name, None) if module == "torch" else None
        if isinstance(dtype, torch.dtype):
            return dtype
        return torch.UntypedStorage if full == "torch.storage.UntypedStorage" else _Global(full)

    def _built(self, function: Any, arguments: Any) -> Any:
        """In place of ``function(*arguments)``."""
        if not isinstance(function, _Global):
            return Inert()
        if {str(function), function.partition(".")[0]} & _RUN_CODE:
            raise ValueError(f"it would call {function}, which is not run")
        match function.removeprefix("torch._utils."), arguments:
            case "_rebuild_tensor" | "_rebuild_tensor_v2", (storage, offset, size, stride, *_):
                return _tensor(storage, storage.dtype, offset, size, stride)
            case "_rebuild_tensor_v3", (storage, offset, size, stride, _, _, torch.dtype() as dtype, *_):
                return _tensor(storage, dtype, offset, size, stride)
            case "torch._tensor._rebuild_from_type_v2", (rebuild, _, tuple() as inner, _):
                return self._built(rebuild, inner)
            case "torch.nn.parameter.Parameter" | "_rebuild_parameter" | "_rebuild_parameter_with_state", (value, *_):
                return value if isinstance(value, Tensor) else Inert()
            case "collections.OrderedDict", (list() as pairs,):
                return _filled({}, (pair for pair in pairs if len(pair) == 2))
            case "collections.OrderedDict", _:
                return {}
        return Inert()

    def _instantiate(self, klass: Any, arguments: Any) -> None:
        self.append(self._built(klass, arguments))

    def _reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._built(self.stack[-1], arguments)

    def _new(self) -> None:
        self.stack.pop()
        self.stack[-1] = self._built(self.stack[-1], ())

    def _new_with_keywords(self) -> None:
        self.stack.pop()
        self._new()

    def _build(self) -> None:
        state = self.stack.pop()
        for part in state if isinstance(state, tuple) else (state,):  # attributes, or attributes and slots
            if isinstance(self.stack[-1], Inert) and isinstance(part, dict):
                self.stack[-1].update(part)

    def _append(self) -> None:
        self._extend([self.stack.pop()])

    def _extend(self, items: list[Any] | None = None) -> None:
        items = self.pop_mark() if items is None else items
        if type(self.stack[-1]) is list:
            self.stack[-1].extend(items)

    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _filled(self.stack[-1], [(key, value)])

    def _set_items(self) -> None:
        items = self.pop_mark()
        _filled(self.stack[-1], zip(items[::2], items[1::2], strict=True))

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append(_filled({}, zip(items[::2], items[1::2], strict=True)))

    def _set(self) -> None:
        self.pop_mark()
        self.append(Inert())

    def _persistent(self) -> None:
        kind = self.stack.pop()
        is_storage = isinstance(kind, tuple) and kind[:1] in (("storage",), (b"storage",))
        # Old files keep classes with their source.
        self.append(self.persistent_load(kind) if is_storage else _Global("module"))

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.NEWOBJ_EX[0]: _new_with_keywords,
        pickle.BUILD[0]: _build,
        pickle.APPEND[0]: _append,
        pickle.APPENDS[0]: _extend,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
        pickle.DICT[0]: _dict,
        pickle.FROZENSET[0]: _set,
        pickle.BINPERSID[0]: _persistent,
        pickle.ADDITEMS[0]: lambda self: self.pop_mark(),
    }
    for _code in (*pickle.EXT1, *pickle.EXT2, *pickle.EXT4, *pickle.BYTEARRAY8, *pickle.NEXT_BUFFER):
        del dispatch[_code]  # classes by number, and buffers of any claimed size


def _filled(target: Any, pairs: Iterable[Any]) -> Any:
    """``target`` with the pairs in it if it is a dict; only keys that are quick to hash."""
    if isinstance(target, dict):
        target.update((key, value) for key, value in pairs if isinstance(key, str | int | float | bytes | None))
    return target


def _tensor(storage: Any, dtype: torch.dtype, offset: int, size: Any, stride: Any) -> Tensor:
    assert isinstance(storage, torch.storage.TypedStorage)
    return torch.empty(0, dtype=dtype).set_(storage._untyped_storage, offset, tuple(size), tuple(stride))


def load_plain(path: Path, *, mapped: bool = True) -> Any:
    """What ``torch.save`` wrote to ``path``: tensors and plain data, and :class:`Inert` instead of everything else.

    A configuration, an optimizer or a trainer's state beside the weights does no harm, and nothing in the file is
    executed. With ``mapped``, tensors are read from the file when used, so the file must stay. Raises ValueError, whose
    text is only the reason, if it is damaged, not such a file, or would run code.
    """
    reader = types.SimpleNamespace(
        __name__=__name__, Unpickler=_PlainUnpickler, load=lambda file, **kinds: _PlainUnpickler(file, **kinds).load()
    )
    try:
        if tarfile.is_tarfile(path):
            raise ValueError("it is a tar archive: unpack it and give the file of weights in it")
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            _check_archive(path)
        # Not weights_only: torch's own unpickler refuses the whole file for one class that it does not know.
        return torch.load(path, map_location="cpu", weights_only=False, mmap=is_zip and mapped, pickle_module=reader)
    except Exception as error:  # the unpickler raises nearly every type on damaged files
        text = str(error).splitlines()[:1] if isinstance(error, RuntimeError | ValueError) else []
        is_sentence = text and not isinstance(error, RecursionError | UnicodeError)
        raise ValueError(text[0] if is_sentence else "it is damaged") from None


def is_torch_file(path: Path) -> bool:
    """Whether a file looks like ``torch.save`` wrote it, or like a tar archive, which may have its suffix."""
    with path.open("rb") as file:
        legacy = file.read(len(_LEGACY_TORCH)) == _LEGACY_TORCH
    return legacy or zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def _check_archive(path: Path) -> None:
    """Refuse programs, and members that may unpack to more than the file holds; torch.save never compresses."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is compressed, which torch.save never does")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members claim more bytes than it has")
    if any(Path(member.filename).name == "constants.pkl" for member in members):
        raise ValueError("it is a TorchScript program, which is not run: give a file of its state dict")
