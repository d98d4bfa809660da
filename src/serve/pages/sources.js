// Sources: rate, smallest face and regions.
import { ask, asJson, byId, make, note } from "./common.js";

const failed = (error) => note(error.message, true);
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const corners = (area) => area.map(([x, y]) => `${x},${y}`).join(" ");

export async function sources() {
  const place = byId("sources");
  const change = async (source, values, done) => {
    try {
      const changed = await ask(`/api/v1/sources/${source.name}`, asJson("PATCH", values));
      note(done);
      return changed;
    } catch (error) {
      failed(error);
      return source;
    }
  };
  const tile = (first) => {
    let source = first;
    let drawing = null;
    const picture = make("img", { alt: `Picture of ${source.name}`, src: `/api/v1/sources/${source.name}/video` });
    const areas = svg("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", class: "areas" });
    const screen = make("div", { class: "screen draw" }, picture, areas);
    const show = () => {
      areas.replaceChildren();
      for (const kind of ["watch", "ignore"]) {
        for (const area of source[kind]) areas.append(svg("polygon", { points: corners(area), class: kind }));
      }
      if (drawing) areas.append(svg("polyline", { points: corners(drawing.area), class: drawing.kind }));
      done.hidden = !drawing;
      finish.disabled = !drawing || drawing.area.length < 3;
      clear.hidden = Boolean(drawing) || source.watch.length + source.ignore.length === 0;
      watch.hidden = ignore.hidden = Boolean(drawing);
    };
    screen.addEventListener("click", ({ clientX, clientY }) => {
      if (!drawing) return;
      const box = picture.getBoundingClientRect();
      const share = (value) => Math.round(Math.min(1, Math.max(0, value)) * 1000) / 1000;
      drawing.area.push([share((clientX - box.left) / box.width), share((clientY - box.top) / box.height)]);
      show();
    });
    const begin = (kind) => () => {
      drawing = { kind, area: [] };
      note("Click on the corners of the region, then on Finish.");
      show();
    };
    const watch = make("button", { class: "quiet watch", onclick: begin("watch") }, "Watch a region");
    const ignore = make("button", { class: "quiet ignore", onclick: begin("ignore") }, "Ignore a region");
    const finish = make("button", { class: "finish", onclick: async () => {
      const { kind, area } = drawing;
      drawing = null;
      source = await change(source, { [kind]: [...source[kind], area] }, `The region of ${source.name} is in force.`);
      show();
      again();
    } }, "Finish");
    const stop = make("button", { class: "quiet", onclick: () => { drawing = null; show(); note(""); } }, "Cancel");
    const done = make("span", { class: "buttons" }, finish, stop);
    const clear = make("button", { class: "danger clear", onclick: async () => {
      source = await change(source, { watch: [], ignore: [] }, `${source.name} has no regions.`);
      show();
      again();
    } }, "Remove regions");
    const fps = make("input", { name: "fps", type: "number", min: 0.1, max: 60, step: 0.1, value: source.fps, required: true });
    const face = make("input", { name: "min_face", value: source.min_face ?? "40px", required: true, size: 6 });
    const enabled = make("input", { name: "enabled", type: "checkbox", checked: source.enabled });
    const form = make("form", { class: "row", onsubmit: async (event) => {
      event.preventDefault();
      const values = { fps: Number(fps.value), min_face: face.value, enabled: enabled.checked };
      source = await change(source, values, `${source.name} is changed.`);
      again();
    } },
      make("label", {}, "Frames per second", fps),
      make("label", {}, "Smallest face", face),
      make("label", {}, "Runs", enabled),
      make("button", {}, "Save"));
    // The source was restarted, and with it its pictures.
    const again = () => { picture.src = `/api/v1/sources/${source.name}/video?${Date.now()}`; };
    show();
    return make("figure", { class: "tile", "data-source": source.name }, screen,
      make("figcaption", {}, make("strong", {}, source.name), make("span", {}, source.input)),
      make("div", { class: "buttons inside" }, watch, ignore, done, clear), form);
  };
  const { sources: all } = await ask("/api/v1/sources");
  place.replaceChildren(...all.map(tile));
  if (all.length === 0) note("There are no sources yet: set some in the configuration, or with --source.");
}
