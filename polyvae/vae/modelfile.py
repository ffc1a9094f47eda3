"""Model files: safetensors with one JSON header. Nothing in a file is executed."""

import json
import os
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Array

from polyvae.arguments import file_name, whole_number
from polyvae.errors import InputError
from polyvae.files import save_tensors
from polyvae.records import json_object
from polyvae.vae.likelihood import LIKELIHOODS
from polyvae.vae.network import VAE
from polyvae.vae.scaled import ScaledVAE

FORMAT = 2


def write_model(path: str | os.PathLike, tensors: dict, header: dict) -> None:
    """Write tensors and header; the file appears whole or not at all, and the same model is the same bytes."""
    text = json.dumps(header | {"format": FORMAT}, sort_keys=True, separators=(",", ":"))
    # One key: safetensors keeps no order among several.
    save_tensors(path, tensors, {"polyvae": text})


def read_model(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict]:
    """Tensors and header of a model file.

    Raises:
        FileNotFoundError: the file does not exist.
        InputError: the file is not a polyvae model, or has another format version.
    """
    path = file_name("path", path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file; give a model that `polyvae fit` or `run` wrote")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get("polyvae")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, TypeError, ValueError, OSError) as error:  # types that NumPy has not
        raise InputError(f"{path} is not a polyvae model ({error}); give a model.safetensors") from None
    if not header:
        raise InputError(f"{path} is a safetensors file but no polyvae model: it has no polyvae header")
    header = json_object(header, f"the header of {path}", "write the model again")
    if header.get("format") != FORMAT:
        raise InputError(
            f"{path} has model format {header.get('format')!r}; this version of polyvae reads {FORMAT}. "
            f"Use the polyvae version that wrote it"
        )
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise InputError(f"{path} is damaged: {name} holds NaN or infinity. Write the model again")
    return tensors, header


def named_leaves(tree) -> dict[str, Array]:
    """All arrays of a tree by their places in it, such as "network.first.weight"."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def fill_tensors(like, tensors: dict[str, np.ndarray], name_of: Callable[[str], str]):
    """A tree of the shapes of `like`, with the tensors that `name_of` names for its leaves; see `take`."""
    leaves = [take(tensors, name_of(name), leaf) for name, leaf in named_leaves(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _name_in_file(leaf: str) -> str:
    """The tensor of a leaf of a `ScaledVAE`: encoder.0.weight for vae.encoder.layers.0.weight."""
    return leaf.removeprefix("vae.").removeprefix("likelihood.").replace(".layers.", ".")


def tensors_of(scaled: ScaledVAE) -> dict[str, Array]:
    """The tensors of scaling and VAE by name."""
    return {_name_in_file(name): leaf for name, leaf in named_leaves(scaled).items()}


def header_of(vae: VAE) -> dict:
    """Description of the VAE beyond its tensors."""
    likelihood = {"kind": type(vae.likelihood).__name__}
    for name in ("learned", "n_classes"):
        if hasattr(vae.likelihood, name):
            likelihood[name] = getattr(vae.likelihood, name)
    return {"latent_dim": vae.latent_dim, "activation": "tanh", "likelihood": likelihood}


def scaled_of(tensors: dict[str, np.ndarray], header: dict, *, one_scale: bool | None = None) -> ScaledVAE:
    """Scaling and VAE of a file; raises ValueError, KeyError or TypeError where tensors and header do not fit.

    `one_scale` says whether the scale must be one number (True) or one per feature (False); None accepts both.
    """
    options = dict(header["likelihood"])
    kind = options.pop("kind")
    if kind not in LIKELIHOODS:
        raise ValueError(f"likelihood {kind!r} is not known")
    if header.get("activation", "tanh") != "tanh":
        raise ValueError(f"activation {header['activation']!r} is not known, networks have tanh")
    if kind == "Gaussian":
        options = {"width": 1.0}
        if header["likelihood"]["learned"]:
            options = {"width": "learned"}
    hidden = {}
    for name in ("encoder", "decoder"):
        n_layers = sum(tensor.startswith(f"{name}.") for tensor in tensors) // 2
        hidden[name] = [len(tensors[f"{name}.{k}.bias"]) for k in range(n_layers - 1)]
    latent_dim = whole_number("latent_dim", header["latent_dim"])
    if one_scale is None:
        one_scale = tensors["scale"].ndim == 0

    def blank(key) -> ScaledVAE:
        mean = scale = jnp.zeros(len(tensors["mean"]), jnp.float32)
        if one_scale:
            scale = jnp.zeros((), jnp.float32)
        likelihood = LIKELIHOODS[kind](**options)
        vae = VAE(len(mean), latent_dim=latent_dim, **hidden, likelihood=likelihood, key=key)
        return ScaledVAE(mean, scale, vae)

    # Only shapes are made: a header may claim layers that no file of this size holds.
    return fill_tensors(eqx.filter_eval_shape(blank, jax.random.key(0)), tensors, _name_in_file)


def check_featurizer(featurizer: Callable, shape: tuple[int, int], n_features: int) -> None:
    """Raise ValueError where the arrays of a file's featurizer are of other beads than its template."""
    pairs = getattr(featurizer, "pairs", None)
    if pairs is not None and not ((np.asarray(pairs) >= 0) & (np.asarray(pairs) < shape[0])).all():
        raise ValueError(f"pairs must be of beads 0 to {shape[0] - 1}")
    found = jax.eval_shape(featurizer, jax.ShapeDtypeStruct(shape, np.float32)).size
    if found != n_features:
        raise ValueError(f"the featurizer makes {found} numbers of a frame, the mean holds {n_features}")


def take(tensors: dict[str, np.ndarray], name: str, like):
    """The tensor of that name; raises ValueError where it has not the shape and type of `like`.

    Single precision is always accepted: `like` is double where a caller has turned that on for all of JAX.
    """
    value = tensors[name]
    if value.shape != like.shape or value.dtype not in (np.float32, like.dtype):
        raise ValueError(f"{name} is {value.dtype}{value.shape}, expected {like.dtype}{like.shape}")
    return jnp.asarray(value)
