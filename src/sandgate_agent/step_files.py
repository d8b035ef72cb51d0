"""The files of a workflow's step: its inputs and outputs as JSON, and a folder for what it leaves behind.

They are made and read by the child, with the powers of the code that it runs: whatever the code puts in their places
harms its own step only.
"""

import json
import os
import stat
from typing import Any, Dict, Mapping, NoReturn

from sandgate_agent import wire

_READ_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class StepFiles:
    """Two files and a folder for one attempt of a step, where temporary files are."""

    def __init__(self, path: str, inputs: str) -> None:
        """Make them, the folder at ``path``. ``inputs`` is the text of their file.

        Raises ``OSError`` where the disk is full.
        """
        self._artifacts = artifacts = path
        self._inputs = artifacts + "-inputs.json"
        self._outputs = artifacts + "-outputs.json"
        os.mkdir(artifacts, 0o700)
        data = inputs.encode()
        descriptor = os.open(self._inputs, _WRITE_FLAGS, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)

    def variables(self) -> Dict[str, str]:
        """What tells the code where they are."""
        return {
            "SANDGATE_INPUTS": self._inputs,
            "SANDGATE_OUTPUTS": self._outputs,
            "SANDGATE_ARTIFACTS": self._artifacts,
        }

    def read_outputs(self) -> Dict[str, Any]:
        """The object in the file of the outputs; an empty one when the code wrote none.

        Raises ``ValueError`` that says what is wrong with the file.
        """
        data = self._read()
        if not data:
            return {}
        try:
            value = json.loads(data.decode("utf-8"), parse_constant=_refuse)
        except UnicodeDecodeError:
            raise ValueError("the file $SANDGATE_OUTPUTS is not UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise ValueError("the file $SANDGATE_OUTPUTS is not JSON: {}".format(error)) from None
        if not isinstance(value, dict):
            raise ValueError(  # noqa: TRY004 - one kind of refusal
                "the file $SANDGATE_OUTPUTS has to hold an object, not {}".format(type(value).__name__)
            )
        return value

    def _read(self) -> bytes:
        if not _is_there(self._outputs):
            return b""
        try:
            descriptor = os.open(self._outputs, _READ_FLAGS)
        except OSError as error:
            raise ValueError("the file $SANDGATE_OUTPUTS cannot be read: {}".format(error.strerror)) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ValueError("$SANDGATE_OUTPUTS is not a regular file")
            data = b""
            while len(data) <= wire.OUTPUTS_LIMIT and status.st_size <= wire.OUTPUTS_LIMIT:
                part = os.read(descriptor, wire.OUTPUTS_LIMIT + 1 - len(data))
                if not part:
                    return data
                data += part
        finally:
            os.close(descriptor)
        raise ValueError("the file $SANDGATE_OUTPUTS is longer than {} bytes".format(wire.OUTPUTS_LIMIT))

    def close(self, is_last: bool) -> bytes:
        """Remove what is not to be kept, unless all ends now; the byte that says whether something is left.

        Only an empty folder can be removed.
        """
        for path in () if is_last else (self._inputs, self._outputs):
            try:
                if _is_there(path):
                    os.unlink(path)
            except OSError:
                continue
        try:
            os.rmdir(self._artifacts)
        except FileNotFoundError:
            pass
        except OSError:
            return wire.LEFT_FILES
        return wire.LEFT_NOTHING


def lay_out(folder: str, options: Mapping[str, Any]) -> StepFiles:
    """Make the files of a step in a folder, as it is asked for, and tell the code where they are by its variables.

    Raises ``OSError``.
    """
    files = StepFiles(folder + "/" + options["folder"], options["inputs"])
    os.environ.update({**options["env"], **files.variables()})
    return files


def rehearse() -> None:
    """In the zygote, once: what every step does, so that it finds the interpreter warmed up for it."""
    os.environ.update(json.loads('{"SANDGATE_STEP": "x"}'))
    del os.environ["SANDGATE_STEP"]
    json.dumps({"x": [1, "y", None]}, allow_nan=False)


def _is_there(path: str) -> bool:
    """Whether something has this name; asking costs less than an exception."""
    return os.access(path, os.F_OK, follow_symlinks=False)


def _refuse(name: str) -> NoReturn:
    raise ValueError("{} is not a number".format(name))
