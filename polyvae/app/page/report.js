// A figure opens large: arrow keys go to its neighbours, Escape closes, the focus comes back.
(() => {
  "use strict";
  const dialog = document.getElementById("large");
  if (!dialog || !dialog.showModal) return;
  const buttons = [...document.querySelectorAll("figure .enlarge")];
  let shown = 0;

  function show(k) {
    shown = (k + buttons.length) % buttons.length;
    const from = buttons[shown].querySelector("img");
    const to = dialog.querySelector("img");
    to.src = from.src;
    to.alt = from.alt;
    const caption = buttons[shown].parentElement.querySelector("figcaption");
    dialog.querySelector("p").replaceChildren(...caption.cloneNode(true).childNodes);
    if (!dialog.open) dialog.showModal();
  }

  buttons.forEach((button, k) => button.addEventListener("click", () => show(k)));
  dialog.querySelectorAll("[data-step]").forEach((button) =>
    button.addEventListener("click", () => show(shown + Number(button.dataset.step))));
  dialog.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) show(shown + step);
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  });
  dialog.addEventListener("close", () => buttons[shown].focus());
})();
