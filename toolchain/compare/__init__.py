"""Several deployments beside each other: one table, one page, and what nothing else beats.

A row is a model on a profile. What a profile does not know stays n/a; a model that does not fit has a row that says why.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolchain import assess, deployment, mapping, report, store
from toolchain import profile as profiles
from toolchain.compare import page
from toolchain.compare.pareto import STATIC, plots
from toolchain.compare.terminal import render
from toolchain.errors import CapacityError, RangeError, UnsupportedError
from toolchain.profile import HardwareProfile
from toolchain.report.beside import knows_static
from toolchain.report.outcomes import label, outcomes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from toolchain.profile import AnyProfile

SCHEMA = "rsnn-deploy/comparison/1"
HOST = "the host computes what drives the first layer, which no energy counts"

__all__ = ["SCHEMA", "compare", "page", "plots", "render", "row", "unfit"]


def compare(
    targets: Sequence[str],
    profile_names: Sequence[str],
    settings: deployment.Settings,
    *,
    samples: int = deployment.REPORT_IMAGES,
    log: Callable[[str], None] = lambda _line: None,
) -> dict[str, Any]:
    """Return a row for each model on each profile, and the plots they make, JSON-able.

    targets: names or files of models, or exported folders; profile_names: by default a folder's own; settings: as for an
    export, but for the profile; samples: test images, at most, that a model is run on.
    Raises: FormatError, ConfigError. A model that cannot be placed is a row, not an error.
    """
    rows = [
        entry
        for name, target in zip(_names(targets), targets, strict=True)
        for entry in _of(name, target, profile_names, settings, samples=samples, log=log)
    ]
    counts = {entry["accuracy"]["n"] for entry in rows if entry["accuracy"]}
    if len(counts) > 1:
        rows = [{**entry, "note": _with_count(entry)} for entry in rows]
    return {"schema": SCHEMA, "rows": rows, "plots": plots(rows)}


def _with_count(entry: Mapping[str, Any]) -> str:
    """The note of a row, with how many images its clean accuracy is of."""
    measured = entry["accuracy"]
    said = [
        entry["note"],
        f"clean accuracy on {measured['n']:,} images, not as many as in other rows" if measured else "",
    ]
    return "; ".join(filter(None, said))


def _names(targets: Sequence[str]) -> list[str]:
    """What the table calls each target: its last part where that tells them apart."""
    short = [Path(target).stem for target in targets]
    return short if len(set(short)) == len(short) else list(targets)


def _of(
    name: str,
    target: str,
    profile_names: Sequence[str],
    settings: deployment.Settings,
    *,
    samples: int,
    log: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """The rows of one target."""
    source = _Folder(Path(target)) if Path(target).is_dir() else _ModelFile(target, samples)
    for chosen in profile_names or [source.own_profile()]:
        profile = profiles.read(chosen)
        log(f"{name} on {profile.name}")
        try:
            made = source.reported(profile, settings)
        except (CapacityError, RangeError, UnsupportedError) as error:
            yield unfit(name, profile.name, str(error))
        else:
            yield row(name, made)


def unfit(name: str, profile: str, reason: str) -> dict[str, Any]:
    """Return the row of a model that cannot be placed, all of it unknown but why."""
    unknown = dict.fromkeys(("sparsity", "T", "n_cores", "n_chips", "accuracy", "robust", "spikes", "latency"))
    said = {"model": name, "profile": profile, "fits": False, "reason": reason, "note": ""}
    return {**said, **unknown, "energy": {}, "memory": {}}


class _ModelFile:
    """A trained model, quantized for each profile."""

    def __init__(self, target: str, samples: int) -> None:
        from toolchain import data as datasets
        from toolchain import resources

        self.path = resources.model_path(target)
        self.model = store.load(self.path)
        self.data = deployment.training_data(self.model)
        self.test = datasets.load_test(self.model.data_source, self.model.recipe.data).first(samples)

    def own_profile(self) -> str:
        raise UnsupportedError(
            where=str(self.path), reason="a model is made for no profile", remedy="Name one with --profile"
        )

    def reported(self, profile: AnyProfile, settings: deployment.Settings) -> dict[str, Any]:
        made = deployment.quantized(self.model, self.data, settings, profile)
        facts = {"model": {"name": self.model.recipe.name, "sha256": store.sha256(self.path)}}
        subject = _placed(made.network, made.masks, profile, settings, facts)
        return assess.reported(subject, self.test.images, self.test.labels, metrics=self.model.metrics)


class _Folder:
    """An exported network as it is, on whatever profile, run on the samples beside it."""

    def __init__(self, path: Path) -> None:
        self.folder = deployment.open_folder(path)
        self.report = deployment.read_report(path)

    def own_profile(self) -> str:
        return deployment.exported_for(self.folder.path)

    def reported(self, profile: AnyProfile, settings: deployment.Settings) -> dict[str, Any]:
        if profile.sha256 == self.report["profile"]["sha256"]:
            return self.report
        held = self.folder.deployment
        subject = _placed(held.network, held.masks, profile, settings, held.facts)
        metrics = self.report["accuracy"].get("stages", {})
        return assess.reported(subject, self.folder.images, self.folder.labels, metrics=metrics)


def _placed(
    network: Any, masks: Any, profile: AnyProfile, settings: deployment.Settings, facts: Mapping[str, Any]
) -> report.Subject:
    placed = None
    if isinstance(profile, HardwareProfile):
        placed = mapping.place(network, profile, max_chips=settings.max_chips)
    return report.Subject(network=network, masks=masks, profile=profile, mapping=placed, facts=facts)


def row(name: str, made: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a table compares of a report: each figure as the report has it."""
    measured = made["accuracy"]
    robust = [(keys, outcome) for keys, outcome in outcomes(measured) if outcome.get("attack") not in {None, "none"}]
    violations = made["check"]["violations"]
    return {
        "model": name,
        "profile": made["profile"]["name"],
        "fits": made["check"]["ok"],
        "reason": "; ".join(
            f"{found['layer']}: {found['resource']} exceeded. {found['remedy']}" for found in violations[:3]
        ),
        "note": made["mapping"].get("reason") or (HOST if made["input"]["coding"] == "biases" else ""),
        "sparsity": made["model"]["sparsity"],
        "T": made["model"]["T"],
        "n_cores": made["mapping"]["n_cores"],
        "n_chips": made["mapping"]["n_chips"],
        "accuracy": measured.get("deployed"),
        "robust": {"measured": label(robust[-1][0]), **robust[-1][1]} if robust else None,
        "spikes": made["activity"]["spikes_per_image"],
        "latency": made["energy"].get("hardware", {}).get("latency"),
        "energy": _energies(made["energy"]),
        "memory": {key: made["memory"][key] for key in ("unique_bytes", "resident_bytes", "dense_fp32_bytes")},
    }


def _energies(energy: Mapping[str, Any]) -> dict[str, Any]:
    """The totals that several profiles can share a column for, over nonzero synapses."""
    found = {"eq. 12, fp32": energy["eq12"]["fp32"], "Lemaire, 45 nm": energy["lemaire"]["total"]}
    for chosen in energy.get("hardware", {}).get("sets", {}).values():
        if chosen["dynamic_low"]["value"] is not None:
            found[chosen["label"]] = chosen["dynamic_low"]
        if knows_static(chosen):
            found[f"{chosen['label']}{STATIC}"] = chosen["total_low"]
    return found
