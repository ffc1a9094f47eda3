"""The names of `polyvae.measures`, each with the module that holds it."""

from polyvae.measures.density import log_density as log_density
from polyvae.measures.ensembles import ensemble_distances as ensemble_distances
from polyvae.measures.ensembles import frame_weights as frame_weights
from polyvae.measures.ensembles import noise_floor as noise_floor
from polyvae.measures.kinetics import autocorrelation_time as autocorrelation_time
from polyvae.measures.kinetics import timescales as timescales
from polyvae.measures.kinetics import vamp2 as vamp2
from polyvae.measures.limits import Check as Check
from polyvae.measures.limits import Limits as Limits
from polyvae.measures.limits import check_conformations as check_conformations
from polyvae.measures.limits import limits_of as limits_of
