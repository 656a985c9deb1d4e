// The map: items and users as dots on a canvas, and the ways of texts over them. It knows places and no words.

const CELL = 2; // pixels: of the dots in the same square only the first is drawn
const REACH = 12; // pixels from the pointer to what it points at
const STEP = 40; // pixels that an arrow key moves the map

export class SpaceMap {
  // onPoint(kind, place), onChoose(kind, place): what the pointer is at, and what was clicked on; of a way the kind is
  // "way" and the place the key of its point.
  constructor(canvas, { onPoint, onChoose }) {
    Object.assign(this, { canvas, onPoint, onChoose });
    this.positions = { items: new Float32Array(0), users: new Float32Array(0) };
    this.shown = { items: true, users: true, paths: true };
    this.paths = []; // {points: [[x, y], ...], labels: ["0", ...], keys: [...] or none, dashed}
    this.growth = null; // {from: [x, y], to: [dx, dy]}: the direction that a user likes
    this.pointed = null; // {kind, place}
    this.view = { x: 0, y: 0, scale: 1 };
    this.isDue = false;
    this._listen();
    this._resize();
  }

  // {items, users}: x and y one after the other.
  setPositions(positions) {
    this.positions = positions;
    this.showAll();
  }

  show(layer, isShown) {
    this.shown[layer] = isShown;
    this.draw();
  }

  showAll() {
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    const ways = this.shown.paths ? this.paths.flatMap(({ points }) => points.flat()) : [];
    for (const places of [...this._kinds().map((kind) => this.positions[kind]), ways]) {
      for (let i = 0; i < places.length; i += 2) {
        left = Math.min(left, places[i]);
        right = Math.max(right, places[i]);
        low = Math.min(low, places[i + 1]);
        high = Math.max(high, places[i + 1]);
      }
    }
    if (left > right) return;
    const scale = 0.92 * Math.min(this.width / (right - left || 1), this.height / (high - low || 1));
    this.view = { x: (left + right) / 2, y: (low + high) / 2, scale };
    this.draw();
  }

  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const before = this._place(x, y);
    this.view.scale *= factor;
    const after = this._place(x, y);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.draw();
  }

  draw() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this._draw();
    });
  }

  _kinds() {
    return ["items", "users"].filter((kind) => this.shown[kind]);
  }

  _pixel([x, y]) {
    const { view, width, height } = this;
    return [(x - view.x) * view.scale + width / 2, height / 2 - (y - view.y) * view.scale];
  }

  _place(px, py) {
    const { view, width, height } = this;
    return [(px - width / 2) / view.scale + view.x, (height / 2 - py) / view.scale + view.y];
  }

  _move(dx, dy) {
    this.view.x -= dx / this.view.scale;
    this.view.y += dy / this.view.scale;
    this.draw();
  }

  // Marks a point of a way as the pointer does; texts may lie where no item does, out of sight.
  pointAt(key) {
    this.pointed = { kind: "way", place: key };
    const place = this._pointedPlace();
    const [px, py] = place ? this._pixel(place) : [0, 0];
    if (px < 0 || py < 0 || px > this.width || py > this.height) [this.view.x, this.view.y] = place;
    this.draw();
    this.onPoint("way", key);
  }

  // Calls fn(key, point) for the points of shown ways that have keys.
  _eachKey(fn) {
    if (!this.shown.paths) return;
    for (const { points, keys } of this.paths) keys?.forEach((key, number) => fn(key, points[number]));
  }

  // The shown item, user or point of a way nearest to a pixel, if any is near; ways lie over the dots.
  _near(px, py) {
    const [x, y] = this._place(px, py);
    let best = (REACH / this.view.scale) ** 2;
    let found = null;
    this._eachKey((key, point) => {
      const distance = (point[0] - x) ** 2 + (point[1] - y) ** 2;
      if (distance < best) [best, found] = [distance, { kind: "way", place: key }];
    });
    if (found) return found;
    for (const kind of this._kinds()) {
      const places = this.positions[kind];
      for (let i = 0; i < places.length; i += 2) {
        const distance = (places[i] - x) ** 2 + (places[i + 1] - y) ** 2;
        if (distance < best) [best, found] = [distance, { kind, place: i / 2 }];
      }
    }
    return found;
  }

  _draw() {
    const { canvas, width, height } = this;
    const context = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    const colors = Object.fromEntries(
      ["ink", "soft", "accent", "gone", "ground"].map((name) => [name, style.getPropertyValue(`--${name}`).trim()]),
    );
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.font = "600 13px system-ui, sans-serif";
    if (this.shown.items) this._drawDots(context, colors.soft);
    if (this.shown.users) this._drawTriangles(context, colors.gone);
    if (this.shown.paths) {
      this.paths.forEach((path) => this._drawPath(context, path, colors));
      if (this.growth) this._drawGrowth(context, colors);
    }
    const pointed = this._pointedPlace();
    if (pointed) {
      const at = this._pixel(pointed);
      context.strokeStyle = colors.ink;
      context.lineWidth = 2;
      context.beginPath();
      context.arc(...at, 7, 0, 2 * Math.PI);
      context.stroke();
    }
  }

  _pointedPlace() {
    const { kind, place } = this.pointed ?? {};
    if (kind !== "way") return kind && this.positions[kind].subarray(2 * place, 2 * place + 2);
    let found = null;
    this._eachKey((key, point) => (found = key === place ? point : found));
    return found;
  }

  // Calls fn(px, py) for what is within the canvas, once for each of its small squares: 62,000 dots stay fluid.
  _eachSquare(places, fn) {
    const { view, width, height } = this;
    const columns = Math.ceil(width / CELL);
    const taken = new Uint8Array(columns * Math.ceil(height / CELL));
    for (let i = 0; i < places.length; i += 2) {
      const px = (places[i] - view.x) * view.scale + width / 2;
      const py = height / 2 - (places[i + 1] - view.y) * view.scale;
      if (px < 0 || py < 0 || px >= width || py >= height) continue;
      const square = Math.floor(py / CELL) * columns + Math.floor(px / CELL);
      if (taken[square]) continue;
      taken[square] = 1;
      fn(px, py);
    }
  }

  _drawDots(context, color) {
    context.fillStyle = color;
    const size = this.positions.items.length > 20000 ? 2 : 4;
    this._eachSquare(this.positions.items, (px, py) => context.fillRect(px - size / 2, py - size / 2, size, size));
  }

  _drawTriangles(context, color) {
    context.fillStyle = color;
    context.beginPath();
    const size = this.positions.users.length > 1000 ? 2 : 4;
    this._eachSquare(this.positions.users, (px, py) => {
      context.moveTo(px, py - size);
      context.lineTo(px + size, py + 0.7 * size);
      context.lineTo(px - size, py + 0.7 * size);
    });
    context.fill();
  }

  _drawPath(context, { points, labels, dashed }, colors) {
    const pixels = points.map((point) => this._pixel(point));
    const color = dashed ? colors.ink : colors.accent;
    context.strokeStyle = color;
    context.lineWidth = 2;
    context.setLineDash(dashed ? [5, 4] : []);
    context.beginPath();
    pixels.forEach((pixel, number) => (number ? context.lineTo(...pixel) : context.moveTo(...pixel)));
    context.stroke();
    context.setLineDash([]);
    pixels.forEach(([px, py], number) => {
      context.strokeStyle = color;
      context.fillStyle = colors.ground;
      context.beginPath();
      context.arc(px, py, 4, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
      this._write(context, labels[number], px + 7, py - 6, colors);
    });
  }

  _drawGrowth(context, colors) {
    const [px, py] = this._pixel(this.growth.from);
    const [dx, dy] = [this.growth.to[0] * 48, -this.growth.to[1] * 48];
    context.strokeStyle = colors.gone;
    context.lineWidth = 2;
    context.beginPath();
    context.moveTo(px, py);
    context.lineTo(px + dx, py + dy);
    for (const side of [-1, 1]) {
      context.moveTo(px + dx, py + dy);
      context.lineTo(px + 0.8 * dx - side * 0.15 * dy, py + 0.8 * dy + side * 0.15 * dx);
    }
    context.stroke();
  }

  // With a rim in the color of the ground, so that it can be read over dots.
  _write(context, label, px, py, colors) {
    context.strokeStyle = colors.ground;
    context.lineWidth = 4;
    context.strokeText(label, px, py);
    context.lineWidth = 2;
    context.fillStyle = colors.ink;
    context.fillText(label, px, py);
  }

  _resize() {
    const { clientWidth, clientHeight } = this.canvas;
    [this.width, this.height, this.ratio] = [clientWidth || 1, clientHeight || 1, window.devicePixelRatio || 1];
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    this.draw();
  }

  _listen() {
    const { canvas } = this;
    new ResizeObserver(() => this._resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    let [held, far] = [null, false];
    canvas.addEventListener("pointerdown", (event) => {
      [held, far] = [[event.offsetX, event.offsetY], false];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return this._point(event.offsetX, event.offsetY);
      const [dx, dy] = [event.offsetX - held[0], event.offsetY - held[1]];
      if (!far && Math.hypot(dx, dy) < 4) return;
      [held, far] = [[event.offsetX, event.offsetY], true];
      this._move(dx, dy);
    });
    canvas.addEventListener("pointerup", (event) => {
      const found = held && !far && this._near(event.offsetX, event.offsetY);
      held = null;
      if (!found) return;
      this._point(event.offsetX, event.offsetY);
      this.onChoose(found.kind, found.place);
    });
    canvas.addEventListener("pointercancel", () => (held = null));
    canvas.addEventListener("wheel", (event) => this._turn(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this._key(event));
  }

  _point(px, py) {
    const found = this._near(px, py);
    if (found?.kind === this.pointed?.kind && found?.place === this.pointed?.place) return;
    this.pointed = found;
    this.draw();
    if (found) this.onPoint(found.kind, found.place);
  }

  // The wheel scrolls the page unless the map was clicked on or the control key is held.
  _turn(event) {
    if (!event.ctrlKey && document.activeElement !== this.canvas) return;
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
  }

  _key(event) {
    const moves = { ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (moves[event.key]) this._move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.showAll();
    else return;
    event.preventDefault();
  }
}
