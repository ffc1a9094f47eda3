/* The latents of latent_cv.c as an action of PLUMED, LATENT_CV, whose components are z0, z1, ...

   latent: LATENT_CV ATOMS=1-12

   ATOMS are the beads, in the order of the model. The molecule is made whole along its bonds first; NOPBC takes it
   as it is. Source: the PLUMED developer manual, https://www.plumed.org/doc (how to add a new collective variable). */

#include "plumed/colvar/Colvar.h"
#include "plumed/config/version.h"
#include "plumed/core/ActionRegister.h"

#define LATENT_CV_API [[maybe_unused]] static
#include "latent_cv.c"

namespace {

class LatentCV : public PLMD::colvar::Colvar {
    bool nopbc = false;
    std::vector<double> positions, gradients;
    std::vector<PLMD::Vector> whole;

public:
    static void registerKeywords(PLMD::Keywords &keys)
    {
        PLMD::colvar::Colvar::registerKeywords(keys);
        keys.add("atoms", "ATOMS", "the beads, in the order of the model");
        for (int a = 0; a < LATENTS; a++)
#if PLUMED_VERSION_MINOR >= 10
            keys.addOutputComponent("z" + std::to_string(a), "default", "scalar", "a latent coordinate");
#else
            keys.addOutputComponent("z" + std::to_string(a), "default", "a latent coordinate");
#endif
    }

    explicit LatentCV(const PLMD::ActionOptions &options)
        : PLUMED_COLVAR_INIT(options), positions(COORDINATES), gradients(LATENTS * COORDINATES), whole(BEADS)
    {
        std::vector<PLMD::AtomNumber> atoms;
        parseAtomList("ATOMS", atoms);
        parseFlag("NOPBC", nopbc);
        if (atoms.size() != BEADS)
            error("the model takes " + std::to_string(BEADS) + " atoms; got " + std::to_string(atoms.size()));
        checkRead();
        for (int a = 0; a < LATENTS; a++) {
            addComponentWithDerivatives("z" + std::to_string(a));
            componentIsNotPeriodic("z" + std::to_string(a));
        }
        requestAtoms(atoms);
    }

    void calculate() override
    {
        double z[LATENTS];
        for (int i = 0; i < BEADS; i++)
            whole[i] = getPosition(i);
        for (int b = 0; !nopbc && b < LINKS; b++) {
            const PLMD::Vector &from = whole[links[2 * b]];
            PLMD::Vector &to = whole[links[2 * b + 1]];
            to = from + pbcDistance(from, to);
        }
        for (int i = 0; i < BEADS; i++)
            for (int k = 0; k < DIMS; k++)
                positions[i * DIMS + k] = whole[i][k];
        if (latent_cv(positions.data(), z, gradients.data()))
            error("the latents are not finite; check the coordinates");
        const double *gradient = gradients.data();
        for (int a = 0; a < LATENTS; a++) {
            PLMD::Value *value = getPntrToComponent(a);
            PLMD::Tensor virial;
            for (int i = 0; i < BEADS; i++) {
                PLMD::Vector slope;
                for (int k = 0; k < DIMS; k++)
                    slope[k] = *gradient++;
                setAtomsDerivatives(value, i, slope);
                virial -= PLMD::Tensor(whole[i], slope);
            }
            setBoxDerivatives(value, virial);
            value->set(z[a]);
        }
    }
};

PLUMED_REGISTER_ACTION(LatentCV, "LATENT_CV")

} // namespace
