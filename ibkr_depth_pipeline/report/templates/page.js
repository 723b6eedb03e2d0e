// One upright line at the pointer, on every chart: they share the axis.
const main = document.querySelector("main"), clock = document.getElementById("clock");
const start = Number(main.dataset.start), end = Number(main.dataset.end);
document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot");
  clock.hidden = !plot;
  main.style.setProperty("--seen", plot ? "block" : "none");
  if (!plot) return;
  const box = plot.getBoundingClientRect();
  const at = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  main.style.setProperty("--at", at);
  clock.textContent = new Date(start + at * (end - start)).toISOString().slice(11, 19) + " UTC";
});
