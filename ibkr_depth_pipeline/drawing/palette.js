// The colours of drawing.css as they are now, light or dark, for canvases; and canvases as sharp as the screen.

const NAMES = [
  "panel", "ink", "quiet", "line", "soft", "held", "good", "warn", "bad", "hatch", "hatched", "bid-line", "ask-line",
  "bid-low", "bid-middle", "bid-high", "ask-low", "ask-middle", "ask-high",
];

/** By name, each as `rgb(r, g, b)`. */
export function palette() {
  const probe = document.createElement("i");
  document.body.append(probe);
  const style = getComputedStyle(probe);
  const colours = Object.fromEntries(NAMES.map((name) => {
    probe.style.color = `var(--${name})`;
    return [name, style.color];
  }));
  probe.remove();
  return colours;
}

/** The canvas' context in CSS pixels, at the resolution of the screen. */
export function fitted(canvas, options) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((length) => Math.round(length * ratio));
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d", options);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}
