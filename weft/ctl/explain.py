"""explain: whether policy allows a flow, at both ends, by which rules, and what was passed over.

Offline the documents of the files are the whole cluster; online it is what the datastore holds."""

from __future__ import annotations

import gc
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from weft.ctl import explain_flows, explain_view
from weft.ctl.errors import CommandError, UsageError
from weft.ctl.resources import DEFAULT_NAMESPACE
from weft.ctl.sources import read_documents
from weft.kubernetes import implicit_profiles
from weft.model.base import Resource
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties
from weft.policy.explainer import Explainer

EXIT_DIFFERS = 1
EXIT_MALFORMED = 2


async def offline(arguments: Namespace) -> int:
    if not arguments.filename:
        raise UsageError("--offline needs the cluster's documents: give them with -f")
    if arguments.flows == "-" and "-" in arguments.filename:
        raise UsageError("both -f and --flows from stdin: one of them has to be a file")
    namespace = arguments.namespace or DEFAULT_NAMESPACE
    documents = read_documents(arguments.filename, namespace, arguments.recursive, arguments.skip_empty)
    resources = [document.resource for document in documents]
    return _answer(arguments, [*resources, *implicit_profiles(resources)])


def _answer(arguments: Namespace, resources: Iterable[Resource]) -> int:
    cluster = Cluster(resources)
    parties, explainer = Parties(cluster), Explainer(cluster)
    return _flows(arguments.flows, parties, explainer)


def _flows(filename: str, parties: Parties, explainer: Explainer) -> int:
    gc.freeze()
    gc.disable()  # nothing here makes cycles, and walking what there is costs more than everything else
    source, text = _read(filename)
    try:
        lines = explain_flows.read(text, source, parties, explainer)
    except explain_flows.MalformedFlowsError as error:
        print(error, file=sys.stderr)
        return EXIT_MALFORMED
    sys.stdout.flush()
    sys.stdout.buffer.writelines(explain_flows.write(lines, explain_view.rule_of))
    sys.stdout.buffer.flush()
    wrong = sum(map(explain_flows.differs, lines))
    if wrong:
        print(f"{wrong} of {len(lines)} flows are not as expected", file=sys.stderr)
        return EXIT_DIFFERS
    return 0


def _read(filename: str) -> tuple[str, bytes]:
    """Where it comes from, and what there is. Raises CommandError."""
    if filename == "-":
        return "<stdin>", sys.stdin.buffer.read()
    try:
        return filename, Path(filename).read_bytes()
    except OSError as error:
        raise CommandError(f"{filename}: {error.strerror}") from error
