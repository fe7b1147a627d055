"""Commands about hardware profiles."""

from __future__ import annotations

import click

from toolchain.cli.common import json_option, show_result


@click.group()
def profiles() -> None:
    """List, show and check hardware profiles."""


@profiles.command("list")
@json_option
def list_profiles(as_json: bool) -> None:
    """List the shipped profiles."""
    from toolchain import profile, resources

    loaded = [profile.read(name) for name in resources.profiles()]
    lines = [f"{item.name:10} {item.description}" for item in loaded]
    result = {"profiles": [{"name": item.name, "description": item.description} for item in loaded]}
    show_result(result, as_json, lambda: click.echo("\n".join(lines)))


@profiles.command("show")
@click.argument("name", metavar="PROFILE")
@json_option
def show_profile(name: str, as_json: bool) -> None:
    """Print every number of PROFILE with its unit, how it is known and its source."""
    from toolchain import profile

    loaded = profile.read(name)
    show_result(profile.to_dict(loaded), as_json, lambda: profile.render(loaded))


@profiles.command("check")
@click.argument("file", metavar="FILE")
@json_option
def check_profile(file: str, as_json: bool) -> None:
    """Check a profile of your own; every fault is listed."""
    from toolchain import profile

    loaded = profile.read(file)
    result = {"name": loaded.name, "valid": True}
    show_result(result, as_json, lambda: click.echo(f"{file}: profile {loaded.name} is valid"))
