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

// What the lines of a chart stand at below the pointer, read off their own paths.
function heightAt(path, x) {
  // M x y, L x y, H x, V y, h dx: the height of the path at x, null where it has none.
  let px = 0, py = 0, found = null;
  for (const [, command, numbers] of path.matchAll(/([MLHVhZ])([^MLHVhZ]*)/g)) {
    const [a, b] = numbers.trim().split(/[ ,]+/).map(Number);
    const [nx, ny] = { M: [a, b], L: [a, b], H: [a, py], V: [px, a], h: [px + a, py], Z: [px, py] }[command];
    if (command !== "M" && command !== "Z" && x >= Math.min(px, nx) && x <= Math.max(px, nx) && nx !== px)
      found = found ?? py + (ny - py) * (x - px) / (nx - px);
    px = nx; py = ny;
  }
  return found;
}
function valueOf(plot, y) {
  const { low, high, foot } = plot.dataset, part = 1 - y / 100, from = Number(foot);
  if (plot.dataset.log === undefined) return Number(low) + part * (high - low);
  if (part < from / 2) return 0;
  return 10 ** (Math.log10(low) + Math.max(0, part - from) / (1 - from) * (Math.log10(high) - Math.log10(low)));
}
document.addEventListener("pointermove", (event) => {
  const plot = event.target.closest(".plot[data-low]");
  if (!plot) return;
  const box = plot.getBoundingClientRect();
  const x = 1000 * (event.clientX - box.left) / box.width;
  const names = [...plot.closest("figure").querySelectorAll(".key")];
  for (const path of plot.querySelectorAll("path.first, path.second, path.ink, path.area")) {
    const height = heightAt(path.getAttribute("d"), x);
    if (height === null) continue;
    const name = names.find((key) => key.classList.contains(path.classList[0]));
    const value = Number(valueOf(plot, height).toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
    clock.textContent += `, ${name ? name.textContent + " " : ""}${value}`;
  }
});

// One book at a time, if there are several.
const books = [...document.querySelectorAll("section.book")], chooser = document.querySelector("nav.books");
if (chooser) {
  const select = chooser.querySelector("select");
  const show = () => books.forEach((book, number) => { book.hidden = number !== select.selectedIndex; });
  chooser.hidden = false;
  select.addEventListener("change", show);
  show();
}
