// Where the frames are in a plane: their weighted density on a grid over the data, whatever the window shows of it.

const CELLS = [60, 300]; // of a grid along each axis, least and most

/**
 * Density of points, smoothed by Gaussian kernels of a width along each axis. The grid reaches three widths over the
 * points and has two cells a width, or as many as there may be. Rows run along y.
 */
function densityOf(x, y, weights, widths) {
  const axes = [x, y].map((values, k) => {
    const [low, high] = extent(values), width = widths[k] || (high - low) / 30;
    const n = clamp(Math.ceil((2 * (high - low)) / width) + 12, ...CELLS);
    const size = Math.max((high - low + 6 * width) / n, width / 4), from = (low + high - n * size) / 2;
    return { n, size, from, width: Math.max(0.5, width / size) };
  });
  const [across, up] = axes, values = new Float64Array(across.n * up.n);
  for (let k = 0; k < x.length; k++) {
    const i = Math.floor((x[k] - across.from) / across.size), j = Math.floor((y[k] - up.from) / up.size);
    values[clamp(j, 0, up.n - 1) * across.n + clamp(i, 0, across.n - 1)] += weights ? weights[k] : 1;
  }
  const rows = smoothed(values, across.width, across.n, 1, up.n, across.n);
  return { values: smoothed(rows, up.width, up.n, across.n, across.n, 1), across, up };
}

/** Lines of n numbers, `step` apart within a line, smoothed by a kernel of a width in cells. */
function smoothed(grid, width, n, step, lines, across) {
  const reach = Math.ceil(6 * width), result = new Float64Array(grid.length);
  const kernel = Array.from({ length: reach + 1 }, (_, k) => Math.exp(-0.5 * (k / width) ** 2));
  const total = kernel.reduce((sum, value, k) => sum + (k ? 2 : 1) * value, 0);
  for (let line = 0; line < lines; line++)
    for (let i = 0; i < n; i++) {
      const value = grid[line * across + i * step] / total;
      if (value === 0) continue;
      for (let k = Math.max(-reach, -i); k <= Math.min(reach, n - 1 - i); k++)
        result[line * across + (i + k) * step] += value * kernel[Math.abs(k)];
    }
  return result;
}

/** The share of the frames, by weight, that lie where the density is at least that of each cell. */
function sharesOf(density) {
  const order = Array.from(density.keys()).sort((i, j) => density[j] - density[i]);
  const total = density.reduce((sum, value) => sum + value, 0), shares = new Float64Array(density.length);
  let held = 0;
  for (const cell of order) {
    held += density[cell] / total;
    shares[cell] = density[cell] > 0 ? Math.min(held, 1) : 1.01;
  }
  return shares;
}

/** Values between the middles of four cells at a place of the plane; beyond the grid `outside`. */
function between({ across, up }, values, x, y, outside) {
  const u = (x - across.from) / across.size - 0.5, v = (y - up.from) / up.size - 0.5;
  const i = Math.floor(u), j = Math.floor(v), a = u - i, b = v - j, k = j * across.n + i;
  if (i < 0 || j < 0 || i >= across.n - 1 || j >= up.n - 1) return outside;
  return (
    (1 - b) * ((1 - a) * values[k] + a * values[k + 1]) +
    b * ((1 - a) * values[k + across.n] + a * values[k + across.n + 1])
  );
}
