"use strict";
// Footprints on a plain map: longitude across, latitude up, equal lengths of a degree at the middle latitude.
const places = (() => {
  const svg = document.getElementById("map");
  const SVG = "http://www.w3.org/2000/svg";
  const STEPS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 45, 90];
  const LABEL = 60;  // pixels that the label of a line may take
  const SMALLEST = 6;  // pixels of a footprint that would be too small to see
  let view = null, known = [], actions = null, chosen = null, hits = [];

  function shape(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  function fit(bounds) {
    const [west, south, east, north] = bounds;
    const width = svg.clientWidth, height = svg.clientHeight;
    const middle = (south + north) / 2, squeeze = Math.max(0.2, Math.cos(middle * Math.PI / 180));
    const scale = Math.min(width / (Math.max(east - west, 1e-4) * squeeze), height / Math.max(north - south, 1e-4)) * 0.85;
    return {width, height, middle, centre: (west + east) / 2, across: scale * squeeze, up: scale, bounds};
  }

  const x = longitude => view.width / 2 + (longitude - view.centre) * view.across;
  const y = latitude => view.height / 2 - (latitude - view.middle) * view.up;
  const longitude = at => Math.min(180, Math.max(-180, view.centre + (at - view.width / 2) / view.across));
  const latitude = at => Math.min(90, Math.max(-90, view.middle - (at - view.height / 2) / view.up));

  function grid() {
    const step = STEPS.find(each => each * view.across > 2 * LABEL) || 90;
    const digits = Math.max(0, -Math.floor(Math.log10(step)));
    const lines = [];
    for (let at = Math.ceil(longitude(0) / step) * step; at <= longitude(view.width); at += step) {
      const before = x(at) > view.width - LABEL;  // the label would not fit between its line and the edge
      const place = {x: x(at) + (before ? -3 : 3), y: view.height - 5, "text-anchor": before ? "end" : "start"};
      lines.push(shape("line", {x1: x(at), x2: x(at), y1: 0, y2: view.height}), shape("text", place, `${at.toFixed(digits)}°`));
    }
    for (let at = Math.ceil(latitude(view.height) / step) * step; at <= latitude(0); at += step)
      lines.push(shape("line", {y1: y(at), y2: y(at), x1: 0, x2: view.width}), shape("text", {x: 3, y: y(at) - 3}, `${at.toFixed(digits)}°`));
    return lines;
  }

  function rectangles(footprint, attributes) {
    const [west, south, east, north] = footprint;
    const spans = west <= east ? [[west, east]] : [[west, 180], [-180, east]];
    return spans.map(([left, right]) => {
      const width = Math.max((right - left) * view.across, SMALLEST), height = Math.max((north - south) * view.up, SMALLEST);
      return shape("rect", {x: x((left + right) / 2) - width / 2, y: y((south + north) / 2) - height / 2, width, height, ...attributes});
    });
  }

  function draw() {
    if (!view) return;
    view = fit(view.bounds);
    const found = new Set(hits.map(hit => hit.id));
    const quiet = known.filter(place => !found.has(place.id)).flatMap(place => rectangles(place.footprint, {class: "place", "data-id": place.id}));
    const bright = hits.filter(hit => hit.footprint).reverse().flatMap(hit => rectangles(hit.footprint, {class: "hit", "data-id": hit.id}));
    svg.replaceChildren(...grid(), ...quiet, ...bright, ...(chosen ? rectangles(chosen, {class: "chosen"}) : []));
  }

  function choose(box) {
    chosen = box;
    document.getElementById("everywhere").hidden = !box;
    document.getElementById("bbox").textContent = box ? `only ${box.map(each => each.toFixed(3)).join(", ")}` : "drag a rectangle to search in it";
    draw();
    actions.within(box ? box.join(",") : "");
  }

  function drag(event) {
    const area = svg.getBoundingClientRect();
    const at = each => [each.clientX - area.left, each.clientY - area.top];
    const start = at(event);
    const box = each => {
      const [across, down] = at(each);
      const longitudes = [longitude(start[0]), longitude(across)].sort((a, b) => a - b);
      const latitudes = [latitude(start[1]), latitude(down)].sort((a, b) => a - b);
      return [longitudes[0], latitudes[0], longitudes[1], latitudes[1]];
    };
    const far = each => Math.hypot(each.clientX - event.clientX, each.clientY - event.clientY) > 5;
    svg.setPointerCapture(event.pointerId);
    svg.onpointermove = each => { if (far(each)) { chosen = box(each); draw(); } };
    svg.onpointerup = each => {
      svg.onpointermove = svg.onpointerup = null;
      if (far(each)) choose(box(each));
      else if (event.target.dataset.id) actions.open(event.target.dataset.id);
    };
  }

  return {
    begin(bounds, footprints, does) {
      [known, actions] = [footprints, does];
      document.getElementById("place").hidden = false;
      view = fit(bounds);
      document.getElementById("bbox").textContent = "drag a rectangle to search in it";
      document.getElementById("everywhere").addEventListener("click", () => choose(null));
      svg.addEventListener("pointerdown", drag);
      new ResizeObserver(draw).observe(svg);
      draw();
    },
    highlight(found) { hits = found; draw(); },
  };
})();
