import pathlib

import pytest
import torch

from salun_core import architectures, errors, randomness, specs, weights


def _config(**changes: object) -> specs.ClassifierConfig:
    return specs.parse_classifier_config({"architecture": "resnet18", "num_classes": 3, **changes})


def test_weights_come_back_bit_for_bit(
    trained: torch.nn.Module, config: specs.ClassifierConfig, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "net.safetensors"
    weights.write(path, trained.state_dict())
    loaded = architectures.load(config, path)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    assert not loaded.training


def test_loading_leaves_the_global_random_state(
    trained: torch.nn.Module, config: specs.ClassifierConfig, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "net.safetensors"
    weights.write(path, trained.state_dict())
    before = torch.get_rng_state()
    architectures.load(config, path)
    assert torch.equal(torch.get_rng_state(), before)


def test_building_is_seeded() -> None:
    nets = []
    for _ in range(2):
        with randomness.seeded(5):
            nets.append(architectures.build(_config(model_args={"layers": [1, 1, 1, 1]})))
    first, second = (net.state_dict() for net in nets)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("library", ["timm", "torchvision", "salun.architectures"])
def test_unknown_names_are_refused(library: str) -> None:
    config = _config(architecture="no_such_net", library=library)
    with pytest.raises(errors.UnknownArchitectureError, match="got architecture 'no_such_net'"):
        architectures.check_tensors(config, {})


def test_torchvision_offers_classifiers_only() -> None:
    config = _config(architecture="fasterrcnn_resnet50_fpn", library="torchvision")
    with pytest.raises(errors.UnknownArchitectureError):
        architectures.check_tensors(config, {})


def test_a_torchvision_net_is_built() -> None:
    net = architectures.build(_config(library="torchvision"))
    shapes = {name: tuple(t.shape) for name, t in net.state_dict().items()}
    architectures.check_tensors(_config(library="torchvision"), shapes)


def test_differing_tensors_are_named(
    trained: torch.nn.Module, config: specs.ClassifierConfig
) -> None:
    shapes = {name: tuple(t.shape) for name, t in trained.state_dict().items()}
    architectures.check_tensors(config, shapes)
    wrong = {**shapes, "fc.weight": (5, 32), "surplus": (1,)}
    del wrong["conv1.weight"]
    with pytest.raises(errors.ArchitectureMismatchError) as caught:
        architectures.check_tensors(config, wrong)
    message = str(caught.value)
    assert "conv1.weight: got nothing, expected (64, 1, 7, 7)" in message
    assert "fc.weight: got (5, 32), expected (4, 32)" in message
    assert "surplus: got (1,), expected nothing" in message


def test_checking_allocates_no_weights() -> None:
    """16,000 channels make 9 GB a convolution, more than this test may take."""
    huge = _config(model_args={"channels": [64, 128, 256, 16_000], "layers": [1, 1, 1, 2]})
    with pytest.raises(errors.ArchitectureMismatchError, match=r"and [0-9]+ more"):
        architectures.check_tensors(huge, {})


@pytest.mark.parametrize(
    "args", [{"no_such_argument": 1}, {"layers": "deep"}, {"act_layer": "no_such_layer"}]
)
def test_arguments_that_the_builder_refuses(args: dict[str, object]) -> None:
    with pytest.raises(errors.InvalidConfigError, match="cannot build resnet18"):
        architectures.check_tensors(_config(model_args=args), {})


def test_an_installed_entry_point_builds(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package with an entry point, on the path as an installer would leave it."""
    (tmp_path / "some_nets.py").write_text(
        "import torch\n\n"
        "def flat(num_classes, in_chans, side):\n"
        "    layers = torch.nn.Flatten(), torch.nn.Linear(in_chans * side**2, num_classes)\n"
        "    return torch.nn.Sequential(*layers)\n"
    )
    info = tmp_path / "some_nets-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-nets\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[salun.architectures]\nflat = some_nets:flat\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    config = _config(
        architecture="flat",
        library="salun.architectures",
        model_args={"side": 2},
        pretrained_cfg={"input_size": [3, 2, 2]},
    )
    architectures.check_tensors(config, {"1.weight": (3, 12), "1.bias": (3,)})
    path = tmp_path / "net.safetensors"
    weights.write(path, {"1.weight": torch.ones(3, 12), "1.bias": torch.zeros(3)})
    assert architectures.load(config, path)(torch.ones(1, 3, 2, 2)).tolist() == [[12.0] * 3]


def test_an_input_size_that_the_net_refuses(tmp_path: pathlib.Path) -> None:
    small = {"embed_dim": 12, "depth": 1, "num_heads": 1}
    config = _config(architecture="vit_tiny_patch16_224", model_args={**small, "img_size": 32})
    other = _config(
        architecture="vit_tiny_patch16_224",
        model_args={**small, "img_size": 32},
        pretrained_cfg={"input_size": [3, 48, 48]},
    )
    path = tmp_path / "net.safetensors"
    weights.write(path, architectures.build(config).state_dict())
    with pytest.raises(errors.ArchitectureMismatchError, match="refuses an input of"):
        architectures.load(other, path)


def test_what_timm_repeats_of_the_rest_of_the_file_is_accepted() -> None:
    """``timm.models.save_for_hf`` writes the arguments of the constructor into ``model_args``."""
    net = _config(model_args={"global_pool": "avg"})
    same = {**dict(net.model_args), "num_classes": net.num_classes, "in_chans": net.input_size[0]}
    net = _config(model_args=same)
    assert net.builder_args == {"global_pool": "avg"}
    assert architectures.build(net) is not None
    with pytest.raises(errors.InvalidConfigError, match="num_classes"):
        _config(model_args={**same, "num_classes": net.num_classes + 1})
