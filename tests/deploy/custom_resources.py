"""Reads custom resources by the types that the Python packages of KEDA and KServe carry."""

import importlib
import sys
import types

from cloudcoil.models.keda.v1alpha1 import ScaledObject


def problem(document, kserve):
    """What a document says that its type does not know or will not have; None if nothing. `kserve` is the folder of
    that package."""
    kind = document["kind"]
    try:
        read = keda(document) if kind == ScaledObject.__name__ else kserve_types(kserve)(document)
    except (TypeError, ValueError, AttributeError) as error:
        return f"{kind}: {error}"
    return unread(document, read, kind)


def unread(wanted, read, at):
    """The first field of `wanted` that `read` has not, or has as something else. Defaults may be more."""
    if isinstance(wanted, dict) and isinstance(read, dict):
        parts = [(f"{at}.{name}", value, read.get(name)) for name, value in wanted.items()]
    elif isinstance(wanted, list) and isinstance(read, list) and len(wanted) == len(read):
        parts = [(f"{at}[{i}]", *pair) for i, pair in enumerate(zip(wanted, read))]
    else:
        return None if wanted == read else f"{at}: {wanted!r} is read as {read!r}"
    return next((found for where, *pair in parts if (found := unread(*pair, where))), None)


def keda(document):
    return ScaledObject.model_validate(document).model_dump(by_alias=True, exclude_none=True, mode="json")


def kserve_types(folder):
    """A reader by KServe's types. Its package is entered beside its __init__, which would start to be a server."""
    import kubernetes.client

    package = sys.modules.setdefault("kserve", types.ModuleType("kserve"))
    package.__path__ = [str(folder / "kserve")]
    for name, model in vars(importlib.import_module("kserve.models")).items():
        if name.startswith("V1"):
            setattr(kubernetes.client.models, name, model)
    client = kubernetes.client.ApiClient()

    def read(document):
        version = document["apiVersion"].split("/")[1]
        found = client._ApiClient__deserialize(document, version.capitalize() + document["kind"])
        return client.sanitize_for_serialization(found)

    return read
