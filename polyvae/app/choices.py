"""The names that options take.

They are listed here as words, so that help and completion are shown without the seconds that loading JAX takes. A
test compares them with the tables of the modules that hold what they mean.
"""

# By the name of `--align`: the public name of the featurizer.
FEATURIZERS = {"auto": None, "principal": "PrincipalAxes", "reference": "Reference", "distances": "PairDistances"}
OBJECTIVES = ("rg", "end_to_end", "asphericity", "shape_anisotropy")
TARGETS = ("plumed", "colvars", "lammps", "openmm", "pysages", "c", "torchscript")
FIGURES = ("png", "pdf", "svg")
TRAJECTORIES = (".npz", ".xtc", ".dcd", ".pdb", ".gro")
PATHS = ("straight", "data")
PRIORS = ("normal", "data")
BETA_SCHEDULES = ("constant", "warmup", "cycle")
LR_SCHEDULES = ("cosine", "plateau", "constant")
TABLES = ("COLVAR", "csv", "npz")
