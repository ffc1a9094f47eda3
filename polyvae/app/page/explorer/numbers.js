// Arrays from base64, and the little linear algebra that decoding and drawing need.

const KINDS = { u4: Uint32Array, f4: Float32Array, f8: Float64Array, i2: Int16Array };

/** The numbers that Python packed, little end first, as every browser's machine has them. */
function unpacked(text, kind) {
  const characters = atob(text);
  const bytes = new Uint8Array(characters.length);
  for (let k = 0; k < bytes.length; k++) bytes[k] = characters.charCodeAt(k);
  return new KINDS[kind](bytes.buffer);
}

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Smallest and largest of finite numbers, never the same. */
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (!(high > low)) return [low - 0.5, low + 0.5];
  return [low, high];
}

/**
 * Eigenvalues, largest first, and eigenvectors as rows, of a symmetric matrix n x n: cyclic Jacobi rotations, until
 * what is off the diagonal is below rounding.
 */
function eigenSymmetric(matrix, n) {
  const a = Float64Array.from(matrix), v = new Float64Array(n * n);
  for (let i = 0; i < n; i++) v[i * n + i] = 1;
  let size = 0;
  for (let i = 0; i < n * n; i++) size += a[i] * a[i];
  for (let sweep = 0; sweep < 60; sweep++) {
    let off = 0;
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) off += a[p * n + q] ** 2;
    if (off <= 1e-30 * size) break;
    for (let p = 0; p < n; p++) {
      for (let q = p + 1; q < n; q++) {
        const apq = a[p * n + q];
        if (apq === 0) continue;
        const theta = (a[q * n + q] - a[p * n + p]) / (2 * apq);
        const tan = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
        const cos = 1 / Math.sqrt(tan * tan + 1), sin = tan * cos;
        for (let k = 0; k < n; k++) {
          const kp = a[k * n + p], kq = a[k * n + q];
          a[k * n + p] = cos * kp - sin * kq;
          a[k * n + q] = sin * kp + cos * kq;
        }
        for (let k = 0; k < n; k++) {
          const pk = a[p * n + k], qk = a[q * n + k], vp = v[p * n + k], vq = v[q * n + k];
          a[p * n + k] = cos * pk - sin * qk;
          a[q * n + k] = sin * pk + cos * qk;
          v[p * n + k] = cos * vp - sin * vq;
          v[q * n + k] = sin * vp + cos * vq;
        }
      }
    }
  }
  const order = Array.from({ length: n }, (_, i) => i).sort((i, j) => a[j * n + j] - a[i * n + i]);
  return {
    values: order.map((i) => a[i * n + i]),
    vectors: order.map((i) => v.subarray(i * n, (i + 1) * n)),
  };
}

/**
 * The largest eigenvalues of a symmetric matrix n x n, `wanted` of them, and their vectors: by iteration of a block
 * of vectors that starts with rows of the matrix; of small matrices, or where that takes long, by `eigenSymmetric`.
 */
function largestOf(matrix, n, wanted) {
  const m = wanted + 5;
  if (n <= 4 * m) return eigenSymmetric(matrix, n);
  let block = Array.from({ length: m }, (_, k) => {
    const row = Math.floor((k * (n - 1)) / (m - 1));
    return matrix.slice(row * n, (row + 1) * n);
  });
  const times = (v) => {
    const result = new Float64Array(n);
    for (let i = 0, k = 0; i < n; i++) {
      let sum = 0;
      for (let j = 0; j < n; j++, k++) sum += matrix[k] * v[j];
      result[i] = sum;
    }
    return result;
  };
  for (let pass = 0; pass < 60; pass++) {
    for (let twice = 0; twice < 2; twice++)
      for (let k = 0; k < m; k++) {
        for (let l = 0; l < k; l++) {
          const along = dot(block[k], block[l]);
          for (let i = 0; i < n; i++) block[k][i] -= along * block[l][i];
        }
        const size = Math.sqrt(dot(block[k], block[k]));
        if (!(size > 0)) return eigenSymmetric(matrix, n);
        for (let i = 0; i < n; i++) block[k][i] /= size;
      }
    const images = block.map(times), inner = new Float64Array(m * m);
    for (let k = 0; k < m; k++) for (let l = 0; l < m; l++) inner[k * m + l] = dot(block[k], images[l]);
    const { values, vectors } = eigenSymmetric(inner, m);
    const mixed = (parts, weights) => {
      const result = new Float64Array(n);
      parts.forEach((part, k) => {
        for (let i = 0; i < n; i++) result[i] += weights[k] * part[i];
      });
      return result;
    };
    const most = Math.max(Math.abs(values[0]), Math.abs(values[m - 1]));
    const best = vectors.slice(0, wanted).map((weights) => mixed(block, weights));
    const settled = best.every((vector, k) => {
      const image = mixed(images, vectors[k]);
      return image.every((value, i) => Math.abs(value - values[k] * vector[i]) < 1e-9 * most);
    });
    if (settled) return { values: values.slice(0, wanted), vectors: best };
    block = vectors.map((weights) => mixed(images, weights));
  }
  return eigenSymmetric(matrix, n);
}

function dot(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

/** Inverse of a symmetric matrix n x n. */
function inverseSymmetric(matrix, n) {
  const { values, vectors } = eigenSymmetric(matrix, n);
  const inverse = new Float64Array(n * n);
  for (let k = 0; k < n; k++)
    for (let i = 0; i < n; i++)
      for (let j = 0; j < n; j++) inverse[i * n + j] += (vectors[k][i] * vectors[k][j]) / values[k];
  return inverse;
}

/** Positions, bead by bead, about their mean. */
function centred(x, dims) {
  const n = x.length / dims, mean = new Float64Array(dims), result = new Float64Array(x.length);
  for (let i = 0; i < x.length; i++) mean[i % dims] += x[i] / n;
  for (let i = 0; i < x.length; i++) result[i] = x[i] - mean[i % dims];
  return result;
}

/** Positions turned, or turned and mirrored, to come closest to others: both about their mean. */
function superposed(x, onto, dims) {
  const product = new Float64Array(dims * dims), square = new Float64Array(dims * dims);
  for (let i = 0; i < x.length; i += dims)
    for (let a = 0; a < dims; a++) for (let b = 0; b < dims; b++) product[a * dims + b] += onto[i + a] * x[i + b];
  for (let a = 0; a < dims; a++)
    for (let b = 0; b < dims; b++)
      for (let c = 0; c < dims; c++) square[a * dims + b] += product[c * dims + a] * product[c * dims + b];
  const { values, vectors } = eigenSymmetric(square, dims);
  if (!(values[dims - 1] > 1e-12 * values[0])) return x; // a rod, or one point: any turn about it will do
  const turn = new Float64Array(dims * dims);
  for (let a = 0; a < dims; a++)
    for (let b = 0; b < dims; b++)
      for (let k = 0; k < dims; k++)
        for (let c = 0; c < dims; c++)
          turn[a * dims + b] += (product[a * dims + c] * vectors[k][c] * vectors[k][b]) / Math.sqrt(values[k]);
  return rotated(x, turn, dims);
}

/** Every position turned by a matrix. */
function rotated(x, matrix, dims) {
  const result = new Float64Array(x.length);
  for (let i = 0; i < x.length; i += dims)
    for (let a = 0; a < dims; a++) for (let b = 0; b < dims; b++) result[i + a] += matrix[a * dims + b] * x[i + b];
  return result;
}
