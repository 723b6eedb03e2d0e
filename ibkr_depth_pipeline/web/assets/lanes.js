// Who held a slot when: a lane per symbol on a canvas of its own. It draws what it is given and knows of no server.

/** turns: [[from, until or null], ...]; the lane spans `from` to `to`; all unix ms. colours: { held, line }. */
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
  for (const [start, end] of turns) {
    const left = x(start);
    const right = x(end ?? to);
    if (right > 0 && left < width) context.fillRect(left, 4, Math.max(1.5, right - left), height - 8);
  }
}
