"""JSON and YAML as calicoctl prints them, so that what was printed can be applied again. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

Document = Mapping[str, Any]
# What only one cluster knows of a resource.
CLUSTER_METADATA = (
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "namespace",
)
# Numbers to a YAML 1.2 reader, texts to a YAML 1.1 writer: such a text has to be quoted.
NUMBER = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")


def to_json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def to_yaml(value: object) -> str:
    import yaml

    return yaml.dump(value, Dumper=_dumper(), default_flow_style=False, allow_unicode=True, width=10_000)


@lru_cache(maxsize=1)
def _dumper() -> Any:
    import yaml

    base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    dumper: Any = type("Dumper", (base,), {})
    dumper.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+.0123456789"))
    dumper.ignore_aliases = lambda self, data: True
    return dumper


def exported(document: Document) -> Document:
    """Without what only this cluster knows."""
    metadata = {name: value for name, value in document["metadata"].items() if name not in CLUSTER_METADATA}
    return {**document, "metadata": metadata}


def as_list(kind: str, documents: Sequence[Document], revision: int) -> Document:
    """What a list of one kind is printed as."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "items": list(documents),
        "kind": f"{kind}List",
        "metadata": {"resourceVersion": str(revision)},
    }


def as_mixed_list(documents: Sequence[Document]) -> Document:
    """What several resources that were asked for one by one are printed as."""
    return {"apiVersion": "v1", "items": list(documents), "kind": "List"}
