// Where the frames are in a plane: density on a grid, by their weights, and the free energy -ln of it.

const CELLS = 90;

/**
 * Density of points on a grid of `CELLS` x `CELLS` over [x0, x1] x [y0, y1]: a histogram, smoothed by half of Scott's
 * width, since latents come in clusters. Rows run along y.
 */
function densityOf(x, y, weights, [x0, x1], [y0, y1]) {
  const grid = new Float64Array(CELLS * CELLS);
  let sum = 0, squares = 0;
  for (let k = 0; k < x.length; k++) {
    const weight = weights ? weights[k] : 1;
    const i = Math.floor(((x[k] - x0) / (x1 - x0)) * CELLS), j = Math.floor(((y[k] - y0) / (y1 - y0)) * CELLS);
    sum += weight;
    squares += weight * weight;
    if (i >= 0 && i < CELLS && j >= 0 && j < CELLS) grid[j * CELLS + i] += weight;
  }
  const effective = squares > 0 ? (sum * sum) / squares : 1;
  const width = Math.max(1.5, (CELLS / 8) * effective ** (-1 / 6));
  return smoothed(smoothed(grid, width, 1, CELLS), width, CELLS, 1);
}

function smoothed(grid, width, step, across) {
  const reach = Math.ceil(3.5 * width), result = new Float64Array(grid.length);
  const kernel = Array.from({ length: reach + 1 }, (_, k) => Math.exp(-0.5 * (k / width) ** 2));
  const total = kernel.reduce((sum, value, k) => sum + (k ? 2 : 1) * value, 0);
  for (let row = 0; row < CELLS; row++)
    for (let i = 0; i < CELLS; i++) {
      const value = grid[row * across + i * step];
      if (value === 0) continue;
      for (let k = -reach; k <= reach; k++)
        if (i + k >= 0 && i + k < CELLS) result[row * across + (i + k) * step] += (value * kernel[Math.abs(k)]) / total;
    }
  return result;
}

/** Free energy in kT above the deepest cell; infinite where no frame is near. */
function freeEnergyOf(density) {
  const most = density.reduce((a, b) => Math.max(a, b), 0);
  return density.map((value) => (value > 0 ? -Math.log(value / most) : Infinity));
}

/** The share of the frames, by weight, that lie where the density is at least that of each cell. */
function sharesOf(density) {
  const order = Array.from(density.keys()).sort((i, j) => density[j] - density[i]);
  const total = density.reduce((sum, value) => sum + value, 0), shares = new Float64Array(density.length);
  let held = 0;
  for (const cell of order) {
    held += density[cell] / total;
    shares[cell] = density[cell] > 0 ? held : Infinity;
  }
  return shares;
}

/** Values between the middles of four cells, at places from 0 to 1 across the grid. */
function between(grid, u, v) {
  const x = clamp(u * CELLS - 0.5, 0, CELLS - 1.001), y = clamp(v * CELLS - 0.5, 0, CELLS - 1.001);
  const i = Math.floor(x), j = Math.floor(y), a = x - i, b = y - j, k = j * CELLS + i;
  return (
    (1 - b) * ((1 - a) * grid[k] + a * grid[k + 1]) + b * ((1 - a) * grid[k + CELLS] + a * grid[k + CELLS + 1])
  );
}
