"""explain: whether policy allows a flow, at both ends, by which rules, and what was passed over.

Offline the documents of the files are the whole cluster; online it is what the datastore holds."""

from __future__ import annotations

import gc
import os
import sys
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from weft.ctl import explain_flows, explain_view, output
from weft.ctl.config import Target, run_dir
from weft.ctl.errors import CommandError, UsageError
from weft.ctl.sources import read_documents
from weft.kubernetes import implicit_profiles, staged_policy
from weft.model.base import Resource
from weft.model.defaults import DEFAULT_NAMESPACE
from weft.model.errors import FieldError
from weft.model.staged import StagedKubernetesNetworkPolicy
from weft.policy.cluster import Cluster
from weft.policy.ends import Parties, UnknownEndError
from weft.policy.explainer import Explainer, NoCommonFamilyError, common_addresses, flow_of

EXIT_DIFFERS = 1
EXIT_MALFORMED = 2
_ONE = {"source": "--from", "destination": "--to", "protocol": "--protocol"}
_MORE = ("port", "source_port", "icmp_type", "icmp_code")


async def run(arguments: Namespace, target: Target | None) -> int:
    """`target` None: offline."""
    _check(arguments)
    if target is None:
        cluster = cluster_of(_documents(arguments))
        counts = None
    else:
        from weft.ctl.explain_online import counters, everything

        cluster = cluster_of(await everything(target))
        counts = None if arguments.flows is not None else await counters(felix_socket(arguments.socket))
    parties, explainer = Parties(cluster), Explainer(cluster)
    if arguments.flows is not None:
        return _flows(arguments.flows, parties, explainer)
    return _one(arguments, cluster, counts)


def cluster_of(resources: Iterable[Resource]) -> Cluster:
    """Staged policies in Kubernetes' own words become what they are evaluated as."""
    return Cluster(staged_policy(one) if isinstance(one, StagedKubernetesNetworkPolicy) else one for one in resources)


def _check(arguments: Namespace) -> None:
    """Raises UsageError."""
    if arguments.flows is None:
        for name, flag in _ONE.items():
            if getattr(arguments, name) is None:
                raise UsageError(f"{flag} is missing (or give many flows with --flows)")
    elif any(getattr(arguments, name) is not None for name in (*_ONE, *_MORE)):
        raise UsageError("--flows has its ends, protocols and ports in its lines")
    if arguments.offline and not arguments.filename:
        raise UsageError("--offline needs the cluster's documents: give them with -f")
    if arguments.filename and not arguments.offline:
        raise UsageError("-f is for --offline: without it the datastore says what there is")
    if arguments.flows == "-" and "-" in arguments.filename:
        raise UsageError("both -f and --flows from stdin: one of them has to be a file")


def _documents(arguments: Namespace) -> list[Resource]:
    """Those of the files, with the profiles that Kubernetes' namespaces and service accounts have in any case."""
    namespace = arguments.namespace or DEFAULT_NAMESPACE
    documents = read_documents(arguments.filename, namespace, arguments.recursive, arguments.skip_empty)
    resources = [document.resource for document in documents]
    return [*resources, *implicit_profiles(resources)]


def felix_socket(given: Path | None) -> Path:
    return given if given is not None else run_dir(os.environ) / "felix.sock"


def _one(arguments: Namespace, cluster: Cluster, counts: explain_view.Counts | None) -> int:
    parties, explainer = Parties(cluster), Explainer(cluster)
    try:
        packet = explain_flows.packet_of(vars(arguments))
        version = explain_flows.VERSIONS.get(packet.protocol)
        source, destination = (parties.find(text, version) for text in (arguments.source, arguments.destination))
        answer = explainer.explain(source, destination, packet)
    except FieldError as error:
        found = "" if error.value is None else f"{error.value!r} is not valid: "
        raise UsageError(f"--{error.field.replace('_', '-')}: {found}{error.expected}") from error
    except (UnknownEndError, NoCommonFamilyError) as error:
        raise CommandError(str(error)) from error
    flow = flow_of(*common_addresses(source, destination), packet)
    explained = explain_view.Explanation(cluster, source, destination, packet, flow, answer, counts)
    if arguments.output == "ps":
        sys.stdout.write(explain_view.text(explained))
    else:
        write = output.to_json if arguments.output == "json" else output.to_yaml
        sys.stdout.write(write(explain_view.document(explained)))
    return 0


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
