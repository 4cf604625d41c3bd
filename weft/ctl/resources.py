"""get, apply, create, replace and delete.

Every document of every file is read and checked before the first is written; after that each is written on its own
and one failure does not stop the others."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from weft.admin.api import AgentUnavailableError, ChangeType, Manifest, ResourceAPI, StoredResource, Verb, Written
from weft.ctl import listing, output
from weft.ctl.backend import connect
from weft.ctl.config import Target
from weft.ctl.errors import CommandError, UsageError
from weft.ctl.messages import describe, summary
from weft.ctl.sources import Document, read_documents
from weft.model.defaults import DEFAULT_NAMESPACE
from weft.model.errors import AlreadyExistsError, DatastoreUnavailableError, NotFoundError, WeftError
from weft.model.kinds import KINDS, find

# Whether a pool overlaps is checked against those already there.
ONE_BY_ONE = ("IPPool",)
MOST_AT_ONCE = 32
FORMATS = ("ps", "wide", "yaml", "json", "name")


class Wanted(Struct, frozen=True):
    """What get and delete are about; an empty name means all of the kind, an empty namespace every one.

    `converted`: it was named by an object of Kubernetes' own API."""

    kind: str
    namespace: str
    name: str
    converted: bool = False


async def write(arguments: Namespace, target: Target) -> int:
    check_dry_run(arguments)
    documents = _documents(arguments)
    if not documents:
        print("No resources specified")
        return 0
    manifests = [_manifest(document, arguments.namespace) for document in documents]
    if arguments.dry_run:
        from weft.ctl import dry_run

        async with connect(target) as backend:
            return await dry_run.write(arguments, backend.resources, documents, manifests)
    verb = Verb(arguments.command)
    skip_exists = getattr(arguments, "skip_exists", False)
    tally = Tally(arguments.command, [document.resource.kind for document in documents])
    async with connect(target) as backend:
        for batch in batches(documents):
            outcomes = await asyncio.gather(
                *(_write(backend.resources, verb, documents[index], manifests[index]) for index in batch)
            )
            for outcome in outcomes:
                if isinstance(outcome, Written):
                    for warning in outcome.warnings:
                        print(f"Warning: {warning}", file=sys.stderr)
                    tally.done += 1
                elif skip_exists and isinstance(outcome, AlreadyExistsError):
                    tally.done += 1
                else:
                    tally.fail(outcome)
            if tally.hopeless:
                break
    return tally.report()


def check_dry_run(arguments: Namespace) -> None:
    """Raises UsageError for what only a dry run has."""
    if not arguments.dry_run and (arguments.diff_flows or arguments.exit_code or arguments.output != "ps"):
        raise UsageError("--diff-flows, --exit-code and -o are for --dry-run")
    if arguments.exit_code and not arguments.diff_flows:
        raise UsageError("--exit-code is for --diff-flows")


class Tally(Struct):
    """What became of the resources of one command."""

    verb: str
    kinds: Sequence[str]
    done: int = 0
    failures: list[str] = field(default_factory=list)
    hopeless: bool = False

    def fail(self, error: WeftError) -> None:
        self.failures.append(describe(error))
        # Whoever does not answer now will not answer for the next one; each would take its time to say so.
        self.hopeless = self.hopeless or isinstance(error, DatastoreUnavailableError | AgentUnavailableError)

    def report(self) -> int:
        """Print it; the exit code."""
        text = summary(self.verb, self.kinds, self.done, self.failures)
        print(text, file=sys.stderr if self.failures else sys.stdout)
        return 1 if self.failures else 0


async def _write(resources: ResourceAPI, verb: Verb, document: Document, manifest: Manifest) -> Written | WeftError:
    try:
        if not document.converted:
            _check_by_hand(document.resource.kind, document.resource.name)
        return await resources.write(verb, manifest)
    except WeftError as error:
        return error


def _check_by_hand(kind: str, name: str) -> None:
    from weft.admin.rules import check_by_hand

    check_by_hand(kind, name)


def batches(documents: Sequence[Document]) -> Iterator[range]:
    """Runs of documents that may be written at the same time: different resources of one kind that do not depend on
    one another, as pools do. What comes later may depend on what came before (a policy on its tier)."""
    start = 0
    names: set[tuple[str, str]] = set()
    for index, document in enumerate(documents):
        resource = document.resource
        name = (resource.namespace, resource.name)
        if index > start and (
            resource.kind in ONE_BY_ONE
            or resource.kind != documents[start].resource.kind
            or name in names
            or index - start == MOST_AT_ONCE
        ):
            yield range(start, index)
            start, names = index, set()
        names.add(name)
    if documents:
        yield range(start, len(documents))


def _manifest(document: Document, namespace: str) -> Manifest:
    from weft.model.codec import to_manifest

    _check_namespace(document, namespace)
    text = json.dumps(to_manifest(document.resource)).encode()
    return Manifest(text, document.source, document.position, namespace)


def _documents(arguments: Namespace) -> list[Document]:
    namespace = arguments.namespace or DEFAULT_NAMESPACE
    return read_documents(arguments.filename, namespace, arguments.recursive, arguments.skip_empty)


def _check_namespace(document: Document, asked: str) -> None:
    """Raises CommandError where the document's namespace is not the one asked for."""
    resource = document.resource
    where = f"{document.source}, document {document.position + 1}"
    if asked and not KINDS[resource.kind].namespaced:
        raise CommandError(f"{where}: {resource.kind} is not namespaced")
    if asked and resource.namespace != asked:
        raise CommandError(
            f"{where}: resource namespace does not match client namespace. {resource.namespace} != {asked}"
        )


async def delete(arguments: Namespace, target: Target) -> int:
    check_dry_run(arguments)
    wanted = _wanted(arguments)
    if any(not one.name for one in wanted):
        raise UsageError("name what to delete, or give a file with -f")
    if arguments.dry_run:
        from weft.ctl import dry_run
        from weft.model.keys import ResourceKey

        keys = [(ResourceKey(one.kind, one.name, one.namespace), one.converted) for one in wanted]
        async with connect(target) as backend:
            return await dry_run.delete(arguments, backend.resources, keys)
    tally = Tally("delete", [one.kind for one in wanted])
    async with connect(target) as backend:
        for one in wanted:
            try:
                if not one.converted:
                    _check_by_hand(one.kind, one.name)
                await backend.resources.delete(one.kind, one.namespace, one.name)
            except WeftError as error:
                if not (arguments.skip_not_exists and isinstance(error, NotFoundError)):
                    tally.fail(error)
                    if tally.hopeless:
                        break
                    continue
            tally.done += 1
    return tally.report()


def _wanted(arguments: Namespace) -> list[Wanted]:
    """From a file or from kind and names. Raises UsageError, CommandError, ValidationError."""
    if bool(arguments.filename) == bool(arguments.kind):
        raise UsageError("give either a kind or a file with -f")
    if arguments.filename:
        documents = _documents(arguments)
        for document in documents:
            _check_namespace(document, arguments.namespace)
        return [
            Wanted(one.resource.kind, one.resource.namespace, one.resource.name, one.converted) for one in documents
        ]
    kind = find(arguments.kind)
    if kind is None:
        raise UsageError(f"resource type '{arguments.kind}' is not supported")
    every = getattr(arguments, "all_namespaces", False)
    if every and arguments.namespace:
        raise UsageError("cannot use both --namespace and --all-namespaces flags at the same time")
    if not kind.namespaced and (every or arguments.namespace):
        raise UsageError(f"{kind.name} is not namespaced")
    if every and arguments.names:
        raise UsageError("cannot use --all-namespaces flag for getting a single resource")
    if "" in arguments.names:
        raise UsageError("resource name may not be empty")
    namespace = "" if every or not kind.namespaced else arguments.namespace or DEFAULT_NAMESPACE
    return [Wanted(kind.name, namespace, name) for name in arguments.names or ("",)]


async def get(arguments: Namespace, target: Target) -> int:
    wanted = _wanted(arguments)
    headings = _headings(arguments.output)
    async with connect(target) as backend:
        if arguments.watch:
            if len(wanted) != 1:
                raise UsageError("watch one kind or one resource at a time")
            await _watch(backend.resources, wanted[0], arguments, headings)
            return 0
        found: list[Any] = []
        kinds: list[str] = []
        revision = 0
        failures = []
        for one in wanted:
            try:
                if one.name:
                    items: Sequence[StoredResource] = [await backend.resources.get(one.kind, one.namespace, one.name)]
                else:
                    answer = await backend.resources.list(one.kind, one.namespace)
                    items, revision = answer.items, answer.revision
            except WeftError as error:
                failures.append(describe(error))
                continue
            found.extend(json.loads(item.json) for item in items)
            kinds.append(one.kind)
        if arguments.export and all(one.name for one in wanted):
            found = [output.exported(document) for document in found]
        if found or kinds:
            text = _render(arguments, wanted, found, revision, headings)
            text = text.replace(listing.CLUSTER_AS, f"({await _cluster_as(backend.resources, text)})")
            sys.stdout.write(text)
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


def _headings(format_: str) -> tuple[str, ...]:
    """Of custom-columns; empty for every other format. Raises UsageError for an unknown format."""
    name, _, value = format_.partition("=")
    if name == "custom-columns":
        if not value:
            raise UsageError("need to specify at least one column")
        return tuple(value.split(","))
    if format_ not in FORMATS:
        raise UsageError(f"unrecognized output format '{format_}', expected {', '.join(FORMATS)} or custom-columns=...")
    return ()


async def _cluster_as(resources: ResourceAPI, text: str) -> str:
    """The AS number of nodes that have none of their own; asked only where it is shown."""
    if listing.CLUSTER_AS not in text:
        return ""
    try:
        document = json.loads((await resources.get("BGPConfiguration", "", "default")).json)
    except WeftError:
        return str(listing.DEFAULT_AS)
    return str(document.get("spec", {}).get("asNumber") or listing.DEFAULT_AS)


def _render(
    arguments: Namespace,
    wanted: Sequence[Wanted],
    found: Sequence[Mapping[str, Any]],
    revision: int,
    headings: Sequence[str],
) -> str:
    match arguments.output:
        case "yaml":
            return output.to_yaml(_tree(wanted, found, revision))
        case "json":
            return output.to_json(_tree(wanted, found, revision))
        case "name":
            return "".join(f"{one['kind'].lower()}/{one['metadata']['name']}\n" for one in found)
        case _:
            return _tables(arguments, wanted, found, headings)


def _tree(wanted: Sequence[Wanted], found: Sequence[Mapping[str, Any]], revision: int) -> Mapping[str, Any]:
    if len(wanted) == 1 and wanted[0].name:
        return found[0]
    if len(wanted) == 1:
        return output.as_list(wanted[0].kind, found, revision)
    return output.as_mixed_list(found)


def _tables(
    arguments: Namespace, wanted: Sequence[Wanted], found: Sequence[Mapping[str, Any]], headings: Sequence[str]
) -> str:
    """A table for each kind, each with an empty line after it."""
    with_namespace = bool(getattr(arguments, "all_namespaces", False) or arguments.namespace)
    tables = []
    for kind in dict.fromkeys(one.kind for one in wanted):
        of_kind = [document for document in found if document["kind"] == kind]
        columns = headings or listing.headings_of(kind, wide=arguments.output == "wide")
        try:
            tables.append(listing.render(kind, of_kind, columns, with_namespace and KINDS[kind].namespaced))
        except ValueError as error:
            raise UsageError(str(error)) from error
    return "".join(f"{table}\n" for table in tables)


async def _watch(resources: ResourceAPI, one: Wanted, arguments: Namespace, headings: Sequence[str]) -> None:
    """Print what is there, then each change, until interrupted."""
    show = _change_printer(arguments, one, headings)
    async for change in resources.watch(one.kind, one.namespace, one.name):
        if change.resource is not None:
            show(change.type, change.resource)


def _change_printer(
    arguments: Namespace, one: Wanted, headings: Sequence[str]
) -> Callable[[ChangeType, StoredResource], None]:
    columns = headings or listing.headings_of(one.kind, wide=arguments.output == "wide")
    first = True

    def show(type_: ChangeType, resource: StoredResource) -> None:
        nonlocal first
        metadata = {"name": resource.name} | ({"namespace": resource.namespace} if resource.namespace else {})
        document = json.loads(resource.json or json.dumps({"kind": resource.kind, "metadata": metadata}))
        match arguments.output:
            case "json":
                print(json.dumps({"type": type_.value, "object": document}), flush=True)
            case "yaml":
                sys.stdout.write(f"---\n{output.to_yaml({'type': type_.value, 'object': document})}")
                sys.stdout.flush()
            case "name":
                print(f"{type_.value} {resource.kind.lower()}/{resource.name}", flush=True)
            case _:
                with_namespace = bool(resource.namespace) and not one.namespace
                table = listing.render(resource.kind, [document], columns, with_namespace)
                heading, row = table.splitlines()
                lines = ([f"{'EVENT':<11}{heading}"] if first else []) + [f"{type_.value:<11}{row}"]
                print("\n".join(lines), flush=True)
        first = False

    return show
