"""The names of `polyvae.plot`, each with the module that holds it."""

from polyvae.plot.chains import optimum_structures as optimum_structures
from polyvae.plot.chains import overlay as overlay
from polyvae.plot.chains import side_by_side as side_by_side
from polyvae.plot.chains import structure as structure
from polyvae.plot.chains import structures as structures
from polyvae.plot.choosing import sweep as sweep
from polyvae.plot.curves import latent_marginals as latent_marginals
from polyvae.plot.curves import marginals as marginals
from polyvae.plot.curves import optimization as optimization
from polyvae.plot.curves import training as training
from polyvae.plot.energies import free_energy as free_energy
from polyvae.plot.energies import free_energy_checks as free_energy_checks
from polyvae.plot.energies import free_energy_with_error as free_energy_with_error
from polyvae.plot.latent import latent_trajectory as latent_trajectory
from polyvae.plot.latent import latent_values as latent_values
from polyvae.plot.run import CAPTIONS as CAPTIONS
from polyvae.plot.run import save_figures as save_figures
from polyvae.plot.style import save as save
