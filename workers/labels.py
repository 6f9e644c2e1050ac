"""A worker's labels, which studies may ask for: those given, and the kind of its GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pydantic import TypeAdapter, ValidationError

from studies.errors import FieldError, InvalidInput
from studies.labels import LabelText
from studies.protocol import Device

GPU = "gpu"
"""The label that a worker gives itself, if it was not given."""

BACKEND = "backend"
"""No label: a study asks for a backend in another way, and the worker announces its own."""

_LABEL_TEXT: TypeAdapter[str] = TypeAdapter(LabelText)
_FORM = re.compile(
    r"nvidia|tesla|quadro|geforce|gpu|sxm\d*|pcie|nvl|\d+gb|hbm\w*|generation|server|workstation|edition"
)
"""Words of a product's name that say who makes it, in which form and with how much memory."""


def read_labels(given: Iterable[str]) -> dict[str, str]:
    """Labels from texts like `gpu=h200`. Raises InvalidInput for what is none, and for a key that comes twice."""
    labels: dict[str, str] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise _refused(text, "must be KEY=VALUE, such as gpu=h200")
        for part, name in ((key, "key"), (value, "value")):
            try:
                _LABEL_TEXT.validate_python(part)
            except ValidationError:
                raise _refused(text, f"the {name} must be 1 to 63 letters, digits, '.', '_' or '-'") from None
        if key == BACKEND:
            raise _refused(text, "the backend is no label: the worker says itself which one it has")
        if labels.setdefault(key, value) != value:
            raise _refused(text, f"{key} is already {labels[key]!r}: a label has one value")
    return labels


def with_gpu(labels: dict[str, str], devices: Sequence[Device]) -> dict[str, str]:
    """The labels, and `gpu` if it is not among them: the short name of the GPUs, where they share one."""
    names = {short_name(device.name) for device in devices}
    if GPU in labels or len(names) != 1 or names == {""}:
        return labels
    return {**labels, GPU: names.pop()}


def short_name(product: str) -> str:
    """A GPU's name without maker, form and memory: "NVIDIA A100-SXM4-80GB" is "a100". Empty if nothing is left.

    Products of one short name may differ in memory; a label of one's own tells them apart.
    """
    words = [word for word in re.split(r"[\s/-]+", product.lower()) if not _FORM.fullmatch(word)]
    kept = [re.sub(r"[^a-z0-9._]", "", word) for word in words]
    return "-".join(word for word in kept if word)[:63].strip("-")


def _refused(text: str, message: str) -> InvalidInput:
    return InvalidInput([FieldError("--label", text, message)])
