"""What apply, create, replace and delete would do, without doing it, and whose flows it would touch.

Each document is checked against the datastore as if it were alone, but for what documents before it would create."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from msgspec import Struct, field

from weft.admin.api import Manifest, ResourceAPI, Verb
from weft.admin.rules import check_by_hand
from weft.ctl import diff_view, output
from weft.ctl.explain import cluster_of
from weft.ctl.explain_online import resources_of
from weft.ctl.messages import describe
from weft.ctl.sources import Document
from weft.model.base import Resource
from weft.model.codec import decode_stored, to_manifest
from weft.model.errors import AlreadyExistsError, NotFoundError, ValidationError, WeftError
from weft.model.keys import ResourceKey
from weft.policy.impact import FlowChange, flow_changes

EXIT_REFUSED = 1
EXIT_FLOWS_CHANGE = 3


class Outcome(Enum):
    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    REFUSED = "refused"
    PASSED_OVER = "passed over"


class Planned(Struct, frozen=True):
    """What would become of one resource; `after` None: nothing would be there. `reason`: why it is refused; `exists`:
    because it is there."""

    key: ResourceKey
    outcome: Outcome
    after: Mapping[str, Any] | None = None
    reason: str = ""
    exists: bool = False


class Plan(Struct):
    """What documents so far would have done."""

    planned: list[Planned] = field(default_factory=list)
    after: dict[ResourceKey, Mapping[str, Any] | None] = field(default_factory=dict)

    def add(self, one: Planned) -> None:
        self.planned.append(one)
        if one.outcome not in (Outcome.REFUSED, Outcome.PASSED_OVER):
            self.after[one.key] = one.after

    @property
    def refused(self) -> bool:
        return any(one.outcome is Outcome.REFUSED for one in self.planned)

    def would_create(self, kind: str, name: object) -> bool:
        return any(key.kind == kind and key.name == name and after for key, after in self.after.items())


async def write(
    arguments: Namespace, resources: ResourceAPI, documents: Sequence[Document], manifests: Sequence[Manifest]
) -> int:
    """As `weft.ctl.resources.write`, with the same order of documents."""
    plan, verb = Plan(), Verb(arguments.command)
    for document, manifest in zip(documents, manifests, strict=True):
        planned = await _write(resources, verb, document, manifest, plan)
        if planned.exists and getattr(arguments, "skip_exists", False):
            planned = Planned(planned.key, Outcome.PASSED_OVER)
        plan.add(planned)
    return await _report(arguments, resources, plan)


async def delete(arguments: Namespace, resources: ResourceAPI, wanted: Sequence[tuple[ResourceKey, bool]]) -> int:
    """`wanted`: what to delete, and whether it was named by an object of Kubernetes' own API."""
    plan = Plan()
    for key, converted in wanted:
        try:
            if not converted:
                check_by_hand(key.kind, key.name)
            await resources.delete(key.kind, key.namespace, key.name, dry_run=True)
        except NotFoundError as error:
            outcome = Outcome.PASSED_OVER if arguments.skip_not_exists else Outcome.REFUSED
            plan.add(Planned(key, outcome, reason=describe(error)))
        except WeftError as error:
            plan.add(Planned(key, Outcome.REFUSED, reason=describe(error)))
        else:
            plan.add(Planned(key, Outcome.DELETED))
    return await _report(arguments, resources, plan)


async def _write(resources: ResourceAPI, verb: Verb, document: Document, manifest: Manifest, plan: Plan) -> Planned:
    """What would become of the document after those of the plan."""
    resource = document.resource
    key = ResourceKey(resource.kind, resource.name, resource.namespace)
    before = plan.after[key] if key in plan.after else await _stored(resources, key)
    wanted: Mapping[str, Any] = to_manifest(resource)
    try:
        if not document.converted:
            check_by_hand(key.kind, key.name)
        if key in plan.after:
            _check_verb(verb, key, before)
        else:
            wanted = json.loads((await resources.write(verb, manifest, dry_run=True)).resource.json)
    except WeftError as error:
        if not _will_be_there(error, plan):
            return Planned(key, Outcome.REFUSED, reason=describe(error), exists=isinstance(error, AlreadyExistsError))
    if before is None:
        return Planned(key, Outcome.CREATED, wanted)
    return Planned(key, Outcome.UNCHANGED if _content(before) == _content(wanted) else Outcome.UPDATED, wanted)


def _check_verb(verb: Verb, key: ResourceKey, before: Mapping[str, Any] | None) -> None:
    """What an earlier document of the same resource makes of this one. Raises AlreadyExistsError, NotFoundError."""
    label = f"{key.kind}({key.namespace}/{key.name})" if key.namespace else f"{key.kind}({key.name})"
    if verb is Verb.CREATE and before is not None:
        raise AlreadyExistsError(label)
    if verb is Verb.REPLACE and before is None:
        raise NotFoundError(label)


def _will_be_there(error: WeftError, plan: Plan) -> bool:
    """Whether all that is wrong is that something does not exist yet which an earlier document creates."""
    if not isinstance(error, ValidationError):
        return False
    if error.field == "spec.tier":
        return plan.would_create("Tier", error.value)
    return error.field.startswith("spec.filters[") and plan.would_create("BGPFilter", error.value)


async def _stored(resources: ResourceAPI, key: ResourceKey) -> Mapping[str, Any] | None:
    try:
        found: Mapping[str, Any] = json.loads((await resources.get(key.kind, key.namespace, key.name)).json)
    except NotFoundError:
        return None
    return found


def _content(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a document says of a resource; the rest of the metadata is the datastore's."""
    metadata = document["metadata"]
    return {**document, "metadata": {name: metadata.get(name) or {} for name in ("labels", "annotations")}}


async def _report(arguments: Namespace, resources: ResourceAPI, plan: Plan) -> int:
    """Print the plan and, if asked for, the flows it would touch; the exit code."""
    changes = None
    if arguments.diff_flows and not plan.refused:
        changes = await _flow_changes(resources, plan)
    if arguments.output == "json":
        sys.stdout.write(output.to_json(_document(plan, changes)))
    else:
        sys.stdout.writelines(_lines(plan))
        if changes is not None:
            sys.stdout.write("\n" + diff_view.text(changes))
    for one in plan.planned:
        if one.outcome is Outcome.REFUSED:
            print(f"{one.key.kind} {_name(one.key)} would be refused: {one.reason}", file=sys.stderr)
    if plan.refused:
        if arguments.diff_flows:
            print("Flows are not compared: not everything can be written", file=sys.stderr)
        return EXIT_REFUSED
    return EXIT_FLOWS_CHANGE if changes and arguments.exit_code else 0


async def _flow_changes(resources: ResourceAPI, plan: Plan) -> list[FlowChange]:
    before = await resources_of(resources)
    after = {ResourceKey(one.kind, one.name, one.namespace): one for one in before}
    for key, document in plan.after.items():
        after.pop(key, None)
        if document is not None:
            value = decode_stored(key, json.dumps(document).encode())
            if isinstance(value, Resource):
                after[key] = value
    return flow_changes(cluster_of(before), cluster_of(after.values()))


def _name(key: ResourceKey) -> str:
    return f"{key.namespace}/{key.name}" if key.namespace else key.name


def _lines(plan: Plan) -> Iterator[str]:
    for one in plan.planned:
        if one.outcome is Outcome.UNCHANGED:
            yield f"{one.key.kind} {_name(one.key)} is unchanged\n"
        elif one.outcome is Outcome.PASSED_OVER:
            yield f"{one.key.kind} {_name(one.key)} would be passed over\n"
        elif one.outcome is not Outcome.REFUSED:
            yield f"{one.key.kind} {_name(one.key)} would be {one.outcome.value}\n"
    yield "Nothing was written (dry run)\n"


def _document(plan: Plan, changes: Sequence[FlowChange] | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "resources": [
            {
                "kind": one.key.kind,
                **({"namespace": one.key.namespace} if one.key.namespace else {}),
                "name": one.key.name,
                "change": one.outcome.value,
                **({"reason": one.reason} if one.reason else {}),
            }
            for one in plan.planned
        ]
    }
    if changes is not None:
        found["flows"] = [diff_view.document(one) for one in changes]
    return found
