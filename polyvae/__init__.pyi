"""The public names, each with the module that holds it: for type checkers, and for `__init__.py`."""

from polyvae import plot as plot
from polyvae.app.explorer import explore as explore
from polyvae.cv.fitting import fit as fit
from polyvae.cv.generator import fit_generator as fit_generator
from polyvae.cv.latent import LatentCV as LatentCV
from polyvae.cv.latent import load as load
from polyvae.errors import InputError as InputError
from polyvae.features.featurizers import (
    PairDistances as PairDistances,
)
from polyvae.features.featurizers import (
    PrincipalAxes as PrincipalAxes,
)
from polyvae.features.featurizers import (
    Reference as Reference,
)
from polyvae.geometry.shape import (
    acylindricity as acylindricity,
)
from polyvae.geometry.shape import (
    asphericity as asphericity,
)
from polyvae.geometry.shape import (
    contacts as contacts,
)
from polyvae.geometry.shape import (
    end_to_end as end_to_end,
)
from polyvae.geometry.shape import (
    radius_of_gyration as radius_of_gyration,
)
from polyvae.geometry.shape import (
    shape_anisotropy as shape_anisotropy,
)
from polyvae.geometry.superposition import rmsd as rmsd
from polyvae.io.colvar import write_colvar as write_colvar
from polyvae.io.reading import read as read
from polyvae.io.reading import stream as stream
from polyvae.io.tables import Colvar as Colvar
from polyvae.io.tables import read_colvar as read_colvar
from polyvae.io.writing import write as write
from polyvae.measures.free_energy import FreeEnergy as FreeEnergy
from polyvae.measures.free_energy import free_energy as free_energy
from polyvae.measures.limits import Check as Check
from polyvae.measures.limits import Limits as Limits
from polyvae.measures.limits import check_conformations as check_conformations
from polyvae.plot.movie import movie as movie
from polyvae.progress import progress_bar as progress_bar
from polyvae.tasks.adapting import Adapted as Adapted
from polyvae.tasks.adapting import adapt as adapt
from polyvae.tasks.explanation import Explanation as Explanation
from polyvae.tasks.explanation import explain as explain
from polyvae.tasks.optimization import optimize as optimize
from polyvae.tasks.optimum import Optimum as Optimum
from polyvae.tasks.paths import LatentPath as LatentPath
from polyvae.tasks.paths import interpolate as interpolate
from polyvae.tasks.paths import latent_grid as latent_grid
from polyvae.tasks.projection import project as project
from polyvae.tasks.relaxation import Relaxed as Relaxed
from polyvae.tasks.relaxation import chain_energy as chain_energy
from polyvae.tasks.relaxation import relax as relax
from polyvae.tasks.sampling import sample as sample
from polyvae.tasks.scoring import score as score
from polyvae.tasks.sweeps import Sweep as Sweep
from polyvae.tasks.sweeps import sweep as sweep
from polyvae.tasks.tables import Tables as Tables
from polyvae.tasks.tables import transform_many as transform_many
from polyvae.trajectory.convert import as_trajectory as as_trajectory
from polyvae.trajectory.record import Trajectory as Trajectory
from polyvae.trajectory.stream import Stream as Stream
from polyvae.vae.check import check_vae as check_vae
from polyvae.vae.fitting import fit_vae as fit_vae
from polyvae.vae.likelihood import Bernoulli as Bernoulli
from polyvae.vae.likelihood import Categorical as Categorical
from polyvae.vae.likelihood import Gaussian as Gaussian
from polyvae.vae.model import FittedVAE as FittedVAE
from polyvae.vae.settings import Training as Training

__version__: str
