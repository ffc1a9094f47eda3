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
