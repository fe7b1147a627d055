"""Finds the profiles and models that ship with the package, in a checkout and in an installed wheel, by name or path."""

from __future__ import annotations

from pathlib import Path

from toolchain.errors import ConfigError

_PACKAGE = Path(__file__).parent


def profiles() -> tuple[str, ...]:
    """Names of the shipped hardware profiles, such as `loihi2`, sorted."""
    return tuple(sorted(path.stem for path in _folder("hw_profiles").glob("*.toml")))


def models() -> tuple[str, ...]:
    """File names of the shipped checkpoints, such as `digits-cnn.pt`, sorted."""
    return tuple(sorted(path.name for path in _folder("models").glob("*.pt")))


def recipes() -> tuple[str, ...]:
    """Names of the shipped recipes, such as `digits-cnn`, sorted."""
    return tuple(sorted(path.stem for path in _folder("models").glob("*.toml")))


def profile_path(name: str | Path) -> Path:
    """The file of a profile given by path or by shipped name. Raises ConfigError, which names the shipped ones."""
    return _find("hw_profiles", name, ".toml", "profile", profiles())


def model_path(name: str | Path) -> Path:
    """The file of a checkpoint given by path or by shipped name. Raises ConfigError, which names the shipped ones."""
    return _find("models", name, ".pt", "model", models())


def recipe_path(name: str | Path) -> Path:
    """The file of a recipe given by path or by shipped name. Raises ConfigError, which names the shipped ones."""
    return _find("models", name, ".toml", "recipe", recipes())


def _folder(name: str) -> Path:
    packed = _PACKAGE / "data" / name
    return packed if packed.is_dir() else _PACKAGE.parent / name


def _find(folder: str, name: str | Path, suffix: str, noun: str, shipped: tuple[str, ...]) -> Path:
    given = Path(name)
    if given.is_file():
        return given
    if given.name == str(name):
        for candidate in (_folder(folder) / given.name, _folder(folder) / f"{given.name}{suffix}"):
            if candidate.suffix == suffix and candidate.is_file():
                return candidate
    fault = f"no file of this name and no shipped {noun}; shipped: {', '.join(shipped) or 'none'}"
    raise ConfigError(where=str(name), faults=(fault,))
