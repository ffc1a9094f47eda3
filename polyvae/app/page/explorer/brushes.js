// A histogram and a course in time, over which one drags a range of frames.

const BARS = 48;

/** A strip with a range to drag, to move by arrow keys, and to clear by a click or Escape. */
class Brush {
  constructor(stage, drawn, changed) {
    Object.assign(this, { stage, drawn, changed, range: null, bounds: [0, 1] });
    this.layers = layers(stage, () => changed(false));
    this.listen();
  }

  setColumn(column, bounds) {
    Object.assign(this, { column, bounds, range: null });
  }

  toPixel(value) {
    const [low, high] = this.bounds;
    return 2 + ((value - low) / (high - low)) * (this.layers.width - 4);
  }

  toValue(px) {
    const [low, high] = this.bounds;
    return clamp(low + ((px - 2) / (this.layers.width - 4)) * (high - low), low, high);
  }

  set(range) {
    const [low, high] = this.bounds;
    this.range = range && [clamp(range[0], low, high), clamp(range[1], low, high)];
    this.changed(true);
  }

  /** The range moved by a share of the strip, its ends apart or together. */
  shift(lower, upper) {
    const size = this.bounds[1] - this.bounds[0], [low, high] = this.range || this.bounds;
    const moved = [low + lower * size, high + upper * size];
    if (moved[1] - moved[0] > 0.005 * size && moved[0] >= this.bounds[0] - 1e-9 * size && moved[1] <= this.bounds[1] + 1e-9 * size)
      this.set(moved);
  }

  listen() {
    const { stage } = this;
    const place = (event) => this.toValue(event.clientX - stage.getBoundingClientRect().left);
    let from = null, grip = null;
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      stage.setPointerCapture(event.pointerId);
      from = place(event);
      grip = this.range && from > this.range[0] && from < this.range[1] ? [...this.range] : null;
    });
    stage.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const value = place(event), [low, high] = this.bounds;
      if (!grip) this.set([Math.min(from, value), Math.max(from, value)]);
      else {
        const by = clamp(value - from, low - grip[0], high - grip[1]);
        this.set([grip[0] + by, grip[1] + by]);
      }
    });
    stage.addEventListener("pointerup", (event) => {
      if (from !== null && Math.abs(this.toPixel(place(event)) - this.toPixel(from)) < 3) this.set(null);
      from = null;
    });
    stage.addEventListener("pointercancel", () => (from = null));
    stage.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (event.key === "Escape") this.set(null);
      else if (step && !this.range) this.set(step < 0 ? [this.bounds[0], this.middle(0.8)] : [this.middle(0.2), this.bounds[1]]);
      else if (step && event.shiftKey) this.shift(0, step);
      else if (step && event.altKey) this.shift(step, 0);
      else if (step) this.shift(step, step);
      else return;
      event.preventDefault();
    });
  }

  middle(share) {
    return this.bounds[0] + share * (this.bounds[1] - this.bounds[0]);
  }

  drawStill(state, theme) {
    const { still: context, width, height } = this.layers;
    context.clearRect(0, 0, width, height);
    this.drawn(this, context, state, theme);
    context.strokeStyle = css(theme.line);
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(0, height - 0.5);
    context.lineTo(width, height - 0.5);
    context.stroke();
  }

  /** The range, and where the shown frame or conformation is. */
  drawLive(mark, theme) {
    const { live: context, width, height } = this.layers;
    context.clearRect(0, 0, width, height);
    if (this.range) {
      const [low, high] = this.range.map((value) => this.toPixel(value));
      context.fillStyle = css(theme.soft, 0.16);
      context.fillRect(low, 0, high - low, height);
      context.fillStyle = css(theme.ink);
      for (const end of [low, high]) context.fillRect(end - 1, 0, 2, height);
    }
    if (mark === null || !Number.isFinite(mark)) return;
    const px = clamp(this.toPixel(mark), 1, width - 1);
    context.strokeStyle = css(theme.paper);
    context.lineWidth = 4;
    for (const pass of [0, 1]) {
      if (pass) [context.strokeStyle, context.lineWidth] = [css(theme.ink), 1.5];
      context.beginPath();
      context.moveTo(px, 0);
      context.lineTo(px, height);
      context.stroke();
    }
  }
}

/** Bars of the values by their weights, in the colours of the plane; what is not selected is faint. */
function drawHistogram(brush, context, state, theme) {
  const { values } = brush.column, [low, high] = brush.bounds, { width, height } = brush.layers;
  const all = new Float64Array(BARS), chosen = new Float64Array(BARS);
  for (let k = 0; k < values.length; k++) {
    const bar = clamp(Math.floor(((values[k] - low) / (high - low)) * BARS), 0, BARS - 1);
    const weight = state.weights ? state.weights[k] : 1;
    all[bar] += weight;
    if (!state.selected || state.selected[k]) chosen[bar] += weight;
  }
  const most = Math.max(...all), step = (width - 4) / BARS;
  for (let k = 0; k < BARS; k++) {
    const [top, kept] = [all[k], chosen[k]].map((value) => ((height - 5) * value) / most);
    const colour = brush.coloured ? theme.shades[Math.round((k / (BARS - 1)) * (SHADES - 1))] : theme.soft;
    context.fillStyle = css(theme.soft, 0.22);
    context.fillRect(2 + k * step + 0.5, height - top, step - 1, top);
    context.fillStyle = css(colour);
    context.fillRect(2 + k * step + 0.5, height - kept, step - 1, kept);
  }
}

/** The values in the order of time, a dot each. */
function drawCourse(brush, context, state, theme) {
  const { values } = state.course, [low, high] = extent(state.course.values), { height } = brush.layers;
  const x = brush.column.values.map((value) => brush.toPixel(value));
  const y = Float32Array.from(values, (value) => height - 5 - ((value - low) / (high - low)) * (height - 10));
  drawDots(context, x, y, state.shares, state.selected, values.length > 3000 ? 0.7 : 1, theme);
}
