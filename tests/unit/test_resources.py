import subprocess
import sys

import pytest

from toolchain import resources
from toolchain.errors import ConfigError


def test_what_ships_is_found_by_name_with_and_without_suffix():
    assert resources.recipe_path("digits-cnn") == resources.recipe_path("digits-cnn.toml")
    assert resources.model_path("digits-cnn.pt").read_bytes()[:2] == b"PK"
    assert "digits-cnn.pt" in resources.models()
    assert "digits-cnn" in resources.recipes()
    assert "loihi2" in resources.profiles()


def test_a_path_comes_before_a_name(tmp_path):
    path = tmp_path / "own.toml"
    path.write_text("")
    assert resources.profile_path(path) == path


def test_an_unknown_name_lists_what_ships():
    with pytest.raises(ConfigError) as caught:
        resources.profile_path("loihi9")
    shipped = ", ".join(resources.profiles())
    assert str(caught.value) == f"loihi9: no file of this name and no shipped profile; shipped: {shipped}"


def test_a_model_is_no_recipe():
    with pytest.raises(ConfigError):
        resources.model_path("digits-cnn.toml")


@pytest.mark.parametrize("module", ["toolchain.recipe", "toolchain.resources", "toolchain.errors", "toolchain.store"])
def test_importing_does_not_load_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
