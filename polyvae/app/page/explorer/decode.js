// The decoder: a latent point to a conformation, as `LatentCV.decode(z, coordinates=True)` in Python.

const REFINEMENTS = 100;

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
  const joined = new Float64Array(n * n);
  for (let k = 0; k < pairs.length; k += 2) joined[pairs[k] * n + pairs[k + 1]] = joined[pairs[k + 1] * n + pairs[k]] = 1;
  const laplacian = new Float64Array(n * n).fill(1 / n);
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      laplacian[i * n + i] += joined[i * n + j];
      laplacian[i * n + j] -= joined[i * n + j];
    }
  const inverse = inverseSymmetric(laplacian, n).map((value) => value - 1 / n);

  return (distances) => {
    const target = new Float64Array(n * n), paths = new Float64Array(n * n).fill(Infinity);
    for (let k = 0; k < distances.length; k++) {
      const i = pairs[2 * k], j = pairs[2 * k + 1];
      target[i * n + j] = target[j * n + i] = paths[i * n + j] = paths[j * n + i] = distances[k];
    }
    let x = classicalScaling(paths, n, dims);
    for (let step = 0; step < REFINEMENTS; step++) {
      const moved = new Float64Array(n * dims);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < i; j++) {
          if (target[i * n + j] === 0) continue;
          let squared = 0;
          for (let a = 0; a < dims; a++) squared += (x[i * dims + a] - x[j * dims + a]) ** 2;
          if (squared === 0) continue;
          const ratio = target[i * n + j] / Math.sqrt(squared);
          for (let a = 0; a < dims; a++) {
            const pull = ratio * (x[i * dims + a] - x[j * dims + a]);
            moved[i * dims + a] += pull;
            moved[j * dims + a] -= pull;
          }
        }
      x = new Float64Array(n * dims);
      for (let i = 0; i < n; i++)
        for (let j = 0; j < n; j++)
          for (let a = 0; a < dims; a++) x[i * dims + a] += inverse[i * n + j] * moved[j * dims + a];
    }
    return inPrincipalFrame(x, dims);
  };
}

function classicalScaling(paths, n, dims) {
  for (let i = 0; i < n; i++) paths[i * n + i] = 0;
  for (let k = 0; k < n; k++)
    for (let i = 0; i < n; i++) {
      const first = paths[i * n + k];
      for (let j = 0; j < n; j++) {
        const way = first + paths[k * n + j];
        if (way < paths[i * n + j]) paths[i * n + j] = way;
      }
    }
  const rows = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < n; j++) rows[i] += paths[i * n + j] ** 2 / n;
  const all = rows.reduce((sum, row) => sum + row, 0) / n;
  const gram = paths.map((d, k) => -0.5 * (d * d - rows[Math.floor(k / n)] - rows[k % n] + all));
  const { values, vectors } = eigenSymmetric(gram, n);
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
