// The chain beside the plane: beads and bonds, shaded and turned in 3-D, nearest last.

const FOGS = 5; // steps of fading with depth

class Chain {
  constructor(stage, data, reach, sized) {
    Object.assign(this, { data, reach, layers: layers(stage, sized), sprites: [] });
    this.dims = data.n_dims;
    this.home();
  }

  home() {
    this.turn = Float64Array.from([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    if (this.dims === 3) this.rotate(0.35, -0.45);
  }

  /** Turn what is seen, about the upright axis and about the level one. */
  rotate(about, over) {
    const [ca, sa, co, so] = [Math.cos(about), Math.sin(about), Math.cos(over), Math.sin(over)];
    const step = [ca, 0, sa, so * sa, co, -so * ca, -co * sa, so, co * ca];
    const turned = new Float64Array(9);
    for (let i = 0; i < 3; i++)
      for (let j = 0; j < 3; j++) for (let k = 0; k < 3; k++) turned[3 * i + j] += step[3 * i + k] * this.turn[3 * k + j];
    this.turn = turned;
  }

  /** A shaded bead in a shade of the ramp, and so far off as a number up to `FOGS` says; drawn once, copied then. */
  sprite(shade, fog, theme) {
    const key = shade * (FOGS + 1) + fog;
    if (this.sprites[key]) return this.sprites[key];
    const size = this.data.n_beads > 60 ? 32 : 64, half = size / 2, { paper } = theme, colour = theme.shades[shade];
    const canvas = Object.assign(document.createElement("canvas"), { width: size, height: size });
    const context = canvas.getContext("2d"), light = context.createRadialGradient(0.36 * size, 0.32 * size, 1, half, half, half);
    const far = (one) => css(mixed(one, paper, (0.45 * fog) / FOGS));
    light.addColorStop(0, far(mixed(colour, [255, 255, 255], 0.62)));
    light.addColorStop(0.45, far(colour));
    light.addColorStop(1, far(mixed(colour, [0, 0, 0], theme.dark ? 0.42 : 0.34)));
    context.fillStyle = light;
    context.beginPath();
    context.arc(half, half, half - 0.5, 0, 2 * Math.PI);
    context.fill();
    return (this.sprites[key] = canvas);
  }

  /** Pixels for a unit of length: one scale for nearly all conformations, smaller where one is too long for it. */
  fit(conformations) {
    const { width, height } = this.layers, { dims, turn } = this, usual = (0.46 * Math.min(width, height)) / this.reach;
    let across = 0, up = 0;
    for (const x of conformations)
      for (let i = 0; x && i < x.length; i += dims) {
        const [a, b, c] = [x[i], x[i + 1], dims === 3 ? x[i + 2] : 0];
        across = Math.max(across, Math.abs(turn[0] * a + turn[1] * b + turn[2] * c));
        up = Math.max(up, Math.abs(turn[3] * a + turn[4] * b + turn[5] * c));
      }
    this.scale = Math.min(usual, (0.44 * width) / across, (0.44 * height) / up);
  }

  /** Places on the canvas (x, y, depth from 0, far, to 1), bead by bead. */
  project(x) {
    const { width, height } = this.layers, { dims, turn, scale } = this;
    const n = x.length / dims, found = new Float64Array(3 * n);
    for (let i = 0; i < n; i++) {
      const [a, b, c] = [x[i * dims], x[i * dims + 1], dims === 3 ? x[i * dims + 2] : 0];
      const depth = clamp((turn[6] * a + turn[7] * b + turn[8] * c) / this.reach, -1, 1);
      const near = dims === 3 ? 1 + 0.12 * depth : 1;
      found[3 * i] = width / 2 + near * scale * (turn[0] * a + turn[1] * b + turn[2] * c);
      found[3 * i + 1] = height / 2 - near * scale * (turn[3] * a + turn[4] * b + turn[5] * c);
      found[3 * i + 2] = (1 + depth) / 2;
    }
    return found;
  }

  /** Draw the decoded conformation with what it breaks, and a real one along; either may be null. */
  draw(decoded, broken, real, theme) {
    if (this.painted !== theme) Object.assign(this, { painted: theme, sprites: [] });
    const { live: context, width, height } = this.layers;
    context.clearRect(0, 0, width, height);
    this.fit([decoded, real]);
    if (real) this.drawReal(context, this.project(real), theme);
    if (decoded) this.drawSolid(context, this.project(decoded), broken, theme);
  }

  get beadRadius() {
    return clamp(0.33 * this.scale * (this.bond || 1), 1.6, 15);
  }

  drawReal(context, places, theme) {
    const { bonds } = this.data, radius = 0.62 * this.beadRadius;
    context.strokeStyle = css(theme.soft, 0.75);
    context.lineWidth = Math.max(1, 0.3 * radius);
    context.lineCap = "round";
    context.beginPath();
    for (let k = 0; k < bonds.length; k += 2) {
      context.moveTo(places[3 * bonds[k]], places[3 * bonds[k] + 1]);
      context.lineTo(places[3 * bonds[k + 1]], places[3 * bonds[k + 1] + 1]);
    }
    context.stroke();
    context.fillStyle = css(theme.paper);
    context.lineWidth = 1.25;
    context.beginPath();
    for (let i = 0; i < places.length; i += 3) {
      context.moveTo(places[i] + radius, places[i + 1]);
      context.arc(places[i], places[i + 1], radius, 0, 2 * Math.PI);
    }
    context.fill();
    context.stroke();
  }

  drawSolid(context, places, broken, theme) {
    const { bonds } = this.data, n = places.length / 3, flat = this.dims === 2, radius = this.beadRadius;
    const parts = [];
    for (let i = 0; i < n; i++) parts.push([places[3 * i + 2] + (flat ? 1 : 1e-6), i, -1]);
    for (let k = 0; k < bonds.length; k += 2) {
      const [one, other] = [places[3 * bonds[k] + 2], places[3 * bonds[k + 1] + 2]], bad = broken && broken.bonds.has(k / 2);
      // A bond too short would hide beneath its own beads.
      parts.push([bad ? Math.max(one, other) + (flat ? 2 : 2e-6) : (one + other) / 2, bonds[k], bonds[k + 1], bad]);
    }
    parts.sort((one, other) => one[0] - other[0]);
    context.lineCap = "butt";
    const shade = (i) => Math.round((i / Math.max(n - 1, 1)) * (SHADES - 1));
    for (const [depth, i, j, bad] of parts) {
      const near = flat ? 1 : clamp(depth, 0, 1);
      if (j < 0) {
        const size = radius * (flat ? 1 : 0.8 + 0.4 * near);
        if (broken && broken.beads.has(i)) this.halo(context, places[3 * i], places[3 * i + 1], size + 2, theme);
        const fog = flat ? 0 : Math.round(FOGS * clamp((0.75 - near) / 0.75, 0, 1));
        context.drawImage(this.sprite(shade(i), fog, theme), places[3 * i] - size, places[3 * i + 1] - size, 2 * size, 2 * size);
        continue;
      }
      const fogged = flat ? 0 : 0.6 * clamp(0.72 - near, 0, 1);
      const colour = bad ? theme.bad : mixed(theme.shades[shade((i + j) / 2)], theme.paper, 0.25);
      context.strokeStyle = css(mixed(colour, theme.paper, fogged));
      context.lineWidth = (bad ? 0.42 : 0.62) * radius * (flat ? 1 : 0.8 + 0.4 * near);
      context.setLineDash(bad ? [0.5 * radius, 0.25 * radius] : []);
      context.beginPath();
      context.moveTo(places[3 * i], places[3 * i + 1]);
      context.lineTo(places[3 * j], places[3 * j + 1]);
      context.stroke();
    }
    context.setLineDash([]);
  }

  halo(context, x, y, radius, theme) {
    context.strokeStyle = css(theme.bad);
    context.lineWidth = 1.75;
    context.setLineDash([]);
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    context.stroke();
  }
}
