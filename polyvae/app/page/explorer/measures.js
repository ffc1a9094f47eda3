// What is measured of a conformation: its size, and which of the data's limits it breaks.

const ROUNDING = 1e-4; // of a limit, as in polyvae.measures.limits
const FAR = 4; // bonds apart, from which on all pairs are of one kind

/** By the masses of the beads, where they differ. */
function radiusOfGyration(x, dims, masses) {
  const n = x.length / dims, mass = (i) => (masses ? masses[i] : 1), middle = new Float64Array(dims);
  let whole = 0, squares = 0;
  for (let i = 0; i < n; i++) whole += mass(i);
  for (let i = 0; i < x.length; i++) middle[i % dims] += (mass(Math.floor(i / dims)) * x[i]) / whole;
  for (let i = 0; i < x.length; i++) squares += mass(Math.floor(i / dims)) * (x[i] - middle[i % dims]) ** 2;
  return Math.sqrt(squares / whole);
}

function distance(x, i, j, dims) {
  let squared = 0;
  for (let a = 0; a < dims; a++) squared += (x[i * dims + a] - x[j * dims + a]) ** 2;
  return Math.sqrt(squared);
}

const endToEnd = (x, dims) => distance(x, 0, x.length / dims - 1, dims);

/** Root mean square distance of the beads of two conformations as they lie. */
function deviation(x, y, dims) {
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) ** 2;
  return Math.sqrt((sum * dims) / x.length);
}

/** A function of a conformation that tells which limits it breaks: bonds and beads by number, and words. */
function limitsOf(data) {
  const { limits, bonds, n_beads: n, n_dims: dims } = data;
  if (!limits) return () => null;
  const apart = limits.apart ? bondsApart(n, bonds) : null;
  const below = (value, limit) => value < (1 - ROUNDING) * limit;
  const above = (value, limit) => value > (1 + ROUNDING) * limit;
  const count = (k, one, many) => (k ? [`${k} ${k === 1 ? one : many}`] : []);

  return (x) => {
    const found = { bonds: new Set(), beads: new Set(), kinds: new Set(), words: [] };
    let total = 0, short = 0, long = 0;
    for (let k = 0; k < bonds.length; k += 2) {
      const length = distance(x, bonds[k], bonds[k + 1], dims);
      total += length;
      if (below(length, limits.bond[0])) short++;
      else if (above(length, limits.bond[1])) long++;
      else continue;
      found.bonds.add(k / 2);
    }
    if (found.bonds.size) found.kinds.add("bond");
    found.words.push(...count(short, "bond too short", "bonds too short"));
    found.words.push(...count(long, "bond too long", "bonds too long"));
    const mean = total / (bonds.length / 2), [low, high] = limits.mean_bond;
    if (below(mean, low) || above(mean, high)) {
      found.kinds.add("mean bond");
      found.words.push(`mean bond too ${below(mean, low) ? "short" : "long"}`);
    }
    if (!apart) return found;

    const sums = [0, 0], counts = [0, 0], free = [];
    let close = 0;
    for (let i = 0, k = 0; i < n; i++)
      for (let j = i + 1; j < n; j++, k++) {
        if (apart[k] === 1) continue;
        const length = distance(x, i, j, dims), far = apart[k] - 2;
        free.push(length);
        if (far < 2) {
          sums[far] += length;
          counts[far]++;
        }
        if (below(length, limits.apart[far])) {
          close++;
          found.beads.add(i).add(j);
        }
      }
    if (close) found.kinds.add("pair");
    found.words.push(...count(close, "pair too close", "pairs too close"));
    if (limits.mean_apart.some((limit, k) => below(sums[k] / Math.max(counts[k], 1), limit))) {
      found.kinds.add("bend");
      found.words.push("bends too sharp");
    }
    const closest = Float64Array.from(free).sort().subarray(0, n);
    const contacts = closest.reduce((sum, value) => sum + value, 0) / Math.max(closest.length, 1);
    if (below(contacts, limits.contacts)) {
      found.kinds.add("contacts");
      found.words.push("contacts too close");
    }
    return found;
  };
}

/** How many bonds apart the beads of each pair are, in the order (0, 1), (0, 2), ..., at most `FAR`. */
function bondsApart(n, bonds) {
  const neighbours = Array.from({ length: n }, () => []);
  for (let k = 0; k < bonds.length; k += 2) {
    neighbours[bonds[k]].push(bonds[k + 1]);
    neighbours[bonds[k + 1]].push(bonds[k]);
  }
  const apart = new Uint8Array((n * (n - 1)) / 2).fill(FAR);
  for (let i = 0, start = 0; i < n; start += n - 1 - i, i++) {
    const seen = new Set([i]);
    let edge = [i];
    for (let k = 1; k < FAR; k++) {
      edge = [...new Set(edge.flatMap((bead) => neighbours[bead]))].filter((bead) => !seen.has(bead));
      for (const bead of edge) {
        seen.add(bead);
        if (bead > i) apart[start + bead - i - 1] = k;
      }
    }
  }
  return apart;
}
