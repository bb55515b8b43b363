"use strict";
// Replays what the page holds. Shapes and colours are those of the scenes that films are painted
// from; places are in lengths of the system until a lens turns them into pixels.
(async () => {
  const $ = (id) => document.getElementById(id);
  const meta = JSON.parse($("meta").textContent);
  const TAU = 2 * Math.PI;
  const TRAIL = Math.max(Math.round(12 / meta.every), 2);  // frames, as films have 12 steps
  const CLOSE = 8;  // pixels from its rim within which a click means an agent
  const EYE = 3.5, FOG = 0.55;  // as painted films have them
  const SPEEDS = [0.125, 0.25, 0.5, 1, 2, 4, 8];
  const KEYS = [["space", "play, pause"], ["← →", "one frame back, ahead"],
    ["Home End", "to the start, to the end"], ["+ −", "faster, slower"],
    ["click", "follow an agent"], ["n p", "follow the next, the one before"],
    ["Esc", "follow nobody"]];

  // --- what the page holds -----------------------------------------------------------------

  async function unpacked() {
    const text = atob($("data").textContent.trim());
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // An array per frame: whole numbers k of `size` bytes, in planes of bytes, each the difference to
  // the frame before where `delta`. A value is (base + k) * step, by column; the largest k is NaN
  // where there are gaps. Where `bits`, k is a single float's.
  class Track {
    constructor(about, bytes) {
      Object.assign(this, about);
      const rows = this.counts ? this.counts.reduce((a, b) => a + b, 0)
        : this.rows * (this.still ? 1 : this.frames);
      const n = rows * this.columns;
      const Kind = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array }[this.size];
      this.codes = new Kind(n);
      for (let plane = 0; plane < this.size; plane++) {
        const from = this.at + plane * n;
        for (let i = 0; i < n; i++) this.codes[i] |= bytes[from + i] << (8 * plane);
      }
      if (this.delta) {
        const width = this.rows * this.columns;
        for (let i = width; i < n; i++) this.codes[i] += this.codes[i - width];
      }
      if (this.bits) this.floats = new Float32Array(this.codes.buffer);
      this.missing = this.gaps ? 2 ** (8 * this.size) - 1 : -1;
      if (this.counts) {
        this.starts = [0];
        for (const count of this.counts) this.starts.push(this.starts.at(-1) + count);
      }
    }
    span(frame) {
      if (this.counts) return [this.starts[frame], this.starts[frame + 1]];
      const at = this.still ? 0 : frame;
      return [at * this.rows, (at + 1) * this.rows];
    }
    raw(frame) {
      const [start, end] = this.span(frame);
      return this.codes.subarray(start * this.columns, end * this.columns);
    }
    values(frame) {
      if (this.bits) {
        const [start, end] = this.span(frame);
        return Float64Array.from(this.floats.subarray(start * this.columns, end * this.columns));
      }
      const raw = this.raw(frame), out = new Float64Array(raw.length), c = this.columns;
      for (let i = 0; i < raw.length; i++) {
        const k = c === 1 ? 0 : i % c;
        out[i] = raw[i] === this.missing ? NaN : (this.base[k] + raw[i]) * this.step[k];
      }
      return out;
    }
    value(frame, row, column) {
      const [start] = this.span(frame);
      const place = (start + row) * this.columns + column;
      if (this.bits) return this.floats[place];
      const k = this.codes[place];
      return k === this.missing ? NaN : (this.base[column] + k) * this.step[column];
    }
  }

  let bytes;
  try {
    bytes = await unpacked();
  } catch (error) {
    $("note").textContent = `This browser cannot unpack the replay (${error.message}); `
      + "one of 2023 or later can.";
    return;
  }
  const worlds = meta.worlds.map((world) => {
    const tracks = {};
    for (const about of world.tracks) tracks[about.name] = new Track(about, bytes);
    return { ...world, tracks };
  });
  const palettes = {};
  for (const [name, hex] of Object.entries(meta.palettes)) {
    palettes[name] = Array.from({ length: hex.length / 6 }, (_, i) =>
      [0, 2, 4].map((k) => parseInt(hex.slice(6 * i + k, 6 * i + k + 2), 16)));
  }
  const rgb = (c, alpha = 1) => `rgba(${c[0]},${c[1]},${c[2]},${alpha})`;
  const GROUND = rgb(meta.colours.background), PANEL = rgb(meta.colours.panel);
  const FAINT = rgb(meta.colours.faint);
  const followedRow = new Map(meta.followed ? meta.followed.map((agent, row) => [agent, row]) : []);
  const rowOf = (agent) => (meta.followed ? followedRow.get(agent) : agent);

  let world = worlds[0], frame = 0, follow = null, playing = false, speed = 1;
  let yaw = 0.5, pitch = 0.35, seen = null;

  function has(name, at = frame) {
    const track = world.tracks[name];
    if (!track) return false;
    const [start, end] = track.span(at);
    return end > start;
  }
  const read = (name, at = frame) => (has(name, at) ? world.tracks[name].values(at) : null);
  const scene = (at) => world.scenes[world.scene[at]];
  const stepOf = (at) => world.tracks.step.value(at, 0, 0);
  const episodeOf = (at) => world.tracks.episode.value(at, 0, 0);
  const alive = (agent, at = frame) => !world.tracks.alive || world.tracks.alive.raw(at)[agent] === 1;

  // --- pictures ----------------------------------------------------------------------------

  function sized(canvas, wide, high) {
    const ratio = window.devicePixelRatio || 1;
    const [w, h] = [Math.max(Math.round(wide * ratio), 1), Math.max(Math.round(high * ratio), 1)];
    if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    return context;
  }

  function lensOf(view, wide, high) {
    const [left, bottom, right, top] = view;
    const scale = Math.min(wide / (right - left), high / (top - bottom));
    const extent = [(right - left) * scale, (top - bottom) * scale];
    const corner = [(wide - extent[0]) / 2, (high - extent[1]) / 2];
    return { scale, extent, corner, x: (x) => (x - left) * scale + corner[0],
      y: (y) => (top - y) * scale + corner[1] };
  }

  // Call draw(dx, dy) for every copy of a shape of that reach that is seen.
  function copies(lens, periodic, x, y, reach, draw) {
    if (!periodic) return draw(0, 0);
    const [w, h] = lens.extent, [l, t] = lens.corner;
    const across = [0], down = [0];
    if (x - reach < l) across.push(w);
    if (x + reach > l + w) across.push(-w);
    if (y - reach < t) down.push(h);
    if (y + reach > t + h) down.push(-h);
    for (const dy of down) for (const dx of across) draw(dx, dy);
  }

  function disc(context, x, y, radius) {
    context.beginPath();
    context.arc(x, y, Math.max(radius, 0.5), 0, TAU);
    context.fill();
  }

  // A straight line that is `start` pixels wide where it begins and `end` where it ends.
  function taper(context, x, y, dx, dy, start, end) {
    const length = Math.hypot(dx, dy);
    if (!(length > 0)) return;
    const [nx, ny] = [-dy / length / 2, dx / length / 2];
    const turn = Math.atan2(dy, dx);
    context.beginPath();
    context.moveTo(x + nx * start, y + ny * start);
    context.arc(x, y, start / 2, turn + Math.PI / 2, turn - Math.PI / 2);
    context.lineTo(x + dx - nx * end, y + dy - ny * end);
    context.arc(x + dx, y + dy, end / 2, turn - Math.PI / 2, turn + Math.PI / 2);
    context.closePath();
    context.fill();
  }

  function polygon(context, x, y, radius, corners, turn) {
    context.beginPath();
    for (let k = 0; k < corners; k++) {
      const angle = turn + (TAU * k) / corners;
      context.lineTo(x + radius * Math.cos(angle), y - radius * Math.sin(angle));
    }
    context.fill();
  }

  function lattice(context, lens, at) {
    const about = scene(at);
    let raw, rows, columns;
    if (about.kept_rows) {
      const track = world.tracks.rows;
      const end = world.tracks.rows_end.value(at, 0, 0);
      const start = Math.max(world.tracks.rows_start.value(at, 0, 0), end - about.kept_rows);
      [rows, columns] = [about.kept_rows, track.columns];
      raw = new Uint8Array(rows * columns);
      raw.set(track.codes.subarray(start * columns, end * columns),
        (rows - (end - start)) * columns);
    } else {
      const track = world.tracks.cells;
      raw = track.raw(at);
      columns = track.columns;
      rows = raw.length / columns;
    }
    const small = document.createElement("canvas");
    [small.width, small.height] = [columns, rows];
    const image = new ImageData(columns, rows);
    for (let i = 0; i < raw.length; i++) {
      const colour = palettes.cells[raw[i]];
      image.data.set(colour, 4 * i);
      image.data[4 * i + 3] = 255;
    }
    small.getContext("2d").putImageData(image, 0, 0);
    context.imageSmoothingEnabled = false;
    context.drawImage(small, ...lens.corner, ...lens.extent);
    return [rows, columns];
  }

  function shortest(lens, periodic, dx, dy) {
    if (!periodic) return [dx, dy];
    const [w, h] = lens.extent;
    return [dx - w * Math.round(dx / w), dy - h * Math.round(dy / h)];
  }

  const colourOf = (about, index) => palettes[about.palette][index];

  function trails(context, lens, at) {
    const about = scene(at);
    const places = [read("discs", at)];
    for (let k = at - 1; k >= 0 && k >= at - TRAIL; k--) {
      if (episodeOf(k) !== episodeOf(at) || !has("discs", k)) break;
      const before = read("discs", k);
      if (before.length !== places[0].length) break;
      places.push(before);
    }
    const n = places[0].length / 2;
    const radius = read("disc_radius", at), shade = colours("disc_value", n, at);
    context.globalCompositeOperation = "lighten";
    for (let k = places.length - 1; k > 0; k--) {
      const fade = 1 - k / (TRAIL + 1), newer = 1 - (k - 1) / (TRAIL + 1);
      for (let i = 0; i < n; i++) {
        const x = lens.x(places[k - 1][2 * i]), y = lens.y(places[k - 1][2 * i + 1]);
        const [dx, dy] = shortest(lens, about.periodic, lens.x(places[k][2 * i]) - x,
          lens.y(places[k][2 * i + 1]) - y);
        const wide = lens.scale * (radius ? radius[i] : 1);
        const colour = colourOf(about, shade[i]);
        const mixed = colour.map((c, j) =>
          c * 0.45 * fade + meta.colours.background[j] * (1 - 0.45 * fade));
        context.fillStyle = rgb(mixed);
        copies(lens, about.periodic, x, y, Math.hypot(dx, dy) + wide, (a, b) =>
          taper(context, x + a, y + b, dx, dy, Math.max(wide * newer, 1), Math.max(wide * fade, 1)));
      }
    }
    context.globalCompositeOperation = "source-over";
  }

  // Places of colours in their palette [n].
  function colours(name, n, at) {
    return has(name, at) ? world.tracks[name].raw(at) : new Uint8Array(n);
  }

  function rings(context, lens, at) {
    const about = scene(at), place = read("rings", at), radius = read("ring_radius", at);
    const n = place.length / 2, shade = colours("ring_value", n, at);
    for (let i = 0; i < n; i++) {
      const x = lens.x(place[2 * i]), y = lens.y(place[2 * i + 1]);
      const r = lens.scale * (radius ? radius[i] : 1), wide = Math.max(0.22 * r, 1.2);
      context.strokeStyle = rgb(colourOf(about, shade[i]));
      context.lineWidth = Math.min(wide, r);
      copies(lens, about.periodic, x, y, r, (a, b) => {
        context.beginPath();
        context.arc(x + a, y + b, Math.max(r - context.lineWidth / 2, 0.1), 0, TAU);
        context.stroke();
      });
    }
  }

  function discs(context, lens, at) {
    const about = scene(at), place = read("discs", at), radius = read("disc_radius", at);
    const n = place.length / 2, shade = colours("disc_value", n, at);
    const corners = read("disc_corners", at), turn = read("disc_turn", at);
    const core = read("disc_core", at);
    trails(context, lens, at);
    for (let i = 0; i < n; i++) {
      const x = lens.x(place[2 * i]), y = lens.y(place[2 * i + 1]);
      const r = lens.scale * (radius ? radius[i] : 1);
      copies(lens, about.periodic, x, y, r, (a, b) => {
        context.fillStyle = rgb(colourOf(about, shade[i]));
        if (corners && corners[i] > 0) {
          polygon(context, x + a, y + b, r, corners[i], turn ? turn[i] : Math.PI / 2);
        } else disc(context, x + a, y + b, r);
        if (core && core[i]) {
          context.fillStyle = core[i] > 0 ? "#fff" : GROUND;
          disc(context, x + a, y + b, Math.max(0.42 * r, 1.1));
        }
      });
    }
    const links = read("links", at);
    for (let k = 0; links && k < links.length; k += 2) {
      const [i, j] = [links[k], links[k + 1]];
      const x = lens.x(place[2 * i]), y = lens.y(place[2 * i + 1]);
      const [dx, dy] = shortest(lens, about.periodic, lens.x(place[2 * j]) - x,
        lens.y(place[2 * j + 1]) - y);
      const r = lens.scale * (radius ? radius[i] : 1);
      context.fillStyle = "rgba(255,255,255,0.95)";
      copies(lens, about.periodic, x, y, Math.hypot(dx, dy), (a, b) =>
        taper(context, x + a, y + b, dx, dy, Math.max(0.2 * r, 1.2), Math.max(0.06 * r, 0.6)));
    }
  }

  const sprites = new Map();
  // A lit ball of one colour, 96 pixels wide.
  function sprite(about, index) {
    const name = `${about.palette} ${index}`;
    if (sprites.has(name)) return sprites.get(name);
    const canvas = document.createElement("canvas"), side = 96, r = side / 2 - 1;
    canvas.width = canvas.height = side;
    const image = new ImageData(side, side), colour = colourOf(about, index);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const dx = (x + 0.5 - side / 2) / r, dy = (y + 0.5 - side / 2) / r;
        const away = Math.hypot(dx, dy), dz = Math.sqrt(Math.max(1 - away * away, 0));
        const lit = Math.max(-0.42 * dx - 0.56 * dy + 0.714 * dz, 0), shine = 0.35 * lit ** 24;
        for (let c = 0; c < 3; c++) {
          const bright = colour[c] * (0.35 + 0.65 * lit);
          image.data[4 * (y * side + x) + c] = bright + (255 - bright) * shine;
        }
        image.data[4 * (y * side + x) + 3] = 255 * Math.min(Math.max((1 - away) * r + 0.5, 0), 1);
      }
    }
    canvas.getContext("2d").putImageData(image, 0, 0);
    sprites.set(name, canvas);
    return canvas;
  }

  // Places [n, 3] as pixels, depth in [-1, 1] and how much nearer they look.
  function turned(lens, about, place) {
    const [left, bottom, right, top] = about.view, half = (right - left) / 2;
    const [c, s, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
    const out = [];
    for (let i = 0; i < place.length; i += 3) {
      const [x, y, z] = [place[i] / half, place[i + 1] / half, place[i + 2] / half];
      const across = c * x + s * z, up = sp * s * x + cp * y - sp * c * z;
      const deep = -cp * s * x + sp * y + cp * c * z;
      const near = EYE / (EYE - Math.min(deep, 0.8 * EYE));
      out.push({ x: lens.x((left + right) / 2 + half * across * near),
        y: lens.y((bottom + top) / 2 + half * up * near), z: deep, near });
    }
    return out;
  }

  function balls(context, lens, at) {
    const about = scene(at), place = read("balls", at), radius = read("disc_radius", at);
    const n = place.length / 3, shade = colours("disc_value", n, at), bonds = read("bonds", at);
    const ball = turned(lens, about, place);
    ball.forEach((b, i) => {
      b.radius = Math.max(lens.scale * (radius ? radius[i] : 1) * b.near, 1);
    });
    const things = ball.map((b, i) => ({ z: b.z, ball: i }));
    for (let k = 0; bonds && k < bonds.length; k += 2) {
      const [a, b] = [ball[bonds[k]], ball[bonds[k + 1]]];
      const thick = 0.22 * (a.radius + b.radius);
      for (const [from, to] of [[0, 0.5], [0.5, 1]]) {
        const at0 = { x: a.x + from * (b.x - a.x), y: a.y + from * (b.y - a.y) };
        const z = a.z + ((from + to) / 2) * (b.z - a.z);
        things.push({ z, stick: [at0.x, at0.y, (to - from) * (b.x - a.x), (to - from) * (b.y - a.y)],
          thick });
      }
    }
    const haze = (z) => FOG * Math.min(Math.max(0.5 - 0.5 * z, 0), 1);
    things.sort((a, b) => a.z - b.z);
    for (const thing of things) {
      const fog = haze(thing.z);
      if (thing.stick) {
        for (const [share, light] of [[1, 0.6], [0.5, 0.95]]) {
          context.fillStyle = rgb([150, 166, 182].map((c, j) =>
            c * light * (1 - fog) + meta.colours.background[j] * fog));
          taper(context, ...thing.stick, thing.thick * share, thing.thick * share);
        }
        continue;
      }
      const b = ball[thing.ball], r = b.radius * 48 / 47;
      context.drawImage(sprite(about, shade[thing.ball]), b.x - r, b.y - r, 2 * r, 2 * r);
      context.fillStyle = rgb(meta.colours.background, fog);
      disc(context, b.x, b.y, b.radius);
      const size = Math.min(1.5 * b.radius, 44);
      if (about.marks.length && size >= 10) {
        context.fillStyle = GROUND;
        context.font = `${size}px system-ui, sans-serif`;
        context.textAlign = "center";
        context.textBaseline = "middle";
        context.fillText(about.marks[thing.ball], b.x, b.y);
      }
    }
    const arrows = read("ball_arrows", at);
    if (arrows) {
      const tip = turned(lens, about, place.map((x, i) => x + arrows[i]));
      context.fillStyle = rgb(meta.colours.arrow, 0.75);
      tip.forEach((t, i) =>
        taper(context, ball[i].x, ball[i].y, t.x - ball[i].x, t.y - ball[i].y, 2.4, 1));
    }
    return ball;
  }

  function strokes(context, lens, name, at, periodic, from, to, colour, ends) {
    const line = read(name, at);
    context.fillStyle = colour;
    for (let i = 0; line && i < line.length; i += 4) {
      const x = lens.x(line[i]), y = lens.y(line[i + 1]);
      const dx = ends ? lens.x(line[i + 2]) - x : lens.scale * line[i + 2];
      const dy = ends ? lens.y(line[i + 3]) - y : -lens.scale * line[i + 3];
      if (Math.hypot(dx, dy) < 2) continue;
      copies(lens, periodic, x, y, Math.hypot(dx, dy), (a, b) =>
        taper(context, x + a, y + b, dx, dy, from, to));
    }
  }

  // Whether a lattice shows one cell, or where its rows are time one column, for each agent.
  function cellsAreAgents(grid) {
    return (scene(frame).kept_rows ? grid[1] : grid[0] * grid[1]) === meta.n_agents;
  }

  function marked(context, lens, at, grid, ball) {
    const about = scene(at), spots = [];
    let colour = "#fff";
    if (has("discs", at)) {
      const place = read("discs", at), radius = read("disc_radius", at), agents = read("agents", at);
      const goal = read("rings", at);
      for (let i = 0; i < place.length / 2; i++) {
        if ((agents ? agents[i] : i) !== follow) continue;
        const r = lens.scale * (radius ? radius[i] : 1);
        spots.push([lens.x(place[2 * i]), lens.y(place[2 * i + 1]), r]);
        if (goal && goal.length === place.length) {
          const x = lens.x(goal[2 * i]), y = lens.y(goal[2 * i + 1]);
          context.fillStyle = "rgba(150,166,182,0.9)";
          taper(context, spots[0][0], spots[0][1], x - spots[0][0], y - spots[0][1], 1, 1);
          spots.push([x, y, r]);
        }
      }
    } else if (ball) {
      if (follow < ball.length) spots.push([ball[follow].x, ball[follow].y, ball[follow].radius]);
    } else if (grid && !about.kept_rows && cellsAreAgents(grid)) {
      const [w, h] = [lens.extent[0] / grid[1], lens.extent[1] / grid[0]];
      const x = lens.corner[0] + (follow % grid[1] + 0.5) * w;
      const y = lens.corner[1] + (Math.floor(follow / grid[1]) + 0.5) * h;
      spots.push([x, y, Math.min(w, h) > 40 ? 0.36 * Math.min(w, h) - 3 : Math.hypot(w, h) / 2]);
      colour = "#ff286e";
    }
    for (const [x, y, r] of spots) {
      copies(lens, about.periodic, x, y, r + 10, (a, b) => {
        for (const [style, wide] of [[GROUND, 5], [colour, 2]]) {
          context.strokeStyle = style;
          context.lineWidth = wide;
          context.beginPath();
          context.arc(x + a, y + b, Math.max(r + 3, 7) + 1, 0, TAU);
          context.stroke();
        }
      });
    }
  }

  function paint() {
    const about = scene(frame), canvas = $("scene");
    const [left, bottom, right, top] = about.view, ratio = (right - left) / (top - bottom);
    const narrow = window.innerWidth <= 760;
    const room = $("stage").clientWidth - 26;
    const below = (about.charts.length || has("plot_y") ? 170 : 0) + $("legend").offsetHeight
      + $("caption").offsetHeight + 30;
    const tall = narrow ? room : Math.max($("stage").clientHeight - below, 180);
    const wide = Math.max(Math.min(room, tall * ratio, 1100), 40);
    const high = Math.min(wide / ratio, narrow ? 1.4 * room : tall);
    const context = sized(canvas, wide, high), lens = lensOf(about.view, wide, high);
    context.fillStyle = GROUND;
    context.fillRect(0, 0, wide, high);
    context.save();
    context.beginPath();
    context.rect(...lens.corner, ...lens.extent);
    context.clip();
    let grid = null, ball = null;
    if (about.kept_rows || has("cells")) grid = lattice(context, lens, frame);
    strokes(context, lens, "segments", frame, false, 2, 2, "rgba(150,166,182,0.9)", true);
    if (has("rings")) rings(context, lens, frame);
    if (has("discs")) discs(context, lens, frame);
    if (has("balls")) ball = balls(context, lens, frame);
    strokes(context, lens, "arrows", frame, about.periodic, 2.4, 1,
      rgb(meta.colours.arrow, 0.75), false);
    if (follow !== null) marked(context, lens, frame, grid, ball);
    context.restore();
    seen = { lens, grid, ball };
  }

  // --- plots -------------------------------------------------------------------------------

  // At most so many round numbers between two, the same distance apart.
  function ticks(low, high, most) {
    if (!(high > low) || most < 1) return [];
    const unit = 10 ** Math.floor(Math.log10(high - low) - 1);
    for (const factor of [1, 2, 2.5, 5, 10, 20, 25, 50, 100, 200, 250, 500]) {
      const width = factor * unit;
      const first = Math.ceil(low / width - 1e-9), last = Math.floor(high / width + 1e-9);
      if (last - first + 1 <= most) {
        return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * width + 0);
      }
    }
    return [];
  }

  function number(value) {
    if (!Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    if (Math.abs(value) >= 1000 || Math.abs(value) < 1e-4) return value.toExponential(1);
    return String(Number(value.toPrecision(3)));
  }
  const tick = (value) => String(Number(value.toPrecision(6)));

  // Ground, title and numbers of a plot in a box; where curves may be drawn.
  function axes(context, box, across, up, title, axis) {
    context.font = "12px system-ui, sans-serif";
    context.textBaseline = "alphabetic";
    const [left, top, wide, high] = box, rows = ticks(...up, 4);
    const margin = Math.max(0, ...rows.map((v) => context.measureText(tick(v)).width)) + 6;
    context.textAlign = "left";
    let x = left + margin, y = top + 12;
    for (const [label, colour] of title) {
      const size = context.measureText(label).width;
      if (x > left + margin && x + size > left + wide) [x, y] = [left + margin, y + 15];
      context.fillStyle = colour;
      context.fillText(label, x, y, wide - margin);
      x += size + 10;
    }
    const area = { left: left + margin, top: y + 6, right: left + wide - 6, bottom: top + high - 18 };
    context.fillStyle = PANEL;
    context.fillRect(area.left, area.top, area.right - area.left, area.bottom - area.top);
    const px = (v) => area.left + (v - across[0]) / (across[1] - across[0] || 1)
      * (area.right - area.left);
    const py = (v) => area.bottom - Math.min(Math.max((v - up[0]) / (up[1] - up[0] || 1), 0), 1)
      * (area.bottom - area.top);
    context.fillStyle = FAINT;
    context.textAlign = "right";
    for (const v of rows) {
      context.fillText(tick(v), area.left - 4, Math.min(Math.max(py(v) + 4, area.top + 9),
        area.bottom));
    }
    const end = area.right - context.measureText(axis).width;
    context.fillText(axis, area.right, area.bottom + 14);
    context.textAlign = "center";
    for (const v of ticks(...across, Math.max(Math.floor(wide / 60), 2))) {
      const size = context.measureText(tick(v)).width;
      const at = Math.min(Math.max(px(v), area.left + size / 2), area.right - size / 2);
      if (at + size / 2 < end - 4) context.fillText(tick(v), at, area.bottom + 14);
    }
    return { area, px, py };
  }

  function curve(context, points, colour) {
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = 1.8;
    context.lineJoin = "round";
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
    if (points.length) disc(context, ...points.at(-1), 2.5);
  }

  // Frames of this episode up to now.
  function past() {
    let first = frame;
    while (first > 0 && episodeOf(first - 1) === episodeOf(frame)) first--;
    return Array.from({ length: frame - first + 1 }, (_, k) => first + k);
  }

  function drawn(context, box, chart, series) {
    const frames = past(), steps = frames.map(stepOf);
    const last = chart.length || Math.max(steps.at(-1), chart.latest || 20);
    const first = chart.latest ? last - chart.latest : 0;
    const levels = Object.entries(chart.levels);
    let [low, high] = [chart.low, chart.high];
    const curves = series.map(([name, value, colour]) => {
      const points = frames.map((at, k) => [steps[k], value(at)])
        .filter(([step, v]) => step >= first && Number.isFinite(v));
      return { name, points, colour };
    });
    if (low === high) {
      const all = [0, ...levels.map(([, v]) => v), ...curves.flatMap((c) => c.points.map((p) => p[1]))];
      [low, high] = [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
      if (!(high > low)) [low, high] = [0, 1];
    }
    const title = curves.map(({ name, points, colour }) =>
      [`${name} ${points.length ? number(points.at(-1)[1]) : ""}`, colour]);
    const level = rgb(meta.colours.level);
    for (const [name, v] of levels) title.push([`- - ${name} ${number(v)}`, level]);
    const { area, px, py } = axes(context, box, [first, last], [low, high], title, "step");
    context.setLineDash([5, 5]);
    context.strokeStyle = level;
    context.lineWidth = 1;
    for (const [, v] of levels) {
      context.beginPath();
      context.moveTo(area.left, py(v));
      context.lineTo(area.right, py(v));
      context.stroke();
    }
    context.setLineDash([]);
    for (const { points, colour } of curves) {
      curve(context, points.map(([x, y]) => [px(x), py(y)]), colour);
    }
  }

  function plots() {
    const about = scene(frame), canvas = $("plots"), fields = about.plot ? about.plot.labels.length : 0;
    const count = fields + about.charts.length;
    canvas.hidden = !count;
    if (!count) return;
    const wide = $("stage").clientWidth - 26, high = 160;
    const context = sized(canvas, wide, high);
    context.fillStyle = GROUND;
    context.fillRect(0, 0, wide, high);
    const each = wide / count;
    if (fields) {
      const x = read("plot_x"), y = read("plot_y"), usual = read("plot_usual"), n = x.length;
      for (let k = 0; k < fields; k++) {
        const { area, px, py } = axes(context, [k * each, 0, each - 4, high], [x[0], x[n - 1]],
          [0, about.plot.top], [[about.plot.labels[k], FAINT]], about.plot.axis);
        context.fillStyle = rgb(meta.colours.fill);
        context.beginPath();
        context.moveTo(area.left, area.bottom);
        for (let i = 0; i < n; i++) context.lineTo(px(x[i]), py(y[k * n + i]));
        context.lineTo(area.right, area.bottom);
        context.fill();
        context.strokeStyle = rgb(meta.colours.line);
        context.lineWidth = 1.5;
        context.beginPath();
        for (let i = 0; i < n; i++) context.lineTo(px(x[i]), py(usual[k * n + i]));
        context.stroke();
      }
    }
    let place = 0;
    about.charts.forEach((chart, k) => {
      const names = [...chart.series, ...chart.metrics];
      const series = names.map((name, j) => {
        const colour = chart.colours.length ? palettes.alarm[Math.floor(255 * chart.colours[j])]
          : meta.colours.series[j % meta.colours.series.length];
        const row = j < chart.series.length ? place + j : meta.metrics.indexOf(name);
        const track = world.tracks[j < chart.series.length ? "series" : "metrics"];
        return [name, (at) => (row < 0 || !track ? NaN : track.value(at, 0, row)), rgb(colour)];
      });
      place += chart.series.length;
      drawn(context, [(fields + k) * each, 0, each - 4, high], chart, series);
    });
  }

  // --- words -------------------------------------------------------------------------------

  function fill(body, rows) {
    body.replaceChildren(...rows.map(([label, value]) => {
      const row = document.createElement("tr"), head = document.createElement("th");
      const cell = document.createElement("td");
      head.scope = "row";
      [head.textContent, cell.textContent] = [label, value];
      if (/[a-z] [a-z]/.test(value)) cell.className = "words";
      row.append(head, cell);
      return row;
    }));
  }

  let legendShown = null;
  function legend() {
    const about = scene(frame);
    if (legendShown === about.legend) return;
    legendShown = about.legend;
    $("legend").replaceChildren(...about.legend.map((entry) => {
      const item = document.createElement("li");
      if (entry.shape !== "none") {
        const canvas = document.createElement("canvas");
        const wide = entry.shape === "scale" ? 54 : 20, context = sized(canvas, wide, 18);
        sample(context, entry, wide);
        item.append(canvas);
      }
      item.append(entry.label);
      return item;
    }));
  }

  function sample(context, entry, wide) {
    const value = Math.floor(255 * Math.min(Math.max(entry.value, 0), 1));
    const colour = rgb(palettes[entry.palette][value]), radius = 8 * entry.size;
    const plain = { fill: rgb(meta.colours.fill), cell: rgb(palettes.cells[value]) };
    if (entry.shape === "scale") {
      for (let x = 0; x < wide; x++) {
        context.fillStyle = rgb(palettes[entry.palette][Math.floor((255 * x) / (wide - 1))]);
        context.fillRect(x, 2, 1.5, 14);
      }
    } else if (plain[entry.shape]) {
      context.fillStyle = plain[entry.shape];
      context.fillRect(1, 1, wide - 2, 16);
    } else if (entry.shape === "ring") {
      context.strokeStyle = colour;
      context.lineWidth = Math.max(0.22 * radius, 1.2);
      context.beginPath();
      context.arc(10, 9, Math.max(radius - context.lineWidth / 2, 1), 0, TAU);
      context.stroke();
    } else if (entry.shape === "disc") {
      context.fillStyle = colour;
      if (entry.corners) polygon(context, 10, 9, radius, entry.corners, Math.PI / 2);
      else disc(context, 10, 9, radius);
      if (entry.core) {
        context.fillStyle = entry.core > 0 ? "#fff" : GROUND;
        disc(context, 10, 9, Math.max(0.42 * radius, 1.1));
      }
    } else {
      const looks = { arrow: [rgb(meta.colours.arrow, 0.75), 2.4, 1], link: ["#fff", 4, 1],
        segment: ["rgba(150,166,182,0.9)", 2, 2], line: [rgb(meta.colours.line), 2, 2] };
      const [style, start, end] = looks[entry.shape];
      context.fillStyle = style;
      taper(context, 2, 9, wide - 4, 0, start, end);
    }
  }

  function words() {
    const step = stepOf(frame);
    $("caption").textContent = world.captions[world.caption[frame]].join("\n");
    $("where").textContent = `step ${step} of ${meta.horizon}`;
    $("scrub").value = frame;
    $("scrub").setAttribute("aria-valuetext", `step ${step}`);
    const rows = [];
    if (worlds.length > 1) rows.push(["world", String(worlds.indexOf(world) + 1)]);
    if (episodeOf(frame) > 0) rows.push(["episode", String(episodeOf(frame) + 1)]);
    rows.push(["step", `${step} of ${meta.horizon}`]);
    meta.metrics.forEach((name, k) => {
      const value = world.tracks.metrics.value(frame, 0, k);
      const waits = step > 0 && step <= meta.warm_up;
      if (step > 0) rows.push([name, waits ? `from step ${meta.warm_up + 1} on` : number(value)]);
    });
    fill($("episode").tBodies[0], rows);
  }

  function agentWords() {
    const body = $("agent").tBodies[0], losses = $("losses");
    losses.hidden = true;
    if (follow === null) {
      const shown = has("discs") || has("balls") || meta.n_agents === 1
        || (seen && seen.grid && cellsAreAgents(seen.grid));
      $("agent-name").textContent = shown ? "click an agent" : "n and p follow an agent";
      return fill(body, []);
    }
    $("agent-name").textContent = `${meta.agent}_${follow}`;
    if (!alive(follow)) return fill(body, [["has left", ""]]);
    const row = rowOf(follow);
    if (row === undefined) {
      return fill(body, [["values", `kept of ${meta.followed.length} of ${meta.n_agents} agents, `
        + "so that the page stays small"]]);
    }
    const loss = (at) => (alive(follow, at) ? world.tracks.loss.value(at, row, 0) : NaN);
    const rows = [["loss", number(loss(frame))]];
    for (const about of meta.invariants) {
      const values = Array.from({ length: about.shown }, (_, k) =>
        number(world.tracks.values.value(frame, row, about.at + k)));
      rows.push([about.name, values.join("  ") + (about.width > about.shown ? " …" : "")]);
    }
    fill(body, rows);
    losses.hidden = false;
    const wide = $("panel").clientWidth - 32, context = sized(losses, wide, 130);
    context.fillStyle = PANEL;
    context.fillRect(0, 0, wide, 130);
    drawn(context, [0, 0, wide, 130], { low: 0, high: 0, levels: {}, length: 0, latest: 0 },
      [["loss", loss, rgb(meta.colours.series[0])]]);
  }

  // --- what a person does ------------------------------------------------------------------

  function draw() {
    legend();
    words();
    plots();
    paint();
    agentWords();
    $("play-icon").setAttribute("d", playing ? "M2.5 2h2.4v8H2.5zM7.1 2h2.4v8H7.1z"
      : "M3 1.5v9l7-4.5z");
    $("play").setAttribute("aria-label", playing ? "pause" : "play");
  }

  function show(at) {
    frame = Math.min(Math.max(Math.round(at) || 0, 0), world.frames - 1);
    draw();
  }

  let due = 0, before = null;
  function tickOn(now) {
    if (!playing) return;
    due += Math.min((now - (before ?? now)) / 1000, 0.25) * meta.fps * speed;
    before = now;
    const ahead = Math.floor(due);
    if (ahead > 0) {
      due -= ahead;
      frame = Math.min(frame + ahead, world.frames - 1);
      if (frame === world.frames - 1) playing = false;
      draw();
    }
    if (playing) requestAnimationFrame(tickOn);
  }

  function play() {
    if (playing || world.frames < 2) return;
    if (frame === world.frames - 1) frame = 0;
    [playing, due, before] = [true, 0, null];
    draw();
    requestAnimationFrame(tickOn);
  }

  function pause() {
    playing = false;
    draw();
  }

  const stepBy = (n) => { playing = false; show(frame + n); };

  function setSpeed(value) {
    speed = value;
    $("speed").value = String(value);
  }

  function setFollow(agent) {
    follow = agent;
    draw();
  }

  function followNext(way) {
    for (let k = 1; k <= meta.n_agents; k++) {
      const base = follow === null ? (way > 0 ? -1 : 0) : follow;
      const agent = (((base + way * k) % meta.n_agents) + meta.n_agents) % meta.n_agents;
      if (alive(agent)) return setFollow(agent);
    }
  }

  function setWorld(index) {
    world = worlds[index];
    $("world").value = String(index);
    $("scrub").max = world.frames - 1;
    show(frame);
  }

  function agentAt(x, y) {
    const { lens, grid, ball } = seen, about = scene(frame);
    const inside = x >= lens.corner[0] && x < lens.corner[0] + lens.extent[0]
      && y >= lens.corner[1] && y < lens.corner[1] + lens.extent[1];
    let best = null, least = CLOSE, nearest = -Infinity;
    if (ball) {
      ball.forEach((b, i) => {
        const gap = Math.hypot(b.x - x, b.y - y) - b.radius;
        if (gap <= 0 && b.z > nearest) [best, nearest] = [i, b.z];
        else if (nearest === -Infinity && gap < least) [best, least] = [i, gap];
      });
      return best !== null && best < meta.n_agents ? best : null;
    }
    if (!inside) return null;
    if (has("discs")) {
      const place = read("discs"), radius = read("disc_radius"), agents = read("agents");
      for (let i = 0; i < place.length / 2; i++) {
        const [dx, dy] = shortest(lens, about.periodic, lens.x(place[2 * i]) - x,
          lens.y(place[2 * i + 1]) - y);
        const gap = Math.hypot(dx, dy) - lens.scale * (radius ? radius[i] : 1);
        const agent = agents ? agents[i] : i;
        if (gap <= least && agent < meta.n_agents) [best, least] = [agent, gap];
      }
      return best;
    }
    if (meta.n_agents === 1) return 0;
    if (!grid || !cellsAreAgents(grid)) return null;
    const row = Math.floor(((y - lens.corner[1]) / lens.extent[1]) * grid[0]);
    const column = Math.floor(((x - lens.corner[0]) / lens.extent[0]) * grid[1]);
    return about.kept_rows ? column : row * grid[1] + column;
  }

  let held = null, dragged = 0;
  $("scene").addEventListener("pointerdown", (event) => {
    [held, dragged] = [[event.clientX, event.clientY], 0];
  });
  window.addEventListener("pointermove", (event) => {
    if (!held) return;
    const [dx, dy] = [event.clientX - held[0], event.clientY - held[1]];
    held = [event.clientX, event.clientY];
    dragged += Math.hypot(dx, dy);
    if (!seen.ball) return;
    yaw += 0.01 * dx;
    pitch = Math.min(Math.max(pitch + 0.01 * dy, -Math.PI / 2), Math.PI / 2);
    paint();
  });
  window.addEventListener("pointerup", (event) => {
    if (held && dragged < 5) {
      const box = $("scene").getBoundingClientRect();
      setFollow(agentAt(event.clientX - box.left, event.clientY - box.top));
    }
    held = null;
  });

  const changeSpeed = (way) => {
    const at = SPEEDS.indexOf(speed) + way;
    if (at >= 0 && at < SPEEDS.length) setSpeed(SPEEDS[at]);
  };
  const ACTIONS = {
    " ": () => (playing ? pause() : play()),
    ArrowRight: () => stepBy(1), ArrowLeft: () => stepBy(-1),
    Home: () => stepBy(-Infinity), End: () => stepBy(world.frames),
    "+": () => changeSpeed(1), "=": () => changeSpeed(1), "-": () => changeSpeed(-1),
    n: () => followNext(1), p: () => followNext(-1), Escape: () => setFollow(null),
    w: () => setWorld((worlds.indexOf(world) + 1) % worlds.length),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const where = event.target.tagName;
    if (where === "SELECT") return;
    if (event.key === " " && (where === "BUTTON" || where === "SUMMARY")) return;  // presses that
    const action = ACTIONS[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
  $("first").onclick = () => stepBy(-Infinity);
  $("back").onclick = () => stepBy(-1);
  $("ahead").onclick = () => stepBy(1);
  $("play").onclick = () => (playing ? pause() : play());
  $("scrub").oninput = (event) => { playing = false; show(Number(event.target.value)); };
  $("speed").onchange = (event) => setSpeed(Number(event.target.value));
  $("world").onchange = (event) => setWorld(Number(event.target.value));
  window.addEventListener("resize", draw);

  $("subtitle").textContent = meta.subtitle;
  $("note").textContent = meta.every > 1 ? `One step of ${meta.every} is shown.` : "";
  $("scrub").max = world.frames - 1;
  for (const value of SPEEDS) $("speed").append(new Option(`${value}×`, String(value)));
  setSpeed(1);
  worlds.forEach((_, k) => $("world").append(new Option(String(k + 1), String(k))));
  $("world-choice").hidden = worlds.length < 2;
  if (worlds.length > 1) KEYS.push(["w", "the next world"]);
  if (has("balls", 0)) KEYS.push(["drag", "turn"]);
  fill($("keys").tBodies[0], KEYS);

  // #frame=12&follow=3 opens the page there, paused; #paused opens it paused.
  const asked = new URLSearchParams(location.hash.slice(1));
  const agent = Number(asked.get("follow"));
  if (asked.has("follow") && Number.isInteger(agent) && agent >= 0 && agent < meta.n_agents) {
    follow = agent;
  }
  show(Number(asked.get("frame")));
  window.replay = {
    get frame() { return frame; }, get step() { return stepOf(frame); },
    get frames() { return world.frames; }, get follow() { return follow; },
    get playing() { return playing; }, get speed() { return speed; },
    get world() { return worlds.indexOf(world); },
    get lens() { return seen.lens; },
    get balls() { return seen.ball; },
    values: (name, at) => Array.from(read(name, at) ?? []),
    show, play, pause, setFollow, setWorld, agentAt,
  };
  const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (!asked.has("frame") && !asked.has("paused") && !still) play();
})();
