// The run as the page has it: columns of numbers, and the conformations that are carried.

/** The run as columns of numbers by frame, and the coordinates of the frames that the page carries. */
function worldOf(data) {
  const frames = unpacked(data.frames, "u4"), z = unpacked(data.z, "f4"), n = frames.length, d = data.latent_dim;
  const latents = Array.from({ length: d }, (_, k) => ({
    name: `z${k}`, label: `z${k}`, latent: k, values: Float32Array.from({ length: n }, (_, i) => z[i * d + k]),
  }));
  const measures = data.values.map(({ name, unit, data: text }) => ({
    name, unit, latent: null, label: unit ? `${name} (${unit})` : name,
    values: unpacked(text, "f8"),
  }));
  const clock = measures.find(({ name }) => name === "time" || name === "frame");
  const segment = new Uint32Array(n);
  for (let k = 0, piece = 0; k < n; k++) {
    while (data.starts[piece + 1] <= frames[k]) piece++;
    segment[k] = piece;
  }
  const spread = latents.map(({ values }) => {
    const mean = values.reduce((sum, value) => sum + value / n, 0);
    return Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2 / n, 0)) || 1;
  });
  const { points, step, x } = data.carried, size = data.n_beads * data.n_dims, numbers = unpacked(x, "i2");
  const carried = unpacked(points, "u4"), placeOf = new Map(Array.from(carried, (point, k) => [point, k]));
  const reaches = Float64Array.from(carried, (_, k) => {
    let reach = 0;
    for (let i = k * size; i < (k + 1) * size; i += data.n_dims)
      reach = Math.max(reach, Math.hypot(...numbers.subarray(i, i + data.n_dims)));
    return step * reach;
  }).sort();
  return {
    data, n, frames, latents, measures, clock, segment, carried, reach: reaches[Math.floor(0.6 * (carried.length - 1))] || 1,
    weights: data.weights ? unpacked(data.weights, "f4") : null,
    origin: data.origin ? unpacked(data.origin, "u4") : null,

    /** Coordinates of a frame by its place among the points; null where the page does not carry them. */
    conformation(point) {
      const k = placeOf.get(point);
      return k === undefined ? null : Float64Array.from(numbers.subarray(k * size, (k + 1) * size), (q) => q * step);
    },

    /** The carried frame that is nearest in the order of time; they are evenly spaced. */
    beside: (point) => carried[Math.round((point / Math.max(n - 1, 1)) * (carried.length - 1))],

    latentsOf: (point) => Float64Array.from(latents, ({ values }) => values[point]),

    /** The carried frame that is nearest in the latents, each by its spread. */
    nearest(at) {
      let found = carried[0], least = Infinity;
      for (const point of carried) {
        let squared = 0;
        for (let k = 0; k < d; k++) squared += ((z[point * d + k] - at[k]) / spread[k]) ** 2;
        if (squared < least) [least, found] = [squared, point];
      }
      return found;
    },
  };
}
