"""What must hold between documents: names exist, none is given twice, no class is laxer than its
tenant, there is a site at all.

Decides on the text as written, so that one refused document does not make every reference to it a
second fault.
"""

from __future__ import annotations

from collections.abc import Iterator

from sites.errors import RefusedError
from sites.fleet_file import documents as d
from sites.fleet_file import facts
from sites.fleet_file.build import Entry
from sites.fleet_file.faults import Fault, did_you_mean
from sites.fleet_file.reader import Node
from sites.residency import is_at_least_as_strict

_NOUNS = {
    "Site": "site",
    "Link": "link",
    "Market": "market",
    "Model": "model",
    "Service": "service",
    "TrafficClass": "traffic class",
    "ResidencyPolicy": "residency policy",
    "Tenant": "tenant",
    "PlanPolicy": "plan policy",
    "Variant": "variant",
}

# kind of document -> (path to the reference, kind referred to); "*" stands for every list item
_REFERENCES: dict[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "Link": ((("spec", "between", "*"), "Site"),),
    "Market": ((("spec", "accesses", "*", "site"), "Site"),),
    "Model": ((("spec", "servingPoints", "*", "variant"), "Variant"),),
    "Service": ((("spec", "variants", "*"), "Variant"),),
    "Tenant": ((("spec", "residencyPolicy"), "ResidencyPolicy"),),
    "TrafficClass": (
        (("spec", "market"), "Market"),
        (("spec", "service"), "Service"),
        (("spec", "tenant"), "Tenant"),
        (("spec", "residencyPolicy"), "ResidencyPolicy"),
    ),
    "PlanPolicy": (
        (("spec", "replicaBounds", "*", "site"), "Site"),
        (("spec", "replicaBounds", "*", "variant"), "Variant"),
    ),
}


def check_references(entries: list[Entry], faults: list[Fault]) -> None:
    """Add every fault between documents to `faults`."""
    names = _names(entries, faults)
    hints: dict[tuple[str, str], str] = {}  # one wrong name may stand in thousands of places
    for entry in entries:
        for path, kind in _REFERENCES.get(entry.kind, ()):
            for node in _at(entry.node, path):
                name = node.value
                if isinstance(name, str) and name not in names[kind]:
                    if (kind, name) not in hints:
                        hints[kind, name] = did_you_mean(name, names[kind])
                    message = f'no {_NOUNS[kind]} "{name}"{hints[kind, name]}'
                    faults.append(node.place.fault(message))
    _links_twice(entries, faults)
    _foreign_points(entries, faults)
    _laxer_classes(entries, faults)
    _amounts(entries, faults)


def _names(entries: list[Entry], faults: list[Fault]) -> dict[str, dict[str, Node]]:
    """Every declared name by kind; a name given twice is a fault."""
    names: dict[str, dict[str, Node]] = {kind: {} for kind in _NOUNS}
    for entry in entries:
        for kind, node in _declared(entry):
            if not isinstance(node.value, str):
                continue
            first = names[kind].setdefault(node.value, node)
            if first is not node:
                where = f"{first.place.file}:{first.place.line}"
                message = f'{_NOUNS[kind]} "{node.value}" is given twice; first in {where}'
                faults.append(node.place.fault(message))
    return names


def _declared(entry: Entry) -> Iterator[tuple[str, Node]]:
    name = entry.node.get("metadata", "name")
    if name is not None and entry.kind in _NOUNS:
        yield entry.kind, name
    if entry.kind == "Model":
        for node in _at(entry.node, ("spec", "variants", "*", "name")):
            yield "Variant", node


def _at(node: Node, path: tuple[str, ...]) -> Iterator[Node]:
    if not path:
        yield node
    elif path[0] == "*":
        for item in node.items():
            yield from _at(item, path[1:])
    else:
        below = node.get(path[0])
        if below is not None:
            yield from _at(below, path[1:])


def _links_twice(entries: list[Entry], faults: list[Fault]) -> None:
    seen: dict[tuple[str, ...], Entry] = {}
    for entry in entries:
        if not isinstance(entry.document, d.Link):
            continue
        ends = tuple(sorted(entry.document.spec.between))
        first = seen.setdefault(ends, entry)
        if first is not entry:
            faults.append(
                entry.fault(
                    f'{" and ".join(ends)} are joined twice; first by link "{first.name}"',
                    "spec",
                    "between",
                )
            )


def _foreign_points(entries: list[Entry], faults: list[Fault]) -> None:
    """A serving point stands with the model its variant belongs to, once per hardware."""
    for entry in entries:
        if not isinstance(entry.document, d.Model):
            continue
        own = {variant.name for variant in entry.document.spec.variants}
        seen: set[tuple[str, str, int]] = set()
        for index, point in enumerate(entry.document.spec.serving_points):
            path = ("spec", "servingPoints", index)
            if point.variant not in own:
                message = f'variant "{point.variant}" is not one of this model\'s'
                faults.append(entry.fault(message, *path, "variant"))
            key = (point.variant, point.accelerator, point.accelerators_per_replica)
            if key in seen:
                message = f"serving point {key[0]}@{key[1]}-x{key[2]} is given twice"
                faults.append(entry.fault(message, *path))
            seen.add(key)


def _laxer_classes(entries: list[Entry], faults: list[Fault]) -> None:
    policies = {}
    for entry in entries:
        if isinstance(entry.document, d.ResidencyPolicy):
            try:
                policies[entry.document.metadata.name] = facts.residency_policy(entry.document)
            except RefusedError:
                continue  # the builder reports it
    of_tenant = {
        e.document.metadata.name: e.document.spec.residency_policy
        for e in entries
        if isinstance(e.document, d.Tenant)
    }
    for entry in entries:
        if not isinstance(entry.document, d.TrafficClass):
            continue
        tenant, own = entry.document.spec.tenant, entry.document.spec.residency_policy
        least = policies.get(of_tenant.get(tenant, ""))
        asked = policies.get(own or "")
        if least and asked and not is_at_least_as_strict(asked, least):
            message = (
                f'residency policy "{own}" is laxer than "{least.policy_id}" of tenant '
                f'"{tenant}"; name one at least as strict'
            )
            faults.append(entry.fault(message, "spec", "residencyPolicy"))


def _amounts(entries: list[Entry], faults: list[Fault]) -> None:
    kinds = {entry.kind for entry in entries}
    if kinds and "Site" not in kinds and kinds <= d.KINDS.keys():
        faults.append(entries[0].fault("empty fleet: no Site document; describe at least one"))
    policies = [entry for entry in entries if entry.kind == "PlanPolicy"]
    for extra in policies[1:]:
        faults.append(extra.fault(f'one PlanPolicy is enough; "{policies[0].name}" is given too'))
