// Colours that every kind of colour vision tells apart, on paper and in the dark.

// Viridis, by its own values at eleven places: lightness rises evenly.
const VIRIDIS = [
  [68, 1, 84], [72, 36, 117], [65, 68, 135], [53, 95, 141], [42, 120, 142], [33, 145, 140], [34, 168, 132],
  [68, 191, 112], [122, 209, 81], [189, 223, 38], [253, 231, 37],
];
const SHADES = 64;

/** The colour at a share of the way from the lowest value to the highest, without the end that the paper hides. */
function ramp(share, dark) {
  const place = clamp(dark ? 0.2 + 0.8 * share : 0.92 * share, 0, 1) * (VIRIDIS.length - 1);
  const k = Math.min(Math.floor(place), VIRIDIS.length - 2);
  return VIRIDIS[k].map((low, c) => Math.round(low + (place - k) * (VIRIDIS[k + 1][c] - low)));
}

const css = ([r, g, b], alpha = 1) => `rgba(${r},${g},${b},${alpha})`;

function mixed(one, other, share) {
  return one.map((value, c) => Math.round(value + share * (other[c] - value)));
}

function parsed(text) {
  const [, r, g, b] = /^#(..)(..)(..)$/.exec(text.trim()) || [0, "80", "80", "80"];
  return [r, g, b].map((part) => parseInt(part, 16));
}

/** The colours of the page as the reader's scheme has them, or of paper for print. */
function themeOf(root, printing) {
  const dark = !printing && window.matchMedia("(prefers-color-scheme: dark)").matches;
  const style = getComputedStyle(root);
  const read = (name, paper) => parsed(printing ? paper : style.getPropertyValue(name));
  return {
    dark,
    ink: read("--x-ink", "#1f2937"),
    soft: read("--x-soft", "#5b6472"),
    line: read("--x-line", "#dfe3e8"),
    paper: read("--x-pane", "#ffffff"),
    bad: read("--x-bad", "#b4491b"),
    shades: Array.from({ length: SHADES }, (_, k) => ramp(k / (SHADES - 1), dark)),
    font: style.fontFamily,
  };
}
