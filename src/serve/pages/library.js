// The people in the videos and photos of the library.
import { ask, byId, make, note } from "./common.js";

const failed = (error) => note(error.message, true);
const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
const day = (time) => time.slice(0, 10);

/** Seconds as minutes or hours, for people. */
function clock(seconds) {
  const [whole, rest] = [Math.floor(seconds / 60), (seconds % 60).toFixed(1).padStart(4, "0")];
  const hours = Math.floor(whole / 60);
  return hours ? `${hours}:${String(whole % 60).padStart(2, "0")}:${rest}` : `${whole}:${rest}`;
}

function length(seconds) {
  return seconds < 120 ? `${Math.round(seconds)} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** The time spans of a person in a video, as a line over its whole length. */
function bar(spans, duration) {
  const draw = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const line = draw("svg", { class: "bar", viewBox: "0 0 1000 10", preserveAspectRatio: "none", "aria-hidden": "true" });
  for (const [from, to] of spans) {
    line.append(draw("rect", { x: 1000 * from / duration, width: Math.max(2, 1000 * (to - from) / duration), y: 0, height: 10 }));
  }
  return line;
}

function file(found) {
  const path = found.paths[0] ?? "";
  const name = path.split("/").pop() || "(no longer there)";
  const copies = found.paths.length > 1 ? ` (and ${count(found.paths.length - 1, "copy").replace("copys", "copies")})` : "";
  const pictures = found.people.map((one) => {
    const who = one.name ?? `stranger ${one.stranger}`;
    const picture = make("img", { src: one.picture, alt: who, loading: "lazy" });
    // Workers may store no pictures.
    picture.addEventListener("error", () => picture.remove());
    return make("figure", {}, picture, make("figcaption", {}, who));
  });
  const times = found.spans_s.map(([from, to]) => make("li", {}, `${clock(from)}–${clock(to)}`));
  return make("li", { "data-content": found.content },
    make("div", { class: "faces" }, ...pictures),
    make("div", {},
      make("strong", {}, name), copies,
      make("div", { class: "why" }, path),
      make("div", { class: "soft" }, `${found.taken.replace("T", " ")}${found.duration_s ? ` · ${length(found.duration_s)}` : ""}`),
      ...(found.duration_s ? [bar(found.spans_s, found.duration_s)] : []),
      make("ul", { class: "times" }, ...times)));
}

export async function library() {
  const [form, list, more, told] = [byId("find"), byId("files"), byId("more"), byId("found")];
  const query = () => {
    const wanted = new URLSearchParams();
    for (const [name, value] of new FormData(form)) {
      if (value) wanted.append(name === "other" ? "person" : name, name === "together" ? "true" : value);
    }
    return wanted;
  };
  const show = async (skip) => {
    const wanted = query();
    try {
      history.replaceState(null, "", `?${wanted}`);
      if (skip) wanted.set("skip", skip);
      const { count: all, files } = await ask(`/api/v1/library/files?${wanted}`);
      if (skip) list.append(...files.map(file));
      else list.replaceChildren(...files.map(file));
      more.hidden = list.children.length >= all;
      told.hidden = false;
      told.textContent = all ? `${count(all, "file")}:` : "There is no such file.";
      note("");
    } catch (error) {
      list.replaceChildren();
      more.hidden = told.hidden = true;
      failed(error);
    }
  };
  const card = (person) => {
    const look = (event) => {
      event.preventDefault();
      form.reset();
      form.person.value = person.name;
      show();
      scrollTo(0, 0);
    };
    const parts = [
      ...(person.videos ? [`${count(person.videos, "video")} (${length(person.screen_s)})`] : []),
      ...(person.photos ? [count(person.photos, "photo")] : []),
    ];
    const days = day(person.first) === day(person.last) ? day(person.first) : `${day(person.first)} to ${day(person.last)}`;
    return make("article", { class: "card", "data-person": person.name },
      make("h3", {}, make("a", { href: `?${new URLSearchParams({ person: person.name })}`, onclick: look }, person.name)),
      make("p", {}, parts.join(", ")),
      make("p", {}, days));
  };

  const [state, { people }] = await Promise.all([ask("/api/v1/library"), ask("/api/v1/library/people")]);
  byId("names").replaceChildren(...people.map(({ name }) => make("option", { value: name })));
  byId("people").replaceChildren(...people.map(card));
  if (people.length === 0) note("Nobody in the library has a name yet.");
  const kind = ({ done, due, failed, duration_s }) => [
    `${done} done${duration_s ? ` (${length(duration_s)})` : ""}`,
    ...(due ? [`${due} due`] : []),
    ...(failed ? [`${failed} failed`] : []),
  ].join(", ");
  const facts = [
    ["Videos", kind(state.videos)],
    ["Photos", kind(state.photos)],
    ["Faces followed", `${state.tracks}, ${state.named} of them with a name`],
    ["Workers now", state.workers],
    ...(state.missing ? [["Files no longer there", state.missing]] : []),
    ["Where", state.place],
  ];
  byId("figures").replaceChildren(...facts.map(([what, value]) => make("div", {}, make("dt", {}, what), make("dd", {}, String(value)))));
  byId("failures").replaceChildren(...state.failures.map(({ path, error }) => make("li", {}, `${path}: ${error}`)));
  byId("state").hidden = form.hidden = false;

  more.addEventListener("click", () => show(list.children.length));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  const asked = new URLSearchParams(location.search);
  const [first, second] = asked.getAll("person");
  if (first) {
    form.person.value = first;
    form.other.value = second ?? "";
    form.together.checked = asked.get("together") === "true";
    for (const name of ["after", "before", "kind"]) if (asked.has(name)) form[name].value = asked.get(name);
    await show();
  }
}
