"""Manifests: YAML or JSON that people write, to resources and back.

Reading is strict: an unknown field, a wrong type or a contradiction is refused with its file, document,
field, value and what would be right. What a server adds (managedFields, status, null timestamps) is
tolerated, so that what was printed can be applied again."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Protocol, TypeVar

import msgspec
import yaml

from weft.model import kinds
from weft.model.base import API_VERSION, Resource
from weft.model.defaults import DEFAULT_NAMESPACE, with_defaults
from weft.model.errors import FieldError, ValidationError
from weft.model.resources import CLASSES
from weft.model.stored import as_validation_error, to_builtins
from weft.model.validation import problems
from weft.model.wire import Shape, dec_hook, shape_of, with_text

_SERVER_METADATA: Final = frozenset({"managedFields", "selfLink", "generateName", "clusterName"})
_MOST_NAMED: Final = 20
"""Fields to name in a complaint; FelixConfiguration has 170."""
_SIMILAR_KIND: Final = 0.75
"""Of 1; a Service is no misspelt ServiceAccount."""
_STEP: Final = re.compile(r"([^.\[\]]+)|\[(\d+)\]")
_NO_READERS: Final[Mapping[str, Any]] = MappingProxyType({})

S = TypeVar("S", bound=msgspec.Struct)


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it: no timestamps, no base-60 numbers ("80:30" is a port range)."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE|yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)$", "tTfFyYnNoO"),
    ("int", r"^(?:[-+]?(?:0|[1-9][0-9]*)|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("merge", r"^(?:<<)$", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


class _KeyError(yaml.YAMLError):
    """A mapping with the same key twice, or with one that is no text."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[str, Any]:
    seen: set[str] = set()
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _KeyError(f"a key that is no text on line {key.start_mark.line + 1}")
        if key.tag != "tag:yaml.org,2002:merge":
            if key.value in seen:
                raise _KeyError(f"{key.value!r} twice, the second time on line {key.start_mark.line + 1}")
            seen.add(key.value)
    loader.flatten_mapping(node)
    return {str(loader.construct_object(key)): loader.construct_object(value, deep=True) for key, value in node.value}


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


class Place(msgspec.Struct, frozen=True):
    """Where a resource is written: its file, its document there, and the way to it inside, such as `items[3].`."""

    source: str
    document: int
    inside: str = ""

    def wrong(self, field: str, value: object, expected: str) -> ValidationError:
        return ValidationError(self.source, self.document, self.inside + field, value, expected)

    def item(self, index: int) -> Place:
        return Place(self.source, self.document, f"{self.inside}items[{index}].")


class Reader(Protocol):
    """What reads the resources of another API than ours: `tree` is one resource, `namespace` for what names none.

    It may become no resource, or several. Raises ValidationError, which `place` makes."""

    def __call__(self, tree: dict[str, Any], place: Place, namespace: str) -> Iterable[Resource]: ...


Readers = Mapping[str, Reader]
"""By apiVersion."""


def decode_manifests(
    text: str | bytes, source: str, namespace: str = DEFAULT_NAMESPACE, readers: Readers = _NO_READERS
) -> list[Resource]:
    """All resources of a text with any number of documents, with what Calico's client fills in.

    `namespace` is for namespaced resources that name none. Raises ValidationError at the first mistake."""
    resources: list[Resource] = []
    whole = _as_json(text)
    documents = yaml.load_all(text, Loader=_Loader) if whole is None else (whole,)
    index = -1
    try:
        for index, tree in enumerate(documents):
            if tree is not None:
                resources.extend(_decode_document(tree, Place(source, index), namespace, readers))
    except yaml.YAMLError as error:
        raise ValidationError(source, index + 1, "$", None, f"YAML or JSON ({_one_line(error)})") from None
    except RecursionError:
        raise ValidationError(source, index + 1, "$", None, "fewer brackets inside each other") from None
    return resources


def _as_json(text: str | bytes) -> dict[str, Any] | None:
    """One JSON object, far sooner than YAML's reader would have it; None for whatever is not plainly that, which YAML's
    reader then reads or complains of."""
    if text[:1] not in ("{", b"{"):
        return None
    try:
        tree = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(name)


def _one_line(error: yaml.YAMLError) -> str:
    return " ".join(str(error).split())


def _decode_document(tree: Any, place: Place, namespace: str, readers: Readers) -> Iterator[Resource]:
    if not isinstance(tree, dict):
        raise place.wrong("$", tree, "a resource, with apiVersion, kind, metadata and spec")
    if not _is_list(tree, readers):
        yield from _decode_any(tree, place, namespace, readers)
        return
    kind, items = tree["kind"], tree["items"] or []
    if not isinstance(items, list):
        raise place.wrong("items", items, "a list of resources")
    for index, item in enumerate(items):
        if isinstance(item, dict) and kind != "List":
            item = {"kind": kind.removesuffix("List"), "apiVersion": tree.get("apiVersion"), **item}
        yield from _decode_any(item, place.item(index), namespace, readers)


def _is_list(tree: dict[str, Any], readers: Readers) -> bool:
    kind, version = tree.get("kind"), tree.get("apiVersion")
    if not isinstance(kind, str) or "items" not in tree:
        return False
    if kind == "List" or kind.removesuffix("List") in CLASSES:
        return True
    return kind.endswith("List") and isinstance(version, str) and version in readers


def _decode_any(tree: Any, place: Place, namespace: str, readers: Readers) -> Iterator[Resource]:
    if not isinstance(tree, dict):
        raise ValidationError(place.source, place.document, place.inside.rstrip("."), tree, "a resource")
    version = tree.get("apiVersion")
    if version == API_VERSION:
        yield _decode_resource(tree, place, namespace)
    elif isinstance(version, str) and version in readers:
        yield from readers[version](tree, place, namespace)
    else:
        expected = f"one of {', '.join((API_VERSION, *readers))}" if readers else API_VERSION
        raise place.wrong("apiVersion", version, expected)


def _decode_resource(tree: dict[str, Any], place: Place, namespace: str) -> Resource:
    cls = _class_of(tree, place)
    body = {name: item for name, item in tree.items() if name not in ("apiVersion", "kind", "status")}
    read = read_value(cls, body, place, as_text=True)
    try:
        resource = with_defaults(read, namespace)
    except FieldError as error:
        raise place.wrong(error.field, error.value, error.expected) from None
    for problem in problems(resource):
        raise place.wrong(problem.field, problem.value, problem.expected)
    return resource


def read_value(cls: type[S], tree: dict[str, Any], place: Place, *, as_text: bool = False) -> S:
    """A struct from a tree with `metadata`, strictly: unknown fields and wrong types are refused, what a server adds to
    metadata and null fields are not there. `as_text`: numbers and booleans are text where text belongs."""
    if isinstance(tree.get("metadata"), dict):
        metadata = {name: item for name, item in tree["metadata"].items() if name not in _SERVER_METADATA}
        tree = {**tree, "metadata": metadata}
    shape = shape_of(cls)
    tree = _without_nulls(tree, shape)
    try:
        _refuse_unknown(tree, shape, "")
        return msgspec.convert(with_text(tree, cls) if as_text else tree, cls, dec_hook=dec_hook)
    except msgspec.ValidationError as error:
        found = as_validation_error(error, cls, place.source, place.document)
        field = _with_key(tree, found.field)
        value = found.value if found.value is not None else _value_at(tree, field)
        raise place.wrong(field, value, found.expected) from None
    except ValidationError as error:
        raise place.wrong(error.field, error.value, error.expected) from None


def _class_of(tree: dict[str, Any], place: Place) -> type[Resource]:
    kind = tree.get("kind")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise unknown_kind(kind, list(kinds.KINDS), place)
    return CLASSES[kind]


def unknown_kind(kind: object, known: list[str], place: Place) -> ValidationError:
    """The complaint about a kind that is none of those known."""
    near = _nearest(kind, known, _SIMILAR_KIND) if isinstance(kind, str) else None
    return place.wrong("kind", kind, f"did you mean {near}?" if near else f"one of {', '.join(known)}")


def _without_nulls(tree: Any, shape: Shape | None) -> Any:
    """null for a field is how Go prints what is not set; in a map, such as labels, it is empty text, as Go reads it."""
    if isinstance(tree, list):
        return [_without_nulls(item, shape) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if shape is None:
        return {name: "" if item is None else item for name, item in tree.items()}
    return {name: _without_nulls(item, shape.fields.get(name)) for name, item in tree.items() if item is not None}


def _refuse_unknown(tree: Any, shape: Shape | None, where: str) -> None:
    if shape is None:
        return
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            _refuse_unknown(item, shape, f"{where}[{index}]")
    if isinstance(tree, dict):
        for name, item in tree.items():
            field = f"{where}.{name}" if where else name
            if name not in shape.fields:
                raise ValidationError("", 0, field, item, _known_fields(name, shape))
            _refuse_unknown(item, shape.fields[name], field)


def _known_fields(name: str, shape: Shape) -> str:
    near = _nearest(name, list(shape.fields))
    if near:
        return f"a field that exists here: did you mean {near}?"
    if len(shape.fields) > _MOST_NAMED:
        return f"one of the {len(shape.fields)} fields that Calico 3.32 has here"
    return f"a field that exists here: one of {', '.join(sorted(shape.fields))}"


def _nearest(word: str, known: list[str], similarity: float = 0.6) -> str | None:
    lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), lower, n=1, cutoff=similarity)
    return lower[near[0]] if near else None


def _with_key(tree: Any, field: str) -> str:
    """msgspec's `labels[...]` with the label instead: the first that is no text."""
    path, dots, _ = field.partition("[...]")
    found = _value_at(tree, path) if dots else None
    wrong = [name for name, item in found.items() if not isinstance(item, str)] if isinstance(found, dict) else []
    return f"{path}.{wrong[0]}" if wrong else field


def _value_at(tree: Any, field: str) -> Any:
    """What the tree has at a path such as `spec.ingress[0].action`."""
    for name, index in _STEP.findall(field):
        try:
            tree = tree[name] if name else tree[int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return tree


def to_manifest(resource: Resource) -> dict[str, Any]:
    """The resource as YAML or JSON prints it: apiVersion and kind first."""
    return {"apiVersion": API_VERSION, "kind": resource.kind, **to_builtins(resource)}
