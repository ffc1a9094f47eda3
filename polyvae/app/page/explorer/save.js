// What leaves the page: PDB text, files, the clipboard.

/** Conformations as PDB text, each bead a residue, as `polyvae.write` has it; several are models of one file. */
function pdbText(conformations, data) {
  const { pdb, n_dims: dims, n_beads: n, bonds } = data;
  const number = (k) => String(k % 100000).padStart(5);
  const lines = [`TITLE     ${pdb.title}`];
  conformations.forEach((x, k) => {
    if (conformations.length > 1) lines.push(`MODEL ${String(k + 1).padStart(8)}`);
    for (let i = 0; i < n; i++) {
      const place = [0, 1, 2].map((a) => (a < dims ? pdb.factor * x[i * dims + a] : 0).toFixed(3).padStart(8));
      const name = pdb.names[i].length < 4 ? ` ${pdb.names[i].padEnd(3)}` : pdb.names[i];
      const residue = String((i + 1) % 10000).padStart(4);
      lines.push(`ATOM  ${number(i + 1)} ${name} BEA A${residue}    ${place.join("")}  1.00  0.00      A`);
    }
    if (conformations.length > 1) lines.push("ENDMDL");
  });
  if (n < 100000) {
    const near = Array.from({ length: n }, () => []);
    for (let k = 0; k < bonds.length; k += 2) {
      near[bonds[k]].push(bonds[k + 1]);
      near[bonds[k + 1]].push(bonds[k]);
    }
    near.forEach((others, i) => {
      const sorted = others.sort((a, b) => a - b);
      for (let k = 0; k < sorted.length; k += 4)
        lines.push(`CONECT${number(i + 1)}${sorted.slice(k, k + 4).map((j) => number(j + 1)).join("")}`);
    });
  }
  return lines.concat("END", "").join("\n");
}

/**
 * The numbers of selected frames, a row each: of all that were read and, where these are of several pieces or
 * molecules, the place in its own.
 */
function selectionText(data, world, selected, ranges) {
  const { n_frames: all, starts, pieces } = data, { frames, segment, origin, n } = world;
  const lines = [`# frames with ${ranges}; all numbers from 0`];
  if (n < all) lines.push(`# of the ${n} frames that the page shows, evenly spaced, of ${all}`);
  let place = null; // columns beside the number of the frame
  if (origin) {
    lines.push("# columns: frame in the model's order, frame of the run, molecule");
    place = (k) => [origin[2 * k], origin[2 * k + 1]];
  } else if (starts.length > 1) {
    lines.push("# columns: frame, piece of the run, frame of the piece");
    (pieces || []).forEach((name, k) => lines.push(`# piece ${k}: ${name}`));
    place = (k) => [segment[k], frames[k] - starts[segment[k]]];
  }
  for (let k = 0; k < n; k++) if (selected[k]) lines.push([frames[k], ...(place ? place(k) : [])].join(" "));
  return lines.concat("").join("\n");
}

/** Whether a PDB's columns of eight hold all coordinates. */
const fitsPdb = (x, factor) => x.every((value) => factor * value > -999.999 && factor * value < 9999.999);

function saveText(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** Put text on the clipboard; the old way where a frame may not do it the new one. */
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}
