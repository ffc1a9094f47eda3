// Canvases in two layers, a still one and a live one above it, and the plane of the latents drawn on them.

/** The two layers of an element; `sized` is called once its size is known, and whenever it changes. */
function layers(stage, sized) {
  const canvases = ["still", "live"].map((name) => {
    const canvas = document.createElement("canvas");
    canvas.className = `x-${name}`;
    canvas.setAttribute("aria-hidden", "true");
    stage.append(canvas);
    return canvas;
  });
  const found = { width: 0, height: 0, still: canvases[0].getContext("2d"), live: canvases[1].getContext("2d") };
  const fit = () => {
    const { clientWidth: width, clientHeight: height } = stage, scale = window.devicePixelRatio || 1;
    if (!width || !height || (width === found.width && height === found.height && scale === found.scale)) return;
    Object.assign(found, { width, height, scale });
    for (const canvas of canvases) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
      canvas.getContext("2d").setTransform(scale, 0, 0, scale, 0, 0);
    }
    sized();
  };
  new ResizeObserver(fit).observe(stage);
  return Object.assign(found, { fit });
}

/** Round numbers, about `wanted` of them, within a range. */
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((k) => k * power >= rough) * power;
  const found = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) found.push(k * step + 0); // no minus zero
  return found;
}

/** A number as one reads it: three digits, all before the point, thousands apart; zeros at the end where it is `full`. */
function shown(value, digits = 3, full = false) {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace("-", "−");
  const places = size === 0 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size)));
  const form = { minimumFractionDigits: full ? places : 0, maximumFractionDigits: places };
  return value.toLocaleString("en", form).replace("-", "−");
}

/** Dots at places, in the colours of a share each, those that are not selected faint and beneath. */
function drawDots(context, x, y, shares, selected, radius, theme) {
  const buckets = Array.from({ length: SHADES }, () => []), faint = [];
  for (let k = 0; k < x.length; k++) {
    if (selected && !selected[k]) faint.push(k);
    else buckets[Math.round(shares[k] * (SHADES - 1))].push(k);
  }
  const dot = (k, size) => {
    if (size < 1.4) context.rect(x[k] - size, y[k] - size, 2 * size, 2 * size);
    else {
      context.moveTo(x[k] + size, y[k]);
      context.arc(x[k], y[k], size, 0, 2 * Math.PI);
    }
  };
  const fill = (points, colour, size) => {
    context.fillStyle = colour;
    context.beginPath();
    for (const k of points) dot(k, size);
    context.fill();
  };
  fill(faint, css(theme.soft, 0.22), 0.8 * radius);
  buckets.forEach((points, k) => fill(points, css(theme.shades[k], selected ? 1 : 0.8), selected ? 1.25 * radius : radius));
}

const BANDS = 6; // of 1 kT each
const SHARES = [0.25, 0.5, 0.75, 0.95]; // of the frames, that the contours of the density hold

/** How the levels beneath the frames are coloured: the deepest first. */
function bandColours(beneath, theme) {
  const n = beneath === "energy" ? BANDS : SHARES.length, most = theme.dark ? 0.3 : 0.26;
  return Array.from({ length: n }, (_, k) => mixed(theme.paper, theme.soft, most * (1 - k / n) + 0.04));
}

class Plane {
  constructor(stage, world, sized) {
    Object.assign(this, { world, layers: layers(stage, sized), x: null, y: null });
  }

  /** Take two columns as axes: where each frame lies, and what is beneath. */
  setAxes(x, y) {
    Object.assign(this, { x, y, box: null, grid: null });
  }

  /** Places of all frames, once for each size and pair of axes. */
  layout() {
    const { width, height } = this.layers;
    if (this.box && this.box.of === `${width} ${height}`) return;
    const left = 46, bottom = 38, right = 10, top = 10;
    this.box = { left, top, width: width - left - right, height: height - top - bottom, of: `${width} ${height}` };
    const pad = ([low, high]) => [low - 0.1 * (high - low), high + 0.1 * (high - low)];
    let [x, y] = [this.x, this.y].map((column) =>
      column.latent === null ? extent(column.values) : pad(extent(column.values)));
    if (this.x.latent !== null && this.y.latent !== null) {
      const perX = (x[1] - x[0]) / this.box.width, perY = (y[1] - y[0]) / this.box.height, per = Math.max(perX, perY);
      const widened = ([low, high], size) => [(low + high - per * size) / 2, (low + high + per * size) / 2];
      [x, y] = [widened(x, this.box.width), widened(y, this.box.height)];
    }
    this.bounds = [x, y];
    this.px = Float32Array.from(this.x.values, (value) => this.toPixel(value, this.y.values[0])[0]);
    this.py = Float32Array.from(this.y.values, (value) => this.toPixel(this.x.values[0], value)[1]);
    this.image = null;
  }

  toPixel(x, y) {
    const [[x0, x1], [y0, y1]] = this.bounds, { left, top, width, height } = this.box;
    return [left + ((x - x0) / (x1 - x0)) * width, top + ((y1 - y) / (y1 - y0)) * height];
  }

  toPlane(px, py) {
    const [[x0, x1], [y0, y1]] = this.bounds, { left, top, width, height } = this.box;
    return [x0 + ((px - left) / width) * (x1 - x0), y1 - ((py - top) / height) * (y1 - y0)];
  }

  /** Where a latent point lies; along an axis that is no latent, where `when` says. */
  pixelOf({ z, when }) {
    const [x, y] = [this.x, this.y].map((column) => (column.latent !== null ? z[column.latent] : when));
    return this.toPixel(x, y);
  }

  /** The point at a place: its latents and, where an axis is no latent, the value there, else null. */
  pointAt(px, py) {
    const [x, y] = this.toPlane(px, py);
    return { z: this.latentsAt(px, py), when: this.x.latent === null ? x : this.y.latent === null ? y : null };
  }

  /**
   * The latent point at a place of the plane. Latents that the plane does not show take the mean of the frames near
   * that place, by their weights, within a width of 12 pixels, or further where there are none.
   */
  latentsAt(px, py) {
    const { world, x, y } = this, z = new Float64Array(world.latents.length), place = this.toPlane(px, py);
    if ([x, y].filter((column) => column.latent !== null).length < z.length) {
      const squared = this.px.map((value, k) => (value - px) ** 2 + (this.py[k] - py) ** 2);
      let least = Infinity, total = 0;
      for (const value of squared) if (value < least) least = value;
      for (let k = 0; k < squared.length; k++) {
        const weight = (world.weights ? world.weights[k] + 1e-12 : 1) * Math.exp((least - squared[k]) / 288);
        total += weight;
        for (let a = 0; a < z.length; a++) z[a] += weight * world.latents[a].values[k];
      }
      for (let a = 0; a < z.length; a++) z[a] /= total;
    }
    if (x.latent !== null) z[x.latent] = place[0];
    if (y.latent !== null) z[y.latent] = place[1];
    return z;
  }

  /** The frame, of those whose coordinates are here, that lies nearest to a place. */
  frameAt(px, py) {
    let nearest = 0, least = Infinity;
    for (const k of this.world.carried) {
      const squared = (this.px[k] - px) ** 2 + (this.py[k] - py) ** 2;
      if (squared < least) [least, nearest] = [squared, k];
    }
    return nearest;
  }

  /** What may lie beneath: a free energy is one of latents, and over time there is none. */
  beneathOf(wanted) {
    return wanted === "energy" && (this.x.latent === null || this.y.latent === null) ? "density" : wanted;
  }

  /** The density, once for each pair of axes, with the kernels that Python takes for these latents. */
  density() {
    const { weights, data } = this.world;
    const widths = [this.x, this.y].map(({ latent }) => (latent === null ? 0 : data.widths[latent]));
    return (this.grid ??= densityOf(this.x.values, this.y.values, weights, widths));
  }

  /** Of the grid's values, or of others on it, what is at a place of the plane. */
  valueAt(place, values = this.density().values, outside = 0) {
    return between(this.density(), values, ...place, outside);
  }

  /** The levels beneath, each pixel in the colour of its band. */
  levels(beneath, theme) {
    const { left, top, width, height } = this.box, grid = this.density();
    const columns = Math.max(1, Math.round(width)), rows = Math.max(1, Math.round(height));
    const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
    const context = canvas.getContext("2d"), image = context.createImageData(columns, rows);
    const colours = bandColours(beneath, theme), energy = beneath === "energy";
    const values = energy ? grid.values : sharesOf(grid.values), outside = energy ? 0 : 1.01;
    const most = grid.values.reduce((a, b) => Math.max(a, b), 0);
    for (let row = 0, k = 0; row < rows; row++)
      for (let column = 0; column < columns; column++, k += 4) {
        const place = this.toPlane(left + ((column + 0.5) / columns) * width, top + ((row + 0.5) / rows) * height);
        const value = this.valueAt(place, values, outside);
        const band = energy ? Math.floor(-Math.log(value / most)) : SHARES.findIndex((share) => value <= share);
        if (!(band >= 0 && band < colours.length)) continue;
        [image.data[k], image.data[k + 1], image.data[k + 2]] = colours[band];
        image.data[k + 3] = 255;
      }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  drawStill(state, theme) {
    const { still: context, width, height } = this.layers, { left, top, width: w, height: h } = this.box;
    context.clearRect(0, 0, width, height);
    context.fillStyle = css(theme.paper);
    context.fillRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(left, top, w, h);
    context.clip();
    const beneath = this.beneathOf(state.beneath);
    if (beneath !== "nothing") {
      const key = [beneath, theme.dark, theme.paper].join();
      if (!this.image || this.image.key !== key) this.image = { key, canvas: this.levels(beneath, theme) };
      context.drawImage(this.image.canvas, left, top, w, h);
    }
    if (this.x.latent !== null && this.y.latent !== null) this.drawPrior(context, theme);
    const radius = clamp(Math.sqrt((0.035 * w * h) / this.px.length / Math.PI), 0.85, 3.2);
    drawDots(context, this.px, this.py, state.shares, state.selected, radius, theme);
    context.restore();
    this.drawAxes(context, theme);
  }

  /** Circles at one and two standard deviations of the prior. */
  drawPrior(context, theme) {
    context.strokeStyle = css(theme.soft, 0.55);
    context.lineWidth = 1;
    context.setLineDash([1.5, 4]);
    const [cx, cy] = this.toPixel(0, 0);
    for (const r of [1, 2]) {
      context.beginPath();
      context.arc(cx, cy, this.toPixel(r, 0)[0] - cx, 0, 2 * Math.PI);
      context.stroke();
    }
    context.setLineDash([]);
  }

  drawAxes(context, theme) {
    const { left, top, width, height } = this.box, [xs, ys] = this.bounds;
    context.strokeStyle = css(theme.line);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left + 0.5, top);
    context.lineTo(left + 0.5, top + height + 0.5);
    context.lineTo(left + width, top + height + 0.5);
    context.stroke();
    context.fillStyle = css(theme.soft);
    context.font = `12px ${theme.font}`;
    context.textAlign = "center";
    context.textBaseline = "top";
    for (const value of ticks(...xs, clamp(width / 60, 3, 9))) {
      const [px] = this.toPixel(value, ys[0]);
      context.fillText(shown(value), px, top + height + 6);
    }
    context.textAlign = "right";
    context.textBaseline = "middle";
    for (const value of ticks(...ys, clamp(height / 50, 3, 9))) {
      const [, py] = this.toPixel(xs[0], value);
      if (py > top + 16) context.fillText(shown(value), left - 7, py);
    }
    context.fillStyle = css(theme.ink);
    context.font = `600 12px ${theme.font}`;
    context.textBaseline = "bottom";
    context.fillText(this.x.label, left + width, top + height + 36);
    context.textBaseline = "middle";
    if (this.y.latent !== null) return context.fillText(this.y.label, left - 7, top + 5);
    context.save();
    context.translate(10, top);
    context.rotate(-Math.PI / 2);
    context.fillText(this.y.label, 0, 0);
    context.restore();
  }

  drawLive(state, theme) {
    const { live: context, width, height } = this.layers, { left, top, width: w, height: h } = this.box;
    context.clearRect(0, 0, width, height);
    context.save();
    context.beginPath();
    context.rect(left, top, w, h);
    context.clip();
    if (state.trail.length > 1) this.drawTrail(context, state.trail, theme);
    if (state.path.length > 1) {
      const way = state.path.map((point) => this.pixelOf(point));
      this.stroke(context, way, 5, css(theme.paper, 0.9));
      this.stroke(context, way, 2, css(theme.ink));
    }
    const [px, py] = this.pixelOf(state);
    if (state.nearest !== null) {
      const nx = this.px[state.nearest], ny = this.py[state.nearest];
      this.stroke(context, [[px, py], [nx, ny]], 1, css(theme.soft));
      this.ring(context, nx, ny, 4.5, theme, css(theme.soft), theme.paper);
    }
    context.strokeStyle = css(theme.ink, 0.22);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(left, py);
    context.lineTo(left + w, py);
    context.moveTo(px, top);
    context.lineTo(px, top + h);
    context.stroke();
    this.ring(context, px, py, 7, theme, css(theme.ink), state.held ? theme.ink : null);
    context.restore();
  }

  /** Both layers on the upper one: of two canvases, one over the other, browsers print but one. */
  flatten() {
    const { live: context, still, width, height } = this.layers;
    context.globalCompositeOperation = "destination-over";
    context.drawImage(still.canvas, 0, 0, width, height);
    context.globalCompositeOperation = "source-over";
  }

  ring(context, x, y, radius, theme, colour, fill) {
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    if (fill) {
      context.fillStyle = css(fill);
      context.fill();
    }
    context.strokeStyle = css(theme.paper);
    context.lineWidth = 4;
    context.stroke();
    context.strokeStyle = colour;
    context.lineWidth = 2;
    context.stroke();
  }

  stroke(context, points, width, colour) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.lineJoin = context.lineCap = "round";
    context.beginPath();
    points.forEach(([x, y], k) => (k ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.stroke();
  }

  /** The way that led here, fading with age; no line joins two segments. */
  drawTrail(context, trail, theme) {
    for (let k = 1; k < trail.length; k++) {
      const [one, other] = [trail[k - 1], trail[k]];
      if (this.world.segment[one] !== this.world.segment[other]) continue;
      const ends = [one, other].map((frame) => [this.px[frame], this.py[frame]]);
      this.stroke(context, ends, 1.6, css(theme.ink, 0.7 * (k / trail.length) ** 1.5));
    }
  }
}
