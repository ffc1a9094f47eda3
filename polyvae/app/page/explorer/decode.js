// The decoder: a latent point to a conformation, as `LatentCV.decode(z, coordinates=True)` in Python.

const REFINEMENTS = 100;
const SETTLED = 1e-8; // of the size, that a conformation has still to move when refinement ends

/** A function of z that gives positions, bead by bead, in the model's unit; null where the page has no decoder. */
function decoder(data) {
  const { model, n_dims: dims, n_beads: n } = data;
  if (model.missing) return null;
  const layers = model.layers.map((layer) => ({
    ...layer, weight: unpacked(layer.weight, "f4"), bias: unpacked(layer.bias, "f4"),
  }));
  const mean = unpacked(model.mean, "f4"), scale = unpacked(model.scale, "f4");

  /** The mean features at a latent point: layers with tanh between them, then their own unit. */
  function features(z) {
    let input = z;
    layers.forEach(({ n_in, n_out, weight, bias }, k) => {
      const output = new Float64Array(n_out), last = k === layers.length - 1;
      for (let o = 0, w = 0; o < n_out; o++) {
        let sum = bias[o];
        for (let i = 0; i < n_in; i++, w++) sum += weight[w] * input[i];
        output[o] = last ? sum * scale[scale.length > 1 ? o : 0] + mean[o] : Math.tanh(sum);
      }
      input = output;
    });
    return input;
  }

  if (!model.pairs) return Object.assign(features, { features });
  const pairs = unpacked(model.pairs, "u4");
  const fitted = fromDistances(pairs, model.n_joined, dims);
  const decode = (z) => {
    const x = fitted(features(z).map((d) => Math.max(d, 0)));
    return model.every === 1 ? x : straightBetween(x, model.every, n, dims);
  };
  return Object.assign(decode, { features });
}

/**
 * A function of the distances of pairs that gives the positions whose distances come closest: classical scaling of
 * shortest paths (Torgerson, 10.1007/BF02288916), then steps of SMACOF (de Leeuw, 10.1007/BF01897162).
 */
function fromDistances(pairs, n, dims) {
  const inverse = pairs.length === n * (n - 1) ? null : inverseLaplacian(pairs, n);
  const [x, y, z, u, v, w] = Array.from({ length: 6 }, () => new Float64Array(n)); // places and pulls; z is 0 in 2-D

  /** One step of SMACOF; returns the largest move. */
  function refine(distances) {
    u.fill(0);
    v.fill(0);
    w.fill(0);
    for (let k = 0, p = 0; k < distances.length; k++, p += 2) {
      const i = pairs[p], j = pairs[p + 1], dx = x[i] - x[j], dy = y[i] - y[j], dz = z[i] - z[j];
      const squared = dx * dx + dy * dy + dz * dz;
      if (squared === 0) continue;
      const ratio = distances[k] / Math.sqrt(squared);
      u[i] += ratio * dx;
      v[i] += ratio * dy;
      w[i] += ratio * dz;
      u[j] -= ratio * dx;
      v[j] -= ratio * dy;
      w[j] -= ratio * dz;
    }
    let most = 0;
    for (let i = 0, k = 0; i < n; i++) {
      let a = 0, b = 0, c = 0;
      if (inverse)
        for (let j = 0; j < n; j++, k++) {
          a += inverse[k] * u[j];
          b += inverse[k] * v[j];
          c += inverse[k] * w[j];
        }
      else [a, b, c] = [u[i] / n, v[i] / n, w[i] / n]; // the sum of each over all beads is 0
      most = Math.max(most, Math.abs(a - x[i]), Math.abs(b - y[i]), Math.abs(c - z[i]));
      x[i] = a;
      y[i] = b;
      z[i] = c;
    }
    return most;
  }

  return (distances) => {
    const start = classicalScaling(distances, pairs, n, dims), axes = [x, y, z].slice(0, dims);
    start.forEach((value, k) => (axes[k % dims][Math.floor(k / dims)] = value));
    const size = start.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    let before = Infinity;
    for (let step = 0; step < REFINEMENTS; step++) {
      const move = refine(distances), rate = move / before;
      // Moves shrink by a factor each, so that this is about what is left of them.
      if (step > 2 && rate < 1 && (move * rate) / (1 - rate) < SETTLED * size) break;
      before = move;
    }
    return inPrincipalFrame(Float64Array.from(start, (_, k) => axes[k % dims][Math.floor(k / dims)]), dims);
  };
}

/** The inverse of the Laplacian of joined pairs on what is orthogonal to a common shift. */
function inverseLaplacian(pairs, n) {
  const laplacian = new Float64Array(n * n).fill(1 / n);
  for (let k = 0; k < pairs.length; k += 2) {
    const i = pairs[k], j = pairs[k + 1];
    laplacian[i * n + i]++;
    laplacian[j * n + j]++;
    laplacian[i * n + j]--;
    laplacian[j * n + i]--;
  }
  return inverseSymmetric(laplacian, n).map((value) => value - 1 / n);
}

function classicalScaling(distances, pairs, n, dims) {
  const paths = new Float64Array(n * n).fill(Infinity);
  for (let k = 0; k < distances.length; k++)
    paths[pairs[2 * k] * n + pairs[2 * k + 1]] = paths[pairs[2 * k + 1] * n + pairs[2 * k]] = distances[k];
  for (let i = 0; i < n; i++) paths[i * n + i] = 0;
  for (let k = 0; k < n; k++)
    for (let i = 1; i < n; i++) {
      const first = paths[i * n + k], onward = k * n;
      for (let j = 0; j < i; j++) {
        const way = first + paths[onward + j];
        if (way < paths[i * n + j]) paths[i * n + j] = paths[j * n + i] = way;
      }
    }
  const rows = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) rows[i] += paths[i * n + j] ** 2 / n;
  const all = rows.reduce((sum, row) => sum + row, 0) / n;
  const gram = new Float64Array(n * n);
  for (let i = 0, k = 0; i < n; i++)
    for (let j = 0; j < n; j++, k++) gram[k] = -0.5 * (paths[k] * paths[k] - rows[i] - rows[j] + all);
  const { values, vectors } = largestOf(gram, n, Math.min(n, dims));
  const x = new Float64Array(n * dims);
  for (let a = 0; a < Math.min(n, dims); a++)
    for (let i = 0; i < n; i++) x[i * dims + a] = vectors[a][i] * Math.sqrt(Math.max(values[a], 0));
  return x;
}

/** Positions in their principal axes, largest extent first, each axis along the chain moment: of two mirror images,
 * which distances do not tell apart, always the same. */
function inPrincipalFrame(x, dims) {
  const r = centred(x, dims), n = r.length / dims;
  const moment = new Float64Array(dims), tensor = new Float64Array(dims * dims);
  for (let i = 0; i < n; i++)
    for (let a = 0; a < dims; a++) {
      moment[a] += (i - (n - 1) / 2) * r[i * dims + a];
      for (let b = 0; b < dims; b++) tensor[a * dims + b] += r[i * dims + a] * r[i * dims + b];
    }
  const axes = new Float64Array(dims * dims);
  eigenSymmetric(tensor, dims).vectors.forEach((axis, k) => {
    const along = axis.reduce((sum, value, a) => sum + value * moment[a], 0);
    axis.forEach((value, a) => (axes[k * dims + a] = along < 0 ? -value : value));
  });
  return rotated(r, axes, dims);
}

/** All beads of a chain from every k-th, the others on straight lines between these. */
function straightBetween(x, every, n, dims) {
  const all = new Float64Array(n * dims), last = x.length / dims - 2;
  for (let i = 0; i < n; i++) {
    const left = Math.min(Math.floor(i / every), last), along = i / every - left;
    for (let a = 0; a < dims; a++)
      all[i * dims + a] = (1 - along) * x[left * dims + a] + along * x[(left + 1) * dims + a];
  }
  return inPrincipalFrame(all, dims);
}
