// Who held a slot when: a lane per symbol on a canvas of its own. It draws what it is given and knows of no server.

/**
 * turns: [[requested, first row or null, end or null], ...]; the lane spans `from` to `to`; all unix ms. What was
 * observed is a bar, the wait for the first row a thin line. colours: { held, line }.
 */
export function drawLane(canvas, turns, from, to, colours) {
  const ratio = Math.min(2, devicePixelRatio || 1);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (!width) return;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const x = (ts) => Math.min(width, Math.max(0, ((ts - from) / (to - from)) * width));
  context.fillStyle = colours.line;
  for (let minute = Math.ceil(from / 60000) * 60000; minute < to; minute += 60000) {
    context.fillRect(Math.round(x(minute)), 0, 1, height);
  }
  context.fillRect(0, Math.round(height / 2), width, 1);
  context.fillStyle = colours.held;
  const middle = Math.round(height / 2);
  for (const [requested, first, end] of turns) {
    const right = x(end ?? to);
    if (x(requested) >= width || right <= 0) continue;
    context.fillRect(x(requested), middle - 1, Math.max(1.5, x(first ?? end ?? to) - x(requested)), 2);
    if (first !== null) context.fillRect(x(first), 4, Math.max(1.5, right - x(first)), height - 8);
  }
}
