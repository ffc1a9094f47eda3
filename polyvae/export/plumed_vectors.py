"""The CV in PLUMED's actions on vectors and matrices: superposition, principal axes and network, all exact.

Source: the PLUMED manual, https://www.plumed.org/doc (actions POSITION, DIAGONALIZE, MATRIX_VECTOR_PRODUCT,
CUSTOM).
"""

from collections.abc import Sequence

import numpy as np

from polyvae.cv.latent import LatentCV
from polyvae.errors import InputError
from polyvae.export.common import encoder_layers, full_digits, mass_fractions, ranges
from polyvae.features.featurizers import PairDistances, PrincipalAxes, Reference

_VARIABLES = "abcdfghijk"  # no "e", which is a number to PLUMED's parser
_ONE = "vae_one"  # an unused argument where all others may be 0, for PLUMED then leaves out the derivative
_COS, _SIN = np.cos(1), np.sin(1)
_ABOUT_Z = np.array([[_COS, -_SIN, 0], [_SIN, _COS, 0], [0, 0, 1]])
_ABOUT_X = np.array([[1, 0, 0], [0, _COS, -_SIN], [0, _SIN, _COS]])
_TURNS = {2: _ABOUT_Z[:2, :2], 3: _ABOUT_Z @ _ABOUT_X @ _ABOUT_Z}  # no entry is 0


class Script(list):
    """Lines of PLUMED input; labels of what is not for the user begin with "vae_"."""

    def put(self, label: str, action: str) -> str:
        """Add a line, an `action` under a `label`, and give the label."""
        self.append(f"vae_{label}: {action}")
        return f"vae_{label}"

    def constant(self, label: str, values) -> str:
        """A vector or matrix of `values` in full precision."""
        values = np.asarray(values, np.float64)
        shape = f" NROWS={values.shape[0]} NCOLS={values.shape[1]}" if values.ndim == 2 else ""
        return self.put(label, f"CONSTANT{shape} NOLOG VALUES={','.join(full_digits(values))}")

    def custom(self, label: str, arguments: Sequence[str], function: str) -> str:
        """A function of the arguments a, b, c, ...; vectors before scalars."""
        names = ",".join(_VARIABLES[: len(arguments)])
        return self.put(label, f"CUSTOM ARG={','.join(arguments)} VAR={names} FUNC={function} PERIODIC=NO")

    def sum(self, label: str, vector: str) -> str:
        """The sum of the entries of a `vector`."""
        return self.put(label, f"SUM ARG={vector} PERIODIC=NO")

    def dot(self, label: str, vector: str, coefficients) -> str:
        """The sum of a `vector` times `coefficients`."""
        products = self.custom(f"{label}_p", [vector, self.constant(f"{label}_c", coefficients)], "a*b")
        return self.sum(label, products)

    def product(self, label: str, matrix: str, vector: str) -> str:
        """A `matrix` times a `vector`."""
        return self.put(label, f"MATRIX_VECTOR_PRODUCT ARG={matrix},{vector}")

    def element(self, label: str, vector: str, k: int) -> str:
        """Entry `k` of a `vector`, from 0."""
        return self.sum(label, self.put(f"{label}_s", f"SELECT_COMPONENTS ARG={vector} COMPONENTS={k + 1}"))

    def sign(self, label: str, scalar: str) -> str:
        """1 for a scalar that is 0 or more, -1 for a negative one; with derivative 0."""
        return self.custom(label, [scalar], "2*step(a)-1")


def latent_lines(cv: LatentCV, numbers: list[int]) -> list[str]:
    """Lines that compute z0, z1, ... of the atoms with these numbers.

    Raises:
        InputError: `PrincipalAxes(sign="none")`.
    """
    script = Script([f"{_ONE}: CONSTANT VALUE=1 NOLOG"])
    order: slice | np.ndarray = slice(None)
    if isinstance(cv.featurizer, PairDistances):
        features = _distances(script, cv, numbers)
    else:
        positions = _centred(script, cv, _positions(script, cv, numbers))
        frame = _principal if isinstance(cv.featurizer, PrincipalAxes) else _superposed
        aligned = frame(script, cv, positions)
        features = script.put("features", f"CONCATENATE ARG={','.join(aligned)}")
        # PLUMED holds all x, then all y, then all z.
        order = np.arange(cv.n_beads * cv.n_dims).reshape(cv.n_beads, cv.n_dims).T.ravel()
    layers = encoder_layers(cv)
    layers[0] = layers[0][0][:, order], layers[0][1]
    for k, (weight, bias) in enumerate(layers[:-1]):
        product = script.product(f"m{k}", script.constant(f"w{k}", weight), features)
        features = script.custom(f"h{k}", [product, script.constant(f"b{k}", bias)], "tanh(a+b)")
    for k, (weight, bias) in enumerate(zip(*layers[-1], strict=True)):
        script.append(
            f"z{k}: CUSTOM ARG={script.dot(f'out{k}', features, weight)} FUNC=x+({bias:.17g}) PERIODIC=NO"
        )
    return script


def _positions(script: Script, cv: LatentCV, numbers: list[int]) -> list[str]:
    """Vectors x, y(, z) of the beads, in the canonical order where the model asks for one.

    Turned by a fixed rotation, which features do not depend on: where an entry of a matrix is exactly 0, as all
    with z of a flat molecule, PLUMED leaves out its derivative.
    """
    here = _turned(script, cv, numbers, "")
    if not cv.featurizer.reversal:
        return here
    forward, back = _forward(script, cv, here), _turned(script, cv, numbers[::-1], "back_")
    return [
        script.custom(f"ordered_{c}", [one, other, forward], "c*a+(1-c)*b")
        for c, one, other in zip("xyz", here, back, strict=False)
    ]


def _turned(script: Script, cv: LatentCV, numbers: list[int], prefix: str) -> list[str]:
    atoms = script.put(f"{prefix}atoms", f"POSITION ATOMS={ranges(numbers)} NOPBC")
    components = [f"{atoms}.{c}" for c in "xyz"[: cv.n_dims]]
    sums = ["+".join(f"({t:.17g})*{v}" for t, v in zip(row, "abc", strict=False)) for row in _TURNS[cv.n_dims]]
    return [
        script.custom(f"{prefix}{c}", [*components, _ONE], total) for c, total in zip("xyz", sums, strict=False)
    ]


def _forward(script: Script, cv: LatentCV, positions: list[str]) -> str:
    """1 where the chain is in its canonical order (`geometry.canonical_order`), 0 where it is to be reversed."""
    n = cv.n_beads
    away = []
    for c, vector in zip("xyz", positions, strict=False):
        mean = script.dot(f"plain_{c}", vector, np.full(n, 1 / n))
        away.append(script.custom(f"away_{c}", [vector, mean, _ONE], "a-b"))
    squares = "+".join(f"{v}*{v}" for v in _VARIABLES[: len(away)])
    asymmetry = script.dot("asymmetry", script.custom("reach", away, squares), np.arange(n) - (n - 1) / 2)
    return script.custom("forward", [asymmetry], "step(a)")


def _centred(script: Script, cv: LatentCV, positions: list[str]) -> list[str]:
    centred = []
    for c, vector in zip("xyz", positions, strict=False):
        mean = script.dot(f"com_{c}", vector, mass_fractions(cv))
        centred.append(script.custom(f"centred_{c}", [vector, mean, _ONE], "a-b"))
    return centred


def _principal(script: Script, cv: LatentCV, positions: list[str]) -> list[str]:
    """Coordinates along the axes of the gyration tensor: `geometry.principal_frame` in actions."""
    assert isinstance(cv.featurizer, PrincipalAxes)
    if cv.featurizer.sign == "none":
        raise InputError(
            'PrincipalAxes(sign="none") leaves the direction of each axis to the eigensolver, and PLUMED has '
            'another one; train with sign="chain" (the default), or use --dialect native'
        )
    n = cv.n_beads
    order = np.arange(n) - (n - 1) / 2
    matrix = script.put("positions", f"VSTACK ARG={','.join(positions)}")
    share = script.constant("share", mass_fractions(cv))
    weighed = [script.custom(f"weighed_{k}", [vector, share], "a*b") for k, vector in enumerate(positions)]
    script.put("weighed", f"VSTACK ARG={','.join(weighed)}")
    transposed = script.put("weighed_t", "TRANSPOSE ARG=vae_weighed")
    tensor = script.put("gyration", f"MATRIX_PRODUCT ARG={transposed},{matrix}")
    signed = list(range(1, cv.n_dims))  # the last axis completes a right-handed frame
    script.put("axes", f"DIAGONALIZE ARG={tensor} VECTORS={','.join(map(str, signed))}")

    aligned = []
    axes: list[str] = []
    for k in range(cv.n_dims):
        axis = f"vae_axes.vecs-{k + 1}" if k + 1 in signed else _completing(script, axes)
        along = script.product(f"along{k}", matrix, axis)
        if k + 1 in signed or cv.featurizer.mirror:
            sign = script.sign(f"sign{k}", script.dot(f"moment{k}", along, order))
            along = script.custom(f"signed{k}", [along, sign], "a*b")
            axes.append(script.custom(f"axis{k}", [axis, sign], "a*b"))
        aligned.append(along)
    return aligned


def _completing(script: Script, axes: list[str]) -> str:
    """The axis that makes one axis in 2-D, or two in 3-D, a right-handed frame."""
    if len(axes) == 1:
        return script.product("last", script.constant("quarter_turn", [[0, -1], [1, 0]]), axes[0])
    turns = [script.constant(f"turn{j}", np.roll(np.eye(3), j, axis=1)) for j in (1, 2)]  # to y, z, x and z, x, y
    parts = [script.product(f"part{k}{j}", turns[j], axes[k]) for k in (0, 1) for j in (0, 1)]
    return script.custom("last", parts, "a*d-b*c")


def _superposed(script: Script, cv: LatentCV, positions: list[str]) -> list[str]:
    """The rotation that brings centred positions closest to the reference: `superposition.superpose` in actions.

    In the plane from two sums. In space the largest eigenvector of Horn's matrix, 10.1364/JOSAA.4.000629; its
    16 entries are sums over the beads too.
    """
    assert isinstance(cv.featurizer, Reference)
    reference = np.asarray(cv.featurizer.template(), np.float64)
    weights = mass_fractions(cv)[:, None]
    reference = weights * (reference - (weights * reference).sum(axis=0))
    reference = reference / np.abs(reference).max()  # a rotation has no scale
    if cv.featurizer.mirror or (cv.n_dims == 2 and cv.featurizer.planar == "3d"):
        positions = _unmirrored(script, reference, positions)
    if cv.n_dims == 2:
        x, y = positions
        (ax, ay), names = reference.T, ("xx", "yx", "xy", "yy")
        sums = [
            script.dot(f"cov_{n}", v, a) for n, v, a in zip(names, (x, x, y, y), (ax, ay, ax, ay), strict=True)
        ]
        turn = [script.custom("unit_c", sums, "(a+d)/sqrt((a+d)^2+(b-c)^2)")]
        turn.append(script.custom("unit_s", sums, "(b-c)/sqrt((a+d)^2+(b-c)^2)"))
        return [script.custom("ax", [x, y, *turn], "a*c-b*d"), script.custom("ay", [x, y, *turn], "a*d+b*c")]
    together = script.put("turned", f"CONCATENATE ARG={','.join(positions)}")
    columns = [
        script.product(f"horn{k}", script.constant(f"horn{k}_c", rows.reshape(4, -1)), together)
        for k, rows in enumerate(_horn(reference))
    ]
    script.put("horn", f"VSTACK ARG={','.join(columns)}")
    script.put("quaternion", "DIAGONALIZE ARG=vae_horn VECTORS=1")
    q = [script.element(f"q{k}", "vae_quaternion.vecs-1", k) for k in range(4)]
    entries = (
        ("a*a+b*b-c*c-d*d", "2*(b*c-a*d)", "2*(b*d+a*c)"),
        ("2*(b*c+a*d)", "a*a-b*b+c*c-d*d", "2*(c*d-a*b)"),
        ("2*(b*d-a*c)", "2*(c*d+a*b)", "a*a-b*b-c*c+d*d"),
    )
    aligned = []
    for i, row in enumerate(entries):
        rotation = [script.custom(f"rot{i}{k}", q, entry) for k, entry in enumerate(row)]
        aligned.append(script.custom(f"aligned{i}", [*positions, *rotation], "a*d+b*f+c*g"))
    return aligned


def _horn(reference: np.ndarray) -> np.ndarray:
    """(4, 4, 3, n_beads) coefficients of all x, y, z in Horn's matrix for turning positions onto the reference."""

    def moment(k, m):  # sum_i r_ik a_im
        coefficients = np.zeros((3, len(reference)))
        coefficients[k] = reference[:, m]
        return coefficients

    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = [[moment(k, m) for m in range(3)] for k in range(3)]
    return np.array(
        [
            [xx + yy + zz, yz - zy, zx - xz, xy - yx],
            [yz - zy, xx - yy - zz, xy + yx, zx + xz],
            [zx - xz, xy + yx, yy - xx - zz, yz + zy],
            [xy - yx, zx + xz, yz + zy, zz - xx - yy],
        ]
    )


def _unmirrored(script: Script, reference: np.ndarray, positions: list[str]) -> list[str]:
    """Positions as they are or mirrored, whichever a proper rotation brings closer to the reference."""
    axes = range(len(positions))
    h = [script.dot(f"h{i}{k}", positions[k], reference[:, i]) for i in axes for k in axes]
    if len(positions) == 2:
        sign = script.sign("hand", script.custom("det", h, "a*d-b*c"))
        return [positions[0], script.custom("y_right", [positions[1], sign], "a*b")]
    sign = script.sign("hand", script.custom("det", h, "a*(f*j-g*i)-b*(d*j-g*h)+c*(d*i-f*h)"))
    return [script.custom(f"{c}_right", [v, sign], "a*b") for c, v in zip("xyz", positions, strict=True)]


def _distances(script: Script, cv: LatentCV, numbers: list[int]) -> str:
    def vector(label, beads):
        pairs = " ".join(f"ATOMS{k + 1}={beads[i]},{beads[j]}" for k, (i, j) in enumerate(pairs_of))
        return script.put(label, f"DISTANCE NOPBC {pairs}")

    assert isinstance(cv.featurizer, PairDistances)
    pairs_of = np.asarray(cv.featurizer.pairs).tolist()
    here = vector("distances", numbers)
    if not cv.featurizer.reversal:
        return here
    forward = _forward(script, cv, _turned(script, cv, numbers, ""))
    return script.custom("ordered_d", [here, vector("backwards", numbers[::-1]), forward], "c*a+(1-c)*b")
