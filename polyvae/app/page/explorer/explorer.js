// What the page knows, what it shows at the moment, and what each control does.

const PATH_STEPS = 100; // of a walk along a path
const SAVED_STEPS = 50; // conformations of a path that is saved
const TRAIL = 40; // frames of the way that led here

/** Bring one explorer to life. */
function startExplorer(root) {
  const data = JSON.parse(root.querySelector(".x-data").textContent);
  const world = worldOf(data), decode = decoder(data), limitsBroken = limitsOf(data), dims = data.n_dims;
  const find = (name) => root.querySelector(`[data-do="${name}"]`);
  const see = Object.fromEntries(Array.from(root.querySelectorAll("[data-see]"), (part) => [part.dataset.see, part]));
  const ends = world.measures.find(({ name }) => name === "end-to-end"); // of chains that have two ends
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  const state = {
    z: null, when: null, frame: null, held: false, nearest: null, path: [], trail: [], beneath: "energy", selected: null,
    weights: world.weights, measure: null, shares: null, bounds: null, showDecoded: Boolean(decode), showReal: true,
    walking: "run", playing: false, drawing: false,
  };
  let theme = themeOf(root), stillDirty = true, liveDirty = true, scheduled = false, shownNow = {};

  const draw = (all = true) => {
    stillDirty ||= all;
    liveDirty = true;
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => {
      scheduled = false;
      drawNow();
    });
  };
  const plane = new Plane(see.plane, world, () => draw());
  const chain = new Chain(see.chain, data, world.reach, () => draw());
  if (data.limits) chain.bond = (data.limits.mean_bond[0] + data.limits.mean_bond[1]) / 2;
  const histogram = new Brush(see.histogram, drawHistogram, brushed);
  const course = new Brush(see.course, drawCourse, brushed);

  function drawNow() {
    for (const { layers: layer } of [plane, chain, histogram, course]) layer.fit();
    if (![plane, chain, histogram, course].every(({ layers: layer }) => layer.width)) return;
    if (stillDirty) {
      plane.layout();
      plane.drawStill(state, theme);
      histogram.drawStill(state, theme);
      course.drawStill(state, theme);
    }
    if (liveDirty) {
      look();
      plane.drawLive(state, theme);
      chain.draw(shownNow.decoded, shownNow.broken, shownNow.real, theme);
      histogram.drawLive(shownNow.mark, theme);
      course.drawLive(world.clock.values[state.frame ?? state.nearest], theme);
    }
    stillDirty = liveDirty = false;
  }

  /** The frame to draw along: next in time to the one that is shown, near in the plane of time, or in the latents. */
  function nearestFrame() {
    if (state.frame !== null) return world.beside(state.frame);
    const timed = plane.x.latent === null || plane.y.latent === null;
    return timed ? plane.frameAt(...plane.pixelOf(state)) : world.nearest(state.z);
  }

  /** Decode the shown point, measure it, and put the numbers down. */
  function look() {
    const own = state.frame !== null && world.conformation(state.frame);
    state.nearest = own ? state.frame : nearestFrame();
    let real = own || world.conformation(state.nearest);
    const decoded = decode ? decode(state.z) : null, measured = decoded || real;
    if (decoded && data.model.pairs) real = superposed(real, decoded, dims);
    const broken = decoded ? limitsBroken(decoded) : null, frame = state.nearest;
    const computed = { Rg: radiusOfGyration, "end-to-end": endToEnd }[state.measure.name];
    const mark = decoded && computed ? computed(decoded, dims, data.masses) : state.measure.values[state.frame ?? frame];
    shownNow = {
      decoded: decoded ? (state.showDecoded ? decoded : null) : real, broken, mark, measured,
      real: decoded && state.showReal ? real : null,
    };
    const unit = data.unit, rows = [
      [`Rg (${unit})`, decoded && radiusOfGyration(decoded, dims, data.masses), world.measures[0].values[frame]],
    ];
    if (ends) rows.push([`end-to-end (${unit})`, decoded && endToEnd(decoded, dims), ends.values[frame]]);
    if (!computed && state.measure !== world.clock) rows.push([state.measure.label, null, state.measure.values[frame]]);
    world.latents.forEach(({ name, values }, k) => rows.push([name, state.z[k], values[frame]]));
    if (decoded) rows.push([`apart, RMSD (${unit})`, null, deviation(decoded, real, dims)]);
    write(see.numbers, rows);
    see["real-name"].textContent = `${own ? "" : "nearest "}frame ${shown(world.frames[frame], 9)}`;
    see.verdict.classList.toggle("x-bad", Boolean(broken && broken.words.length));
    see.verdict.textContent = !broken ? "" : broken.words.length
      ? `A mean of conformations, outside the data’s limits: ${broken.words.join(", ")}.` : "Within the limits of the data.";
    const when = world.clock.name === "time" ? `, ${world.clock.label.replace(" (", " ").replace(")", "")}` : "";
    if (state.walking === "path") see.place.textContent = `step ${Number(find("slider").value) + 1} of ${PATH_STEPS}`;
    else if (state.frame === null) see.place.textContent = "";
    else {
      const time = world.clock.values[state.frame];
      see.place.textContent = `frame ${shown(world.frames[state.frame], 9)}` +
        (when ? ` · ${shown(time, 6)} ${world.clock.unit}` : "");
    }
  }

  /** Rows of a table, its cells made once and written to then. */
  function write(body, rows) {
    while (body.rows.length < rows.length) {
      const row = body.insertRow();
      row.append(Object.assign(document.createElement("th"), { scope: "row" }));
      row.insertCell();
      row.insertCell();
    }
    while (body.rows.length > rows.length) body.deleteRow(-1);
    rows.forEach(([name, ...values], k) => {
      const cells = body.rows[k].cells, texts = [name, ...values.map((value) => (value === null ? "" : shown(value, 3, true)))];
      texts.forEach((text, c) => cells[c].textContent !== text && (cells[c].textContent = text));
    });
  }

  const say = (text) => (see.said.textContent = text);
  const sayPoint = () => {
    const at = world.latents.map(({ name }, k) => `${name} ${shown(state.z[k])}`).join(", ");
    say(`${at}; Rg ${shown(radiusOfGyration(shownNow.measured, dims, data.masses))} ${data.unit}. ${see.verdict.textContent}`);
  };

  function showPoint({ z, when }) {
    Object.assign(state, { z, when, frame: null, trail: [] });
    draw(false);
  }

  function showFrame(point, trail = false) {
    const before = trail && state.trail.length && state.trail.at(-1) < point ? state.trail : [];
    Object.assign(state, {
      z: world.latentsOf(point), when: world.clock.values[point], frame: point, held: true,
      trail: [...before, point].slice(-TRAIL),
    });
    find("slider").value = point;
    find("slider").setAttribute("aria-valuetext", `frame ${world.frames[point]}`);
    draw(false);
  }

  // The plane under the pointer and the keys.

  const placeIn = (event, stage) => {
    const box = stage.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const inBox = ([px, py]) => {
    const { left, top, width, height } = plane.box;
    return [clamp(px, left, left + width), clamp(py, top, top + height)];
  };
  let pen = null; // the last pixel of a path under way

  function addToPath(place) {
    if (pen && Math.hypot(place[0] - pen[0], place[1] - pen[1]) < 4) return;
    pen = place;
    state.path.push(plane.pointAt(...place));
    showPoint(state.path.at(-1));
  }

  function endPath() {
    pen = null;
    setDrawing(false);
    if (state.path.length < 2) state.path = [];
    for (const name of ["save-path", "clear-path", "walk"]) find(name).hidden = !state.path.length;
    state.held = true;
    walkAlong(state.path.length ? "path" : "run");
    if (state.path.length) say("A path is drawn. Play walks along it.");
  }

  function setDrawing(on) {
    state.drawing = on;
    find("draw").setAttribute("aria-pressed", on);
    see.plane.classList.toggle("x-drawing", on);
  }

  see.plane.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    stop();
    const place = inBox(placeIn(event, see.plane));
    if (event.shiftKey || state.drawing) {
      event.preventDefault();
      see.plane.setPointerCapture(event.pointerId);
      state.path = [];
      addToPath(place);
    } else if (event.pointerType !== "mouse") {
      showPoint(plane.pointAt(...place));
      state.held = true;
    }
  });
  see.plane.addEventListener("pointermove", (event) => {
    const place = inBox(placeIn(event, see.plane));
    if (pen) addToPath(place);
    else if (!state.playing && (event.pointerType !== "mouse" || !state.held)) showPoint(plane.pointAt(...place));
  });
  see.plane.addEventListener("pointerup", (event) => {
    if (event.button) return;
    if (pen) endPath();
    else if (event.pointerType === "mouse") {
      state.held = !state.held;
      showPoint(plane.pointAt(...inBox(placeIn(event, see.plane))));
      if (state.held) sayPoint();
    }
  });
  see.plane.addEventListener("pointercancel", () => pen && endPath());

  see.plane.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (step && !event.altKey && !event.ctrlKey && !event.metaKey) {
      stop();
      const [px, py] = plane.pixelOf(state);
      const place = inBox([px + 6 * step[0], py + 6 * step[1]]);
      if (event.shiftKey) {
        if (!pen) {
          state.path = [];
          addToPath(inBox([px, py]));
        }
        addToPath(place);
      } else showPoint(plane.pointAt(...place));
      state.held = true;
    } else if (event.key === "Enter") {
      state.held = !state.held;
      draw(false);
    } else if (event.key === " ") togglePlay();
    else if (event.key === "Escape") clearPath();
    else return;
    event.preventDefault();
  });
  see.plane.addEventListener("keyup", (event) => {
    if (event.key === "Shift" && pen) endPath();
    else if (event.key.startsWith("Arrow") && !pen) sayPoint();
  });
  see.plane.addEventListener("blur", () => pen && endPath());

  // The chain, turned.

  if (dims === 3) {
    see.chain.tabIndex = 0;
    see.chain.setAttribute("role", "application");
    see.chain.setAttribute("aria-label", "Chain. Drag or arrow keys turn it, 0 or a double click turn it back.");
    let last = null;
    see.chain.addEventListener("pointerdown", (event) => {
      see.chain.setPointerCapture(event.pointerId);
      last = [event.clientX, event.clientY];
    });
    see.chain.addEventListener("pointermove", (event) => {
      if (!last) return;
      chain.rotate((event.clientX - last[0]) / 120, (event.clientY - last[1]) / 120);
      last = [event.clientX, event.clientY];
      draw(false);
    });
    for (const name of ["pointerup", "pointercancel"]) see.chain.addEventListener(name, () => (last = null));
    const home = () => {
      chain.home();
      draw(false);
    };
    see.chain.addEventListener("dblclick", home);
    see.chain.addEventListener("keydown", (event) => {
      const turn = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (event.key === "0") home();
      else if (turn) chain.rotate(0.09 * turn[0], 0.09 * turn[1]);
      else return;
      draw(false);
      event.preventDefault();
    });
  } else {
    see.chain.setAttribute("role", "img");
    see.chain.setAttribute("aria-label", "The chain that is decoded at the point, and the nearest frame.");
  }

  // Walking: the trajectory, or a path.

  let clock = 0, before = 0;

  function walkAlong(what) {
    state.walking = what;
    find("walk-run").setAttribute("aria-pressed", what === "run");
    find("walk-path").setAttribute("aria-pressed", what === "path");
    const slider = find("slider");
    slider.max = (what === "path" ? PATH_STEPS : world.n) - 1;
    slider.value = what === "path" ? PATH_STEPS - 1 : state.frame ?? state.nearest ?? 0;
    slider.setAttribute("aria-label", what === "path" ? "Step of the path" : "Frame");
    draw(false);
  }

  /** Latent points at even distances along the path, as the plane has distances. */
  function alongPath(share) {
    const places = state.path.map((point) => plane.pixelOf(point)), lengths = [0];
    for (let k = 1; k < places.length; k++)
      lengths.push(lengths[k - 1] + Math.hypot(places[k][0] - places[k - 1][0], places[k][1] - places[k - 1][1]));
    const at = share * lengths.at(-1);
    const k = clamp(lengths.findIndex((length) => length >= at), 1, lengths.length - 1);
    const part = lengths[k] > lengths[k - 1] ? (at - lengths[k - 1]) / (lengths[k] - lengths[k - 1]) : 0;
    const [one, other] = [state.path[k - 1], state.path[k]], mix = (a, b) => (1 - part) * a + part * b;
    return {
      z: other.z.map((value, a) => mix(one.z[a], value)), when: other.when === null ? null : mix(one.when, other.when),
    };
  }

  function step(to, trail) {
    if (state.walking === "run") return showFrame(to, trail);
    find("slider").value = to;
    find("slider").setAttribute("aria-valuetext", `step ${to + 1} of ${PATH_STEPS}`);
    state.held = true;
    showPoint(alongPath(to / (PATH_STEPS - 1)));
  }

  function setPlaying(on) {
    state.playing = on;
    find("play").setAttribute("aria-label", on ? "Pause" : "Play");
    see["play-shape"].setAttribute("d", on ? "M3.5 2.5h3v11h-3zM9.5 2.5h3v11h-3z" : "M4 2.5v11l9-5.5z");
  }
  const stop = () => state.playing && setPlaying(false);

  function togglePlay() {
    if (state.playing) return stop();
    const slider = find("slider"), last = Number(slider.max);
    if (Number(slider.value) >= last) step(0, false);
    setPlaying(true);
    [clock, before] = [Number(slider.value), performance.now()];
    requestAnimationFrame(walk);
  }

  function walk(now) {
    if (!state.playing) return;
    // Who asks for less motion gets single pictures, four a second.
    const rate = still.matches ? 4 : Number(find("speed").value), last = Number(find("slider").max);
    clock = Math.min(clock + (rate * Math.max(now - before, 0)) / 1000, last);
    before = now;
    if (Math.floor(clock) !== Number(find("slider").value)) step(Math.floor(clock), !still.matches);
    if (clock >= last) stop();
    else requestAnimationFrame(walk);
  }

  // Selecting.

  function brushed(changed) {
    if (changed) {
      const ranges = [histogram, course].filter(({ range }) => range);
      state.selected = ranges.length
        ? Uint8Array.from({ length: world.n }, (_, k) =>
          ranges.every(({ range, column }) => column.values[k] >= range[0] && column.values[k] <= range[1]))
        : null;
      const count = state.selected ? state.selected.reduce((sum, one) => sum + one, 0) : 0;
      see.count.textContent = state.selected
        ? `${shown(count, 9)} of ${shown(world.n, 9)} frames${world.n < data.n_frames ? " shown" : ""} selected`
        : "Drag over a strip to select frames.";
      find("save-selection").hidden = !count;
      find("clear-selection").hidden = !state.selected;
      label();
    }
    draw();
  }

  function label() {
    for (const [brush, name] of [[histogram, histogram.column.label], [course, course.column.label]]) {
      const range = brush.range ? `${brush.range.map((value) => shown(value)).join(" to ")}` : "all";
      brush.stage.setAttribute("aria-label",
        `Select frames by ${name}: ${range}. Arrow keys move the range, with Shift its end, with Alt its start, Escape clears.`);
    }
  }

  // Axes and colours.

  function setMeasure(name) {
    const measure = world.measures.find((column) => column.name === name);
    state.measure = measure;
    state.bounds = extent(measure.values);
    const [low, high] = state.bounds, sorted = Float64Array.from(measure.values).sort();
    // The outermost hundredth shares a colour, so that a stray frame does not grey out the rest.
    const [least, most] = measure === world.clock
      ? [low, high] : [sorted[Math.floor(0.005 * (world.n - 1))], sorted[Math.ceil(0.995 * (world.n - 1))]];
    const size = most - least || 1;
    state.shares = Float32Array.from(measure.values, (value) => clamp((value - least) / size, 0, 1));
    see["colour-name"].textContent = measure.label;
    see.low.textContent = shown(least);
    see.high.textContent = shown(most);
    const drawn = measure === world.clock ? world.measures[0] : measure;
    if (histogram.column !== drawn) {
      histogram.setColumn(drawn, extent(drawn.values));
      see["histogram-name"].textContent = drawn.label;
      writeEnds(see["histogram-ends"], histogram.bounds);
    }
    histogram.coloured = measure === drawn;
    state.course = drawn;
    see["course-name"].textContent = `${drawn.label} against ${world.clock.label}`;
    brushed(true);
  }

  function writeEnds(part, range) {
    part.replaceChildren(...range.map((value) => Object.assign(document.createElement("span"), { textContent: shown(value) })));
  }

  function setAxes() {
    const columns = [...world.latents, world.clock];
    const [x, y] = ["x", "y"].map((name) => columns.find((column) => column.name === find(name).value));
    plane.setAxes(x, y);
    state.when ??= world.clock.values[state.nearest ?? 0];
    if (state.path.length) clearPath(); // it was drawn on other axes
    legend();
    draw();
  }

  function clearPath() {
    state.path = [];
    endPath();
  }

  function legend() {
    const stops = theme.shades.filter((_, k) => k % 7 === 0).map((colour) => css(colour));
    see.ramp.style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    const beneath = plane.beneathOf(state.beneath), energy = beneath === "energy";
    const colours = beneath === "nothing" ? [] : bandColours(beneath, theme);
    see.bands.hidden = beneath === "nothing";
    find("beneath").value = beneath;
    find("beneath").options[0].disabled = plane.beneathOf("energy") !== "energy";
    const part = (tag, text, colour) => {
      const made = Object.assign(document.createElement(tag), { textContent: text });
      if (colour) made.style.background = css(colour);
      return made;
    };
    see.bands.replaceChildren(part("b", energy ? "free energy (kT)" : "frames held (%)"), ...colours.map((colour, k) =>
      part("i", energy ? `${k}–${k + 1}` : String(100 * SHARES[k]), colour)));
  }

  const options = (select, columns, chosen) => {
    select.replaceChildren(...columns.map(({ name, label: text }) => new Option(text, name, false, name === chosen)));
  };
  const axes = data.axes.map((k) => `z${k}`);
  const first = axes.length > 1 ? axes : [world.clock.name, axes[0]];
  options(find("x"), [...world.latents, world.clock], first[0]);
  options(find("y"), [...world.latents, world.clock], first[1]);
  options(find("colour"), world.measures, "Rg");

  /** Two axes are never the same: the other takes what this one had. */
  for (const [one, other] of [["x", "y"], ["y", "x"]]) {
    let had = find(one).value;
    find(one).addEventListener("change", () => {
      if (find(one).value === find(other).value) find(other).value = had;
      setAxes();
    });
    root.addEventListener("change", () => (had = find(one).value));
  }

  const on = (name, event, action) => find(name).addEventListener(event, action);
  on("colour", "change", () => setMeasure(find("colour").value));
  on("beneath", "change", () => {
    state.beneath = find("beneath").value;
    legend();
    draw();
  });
  on("play", "click", togglePlay);
  on("slider", "input", () => {
    stop();
    step(Number(find("slider").value), false);
  });
  on("walk-run", "click", () => {
    stop();
    walkAlong("run");
  });
  on("walk-path", "click", () => {
    stop();
    walkAlong("path");
  });
  on("draw", "click", () => setDrawing(!state.drawing));
  on("clear-path", "click", clearPath);
  on("clear-selection", "click", () => {
    histogram.range = course.range = null;
    brushed(true);
  });
  for (const [name, key] of [["show-decoded", "showDecoded"], ["show-real", "showReal"]])
    on(name, "click", () => {
      state[key] = !state[key];
      find(name).setAttribute("aria-pressed", state[key]);
      draw(false);
    });

  // What is saved.

  const saveConformations = (name, conformations) => {
    if (conformations.every((x) => fitsPdb(x, data.pdb.factor))) {
      saveText(name, pdbText(conformations, data));
      say(`${name} is saved.`);
    } else say("A PDB cannot hold coordinates so large.");
  };
  const conformationAt = (z) => (decode ? decode(z) : world.conformation(world.nearest(z)));
  const textOfZ = () => Array.from(state.z, (value) => Number(value.toPrecision(7))).join(",");
  on("copy", "click", async () => {
    const text = textOfZ(), done = await copyText(text);
    say(done ? `Copied ${text}` : `The browser does not let the page copy; z is ${text}`);
    find("copy").textContent = done ? "Copied" : text;
    setTimeout(() => (find("copy").textContent = "Copy z"), done ? 1500 : 6000);
  });
  on("save-structure", "click", () => saveConformations("structure.pdb", [conformationAt(state.z)]));
  on("save-path", "click", () => saveConformations(
    "path.pdb", Array.from({ length: SAVED_STEPS }, (_, k) => conformationAt(alongPath(k / (SAVED_STEPS - 1)).z))));
  on("save-selection", "click", () => {
    const ranges = [histogram, course].filter(({ range }) => range).map(({ column, range }) =>
      `${column.label} from ${range[0].toPrecision(7)} to ${range[1].toPrecision(7)}`);
    saveText("frames.txt", selectionText(data, world, state.selected, ranges.join(" and ")));
    say("frames.txt is saved.");
  });

  // The scheme, and paper.

  const repaint = (printing) => {
    theme = themeOf(root, printing);
    legend();
    stillDirty = liveDirty = true;
    drawNow();
    if (printing) plane.flatten();
  };
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => repaint(false));
  window.addEventListener("beforeprint", () => repaint(true));
  window.addEventListener("afterprint", () => repaint(false));

  const notes = [];
  if (world.n < data.n_frames) notes.push(`The plane shows ${shown(world.n, 9)} of ${shown(data.n_frames, 9)} frames, evenly spaced.`);
  if (world.carried.length < world.n)
    notes.push(`The page carries the coordinates of ${shown(world.carried.length, 9)} of ${shown(data.n_frames, 9)} frames, evenly spaced; the nearest frame is one of these.`);
  if (data.model.missing) notes.push(`Here ${data.model.missing}.`);
  if (data.latent_dim > 2) notes.push("Latents that the plane does not show take the mean of the frames near the point.");
  if (world.weights) notes.push("Frames count by their weights in the free energy, the density and the histogram.");
  if (decode && !data.model.pairs)
    notes.push("The decoder gives the mean of the conformations at a point; where they differ there, its bonds come out short.");
  if (data.latent_dim > 1) notes.push("Dotted circles: one and two standard deviations of the prior.");
  notes.push(`Keys: arrows move the point${dims === 3 ? " or turn the chain" : ""}, Enter holds it, with Shift they draw, Space plays.`);
  see.note.textContent = notes.join(" ");
  if (!decode) {
    root.classList.add("x-frames-only");
    for (const name of ["show-decoded", "show-real"]) find(name).disabled = true;
  }
  const seen = decode ? "decode the chain" : "see the frame";
  root.querySelector(".x-hint").textContent = window.matchMedia("(hover: none) and (pointer: coarse)").matches
    ? `Touch the plane to ${seen} there; a path is drawn by its button and then by a drag.`
    : `Move over the plane to ${seen} there; a click holds the point, another lets go; a drag with Shift draws a path.`;

  course.setColumn(world.clock, extent(world.clock.values));
  writeEnds(see["course-ends"], course.bounds);
  state.z = world.latentsOf(0);
  setMeasure("Rg");
  setAxes();
  legend();
  walkAlong("run");
  showFrame(0);
  state.held = false;
  root.explorer = { data, world, state, plane, chain, histogram, course, decode, limitsBroken, pdb: (xs) => pdbText(xs, data), now: () => shownNow, drawNow };
}
