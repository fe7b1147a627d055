"""Several processes that train one network: what they compute is what one computes."""

import json
import os
import subprocess
import sys
import tempfile

import pytest
import torch
from toy import SHAPE, net, toy, write_npz

from toolchain import attacks, evaluate, pipeline, ranks, store
from toolchain.train import stream


def torchrun(n, arguments, code=0):
    """Run the command line in n processes; return what they printed."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as logs:  # torchrun leaves its own behind
        done = subprocess.run(
            [*command, "--log-dir", logs, "-m", "toolchain", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=300,
        )
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_parts_of_a_batch_follow_each_other_and_differ_by_one_image_at_the_most(n, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    parts = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        parts.append(ranks.part(n))
    assert [part.start for part in parts] == [0, parts[0].stop, parts[1].stop]
    assert parts[-1].stop == n
    assert max(part.stop - part.start for part in parts) - min(part.stop - part.start for part in parts) <= 1


def test_the_things_to_do_are_shared_out_whole(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares += ranks.mine(range(8))
    assert sorted(shares) == list(range(8))


def test_one_process_is_all_of_them():
    assert (ranks.rank(), ranks.size(), ranks.part(5), ranks.mine("ab")) == (0, 1, slice(0, 5), ["a", "b"])
    assert ranks.gathered({1: 2}) == {1: 2}
    assert ranks.mean(3.0) == 3.0


@pytest.mark.parametrize("attack", [attacks.kl_pgd, attacks.kl_rfgsm, attacks.pgd, attacks.rfgsm])
def test_a_share_of_the_images_is_attacked_as_in_the_whole(attack):
    model, images, labels = net(), torch.rand(7, *SHAPE), torch.arange(7) % 3

    def attacked(part, generator):
        given = {"eps": 0.1, "generator": generator} | ({"steps": 2} if "pgd" in attack.__name__ else {})
        positional = {attacks.kl_pgd: (), attacks.kl_rfgsm: (model(images[part]),)}.get(attack, (labels[part],))
        return attack(model, images[part], *positional, **given)

    whole = attacked(slice(None), stream(1))
    parts = [
        attacked(slice(first, first + n), attacks.Share(generator=stream(1), n=7, first=first))
        for first, n in ((0, 3), (3, 4))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe file of every stage; its batches do not divide by two."""
    folder = tmp_path_factory.mktemp("ranks")
    source = write_npz(folder / "data.npz", n=100)
    made = toy(
        data={"source": str(source), "augmentation": "crop-flip"},
        prune={"method": "harp", "lr": 0.05},
        **{stage: {"batch": 25, "epochs": 2} for stage in ("train", "sparse", "finetune")},
    )
    (folder / "recipe.json").write_text(json.dumps(made.to_dict()))
    lines = []
    for section, value in made.to_dict().items():
        keys = value.items() if isinstance(value, dict) else [(None, value)]
        lines += [f"--set={f'{section}.{key}' if key else section}={json.dumps(each)}" for key, each in keys]
    (folder / "empty.toml").write_text("")
    return made, [folder / "empty.toml", *lines]


@pytest.mark.slow
def test_two_processes_end_where_one_does_and_one_of_them_speaks(recipe, tmp_path):
    made, arguments = recipe
    alone = pipeline.run(made, tmp_path / "one")
    done = torchrun(2, ["run", *arguments, "--out", tmp_path / "two", "--json"])
    result = json.loads(done.stdout)
    assert result["sparsity"] == alone["sparsity"]
    for stage in ("train", "prune", "sparse", "convert", "model"):
        one, two = (store.load(tmp_path / name / f"{stage}.pt") for name in ("one", "two"))
        for name, tensor in one.state.items():
            torch.testing.assert_close(two.state[name], tensor, rtol=2e-3, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
        assert all(torch.equal(two.mask[name], kept) for name, kept in one.mask.items())
    assert done.stderr.count("finetune: validation accuracy") == 1


@pytest.mark.slow
def test_two_processes_evaluate_as_one(recipe, tmp_path):
    made, _ = recipe
    model = pipeline.run(made, tmp_path / "run")["model"]
    alone = evaluate.evaluate(model, attack=["pgd-ens"], checks=False)
    done = torchrun(2, ["evaluate", model, "--attack", "pgd-ens", "--no-checks", "--json"])
    assert json.loads(done.stdout)["outcomes"] == json.loads(json.dumps(alone["outcomes"]))


@pytest.mark.slow
def test_a_batch_smaller_than_the_number_of_processes_is_refused(recipe, tmp_path):
    _, arguments = recipe
    done = torchrun(3, ["run", *arguments, "--set=train.batch=2", "--out", tmp_path], code=1)
    assert "cannot be shared by 3 processes; change batch" in done.stderr
